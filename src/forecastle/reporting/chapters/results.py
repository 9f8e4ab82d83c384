"""Section eight: promise against delivery, the system's own figures, drift, alerts and health, the studies."""

from __future__ import annotations

from forecastle.reporting import charts
from forecastle.reporting.chapters.blocks import code, pairs, said, table
from forecastle.reporting.document import Block, Chart, Section, Table, Text
from forecastle.reporting.facts import Facts, say

WORDS = {
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R²",
    "skill": "skill over persistence",
    "coverage": "coverage",
    "n": "rows",
}


def results(facts: Facts) -> Section:
    """Say what was promised, what was delivered, how fast, how long, and what was noticed."""
    unit = facts.text("results.unit")
    rows = [
        [
            f"{words} {unit}".strip() if key in ("rmse", "mae") else words,
            say(facts.value(f"results.backtest.{key}")),
            say(facts.value(f"results.live.{key}")),
        ]
        for key, words in WORDS.items()
    ]
    model = Section(
        "8.1",
        "The model: promise against delivery",
        [
            Table(
                "Promised by the back-test, delivered live",
                ("", "promised", "delivered"),
                rows,
                f"{facts.fact('results.backtest.rmse').source}; {facts.fact('results.live.rmse').source}",
                (1, 2),
            ),
            said(
                "The figures",
                *_gaps(facts),
                "Skill is one minus the RMSE over that of the last value repeated, which comes to "
                f"{facts.text('results.naive.rmse', unit)} on the back-test's rows.",
                f"With weeks drawn anew, the promised skill lies between {_interval(facts)}.",
                f"Of {facts.text('results.forecasts.all')} forecasts {facts.text('results.forecasts.scored')} were "
                f"scored, {facts.text('results.forecasts.waiting')} wait for their truth and of "
                f"{facts.text('results.forecasts.never_came')} it never came.",
            ),
            *_horizons(facts, unit),
            *_curve(facts, unit),
            code(facts, "8.1"),
        ],
    )
    system = Section(
        "8.2",
        "The system: latency, throughput, uptime",
        [
            *pairs(
                facts,
                "Asked while it ran",
                {
                    "when": "system.probe.at",
                    "machine": "system.probe.machine",
                    "requests": "system.probe.requests",
                    "of them answered with an error": "system.probe.faults",
                    "connections": "system.probe.connections",
                    "latency, half of them within (ms)": "system.probe.p50_ms",
                    "latency, the ninety-fifth percentile (ms)": "system.probe.p95_ms",
                    "latency, the ninety-ninth percentile (ms)": "system.probe.p99_ms",
                    "throughput (requests a second)": "system.probe.per_second",
                    "during the demo, half of them within (ms)": "system.demo.p50",
                    "during the demo, the ninety-ninth percentile (ms)": "system.demo.p99",
                },
            ),
            said(
                "Heartbeats",
                f"The service writes a heartbeat into the journal every {facts.text('system.uptime.every')} seconds.",
                f"From {facts.text('system.uptime.first')} to {facts.text('system.uptime.last')} "
                f"{facts.text('system.uptime.seen')} of {facts.text('system.uptime.slots')} came: an uptime of "
                f"{facts.text('system.uptime.percent', '%')}.",
                "Where no service was meant to run there is none either; what came before the first and after the "
                "last is not known.",
            ),
            code(facts, "8.2"),
        ],
    )
    monitoring = Section(
        "8.3",
        "Monitoring: drift, alerts, health",
        [
            said(
                "Drift",
                f"Of the newest {facts.text('drift.predictions')} predictions a share of {facts.text('drift.ratio')} "
                f"had features the training data never held; the alarm is at {facts.text('drift.limit')}.",
                f"Drift was detected {facts.text('drift.count')} time(s), and {facts.text('incidents.count')} "
                "incident(s) were opened in all.",
            ),
            table(facts, "drift.detected", "Drift detected, and when"),
            table(facts, "incidents.table", "Incidents"),
            table(facts, "health.work", "When each kind of work last succeeded"),
            code(facts, "8.3"),
        ],
    )
    studies = Section(
        "8.4",
        "Studies: drift found late or early, and benchmarks",
        [
            table(
                facts,
                "studies.drift",
                "How often injected changes were found within a fortnight, and after how many hours in the median",
                {"change": "change", "found": "found", "of": "of", "median_hours": "median delay, h"},
            ),
            *_found(facts),
            said(
                "The study of drift",
                f"False alarms came to {facts.text('studies.drift.false')} a series-year.",
                f"The study's figures are of {facts.text('studies.drift.day')}, the day they were committed.",
                f"Its machine: {facts.text('studies.drift.machine')}.",
            ),
            table(facts, "studies.races", "Races against other libraries, each with its day and machine"),
            table(facts, "studies.serving.bars", f"The service's bars ({facts.text('studies.serving.where')})"),
            table(facts, "studies.serving", f"The service under load ({facts.text('studies.serving.where')})"),
            code(facts, "8.4"),
        ],
    )
    return Section("8", "Results", (), [model, system, monitoring, studies])


