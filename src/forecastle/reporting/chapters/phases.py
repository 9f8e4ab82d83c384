"""Sections four to seven: the four phases, each from what it left."""

from __future__ import annotations

from itertools import groupby

from forecastle.reporting import charts
from forecastle.reporting.chapters.blocks import code, figure, joined, listing, pairs, said, table
from forecastle.reporting.document import Block, Bullets, Chart, Section, Text
from forecastle.reporting.facts import Facts

CHECKED = {"check": "check", "verdict": "verdict", "expected": "expected", "found": "found"}


def phase_one(facts: Facts) -> Section:
    """Say what was collected, checked, transformed, profiled and stored."""
    extraction = Section(
        "4.1",
        "Data extraction",
        [
            Text(
                "What an API answers is archived as it came, stamped with the time of its collection, before "
                "anything reads it. Rows that lie after that time are dropped, so that no forecast can learn from "
                "the future."
            ),
            *pairs(
                facts,
                "The collection behind the newest training",
                {
                    "observations": "extraction.run.rows",
                    "answers": "extraction.run.answers",
                    "from": "extraction.run.from",
                    "to": "extraction.run.to",
                    "rows of the future, dropped": "extraction.run.after_collection",
                    "repeated rows, dropped": "extraction.run.duplicates",
                    "all answers archived since": "extraction.answers",
                    "first": "extraction.first",
                    "last": "extraction.last",
                },
            ),
            table(facts, "extraction.newest", "The newest answers in the archive"),
            table(facts, "extraction.extent", "What the history holds"),
            *_curve(facts),
            figure(facts, 3),
            code(facts, "4.1"),
        ],
    )
    gate = Section(
        "4.2",
        "The mandatory quality gate",
        [
            said(
                "The gate",
                f"All {facts.text('gate.checks')} checks run on every batch, the report is always saved, and a batch "
                "that fails goes to quarantine with its reason.",
                "Only then the gate raises, so that nothing downstream can start.",
            ),
            table(facts, "gate.verdicts", "Verdicts so far"),
            said(
                "**A batch that passed**",
                f"**A batch that passed.** Judged {facts.text('gate.pass.judged_at')}: {facts.text('gate.pass.rows')} "
                f"rows from {facts.text('gate.pass.start')} to {facts.text('gate.pass.end')}, "
                f"{facts.text('gate.pass.masked')} values masked, verdict {facts.text('gate.pass.verdict')}.",
            ),
            table(facts, "gate.pass.findings", "Its report", CHECKED),
            figure(facts, 4),
            said(
                "**A batch that was refused**",
                f"**A batch that was refused.** Judged {facts.text('gate.fail.judged_at')}: "
                f"{facts.text('gate.fail.rows')} rows from {facts.text('gate.fail.start')} to "
                f"{facts.text('gate.fail.end')}.",
                f"Reason: {facts.text('gate.fail.reason')}.",
            ),
            table(facts, "gate.fail.findings", "Its report", CHECKED),
            table(facts, "gate.fail.steps", "What came of the flow: nothing after the gate started"),
            figure(facts, 5),
            code(facts, "4.2"),
        ],
    )
    transformation = Section(
        "4.3",
        "Transformation and features",
        [
            Text(
                "Training and serving compute features by the same functions, bit for bit alike. Lags are lengths of "
                "time: where an hour is missing, the lag that points at it is missing too."
            ),
            *pairs(
                facts,
                "The recipe",
                {
                    "lags of the target, in steps": "features.lags",
                    "rolling windows (mean, deviation, least, greatest), in steps": "features.windows",
                    "lags of what stands beside it": "features.covariate_lags",
                    "windows of what stands beside it": "features.covariate_windows",
                    "season, in steps": "features.season",
                    "time features read in": "features.timezone",
                    "public holidays of": "features.holidays",
                    "rows of the training table": "features.rows",
                    "its columns: features, targets, times": "features.columns",
                    "features the model sees": "features.used",
                },
            ),
            Text(f"Their names: {_names(facts)}."),
            figure(facts, 6),
            code(facts, "4.3"),
        ],
    )
    profile = Section(
        "4.4",
        "Profiling",
        [
            said(
                "The profile",
                "Before each training the data is profiled: a page for people, logged to MLflow beside the run.",
                f"Beside it lie the numbers of {facts.text('profile.features')} features against which drift is "
                "measured from then on.",
            ),
            *pairs(facts, "The page", {"lies at": "profile.page", "pages of single series": "profile.full_pages"}),
            table(facts, "profile.table", "The first features of the reference"),
            figure(facts, 7),
            code(facts, "4.4"),
        ],
    )
    storage = Section(
        "4.5",
        "Storage and data versions",
        [
            Text(
                "Archive and history lie in a folder or a bucket, by their address alone. Each training table is "
                "pushed to the DVC remote before its pointer is committed, so that no commit names data that is not "
                "there."
            ),
            table(facts, "storage.versions", "Versions of the training table"),
            listing(facts, "storage.pointer", "DVC's pointer"),
            figure(facts, 8),
            figure(facts, 9),
            code(facts, "4.5"),
        ],
    )
    return Section(
        "4", "Phase I: data ingestion and processing", (), [extraction, gate, transformation, profile, storage]
    )


