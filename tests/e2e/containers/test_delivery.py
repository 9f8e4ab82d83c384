"""The way of a change from pull request to staging: the steps of ci-test and cd-master, read from their YAML and run.

Real are Airflow, the training, MLflow's registry on SQLite, Docker's engine, the image and its containers, the registry
images are pushed to (Debian's) and Compose. Stood in for are the weather (recorded), GitHub's comments (a server that
keeps what is posted), the host behind SSH (this machine), whoever deploys what a webhook is sent (a server that calls
Compose), the container of jobs on the host (the same command, from this environment) and GitHub's own actions, which
the steps do without.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from forecastle.data.replay import load_nyc_weather, replay_app
from forecastle.models import bundle, pointer, registry as models
from forecastle.serving.server import listen
from forecastle.settings import Settings
from forecastle.task import Task, load_task

STAMPED = (
    "requirements/bootstrap.txt",
    "requirements/dev.txt",
    "pyproject.toml",
    "tools/setup",
)  # as the Makefile's LOCKS
ROOT = Path(__file__).parents[3]
NOW = datetime(2013, 2, 10, 0, 5, tzinfo=UTC)
TRAINED = NOW - timedelta(days=4)  # production's champion; what came since, a challenger is judged by
TOKEN = "ghs_of-the-test"
STEP_SECONDS = 900
REPOSITORY = "alice/weather"
GOOD = "forecastle-api:0123456789abcdef"


@dataclass
class GitHub:
    """What GitHub's API keeps of one pull request's comments, on a real port."""

    comments: list[dict[str, Any]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    address: str = ""

    def serve(self) -> ThreadingHTTPServer:
        github = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                github.asked.append(f"{self.command} {self.path.partition('?')[0]}")
                size = int(self.headers.get("content-length") or 0)
                body = json.loads(self.rfile.read(size))["body"] if size else ""
                found: Any = github.comments
                if self.command == "POST":
                    found = {"id": len(github.comments) + 1, "body": body, "html_url": "https://github.test/pull/7#1"}
                    found["user"] = {"login": "github-actions[bot]"}
                    github.comments.append(found)
                elif self.command == "PATCH":
                    found = github.comments[int(self.path.rpartition("/")[2]) - 1]
                    found["body"] = body
                content = json.dumps(found).encode()
                self.send_response(200 if self.headers["authorization"] == f"Bearer {TOKEN}" else 401)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PATCH = answer

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server


@dataclass
class Runner:
    """Runs the jobs of a workflow in a copy of the checkout, as GitHub's runner would."""

    folder: Path
    given: dict[str, str]
    """What `${{ … }}` stands for: secrets, variables and what GitHub says of the run."""
    environment: dict[str, str]

    def run(self, workflow: str, only: tuple[str, ...] = (), **environment: str) -> dict[str, tuple[int, str]]:
        """Run a workflow's steps up to the first that fails; return each one's exit code and output."""
        read = yaml.safe_load((self.folder / ".github" / "workflows" / f"{workflow}.yml").read_text(encoding="utf-8"))
        done: dict[str, tuple[int, str]] = {}
        for job in read["jobs"].values():
            for step in (step for step in job["steps"] if "run" in step and (not only or step["run"] in only)):
                if any(code for code, _ in done.values()):
                    break
                told = {
                    name: self.value(str(text)) for name, text in {**job.get("env", {}), **step.get("env", {})}.items()
                }
                answer = subprocess.run(
                    ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
                    cwd=self.folder,
                    env=self.environment | told | environment,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    timeout=STEP_SECONDS,
                )
                done[step["run"]] = answer.returncode, answer.stdout
        return done

    def value(self, text: str) -> str:
        """Return a text with every expression replaced; what is not given is empty, as GitHub has it."""

        def evaluate(found: re.Match[str]) -> str:
            name, _, default = (part.strip() for part in found[1].partition("||"))
            return self.given.get(name, "") or default.strip("'")

        return re.sub(r"\$\{\{(.*?)\}\}", evaluate, text)


@pytest.fixture(scope="module")
def github() -> Iterator[GitHub]:
    kept = GitHub()
    server = kept.serve()
    yield kept
    server.shutdown()


