"""Encoders that are none of ours: the contract, training, resuming, export, and whose code may run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_runs import SPEC, ListSource
from test_own_study import OWN, save_windows
from torch import nn

from finetune.api import (
    BackboneSpec,
    CheckpointError,
    CodeError,
    Factory,
    FinetuneError,
    Run,
    RunSpec,
    SettingError,
    export_model,
    predict_signal,
    seal_backbone,
    train,
)
from finetune.backbones import build_backbone
from finetune.backbones.foreign import ForeignBackbone
from finetune.engine.checkpoint import load_best
from finetune.model import build_model
from finetune.random import Noise
from finetune.tasks import TASKS
from hpo.cli.app import main
from hpo.study import parse_spec

ENCODER = """
import torch
from torch import nn

class Encoder(nn.Module):
    def __init__(self, width, channels):
        super().__init__()
        self.first = nn.Conv1d(channels, width, 25, stride=25)
        self.norm = nn.BatchNorm1d(width)
        self.dropout = nn.Dropout(0.3)
        self.last = nn.Linear(width, width)

    def forward(self, x):
        hidden = self.dropout(torch.relu(self.norm(self.first(x))))
        return self.last(hidden.mean(dim=-1))

def build(weights, width=8, channels=1):
    encoder = Encoder(width, channels)
    if weights is not None:
        encoder.load_state_dict(weights)
    return encoder

def layers(encoder):
    return [encoder.first, encoder.norm, encoder.last]

def pair(weights):
    class Pair(nn.Module):
        def forward(self, x):
            return x.mean(-1), x
    return Pair()

def fixed(weights):
    encoder = Encoder(8, 1)
    encoder.first.bias.requires_grad_(False)
    return encoder

def tokens(weights):
    return nn.Conv1d(1, 4, 25, stride=25)

def narrow(weights):
    return nn.Sequential(nn.Flatten(), nn.Linear(1250, 1))

def picky(weights):
    return nn.Linear(77, 4)

def broken(weights):
    raise KeyError("conv1.weight")

class TwoMethods:
    def __init__(self):
        self.net = nn.Linear(50, 6)

    def preprocess(self, x):
        return x[:, 0, ::25]

    def encode(self, x):
        return self.net(x)

def two_methods(weights):
    return TwoMethods()

def halved(x):
    return x[..., ::2]

class Odd(nn.Module):
    def __init__(self, first=None, before=lambda x: x, after=lambda h: h):
        super().__init__()
        self.first = first or nn.Conv1d(1, 8, 25, stride=25)
        self.before, self.after = before, after
        self.register_buffer("shift", torch.randn(1, 1, 1).expand(1, 8, 50))

    def forward(self, x):
        return self.after(torch.tanh(self.first(self.before(x)) + self.shift).mean(dim=-1))

class Spectrum(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 50, dtype=torch.cfloat))

    def forward(self, x):
        return (torch.fft.rfft(x)[..., :50] * self.weight).abs() / 50

def expanded(weights):
    return Odd()

def lazy(weights):
    return Odd(nn.LazyConv1d(8, 25, stride=25))

def complex_numbers(weights):
    return Odd(Spectrum())

def double(weights):
    return Odd(before=lambda x: x.double()).double()

def in_place(weights):
    return Odd(before=lambda x: x.mul_(2.0))

def scripted(weights):
    return torch.jit.script(nn.Sequential(nn.Conv1d(1, 8, 25, 25), nn.AdaptiveAvgPool1d(1), nn.Flatten()))

def meddling(weights):
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    return Odd(nn.Conv1d(1, 8, 25, stride=25, dtype=torch.float32))

def by_name(weights):
    return Odd(after=lambda h: {"tokens": h, "pooled": h})

def wide(weights):
    return nn.Sequential(nn.Flatten(), nn.Linear(1250, 70_000))

def strict(weights):
    encoder = Encoder(8, 1)
    encoder.load_state_dict(weights)
    return encoder
"""
ODD = ["expanded", "lazy", "complex_numbers", "double", "in_place", "scripted", "meddling"]


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of code that this process may run."""
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "my_encoder.py").write_text(ENCODER)
    monkeypatch.setenv("HPO_CODE", str(folder))
    return folder


def spec_of(entry: str = "build", weights: str = "none", **parts: object) -> BackboneSpec:
    plain = BackboneSpec("mine", weights, Factory(f"my_encoder.py:{entry}", **parts))  # type: ignore[arg-type]
    code_hash, weights_hash = seal_backbone(plain)
    assert plain.factory is not None
    return replace(plain, factory=replace(plain.factory, code_hash=code_hash, weights_hash=weights_hash))


