"""hpo from Python and notebooks: a study as one object, and the calls that search and confirm.

What ``import hpo`` offers, documented in docs/python.md; everything else may change without a word. What is
heavy (pandas, SciPy, matplotlib, torch) is loaded by the call that needs it.
"""

from __future__ import annotations

import base64
import html
import math
import os
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hpo.errors import HpoError, Interrupted
from hpo.storage import default_url, open_engine, redact, url_of_word
from hpo.study import Configuration, StudySpec

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from hpo.analysis.values import Answer
    from hpo.confirm.confirmed import Confirmation
    from hpo.reading.findings import Findings
    from hpo.worker import Settings

__all__ = [
    "Configuration",
    "HpoError",
    "Interrupted",
    "Study",
    "StudySpec",
    "confirm",
    "load",
    "run",
    "studies",
]
"""Together with Answer and the version the public names of hpo."""

# Optuna's progress bar (tqdm) warns in notebooks without ipywidgets; no call of ours shows one.
warnings.filterwarnings("ignore", message="IProgress not found")

Language = Literal["en", "zh"]


class Plots:
    """The pictures of a study, each as a matplotlib figure."""

    def __init__(self, study: Study) -> None:
        self._study = study

    def ratio(self, language: Language = "en") -> Figure:
        """Return the validation loss against lr / backbone_lr, with the zones."""
        return self._drawn("ratio", language)

    def zones(self, language: Language = "en") -> Figure:
        """Return which ratios and rates are as good as the best, which are worse, which are open."""
        return self._drawn("zones", language)

    def rates(self, language: Language = "en") -> Figure:
        """Return the expected validation loss over both rates."""
        return self._drawn("rates", language)

    def curves(self, language: Language = "en") -> Figure:
        """Return the learning curves, with where trials were pruned or diverged."""
        return self._drawn("curves", language)

    def seeds(self, language: Language = "en") -> Figure:
        """Return the configurations that were run with several seeds."""
        return self._drawn("seeds", language)

    def _drawn(self, name: str, language: Language) -> Figure:
        from hpo.report.figures.all import draw_figure, render

        figure = draw_figure(name, self._study.findings, self._study.confirmation, language)
        # A notebook shows a figure of pyplot's only; for others it asks whoever it shows for a picture.
        vars(figure)["_repr_png_"] = partial(render, figure, "png")
        return figure


class Study:
    """One study of a database as it was when it was first looked at; :meth:`refresh` looks again."""

    def __init__(self, name: str, storage: str) -> None:
        self.name = name
        self.storage = storage
        """URL of the database."""
        self.plot = Plots(self)
        self._findings: Findings | None = None
        self._confirmation: Confirmation | None = None

    @property
    def findings(self) -> Findings:
        """Everything that the database holds of the study, with the answer that follows."""
        if self._findings is None:
            self.refresh()
        assert self._findings is not None
        return self._findings

    def refresh(self) -> Study:
        """Read the database again; returns the study itself."""
        from hpo.confirm.confirmed import newest_confirmation
        from hpo.reading.findings import find_out

        engine = open_engine(self.storage, create=False)
        try:
            self._findings = find_out(engine, self.name)
            self._confirmation = newest_confirmation(engine, self.name)
        finally:
            engine.dispose()
        return self

    @property
    def spec(self) -> StudySpec:
        """What is searched, and how."""
        return self.findings.spec

    @property
    def answer(self) -> Answer:
        """What the trials say: zones, what matters, the choice, and what cannot be said."""
        return self.findings.answer

    @property
    def trials(self) -> pd.DataFrame:
        """One row a trial: number, state, lr, backbone_lr, ratio, loss, seed, value, metrics."""
        return self.findings.trials

    @property
    def curves(self) -> pd.DataFrame:
        """One row an epoch: number, epoch, train_loss, validation_loss."""
        return self.findings.curves

    @property
    def zones(self) -> pd.DataFrame:
        """One row a piece of the ratio axis: low, high, standing; none with too few trials."""
        import pandas as pd

        found = self.answer.zones
        pieces = [] if found is None else found.pieces
        rows = [(10**piece.low, 10**piece.high, piece.standing.value) for piece in pieces]
        return pd.DataFrame(rows, columns=["low", "high", "standing"])

    @property
    def confirmation(self) -> Confirmation | None:
        """The newest confirmation that was scored; None without one."""
        self.findings  # noqa: B018 - looks, if nobody has yet
        return self._confirmation

    def words(self, language: Language = "en") -> list[str]:
        """Return the answer as the command line prints it, a sentence each."""
        from hpo.report.answer import answer_lines

        return answer_lines(self.findings, language)

    def report(self, out: str | Path | None = None, language: Language = "en") -> Path:
        """Write the report into a folder (``reports/NAME``) and return its page."""
        from hpo.report.html import write_report

        folder = Path("reports") / self.name if out is None else Path(out)
        write_report(self.findings, self.storage, folder, confirmation=self.confirmation, language=language)
        return folder / "report.html"

    def confirm(self, **options: Any) -> Confirmation:
        """Confirm the choice on fresh seeds and the test split; options as :func:`confirm` has them."""
        found = confirm(self.name, storage=self.storage, **options)
        self.refresh()
        return found

    def __repr__(self) -> str:
        """Return which study it is, and the answer in words."""
        return "\n".join([f"<hpo.Study {self.name!r} in {redact(self.storage)}>", *self.words()])

    def _repr_html_(self) -> str:
        """Return the answer and its picture, for a notebook."""
        from hpo.report.figures.all import render

        first, *rest = (html.escape(line) for line in self.words())
        lines = "".join(f"<li>{line}</li>" for line in rest)
        picture = base64.b64encode(render(self.plot.ratio(), "svg")).decode()
        shown = f'<img alt="{html.escape(self.name)}" src="data:image/svg+xml;base64,{picture}">'
        return f"<p><b>{first}</b></p><ul>{lines}</ul>{shown}"