@dataclass
class Weather:
    """The recorded weather behind the API's own layout, as of a moment."""

    now: datetime = TRAINED
    url: str = ""


@pytest.fixture(scope="module")
def weather(served: Any) -> Iterator[Weather]:
    """The recorded weather on a real port, first as of when production's champion is trained."""
    told = Weather()
    app = replay_app(load_nyc_weather(), lambda: told.now)
    with served(app) as told.url:
        yield told


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory, weather: Weather, github: GitHub, small_toml: str) -> Runner:
    folder = tmp_path_factory.mktemp("checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    task = small_toml.replace('horizon = "2h"', 'horizon = "6h"').replace("start = 2013-11-01", "start = 2013-01-01")
    (folder / "tasks" / "small.toml").write_text(task, encoding="utf-8")
    # The environment is this one's; the stamp says that it is what the copy's lock asks for.
    (folder / ".venv").mkdir()
    for name in ("bin", "lib"):
        (folder / ".venv" / name).symlink_to(ROOT / ".venv" / name)
    (folder / ".cache").symlink_to(ROOT / ".cache")
    stamp = subprocess.run(
        f"(pwd; cat {' '.join(STAMPED)}) | sha256sum | cut -c1-16",
        shell=True,
        cwd=folder,
        capture_output=True,
        text=True,
    ).stdout.strip()
    (folder / ".venv" / f".installed-{stamp}").touch()
    told = {
        "FORECASTLE_OPEN_METEO_URL": weather.url,
        "FORECASTLE_OPEN_METEO_ARCHIVE_URL": weather.url,
        "FORECASTLE_PROFILE": "plain",
        "FORECASTLE_GIT": "false",
        "OMP_THREAD_LIMIT": "1",
        "RETRAIN_NOW": NOW.isoformat(),
        "GITHUB_ACTIONS": "true",
        "GITHUB_REPOSITORY": REPOSITORY,
        "GITHUB_REF": "refs/pull/7/merge",
        "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
        "AIRFLOW_BIN": str(ROOT / ".cache" / "airflow" / "bin"),
    }
    given = {"github.token": TOKEN, "github.api_url": github.address, "github.sha": "0123456789abcdef"}
    given |= {"vars.TASK": "tasks/small.toml"}
    quiet = {name: value for name, value in os.environ.items() if not name.startswith(("COV", "FORECASTLE_"))}
    return Runner(folder, given, quiet | told)


@dataclass
class Production:
    """Where the champion was trained and serves: a home of its own, with the registry the workflows are told of."""

    home: Path
    runner: Runner

    @property
    def settings(self) -> Settings:
        return Settings(home=self.home, _env_file=None)  # type: ignore[call-arg]

    @property
    def task(self) -> Task:
        return load_task(self.runner.folder / "tasks" / "small.toml")

    def forecastle(self, *words: str) -> None:
        """Run a command of forecastle here, which has to succeed."""
        done = subprocess.run(
            [ROOT / ".venv" / "bin" / "forecastle", *words, "--task", "tasks/small.toml"],
            cwd=self.runner.folder,
            env=self.runner.environment | {"FORECASTLE_HOME": str(self.home)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def state(self) -> tuple[Any, ...]:
        """Return what serves, what the alias names, and every version with its stage and tags."""
        known = models.versions(self.settings, self.task, with_aliases=True)
        told = [(one.version, one.stage, one.aliases, dict(one.tags)) for one in known]
        return pointer.published(self.settings, self.task), models.alias(self.settings, self.task, "champion"), told

    def train_another(self) -> None:
        """Register a second version, and promote it; once for however many who ask."""
        if len(models.versions(self.settings, self.task)) == 1:
            serving = pointer.published(self.settings, self.task)
            assert serving is not None
            made = replace(bundle.load(serving.folder), created_at=NOW)
            models.log_training(self.settings, self.task, made, bundle.save(made, self.home / "another"))
        self.forecastle("registry", "promote", "2", "--why", "It was trained since.")


@pytest.fixture(scope="module")
def production(tmp_path_factory: pytest.TempPathFactory, runner: Runner, weather: Weather) -> Production:
    """Production, where TRAIN has made a champion; the workflows may read its registry, and not write to it."""
    made = Production(tmp_path_factory.mktemp("production"), runner)
    made.forecastle("run", "train", "--now", TRAINED.isoformat())
    weather.now = NOW
    runner.given["secrets.FORECASTLE_MLFLOW_URI"] = f"sqlite:///file:{made.home / 'mlflow.db'}?mode=ro&uri=true"
    return made


@pytest.fixture(scope="module")
def compared(runner: Runner, production: Production) -> Mapping[str, tuple[int, str]]:
    """What the steps of ci-test said; production is as it was before."""
    before = production.state()
    done = runner.run("ci-test")
    assert production.state() == before
    return done


@pytest.fixture(scope="module")
def built(engine, runner: Runner, compared: Mapping[str, tuple[int, str]]) -> Mapping[str, tuple[int, str]]:
    """What the steps of cd-master said, up to the verified image."""
    assert compared["make retrain"][0] == 0, compared["make retrain"][1][-3000:]
    runner.environment |= engine.environment | {
        "BASE_IMAGE": "forecastle-base:bookworm",
        "BUILD_OPTIONS": "--network host --quiet",
        "IMAGE": "forecastle-api",
    }
    source = " ".join(f"--env {name}={runner.environment[name]}" for name in runner.environment if "_METEO_" in name)
    steps = ("make bake", "make image", "make verify")
    return runner.run(
        "cd-master", steps, VERIFY=f"{source} --network host --now {NOW.isoformat()}", IMAGE="forecastle-api"
    )


def test_ci_test_trains_a_challenger_on_airflow_compares_posts_and_passes(
    runner: Runner, compared, github: GitHub
) -> None:
    assert {step: code for step, (code, _) in compared.items() if code} == {}, compared
    assert "Airflow is up and knows small-challenge" in compared["make retrain"][1]
    assert re.search(r"^train +success", compared["make retrain"][1], re.MULTILINE)
    assert "promote" not in compared["make retrain"][1]
    report = (runner.folder / "build" / "report" / "comparison.md").read_text(encoding="utf-8")
    assert list((runner.folder / "build" / "report").glob("*.png"))
    assert [one["body"] for one in github.comments] == [f"<!-- forecastle: comparison -->\n{report}"]
    assert report in (runner.folder / "summary.md").read_text(encoding="utf-8")


def test_the_challenger_meets_production_s_champion_and_stays_in_a_registry_of_the_job_s_own(
    runner: Runner, compared, production: Production
) -> None:
    report = (runner.folder / "build" / "report" / "comparison.md").read_text(encoding="utf-8")
    assert report.startswith("## small: model 1 against 1") and "| champion |" in report
    own = production.settings.model_copy(update={"home": runner.folder / "data"})
    (challenger,) = models.versions(own, production.task, with_aliases=True)
    assert challenger.aliases == () and f"run `{challenger.run_id}` of MLflow" in report
    judged_by, serves = (pointer.published(one, production.task) for one in (own, production.settings))
    assert judged_by is not None and serves is not None
    assert (judged_by.run_id, judged_by.digest) == (serves.run_id, serves.digest)


def test_the_next_push_brings_the_comment_up_to_date(runner: Runner, compared, github: GitHub) -> None:
    done = runner.run("ci-test", ("make comment",))
    assert done["make comment"][0] == 0 and len(github.comments) == 1, done
    assert github.asked[-1] == f"PATCH /repos/{REPOSITORY}/issues/comments/1"


def test_cml_posts_where_the_runner_has_it_and_forecastle_where_it_fails(
    runner: Runner, compared, github: GitHub, tmp_path: Path
) -> None:
    calls, asked = tmp_path / "calls", len(github.asked)
    for code in (0, 1):
        cml = tmp_path / "cml"
        cml.write_text(f'#!/bin/sh\necho "$@ $REPO_TOKEN" >> {calls}\nexit {code}\n')
        cml.chmod(0o755)
        done = runner.run("ci-test", ("make comment",), PATH=f"{tmp_path}:{runner.environment['PATH']}")
        assert done["make comment"][0] == 0, done
        posted = [one for one in github.asked[asked:] if one.startswith("PATCH")]
        assert len(posted) == code and TOKEN not in done["make comment"][1]
    assert calls.read_text().splitlines()[0] == f"comment update --publish=false build/report/comparison.md {TOKEN}"


def test_no_output_of_any_step_shows_the_token(compared, runner: Runner) -> None:
    assert TOKEN not in "".join(said for _, said in compared.values())
    assert TOKEN not in (runner.folder / "summary.md").read_text(encoding="utf-8")


def test_a_worse_challenger_fails_the_check(runner: Runner, compared) -> None:
    note = next((runner.folder / "data" / "small" / "runs").glob("train-*/decision.json"))
    before = note.read_text(encoding="utf-8")
    note.write_text(json.dumps(json.loads(before) | {"worse": True}), encoding="utf-8")
    done = runner.run("ci-test", ("make judge",))
    note.write_text(before, encoding="utf-8")
    assert done["make judge"][0] != 0 and "Error 5" in done["make judge"][1]


def test_cd_master_builds_an_image_that_forecasts_with_the_champion_inside(engine, built) -> None:
    assert {step: code for step, (code, _) in built.items() if code} == {}, built
    verified = built["make verify"][1]
    for line in (
        "forecast by the model it carries",
        "serves model 1",
        "6 forecasts on request",
        "shows its metrics",
        "stops when",
    ):
        assert f"{line}" in verified, verified
    labels = json.loads(engine.docker("image", "inspect", "--format", "{{json .Config.Labels}}", GOOD))
    assert labels["forecastle.model-version"] == "1" and len(labels["forecastle.data-version"]) == 32
    assert labels["org.opencontainers.image.revision"] == "0123456789abcdef"


def test_the_image_is_small_and_holds_no_compiler_no_pip_and_nothing_to_train_with(engine, built) -> None:
    name = GOOD
    assert int(engine.docker("image", "inspect", "--format", "{{.Size}}", name)) <= 600e6
    program = """
import importlib.util as u, shutil
print([one for one in ("pip", "setuptools", "scipy", "sklearn", "pandas", "mlflow", "dvc") if u.find_spec(one)])
print([one for one in ("gcc", "cc", "make") if shutil.which(one)])
"""
    said = engine.docker("run", "--rm", "--network", "none", "--entrypoint", "python", name, "-c", program)
    assert said.splitlines() == ["[]", "[]"]


def test_cd_master_pushes_both_tags_to_a_registry(engine, runner: Runner, built, registry: str) -> None:
    image = f"{registry}/alice/weather"
    tags = ("0123456789abcdef", "v0.1.0")
    for tag in tags:
        engine.docker("tag", GOOD, f"{image}:{tag}")
    runner.given |= {"vars.IMAGE": image, "secrets.DOCKERHUB_USERNAME": "alice", "secrets.DOCKERHUB_TOKEN": TOKEN}
    done = runner.run("cd-master", ("make push",), REGISTRY=registry, IMAGE=image)
    assert done["make push"][0] == 0 and TOKEN not in done["make push"][1], done
    for tag in tags:
        engine.docker("image", "rm", f"{image}:{tag}")
        engine.docker("pull", f"{image}:{tag}")


@pytest.fixture(scope="module")
def registry(engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry of images on this machine: Debian's build of the one that Docker makes."""
    program = shutil.which("docker-registry")
    if program is None:
        reason = "no docker-registry on this machine: tools/container-engine installs it"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason} (a missing component is a failure where CI=true)")
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("registry")
    with listen("127.0.0.1", 0) as (_, address):
        host = address.removeprefix("http://")
    config = {
        "version": "0.1",
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "images")}},
        "http": {"addr": host},
    }
    (folder / "config.yml").write_text(yaml.safe_dump(config))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "serve", folder / "config.yml"], stdout=log, stderr=log)
    try:
        yield host
    finally:
        process.terminate()
        process.wait(20)


