"""Real servers on this machine: object stores and MLflow, each in a folder of its own, stopped by its own process ids.

``s3_server`` is Ceph's S3 gateway with one monitor and one disk, ``azure_server`` the emulator Azurite. Both keep over
``kill`` and ``start`` what was stored before ``settle``; `tools/object-stores` installs what they need. Whoever kills a
server starts it again: the rest of the session uses it too.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
AZURITE = ROOT / ".cache" / "azurite" / "node_modules" / ".bin" / "azurite-blob"
PATIENCE = 90.0  # seconds a server may take to come up on a busy machine

CEPH = """
[global]
fsid={fsid}
mon_host=v1:127.0.0.1:{monitor_port}
auth_cluster_required=none
auth_service_required=none
auth_client_required=none
run_dir={folder}
log_file={folder}/$name.log
admin_socket={folder}/$name.asok
osd_pool_default_size=1
osd_pool_default_min_size=1
osd_pool_default_pg_num=4
osd_pool_default_pgp_num=4
osd_crush_chooseleaf_type=0
mon_allow_pool_size_one=true
mon_max_pg_per_osd=1000
public_network=127.0.0.0/8
cluster_network=127.0.0.0/8
[mon.a]
mon_data={folder}/mon
mon_data_avail_crit=1
[osd.0]
osd_data={folder}/osd
osd_journal={folder}/osd/journal
osd_journal_size=100
osd_objectstore=filestore
osd_max_object_name_len=256
osd_max_object_namespace_len=64
osd_class_update_on_start=false
osd_crush_update_on_start=false
[client.rgw.a]
rgw_frontends=beast endpoint=127.0.0.1:{port} tcp_nodelay=1
rgw_data={folder}/rgw
rgw_init_timeout=60
rgw_thread_pool_size=16
rgw_enable_ops_log=false
rgw_enable_usage_log=false
"""


@dataclass
class Daemon:
    """A process in a group of its own, that ends with the one that started it."""

    command: list[str]
    folder: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self, ready: Callable[[], bool]) -> None:
        with (self.folder / "output.log").open("ab") as output:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *self.command],
                stdout=output,
                stderr=output,
                cwd=self.folder,
                start_new_session=True,
            )
        self.wait_until(ready)

    def wait_until(self, ready: Callable[[], bool]) -> None:
        assert self.process is not None
        deadline = time.monotonic() + PATIENCE
        while not ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"{self.command[0]} did not come up:\n{(self.folder / 'output.log').read_text()[-4000:]}")
            time.sleep(0.1)

    def kill(self) -> None:
        if self.process is not None:
            if self.process.poll() is None:  # one that ended by itself has no group any more
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
            self.process = None


@dataclass
class S3Server:
    """Ceph's S3 gateway: where it listens, the key it knows, and how a bucket is made."""

    folder: Path
    port: int = field(default_factory=lambda: free_port())
    key: str = "forecastle"
    secret: str = field(default_factory=lambda: secrets.token_hex(16))
    region: str = "us-east-1"
    daemons: list[Daemon] = field(default_factory=list)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to reach it, as forecastle's and AWS' own variables."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_REGION": self.region,
            "AWS_ALLOW_HTTP": "true",
        }

    def bucket(self) -> str:
        """Make a new, empty bucket and return its name."""
        from botocore.session import get_session

        name = f"b-{uuid.uuid4().hex[:12]}"
        client = get_session().create_client(
            "s3",
            region_name=self.region,
            endpoint_url=self.endpoint,
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
        )
        client.create_bucket(Bucket=name)
        return name

    def uri(self, bucket: str, prefix: str) -> str:
        return f"s3://{bucket}/{prefix}"

    def make(self) -> None:
        """Make a new cluster of one monitor and one disk, start it, and tell it the key."""
        monitor_port = free_port()
        fsid = str(uuid.uuid4())
        for name in ("mon", "osd", "rgw"):
            (self.folder / name).mkdir()
        settings = CEPH.format(fsid=fsid, monitor_port=monitor_port, port=self.port, folder=self.folder)
        (self.folder / "ceph.conf").write_text(settings)
        # A monitor on another port than 6789 has to be said to speak the first protocol, or the gateway waits for ever.
        address = f"[v1:127.0.0.1:{monitor_port}]"
        self._run("monmaptool", "--create", "--addv", "a", address, "--fsid", fsid, "monmap")
        self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", "monmap")
        monitor, disk, gateway = (
            ["ceph-mon", "-f", "-i", "a"],
            ["ceph-osd", "-f", "-i", "0"],
            ["radosgw", "-f", "-n", "client.rgw.a"],
        )
        self.daemons = [
            Daemon([command[0], "-c", "ceph.conf", *command[1:]], self.folder) for command in (monitor, disk, gateway)
        ]
        self.daemons[0].start(lambda: self._says("mon", "stat"))
        disk_id = str(uuid.uuid4())
        # A young monitor says how it is before it takes commands, and may refuse one after it took another (EPERM,
        # "problem getting command descriptions"). Told again what it has done, it changes nothing.
        self.daemons[0].wait_until(lambda: self._says("osd", "new", disk_id))
        self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", disk_id)
        place = ("osd", "crush", "add", "osd.0", "1.0", "host=localhost", "root=default")
        self.daemons[0].wait_until(lambda: self._says(*place))
        self._start_from(1)
        names = [f"--{name}={value}" for name, value in {"access-key": self.key, "secret": self.secret}.items()]
        self._run("radosgw-admin", "user", "create", "--uid=test", "--display-name=test", *names)

    def start(self) -> None:
        self._start_from(0)

    def settle(self) -> None:
        """Return when a server that is killed keeps what it has: Ceph's disk writes before it answers."""

    def kill(self) -> None:
        for daemon in reversed(self.daemons):
            daemon.kill()

    def _start_from(self, first: int) -> None:
        ready = (
            lambda: self._says("mon", "stat"),
            lambda: self._says("osd", "stat", answer="1 up"),
            lambda: answers(self.endpoint),
        )
        for daemon, condition in list(zip(self.daemons, ready, strict=True))[first:]:
            daemon.start(condition)

    def _run(self, program: str, *arguments: str) -> None:
        command = [program, "-c", "ceph.conf", *arguments]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stdout + done.stderr

    def _says(self, *question: str, answer: str = "") -> bool:
        command = ["ceph", "-c", "ceph.conf", "--connect-timeout", "5", *question]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=PATIENCE)
        if done.returncode != 0:
            with (self.folder / "output.log").open("a") as output:
                output.write(f"{' '.join(question)}: {done.stderr}")
        return done.returncode == 0 and answer in done.stdout