def built(
    spec: BackboneSpec, seed: int = 0, channels: int = 1, dropout: float | None = None
) -> ForeignBackbone:
    found = build_backbone(spec, TASKS["synthetic_hr"], 1250, dropout, seed, channels)
    assert isinstance(found, ForeignBackbone)
    return found


def run_spec(spec: BackboneSpec, **changes: object) -> RunSpec:
    return replace(SPEC, backbone=spec, **changes)  # type: ignore[arg-type]


def trained(run: Run, shared: Path, source: ListSource | None = None) -> ListSource:
    source = source or ListSource(run)
    train(source, data_dir=shared, cache_dir=shared / "cache", device="cpu")
    return source


# --- the contract


def test_features_are_those_of_the_module_itself(code: Path) -> None:
    encoder = built(spec_of())
    x = torch.randn(5, 1250)

    assert encoder.embedding == 8
    torch.testing.assert_close(encoder(x, None), encoder.module(x.unsqueeze(1)))


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("pair", r"gives a tuple of 2 for windows \(2, 1, 1250\); expected \(2, E\)"),
        ("tokens", r"gives a tensor \(2, 4, 50\) .* pool it"),
        ("narrow", "features of width 1; expected 2 to"),
        ("picky", "cannot take windows"),
        ("by_name", r"gives a dict of tokens, pooled .* its value that holds the features"),
        ("wide", "features of width 70000; expected 2 to 65536"),
        ("broken", r"raised KeyError: 'conv1.weight'"),
        ("nothing", "defines no 'nothing'; expected one of Encoder, build, layers"),
        ("torch", "defines no 'torch'"),
    ],
)
def test_an_encoder_that_keeps_no_contract_is_one_clear_line(code: Path, entry: str, words: str) -> None:
    with pytest.raises(FinetuneError, match=words) as caught:
        built(spec_of(entry))

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("import a_package_that_is_not_here", "raised ModuleNotFoundError: No module named"),
        ("raise OSError('could not load its library')", "raised OSError: could not load its library"),
        ("raise SystemExit('no')", "raised SystemExit: no"),
    ],
)
def test_code_that_fails_while_it_is_read_is_one_clear_line(code: Path, line: str, words: str) -> None:
    (code / "my_encoder.py").write_text(f"{line}\n{ENCODER}")

    with pytest.raises(CodeError, match=words) as caught:
        built(spec_of())
    assert "\n" not in str(caught.value)


def test_two_methods_are_enough(code: Path) -> None:
    encoder = built(spec_of("two_methods"))
    x = torch.randn(3, 1250)

    assert [name for name, _ in encoder.named_parameters()] == ["module.net.weight", "module.net.bias"]
    torch.testing.assert_close(encoder(x, None), encoder.module.net(x[:, ::25]))  # type: ignore[operator]


def test_windows_are_brought_to_the_encoders_rate_and_length(code: Path) -> None:
    seen: list[tuple[int, ...]] = []
    encoder = built(spec_of(rate_hz=50.0, seconds=8.0, prepare="my_encoder.py:halved"))
    encoder.module.register_forward_pre_hook(lambda module, x: seen.append(tuple(x[0].shape)))

    encoder(torch.randn(3, 1250), None)

    assert seen == [(3, 1, 200)]


def test_several_channels_reach_the_encoder_and_one_channel_sees_each_alone(code: Path) -> None:
    together = built(spec_of(options='{"channels": 3}', channels=3), channels=3)
    alone = build_backbone(spec_of(channels=1), TASKS["synthetic_hr"], 1250, None, 0, channels=3)
    x = torch.randn(2, 3, 1250)

    assert together(x, None).shape == (2, 8)
    assert alone(x, None).shape == (2, 24)
    torch.testing.assert_close(alone(x, None)[:, 8:16], alone.encoder(x[:, 1], None))  # type: ignore[operator]


def test_an_encoder_of_one_channel_on_several_says_how_it_sees_each(code: Path) -> None:
    with pytest.raises(
        SettingError, match=r"cannot take windows \(2, 3, 1250\).*channels: 1} passes each alone"
    ):
        built(spec_of(), channels=3)


def test_channels_that_do_not_fit_are_refused(code: Path) -> None:
    with pytest.raises(SettingError, match="channels is 2, the windows have 3"):
        built(spec_of(channels=2), channels=3)


