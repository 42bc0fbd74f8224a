"""An encoder that is none of ours: built by a function of the user's, held to one contract.

``build(weights, **options)`` gets the tensors of ``backbone.weights`` by name (None without) and returns a
module that maps windows (B, C, T) to features (B, E). Its own randomness is torch's: it is seeded anew at
every step by (seed, step), so that a run repeats itself, resumed or not, on one kind of device. Members of a
population are trained one by one.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # torch's own convention
from torch.nn.modules.batchnorm import _BatchNorm

from finetune.backbones.base import Backbone
from finetune.backbones.code_folder import HUGGING_FACE, check_code, check_same, load_entry
from finetune.backbones.strict import read_pickle
from finetune.errors import CheckpointError, CodeError, FinetuneError, SettingError
from finetune.random import Noise, Purpose, torch_generator
from finetune.spec import BackboneSpec, Factory

FEATURE_METHODS = ("forward_features", "extract_features", "get_features", "encode", "embed")
"""Looked for, in this order, where an encoder has no ``forward`` of its own."""
PREPARE_METHODS = ("preprocess", "prepare")
"""Looked for where an encoder has one of the above: applied to the windows (B, C, T) first."""
WIDEST = 2**16
"""The head has half the square of the width in weights: 8 GB at this one."""
PROBE = 2
"""Windows of the call that finds out the width."""


def build(
    spec: BackboneSpec, channels: int, samples: int, window_s: float, dropout: float | None, seed: int
) -> Backbone:
    """Return the encoder with its weights, in evaluation mode, on the CPU.

    Whatever it draws while it is built is a function of ``seed``. Raises :class:`CodeError` for code that may
    not run, :class:`CheckpointError` for the weights, :class:`SettingError` for an output of another shape.
    """
    factory = spec.factory
    assert factory is not None
    if factory.entry != HUGGING_FACE:
        check_code(factory.entries, factory.code_hash)
    made, layers, prepare = _made(spec, factory, seed)
    fit = Fit(factory, window_s)
    encoder = ForeignBackbone(made, fit, prepare, factory.entry)
    if dropout is not None:
        _set_dropout(encoder, dropout)
    wants = factory.channels or channels
    if wants not in (1, channels):
        raise SettingError(
            f"backbone.input.channels is {wants}, the windows have {channels}",
            "as many, or 1 (each channel alone)",
        )
    encoder.probe(wants, samples, seed)  # lazy modules have their parameters from here on
    for tensor in (*encoder.parameters(), *encoder.buffers()):
        tensor.data = tensor.data.contiguous()
        if tensor.requires_grad:
            tensor.register_post_accumulate_grad_hook(_lay_out_gradient)  # type: ignore[no-untyped-call]
    encoder.set_groups(None if layers is None else layers(made))
    return encoder


def _made(
    spec: BackboneSpec, factory: Factory, seed: int
) -> tuple[Any, Callable[..., Any] | None, Callable[..., Any] | None]:
    """Return what the factory builds, its function of layer groups and its preparation."""
    options = json.loads(factory.options)
    with seeded(seed, Purpose.INIT, 0, torch.device("cpu")), _as_before():
        if factory.entry == HUGGING_FACE:
            return _from_hugging_face(spec.weights), None, None
        function = load_entry(factory.entry)
        weights = read_weights(spec.weights, factory.weights_hash)
        try:
            made = function(weights, **options)
        except FinetuneError:
            raise
        except Exception as error:
            text = " ".join(str(error).split())[:500]
            is_parallel = weights is not None and all(name.startswith("module.") for name in weights)
            raise CodeError(
                f"{factory.entry} raised {type(error).__name__}: {text}",
                "an encoder",
                "take the 'module.' off the weights' names" if is_parallel else "run it alone to see where",
            ) from error
    entries = (factory.groups, factory.prepare)
    layers, prepare = (None if entry is None else load_entry(entry) for entry in entries)
    return made, layers, prepare


def read_weights(weights: str, wanted: str) -> dict[str, Any] | None:
    """Return the tensors of a .safetensors or a file of torch.save (tensors only); None for ``none``."""
    if weights == "none":
        return None
    path = Path(weights).expanduser()
    if not path.is_file():
        raise CheckpointError(f"{path} is not there", "a file of weights", "check backbone.weights")
    if wanted:
        check_same(path, wanted)
    if path.suffix == ".safetensors":
        try:
            return dict(load_file(path))
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} cannot be read ({error})", "a .safetensors") from error
    content = read_pickle(path, str(path), [], "tensors by name, of torch.save")
    inner = content.get("state_dict", content.get("model", content))
    return dict(inner) if isinstance(inner, dict) else content


def _from_hugging_face(folder: str) -> nn.Module:
    try:
        import transformers  # type: ignore[import-not-found,unused-ignore]  # not among the dependencies
    except ImportError as error:
        raise SettingError(
            f"{HUGGING_FACE} needs transformers", "it installed", "type: pip install transformers"
        ) from error
    try:
        model = transformers.AutoModel.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        text = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{folder} cannot be read ({text})", "a folder of save_pretrained") from error
    return _HuggingFace(model)


class _HuggingFace(nn.Module):
    """A model of transformers on windows (B, C, T): by the name of its input, pooled over its tokens."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._names = inspect.signature(model.forward).parameters

    def forward(self, x: Tensor) -> Tensor:
        if "past_values" in self._names:
            said = self.model(past_values=x.transpose(1, 2))
        elif "input_values" in self._names:
            said = self.model(input_values=x[:, 0])
        else:
            raise SettingError(
                f"the model takes {', '.join(list(self._names)[:5])}",
                "past_values or input_values",
                "write a factory",
            )
        hidden: Tensor = said.last_hidden_state  # (B, ..., E)
        return hidden.flatten(1, -2).mean(dim=1)


