"""The flows of every task file as DAGs: TASK-train daily, TASK-live at the task's frequency.

Which DAGs there are, when they run and what their steps are is what ``forecastle flows`` says. Each step is a process
of forecastle in its own environment; nothing of it is imported here. It is asked again when a task file or forecastle
itself has changed; else its former answer is read, so that parsing this file takes milliseconds.

FORECASTLE_BIN    forecastle's command, an absolute path; default: .venv/bin/forecastle beside this folder
FORECASTLE_TASKS  the folder of the task files; default: tasks beside this folder. Steps run in the folder that holds
                  it, where a .env may lie
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Asset, BaseOperator, BaseOperatorLink
from airflow.sdk.exceptions import AirflowException, AirflowFailException

CLONE = Path(__file__).resolve().parent.parent
BIN = Path(os.environ.get("FORECASTLE_BIN") or CLONE / ".venv" / "bin" / "forecastle")
TASKS = Path(os.environ.get("FORECASTLE_TASKS") or CLONE / "tasks").resolve()
ANSWER = Path(os.environ.get("AIRFLOW_HOME") or Path.home() / "airflow") / "forecastle-flows.json"

TRY_AGAIN = 4  # the exit code of what may heal by itself; anything else will not
RETRIES = {"retries": 5, "retry_delay": timedelta(seconds=5), "retry_exponential_backoff": 2.0}  # within five minutes
OF_AIRFLOW = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")  # not for forecastle's own environment
PAGES = {"gate": "Gate report", "profile": "Profile", "mlflow": "MLflow run"}


class PageLink(BaseOperatorLink):
    """A button of a task that leads to one of the pages forecastle has named."""

    name = ""

    def __init__(self, page: str) -> None:
        self.page, self.name = page, PAGES[page]

    @property
    def xcom_key(self) -> str:
        return f"page_{self.page}"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:
        return str(getattr(operator, "pages", {}).get(self.page, ""))


class Forecastle(BaseOperator):
    """Run a step of forecastle as of the run's logical date; its summary is the task's value.

    What it says, with its exit code, becomes the XCom ``said``; exit code 4 is tried again, any other fails the task.
    """

    operator_extra_links = tuple(PageLink(page) for page in PAGES)
    ui_color = "#dceaf4"
    process: subprocess.Popen[str] | None = None

    def __init__(self, words: list[str], **options: Any) -> None:
        super().__init__(**options)
        self.words = words

    def execute(self, context: Any) -> Any:
        run = context["dag_run"]
        now = f"{run.logical_date or run.run_after:%Y-%m-%dT%H:%M:%SZ}"
        command = [str(BIN), *(now if word == "{now}" else word for word in self.words)]
        self.log.info("%s", " ".join(command))
        self.process = start(command)
        output = self.process.communicate()[0]
        self.log.info("Exit code %s\n%s", self.process.returncode, output)
        said = last_line(output) | {"exit_code": self.process.returncode}
        self.pages = said.get("pages", {})
        context["ti"].xcom_push("said", said)
        if self.process.returncode:
            failure = AirflowException if self.process.returncode == TRY_AGAIN else AirflowFailException
            raise failure(said.get("error") or f"exit code {self.process.returncode}; its last words are in this log")
        for asset in self.outlets:
            context["outlet_events"][asset].extra = said.get("summary", {})
        return said.get("summary", {})

    def on_kill(self) -> None:
        if self.process is not None:
            self.process.terminate()


def start(command: list[str]) -> subprocess.Popen[str]:
    """Start a command; one that is not there or may not be run is not tried again, which would not help it."""
    try:
        return subprocess.Popen(command, cwd=TASKS.parent, env=environment(), stdout=subprocess.PIPE, text=True)
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        raise AirflowFailException(
            f"expected to start {command[0]} (FORECASTLE_BIN) in {TASKS.parent}; found: {error}. Mend the setting or"
            " the installation on this worker, then clear the task"
        ) from error


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in OF_AIRFLOW}


def last_line(output: str) -> dict[str, Any]:
    """Return the JSON object on the last line of what a step printed; nothing where it was not heard out."""
    try:
        found = json.loads(output.splitlines()[-1])
    except (IndexError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def jobs() -> list[dict[str, Any]]:
    """Return what ``forecastle flows`` says of the task files, asking it only where something has changed."""
    files = sorted(TASKS.glob("*.toml"))
    seen = hashlib.sha256(f"{BIN} {BIN.stat().st_mtime_ns}".encode())
    for file in files:
        seen.update(f"{file}\n".encode() + file.read_bytes())
    try:
        known = json.loads(ANSWER.read_bytes())
    except (OSError, ValueError):
        known = {}
    if known.get("of") != seen.hexdigest():
        command = [str(BIN), "flows", str(TASKS), "--json"]
        done = subprocess.run(command, env=environment(), cwd=TASKS.parent, capture_output=True, text=True, timeout=25)
        if not done.stdout:
            raise RuntimeError(f"{' '.join(command)} ended with exit code {done.returncode}: {done.stderr}")
        known = {"of": seen.hexdigest(), "jobs": json.loads(done.stdout)}
        whole = ANSWER.with_suffix(f".{os.getpid()}")
        whole.write_text(json.dumps(known))
        whole.replace(ANSWER)
    return list(known["jobs"])


for job in jobs():
    with DAG(
        job["id"],
        description=job["description"],
        doc_md=f"`{job['file']}`\n\n{job['description']}",
        schedule=job["cron"],
        start_date=datetime.fromisoformat(job["start"]) if job["start"] else datetime(1970, 1, 1, tzinfo=UTC),
        catchup=False,
        max_active_runs=1,
        tags=["forecastle", job["flow"], job["task"]],
        default_args=RETRIES,
    ) as dag:
        steps = {
            step["name"]: Forecastle(
                task_id=step["name"],
                words=step["words"],
                outlets=[Asset(f"{job['task']} training table", step["table"])] if step["table"] else [],
            )
            for step in job["steps"]
        }
        for step in job["steps"]:
            steps[step["name"]].set_upstream([steps[name] for name in step["after"]])
    globals()[job["id"]] = dag
