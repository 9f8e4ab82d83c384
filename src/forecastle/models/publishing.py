"""What serves, and how that changes: promote, reject, roll back, and bring the pointer in step with the registry.

Truth about what should serve is the registry's alias ``champion``; what does serve is the published pointer. Every
change goes through them in one order, so that a crash between any two is healed by doing it again, or by ``sync``:

    alias and tags in the registry  →  an event in the audit trail  →  bundle and pointer in the store

Those who share a home folder do so one after the other (``alone``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar, cast

from filelock import FileLock, Timeout

from forecastle.errors import StorageUnavailable, UserError
from forecastle.frame import iso
from forecastle.models import audit, bundle, explanation, pointer, registry
from forecastle.models.audit import Action, Event
from forecastle.models.pointer import ModelVersion, Pointer
from forecastle.settings import Settings
from forecastle.task import Task, nearest

Change = TypeVar("Change", bound=Callable[..., Any])

PATIENCE = 600.0  # seconds, for another process that decides what serves
ALIASES: tuple[registry.Alias, ...] = ("champion", "challenger")


@dataclass(frozen=True)
class Listed:
    """A version with the names it has: its aliases, its stage (Production, Staging, Archived), whether it serves."""

    version: ModelVersion
    serves: bool

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        one, tags = self.version, self.version.tags
        return {
            "version": one.version,
            "stage": one.stage,
            "aliases": list(one.aliases),
            "serves": self.serves,
            "rejected": registry.REJECTED in tags,
            "estimator": one.estimator,
            "rmse": _number(tags.get("rmse")),
            "skill": _number(tags.get("skill")),
            "created_at": tags.get(registry.MADE),
            "data_version": one.data_version,
            "run_id": one.run_id,
            "code": one.code,
            "git_commit": tags.get("git_commit"),
            "promoted_at": tags.get("promoted_at"),
            "promoted_by": tags.get("promoted_by"),
            "promoted_because": tags.get("promoted_because"),
        }


@dataclass(frozen=True)
class Shown:
    """A version with what it has learnt from, how its candidates did, and who decided what about it."""

    listed: Listed
    importance: dict[str, float]  # the share of each feature in what its trees have learnt; empty without trees
    backtest: dict[str, Any]
    weights: dict[str, float]
    events: tuple[Event, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            **self.listed.as_dict(),
            "weights": self.weights,
            "importance": self.importance,
            "backtest": self.backtest,
            "events": [one.as_dict() for one in self.events],
        }


@dataclass(frozen=True)
class Synced:
    """What ``sync`` found the registry's alias to name, and whether the pointer had to be moved to it."""

    version: str | None
    before: str | None
    moved: bool


@contextmanager
def alone(settings: Settings, task: Task) -> Iterator[None]:
    """Keep every other process, and thread, of this home folder from deciding what serves of a task meanwhile.

    Who has it may take it again. Raises StorageUnavailable where another keeps it, or the folder does not take a lock.
    """
    path = settings.task_folder(task.name) / "champion.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, is_singleton=True)
        lock.acquire(timeout=PATIENCE)
    except Timeout:
        raise StorageUnavailable(
            f"to decide alone what serves of task {task.name!r}",
            f"{path} held by another process for {PATIENCE:.0f} s",
            "Wait until that has ended, or end it.",
        ) from None
    except OSError as error:
        raise StorageUnavailable(f"to lock {path}", str(error.strerror or error), "Mend the folder.") from error
    try:
        yield
    finally:
        lock.release()


def _alone(change: Change) -> Change:
    """Let a change of what serves happen ``alone``."""

    @wraps(change)
    def changed(settings: Settings, task: Task, *args: Any, **named: Any) -> Any:
        with alone(settings, task):
            return change(settings, task, *args, **named)

    return cast(Change, changed)


def listing(settings: Settings, task: Task) -> tuple[Listed, ...]:
    """Return every version of the task's model, the newest first."""
    serving = pointer.published(settings, task)
    return tuple(Listed(one, _serves(one, serving)) for one in registry.versions(settings, task, with_aliases=True))