class Fit:
    """Brings prepared windows to the rate and length that an encoder was made for."""

    def __init__(self, factory: Factory, window_s: float) -> None:
        self._rate_hz, self._seconds, self._window_s = factory.rate_hz, factory.seconds, window_s

    def __call__(self, x: Tensor) -> Tensor:
        """Return windows (B, C, T) resampled linearly, and their first ``seconds``."""
        if self._rate_hz is None:
            return x
        samples = round(self._window_s * self._rate_hz)
        if samples != x.shape[-1]:
            x = F.interpolate(x, samples, mode="linear", align_corners=False)
        if self._seconds is None:
            return x
        wanted = round(self._seconds * self._rate_hz)
        if wanted > samples:
            raise SettingError(
                f"backbone.input.seconds is {self._seconds:g}, a window has {self._window_s:g} s", "no more"
            )
        return x[..., :wanted]


PART_STEPS = 2**40
"""More than any run has: the parts of a batch draw from streams of their own."""


class ForeignBackbone(Backbone):
    """A user's encoder behind the contract of ours."""

    def __init__(
        self,
        made: Any,
        fit: Callable[[Tensor], Tensor],
        prepare: Callable[[Tensor], Tensor] | None,
        entry: str,
    ) -> None:
        super().__init__()
        self.module = made if isinstance(made, nn.Module) else _Wrapped(made, entry)
        self._call = _feature_call(self.module if isinstance(made, nn.Module) else made, self.module, entry)
        self._fit, self._prepare, self._entry = fit, prepare, entry
        self._groups: list[list[nn.Parameter]] | None = None

    def forward(self, x: Tensor, noise: Noise | None) -> Tensor:
        """Map windows (B, T) or (B, C, T) to features (B, E); see the module's docstring."""
        x = (x.unsqueeze(1) if x.dim() == 2 else x).clone()  # an encoder may change what it is given
        self._set_mode(is_training=noise is not None, batch=len(x))
        if noise is None:
            return self._features(x)
        with seeded(noise.seed, Purpose.DROPOUT, noise.step + noise.part * PART_STEPS, x.device):
            return self._features(x)

    def recompute_layers(self) -> None:
        """Ask an encoder of the transformers library to; no other has a way to."""
        enable = getattr(self.module, "gradient_checkpointing_enable", None)
        if not callable(enable):
            super().recompute_layers()
        else:
            enable()

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """Return the parameters by layer, ordered from the input; one group where nobody told any."""
        return self._groups or super().layer_groups()

    def set_groups(self, given: Sequence[Any] | None) -> None:
        """Take the layers (modules or parameters, ordered from the input) that a user's function names."""
        if given is None:
            return
        groups, seen = [], set[int]()
        for one in given:
            parameters = [one] if isinstance(one, nn.Parameter) else list(one.parameters())
            fresh = [parameter for parameter in parameters if id(parameter) not in seen]
            seen.update(map(id, fresh))
            groups.append(fresh)
        rest = [parameter for parameter in self.parameters() if id(parameter) not in seen]
        if rest:
            groups.append(rest)  # what no layer names lies nearest to the head
        self._groups = [group for group in groups if group]

    def probe(self, channels: int, samples: int, seed: int) -> None:
        """Find out the width E; raises :class:`SettingError` for an output that is not (B, E)."""
        x = torch.randn((PROBE, channels, samples), generator=torch_generator(seed, Purpose.INIT, 1))
        with torch.no_grad(), seeded(seed, Purpose.INIT, 2, x.device):
            self.embedding = self.forward(x, None).shape[1]
        if not 2 <= self.embedding <= WIDEST:
            raise SettingError(
                f"{self._entry} gives features of width {self.embedding}",
                f"2 to {WIDEST}",
                "pool them over time",
            )

    def _set_mode(self, *, is_training: bool, batch: int) -> None:
        """Set dropout and batch norm; frozen parts keep their statistics, and so does a batch of one."""
        self.module.train(is_training)
        if not is_training:
            return
        for one in self.module.modules():
            if isinstance(one, _BatchNorm):
                parameters = list(one.parameters(recurse=False))
                is_frozen = bool(parameters) and not any(p.requires_grad for p in parameters)
                is_frozen |= not parameters and not any(p.requires_grad for p in self.module.parameters())
                one.train(not is_frozen and batch > 1)

    def _features(self, x: Tensor) -> Tensor:
        x = self._fit(x)
        x = x if self._prepare is None else self._prepare(x)
        try:
            said = self._call(x)
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            text = " ".join(str(error).split())[:300]
            alone = "check backbone.input"
            if x.shape[1] > 1:
                alone += "; of one channel? backbone.input: {channels: 1} passes each alone"
            raise SettingError(
                f"{self._entry} cannot take windows {tuple(x.shape)} ({type(error).__name__}: {text})",
                "a module on (B, C, T)",
                alone,
            ) from error
        return self._checked(said, x)

    def _checked(self, said: Any, x: Tensor) -> Tensor:
        batch = len(x)
        if isinstance(said, Tensor) and said.dim() == 2 and len(said) == batch and said.is_floating_point():
            return said.float()
        what = f"a tensor {tuple(said.shape)}" if isinstance(said, Tensor) else f"a {type(said).__name__}"
        if isinstance(said, Tensor) and said.dim() == 3:
            hint = "pool it: hidden.mean(dim=-1) of (B, E, T), hidden.mean(dim=1) of (B, T, E)"
        elif isinstance(said, Mapping):
            what, hint = f"{what} of {', '.join(map(str, said))}", "return its value that holds the features"
        elif isinstance(said, tuple | list):
            what, hint = f"{what} of {len(said)}", "return its part that holds the features"
        else:
            hint = "return features (B, E) from the factory's module"
        raise SettingError(f"{self._entry} gives {what} for windows {tuple(x.shape)}", f"({batch}, E)", hint)