def phase_two(facts: Facts) -> Section:
    """Say what experiments and registry hold."""
    dagshub = Section(
        "5.1",
        "DagsHub",
        [
            *pairs(
                facts,
                "The remote repository",
                {
                    "repository": "dagshub.repository",
                    "its MLflow server": "dagshub.mlflow",
                    "its DVC remote": "dagshub.dvc",
                    "token": "dagshub.token",
                },
            ),
            figure(facts, 10),
            code(facts, "5.1"),
        ],
    )
    experiment = Section(
        "5.2",
        "MLflow experiment",
        [
            said(
                "The experiment",
                f"Experiment {_quoted(facts, 'experiment.name')} holds {facts.text('experiment.runs')} run(s).",
                f"The newest logged {facts.text('experiment.params_logged')} parameters and "
                f"{facts.text('experiment.metrics_logged')} figures.",
            ),
            table(facts, "experiment.table", "Runs, with the figures of their back-test"),
            table(facts, "experiment.candidates", "Candidates of the newest run, all on the same rows"),
            *_candidates(facts),
            table(facts, "experiment.params", "Its parameters"),
            figure(facts, 11),
            figure(facts, 12),
            code(facts, "5.2"),
        ],
    )
    registry = Section(
        "5.3",
        "Model registry",
        [
            Text(
                "What serves is an alias; the words Staging and Production are set as tags beside it. A training "
                "registers a version as challenger; only the step `promote` moves the champion, and every decision "
                "leaves a trail."
            ),
            table(facts, "registry.stages", "Aliases and stages"),
            table(facts, "registry.versions", "Versions"),
            table(facts, "registry.trail", "From Staging to Production: who decided, when and why"),
            table(facts, "registry.members", "What the champion is blended from"),
            figure(facts, 13),
            figure(facts, 14),
            code(facts, "5.3"),
        ],
    )
    return Section("5", "Phase II: experiments and model management", (), [dagshub, experiment, registry])


def phase_three(facts: Facts) -> Section:
    """Say how a change reaches production."""
    flows = {row["workflow"]: row for row in facts.rows("git.workflows")}

    def runs(name: str) -> list[Block]:
        row = flows.get(name)
        if row is None:
            return [Text(f"Workflow `{name}`: {facts.text('git.workflows')}.")]
        steps = [f"`{one}`" for one in row["steps"].split(", ")]
        return [Text(f"{row['about']} On a {row['runs on']} it runs {joined(steps)}.")]

    git = Section(
        "6.1",
        "Git workflow and protection",
        [
            said(
                "The code",
                "A change goes from a feature branch to dev, from dev to test, from test to master, each time by "
                "pull request.",
                f"The code reported here is commit {_quoted(facts, 'git.commit')}, after {facts.text('git.commits')} "
                "commits.",
            ),
            table(facts, "git.protection", "What protects the branches"),
            figure(facts, 15),
            figure(facts, 16),
            code(facts, "6.1"),
        ],
    )
    dev = Section("6.2", "CI of dev", [*runs("ci-dev"), figure(facts, 17), figure(facts, 18), code(facts, "6.2")])
    verdict = "should serve" if facts.value("compare.promote") else "should not serve"
    told: list[Block] = [Text(f"A comparison with the model that serves: {facts.text('compare.reasons')}.")]
    if reasons := facts.value("compare.reasons"):
        told = [Text(f"The newest comparison says that the model trained last {verdict}:"), Bullets(reasons)]
    test = Section(
        "6.3",
        "CI of test, with the report in the pull request",
        [*runs("ci-test"), *told, figure(facts, 19), figure(facts, 20), code(facts, "6.3")],
    )
    deliver = Section("6.4", "Delivery", [*runs("cd-master"), figure(facts, 21), code(facts, "6.4")])
    containers = Section(
        "6.5",
        "Containers and health",
        [
            table(facts, "containers.images", "Images"),
            said(
                "Compose and the image",
                f"Compose knows the services {facts.text('containers.services')}.",
                f"The image asks its own health: {_quoted(facts, 'containers.healthcheck')}.",
            ),
            *(figure(facts, number) for number in (22, 23, 24, 25, 33, 34)),
            code(facts, "6.5"),
        ],
    )
    return Section("6", "Phase III: continuous integration and delivery", (), [git, dev, test, deliver, containers])