def show(settings: Settings, task: Task, name: str) -> Shown:
    """Return one version, named by its number or an alias, in full. Raises UserError where there is none."""
    version = find(settings, task, name)
    with TemporaryDirectory() as aside:
        made = bundle.load(registry.download(settings, version, Path(aside) / "bundle"), version.version)
    told = tuple(one for one in audit.events(settings, task) if version.version in (one.version, one.before))
    return Shown(
        Listed(version, _serves(version, pointer.published(settings, task))),
        explanation.importance(made.model, made.features),
        {name: figure for name, figure in made.backtest.items() if name != "series"},
        {member.name: weight for member, weight in zip(made.model.members, made.model.weights, strict=True)},
        told,
    )


def find(settings: Settings, task: Task, name: str) -> ModelVersion:
    """Return the version of a number or an alias. Raises UserError where there is none, with those there are."""
    known = registry.versions(settings, task, with_aliases=True)
    for one in known:
        if name in (one.version, *one.aliases):
            return one
    numbers = [one.version for one in known]
    if name in ALIASES:
        raise UserError(f"a {name} of task {task.name!r}", "none yet", "Train one: forecastle run train --task FILE.")
    raise UserError(
        f"a version of task {task.name!r} ({', '.join(numbers) or 'none yet'}), champion or challenger",
        f"{name!r}{nearest(name, [*numbers, *ALIASES])}",
        "forecastle registry list --task FILE shows them.",
    )


@_alone
def promote(
    settings: Settings,
    task: Task,
    version: ModelVersion,
    bundle_folder: Path,
    now: datetime,
    why: str,
    by: str,
    action: Action = "promote",
    leaving: ModelVersion | None = None,
) -> Pointer:
    """Let a version serve whose bundle lies in a folder: alias and tags, audit trail, then bundle and pointer.

    ``leaving`` is one that is turned down with it. Repeating it after a crash anywhere ends in the same state. Raises
    RegistryUnavailable for a bundle that is not as it was saved or fails its self-check: nothing is changed then.
    """
    bundle.self_check(bundle.load(bundle_folder, version.version))
    before = _serving(settings, task)
    if leaving is not None:
        registry.tag(settings, task, leaving, dict(zip(registry.REJECTION, (iso(now), by, why), strict=True)))
    registry.set_alias(settings, task, "champion", version)
    tags = {"promoted_at": iso(now), "promoted_by": by, "promoted_because": why}
    registry.tag(settings, task, version, tags | dict.fromkeys(registry.REJECTION, None))
    audit.record(settings, task, Event(now, by, action, version.version, before, why))
    return pointer.publish(settings, task, version, bundle_folder, now, is_rollback=leaving is not None)


@_alone
def promote_registered(settings: Settings, task: Task, name: str, now: datetime, why: str, by: str) -> Pointer:
    """Let a version of the registry serve because somebody says so, whatever it scored."""
    return _publish_registered(settings, task, find(settings, task, name), now, why, by, "promote")


@_alone
def challenge(settings: Settings, task: Task, version: ModelVersion, now: datetime, why: str, by: str) -> None:
    """Let a version want to serve, and note why it does not yet."""
    registry.set_alias(settings, task, "challenger", version)
    audit.record(settings, task, Event(now, by, "keep", version.version, _serving(settings, task), why))


@_alone
def reject(settings: Settings, task: Task, name: str, now: datetime, why: str, by: str) -> ModelVersion:
    """Turn a version down: it is no challenger any more, and nothing rolls back to it. UserError for what serves."""
    version = find(settings, task, name)
    if "champion" in version.aliases or _serves(version, pointer.published(settings, task)):
        raise UserError(
            "a version that does not serve",
            f"version {version.version}, the champion",
            "Take it from service first: forecastle registry rollback --task FILE --why TEXT",
        )
    registry.reject(settings, task, version, iso(now), by, why)
    audit.record(settings, task, Event(now, by, "reject", version.version, _serving(settings, task), why))
    return version