def test_the_recipes_dropout_is_that_of_every_dropout_layer(code: Path) -> None:
    encoder = built(spec_of(), dropout=0.0)
    x = torch.randn(4, 1250)

    assert encoder.module.dropout.p == 0.0  # type: ignore[union-attr]
    torch.testing.assert_close(encoder(x, Noise(1, 2)), encoder(x, Noise(3, 4)))


def test_layers_are_told_by_a_function_or_are_one(code: Path) -> None:
    told = built(spec_of(groups="my_encoder.py:layers"))

    assert [len(group) for group in told.layer_groups()] == [2, 2, 2]
    assert len(built(spec_of()).layer_groups()) == 1


# --- modes and randomness


def test_validation_is_in_evaluation_mode_and_moves_no_statistics(code: Path) -> None:
    encoder = built(spec_of())
    x = torch.randn(6, 1250)
    encoder(x, Noise(0, 0))
    before = {name: value.clone() for name, value in encoder.state_dict().items()}

    first, one = encoder(x, None), encoder(x[:1], None)

    torch.testing.assert_close(first[:1], one)
    for name, value in encoder.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_training_drops_and_moves_statistics(code: Path) -> None:
    encoder = built(spec_of())
    x = torch.randn(6, 1250)
    before = encoder.module.norm.running_mean.clone()  # type: ignore[union-attr, operator]

    first, again, other = encoder(x, Noise(0, 1)), encoder(x, Noise(0, 1)), encoder(x, Noise(0, 2))

    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(first, other)
    assert not torch.equal(before, encoder.module.norm.running_mean)  # type: ignore[union-attr, arg-type]


def test_a_frozen_encoder_keeps_its_statistics_and_its_dropout(code: Path) -> None:
    model = build_model(run_spec(spec_of(), mode="linear_probing"), TASKS["synthetic_hr"])
    x = torch.randn(6, 1250)
    norm = model.backbone.module.norm  # type: ignore[union-attr]
    before = norm.running_mean.clone()  # type: ignore[union-attr, operator]

    first, other = model.backbone(x, Noise(0, 1)), model.backbone(x, Noise(0, 2))

    torch.testing.assert_close(norm.running_mean, before, rtol=0, atol=0)  # type: ignore[union-attr]
    assert not torch.equal(first, other)


def test_parameters_that_its_author_fixed_stay_fixed(code: Path) -> None:
    encoder = built(spec_of("fixed"))

    encoder(torch.randn(4, 1250), Noise(0, 1)).sum().backward()  # type: ignore[no-untyped-call]

    assert encoder.module.first.bias.grad is None  # type: ignore[union-attr]
    assert encoder.module.first.weight.grad is not None  # type: ignore[union-attr]


def test_a_batch_of_one_trains(code: Path) -> None:
    assert built(spec_of())(torch.randn(1, 1250), Noise(0, 1)).shape == (1, 8)


def test_what_is_drawn_while_building_is_the_seeds(code: Path) -> None:
    torch.manual_seed(5)
    one = built(spec_of(), seed=3).state_dict()
    state = torch.get_rng_state()
    two, other = built(spec_of(), seed=3).state_dict(), built(spec_of(), seed=4).state_dict()

    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["module.last.weight"], other["module.last.weight"])
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("mode", ["full_finetuning", "linear_probing"])
def test_a_resumed_run_is_an_uninterrupted_one(code: Path, tmp_path: Path, mode: str) -> None:
    spec = run_spec(spec_of(), mode=mode)
    whole = trained(Run("a", spec, tmp_path / "a"), tmp_path)
    broken = ListSource(Run("a", spec, tmp_path / "b"), raise_after=2)
    with pytest.raises(ConnectionError):
        trained(Run("a", spec), tmp_path, broken)

    resumed = trained(Run("a", spec, tmp_path / "b"), tmp_path)

    assert whole.curve("a")[1:] == resumed.curve("a")
    assert whole.results[0].best_validation_loss == resumed.results[0].best_validation_loss


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
@pytest.mark.parametrize("entry", ODD)
def test_an_odd_encoder_trains_resumes_and_is_read_back(code: Path, tmp_path: Path, entry: str) -> None:
    spec = run_spec(spec_of(entry))
    before = built(spec.backbone, seed=spec.seed)
    x = torch.randn(3, 1250)
    given = x.clone()
    whole = trained(Run("a", spec, tmp_path / "a"), tmp_path)
    broken = ListSource(Run("a", spec, tmp_path / "b"), raise_after=2)
    with pytest.raises(ConnectionError):
        trained(Run("a", spec), tmp_path, broken)

    resumed = trained(Run("a", spec, tmp_path / "b"), tmp_path)
    folder = export_model(
        spec, tmp_path / "a/best.safetensors", tmp_path / "model", card="", data_dir=tmp_path,
        cache_dir=tmp_path / "cache",
    )  # fmt: skip
    np.save(tmp_path / "x.npy", np.sin(np.arange(3000) / 9))
    said = predict_signal(tmp_path / "model", tmp_path / "x.npy", rate_hz=125, device="cpu")

    assert before(x, None).dtype == torch.float32
    assert torch.equal(x, given)
    assert whole.curve("a")[1:] == resumed.curve("a")
    assert folder
    assert np.isfinite(said.values).all()


