"""The readers of the public data sets, one module each, found by the name in a task's ``dataset``."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from finetune.datasets.base import LeadReader, Reader
from finetune.errors import SettingError, UnknownNameError

READERS = {
    "bidmc": "finetune.datasets.bidmc",
    "cpsc2018": "finetune.datasets.cpsc2018",
    "csn": "finetune.datasets.csn",
    "physionet2017": "finetune.datasets.physionet2017",
    "ppg_bp": "finetune.datasets.ppg_bp",
    "ppg_dalia": "finetune.datasets.ppg_dalia",
    "ptb": "finetune.datasets.ptb",
    "ptb-xl": "finetune.datasets.ptbxl",
    "synthetic": "finetune.datasets.synthetic",
    "uci_bp": "finetune.datasets.uci_bp",
    "wesad": "finetune.datasets.wesad",
}
"""Data set -> module that holds its one instance as ``READER``; imported when it is asked for, because
each format brings its own library (pandas, wfdb, h5py)."""


def with_leads(reader: Reader, leads: tuple[str, ...]) -> Reader:
    """Return a reader of these leads (none: the reference's own); raises :class:`SettingError`."""
    if not leads:
        return reader
    known: tuple[str, ...] = getattr(reader, "all_leads", ())
    wrong = [lead for lead in leads if lead not in known]
    if wrong or len(set(leads)) < len(leads):
        what = f"lead {wrong[0]!r}" if wrong else f"leads {', '.join(leads)}, one of them twice"
        raise SettingError(f"{what} of {reader.name}", f"some of {', '.join(known) or 'no lead: it has one'}")
    return cast(LeadReader, reader).with_leads(leads)


def find_reader(name: str) -> Reader:
    """Return the reader of that data set; raises :class:`UnknownNameError` with the nearest names."""
    if name not in READERS:
        raise UnknownNameError.of("data set", name, READERS)
    return cast(Reader, import_module(READERS[name]).READER)