@_alone
def rollback(settings: Settings, task: Task, now: datetime, why: str, by: str, to: str | None = None) -> Pointer:
    """Let the version serve again that served before, or the one named; the one that serves now is turned down.

    So a second rollback goes further back, never forth; one that ended halfway is finished. Where the alias names a
    version that does not serve here, that is turned down too, and going back starts from what serves all the same
    (where nothing was published, from the alias); naming what serves brings the alias back to it. Raises UserError
    where nothing served before, and where what serves is none of the registry's.
    """
    known = registry.versions(settings, task, with_aliases=True)
    named = next((one for one in known if "champion" in one.aliases), None)
    serving = pointer.published(settings, task)
    turned_down = _left_halfway(known, serving)
    if turned_down and named and not _serves(named, serving) and to in (None, named.version):
        return _publish_registered(settings, task, named, now, why, by, "rollback", turned_down)
    leaving = named if serving is None else next((one for one in known if _serves(one, serving)), None)
    if leaving is None:
        raise UserError(
            f"a champion in the registry that serves (version {serving.version if serving else 'none'})",
            f"version {named.version}" if named else "none",
            "Bring them in step first: forecastle registry sync --task FILE",
        )
    target = find(settings, task, to) if to else registry.served_before(known, leaving)
    stray = named if named is not None and named.version != leaving.version else None
    if stray is not None and target is not None and target.version == leaving.version:
        return _publish_registered(settings, task, target, now, why, by, "rollback", stray)
    if target is None or target.version == leaving.version:
        raise UserError(
            "a version that served before and was not rejected",
            f"version {target.version}, which serves" if target else "none",
            "Name one of those that forecastle registry list shows: --to VERSION.",
        )
    if stray is not None:
        registry.tag(settings, task, stray, dict(zip(registry.REJECTION, (iso(now), by, why), strict=True)))
    if named is None or stray is not None:  # from here on a crash leaves what it does where the alias was in step
        registry.set_alias(settings, task, "champion", leaving)
    return _publish_registered(settings, task, target, now, why, by, "rollback", leaving)


@_alone
def sync(settings: Settings, task: Task, now: datetime, by: str, why: str = "") -> Synced:
    """Bring the published pointer, and the stage tags, in step with the alias ``champion`` of the registry.

    That heals a promotion that ended halfway, and follows an alias that was moved in MLflow. Without such an alias
    nothing is moved: what serves goes on.
    """
    registry.mend_stages(settings, task)
    serving = pointer.published(settings, task)
    before = None if serving is None else serving.version
    version = registry.alias(settings, task, "champion")
    if version is None:
        return Synced(None, before, False)
    if serving is not None and serving.names(version) and pointer.is_whole(serving):
        pointer.publish(settings, task, version, serving.folder, now)  # for shared stores that lack it
        return Synced(version.version, before, False)
    if turned_down := _left_halfway(registry.versions(settings, task), serving):
        who, reason = (turned_down.tags.get(name, "") for name in registry.REJECTION[1:])
        why = why or f"{who} had begun to roll back: {reason}"
    why = why or "The registry's alias names it, and another was published."
    _publish_registered(settings, task, version, now, why, by, "sync")
    return Synced(version.version, before, True)


def _publish_registered(
    settings: Settings,
    task: Task,
    version: ModelVersion,
    now: datetime,
    why: str,
    by: str,
    action: Action,
    leaving: ModelVersion | None = None,
) -> Pointer:
    with TemporaryDirectory() as aside:
        folder = registry.download(settings, version, Path(aside) / "bundle")
        return promote(settings, task, version, folder, now, why, by, action, leaving)


def _left_halfway(known: Sequence[ModelVersion], serving: Pointer | None) -> ModelVersion | None:
    """Return the version that serves though it was turned down, as a rollback that dies leaves it."""
    return next((one for one in known if _serves(one, serving) and registry.REJECTED in one.tags), None)


def _serving(settings: Settings, task: Task) -> str:
    current = pointer.published(settings, task)
    return "" if current is None else current.version


def _serves(version: ModelVersion, serving: Pointer | None) -> bool:
    return serving is not None and serving.names(version)


def _number(text: str | None) -> float | None:
    return float(text) if text else None
