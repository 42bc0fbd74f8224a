"""What no person would write: whatever the bytes, the same numbers or a fault of the user's, no traceback.

``HPO_FUZZ=500`` tries so many of each kind (40 if not given).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from wsgiref.types import WSGIApplication

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_study import Place, finished_study, small_spec
from test_checkpoint import SPEC, fresh, saved_in, whole
from web import TOKEN, ask

from finetune.api import FinetuneError
from finetune.datasets.own.tables import read_npz
from finetune.engine.checkpoint import BEST, LAST, load_best, load_last
from finetune.own import OwnData, OwnSplit
from finetune.signal_files import read_signal
from hpo.dashboard import Access, build
from hpo.diary.file import read_diary
from hpo.errors import HpoError
from hpo.storage import open_engine
from hpo.study import load_spec, parse_spec

fuzzed = settings(
    max_examples=int(os.environ.get("HPO_FUZZ", "40")),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    deadline=None,
)
NUMBERS = (
    st.floats(width=32)
    | st.integers(-(10**25), 10**25)
    | st.sampled_from(["", " ", "nan", "-", "1,5", '"', "１"])
)
CELLS = NUMBERS.map(str) | st.text(max_size=8)
HEADERS = st.lists(
    st.sampled_from(["lr", "backbone_lr", "ratio", "loss", "seed", "validation_mae", "mae", ""]), max_size=8
)
"""Of a diary; columns may be missing, come twice, or have no name."""


def mangled(content: bytes) -> st.SearchStrategy[bytes]:
    """Return ways to damage a file: cut, a piece overwritten, a piece put in, or something else."""
    place, piece = st.integers(0, len(content)), st.binary(min_size=1, max_size=16)
    return (
        place.map(lambda at: content[:at])
        | st.tuples(place, piece).map(
            lambda one: content[: one[0]] + one[1] + content[one[0] + len(one[1]) :]
        )
        | st.tuples(place, piece).map(lambda one: content[: one[0]] + one[1] + content[one[0] :])
        | st.binary(max_size=200)
    )


# --- a study file


STUDY = Path(__file__).parents[1] / "studies" / "synthetic_rr.yaml"


@fuzzed
@given(data=st.data())
def test_a_study_file_that_is_damaged_is_a_study_or_its_faults_are_told(
    data: st.DataObject, tmp_path: Path
) -> None:
    file = tmp_path / "study.yaml"
    file.write_bytes(data.draw(mangled(STUDY.read_bytes())))

    with suppress(HpoError, FinetuneError):
        load_spec(file)


@fuzzed
@given(text=st.text(alphabet="-:[]{}#&*!|>'\"%@`,? \n\tabc019.e", max_size=60))
def test_any_text_is_a_study_or_its_faults_are_told(text: str) -> None:
    spec, faults = parse_spec(text)

    assert spec is None
    assert faults


# --- tables


@fuzzed
@given(
    header=HEADERS,
    rows=st.lists(st.lists(CELLS, max_size=8), max_size=4),
    ends=st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_a_diary_is_read_as_it_is_written_or_refused(
    header: list[str], rows: list[list[str]], ends: str, tmp_path: Path
) -> None:
    file = tmp_path / "runs.csv"
    file.write_text(ends.join(",".join(row) for row in [header, *rows]), encoding="utf-8", newline="")

    with suppress(HpoError, FinetuneError):
        for row in read_diary(file, small_spec()).rows:
            used = vars(row.configuration)
            assert 0 < used["lr"] < math.inf
            assert 0 < used["backbone_lr"] < math.inf


@fuzzed
@given(data=st.data())
def test_a_diary_of_any_bytes_is_read_or_refused(data: st.DataObject, tmp_path: Path) -> None:
    file = tmp_path / "runs.csv"
    file.write_bytes(data.draw(mangled(b"lr,backbone_lr,loss,seed,validation_mae\n1e-3,1e-5,mse,5,2.5\n")))

    with suppress(HpoError, FinetuneError):
        read_diary(file, small_spec())


@fuzzed
@given(data=st.data())
def test_a_table_of_a_signal_is_the_signal_or_refused(data: st.DataObject, tmp_path: Path) -> None:
    samples = data.draw(st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=12))
    table = "time,ppg\n" + "".join(f"{at},{value!r}\n" for at, value in enumerate(samples))
    damaged = data.draw(mangled(table.encode()))
    file = tmp_path / "signal.csv"
    file.write_bytes(damaged)

    with suppress(HpoError, FinetuneError):
        found, rate_hz = read_signal(file, 125.0, "ppg")
        assert rate_hz == 125.0
        assert found.ndim == 1
        assert len(found) <= damaged.count(b"\n") + damaged.count(b"\r") + 1


@fuzzed
@given(data=st.data())
def test_an_array_of_a_signal_is_the_signal_or_refused(data: st.DataObject, tmp_path: Path) -> None:
    file = tmp_path / "signal.npy"
    np.save(file, np.linspace(-1, 1, 50, dtype=np.float32))
    file.write_bytes(data.draw(mangled(file.read_bytes())))

    with suppress(HpoError, FinetuneError):
        found, _ = read_signal(file, 125.0)
        assert found.ndim == 1


@pytest.mark.parametrize("header", [b"{'descr': (", b"\0", b"{'descr': '<f4', 'shape': (9999999999999,), "])
def test_a_damaged_header_of_an_array_is_refused(header: bytes, tmp_path: Path) -> None:
    file = tmp_path / "signal.npy"
    file.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(64))

    with pytest.raises(FinetuneError, match="cannot be read"):
        read_signal(file, 125.0)


@fuzzed
@given(data=st.data())
def test_a_damaged_archive_of_arrays_is_the_arrays_or_refused(data: st.DataObject, tmp_path: Path) -> None:
    file = tmp_path / "own.npz"
    x = np.arange(40, dtype=np.float32).reshape(4, 10)
    np.savez_compressed(file, x=x, y=np.arange(4.0), subject=np.arange(4))
    file.write_bytes(data.draw(mangled(file.read_bytes())))
    own = OwnData("one", "own.npz", "regression", OwnSplit(grouped=(0.6, 0.2, 0.2)), rate_hz=10)

    with suppress(FinetuneError):
        read_npz(file, own)


# --- checkpoints


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_in(tmp_path_factory.mktemp("slot"))


@fuzzed
@given(data=st.data())
def test_a_damaged_checkpoint_is_whole_or_nothing(data: st.DataObject, saved: Path, tmp_path: Path) -> None:
    (tmp_path / LAST).write_bytes(data.draw(mangled((saved / LAST).read_bytes())))
    (tmp_path / BEST).write_bytes((saved / BEST).read_bytes())
    model, optimizer = fresh(2)
    progress = load_last(tmp_path, SPEC, model, optimizer)

    assert whole(model, optimizer) == whole(*fresh(1 if progress.epoch else 2))


@fuzzed
@given(data=st.data())
def test_damaged_best_weights_are_those_that_were_kept_or_refused(
    data: st.DataObject, saved: Path, tmp_path: Path
) -> None:
    (tmp_path / BEST).write_bytes(data.draw(mangled((saved / BEST).read_bytes())))
    model, expected = fresh(2)[0], fresh(1)[0].state_dict()

    with suppress(FinetuneError):
        load_best(tmp_path / BEST, model)
        assert all(value.equal(expected[name]) for name, value in model.state_dict().items())


# --- the dashboard


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return finished_study(tmp_path_factory.mktemp("study"), total=4)


@pytest.fixture(scope="module", params=["private", "public", "writes"])
def app(request: pytest.FixtureRequest, place: Place) -> Iterator[WSGIApplication]:
    engine = open_engine(place.url)
    private = Access("127.0.0.1", allow_writes=request.param == "writes")
    yield build(place.url, engine, Access("0.0.0.0", token=TOKEN) if request.param == "public" else private)
    engine.dispose()


NAMES = (
    "api studies 1 0 -1 99999999999999999999 live study answer small own login logout trials note "
    "dashboard meta param_importances artifacts .. . %00 ratio.svg hpo.js"
)
PARTS = st.sampled_from(["", *NAMES.split()]) | st.text(max_size=6).map(
    lambda text: text.encode().decode("latin-1").replace("?", "")
)
"""Of a path, as a server gives it: bytes as latin-1."""
QUERIES = st.sampled_from(
    ["", "lang=zh", "lang=xx", "after=-1", "after=x", "after=1e9", "token=%ff", "figure=ratio"]
) | st.text(max_size=12).map(lambda text: text.encode().decode("latin-1"))


@fuzzed
@given(
    parts=st.lists(PARTS, max_size=5),
    query=QUERIES,
    method=st.sampled_from(["GET", "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"]),
    body=st.binary(max_size=40) | st.sampled_from([b"{}", b"[]", b"null", b'{"body": 1}', b"token=x"]),
    kind=st.sampled_from(
        ["application/json", "application/x-www-form-urlencoded", "", "multipart/form-data"]
    ),
    cookie=st.text(max_size=20).map(lambda text: text.encode().decode("latin-1")),
)
def test_no_request_breaks_the_dashboard(
    app: WSGIApplication, parts: list[str], query: str, method: str, body: bytes, kind: str, cookie: str
) -> None:
    address = f"/{'/'.join(parts)}?{query}"
    answer = ask(app, address, method, body=body, content_type=kind, cookie=cookie)

    assert 200 <= answer.status < 500
