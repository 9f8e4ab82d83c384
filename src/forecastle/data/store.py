"""A place that keeps objects, named by a URI: a folder, ``s3://bucket/prefix`` or ``az://container/prefix``.

An object is bytes under a name whose parts are joined by ``/``. It is there whole or not at all; after ``put`` has
returned, every process sees it and no crash takes it away. That, and a ``list`` that shows what was put and does not
show what was deleted before it was called, is all that the archive and the history rely on: no locks, no conditional
writes, no renames. Folders, S3 and its compatible servers, and Azure Blob all give it.
"""

from __future__ import annotations

import builtins
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import obstore
from obstore.exceptions import BaseError
from obstore.store import AzureStore, ObjectStore, S3Store

from forecastle.errors import SettingsError, StorageUnavailable
from forecastle.frame import write_bytes
from forecastle.settings import Settings

if TYPE_CHECKING:  # these two exist for checkers of types alone
    from obstore.store import ClientConfig, RetryConfig

AT_ONCE = 8  # requests under way
TORN = 3600.0  # seconds after which an unfinished file has no writer
RETRY: RetryConfig = {"max_retries": 6, "retry_timeout": timedelta(seconds=30)}
CLIENT: ClientConfig = {"connect_timeout": timedelta(seconds=5), "timeout": timedelta(seconds=60)}


@dataclass(frozen=True, order=True)
class Entry:
    """An object's name, its length in bytes, and when it was put, by the place's own clock (seconds since 1970)."""

    name: str
    size: int
    changed: float


class Store(Protocol):
    """Keep objects by name; every method raises StorageUnavailable where the place does not answer or refuses."""

    @property
    def uri(self) -> str:
        """The place's address, without any secret."""
        ...

    def __truediv__(self, part: str) -> Store:
        """Return the place below this one."""
        ...

    def put(self, name: str, content: bytes) -> None:
        """Store an object whole or not at all, in place of one of the same name."""
        ...

    def get(self, names: Sequence[str]) -> list[bytes]:
        """Return objects. Raises FileNotFoundError where one is not there."""
        ...

    def list(self, below: bool = True) -> list[str]:
        """Return the names of all objects below, sorted; none where nothing was ever put. Without ``below`` only of
        those right here, whose names have one part."""
        ...

    def entries(self) -> builtins.list[Entry]:
        """Return all objects below with their size and age, sorted by name."""
        ...

    def clock(self) -> float:
        """Return what the place's own clock says, which stamps its objects (seconds since 1970)."""
        ...

    def refresh(self, name: str) -> bool:
        """Make an object as young as if it were put now, without its content; tell whether that could be done."""
        ...

    def exists(self, name: str) -> bool:
        """Tell whether an object is there."""
        ...

    def delete(self, name: str) -> None:
        """Remove an object; one that is not there is no mistake."""
        ...

    def sweep(self) -> None:
        """Remove what writers that were killed left unfinished."""
        ...


