"""Fetching the public data sets from their publishers, and saying which of them are there.

A file lies under its final name only when it is whole and its checksum is right; what has arrived of an
interrupted one waits beside it as ``<name>.part`` and is gone on from.
"""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

from finetune.data.content import file_hash
from finetune.data.publishers import SOURCES, Archive, Source, find_source
from finetune.datasets.base import data_files, is_hidden
from finetune.errors import DataError, SettingError
from finetune.file_kinds import why_unreadable
from finetune.spec import DataStatus

if TYPE_CHECKING:
    from finetune.data.transfer import Transfer

SUMS = "SHA256SUMS.txt"
CONNECTIONS = 4

Notify = Callable[[str], None]


def data_status(data_dir: Path) -> list[DataStatus]:
    """Return the state of every data set; looks at names and sizes only, and needs no network."""
    return [_status(source, data_dir / source.folder) for source in SOURCES.values()]


def get_data(
    name: str, data_dir: Path, *, base_url: str | None = None, notify: Notify | None = None
) -> DataStatus:
    """Fetch what is missing of a data set into ``data_dir`` and return what is there then.

    ``name`` is a data set or a task; ``base_url`` replaces the publisher's. Files already there are
    checked and not fetched again. Raises :class:`DataError` when the publisher cannot be reached or sends
    something else than it promised, :class:`SettingError` when the folder cannot be written; the same
    call again goes on where this one stopped.
    """
    source = find_source(name)
    root = data_dir / source.folder
    _tell(notify, f"{source.name}: licence {source.licence}; cite {source.citation}")
    if source.url:
        with _transfer(source, base_url, root) as transfer:
            if source.archive is None:
                _get_listed(source, root, transfer, notify)
            else:
                _get_archive(source, source.archive, root, transfer, notify)
    return _status(source, root)


@contextmanager
def _transfer(source: Source, base_url: str | None, root: Path) -> Iterator[Transfer]:
    """Open the progress bar and the connections; turn a folder that cannot be written into our error."""
    from finetune.data.transfer import Transfer  # brings requests and pooch: half a second

    try:
        root.mkdir(parents=True, exist_ok=True)
        with Transfer(base_url or source.url, root, source.name, source.size_bytes) as transfer:
            yield transfer
    except OSError as error:
        what = f"cannot write to {root} ({error.strerror or error})"
        raise SettingError(what, "a folder that can be written, with room for the data") from error


def _get_listed(source: Source, root: Path, transfer: Transfer, notify: Notify | None) -> None:
    """Fetch the wanted files of the publisher's list, each with its checksum, several at a time."""
    transfer.fetch(SUMS, None)
    sums = _read_sums(root / SUMS)
    wanted = {path: digest for path, digest in sums.items() if re.search(source.wanted, path)}
    if not wanted:
        raise DataError(f"{transfer.url_of(SUMS)} lists no file of {source.name}", "the publisher's list")
    missing = [path for path in wanted if not _is_there(root / path, wanted[path], transfer)]
    with transfer.aside():
        _tell(notify, f"{source.name}: {len(wanted) - len(missing)} files are there, fetching {len(missing)}")
    pool = ThreadPoolExecutor(CONNECTIONS)
    try:
        for _ in pool.map(lambda path: transfer.fetch(path, wanted[path]), missing):
            pass
    finally:
        transfer.stop.set()  # the others end at their next chunk when one has failed or Ctrl-C came
        pool.shutdown(cancel_futures=True)


def _is_there(path: Path, digest: str, transfer: Transfer) -> bool:
    """Say whether a file, or its gzipped form, has the published content."""
    for candidate in (path, path.with_name(path.name + ".gz")):
        if candidate.is_file() and file_hash(candidate) == digest:
            transfer.advance(candidate.stat().st_size)
            return True
    return False


def _read_sums(path: Path) -> dict[str, str]:
    """Return path -> sha256 of a publisher's list; no path may lead out of the folder."""
    lines = [line.split(maxsplit=1) for line in path.read_text(errors="replace").splitlines()]
    sums = {line[1].strip().lstrip("*"): line[0].lower() for line in lines if len(line) == 2}
    return {name: digest for name, digest in sums.items() if _is_inside(name)}