@dataclass
class Staging:
    """A host, which is this machine: a folder with a compose file, and stores of its own that its service follows.

    It is reached by a program named ssh, or by a webhook that brings up what it is sent.
    """

    folder: Path
    production: Production
    url: str
    way: str
    engine: Any
    webhook: str = ""

    @property
    def settings(self) -> dict[str, str]:
        """What forecastle is told where staging's pointer is moved: in the container of jobs, or on the runner."""
        told = {
            "FORECASTLE_STORES": self.folder / "stores",
            "FORECASTLE_MLFLOW_URI": f"sqlite:///{self.production.home / 'mlflow.db'}",
        }
        return {name: str(value) for name, value in told.items()}

    @property
    def environment(self) -> dict[str, str]:
        path = f"{self.folder / 'bin'}:{self.production.runner.environment['PATH']}"
        return self.production.runner.environment | {"PATH": path, "DOCKER_CONFIG": str(self.folder / "docker")}

    def deploy(self, tag: str, **given: str) -> tuple[int, str]:
        runner = self.production.runner
        told = {"vars.STAGING_URL": self.url, "github.sha": tag, "vars.IMAGE": "forecastle-api"} | given
        if self.way == "ssh":
            told |= {"secrets.DEPLOY_SSH": "deployer@staging", "secrets.DEPLOY_SSH_KEY": "a key"}
            told |= {"secrets.DEPLOY_KNOWN_HOSTS": "staging ssh-ed25519 AAAA"}
        else:
            told |= {"secrets.DEPLOY_WEBHOOK": f"{self.webhook}/{TOKEN}"}
            told |= {"vars.FORECASTLE_STORES": self.settings["FORECASTLE_STORES"]}
            told |= {"secrets.FORECASTLE_MLFLOW_URI": self.settings["FORECASTLE_MLFLOW_URI"]}
        done = replace(runner, given=runner.given | told, environment=self.environment).run(
            "cd-master",
            ("make deploy",),
            DEPLOY_FOLDER=str(self.folder),
            FORECASTLE_HOME=str(self.folder / "of-the-runner"),
            VERIFY_SECONDS="90",
            VERIFY_REPLAYED="true",
        )
        return done["make deploy"]

    def serve_webhook(self) -> ThreadingHTTPServer:
        staging = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                image = json.loads(self.rfile.read(int(self.headers["content-length"])))["image"]
                done = subprocess.run(
                    ["docker", "compose", "up", "--detach", "--wait", "--no-deps", "api"],
                    env=staging.environment | {"FORECASTLE_IMAGE": image},
                    cwd=staging.folder,
                )
                self.send_response(200 if done.returncode == 0 else 500)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.webhook = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server

    def state(self) -> tuple[str, str]:
        """Return which image runs, and which model staging's own pointer names."""
        image = self.engine.docker("inspect", "--format", "{{.Config.Image}}", "staging-api-1")
        content = (self.folder / "stores" / "small" / "models" / "champion.json").read_text(encoding="utf-8")
        return image, json.loads(content)["version"]


