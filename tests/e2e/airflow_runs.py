"""Run DAGs as ``airflow dags test`` does, one after the other in one process: each import would take seconds.

Airflow's own Python runs this. It reads a line of JSON for each run from standard input, and adds a line that says how
it ended to the file named by its first argument:

    {"dag": "small-live", "logical_date": "2013-11-20T01:05:00+00:00"}
    {"state": "success", "tasks": {"ingest": ["success", 1], …}, "xcoms": {"ingest": {"return_value": …}, …}}

``{"parse": true}`` is answered by what is in the folder of DAGs, with every import error and warning, and
``{"start": [word, …]}`` by how the DAG file failed to start a command.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
import warnings
from datetime import datetime
from pathlib import Path
from typing import Any

from airflow.configuration import conf
from airflow.dag_processing.dagbag import DagBag
from airflow.models.asset import AssetEvent
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import select


def parse() -> dict[str, Any]:
    """Parse the folder of DAGs; return what was found in it, and how long that took."""
    began = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        bag = DagBag()
    return {
        "seconds": time.perf_counter() - began,
        "errors": bag.import_errors,
        "warnings": [*bag.captured_warnings.items(), *(str(one.message) for one in caught)],
        "dags": {
            name: {
                "schedule": dag.schedule,
                "max_active_runs": dag.max_active_runs,
                "catchup": dag.catchup,
                "description": dag.description,
                "tags": sorted(dag.tags),
                "steps": {step.task_id: sorted(step.upstream_task_ids) for step in dag.tasks},
                "assets": {step.task_id: [one.uri for one in step.outlets] for step in dag.tasks if step.outlets},
            }
            for name, dag in bag.dags.items()
        },
    }


def run(name: str, logical_date: str) -> dict[str, Any]:
    """Run a DAG to its end; return its state, that of each task with its number of tries, and what they left."""
    ended = DagBag().dags[name].test(logical_date=datetime.fromisoformat(logical_date))
    with create_session() as session:
        xcoms: dict[str, dict[str, Any]] = {}
        for one in session.scalars(select(XComModel).filter_by(dag_id=name, run_id=ended.run_id)).all():
            xcoms.setdefault(one.task_id, {})[one.key] = XComModel.deserialize_value(one)
        events = session.scalars(select(AssetEvent).filter_by(source_dag_id=name, source_run_id=ended.run_id)).all()
        return {
            "state": str(ended.state),
            "tasks": {
                one.task_id: [str(one.state), one.try_number] for one in ended.get_task_instances(session=session)
            },
            "xcoms": xcoms,
            "assets": [[one.asset.uri, one.extra] for one in events],
        }


def start(command: list[str]) -> dict[str, Any]:
    """Let the DAG file start a command that cannot be started; return what it raised."""
    (file,) = Path(conf.get("core", "dags_folder")).glob("*.py")
    spec = importlib.util.spec_from_file_location("dag_file", file)
    assert spec is not None and spec.loader is not None
    dag_file = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(dag_file)
    try:
        dag_file.start(command)
    except Exception as error:
        return {"kind": type(error).__name__, "said": str(error)}
    raise AssertionError(f"{command} was started")


def main(answers: Path) -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        if "dag" in asked:
            answer = run(asked["dag"], asked["logical_date"])
        else:
            answer = start(asked["start"]) if "start" in asked else parse()
        with answers.open("a", encoding="utf-8") as file:
            file.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    assert conf.get("core", "load_examples") == "False"
    main(Path(sys.argv[1]))