def _is_inside(name: str) -> bool:
    return not name.startswith("/") and ".." not in Path(name).parts


# --- archives ---


def _get_archive(
    source: Source, archive: Archive, root: Path, transfer: Transfer, notify: Notify | None
) -> None:
    """Fetch an archive, unpack what is wanted of it, record what came, remove the archive."""
    recorded = root / f"{SUMS}.{source.name}"
    sums = _read_sums(recorded) if recorded.is_file() else {}
    members = {path: digest for path, digest in sums.items() if re.search(archive.wanted, path)}
    if members and all(_is_there(root / path, digest, transfer) for path, digest in members.items()):
        with transfer.aside():
            _tell(notify, f"{source.name}: {len(members)} files are there")
        return
    path = transfer.fetch(archive.path, archive.sha256)
    try:
        unpacked = list(_unpack(path, root, archive.wanted))
    except OSError:
        raise  # the folder: the archive is kept
    except Exception as error:  # zipfile promises no list of what damaged, encrypted or odd archives raise
        why = why_unreadable(path, error, "zip")
        path.unlink()
        raise DataError(f"{path.name} of {source.name} is broken ({why})", "a zip file") from error
    hashes = {name: file_hash(root / name) for name in unpacked}
    if not hashes:
        raise DataError(f"{path} holds no file of {source.name}", f"members like {archive.wanted}")
    hashes[path.name] = file_hash(path)
    recorded.write_text("".join(f"{digest} {name}\n" for name, digest in hashes.items()))
    path.unlink()
    if archive.sha256 is None:
        what = f"{source.name}: the publisher gives no checksum; what came is recorded in {recorded}"
        with transfer.aside():
            _tell(notify, what)


def _unpack(path: Path, root: Path, wanted: str) -> Iterator[str]:
    """Unpack the wanted members, also of a zip file inside; yield their paths below ``root``."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            if is_hidden(PurePosixPath(member)):
                continue
            match = re.search(wanted, member)
            if match is not None and _is_inside(match.group()):
                _unpack_one(archive, member, root / match.group())
                yield match.group()
            elif member.lower().endswith(".zip"):
                inner = path.with_name(f"{path.name}.inner")
                try:
                    _unpack_one(archive, member, inner)
                    yield from _unpack(inner, root, wanted)
                finally:
                    inner.unlink(missing_ok=True)


def _unpack_one(archive: zipfile.ZipFile, member: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(target.name + ".part")
    try:
        with archive.open(member) as packed, temporary.open("wb") as stream:
            shutil.copyfileobj(packed, stream, 1 << 20)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


# --- status ---


def _status(source: Source, root: Path) -> DataStatus:
    found = min((_count(root, pattern) for pattern in source.records), default=source.expected)
    absent = [places for places in source.tables if not any(_count(root, place) for place in places)]
    lacks = tuple(Path(places[0]).name for places in absent) if found else ()
    state: Literal["complete", "partial", "missing"] = "partial" if found else "missing"
    if found >= source.expected and not lacks:
        state = "complete"
    return DataStatus(
        name=source.name,
        tasks=source.tasks,
        state=state,
        found=found,
        expected=source.expected,
        bytes=sum(path.stat().st_size for path in data_files(root)) if found else 0,
        licence=source.licence,
        citation=source.citation,
        lacks=lacks,
        whole_bytes=source.size_bytes,
    )


def _count(root: Path, pattern: str) -> int:
    """Return how many records a pattern finds, in a folder or among the members of an archive."""
    archive, _, members = pattern.rpartition("!")
    if archive and not (root / archive).with_suffix("").is_dir():
        return _count_members(root / archive, members)
    paths = {path.relative_to(root) for path in root.glob(members)}
    names = {path.as_posix().removesuffix(".gz") for path in paths if not is_hidden(path)}
    return len({name for name in names if not name.endswith(".part")})


def _count_members(archive: Path, pattern: str) -> int:
    try:
        with zipfile.ZipFile(archive) as packed:
            names = [name for name in packed.namelist() if not is_hidden(PurePosixPath(name))]
            return sum(fnmatch(name, pattern) for name in names)
    except (OSError, zipfile.BadZipFile):
        return 0


def _tell(notify: Notify | None, message: str) -> None:
    if notify is not None:
        notify(message)
