"""Self-supervised pretraining of the built-in backbones: ``python -m finetune pretrain``.

Up to three objectives, summed, on windows of the *training* subjects only:

- masked patches: a random share of the 1-s patches is replaced by a learned token, and their samples are
  predicted (He et al., "Masked autoencoders are scalable vision learners", CVPR 2022);
- cross-modal, patch by patch: every patch predicts the energy of the heart beat in the ECG that was
  recorded with it (after CM-SSL, ximosss/CM-SSL);
- cross-modal, pooled (``spectrum``): the mean over the patches predicts the spectrum of that energy. Not
  used for PPG: it made linear probing on all subjects better (validation MAE of bidmc_hr 2.6 against 3.3
  bpm, one seed), but probing on 5 subjects (8.4 against 6.6, two seeds) and fine-tuning (4.6 against 2.9,
  one seed) worse.

For PPG the ECG is a target, never an input. An ECG backbone has no other modality here: its companion is
the beat energy of the ECG itself. No label of any task is used.

Windows are drawn at random places and stretched in time by up to ``stretch`` either way, which shows the
encoder heart rates that few training subjects have, and the sampling rates that its tasks are prepared at.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from finetune.backbones import build_backbone
from finetune.backbones.base import empty_linear
from finetune.backbones.cmssl import CmsslEncoder
from finetune.backbones.cmssl_files import save_cmssl
from finetune.pretraining.sources import Recording, pretraining_recordings
from finetune.random import Noise, Purpose, stream, torch_generator
from finetune.spec import BackboneSpec
from finetune.tasks import TASKS

PATCH = 125
REPORT_EVERY = 500
OBJECTIVES = ("masked", "companion", "spectrum")
PADDED = 40 * 125
SPECTRUM_BINS = range(20, 161)
"""Of the zero-padded spectrum: 0.5 to 4 Hz, the fundamental (and harmonics) of 30 to 240 beats a minute."""


@dataclass(frozen=True)
class PretrainSpec:
    """All that decides the weights."""

    backbone: str = "cmssl_tiny_ppg"
    steps: int = 20_000
    batch_size: int = 128
    lr: float = 1e-3
    """Peak of a one-cycle cosine schedule with 5 % warm-up."""
    weight_decay: float = 1e-2
    masked: tuple[float, float] = (0.5, 0.5)
    """The share of hidden patches is drawn for each window, uniformly between the two."""
    objectives: tuple[str, ...] = ("masked", "companion")
    """Those of :data:`OBJECTIVES` that are summed; all are reported."""
    stretch: float = 1.6
    """Windows are read at a speed drawn log-uniformly from 1/stretch to stretch."""
    patches: tuple[int, ...] = (10,)
    """Lengths of windows; the steps take them in turn, each with windows of ``10 * batch_size`` patches."""
    seed: int = 0


def usual_spec(backbone: str, *, steps: int, batch_size: int, seed: int) -> PretrainSpec:
    """Return the spec of a built-in backbone.

    ECG: the tasks are prepared at 125 Hz and 10 patches (ptb-xl, csn) and at 61 Hz and 30 patches
    (physionet2017), so windows of both lengths are read at speeds from half to double.
    """
    spec = PretrainSpec(backbone, steps=steps, batch_size=batch_size, seed=seed)
    if backbone != "cmssl_tiny_ecg":
        return spec
    return replace(spec, stretch=2.0, patches=(10, 30), masked=(0.0, 0.75), objectives=OBJECTIVES)


class Pretrainer(nn.Module):
    """An encoder with a mask token and one linear decoder for each objective."""

    def __init__(self, encoder: CmsslEncoder, seed: int) -> None:
        super().__init__()
        generator = torch_generator(seed, Purpose.HEAD)
        self.encoder = encoder
        self.mask_token = nn.Parameter(torch.randn(encoder.embedding, generator=generator) * 0.02)
        self.to_signal = empty_linear(encoder.embedding, PATCH)
        self.to_companion = empty_linear(encoder.embedding, PATCH)
        self.to_spectrum = empty_linear(encoder.embedding, len(SPECTRUM_BINS))
        for layer in (self.to_signal, self.to_companion, self.to_spectrum):
            nn.init.normal_(layer.weight, std=0.02, generator=generator)
            nn.init.zeros_(layer.bias)

    def forward(
        self, windows: Tensor, companion: Tensor, hidden: Tensor, noise: Noise
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the three losses of windows and companions (B, T), patches ``hidden`` (B, P) masked."""
        patches = windows.view(len(windows), -1, PATCH)  # (B, P, 125)
        tokens = torch.where(hidden[..., None], self.mask_token, self.encoder.embed(windows))
        encoded = self.encoder.encode(tokens, noise)  # (B, P, E)
        signal_error = (self.to_signal(encoded) - patches).square().mean(-1)
        companion_error = (self.to_companion(encoded) - companion.view_as(patches)).square().mean()
        spectrum_error = nn.functional.cross_entropy(self.to_spectrum(encoded.mean(1)), spectrum(companion))
        return (signal_error * hidden).sum() / hidden.sum().clamp(min=1), companion_error, spectrum_error