@pytest.fixture(params=["ssh", "webhook"])
def staging(request, engine, production: Production, built, tmp_path: Path) -> Iterator[Staging]:
    """A host on which nothing was deployed yet; its stores hold live forecasts, and point to production's champion."""
    with listen("127.0.0.1", 0) as (_, address):
        port = address.rpartition(":")[2]
    made = Staging(tmp_path, production, f"http://127.0.0.1:{port}", request.param, engine)
    service = {
        "image": "${FORECASTLE_IMAGE}",
        "command": ["serve", "--tasks", "/app/tasks/small.toml"],
        "environment": {"FORECASTLE_STORES": "/stores", "FORECASTLE_SERVE_WITHOUT_KEYS": "true"},
        "ports": [f"127.0.0.1:{port}:8000"],
        "volumes": ["home:/data", f"{tmp_path / 'stores'}:/stores"],
    }
    compose = {"name": "staging", "services": {"api": service}, "volumes": {"home": {"name": "staging_home"}}}
    (tmp_path / "docker-compose.yml").write_text(yaml.safe_dump(compose))
    (tmp_path / "docker" / "cli-plugins").mkdir(parents=True)
    (tmp_path / "docker" / "cli-plugins" / "docker-compose").symlink_to(ROOT / ".venv" / "bin" / "docker-compose")
    (tmp_path / "stores").mkdir()
    (tmp_path / "stores").chmod(0o777)
    jobs = made.settings | {"FORECASTLE_HOME": str(tmp_path / "of-the-host")}
    in_jobs = " ".join(f"{name}='{value}'" for name, value in jobs.items())
    (tmp_path / "bin").mkdir()
    for name, script in {
        "ssh": f'[ -e {tmp_path / "unreachable"} ] && exit 255\nfor last; do :; done\nexec sh -c "$last"\n',
        "docker": f"""case "$*" in "compose run --rm --no-deps --no-TTY live "*) ;; *) exec /usr/bin/docker "$@" ;; esac
shift 6
for word; do
    shift
    [ "$word" = /app/tasks/small.toml ] && word={production.runner.folder}/tasks/small.toml
    set -- "$@" "$word"
done
exec env {in_jobs} {ROOT}/.venv/bin/forecastle "$@"
""",
    }.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}")
        (tmp_path / "bin" / name).chmod(0o755)
    source = [
        word
        for name, value in production.runner.environment.items()
        if "_METEO_" in name
        for word in ("-e", f"{name}={value}")
    ]
    live = ["run", "live", "--task", "/app/tasks/small.toml", "--now", NOW.isoformat()]
    volumes = ["-v", "staging_home:/data", "-v", f"{tmp_path / 'stores'}:/stores", "-e", "FORECASTLE_STORES=/stores"]
    engine.docker("volume", "create", "staging_home")
    engine.docker("run", "--rm", "--network", "host", *source, *volumes, GOOD, *live)
    synced = ["registry", "sync", "--task", "/app/tasks/small.toml", "--by", "the test"]
    subprocess.run(
        [tmp_path / "bin" / "docker", "compose", "run", "--rm", "--no-deps", "--no-TTY", "live", *synced],
        env=made.environment,
        check=True,
    )
    server = made.serve_webhook()
    try:
        yield made
    finally:
        server.shutdown()
        engine.docker("rm", "--force", "staging-api-1")
        engine.docker("volume", "rm", "--force", "staging_home")


