"""The report of a study: tables, figures, Markdown, JSON and one self-contained page in a folder."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pandas as pd

from hpo.confirm.confirmed import Confirmation
from hpo.errors import Said, UsageError
from hpo.reading.findings import Findings
from hpo.report.figures.all import figure_words, figures, render
from hpo.report.language import SPOKEN, Language
from hpo.report.markdown import markdown
from hpo.report.page import report_page
from hpo.report.told import to_json


def write_report(
    findings: Findings,
    url: str,
    out: Path,
    *,
    confirmation: Confirmation | None = None,
    language: Language = "en",
) -> list[Path]:
    """Write the report of a study into ``out`` and return its files; they appear whole or not at all.

    Any table is legal, an empty one too: the report then says what cannot be said. Raises
    :class:`UsageError` when the folder cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out, prefix=".report-") as folder:
            for name, content in report_files(findings, url, confirmation, language).items():
                (Path(folder) / name).write_bytes(content)
            return [file.replace(out / file.name) for file in sorted(Path(folder).iterdir())]
    except OSError as error:
        raise UsageError(
            Said("cannot write the report to {out!r} ({strerror})", out=str(out), strerror=error.strerror),
            "a folder that can be written",
            "use --out DIR",
        ) from error


def report_files(
    findings: Findings, url: str, confirmation: Confirmation | None = None, language: Language = "en"
) -> dict[str, bytes]:
    """Return the files of a report by name."""
    drawn = figures(findings, confirmation, language)
    pictures = {name: render(figure, "svg") for name, figure in drawn.items()}
    text = markdown(findings, list(drawn), confirmation, language, figures_in=figure_words(language).language)
    told = to_json(findings, url) | {"confirmation": confirmation.to_json() if confirmation else None}
    return {
        "report.html": report_page(findings.row.name, text, pictures, language),
        "report.md": text.encode(),
        "report.json": (json.dumps(told, indent=2, allow_nan=False) + "\n").encode(),
        "trials.csv": findings.trials.to_csv(index=False).encode(),
        "curves.csv": curves_csv(findings.curves).encode(),
        **{f"{name}.svg": picture for name, picture in pictures.items()},
        **{f"{name}.png": render(figure, "png") for name, figure in drawn.items()},
    }


def curves_csv(curves: pd.DataFrame) -> str:
    """Return what ``to_csv`` writes of a frame of numbers, in half of its time: a curve has many rows."""
    rows = zip(*(curves[name].tolist() for name in curves), strict=True)
    whole = "".join("%d,%d,%r,%r\n" % row for row in rows)  # noqa: UP031 - half as fast as f-strings otherwise
    return ",".join(curves.columns) + "\n" + whole.replace("nan", "")


def answer_html(
    findings: Findings, confirmation: Confirmation | None, back: str, language: Language = "en"
) -> bytes:
    """Return the report as a page of a server, without tables beside it; ``back`` leads to all trials."""
    drawn = figures(findings, confirmation, language)
    text = markdown(findings, list(drawn), confirmation, language, is_served=True)
    pictures = {name: render(figure, "svg") for name, figure in drawn.items()}
    footer = f"[{SPOKEN[language].say('page.to_dashboard')}]({back})"
    return report_page(findings.row.name, f"{text}\n{footer}\n", pictures, language)
