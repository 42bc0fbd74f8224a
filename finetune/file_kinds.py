"""What a file is by its first bytes, for the refusal of one that is something else than it should be."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

START = 512
"""Bytes that are looked at."""


@dataclass(frozen=True)
class FileKind:
    """A kind of file that people have in the place of another."""

    name: str
    """With its article."""
    next_step: str = ""


EMPTY = FileKind("an empty file", "fetch it again")
TEXT = FileKind("plain text")
_POINTER = "type: git lfs pull (or fetch the file itself, not its page in the repository)"
_PAGE = "fetch it again (was a login or a licence asked for?)"
_KINDS: tuple[tuple[bytes, FileKind], ...] = (
    (rb"version https://git-lfs", FileKind("a pointer of git-lfs", _POINTER)),
    (rb"[./]*(git/)?annex/objects/", FileKind("a pointer of git-annex", "type: git annex get")),
    (rb"(?is)\s*(<!--.*?-->\s*)*<(!doctype html|html|head|body)", FileKind("a web page (html)", _PAGE)),
    (rb"\s*<(\?xml|Error)", FileKind("an answer in xml", _PAGE)),
    (rb'\s*[{\[]\s*["{}\[\]]', FileKind("text in JSON")),
    (rb"\x1f\x8b", FileKind("packed with gzip", "unpack it: gunzip")),
    (rb"BZh", FileKind("packed with bzip2", "unpack it: bunzip2")),
    (rb"\xfd7zXZ\0", FileKind("packed with xz", "unpack it: unxz")),
    (rb"7z\xbc\xaf\x27\x1c", FileKind("a 7z archive", "unpack it")),
    (rb"Rar!", FileKind("a rar archive", "unpack it")),
    (rb"(?s).{257}ustar", FileKind("a tar archive", "unpack it: tar -xf")),
    (rb"%PDF", FileKind("a PDF")),
    (rb"\x89PNG|\xff\xd8\xff|GIF8", FileKind("a picture")),
    (rb"\x89HDF\r\n", FileKind("an HDF5 file (Keras and MATLAB 7.3 write them)")),
    (rb"MATLAB 5.0 MAT-file", FileKind("a MATLAB 5 file")),
    (rb"\x93NUMPY", FileKind("a NumPy array (.npy)")),
    (rb"(?s).{4}\0{4}\{", FileKind("a safetensors file")),
    (rb"PK\x03\x04", FileKind("a zip archive")),
    (rb"\x80[\x02-\x05]", FileKind("a pickle")),
    (rb"ONNX|\x08[\x03-\x0c]\x12", FileKind("an ONNX model")),
)


def kind_of(start: bytes) -> FileKind | None:
    """Return what a file that begins with ``start`` is; None where it cannot be told."""
    if not start:
        return EMPTY
    for pattern, kind in _KINDS:
        if re.match(pattern, start):
            return kind
    head = start.removesuffix(start[-3:]) if len(start) == START else start  # may end within a character
    is_text = not re.search(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]", start) and _is_utf_8(head)
    return TEXT if is_text else None


def kind_of_file(path: Path) -> FileKind | None:
    """Return what the file at ``path`` is; None where it cannot be told or read."""
    try:
        with path.open("rb") as stream:
            return kind_of(stream.read(START))
    except OSError:
        return None


def foreign_kind(path: Path, *expected: str) -> FileKind | None:
    """Return what a file is, unless its kind has one of the ``expected`` words or cannot be told."""
    kind = kind_of_file(path)
    return None if kind is None or any(word in kind.name for word in expected) else kind


def why_unreadable(path: Path, error: Exception, *expected: str) -> str:
    """Return on one line why a file cannot be read: its kind, if it is not as ``expected``, or the error."""
    kind = foreign_kind(path, *expected)
    said = " ".join(str(error).split()) or type(error).__name__
    return f"it is {kind.name}" if kind else said


def _is_utf_8(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
