"""Files that are something else: each is told by its name, in one plain line, without a library's advice."""

from __future__ import annotations

import argparse
import gzip
import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.backbones.cmssl import CmsslArchitecture, CmsslEncoder
from finetune.backbones.cmssl_files import (
    LARGEST_SIZE,
    load_cmssl_checkpoint,
    load_cmssl_safetensors,
    save_cmssl,
)
from finetune.backbones.heartgpt import HeartGptArchitecture
from finetune.backbones.heartgpt_files import read_heartgpt
from finetune.errors import CheckpointError
from finetune.file_kinds import kind_of

SMALL = CmsslArchitecture(patch=25, embedding=16, layers=2, heads=2, max_patches=8)
HYPER = {
    "E_in_dim": 25,
    "E_embed": 16,
    "E_num_layers": 2,
    "E_nhead": 2,
    "E_drop_rate": 0.1,
    "max_seq_length": 8,
}


def state(prefix: str = "encoder.") -> dict[str, Any]:
    encoder = CmsslEncoder(SMALL).initialise(torch.Generator().manual_seed(0))
    return {prefix + name: value for name, value in encoder.state_dict().items()}


def saved(content: object, *, is_zip: bool = True) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=is_zip)
    return stream.getvalue()


def checkpoint(tensors: dict[str, Any] | None = None, **changes: object) -> bytes:
    return saved({"hyper_parameters": HYPER | changes, "state_dict": state() if tensors is None else tensors})


def zipped(*names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, b"content")
    return stream.getvalue()


def npy() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.zeros(3))
    return stream.getvalue()


FOREIGN = {
    "a pointer of git-lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        "git lfs pull",
    ),
    "a pointer of git-annex": (b"../.git/annex/objects/xx/SHA256E-s9--0", "git annex get"),
    "a web page (html)": (b"\n<!DOCTYPE html><html><title>Sign in</title></html>", "fetch it again"),
    "an answer in xml": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "fetch it again"),
    "text in JSON": (b'{"error": "not found"}', ""),
    "plain text": (b"404: Not Found", ""),
    "an empty file": (b"", "fetch it again"),
    "packed with gzip": (gzip.compress(b"x"), "gunzip"),
    "a NumPy array": (npy(), ""),
    "an HDF5 file": (b"\x89HDF\r\n\x1a\n" + bytes(100), ""),
    "a zip archive of a.txt, b.txt": (zipped("a.txt", "b.txt"), "unpack it"),
    "a TorchScript model": (zipped("m/constants.pkl", "m/data.pkl"), "state_dict"),
}


@pytest.mark.parametrize("load", [load_cmssl_checkpoint, load_cmssl_safetensors])
@pytest.mark.parametrize("kind", FOREIGN)
def test_a_file_of_another_kind_is_told_by_its_name(
    kind: str, load: Callable[[Path], object], tmp_path: Path
) -> None:
    content, advice = FOREIGN[kind]
    (tmp_path / "x").write_bytes(content)

    with pytest.raises(CheckpointError) as caught:
        load(tmp_path / "x")
    if load is load_cmssl_checkpoint:
        assert advice in str(caught.value)
        assert f"it is {kind}" in str(caught.value)
    assert is_plain(str(caught.value))


def is_plain(text: str) -> bool:
    is_advice = any(
        word in text for word in ("weights_only", "safe_globals", "two options", "arbitrary code")
    )
    return text.isprintable() and not is_advice


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "as torch saved before 1.6"])
@pytest.mark.parametrize(
    ("value", "name"),
    [
        (argparse.Namespace(lr=1), "argparse.Namespace"),
        (torch.nn.MSELoss(), "torch.nn.modules.loss.MSELoss"),
        (np.ones(3), "numpy"),
        (np.int32(3), "numpy"),
        (Path.mkdir, "getattr"),
        (pytest.approx(1), type(pytest.approx(1)).__module__),
    ],
    ids=["namespace", "module", "array", "scalar", "function", "foreign"],
)
def test_a_type_that_is_not_read_is_named(value: object, name: str, is_zip: bool, tmp_path: Path) -> None:
    content = {"hyper_parameters": {**HYPER, "extra": value}, "state_dict": state()}
    (tmp_path / "x.ckpt").write_bytes(saved(content, is_zip=is_zip))

    with pytest.raises(CheckpointError) as caught:
        load_cmssl_checkpoint(tmp_path / "x.ckpt")

    assert f"it holds a {name}" in str(caught.value)
    assert is_plain(str(caught.value))


@pytest.mark.parametrize(
    "as_kept", [float, torch.tensor, np.float64, np.int64], ids=["float", "tensor", "f64", "i64"]
)
def test_sizes_may_be_kept_as_other_numbers(as_kept: Callable[[Any], Any], tmp_path: Path) -> None:
    (tmp_path / "x.ckpt").write_bytes(
        checkpoint(**{name: as_kept(value) for name, value in HYPER.items() if value != 0.1})
    )

    assert load_cmssl_checkpoint(tmp_path / "x.ckpt").architecture == SMALL


@pytest.mark.parametrize(
    "value",
    [25.5, float("nan"), True, None, "wide", 0, -1, LARGEST_SIZE + 1, 10**30, torch.ones(2), [25]],
    ids=str,
)
@pytest.mark.parametrize("name", ["E_in_dim", "E_embed", "E_num_layers", "max_seq_length"])
def test_a_size_that_is_none_is_told(name: str, value: object, tmp_path: Path) -> None:
    (tmp_path / "x.ckpt").write_bytes(checkpoint(**{name: value}))

    with pytest.raises(CheckpointError, match=f"hyper_parameters of .*: {name} is"):
        load_cmssl_checkpoint(tmp_path / "x.ckpt")


