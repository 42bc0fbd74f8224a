"""Encoders that nobody here wrote, through the product's own commands: check, search, export, predict.

Three from PyPI (transformers, momentfm, braindecode: install them where this runs), and three in the key
layout of published files (PaPaGei-S, Pulse-PPG, ECGFounder) with random weights at their published size; the
adapters are in examples/encoders. The data are the simulated pulses of ``hpo init``: the figures say that it
works and what it costs, nothing about the encoders.

    python benchmarks/foreign_encoders.py --work FOLDER [--only NAME ...] [--trials 8]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

CODE = Path(__file__).resolve().parent.parent / "examples" / "encoders"


@dataclass(frozen=True)
class Encoder:
    """One adapter, as a study names it."""

    file: str
    options: dict[str, Any] = field(default_factory=dict)
    backbone: dict[str, Any] = field(default_factory=dict)
    made_of: str = ""
    """Function of the adapter whose module, with ``prefix`` and ``extra``, gives the file of weights."""
    prefix: str = ""
    extra: tuple[str, ...] = ()
    inside: str = ""


T5 = {
    "vocab_size": 8,
    "d_model": 512,
    "d_kv": 64,
    "d_ff": 1024,
    "num_layers": 8,
    "num_heads": 6,
    "is_gated_act": True,
    "feed_forward_proj": "gated-gelu",
}
MOMENT = {
    "seq_len": 512,
    "patch_len": 8,
    "patch_stride_len": 8,
    "d_model": 512,
    "transformer_type": "encoder_only",
    "transformer_backbone": "google/flan-t5-small",
    "t5_config": T5,
    "randomly_initialize_backbone": True,
}
PATCHTST = {
    "context_length": 500,
    "patch_length": 25,
    "patch_stride": 25,
    "d_model": 64,
    "num_attention_heads": 4,
    "ffn_dim": 256,
    "num_hidden_layers": 3,
}
MIXER = {
    "context_length": 500,
    "patch_length": 25,
    "patch_stride": 25,
    "d_model": 32,
    "num_layers": 3,
}
ENCODERS = {
    "PatchTST (transformers)": Encoder("patchtst.py", PATCHTST),
    "PatchTSMixer (transformers)": Encoder("patchtsmixer.py", MIXER),
    "ECG_CRNN (torch-ecg)": Encoder("torch_ecg_crnn.py"),
    "TCN (pytorch-tcn)": Encoder("tcn.py"),
    "MOMENT-small (momentfm)": Encoder("moment.py", MOMENT),
    "ShallowFBCSPNet (braindecode)": Encoder("braindecode_net.py"),
    "PaPaGei-S (key layout)": Encoder(
        "papagei.py",
        backbone={"groups": "resnet1d.py:layers"},
        made_of="papagei",
        prefix="module.",
        extra=("dense.weight", "expert_layers_1.0.0.weight", "gating_network_2.0.bias"),
    ),
    "Pulse-PPG (key layout)": Encoder(
        "pulse_ppg.py",
        backbone={"groups": "resnet1d.py:layers", "prepare": "pulse_ppg.py:prepare"},
        made_of="pulse_ppg",
        prefix="net.",
    ),
    "ECGFounder (key layout)": Encoder(
        "ecgfounder.py",
        backbone={"groups": "ecgfounder.py:layers"},
        made_of="ecgfounder",
        extra=("dense.weight", "first_bn.running_mean", "stage_list.0.block_list.0.bn1.weight"),
        inside="state_dict",
    ),
}


def write_weights(encoder: Encoder, file: Path) -> None:
    """Write random weights as the published file holds them."""
    sys.path.insert(0, str(CODE))
    torch.manual_seed(0)
    module = __import__(encoder.made_of).build(None)
    tensors = {encoder.prefix + name: value for name, value in module.state_dict().items()}
    tensors |= {encoder.prefix + name: torch.zeros(2) for name in encoder.extra}
    torch.save({encoder.inside: tensors} if encoder.inside else tensors, file)


def study(name: str, encoder: Encoder, folder: Path, data: Path) -> Path:
    """Write the study of an encoder and return its file."""
    weights = "none"
    if encoder.made_of:
        weights = str(folder / "weights.pt")
        write_weights(encoder, Path(weights))
    backbone = {**encoder.backbone}
    groups = {key: backbone.pop(key) for key in ("groups",) if key in backbone}
    told = {
        "name": name,
        "data": {
            "file": str(data),
            "kind": "regression",
            "label": "y",
            "subject": "subject",
            "split": {"grouped": [0.8, 0.1, 0.1], "seed": 42},
            "rate_hz": 50,
            "unit": "bpm",
            "modality": "any",
        },
        "inputs": {"normalisation": "window", "samples": 500, "every": 4},
        "backbone": {
            "factory": f"{encoder.file}:build",
            "weights": weights,
            "options": encoder.options,
            **groups,
            **({"input": backbone} if backbone else {}),
        },
        "recipe": {"epochs": 2, "batch_size": 32, "patience": 2},
        "space": {
            "lr": {"low": 1e-5, "high": 1e-2},
            "backbone_lr": {"low": 1e-6, "high": 1e-2},
            "loss": ["mse", "l1"],
        },
        "baseline": {"name": "published default", "lr": 1e-4, "backbone_lr": 1e-5, "loss": "mse"},
    }
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(told))
    return file


def cpu_s() -> float:
    """Return the CPU seconds of all processes that this one has started and that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def hpo(*words: object) -> tuple[float, str]:
    """Run a command; return the CPU seconds of its processes and what it printed on standard output."""
    began = cpu_s()
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "hpo", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode:
        raise SystemExit(f"hpo {' '.join(map(str, words))}\n{found.stdout[-2000:]}{found.stderr[-3000:]}")
    return cpu_s() - began, found.stdout


