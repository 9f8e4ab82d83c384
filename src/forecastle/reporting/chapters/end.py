"""Sections nine to eleven and the references: challenges, conclusion, appendix."""

from __future__ import annotations

from forecastle.reporting.chapters.blocks import code, listing, said, table
from forecastle.reporting.document import Bullets, Section, Text
from forecastle.reporting.facts import Facts


def challenges(facts: Facts) -> Section:
    """Say what was hard and what was decided, from the decisions."""
    rows = facts.rows("decisions.table")
    if not rows:
        return Section("9", "Challenges and solutions", [Text(f"{facts.text('decisions.table')}.")])
    parts = [
        Section(
            f"9.{number}",
            row["title"],
            [Text(f"**Challenge.** {row['challenge']}"), Text(f"**Solution.** {row['solution']}")],
        )
        for number, row in enumerate(rows, start=1)
    ]
    about = f"Each of these {facts.text('decisions.count')} choices has a page of its own, written when it was made."
    return Section("9", "Challenges and solutions", [Text(about), code(facts, "9")], parts)


def conclusion(facts: Facts) -> Section:
    """Say what came of it, what was learnt, and what is left."""
    unit = facts.text("results.unit")
    summary = Section(
        "10.1",
        "Summary",
        [
            said(
                "What came of it",
                f"From {facts.text('extraction.observations')} observations the system trained, promoted and served a "
                f"model that promised an RMSE of {facts.text('results.backtest.rmse', unit)}.",
                f"Live, its RMSE is {facts.text('results.live.rmse', unit)}.",
                f"Its intervals were to hold {facts.text('problem.coverage')} of the truths and held "
                f"{facts.text('results.live.coverage')}.",
            )
        ],
    )
    learnt = [row["title"] for row in facts.rows("decisions.table")]
    learnings = Section(
        "10.2",
        "Learnings",
        [Text("What the decisions come to, each in a line:"), Bullets(learnt or [facts.text("decisions.table")])],
    )
    left = facts.value("conclusion.left") or [facts.text("conclusion.left")]
    further = Section("10.3", "Further work", [Text("What is known to be left:"), Bullets(left)])
    return Section("10", "Conclusion", (), [summary, learnings, further])


def appendix(facts: Facts) -> Section:
    """Show the tree, the key files, the environment variables without their values, and the commands."""
    return Section(
        "11",
        "Appendix",
        [code(facts, "11")],
        [
            Section("11.1", "Repository tree", [listing(facts, "appendix.tree", "Folders and their number of files")]),
            Section("11.2", "Key files", [table(facts, "appendix.files", "Where to begin reading")]),
            Section(
                "11.3",
                "Environment variables",
                [table(facts, "appendix.settings", "Every setting; values are left out")],
            ),
            Section("11.4", "Command reference", [table(facts, "appendix.commands", "Commands")]),
            Section("11.5", "Packages", [table(facts, "appendix.packages", "What it was run with")]),
        ],
    )


def references(facts: Facts) -> Section:
    """List what the system stands on."""
    items = [f"[{row['name']}]({row['address']}): {row['for']}" for row in facts.rows("references")]
    address = facts.value("problem.documentation")
    own = [f"[{facts.text('title.provider')}]({address}): the API"] if address else []
    return Section("", "References", [Bullets([*own, *items])])