def load(name: str, storage: str | Path | None = None) -> Study:
    """Return a study of a database: a file, a URL, or by default what ``hpo`` uses.

    Reads it at once. Raises :class:`hpo.HpoError` when there is no such database or study.
    """
    return Study(name, _url(storage)).refresh()


def studies(storage: str | Path | None = None) -> pd.DataFrame:
    """Return one row a study of the database: name, task, state, budget, finished, best loss, time left."""
    import pandas as pd

    from hpo.reading.standing import overview

    url = _url(storage)
    engine = open_engine(url, create=False)
    try:
        rows = overview(engine, url)
    finally:
        engine.dispose()
    kept = (
        "study",
        "task",
        "kind",
        "state",
        "budget",
        "finished",
        "complete",
        "pruned",
        "failed",
        "foreign_trials",
        "remaining_s",
    )
    best = [row["best"]["validation_loss"] if row["best"] else math.nan for row in rows]
    return pd.DataFrame([{key: row[key] for key in kept} for row in rows], columns=[*kept]).assign(best=best)


def run(
    study: str | Path | StudySpec,
    *,
    trials: int | None = None,
    storage: str | Path | None = None,
    workers: int | None = None,
    timeout: str | None = None,
    data: str | Path | None = None,
    cache: str | Path | None = None,
    device: str = "auto",
    allow_partial: bool = False,
    warm_start: Sequence[str] = (),
    quiet: bool = False,
) -> Study:
    """Search until ``trials`` are finished, as ``hpo run`` does; resumes what is there.

    ``study`` is a shipped name, a YAML file, a name in the database, or a spec. ``timeout`` is a time with
    its unit, such as ``"30m"``. Raises :class:`hpo.HpoError` for what a person can mend.
    """
    from rich.console import Console

    from hpo.search_here import check_at_least_one, launch, read_spec

    check_at_least_one("trials", trials)
    check_at_least_one("workers", workers)
    url = _url(storage)
    spec = (
        study if isinstance(study, StudySpec) else read_spec(str(study), url=url, allow_partial=allow_partial)
    )
    launch(
        spec,
        url,
        total=trials or spec.budget.trials,
        workers=workers,
        settings=_settings(data, cache, device, timeout),
        console=Console(stderr=True, quiet=quiet),
        warm_start=warm_start,
    )
    return load(spec.name, url)


def confirm(
    study: str,
    *,
    storage: str | Path | None = None,
    top: int = 3,
    seeds: int = 10,
    first_seed: int = 1_000_000,
    workers: int | None = None,
    data: str | Path | None = None,
    cache: str | Path | None = None,
    device: str = "auto",
    quiet: bool = False,
) -> Confirmation:
    """Freeze the choice, run it beside its rivals on fresh seeds, open the test split once."""
    from rich.console import Console

    from hpo.confirm import confirm as confirm_in
    from hpo.confirm.arms import Request
    from hpo.confirm.confirmed import confirmation_of
    from hpo.report.language import SPOKEN

    url, settings = _url(storage), _settings(data, cache, device, None)
    engine = open_engine(url, create=False)
    try:
        stored = confirm_in(
            engine,
            url,
            study,
            Request(top, seeds, first_seed),
            workers=workers,
            settings=settings,
            console=Console(stderr=True, quiet=quiet),
            words=SPOKEN["en"],
        )
        return confirmation_of(engine, stored)
    finally:
        engine.dispose()


def _url(storage: str | Path | None) -> str:
    return default_url() if storage is None else url_of_word(str(storage))


def _settings(
    data: str | Path | None, cache: str | Path | None, device: str, timeout: str | None
) -> Settings:
    from hpo.search_here import make_settings

    folder = Path(data or os.environ.get("HPO_DATA") or "data")
    kept = cache or os.environ.get("HPO_CACHE")
    return make_settings(folder, Path(kept) if kept else None, device, timeout)