@pytest.mark.parametrize(
    "prefix",
    [
        "encoder.",
        "",
        "module.encoder.",
        "_orig_mod.encoder.",
        "encoder._orig_mod.",
        "model.encoder.",
        "net.",
        "a.b.c.",
    ],
)
def test_a_common_prefix_of_all_keys_is_left_out(prefix: str, tmp_path: Path) -> None:
    (tmp_path / "x.ckpt").write_bytes(checkpoint({**state(prefix), "head.weight": torch.ones(2)}))
    if prefix == "":
        (tmp_path / "x.ckpt").write_bytes(checkpoint(state(prefix)))

    loaded = load_cmssl_checkpoint(tmp_path / "x.ckpt").state_dict()

    assert all(torch.equal(loaded[name], value) for name, value in state("").items())


def test_wrappers_inside_the_keys_are_left_out(tmp_path: Path) -> None:
    tensors = {
        key.replace("layers.1.", "layers.1._checkpoint_wrapped_module."): v for key, v in state().items()
    }
    (tmp_path / "x.ckpt").write_bytes(checkpoint(tensors))

    assert load_cmssl_checkpoint(tmp_path / "x.ckpt").architecture == SMALL


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (
            {**state("student."), **state("teacher.")},
            r"2 tensors linear_projection.weight \(student., teacher.\)",
        ),
        ({"backbone.a": torch.ones(1), "head.b": torch.ones(1)}, r"no tensors .* \(but backbone, head\)"),
        ({}, r"no tensors .* \(but nothing\)"),
        ({**state(), **state("module.encoder.")}, "a tensor twice"),
        ({**state(), "encoder.pe.pe": [1, 2]}, r"encoder\.pe\.pe is a list instead of \(1, 8, 16\)"),
        ({**state(), "encoder.pe.pe": torch.zeros(1, 8, 16, dtype=torch.int64)}, r"encoder\.pe\.pe is int64"),
    ],
    ids=["two models", "another model", "nothing", "twice", "no tensor", "whole numbers"],
)
def test_tensors_of_another_model_are_told(tensors: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "x.ckpt").write_bytes(checkpoint(tensors))

    with pytest.raises(CheckpointError, match=message):
        load_cmssl_checkpoint(tmp_path / "x.ckpt")


def test_a_message_names_only_so_many_tensors(tmp_path: Path) -> None:
    (tmp_path / "x.ckpt").write_bytes(
        checkpoint({**state(), **{f"encoder.x{i}": torch.ones(1) for i in range(500)}})
    )

    with pytest.raises(CheckpointError, match="and 488 more") as caught:
        load_cmssl_checkpoint(tmp_path / "x.ckpt")
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_that_are_not_finite_are_refused_with_the_tensors_name(
    value: float, dtype: torch.dtype, tmp_path: Path
) -> None:
    tensors = {name: tensor.clone().to(dtype) for name, tensor in state().items()}
    (tmp_path / "x.ckpt").write_bytes(checkpoint(tensors))
    assert load_cmssl_checkpoint(tmp_path / "x.ckpt").architecture == SMALL

    tensors["encoder.layers.1.linear1.weight"][3, 2] = value
    (tmp_path / "x.ckpt").write_bytes(checkpoint(tensors))

    with pytest.raises(
        CheckpointError, match=r"tensor encoder\.layers\.1\.linear1\.weight holds 1 of 1024 values"
    ):
        load_cmssl_checkpoint(tmp_path / "x.ckpt")


def test_our_own_files_and_heartgpts_are_held_to_finite_weights_too(tmp_path: Path) -> None:
    encoder = CmsslEncoder(SMALL).initialise(torch.Generator().manual_seed(0))
    with torch.no_grad():
        encoder.linear_projection.bias[0] = float("nan")
    save_cmssl(tmp_path / "x.safetensors", encoder, {})
    with pytest.raises(CheckpointError, match=r"tensor linear_projection\.bias holds 1 of 16"):
        load_cmssl_safetensors(tmp_path / "x.safetensors")

    from finetune.backbones.heartgpt_files import _published

    architecture = HeartGptArchitecture(vocabulary=10, embedding=16, layers=1, heads=2, context=4)
    tensors = {name: torch.zeros(value.shape) for name, value in _published(architecture).items()}
    (tmp_path / "x.pth").write_bytes(saved({f"module.{name}": value for name, value in tensors.items()}))
    assert read_heartgpt(tmp_path / "x.pth", architecture).keys() == tensors.keys()

    tensors["ln_f.bias"][1] = float("inf")
    (tmp_path / "x.pth").write_bytes(saved(tensors))
    with pytest.raises(CheckpointError, match=r"tensor ln_f\.bias holds 1 of 16"):
        read_heartgpt(tmp_path / "x.pth", architecture)


WHOLE = checkpoint()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_checkpoint_is_the_encoder_or_one_plain_line(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(1, len(content)))
    path = tmp_path_factory.mktemp("x") / "x.ckpt"
    path.write_bytes(content[:cut] if data.draw(st.booleans()) else content)

    try:
        assert load_cmssl_checkpoint(path).state_dict().keys() == state("").keys()
    except CheckpointError as error:
        said = str(error)
    else:
        return
    assert is_plain(said), said


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=600))
def test_any_bytes_have_a_kind_or_none(content: bytes) -> None:
    kind = kind_of(content)

    assert kind is None or kind.name
    assert kind_of(pickle.dumps([1, 2])) == kind_of(pickle.dumps({}))