def spectrum(companion: Tensor) -> Tensor:
    """Return where in 0.5 to 4 Hz the power of companions (B, T) lies, as shares (B, bins) that sum to 1.

    Windows are at 125 Hz; zero-padded to 40 s, so that bins are 0.025 Hz (1.5 beats a minute) apart.
    """
    tapered = (companion - companion.mean(1, keepdim=True)) * torch.hann_window(companion.shape[1])
    power = torch.fft.rfft(tapered, n=PADDED).abs().square()[:, SPECTRUM_BINS]
    shares: Tensor = power / power.sum(1, keepdim=True).clamp(min=1e-12)
    return shares


def pretrain(spec: PretrainSpec, data_dir: Path, out: Path, *, notify: Callable[[str], None]) -> Path:
    """Pretrain and write ``<backbone>.safetensors`` and ``<backbone>.json`` (the card) into ``out``.

    Raises :class:`finetune.errors.MissingDataError` when the recordings are not in ``data_dir``.
    """
    torch.set_num_threads(1)
    recordings = pretraining_recordings(spec.backbone, data_dir)
    notify(f"{len(recordings)} recordings, {sum(len(r.signal) for r in recordings) / 125 / 3600:.1f} h")
    task = TASKS["bidmc_hr" if spec.backbone.endswith("ppg") else "ptb-xl"]
    encoder = build_backbone(
        BackboneSpec(spec.backbone, "none"), task, samples=1250, dropout=None, seed=spec.seed
    )
    assert isinstance(encoder, CmsslEncoder)
    model = Pretrainer(encoder, spec.seed)
    began = time.monotonic()
    curve = _train(model, recordings, spec, notify)
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{spec.backbone}.safetensors"
    card = _card(spec, recordings, curve, time.monotonic() - began)
    save_cmssl(path, encoder, {"command": str(card["command"])})
    (out / f"{spec.backbone}.json").write_text(json.dumps(card, indent=2) + "\n")
    return path