def test_an_encoder_is_kept_once_and_files_that_hold_it_twice_are_read(code: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    trained(Run("a", run_spec(spec_of()), tmp_path / "a"), tmp_path)
    best = tmp_path / "a/best.safetensors"
    weights = load_file(best)
    model = build_model(run_spec(spec_of()), TASKS["synthetic_hr"])
    twice = {
        f"backbone._call.{name[16:]}": one for name, one in weights.items() if name.startswith("backbone.")
    }
    save_file({**weights, **{name: one.clone() for name, one in twice.items()}}, best)

    load_best(best, model)

    assert not [name for name in weights if "_call" in name]
    torch.testing.assert_close(model.state_dict(), weights)


def test_the_frozen_features_of_an_own_encoder_end_in_a_model(code: Path, tmp_path: Path) -> None:
    spec = run_spec(spec_of(), mode="linear_probing_cached")
    trained(Run("a", spec, tmp_path / "a"), tmp_path)

    places = {"data_dir": tmp_path, "cache_dir": tmp_path / "cache"}
    assert export_model(spec, tmp_path / "a/best.safetensors", tmp_path / "model", card="", **places)


def test_weights_of_several_gpus_are_told_by_their_names(code: Path, tmp_path: Path) -> None:
    tensors = {f"module.{name}": value for name, value in built(spec_of()).module.state_dict().items()}
    torch.save(tensors, tmp_path / "encoder.pt")

    with pytest.raises(CodeError, match=r"take the 'module\.' off"):
        built(spec_of("strict", str(tmp_path / "encoder.pt")))


# --- weights


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_are_read_as_tensors_and_given_to_the_factory(
    code: Path, tmp_path: Path, suffix: str
) -> None:
    from safetensors.torch import save_file

    wanted = {name: value.clone() for name, value in built(spec_of(), seed=9).module.state_dict().items()}
    path = tmp_path / f"encoder{suffix}"
    if suffix == ".pt":
        torch.save({"state_dict": wanted}, path)
    else:
        save_file(wanted, path)

    found = built(spec_of(weights=str(path)), seed=1).module.state_dict()

    assert all(torch.equal(found[name], value) for name, value in wanted.items())


def test_weights_that_are_a_program_are_refused(code: Path, tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "model.pt")

    with pytest.raises(CheckpointError, match="cannot be read"):
        built(spec_of(weights=str(tmp_path / "model.pt")))


def test_weights_that_changed_are_refused(code: Path, tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save({"a": torch.ones(1)}, path)
    spec = spec_of(weights=str(path))
    torch.save({"a": torch.zeros(1)}, path)

    with pytest.raises(CheckpointError, match="not the file that the study was made with"):
        built(spec)


# --- whose code may run

HOSTILE = """
from pathlib import Path
Path(__file__).with_name("i_ran").touch()
def build(weights):
    raise SystemExit
"""


def test_no_code_runs_without_a_folder(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of()
    monkeypatch.delenv("HPO_CODE")

    with pytest.raises(CodeError, match="--code DIR"):
        built(spec)


@pytest.mark.parametrize(
    "entry", ["../evil.py:build", "/etc/evil.py:build", "os:system", "os.path:join", "my_encoder.py:a.b", "x"]
)
def test_no_code_runs_from_elsewhere(code: Path, tmp_path: Path, entry: str) -> None:
    (tmp_path / "evil.py").write_text(HOSTILE)

    with pytest.raises(CodeError):
        seal_backbone(BackboneSpec("mine", "none", Factory(entry)))

    assert not (tmp_path / "i_ran").exists()


@pytest.mark.parametrize("changed", ["my_encoder.py", "parts.py"])
def test_code_that_is_not_the_studys_does_not_run(code: Path, changed: str) -> None:
    (code / "parts.py").write_text("WIDTH = 8\n")
    (code / "my_encoder.py").write_text("import parts\n" + ENCODER)
    spec = spec_of()
    (code / changed).write_text(HOSTILE)

    with pytest.raises(CodeError, match="the study's"):
        built(spec)

    assert not (code / "i_ran").exists()


def hostile(place: Callable[[str], str]) -> str:
    return place(
        OWN.replace("backbone: {name: cmssl_tiny_ppg}", "backbone: {factory: my_encoder.py:build}").replace(
            "name: mine", "name: hostile"
        )
    )


def test_a_hostile_study_in_a_shared_database_runs_nothing(
    code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_windows(tmp_path)
    places = ["--data", str(tmp_path), "--cache", str(tmp_path / "cache")]
    monkeypatch.setenv("HPO_STORAGE", f"sqlite:///{tmp_path}/hpo.db")
    (code / "my_encoder.py").write_text(HOSTILE)
    (tmp_path / "hostile.yaml").write_text(hostile(lambda text: text))
    good = OWN.replace("name: mine", "name: good").replace("baseline:", "recipe: {epochs: 1}\nbaseline:")
    (tmp_path / "good.yaml").write_text(good)
    assert main(["submit", "--study", str(tmp_path / "hostile.yaml"), "--trials", "2", *places]) == 0
    assert main(["submit", "--study", str(tmp_path / "good.yaml"), "--trials", "1", *places]) == 0
    monkeypatch.delenv("HPO_CODE")

    main(["worker", *places])
    said = capsys.readouterr()

    assert not (code / "i_ran").exists()
    assert "hostile cannot be served here" in said.err
    assert "good trial 0 complete" in said.err


# --- the whole way


def test_a_search_with_an_own_encoder_ends_in_an_answer_and_a_model(
    code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_windows(tmp_path)
    text = OWN.replace(
        "backbone: {name: cmssl_tiny_ppg}",
        "backbone: {factory: my_encoder.py:build, options: {width: 16}, groups: my_encoder.py:layers}",
    ).replace("baseline:", "recipe: {epochs: 1}\nbaseline:")
    (tmp_path / "mine.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HPO_STORAGE", f"sqlite:///{tmp_path}/hpo.db")
    places = ["--data", str(tmp_path), "--cache", str(tmp_path / "cache"), "--code", str(code)]
    ran = main(["run", "--study", "./mine.yaml", "--trials", "5", "--workers", "1", *places])
    (report,) = re.findall(r"hpo (report .*)", capsys.readouterr().out)
    reported = main([*shlex.split(report), "--help"])
    exported = main(["export", "--study", "mine", "--out", "model", *places])
    np.save("long.npy", np.sin(np.arange(3000) / 6).astype(np.float32))
    (code / "my_encoder.py").unlink()
    (predict,) = re.findall(r"next: hpo (predict .*)", capsys.readouterr().out)

    predicted = main(shlex.split(predict.replace("FILE", "long.npy").replace("HZ", "50")))

    assert (ran, reported, exported, predicted) == (0, 0, 0, 0)
    assert capsys.readouterr().out.startswith("start_s,end_s,windows (bpm)")


def test_the_example_of_the_documentation_runs(code: Path, tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parent.parent / "docs" / "own_encoder.md").read_text(encoding="utf-8")
    source, study = re.search(r"```python\n(.*?)```.*?```yaml\n(.*?)```", page, re.DOTALL).groups()  # type: ignore[union-attr]
    (code / "my_encoder.py").write_text(source)
    spec, faults = parse_spec(study)
    assert spec is not None, faults

    assert built(spec_of(options='{"width": 32}', groups="my_encoder.py:layers")).embedding == 32


def test_studies_of_before_keep_their_fingerprint_and_own_encoders_have_one_of_their_own() -> None:
    from test_study_file import GOOD

    plain, own = (parse_spec(text)[0] for text in (GOOD, hostile(lambda text: text)))
    assert plain is not None
    assert own is not None

    assert plain.what_counts()["backbone"] == {"name": "cmssl_tiny_ppg", "weights": "builtin"}
    assert own.backbone.name == "my_encoder.build"
    assert (
        own.fingerprint()
        != own.model_copy(update={"backbone": own.backbone.model_copy(update={"code": "x"})}).fingerprint()
    )