@dataclass(frozen=True)
class Folder:
    """Objects as files: written beside their place, flushed to the disk, renamed into it."""

    path: Path

    @property
    def uri(self) -> str:
        """The folder's path."""
        return str(self.path)

    def __truediv__(self, part: str) -> Folder:
        """Return the folder below."""
        return Folder(self.path / part)

    def put(self, name: str, content: bytes) -> None:
        """Write a file whole or not at all."""
        write_bytes(self.path / name, content)

    def get(self, names: Sequence[str]) -> list[bytes]:
        """Read files."""
        with self._answering():
            return [(self.path / name).read_bytes() for name in names]

    def list(self, below: bool = True) -> list[str]:
        """Return the files below, or only those in the folder; those whose name starts with a dot are not objects."""
        with self._answering():
            return sorted(_names(str(self.path), below))

    def entries(self) -> builtins.list[Entry]:
        """Return the files below with their size and time of change."""
        found: builtins.list[Entry] = []
        with self._answering():
            for path in self._files():
                with suppress(FileNotFoundError):  # removed since it was listed
                    said = path.stat()
                    found.append(Entry(path.relative_to(self.path).as_posix(), said.st_size, said.st_mtime))
        return sorted(found)

    def clock(self) -> float:
        """Return the disk's time, by the stamp of a file that goes at once."""
        with self._answering():
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.path, prefix=".clock.") as file:
                return os.stat(file.name).st_mtime

    def refresh(self, name: str) -> bool:
        """Give a file the time of now."""
        try:
            with self._answering():
                os.utime(self.path / name)
        except FileNotFoundError:
            return False
        return True

    def _files(self) -> Iterator[Path]:
        return (self.path / name for name in _names(str(self.path), True))

    def exists(self, name: str) -> bool:
        """Tell whether a file is there."""
        with self._answering():
            return (self.path / name).is_file()

    def delete(self, name: str) -> None:
        """Remove a file."""
        with self._answering():
            (self.path / name).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove unfinished files of the folder itself that are an hour older than its youngest file."""
        with self._answering():
            ages: dict[Path, float] = {}
            for path in self.path.glob("*"):
                with suppress(FileNotFoundError):  # its writer has finished it, or another sweeper was here
                    ages[path] = path.stat().st_mtime
            for path, age in ages.items():
                if path.match(".*.part") and age < max(ages.values()) - TORN:
                    path.unlink(missing_ok=True)

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            found = str(error.strerror or error)
            raise StorageUnavailable(
                f"to read and write in {self.path}", found, "Mend the folder, its permissions or its disk."
            ) from error


@dataclass(frozen=True)
class Bucket:
    """Objects of a bucket or container whose names start with a prefix, by the object-store library."""

    uri: str
    objects: ObjectStore
    prefix: str = ""

    def __truediv__(self, part: str) -> Self:
        """Return the place below."""
        return replace(self, uri=f"{self.uri.rstrip('/')}/{part}", prefix=f"{self.prefix}{part}/")

    def put(self, name: str, content: bytes) -> None:
        """Store an object; a large one in parts, that become it all at once."""
        with self._answering():
            obstore.put(self.objects, self.prefix + name, content)

    def get(self, names: Sequence[str]) -> list[bytes]:
        """Fetch objects, a few at a time."""

        def fetch(name: str) -> bytes:
            with self._answering():
                return obstore.get(self.objects, self.prefix + name).bytes().to_bytes()

        if len(names) < 2:
            return [fetch(name) for name in names]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(fetch, names))

    def list(self, below: bool = True) -> list[str]:
        """Return the names below the prefix, or only those without a further part."""
        with self._answering():
            pages = obstore.list(self.objects, prefix=self.prefix or None)
            names = sorted(str(one["path"]).removeprefix(self.prefix) for page in pages for one in page)
        return names if below else [name for name in names if "/" not in name]

    def entries(self) -> builtins.list[Entry]:
        """Return the objects below the prefix with their size and the server's time of their last writing."""
        with self._answering():
            pages = obstore.list(self.objects, prefix=self.prefix or None)
            return sorted(
                Entry(str(one["path"]).removeprefix(self.prefix), one["size"], one["last_modified"].timestamp())
                for page in pages
                for one in page
            )

    def clock(self) -> float:
        """Return the server's time, by the stamp of an object written now."""
        name = f"{self.prefix}.clock"
        with self._answering():
            obstore.put(self.objects, name, b"")
            return obstore.head(self.objects, name)["last_modified"].timestamp()

    def refresh(self, name: str) -> bool:
        """Return False: an object's time is that of its last writing, so it has to be put again."""
        return False

    def exists(self, name: str) -> bool:
        """Tell whether an object is there, by its head."""
        try:
            with self._answering():
                obstore.head(self.objects, self.prefix + name)
        except FileNotFoundError:
            return False
        return True

    def delete(self, name: str) -> None:
        """Remove an object."""
        try:
            with self._answering():
                obstore.delete(self.objects, self.prefix + name)
        except FileNotFoundError:
            return

    def sweep(self) -> None:
        """Do nothing: parts of an upload that never ended are no objects, and a rule of the bucket removes them."""

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Raise what the library raises as StorageUnavailable, but for an object that is not there.

        The library's messages hold addresses and whole answers; of those only the server's status and code are told.
        """
        try:
            yield
        except (BaseError, OSError) as error:
            found = _found(str(error)) or type(error).__name__
            if isinstance(error, FileNotFoundError) and not found.endswith(_NO_BUCKET):
                raise
            raise StorageUnavailable(f"an answer from {self.uri}", found, _action(found)) from None


def _names(folder: str, below: bool, prefix: str = "") -> Iterator[str]:
    """Yield the files below a folder, or only those in it, by their names from there; none where there is no folder."""
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.is_dir():
            if below:
                yield from _names(entry.path, below, f"{prefix}{entry.name}/")
        elif not entry.name.startswith("."):
            yield prefix + entry.name


def get_there(store: Store, names: Sequence[str]) -> list[bytes | None]:
    """Return objects, None for one that is not there."""
    try:
        return list(store.get(names))
    except FileNotFoundError:
        return [_get_one(store, name) for name in names]


def _get_one(store: Store, name: str) -> bytes | None:
    try:
        return store.get([name])[0]
    except FileNotFoundError:
        return None


Place = Path | Store


def at(place: Place) -> Store:
    """Return a path as the folder it names; a store as it is."""
    return Folder(place) if isinstance(place, Path) else place


def task_stores(settings: Settings, task: str) -> Store:
    """Return the place of one task's archive and history, by ``FORECASTLE_STORES`` and the settings beside it."""
    return open_store(settings.stores or str(settings.home), settings) / task