class _Wrapped(nn.Module):
    """The modules among the attributes of an encoder that is no module itself."""

    def __init__(self, made: Any, entry: str) -> None:
        super().__init__()
        parts = {name: value for name, value in vars(made).items() if isinstance(value, nn.Module)}
        if not parts:
            raise SettingError(f"{entry} gives a {type(made).__name__}", "a torch.nn.Module")
        for name, part in parts.items():
            self.add_module(name, part)


def _feature_call(made: Any, module: nn.Module, entry: str) -> Callable[[Tensor], Any]:
    """Return what maps windows (B, C, T) to features: ``forward``, or a method by one of the usual names."""
    is_script = isinstance(made, torch.jit.ScriptModule)  # whose class has no forward to look at
    has_forward = isinstance(made, nn.Module) and (is_script or type(made).forward is not nn.Module.forward)
    if has_forward:
        call: Callable[[Tensor], Any] = (
            module.__call__
        )  # the module itself would be a part under a second name
        return call
    methods = [getattr(made, name) for name in FEATURE_METHODS if callable(getattr(made, name, None))]
    if not methods:
        raise SettingError(
            f"{entry} gives a {type(made).__name__} without forward", f"forward, or {FEATURE_METHODS}"
        )
    before = [getattr(made, name) for name in PREPARE_METHODS if callable(getattr(made, name, None))]
    if not before:
        call = methods[0]
        return call
    return lambda x: methods[0](before[0](x))


def _set_dropout(encoder: nn.Module, p: float) -> None:
    for one in encoder.modules():
        if isinstance(one, nn.Dropout | nn.Dropout1d | nn.Dropout2d | nn.AlphaDropout):
            one.p = p


def _lay_out_gradient(parameter: Tensor) -> None:
    """Give a gradient its parameter's strides: fused AdamW on the CPU is wrong otherwise (torch 2.13.0)."""
    if parameter.grad is not None and parameter.grad.stride() != parameter.stride():
        parameter.grad = torch.empty_like(parameter).copy_(parameter.grad)


@contextmanager
def _as_before() -> Iterator[None]:
    """Set back what a user's code may change for the whole process: gradients, the type of new tensors."""
    dtype, has_gradients = torch.get_default_dtype(), torch.is_grad_enabled()
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(has_gradients)


@contextmanager
def seeded(seed: int, purpose: Purpose, step: int, device: torch.device) -> Iterator[None]:
    """Let torch's own generators draw as a function of (seed, purpose, step), and restore them afterwards."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(torch_generator(seed, purpose, step).initial_seed())
        yield