def lines_of(file: Path) -> int:
    """Count an adapter's lines of code: not its docstring, comments and empty lines."""
    text = file.read_text(encoding="utf-8").split('"""')
    return sum(bool(line.strip()) and not line.strip().startswith("#") for line in text[-1].splitlines())


def one(title: str, encoder: Encoder, work: Path, trials: int) -> dict[str, object]:
    """Take an encoder through all commands and return what they took."""
    name = encoder.file.removesuffix(".py")
    folder = work / name
    folder.mkdir(parents=True, exist_ok=True)
    data = work / "starter" / "windows.npz"
    file = study(name, encoder, folder, data)
    place = ["--code", CODE, "--cache", folder / "cache"]
    check_s, said = hpo("check", file, *place, "--device", "cpu", "--json")
    storage = ["--storage", folder / "hpo.db"]
    words = ["--trials", trials, "--workers", 1, "--device", "cpu", "--json"]
    search_s, found = hpo("run", file, *words, *storage, *place)
    export_s, _ = hpo("export", "--study", name, "--out", folder / "model", *storage, *place)
    np.save(folder / "signal.npy", np.load(data)["x"][:6].reshape(-1))
    model = ["--model", folder / "model", "--code", folder / "model" / "code"]
    predict_s, predictions = hpo("predict", *model, "--input", folder / "signal.npy", "--rate", 50)
    checked, answer = json.loads(said), json.loads(found)
    return {
        "encoder": title,
        "adapter, lines": lines_of(CODE / encoder.file),
        "parameters, M": round(checked["backbone_parameters"] / 1e6, 2)
        if "backbone_parameters" in checked
        else "",
        "check, CPU s": round(check_s, 1),
        "search, CPU s": round(search_s, 1),
        "finished": answer.get("finished", answer.get("trials", "")),
        "export, CPU s": round(export_s, 1),
        "predict, CPU s": round(predict_s, 1),
        "predicted": len(predictions.splitlines()) - 1,
    }


def main() -> None:
    """Print a row an encoder, as a Markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--trials", type=int, default=8)
    options = parser.parse_args()
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "starter").exists():
        hpo("init", work / "starter")
        subprocess.run([sys.executable, work / "starter" / "make_windows.py"], check=True)
    head = True
    for title, encoder in ENCODERS.items():
        if options.only and encoder.file.removesuffix(".py") not in options.only:
            continue
        row = one(title, encoder, work, options.trials)
        if head:
            print("| " + " | ".join(row) + " |\n|" + "---|" * len(row))
            head = False
        print("| " + " | ".join(map(str, row.values())) + " |", flush=True)


if __name__ == "__main__":
    main()
