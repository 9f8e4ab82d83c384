"""The figures of the README's comparison, taken from the pages that the benchmarks wrote; none is typed by hand."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent / "docs"
START, END = "<!-- figures: written by `make docs` -->", "<!-- /figures -->"
ROW = re.compile(r"^\|(.+)\|$", re.MULTILINE)


@dataclass(frozen=True)
class Figure:
    """One line of the comparison: what is compared with what, and the bar of a page that says how it came out."""

    beside: str
    what: str
    page: str
    section: str
    bar: str
    unit: str = "×"


FIGURES = (
    Figure("mlforecast", "time for 42 features of 1 M rows", "benchmarks", "features-1m", "the time of mlforecast"),
    Figure("", "memory for them", "benchmarks", "features-1m", "the memory of mlforecast"),
    Figure("", "time, given float32", "benchmarks", "features-1m", "the time of mlforecast-float32"),
    Figure("", "time for 20 M rows, given float32", "benchmarks", "features-20m", "the time of mlforecast-float32"),
    Figure("Pandera", "time for the same checks of 5 M rows", "benchmarks", "gate-5m", "forecastle: ≤ 1 × the time"),
    Figure("", "with the checks of a time series too", "benchmarks", "gate-5m", "forecastle-all: ≤ 3 × the time"),
    Figure("bare LightGBM", "time to fit 1 M rows", "benchmarks", "training-1m", "the time of lightgbm"),
    Figure(
        "`mlflow models serve`",
        "answers a second: it gets a ready-made row, we compute features, interval and journal",
        "serving-benchmarks",
        "",
        "LightGBM: requests/s, × mlflow's with a ready-made row",
    ),
    Figure("FastAPI's hello world", "stored forecasts a second", "serving-benchmarks", "", "× hello world's"),
    Figure(
        "Evidently",
        "hours until a shift of two deviations is found (Evidently: {other})",
        "drift",
        "",
        "median delay of a shift of 2 standard deviations",
        "",
    ),
)


def with_figures(readme: str) -> str:
    """Return the README with the figures as the pages say them now."""
    rows = []
    for one in FIGURES:
        found, verdict = _found(one)
        what = one.what
        if "{other}" in what:
            what = what.format(other=_cells("drift", "", "the same by Evidently")[1].removesuffix(" h"))
            found = found.removesuffix(" h")
        rows.append(f"| {one.beside} | {what} | {found}{' ' if one.unit else ''}{one.unit} | {verdict} |")
    table = "\n".join(["| Beside | What | forecastle | Our bar |", "|---|---|---:|---|", *rows])
    before, _, rest = readme.partition(START)
    _, found_end, after = rest.partition(END)
    assert found_end, "the README has lost the marks between which its figures stand"
    return f"{before}{START}\n{table}\n{END}{after}"


def _found(figure: Figure) -> tuple[str, str]:
    """Return what was found, and whether the bar of the page was met."""
    cells = _cells(figure.page, figure.section, figure.bar)
    if figure.page == "drift":
        return cells[1], f"met: {cells[2]}"
    if len(cells) == 4:  # the service's page has the limit in a column of its own
        limit, found, verdict = cells[1:]
        return found, f"{verdict.strip('*')}: {limit}"
    limits = re.findall(r"[≤≥] [\d.]+", cells[0])
    return cells[1], f"{cells[2].strip('*')}: {limits[0]}"


def _cells(page: str, section: str, bar: str) -> list[str]:
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    if section:
        text = text.split(f"(`{section}`)", 1)[1].split("\n### ", 1)[0]
    rows = [[cell.strip() for cell in row.split("|")] for row in ROW.findall(text)]
    exact = [row for row in rows if row[0].endswith(bar)]
    return (exact or [row for row in rows if bar in row[0]])[0]