def _found(facts: Facts) -> list[Block]:
    rows = facts.rows("studies.drift")
    if not rows:
        return []
    drawn = [charts.Line("found", [row["found"] for row in rows])]
    svg = charts.bars([row["change"] for row in rows], drawn, f"of {say(max(row['of'] for row in rows))}")
    return [Chart("drift", "Injected changes that were found", svg, (), facts.fact("studies.drift").source)]


def _gaps(facts: Facts) -> list[str]:
    """Return a sentence for either side of the table that was not measured; ``said`` makes what it would be measured by
    of them."""
    sides = {"Promised": "results.backtest.rmse", "Delivered": "results.live.rmse"}
    return [f"{side}: {facts.text(name)}." for side, name in sides.items() if name not in facts]


def _interval(facts: Facts) -> str:
    found = facts.value("results.skill_interval")
    return f"{say(found[0])} and {say(found[1])}" if found else facts.text("results.skill_interval")


def _horizons(facts: Facts, unit: str) -> list[Block]:
    promised = {row["horizon"]: row for row in facts.rows("results.backtest.horizons")}
    delivered = {row["horizon"]: row for row in facts.rows("results.live.horizons")}
    if not promised:
        return [Text(f"By steps ahead: {facts.text('results.backtest.horizons')}.")]
    steps = sorted(promised)
    source = f"{facts.fact('results.backtest.horizons').source}; {facts.fact('results.live.horizons').source}"
    rows = [
        [say(step)]
        + [say((of.get(step) or {}).get(key)) for key in ("rmse", "skill", "coverage") for of in (promised, delivered)]
        for step in steps
    ]
    head = ["steps ahead"] + [
        f"{words} {side}" for words in ("RMSE", "skill", "coverage") for side in ("promised", "delivered")
    ]
    drawn = [
        charts.Line("promised", [promised[step]["rmse"] for step in steps]),
        charts.Line("delivered", [(delivered.get(step) or {}).get("rmse") for step in steps]),
    ]
    covered = [
        charts.Line("promised", [promised[step]["coverage"] for step in steps]),
        charts.Line("delivered", [(delivered.get(step) or {}).get("coverage") for step in steps]),
        charts.Line("asked for", [facts.value("problem.coverage") for _ in steps], dashed=True),
    ]
    marks = [str(step) for step in steps]
    return [
        Table("By steps ahead", head, rows, source, range(len(head))),
        Chart(
            "rmse", f"RMSE by steps ahead {unit}".strip(), charts.bars(marks, drawn, unit), charts.key(drawn), source
        ),
        Chart(
            "coverage",
            "Share of truths inside the interval, by steps ahead",
            charts.lines(marks, covered, ""),
            charts.key(covered),
            source,
        ),
    ]


def _curve(facts: Facts, unit: str) -> list[Block]:
    found = facts.value("results.curve")
    if not found:
        return []
    points = found["points"]
    marks = [point["at"] for point in points]
    drawn = [
        charts.Line("forecast, with its interval", [point["value"] for point in points]),
        charts.Line("what came true", [point["actual"] for point in points]),
    ]
    band = [(point["lower"], point["upper"]) for point in points]
    svg = charts.lines(marks, drawn, unit, band, most_marks=5)
    title = f"{found['series']}: the newest week of live forecasts, one step ahead"
    return [Chart("live", title, svg, charts.key(drawn), facts.fact("results.curve").source)]
