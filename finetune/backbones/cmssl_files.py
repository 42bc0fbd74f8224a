"""CM-SSL encoders from and to files: Lightning checkpoints of the reference, safetensors of our own.

Every load is strict: each missing or unexpected tensor, and each wrong shape, is named in the error.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from finetune.backbones.cmssl import TINY, CmsslArchitecture, CmsslEncoder
from finetune.backbones.strict import check_exists, check_finite, expanded, misfits, read_pickle, unwrapped
from finetune.errors import CheckpointError, SettingError
from finetune.file_kinds import foreign_kind
from finetune.random import Purpose, torch_generator

BUILTIN = Path(__file__).parent.parent / "weights"
"""Folder of the weights that ship in the package, as NAME.safetensors."""
PREFIX, ANCHOR = "encoder.", "linear_projection.weight"
KIND = "a Lightning checkpoint of CM-SSL"
_ALIASES: dict[str, tuple[str, ...]] = {
    "patch": ("E_in_dim", "in_dim"),
    "embedding": ("E_embed",),
    "layers": ("E_num_layers", "num_layers"),
    "heads": ("E_nhead", "nhead"),
    "dropout": ("E_drop_rate", "drop_rate"),
    "max_patches": ("max_seq_length",),
    "stochastic_depth": ("stochastic_depth_prob",),
}
"""Our name of each hyper-parameter: the reference's LightningModule argument, then its encoder's own."""
_SIZES = frozenset({"patch", "embedding", "layers", "heads", "max_patches"})
LARGEST_SIZE = 100_000
"""Of any size in a checkpoint: beyond, it is no size but a mistake, and would fill the memory."""
_DEFAULTS = {"stochastic_depth": 0.0}
"""Hyper-parameters that older checkpoints lack, because the reference's encoder had no such part."""


def build(name: str, weights: str, samples: int, dropout: float | None, seed: int) -> CmsslEncoder:
    """Build the encoder ``name`` from ``weights``: ``builtin``, ``none``, a .ckpt or a .safetensors file."""
    if weights == "none":
        architecture = TINY if dropout is None else replace(TINY, dropout=dropout)
        encoder = CmsslEncoder(architecture).initialise(torch_generator(seed, Purpose.INIT))
    elif weights == "builtin":
        encoder = load_cmssl_safetensors(BUILTIN / f"{name}.safetensors", dropout)
    elif Path(weights).suffix == ".safetensors":
        encoder = load_cmssl_safetensors(expanded(weights), dropout)
    else:
        encoder = load_cmssl_checkpoint(expanded(weights), dropout)
    encoder.check_samples(samples)
    return encoder


def load_cmssl_checkpoint(path: Path, dropout: float | None = None) -> CmsslEncoder:
    """Return the encoder of a Lightning checkpoint of the reference, with ``dropout`` if it is not None.

    The architecture is that of ``hyper_parameters``, checked against the tensors. Only plain tensors and
    a short list of harmless types are unpickled. Raises :class:`CheckpointError`.
    """
    check_exists(path)
    content = read_pickle(path, str(path), _allowed_types(), KIND)
    missing = [key for key in ("hyper_parameters", "state_dict") if not isinstance(content.get(key), dict)]
    if missing:
        raise CheckpointError(f"{path} has no {' and no '.join(missing)}", KIND)
    architecture = _architecture(path, content["hyper_parameters"])
    tensors = unwrapped(path, content["state_dict"], ANCHOR, PREFIX)
    return _fill(path, architecture, tensors, dropout, prefix=PREFIX)


def load_cmssl_safetensors(path: Path, dropout: float | None = None) -> CmsslEncoder:
    """Return the encoder that :func:`save_cmssl` wrote; raises :class:`CheckpointError`."""
    check_exists(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # not a mapping
        architecture = CmsslArchitecture(**json.loads(metadata["architecture"]))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, SettingError) as error:
        kind = foreign_kind(path, "safetensors")
        why = f"it is {kind.name}" if kind else "damaged, truncated, or no encoder of ours"
        what, expected = f"{path} cannot be read ({why})", "an encoder that finetune has saved"
        raise CheckpointError(what, expected, kind.next_step if kind else "") from error
    positions = CmsslEncoder(architecture).pe.pe
    return _fill(path, architecture, {"pe.pe": positions, **tensors}, dropout)


