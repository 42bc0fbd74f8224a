"""Code of a user's own: which of it this process may run, and whether it is what a study was made with.

A study is data: it may come out of a database that others write. So code runs only out of the one folder that
this process was started with (``--code DIR``, or HPO_CODE), only a function that its file defines itself, and
only while the files are those that the study was made with. Free of torch.
"""

from __future__ import annotations

import ast
import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from finetune.errors import CheckpointError, CodeError
from finetune.spec import BackboneSpec

VARIABLE = "HPO_CODE"
HUGGING_FACE = "huggingface:AutoModel"
"""Instead of code: a folder of ``save_pretrained``, read by transformers without any code of the folder's."""
NEXT = "type: --code DIR, the folder that holds it"


def code_folder() -> Path | None:
    """Return the folder whose code this process may run; None for none."""
    given = os.environ.get(VARIABLE)
    return Path(given).expanduser().absolute() if given else None


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_same(path: Path, wanted: str) -> None:
    """Raise :class:`CheckpointError` unless a file is the one of that sha256."""
    if file_sha256(path) != wanted:
        raise CheckpointError(
            f"{path} is not the file that the study was made with",
            f"sha256 {wanted[:12]}",
            "put that file back, or give the study another name",
        )


def code_files(entry: str, folder: Path | None = None) -> list[Path]:
    """Return the file of ``entry`` and those of the folder that it imports, as it is written.

    Raises :class:`CodeError` without a folder, and for a file that is not in it.
    """
    folder = folder or code_folder()
    if folder is None:
        raise CodeError(f"{entry} is code, and no folder of code was allowed here", "", NEXT)
    waiting, found = [_file_of(entry, folder)], dict[Path, None]()
    while waiting:
        path = waiting.pop()
        if path not in found:
            found[path] = None
            waiting += [other for name in _imports(path) if (other := _module_file(folder, name)) is not None]
    return sorted(found)


def code_hash(entries: list[str]) -> str:
    """Return the sha256 over names and contents of all files that the entries need."""
    folder = code_folder()
    files = {path for entry in entries for path in code_files(entry, folder)}
    digest = hashlib.sha256()
    for path in sorted(files):
        assert folder is not None
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()


def check_code(entries: list[str], wanted: str) -> None:
    """Raise :class:`CodeError` unless the folder holds exactly the code that a study was made with."""
    found = code_hash(entries)
    if found != wanted:
        raise CodeError(
            f"the code of {entries[0]} in {code_folder()} has hash {found[:12]}, the study's {wanted[:12]}",
            "the files that the study was made with",
            "use those, or give the study another name",
        )


def sealed(spec: BackboneSpec) -> tuple[str, str]:
    """Return the hashes of the code of a user's own encoder and of a file of weights; empty where none is."""
    if spec.factory is None:
        path = Path(spec.weights).expanduser()
        has_file = spec.weights not in {"builtin", "none"} and path.is_file()
        return "", file_sha256(path) if has_file else ""
    code = "" if spec.factory.entry == HUGGING_FACE else code_hash(spec.factory.entries)
    path = Path(spec.weights).expanduser()
    if spec.weights == "none" or path.is_dir():
        return code, ""
    if not path.is_file():
        raise CheckpointError(f"{path} is not there", "a file of weights", "check backbone.weights")
    return code, file_sha256(path)


def check_backbone_code(spec: BackboneSpec) -> None:
    """Raise :class:`CodeError` unless what a study's backbone names may run here."""
    if spec.factory is not None and spec.factory.entry != HUGGING_FACE:
        check_code(spec.factory.entries, spec.factory.code_hash)


def load_entry(entry: str) -> Callable[..., Any]:
    """Return the function that ``file.py:name`` (or ``module:name``) names; the file runs.

    Only after :func:`check_code`. Raises :class:`CodeError` for a name that the file does not define itself.
    """
    folder = code_folder()
    assert folder is not None, "code_files refuses before"
    path, name = _file_of(entry, folder), entry.partition(":")[2]
    module = _load(path, folder)
    found = getattr(module, name, None)
    if not callable(found) or getattr(found, "__module__", None) != module.__name__:
        there = [key for key, value in vars(module).items() if _is_its_own(value, module)]
        raise CodeError(f"{path} defines no {name!r}", f"one of {', '.join(there) or 'its functions'}")
    result: Callable[..., Any] = found
    return result


def _is_its_own(value: object, module: ModuleType) -> bool:
    return callable(value) and getattr(value, "__module__", None) == module.__name__


def _file_of(entry: str, folder: Path) -> Path:
    """Return the file that an entry names, below the folder."""
    where, _, name = entry.partition(":")
    if not where or not name.isidentifier():
        raise CodeError(f"entry {entry!r}", "file.py:function, or module:function")
    relative = Path(where) if where.endswith(".py") else Path(*where.split(".")).with_suffix(".py")
    path = Path(os.path.normpath(folder / relative))
    if not path.is_relative_to(folder) or path == folder:
        raise CodeError(f"entry {entry!r} is outside {folder}", "a file in the folder of code")
    if not path.is_file():
        raise CodeError(f"{path} is not there", f"the file of {entry}", NEXT)
    return path


def _imports(path: Path) -> list[str]:
    """Return the dotted names that a file imports; raises :class:`CodeError` for one that is not Python."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError) as error:
        raise CodeError(f"{path} is not Python ({error})", "a module") from error
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            names += [base, *(f"{base}.{alias.name}".strip(".") for alias in node.names)]
    return names


def _module_file(folder: Path, name: str) -> Path | None:
    if not name:
        return None
    stem = folder.joinpath(*name.split("."))
    candidates = (stem.with_suffix(".py"), stem / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)


def _load(path: Path, folder: Path) -> ModuleType:
    """Run a file as a module, once; what it imports is looked for in its folder too."""
    content = path.read_bytes()
    name = f"own_code_{hashlib.sha256(str(path).encode() + content).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module
    try:
        exec(compile(content, str(path), "exec"), module.__dict__)
    except BaseException as error:
        del sys.modules[name]
        if not isinstance(error, Exception | SystemExit):
            raise  # a signal
        # Whatever a user's file, or a package that it imports, raises is the user's to mend.
        text = " ".join(str(error).split())[:300]
        raise CodeError(
            f"{path} raised {type(error).__name__}: {text}", "a module", "run it alone to see where"
        ) from error
    return module