@dataclass
class AzureServer:
    """Azurite, the emulator of Azure Blob Storage, with an account of its own."""

    folder: Path
    port: int = field(default_factory=lambda: free_port())
    key: str = "forecastle"  # what Azure calls the account
    secret: str = field(default_factory=lambda: secrets.token_hex(32))  # hex is base64 too
    daemon: Daemon | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}/{self.key}"

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to reach it, as Azure's own variables."""
        return {
            "AZURE_STORAGE_ENDPOINT": self.endpoint,
            "AZURE_STORAGE_ACCOUNT_NAME": self.key,
            "AZURE_STORAGE_ACCOUNT_KEY": self.secret,
            "AZURE_ALLOW_HTTP": "true",
        }

    @property
    def connection_string(self) -> str:
        account = f"AccountName={self.key};AccountKey={self.secret}"
        return f"DefaultEndpointsProtocol=http;{account};BlobEndpoint={self.endpoint};"

    def bucket(self) -> str:
        """Make a new, empty container and return its name."""
        from azure.storage.blob import BlobServiceClient

        name = f"b-{uuid.uuid4().hex[:12]}"
        with BlobServiceClient.from_connection_string(self.connection_string) as client:
            client.create_container(name)
        return name

    def uri(self, bucket: str, prefix: str) -> str:
        return f"az://{bucket}/{prefix}"

    def make(self) -> None:
        place = ["--location", str(self.folder), "--blobHost", "127.0.0.1", "--blobPort", str(self.port)]
        account = f"AZURITE_ACCOUNTS={self.key}:{self.secret}"
        options = ["--silent", "--skipApiVersionCheck", "--disableTelemetry"]
        self.daemon = Daemon(["env", account, str(AZURITE), *place, *options], self.folder)
        self.start()

    def start(self) -> None:
        assert self.daemon is not None
        self.daemon.start(lambda: answers(self.endpoint))

    def settle(self) -> None:
        """Return when a server that is killed keeps what it has: the emulator writes its index every five seconds."""
        time.sleep(6)

    def kill(self) -> None:
        if self.daemon is not None:
            self.daemon.kill()


@dataclass
class MlflowServer:
    """MLflow's tracking server and registry on SQLite, with the artifacts in a folder that only it sees."""

    folder: Path
    port: int = field(default_factory=lambda: free_port())
    daemon: Daemon | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def make(self) -> None:
        places = ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db", "--serve-artifacts"]
        places += ["--artifacts-destination", str(self.folder / "artifacts")]
        # Its job runners would be eight more processes.
        quiet = [
            "env",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false",
            "MLFLOW_DISABLE_TELEMETRY=true",
            "DO_NOT_TRACK=true",
        ]
        server = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        self.daemon = Daemon([*quiet, *server, "--workers", "1", *places], self.folder)
        self.daemon.start(lambda: answers(f"{self.address}/health"))

    def kill(self) -> None:
        if self.daemon is not None:
            self.daemon.kill()


@pytest.fixture(scope="session")
def mlflow_server() -> Iterator[MlflowServer]:
    """A real MLflow server, of this session alone."""
    if shutil.which("setpriv") is None:
        lack("no setpriv on this machine: it is in Debian's package util-linux")
    yield from running(MlflowServer)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """Ceph's S3 gateway, of this session alone."""
    lacking = [name for name in ("ceph", "ceph-mon", "ceph-osd", "radosgw", "setpriv") if shutil.which(name) is None]
    if lacking:
        lack(f"no {', '.join(lacking)} on this machine: tools/object-stores installs them from Debian's packages")
    yield from running(S3Server)


@pytest.fixture(scope="session")
def azure_server() -> Iterator[AzureServer]:
    """Azurite, of this session alone."""
    if not AZURITE.exists() or shutil.which("setpriv") is None:
        lack(f"no {AZURITE.relative_to(ROOT)}: tools/object-stores installs it")
    yield from running(AzureServer)


def running(kind: type) -> Iterator:
    """Yield a server that runs, in a new folder, on a port of its own; one that does not come up is made once more."""
    for last in (False, True):
        folder = Path(tempfile.mkdtemp(prefix="os-", dir="/tmp"))  # short: Ceph's sockets lie in it
        server = kind(folder)
        try:
            try:
                server.make()
            except (pytest.fail.Exception, AssertionError, subprocess.TimeoutExpired) as fault:
                if last:
                    raise
                warnings.warn(f"{kind.__name__} did not come up and is made once more: {fault}", stacklevel=1)
                continue
            yield server
            return
        finally:
            server.kill()
            shutil.rmtree(folder)


def lack(reason: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason} (a missing component is a failure where CI=true)")
    pytest.skip(reason)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def answers(address: str) -> bool:
    try:
        urllib.request.urlopen(address, timeout=5)
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True