def test_a_deployment_that_fails_its_test_goes_back_to_the_image_and_the_model_before(engine, staging: Staging) -> None:
    good = GOOD.rpartition(":")[2]
    if staging.way == "webhook":  # nobody knows what was there before; a host would say that there is no file
        code, said = staging.deploy(good)
        assert code != 0 and "nothing was touched" in said and "DEPLOY_PREVIOUS" in said, said
        assert engine.docker("ps", "--all", "--quiet", "--filter", "name=staging-api-1") == ""
    code, said = staging.deploy(good, **{"vars.DEPLOY_PREVIOUS": "none"})
    assert code == 0 and f"Deployed {GOOD} with model 1" in said, said

    staging.production.train_another()  # the registry's champion is 2 now, which staging does not serve yet
    assert staging.state() == (GOOD, "1")
    bad = f"FROM {GOOD}\nENV FORECASTLE_MAX_BODY=1 FORECASTLE_COMMIT=bad\nLABEL forecastle.model-version=2\n"
    (staging.folder / "Dockerfile").write_text(bad)
    engine.docker("build", "--tag", "forecastle-api:bad", str(staging.folder))
    code, said = staging.deploy("bad")
    assert code != 0 and f"before: {GOOD} with model 1" in said, said
    assert "Version 2 serves now" in said and "forecasts on request: 413" in said, said
    assert f"Rolled back to {GOOD} with model 1\n" in said and TOKEN not in said, said
    assert staging.state() == (GOOD, "1")
    settings, task = staging.production.settings, staging.production.task
    champion, turned_down = models.alias(settings, task, "champion"), models.find(settings, task, "2")
    assert champion is not None and champion.version == "1"
    assert turned_down.tags["rejected_because"] == "The deployment of forecastle-api:bad to staging failed."
    assert turned_down.tags["rejected_by"] == "cd-master"

    if staging.way == "ssh":
        assert (staging.folder / "deployed").read_text() == f"{GOOD} 1\n"
        (staging.folder / "unreachable").touch()
        code, said = staging.deploy("bad")
        assert code != 0 and "nothing was touched" in said and "Deploying" not in said, said
        assert staging.state() == (GOOD, "1")
