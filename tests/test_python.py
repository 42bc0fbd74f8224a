"""hpo from Python: a light import, a small typed surface, a study as one object."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib.figure
import pytest
from small_study import NAME, Place, finished_study

import hpo
from hpo.worker import work

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return finished_study(tmp_path_factory.mktemp("searched"), total=14)


def test_a_loaded_study_has_its_answer_and_tables_without_torch(place: Place) -> None:
    told = (
        f"import sys, hpo; s = hpo.load({NAME!r}, storage={str(place.folder / 'hpo.db')!r}); s.answer; "
        "len(s.trials); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, cwd=ROOT, check=True)
    study = hpo.load(NAME, storage=place.url)

    assert done.stdout.strip() == "False"
    assert isinstance(study.answer, hpo.Answer)
    assert study.answer.choice is not None
    assert list(study.trials["number"]) == list(range(14))
    assert set(study.curves["number"]) <= set(range(14))
    assert isinstance(study.spec, hpo.StudySpec)
    assert list(study.zones.columns) == ["low", "high", "standing"]
    assert study.confirmation is None


def test_every_picture_is_a_figure(place: Place) -> None:
    study = hpo.load(NAME, storage=place.folder / "hpo.db")

    for name in ("ratio", "zones", "rates", "curves", "seeds"):
        assert isinstance(getattr(study.plot, name)(), matplotlib.figure.Figure), name


def test_a_notebook_shows_the_answer_and_its_picture(place: Place) -> None:
    study = hpo.load(NAME, storage=place.url)

    shown = study._repr_html_()

    assert "<li>" in shown
    assert "data:image/svg+xml;base64," in shown
    assert "<script" not in shown
    assert study.words()[0] in repr(study)


def test_a_study_is_read_again_when_asked(place: Place, tmp_path: Path) -> None:
    shutil.copytree(place.folder, tmp_path, dirs_exist_ok=True)
    place = Place(tmp_path)
    study = hpo.load(NAME, storage=place.url)
    place.open(16)
    work(place.url, [NAME], below=16, settings=place.settings())

    assert len(study.trials) == 14
    assert len(study.refresh().trials) == 16
    assert list(hpo.studies(place.url)["finished"]) == [16]


def test_what_is_not_there_is_told_in_one_line(place: Place) -> None:
    with pytest.raises(hpo.HpoError, match="nowhere"):
        hpo.load("nowhere", storage=place.url)
    with pytest.raises(hpo.HpoError, match=r"no\.db"):
        hpo.load(NAME, storage=place.folder / "no.db")
    with pytest.raises(hpo.HpoError, match="workers is 0"):
        hpo.run("synthetic_rr", workers=0)


def test_a_function_stays_one_when_the_package_of_its_name_is_imported() -> None:
    import hpo.confirm.arms

    assert callable(hpo.confirm)


def test_the_public_names_are_documented_and_no_others() -> None:
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")

    named = set(re.findall(r"^\| `hpo\.(\w+)", text, re.MULTILINE))

    assert named == set(hpo.__all__)
    assert [name for name in hpo.__all__ if not hasattr(hpo, name)] == []


def test_the_example_of_the_documentation_runs(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    example = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert example is not None
    monkeypatch.chdir(place.folder)

    exec(example[1].replace("synthetic_rr", NAME), {})

    assert (place.folder / "ratio.pdf").stat().st_size > 0


@pytest.mark.slow
@pytest.mark.usefixtures("one_process")
def test_a_search_from_python_ends_with_its_study(tmp_path: Path, shared_cache_dir: Path) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(
        "name: tiny\ntask: synthetic_rr\ninputs: {train_subjects: 1}\n"
        "backbone: {name: cmssl_tiny_ppg, weights: none}\nrecipe: {epochs: 1, batch_size: 256}\n"
        "space: {lr: 1e-3, backbone_lr: [1e-5, 1e-4], loss: [mse]}\nsampler: {kind: random}\n"
        "baseline: {name: published default, lr: 1e-3, backbone_lr: 1e-5, loss: mse}\n"
    )

    study = hpo.run(
        file,
        trials=3,
        storage=tmp_path / "hpo.db",
        workers=1,
        cache=shared_cache_dir,
        device="cpu",
        quiet=True,
    )

    assert (study.name, len(study.trials)) == ("tiny", 3)
    assert set(study.trials["lr"]) == {1e-3}
    assert set(study.trials["backbone_lr"]) <= {1e-5, 1e-4}
