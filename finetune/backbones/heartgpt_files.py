"""HeartGPT's published files, zip or .pth, into :class:`HeartGpt`.

The published state dictionary keeps one key, query and value matrix a head; ours joins them into one
matrix a block. Its constant masks (``tril``) are dropped; its language-model head is read but not used.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from finetune.backbones.heartgpt import HeartGpt, HeartGptArchitecture
from finetune.backbones.strict import check_exists, check_finite, expanded, misfits, read_pickle, unwrapped
from finetune.errors import CheckpointError
from finetune.random import Purpose, torch_generator

KIND = "a HeartGPT file, .zip or .pth, of github.com/harryjdavies/HeartGPT"
VOCABULARY = {"heartgpt_ppg": 102, "heartgpt_ecg": 101}


def build(
    name: str, weights: str, rate_hz: float, model_rate_hz: float, dropout: float | None, seed: int
) -> HeartGpt:
    """Build ``name`` for windows at ``rate_hz`` from ``weights``: ``none``, or the path of a .zip or .pth."""
    architecture = HeartGptArchitecture(vocabulary=VOCABULARY[name])
    if dropout is not None:
        architecture = replace(architecture, dropout=dropout)
    model = HeartGpt(architecture, rate_hz, model_rate_hz)
    if weights == "none":
        return model.initialise(torch_generator(seed, Purpose.INIT))
    path = expanded(weights)
    published = read_heartgpt(path, architecture)
    model.load_state_dict(join_heads(published, architecture))
    return model


def read_heartgpt(path: Path, architecture: HeartGptArchitecture) -> dict[str, Tensor]:
    """Return the published tensors, ``lm_head`` included, under their published names, without masks.

    Raises :class:`CheckpointError` when the file is broken, or for every tensor that is missing,
    unexpected or of another shape.
    """
    check_exists(path)
    content = read_pickle(_open(path), str(path), (), KIND)
    given = unwrapped(path, content, "token_embedding_table.weight")
    tensors = {key: value for key, value in given.items() if not key.endswith(".tril")}
    faults = misfits(_published(architecture), tensors)
    if faults:
        raise CheckpointError(f"{path} does not fit: {'; '.join(faults)}", f"{architecture}")
    check_finite(path, tensors)
    return tensors


def _open(path: Path) -> IO[bytes] | Path:
    """Return the .pth itself, or the one inside a zip (a .pth is a zip too, but holds no .pth)."""
    if not zipfile.is_zipfile(path):
        return path  # whose refusal says what it is
    try:
        with zipfile.ZipFile(path) as archive:
            members = [
                name
                for name in archive.namelist()
                if name.endswith(".pth") and not name.startswith("__MACOSX")
            ]
            return io.BytesIO(archive.read(members[0])) if members else path
    except Exception as error:  # zipfile promises no list of what a damaged archive raises
        why = "encrypted" if "password" in str(error) else "damaged or truncated"
        raise CheckpointError(f"{path} cannot be read (it is {why})", KIND) from error


def _published(architecture: HeartGptArchitecture) -> dict[str, Tensor]:
    """Return the published names with empty tensors of their shapes (on the meta device: no memory)."""
    width, head = architecture.embedding, architecture.embedding // architecture.heads
    shapes: dict[str, tuple[int, ...]] = {
        "token_embedding_table.weight": (architecture.vocabulary, width),
        "position_embedding_table.weight": (architecture.context, width),
        "ln_f.weight": (width,),
        "ln_f.bias": (width,),
        "lm_head.weight": (architecture.vocabulary, width),
        "lm_head.bias": (architecture.vocabulary,),
    }
    for block in (f"blocks.{i}" for i in range(architecture.layers)):
        for h in range(architecture.heads):
            shapes |= {
                f"{block}.sa.heads.{h}.{part}.weight": (head, width) for part in ("key", "query", "value")
            }
        shapes |= {f"{block}.sa.proj.weight": (width, width), f"{block}.sa.proj.bias": (width,)}
        shapes |= {f"{block}.ffwd.net.0.weight": (4 * width, width), f"{block}.ffwd.net.0.bias": (4 * width,)}
        shapes |= {f"{block}.ffwd.net.2.weight": (width, 4 * width), f"{block}.ffwd.net.2.bias": (width,)}
        shapes |= {
            f"{block}.{norm}.{part}": (width,) for norm in ("ln1", "ln2") for part in ("weight", "bias")
        }
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def join_heads(published: Mapping[str, Tensor], architecture: HeartGptArchitecture) -> dict[str, Tensor]:
    """Rename the published tensors to :class:`HeartGpt`'s, all heads of a block in one (3E, E) matrix."""
    renames = {"sa.proj": "proj", "ffwd.net.0": "wide", "ffwd.net.2": "narrow"}
    joined = {}
    for name, value in published.items():
        if ".sa.heads." in name or name.startswith("lm_head."):
            continue
        for theirs, ours in renames.items():
            name = name.replace(f".{theirs}.", f".{ours}.")
        joined[name] = value
    for block in (f"blocks.{i}" for i in range(architecture.layers)):
        parts = [
            published[f"{block}.sa.heads.{h}.{part}.weight"]
            for part in ("query", "key", "value")
            for h in range(architecture.heads)
        ]
        joined[f"{block}.qkv.weight"] = torch.cat(parts)
    return joined