def phase_four(facts: Facts) -> Section:
    """Say what is measured, shown and alarmed about."""
    prometheus = Section(
        "7.1",
        "Prometheus",
        [
            said(
                "The metrics",
                f"The service exposes {facts.text('metrics.count')} metrics.",
                "Those of the stores are read when they are asked for, so that they are right whichever process "
                "answers.",
            ),
            table(facts, "metrics.table", "Metrics"),
            table(facts, "metrics.targets", f"Targets, scraped every {facts.text('metrics.interval')}"),
            *(figure(facts, number) for number in (26, 27, 28)),
            code(facts, "7.1"),
        ],
    )
    grafana = Section(
        "7.2",
        "Grafana",
        [
            said(
                "The dashboard",
                f"The dashboard has {facts.text('dashboard.panels')} panels in the rows "
                f"{facts.text('dashboard.rows')}.",
                "The panels of the service itself are:",
            ),
            table(facts, "dashboard.service", "Panels of the service", {"panel": "panel", "query": "its first query"}),
            figure(facts, 29),
            figure(facts, 30),
            code(facts, "7.2"),
        ],
    )
    alerts = Section(
        "7.3",
        "Alert rules and notifications",
        [
            said(
                "The rules",
                f"The same {facts.text('rules.count')} rules are given to Prometheus, to Grafana and to the evaluator "
                "inside forecastle.",
                f"So far {facts.text('alerts.count')} lines were told.",
            ),
            table(facts, "rules.table", "Alert rules"),
            listing(facts, "alerts.told", "Notifications"),
            figure(facts, 31),
            figure(facts, 32),
            code(facts, "7.3"),
        ],
    )
    return Section("7", "Phase IV: monitoring and observability", (), [prometheus, grafana, alerts])


def _quoted(facts: Facts, name: str) -> str:
    return f"`{facts.text(name)}`" if name in facts else facts.text(name)


def _curve(facts: Facts) -> list[Block]:
    rows = facts.rows("extraction.curve")
    if not rows:
        return []
    days = sorted({row["day"] for row in rows})
    drawn = []
    for name, of in groupby(rows, key=lambda row: row["series"]):
        known = {row["day"]: row["value"] for row in of}
        drawn.append(charts.Line(name, [known.get(day) for day in days]))
    source = facts.fact("extraction.curve").source
    svg = charts.lines(days, drawn, facts.text("results.unit"))
    return [Chart("observations", f"Daily mean of {facts.text('problem.target')}", svg, charts.key(drawn), source)]


def _candidates(facts: Facts) -> list[Block]:
    rows = [
        row for row in facts.rows("experiment.candidates") if row["rmse"] is not None and row["method"] != "backtest"
    ]
    if not rows:
        return []
    drawn = [charts.Line("RMSE", [row["rmse"] for row in rows])]
    svg = charts.bars([row["method"] for row in rows], drawn, facts.text("results.unit"))
    return [Chart("candidates", "RMSE of the candidates", svg, (), facts.fact("experiment.candidates").source)]


def _names(facts: Facts) -> str:
    return ", ".join(f"`{name}`" for name in facts.value("features.names") or []) or facts.text("features.names")
