"""One lead of a WFDB record in format 16, from bytes: a file on disk or a member of an archive.

PTB-XL, CSN and PhysioNet 2017 all come as 16-bit samples, interleaved by lead, behind a text header (WFDB
Applications Guide, header(5) and signal(5); a ``.mat`` has 24 bytes of MATLAB 4 header before them, which
the header line counts). The wfdb package reads paths only and twelve leads at a time; the tests hold this
module against it, bit for bit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune.errors import DataError
from finetune.file_kinds import EMPTY, START, TEXT, kind_of

FORMAT = re.compile(r"16(?:x1)?(?::0)?(?:\+(\d+))?")
GAIN = re.compile(r"([-+.\deE]+)(?:\(([-+]?\d+)\))?(?:/(\S+))?")
DEFAULT_GAIN = 200.0
"""ADC units per mV where a header says 0 (header(5))."""
INVALID = -32768
"""The sample of format 16 that stands for no value (signal(5))."""


@dataclass(frozen=True)
class SignalLine:
    """What a header says of one lead."""

    name: str
    gain: float
    """ADC units per mV."""
    baseline: int
    """ADC value of 0 mV."""
    checksum: int
    """16-bit sum of the samples; 0 where the writer left it out (PhysioNet 2017)."""


@dataclass(frozen=True)
class Header:
    """What a header file says of a record."""

    rate_hz: float
    samples: int
    offset: int
    """Bytes before the first sample."""
    leads: tuple[SignalLine, ...]
    comments: tuple[str, ...]
    """Lines that begin with ``#``, without it, stripped."""


@dataclass(frozen=True)
class LeadSamples:
    """One lead as it is stored."""

    samples: NDArray[np.int16]
    """(T,) ADC units."""
    line: SignalLine

    def millivolts(self) -> NDArray[np.float32]:
        """Return the samples (T,) in mV."""
        return (self.samples.astype(np.float32) - self.line.baseline) / np.float32(self.line.gain)


def parse_header(content: bytes, source: str, mend: str) -> Header:
    """Return what the bytes of a header file say; ``source`` names the file in a :class:`DataError`."""
    kind = kind_of(content[:START])
    if kind is not None and kind not in (TEXT, EMPTY):
        raise DataError(f"{source} is {kind.name}, no WFDB header of 16-bit signals", "a WFDB header", mend)
    lines = [line.strip() for line in content.decode("latin-1").splitlines() if line.strip()]
    comments = tuple(line.lstrip("#").strip() for line in lines if line.startswith("#"))
    fields = [line.split() for line in lines if not line.startswith("#")]
    if not fields:
        raise DataError(f"{source} is empty", "a WFDB header", mend)
    try:
        count, rate_hz, samples = int(fields[0][1]), float(fields[0][2].split("/")[0]), int(fields[0][3])
        parsed = [_signal_line(line) for line in fields[1 : count + 1]]
    except (ValueError, IndexError) as error:
        what = f"{source} is no WFDB header of 16-bit signals ({' '.join(str(error).split())})"
        raise DataError(what, "name, signals, rate, samples, then a line a signal", mend) from error
    if not 0 < count == len(parsed):
        raise DataError(
            f"{source} describes {len(parsed)} signals of {count}", "all (is it truncated?)", mend
        )
    return Header(rate_hz, samples, parsed[0][1], tuple(line for line, _ in parsed), comments)


def _signal_line(fields: list[str]) -> tuple[SignalLine, int]:
    """Return one signal line and its byte offset; raises ValueError or IndexError."""
    storage, gain = FORMAT.fullmatch(fields[1]), GAIN.fullmatch(fields[2])
    if storage is None or gain is None:
        raise ValueError(f"signal line {' '.join(fields)!r}")
    if (gain[3] or "mV") != "mV":
        raise ValueError(f"unit {gain[3]!r}")
    baseline = int(gain[2]) if gain[2] else int(fields[4])
    name = " ".join(fields[8:])
    line = SignalLine(name, float(gain[1]) or DEFAULT_GAIN, baseline, int(fields[6]))
    return line, int(storage[1] or 0)


def lead_samples(header: Header, content: bytes, lead: int, source: str, mend: str) -> LeadSamples:
    """Return lead number ``lead`` (from 0) out of the bytes of a signal file.

    Raises :class:`DataError` naming ``source`` for missing bytes, a wrong checksum, or a sample marked
    invalid.
    """
    if lead >= len(header.leads):
        raise DataError(f"{source} has {len(header.leads)} leads", f"{lead + 1} or more", mend)
    count, line = len(header.leads), header.leads[lead]
    needed = header.offset + 2 * count * header.samples
    if len(content) < needed:
        kind = kind_of(content[:START])
        what = f"{source} has {len(content)} bytes" + (f": it is {kind.name}" if kind else "")
        raise DataError(what, f"{needed} for {header.samples} samples (is it truncated?)", mend)
    frames = np.frombuffer(content, "<i2", count * header.samples, header.offset).reshape(-1, count)
    samples = frames[:, lead].astype(np.int16)
    if line.checksum and (int(samples.sum(dtype=np.int64)) - line.checksum) % 65536:
        raise DataError(f"{source}: the samples of lead {line.name} are not as written", "its checksum", mend)
    if (samples == INVALID).any():
        raise DataError(f"{source}: lead {line.name} has samples marked invalid", "values", mend)
    return LeadSamples(samples, line)