def save_cmssl(path: Path, encoder: CmsslEncoder, metadata: Mapping[str, str]) -> None:
    """Write an encoder as safetensors, whole or not at all.

    The header holds its architecture and ``metadata`` (licence, data, command). The position table is
    left out: it follows from the architecture.
    """
    header = {"architecture": json.dumps(asdict(encoder.architecture)), **metadata}
    temporary = path.with_suffix(".partial")
    save_file(
        {name: value.detach().contiguous() for name, value in encoder.named_parameters()}, temporary, header
    )
    temporary.replace(path)


def _allowed_types() -> list[Any]:
    """List what a Lightning checkpoint may hold beside tensors and plain containers.

    Lightning's own dictionary is read as a dict and paths as pure paths, under any module name that a
    version of theirs has had; the rest are numpy scalars. None of these runs code.
    """
    dictionaries = ("lightning.fabric", "lightning_fabric", "pytorch_lightning")
    paths = (
        "pathlib.PosixPath",
        "pathlib.WindowsPath",
        "pathlib._local.PosixPath",
        "pathlib._local.WindowsPath",
    )
    scalar = np.float64(0).__reduce__()[0]
    scalars = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    return [
        *((dict, f"{module}.utilities.data.AttributeDict") for module in dictionaries),
        (dict, "pytorch_lightning.utilities.parsing.AttributeDict"),
        *((PurePosixPath, name) for name in paths),
        *((scalar, name) for name in scalars),
        np.dtype,
        *(type(np.dtype(kind)) for kind in (np.float32, np.float64, np.int64, np.bool_)),
    ]


def _architecture(path: Path, given: Mapping[str, Any]) -> CmsslArchitecture:
    """Read the encoder's hyper-parameters; raises :class:`CheckpointError` naming all that are missing."""
    values: dict[str, Any] = dict(_DEFAULTS)
    for ours, names in _ALIASES.items():
        found = [name for name in names if name in given]
        if found:
            values[ours] = _plain_number(path, found[0], given[found[0]], is_whole=ours in _SIZES)
    missing = [names[0] for ours, names in _ALIASES.items() if ours not in values]
    if missing:
        raise CheckpointError(
            f"hyper_parameters of {path} lack {', '.join(missing)}", "those of CM-SSL's encoder"
        )
    try:
        return CmsslArchitecture(**values)
    except (SettingError, TypeError) as error:
        raise CheckpointError(f"hyper_parameters of {path}: {error}") from error


def _plain_number(path: Path, name: str, value: Any, *, is_whole: bool) -> int | float:
    """Return a number that may be kept as a tensor, a NumPy scalar or (a size) as 125.0."""
    number = value
    if isinstance(value, np.generic) or (isinstance(value, Tensor) and value.numel() == 1):
        number = value.item()
    is_number = isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)
    if not is_number or (is_whole and (number != int(number) or not 0 < number <= LARGEST_SIZE)):
        expected = f"a whole number up to {LARGEST_SIZE}" if is_whole else "a number"
        raise CheckpointError(f"hyper_parameters of {path}: {name} is {str(value)[:40]!r}", expected)
    return int(number) if is_whole else float(number)


def _fill(
    path: Path,
    architecture: CmsslArchitecture,
    tensors: Mapping[str, Tensor],
    dropout: float | None,
    prefix: str = "",
) -> CmsslEncoder:
    """Build the encoder with exactly these ``tensors``; every key that does not fit is named."""
    stored = tensors.get(ANCHOR)
    if isinstance(stored, Tensor) and stored.shape != (architecture.embedding, architecture.patch):
        wanted = (architecture.embedding, architecture.patch)  # before memory for a wrong size is taken
        what = f"{path} does not fit: {prefix}{ANCHOR} is {tuple(stored.shape)} instead of {wanted}"
        raise CheckpointError(what, f"{architecture}")
    encoder = CmsslEncoder(architecture if dropout is None else replace(architecture, dropout=dropout))
    faults = misfits(encoder.state_dict(), tensors, prefix)
    if faults:
        raise CheckpointError(f"{path} does not fit: {'; '.join(faults)}", f"{architecture}")
    check_finite(path, {f"{prefix}{name}": value for name, value in tensors.items()})
    encoder.load_state_dict(dict(tensors))
    return encoder
