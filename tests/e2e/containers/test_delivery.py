"""The way of a change from pull request to staging: the steps of ci-test and cd-master, read from their YAML and run.

Real are Airflow, the training, MLflow's registry on SQLite, Docker's engine, the image and its containers, the registry
images are pushed to (Debian's) and Compose. Stood in for are the weather (recorded), GitHub's comments (a server that
keeps what is posted), the host behind SSH (this machine) and GitHub's own actions, which the steps do without.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import uvicorn
import yaml

from forecastle.data.replay import load_nyc_weather, replay_app
from forecastle.serving.server import listen

ROOT = Path(__file__).parents[3]
NOW = datetime(2013, 2, 10, 0, 5, tzinfo=UTC)
TOKEN = "ghs_of-the-test"
STEP_SECONDS = 900
REPOSITORY = "alice/weather"


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


@pytest.fixture(scope="module")
def weather() -> Iterator[str]:
    """The recorded weather behind the API's own layout, as of NOW."""
    app = replay_app(load_nyc_weather(), lambda: NOW)
    with listen("127.0.0.1", 0) as (door, address):
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [door]}, daemon=True)
        thread.start()
        yield address
        server.should_exit = True
        thread.join(10)


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory, weather: str, github: GitHub) -> Runner:
    folder = tmp_path_factory.mktemp("checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    # The environment is this one's; the stamp says that it is what the copy's lock asks for.
    (folder / ".venv").mkdir()
    for name in ("bin", "lib"):
        (folder / ".venv" / name).symlink_to(ROOT / ".venv" / name)
    (folder / ".cache").symlink_to(ROOT / ".cache")
    stamp = subprocess.run(
        "(pwd; cat requirements/bootstrap.txt requirements/dev.txt pyproject.toml) | sha256sum | cut -c1-16",
        shell=True,
        cwd=folder,
        capture_output=True,
        text=True,
    ).stdout.strip()
    (folder / ".venv" / f".installed-{stamp}").touch()
    told = {
        "FORECASTLE_OPEN_METEO_URL": weather,
        "FORECASTLE_OPEN_METEO_ARCHIVE_URL": weather,
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
    quiet = {name: value for name, value in os.environ.items() if not name.startswith(("COV", "FORECASTLE_"))}
    return Runner(folder, given, quiet | told)


@pytest.fixture(scope="module")
def compared(runner: Runner) -> Mapping[str, tuple[int, str]]:
    """What the steps of ci-test said."""
    return runner.run("ci-test")


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


def test_ci_test_retrains_on_airflow_compares_posts_and_passes(runner: Runner, compared, github: GitHub) -> None:
    assert {step: code for step, (code, _) in compared.items() if code} == {}, compared
    assert "Airflow is up and knows nyc-temperature-train" in compared["make retrain"][1]
    assert re.search(r"promote +success", compared["make retrain"][1])
    report = (runner.folder / "build" / "report" / "comparison.md").read_text(encoding="utf-8")
    assert report.startswith("## nyc-temperature: model 1")
    assert list((runner.folder / "build" / "report").glob("*.png"))
    assert [one["body"] for one in github.comments] == [f"<!-- forecastle: comparison -->\n{report}"]
    assert report in (runner.folder / "summary.md").read_text(encoding="utf-8")


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
    note = next((runner.folder / "data" / "nyc-temperature" / "runs").glob("train-*/decision.json"))
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
    labels = json.loads(
        engine.docker("image", "inspect", "--format", "{{json .Config.Labels}}", "forecastle-api:0123456789abcdef")
    )
    assert labels["forecastle.model-version"] == "1" and len(labels["forecastle.data-version"]) == 32
    assert labels["org.opencontainers.image.revision"] == "0123456789abcdef"


def test_the_image_is_small_and_holds_no_compiler_no_pip_and_nothing_to_train_with(engine, built) -> None:
    name = "forecastle-api:0123456789abcdef"
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
        engine.docker("tag", "forecastle-api:0123456789abcdef", f"{image}:{tag}")
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
    """A host behind SSH, which is this machine: a folder with a compose file, reached by a program named ssh."""

    folder: Path
    runner: Runner
    url: str

    def deploy(self, tag: str) -> tuple[int, str]:
        self.runner.given |= {"secrets.DEPLOY_SSH": "deployer@staging", "secrets.DEPLOY_SSH_KEY": "a key"}
        self.runner.given |= {"secrets.DEPLOY_KNOWN_HOSTS": "staging ssh-ed25519 AAAA", "vars.STAGING_URL": self.url}
        self.runner.given |= {"github.sha": tag, "vars.IMAGE": "forecastle-api"}
        done = self.runner.run(
            "cd-master",
            ("make deploy",),
            PATH=f"{self.folder / 'bin'}:{self.runner.environment['PATH']}",
            DEPLOY_FOLDER=str(self.folder),
            DOCKER_CONFIG=str(self.folder / "docker"),
            FORECASTLE=str(self.folder / "bin" / "forecastle"),
            VERIFY_SECONDS="30",
            VERIFY_REPLAYED="true",
        )
        return done["make deploy"]

    @property
    def deployed(self) -> str:
        return (self.folder / "deployed").read_text().strip()


@pytest.fixture
def staging(engine, runner: Runner, built, tmp_path: Path) -> Iterator[Staging]:
    with listen("127.0.0.1", 0) as (_, address):
        port = address.rpartition(":")[2]
    service = {
        "image": "${FORECASTLE_IMAGE}",
        "command": ["serve", "--tasks", "/app/tasks/nyc-temperature.toml"],
        "environment": {"FORECASTLE_MODEL_SOURCE": "image", "FORECASTLE_SERVE_WITHOUT_KEYS": "true"},
        "ports": [f"127.0.0.1:{port}:8000"],
        "volumes": ["home:/data"],
    }
    compose = {"name": "staging", "services": {"api": service}, "volumes": {"home": {}}}
    (tmp_path / "docker-compose.yml").write_text(yaml.safe_dump(compose))
    (tmp_path / "docker" / "cli-plugins").mkdir(parents=True)
    (tmp_path / "docker" / "cli-plugins" / "docker-compose").symlink_to(ROOT / ".venv" / "bin" / "docker-compose")
    (tmp_path / "bin").mkdir()
    for name, script in {
        "ssh": 'for last; do :; done\nexec sh -c "$last"\n',
        "docker": 'exec /usr/bin/docker "$@"\n',
        "forecastle": f'echo "$@" >> {tmp_path / "rolled-back"}\n',
    }.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}")
        (tmp_path / "bin" / name).chmod(0o755)
    settings = [
        word for name, value in runner.environment.items() if "_METEO_" in name for word in ("-e", f"{name}={value}")
    ]
    live = ["run", "live", "--task", "/app/tasks/nyc-temperature.toml", "--now", NOW.isoformat()]
    name = "forecastle-api:0123456789abcdef"
    engine.docker("volume", "create", "staging_home")
    engine.docker("run", "--rm", "--network", "host", *settings, "-v", "staging_home:/data", name, *live)
    try:
        yield Staging(tmp_path, runner, f"http://127.0.0.1:{port}")
    finally:
        engine.docker("rm", "--force", "staging-api-1")


def test_a_deployment_that_fails_its_test_goes_back_to_the_image_and_the_model_before(engine, staging: Staging) -> None:
    code, said = staging.deploy("0123456789abcdef")
    assert code == 0 and staging.deployed == "forecastle-api:0123456789abcdef 1", said

    bad = f'FROM {"forecastle-api:0123456789abcdef"}\nENV FORECASTLE_BAKED=\nLABEL forecastle.model-version=2\n'
    (staging.folder / "Dockerfile").write_text(bad)
    engine.docker("build", "--tag", "forecastle-api:bad", str(staging.folder))
    code, said = staging.deploy("bad")
    assert code != 0 and "Rolled back to forecastle-api:0123456789abcdef" in said, said
    assert staging.deployed == "forecastle-api:0123456789abcdef 1"
    assert (
        engine.docker("inspect", "--format", "{{.Config.Image}}", "staging-api-1") == "forecastle-api:0123456789abcdef"
    )
    rolled_back = (staging.folder / "rolled-back").read_text()
    assert rolled_back.startswith("registry rollback --task tasks/nyc-temperature.toml --to 1 --why ")
