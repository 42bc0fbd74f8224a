"""All pictures of a report by name, and each as the bytes of a file."""

from __future__ import annotations

import io
from typing import Literal

import matplotlib
from matplotlib.figure import Figure

from hpo.analysis.importance import fanova, ped_anova
from hpo.confirm.confirmed import Confirmation
from hpo.reading.findings import Findings
from hpo.report.figures.confirmed import confirmed_figures
from hpo.report.figures.ratio import ratio_figure
from hpo.report.figures.search import curves_figure, importances_figure, rates_figure, seeds_figure

Kind = Literal["png", "svg"]


def figures(findings: Findings, confirmation: Confirmation | None = None) -> dict[str, Figure]:
    """Return the pictures of a study by name, in the order of the report; none needs any trial.

    The last ones show the test split, and are there only with a confirmation that was scored.
    """
    searched = {
        "ratio": ratio_figure(findings),
        "rates": rates_figure(findings),
        "curves": curves_figure(findings),
        "seeds": seeds_figure(findings, confirmation),
        "importances": importances_figure(
            findings,
            {
                "PED-ANOVA (Optuna, seed as a knob)": ped_anova(findings.trials, findings.spec.space),
                "fANOVA (Optuna, seed as a knob)": fanova(findings.trials, findings.spec.space),
            },
        ),
    }
    return searched | ({} if confirmation is None else confirmed_figures(confirmation))


def render(figure: Figure, kind: Kind) -> bytes:
    """Return a picture as the bytes of a PNG or SVG file: the same figure, the same bytes."""
    buffer = io.BytesIO()
    stamp = {"Software": "hpo"} if kind == "png" else {"Creator": "hpo", "Date": None}
    with matplotlib.rc_context({"svg.hashsalt": "hpo"}):
        figure.savefig(buffer, format=kind, metadata=stamp)
    return buffer.getvalue()