def _train(
    model: Pretrainer, recordings: Sequence[Recording], spec: PretrainSpec, notify: Callable[[str], None]
) -> list[dict[str, float]]:
    """Train ``model`` in place; return the loss curve, a mean over every ``REPORT_EVERY`` steps."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=spec.lr, weight_decay=spec.weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, spec.lr, total_steps=spec.steps, pct_start=0.05)
    curve: list[dict[str, float]] = []
    sums = np.zeros(len(OBJECTIVES))
    for step in range(spec.steps):
        draw = stream(spec.seed, Purpose.PRETRAIN, step)
        patches = spec.patches[step % len(spec.patches)]
        count = spec.batch_size * 10 // patches
        windows, companion = draw_windows(recordings, count, spec.stretch, draw, patches * PATCH)
        hidden = torch.from_numpy(_draw_hidden(spec.masked, count, patches, draw))
        losses = model(torch.from_numpy(windows), torch.from_numpy(companion), hidden, Noise(spec.seed, step))
        optimizer.zero_grad(set_to_none=True)
        sum(loss for name, loss in zip(OBJECTIVES, losses, strict=True) if name in spec.objectives).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        sums += [loss.item() for loss in losses]
        if (step + 1) % REPORT_EVERY == 0 or step + 1 == spec.steps:
            since = (step % REPORT_EVERY) + 1
            means = dict(zip(OBJECTIVES, (sums / since).round(4).tolist(), strict=True))
            curve.append({"step": step + 1, **means})
            notify(f"step {step + 1}: {means}")
            sums[:] = 0
    return curve


def draw_windows(
    recordings: Sequence[Recording],
    count: int,
    stretch: float,
    draw: np.random.Generator,
    samples: int = 1250,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return ``count`` windows and companions (B, T) at random places and speeds.

    Windows are z-scored one by one, as :class:`finetune.spec.InputSpec` does with ``window``, after a slow
    drift and noise of random size were added; companions keep their recording's scale. A recording that is
    shorter than a window stands at its beginning, with zeros (and a silent companion) behind it.
    """
    speeds = np.exp(draw.uniform(-np.log(stretch), np.log(stretch), count))
    chosen = draw.integers(len(recordings), size=count)
    windows, companions = np.empty((2, count, samples), np.float32)
    inside = np.empty((count, samples), np.bool_)
    for i in range(count):
        recording = recordings[chosen[i]]
        span, last = (samples - 1) * speeds[i], len(recording.signal) - 2
        places = draw.uniform(0, max(last - span, 0)) + np.linspace(0, span, samples)
        inside[i] = places <= last
        places = np.minimum(places, last)
        windows[i] = np.where(inside[i], _read_at(recording.signal, places), 0)
        companions[i] = np.where(inside[i], _read_at(recording.companion, places), recording.companion.min())
    return _augment(_z_score(windows), inside, draw), companions


def _draw_hidden(
    masked: tuple[float, float], count: int, patches: int, draw: np.random.Generator
) -> NDArray[np.bool_]:
    """Return which patches (B, P) are hidden."""
    low, high = masked
    share = draw.uniform(low, high, (count, 1)) if low < high else low
    return draw.random((count, patches)) < share


def _read_at(signal: NDArray[np.float32], places: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return ``signal`` at fractional sample numbers, by linear interpolation."""
    left = places.astype(np.int64)
    share = (places - left).astype(np.float32)
    return signal[left] * (1 - share) + signal[left + 1] * share


def _augment(
    windows: NDArray[np.float32], inside: NDArray[np.bool_], draw: np.random.Generator
) -> NDArray[np.float32]:
    """Add a sine (up to 0.5 standard deviations, 0.5 to 5 cycles) and white noise (up to 0.2).

    Only ``inside`` (B, T) a recording: what is padded stays constant, as in fine-tuning.
    """
    count, samples = windows.shape
    size, cycles, phase, noise = draw.uniform((0, 0.5, 0, 0), (0.5, 5, 2 * np.pi, 0.2), (count, 4)).T[
        ..., None
    ]
    drift = size * np.sin(cycles * np.linspace(0, 2 * np.pi, samples) + phase)
    white = noise * draw.standard_normal((count, samples), dtype=np.float32)
    return _z_score(np.where(inside, windows + drift + white, windows).astype(np.float32))


def _z_score(windows: NDArray[np.float32]) -> NDArray[np.float32]:
    std = windows.std(1, keepdims=True)
    scaled: NDArray[np.float32] = (windows - windows.mean(1, keepdims=True)) / np.where(std > 0, std, 1)
    return scaled


def _data_licence(backbone: str) -> str:
    ppg = "ODC-By 1.0 (BIDMC)"
    return ppg if backbone.endswith("ppg") else f"{ppg}, ODC-By 1.0 (PhysioNet 2017), CC BY 4.0 (PTB-XL)"


def _card(
    spec: PretrainSpec, recordings: Sequence[Recording], curve: Sequence[dict[str, float]], elapsed_s: float
) -> dict[str, object]:
    """Return what a reader must know of the weights: data, licence, command, versions, seed, loss curve."""
    command = (
        f"python -m finetune pretrain --backbone {spec.backbone} --steps {spec.steps} --seed {spec.seed}"
    )
    return {
        "name": spec.backbone,
        "command": command,
        "spec": asdict(spec),
        "data": sorted({recording.source for recording in recordings}),
        "recordings": [recording.name for recording in recordings],
        "licence": "Apache-2.0 (weights); data: " + _data_licence(spec.backbone),
        "versions": {
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "elapsed_s": round(elapsed_s),
        "loss_curve": list(curve),
    }
