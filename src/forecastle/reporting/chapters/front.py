"""Sections one to three: the summary, the problem, the architecture."""

from __future__ import annotations

from forecastle.reporting.chapters.blocks import GAP, code, figure, joined, pairs, said, table
from forecastle.reporting.document import Block, Bullets, Section, Text, Tiles
from forecastle.reporting.facts import NOT_MEASURED, Facts

COMPONENTS = {
    "ingestion": (
        "Ingestion",
        (
            "asks the API within its budget, archives every answer byte for byte with the time it came, and only "
            "then parses it."
        ),
    ),
    "processing": (
        "Processing",
        (
            "judges each batch by every check, keeps observations with their three times, and makes features by one "
            "recipe."
        ),
    ),
    "training": (
        "Training",
        (
            "back-tests the candidates on rows none has seen, registers the winner, and lets it serve only where it "
            "is better."
        ),
    ),
    "serving": (
        "Serving",
        "answers forecasts with intervals, and with the age and version of what they were made from.",
    ),
    "monitoring": (
        "Monitoring",
        "journals every forecast, scores it once its truth has come, and looks for drift of data and of errors.",
    ),
}


def title_page(facts: Facts) -> list[tuple[str, str]]:
    """Return what stands on the title page."""
    names = {
        "Team": "title.team",
        "Date": "title.date",
        "Domain": "title.domain",
        "API provider": "title.provider",
        "Stands for": "title.as_of",
        "forecastle": "appendix.version",
    }
    return [(words, facts.text(name)) for words, name in names.items()]


def summary(facts: Facts) -> Section:
    """Say in figures what the system did."""
    unit = facts.text("results.unit")
    tiles = [
        ("Live RMSE", facts.text("results.live.rmse", unit), f"promised {facts.text('results.backtest.rmse', unit)}"),
        ("Live skill", facts.text("results.live.skill"), f"promised {facts.text('results.backtest.skill')}"),
        ("Live coverage", facts.text("results.live.coverage"), f"asked for {facts.text('problem.coverage')}"),
        ("Forecasts scored", facts.text("results.forecasts.scored"), f"of {facts.text('results.forecasts.all')}"),
        ("Drift ratio", facts.text("drift.ratio"), f"alarm above {facts.text('drift.limit')}"),
        ("Uptime", facts.text("system.uptime.percent", "%"), f"of {facts.text('system.uptime.slots')} heartbeats"),
    ]
    tiles = [(words, "–" if GAP.search(found) else found, _note(note)) for words, found, note in tiles]
    series = facts.value("problem.series") or []
    about = (
        f"The system forecasts `{facts.text('problem.target')}` of {joined(series)}, {facts.text('problem.horizon')} "
        f"ahead in steps of {facts.text('problem.frequency')}, from {facts.text('title.provider')}."
    )
    collected = (
        f"It collected {facts.text('extraction.observations')} observations in {facts.text('extraction.answers')} "
        "answers, all of them archived as received."
    )
    gate = (
        f"Every batch passed {facts.text('gate.checks')} checks or was refused whole.",
        f"{facts.text('gate.refused')} went no further, the last for {facts.text('gate.fail.reason')}, and nothing "
        "after the gate started.",
    )
    model = (
        f"The model that serves is version {facts.text('registry.champion')} ({facts.text('registry.estimator')}), "
        f"trained on {facts.text('features.rows')} rows.",
        f"On rows it had not seen its RMSE was {facts.text('results.backtest.rmse', unit)}, where the last value "
        f"repeated comes to {facts.text('results.naive.rmse', unit)}.",
    )
    told: list[Block] = [
        said("The task", about, collected),
        Tiles(tiles),
        said("The gate", *gate),
        said("The model", *model),
    ]
    return Section("1", "Executive summary", [*told, *_faults(facts)])


def problem(facts: Facts) -> Section:
    """Say what is predicted, from what API, and why."""
    domain = Section(
        "2.1",
        "Domain, and why it",
        [said("Why", f"{facts.text('title.domain')} ({facts.text('problem.domain')}).", facts.text("problem.why"))],
    )
    api = Section(
        "2.2",
        "API and its documentation",
        [
            Text(f"{_begun(facts.text('title.provider'))}{_documented(facts)}."),
            *pairs(
                facts,
                "How it is asked",
                {"addresses asked": "problem.calls", "key": "problem.key", "task file": "problem.task_file"},
            ),
            figure(facts, 1),
            code(facts, "2.2"),
        ],
    )
    task = Section(
        "2.3",
        "Predictive task",
        [
            Text(f"{facts.text('problem.description')}."),
            *pairs(
                facts,
                "The task",
                {
                    "target": "problem.target",
                    "beside it": "problem.covariates",
                    "series": "problem.series",
                    "step": "problem.frequency",
                    "how far ahead": "problem.horizon",
                    "forecasts from each origin": "problem.steps",
                    "coverage the intervals promise": "problem.coverage",
                    "time zone of calendars": "problem.timezone",
                },
            ),
            code(facts, "2.3"),
        ],
    )
    return Section("2", "Problem definition", (), [domain, api, task])


def architecture(facts: Facts) -> Section:
    """Say how the system is built, and where each of its five components lies."""
    overview = Section(
        "3.1",
        "Overview",
        [
            Text(
                "Data flows one way: source, gate, history, features, model, forecast, outcome, drift. What has to "
                "come back (drift that asks for training, a champion that the service takes up) comes back through "
                "something stored. Two flows of steps do the work; each step can run in a process of its own, and "
                "none starts after one that failed."
            ),
            table(facts, "storage.places", "Where things are stored"),
            code(facts, "3"),
        ],
    )
    parts: list[Block] = []
    for name, (words, what) in COMPONENTS.items():
        parts += [Text(f"**{words}** {what}"), code(facts, name)]
    diagram = Section("3.2", "Diagram", [figure(facts, 2)])
    return Section("3", "System architecture", (), [overview, diagram, Section("3.3", "The five components", parts)])


def _documented(facts: Facts) -> str:
    address = facts.value("problem.documentation")
    return f", documented at [{address}]({address})" if address else ""


def _begun(text: str) -> str:
    """Return text as a sentence begins."""
    return text[:1].upper() + text[1:]


def _note(note: str) -> str:
    """Return what stands below a tile; where that was not measured, that it was not."""
    return NOT_MEASURED if GAP.search(note) else note


def _faults(facts: Facts) -> list[Block]:
    rows = facts.rows("faults")
    if not rows:
        return []
    return [
        Text("What did not answer while this was made:"),
        Bullets([f"{row['about']}: {row['error']}" for row in rows]),
    ]