def open_store(uri: str, settings: Settings) -> Store:
    """Return the place that a URI names. Raises SettingsError for an address of an unknown kind, or no address."""
    scheme, divider, rest = uri.partition("://")
    if not divider:
        return Folder(Path(uri))
    bucket, _, prefix = rest.partition("/")
    if scheme not in _LIBRARY or not bucket:
        raise SettingsError(
            f"a folder, or {' or '.join(f'{one}://bucket/prefix' for one in _LIBRARY)}, in FORECASTLE_STORES",
            f"{scheme}://{bucket.rpartition('@')[2]}",
            "Write it so; see docs/storage.md.",
        )
    _check_endpoint(settings)
    try:
        root = Bucket(f"{scheme}://{bucket}", _LIBRARY[scheme](bucket, settings))
    except (BaseError, ValueError) as error:
        raise SettingsError(
            f"settings that reach {scheme}://{bucket}",
            _found(str(error)) or type(error).__name__,
            "Mend FORECASTLE_STORES_KEY_ID and FORECASTLE_STORES_SECRET; see docs/storage.md.",
        ) from None
    return root / prefix.strip("/") if prefix.strip("/") else root


def _check_endpoint(settings: Settings) -> None:
    scheme, divider, _ = settings.stores_endpoint.partition("://")
    if not settings.stores_endpoint or scheme == "https" or (scheme == "http" and settings.stores_allow_http):
        return
    raise SettingsError(
        "an address that begins with https:// in FORECASTLE_STORES_ENDPOINT",
        f"{scheme}://" if divider else "none of http:// and https://",
        "Write it so, or allow http:// by FORECASTLE_STORES_ALLOW_HTTP=true.",
    )


def _s3(bucket: str, settings: Settings) -> ObjectStore:
    given = {
        "endpoint": settings.stores_endpoint,
        "region": settings.stores_region,
        "access_key_id": settings.stores_key_id,
        "secret_access_key": settings.stores_secret.get_secret_value(),
    }
    return S3Store(bucket, config=_said(given), client_options=_client(settings), retry_config=RETRY)


def _azure(container: str, settings: Settings) -> ObjectStore:
    given = {
        "endpoint": settings.stores_endpoint,
        "account_name": settings.stores_key_id,
        "account_key": settings.stores_secret.get_secret_value(),
    }
    return AzureStore(container, config=_said(given), client_options=_client(settings), retry_config=RETRY)


def _said(given: dict[str, str]) -> Any:
    """Return what the settings say; of what they do not, the library reads AWS' or Azure's own variables."""
    return {name: value for name, value in given.items() if value}


def _client(settings: Settings) -> ClientConfig:
    return {**CLIENT, "allow_http": True} if settings.stores_allow_http else CLIENT


def _found(text: str) -> str:
    """Return the status and code in a server's answer; where there was none, what came in between."""
    code, status = re.search(r"<Code>(\w+)</Code>", text), re.search(r"\b([45]\d\d) [A-Z][a-z]+", text)
    if _METADATA in text:
        return "no key, and a machine that is given none"
    if code or status:
        return " ".join(found.group(1) for found in (status, code) if found)
    return next((known for known in _KNOWN if known in text), "")


def _action(found: str) -> str:
    if found.endswith(_NO_BUCKET):
        return "Create the bucket (container), or mend its name in FORECASTLE_STORES."
    if found.startswith(("401", "403", "no key")):
        return "Mend FORECASTLE_STORES_KEY_ID and FORECASTLE_STORES_SECRET, or what this key may do there."
    return "Check that the server runs and that FORECASTLE_STORES_ENDPOINT is its address."


_LIBRARY: dict[str, Callable[[str, Settings], ObjectStore]] = {"s3": _s3, "az": _azure}
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound")
_METADATA = "/latest/api/token"  # where a machine at Amazon asks for its key when nothing gives one
_KNOWN = (
    "Connection refused",
    "Connection reset",
    "dns error",
    "timed out",
    "certificate",
    "Invalid Access Key",
    "Account must be specified",
)
