"""A folder of an object store, through fsspec: S3, what speaks its language, and others that fsspec opens.

Who may use it is said where each store's own tools look for it (for S3: AWS_ACCESS_KEY_ID, AWS_PROFILE,
AWS_ENDPOINT_URL, a role of the machine), never in the address, which stands in logs and in the database.
"""

from __future__ import annotations

import asyncio
import os
import socket
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from hpo.errors import Said, UsageError

T = TypeVar("T")

_FOLDERS = {"file", "local"}
_WHOLE_PUT = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss", "r2"}
"""Stores in which a file that is being sent cannot be seen before it is whole. Elsewhere it is sent under
another name and then renamed."""
_EXTRAS = {"s3": "hpo[s3]", "s3a": "hpo[s3]", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs"}
_CLIENTS = {"aiobotocore", "aiohttp", "azure", "botocore", "fsspec", "gcsfs", "google", "urllib3"}
"""Libraries whose errors, where they are none of :data:`_LASTING`, may pass."""
_LASTING = {
    "FileNotFoundError",  # no such bucket
    "IsADirectoryError",
    "NotADirectoryError",
    "PermissionError",
    "NoCredentialsError",
    "PartialCredentialsError",
    "CredentialRetrievalError",
    "ParamValidationError",
    "ProfileNotFound",
    "InvalidRegionError",
    "NoRegionError",
    "ConfigParseError",
    "InvalidURL",
}
"""Names of errors that calling again will not mend."""


class DepotAwayError(Exception):
    """The store cannot be reached, or not now: the same call may succeed later. Says why, on one line."""


def is_depot(address: str) -> bool:
    """Tell the address of an object store from a folder's path (or ``file://`` address)."""
    scheme, mark, _ = address.partition("://")
    return bool(mark) and scheme.lower() not in _FOLDERS


def plain_folder(address: str) -> Path:
    """Return the folder of a path or of a ``file://`` address."""
    return Path(unquote(urlsplit(address).path) if "://" in address else address).expanduser().absolute()


def parse_depot(address: str) -> Depot:
    """Return the store of an address; raises :class:`UsageError` for what cannot be one, or must not be."""
    parts = urlsplit(address)
    if parts.password is not None or parts.query or parts.fragment:
        raise UsageError(
            Said("HPO_CHECKPOINTS has more than a place in it ({scheme}://...)", scheme=parts.scheme),
            "an address without a password or a query: it stands in logs and in the database",
            "give keys as the store's own tools take them, such as AWS_ACCESS_KEY_ID",
        )
    if not parts.netloc:
        raise UsageError(
            Said("HPO_CHECKPOINTS is {address!r}", address=address), "an address such as s3://bucket/folder"
        )
    _file_system_class(parts.scheme)
    return Depot(address.rstrip("/"))


def _file_system_class(scheme: str) -> Any:
    import fsspec

    try:
        return fsspec.get_filesystem_class(scheme.lower())
    except ImportError as error:
        package = _EXTRAS.get(scheme.lower(), f"the package that fsspec needs for {scheme}")
        what = Said(
            "HPO_CHECKPOINTS begins with {scheme}://, and what speaks to such a store is not installed",
            scheme=scheme,
        )
        raise UsageError(what, next_step=Said("type: pip install '{package}'", package=package)) from error
    except ValueError as error:
        what = Said("HPO_CHECKPOINTS begins with {scheme}://, which fsspec does not know", scheme=scheme)
        raise UsageError(what, "s3://bucket/folder, file:///folder or a folder") from error


@dataclass(frozen=True)
class Depot:
    """A folder of an object store. Every call may be made again; what it raises is named below.

    :class:`DepotAwayError` while the store cannot be reached, :class:`UsageError` for what waiting will not
    mend (no such bucket, no right to it).
    """

    address: str

    def __truediv__(self, name: str) -> Depot:
        """Return a folder of this one."""
        return Depot(f"{self.address}/{name}")

    def __str__(self) -> str:
        return self.address

    def send(self, file: Path) -> None:
        """Put a file here under its own name, whole or not at all."""
        self._reach(lambda store, path: _send(store, file, f"{path}/{file.name}", self._is_whole_put))

    def fetch(self, name: str, folder: Path) -> bool:
        """Bring a file into ``folder``, whole or not at all; False where there is none."""
        return self._reach(lambda store, path: _fetch(store, f"{path}/{name}", folder / name))

    def delete(self, names: Sequence[str]) -> None:
        """Delete files, those that are here."""
        for name in names:
            self._reach(partial(_delete, name))

    def delete_all(self) -> None:
        """Delete this folder and all in it."""
        self._reach(_delete_all)

    def copy_to(self, other: Depot) -> None:
        """Put a copy of all that is here into another folder of the same store."""
        target, has_folders = _path_of(other.address), not self._is_whole_put
        self._reach(lambda store, path: _copy(store, path, target, has_folders))

    def probe(self) -> None:
        """Write and delete a small file: raises what makes this store unusable."""
        name = f".probe-{uuid.uuid4().hex[:12]}"
        has_folders = not self._is_whole_put
        self._reach(lambda store, path: _probe(store, f"{path}/{name}", has_folders))

    @property
    def _is_whole_put(self) -> bool:
        return urlsplit(self.address).scheme.lower() in _WHOLE_PUT

    def _reach(self, call: Callable[[Any, str], T]) -> T:
        """Call with fsspec's file system and the path in it; its many errors become two."""
        import fsspec

        try:
            store, path = fsspec.core.url_to_fs(self.address)
            return call(store, path)
        except Exception as error:  # no library of stores promises a list of what it raises
            if type(error).__name__ in _LASTING:
                raise UsageError(
                    Said("{address} cannot be used ({reason})", address=self.address, reason=_reason(error)),
                    "a place for checkpoints that is there, and that this machine may write to",
                    "look at HPO_CHECKPOINTS, and at the keys of the store",
                ) from error
            if isinstance(error, OSError | asyncio.TimeoutError) or _library(error) in _CLIENTS:
                raise DepotAwayError(_reason(error)) from error
            raise


def _path_of(address: str) -> str:
    import fsspec

    return str(fsspec.core.url_to_fs(address)[1])


def _send(store: Any, file: Path, path: str, is_whole_put: bool) -> None:
    if is_whole_put:
        store.put_file(str(file), path)
        return
    temporary = f"{path}.{socket.gethostname()}-{os.getpid()}"
    store.makedirs(path.rpartition("/")[0], exist_ok=True)
    store.put_file(str(file), temporary)
    store.mv(temporary, path)


def _fetch(store: Any, path: str, file: Path) -> bool:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        store.get_file(path, str(temporary))
    except FileNotFoundError:
        temporary.unlink(missing_ok=True)
        return False
    temporary.replace(file)
    return True


def _delete(name: str, store: Any, path: str) -> None:
    with suppress(FileNotFoundError):
        store.rm_file(f"{path}/{name}")


def _delete_all(store: Any, path: str) -> None:
    store.invalidate_cache()  # listings of before
    with suppress(FileNotFoundError):
        store.rm(path, recursive=True)


def _copy(store: Any, path: str, to: str, has_folders: bool) -> None:
    store.invalidate_cache()
    for file in store.find(path):
        target = f"{to}/{file.removeprefix(path).lstrip('/')}"
        if has_folders:
            store.makedirs(target.rpartition("/")[0], exist_ok=True)
        store.cp_file(file, target)


def _probe(store: Any, path: str, has_folders: bool) -> None:
    if has_folders:  # of S3, fsspec would make the bucket
        store.makedirs(path.rpartition("/")[0], exist_ok=True)
    store.pipe_file(path, b"hpo")
    store.rm_file(path)


def _library(error: Exception) -> str:
    return type(error).__module__.partition(".")[0]


def _reason(error: Exception) -> str:
    """Return the first line of what the store's library said, without what may be a signature in a URL."""
    said = str(error).strip().split("\n", 1)[0]
    line = " ".join(word.partition("?")[0] + "?..." * ("?" in word) for word in said.split(" "))
    name = type(error).__name__
    return f"{name}: {line[:200]}" if line else name
