"""Every task's archive and history in a bucket: copied into a backup, put back, moved aside.

What lies there is named ``<task>/history/…`` and ``<task>/archive/…``, as in a folder that FORECASTLE_STORES names, and
it is so in a backup too: a backup of a bucket can be restored to a folder, and one of a folder to a bucket.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from forecastle.data.store import AT_ONCE, Store, get_there

KINDS = ("history", "archive")


def names(place: Store, kind: str = "") -> list[str]:
    """Return the names of all tasks' objects of a kind ("history", "archive"; "": both).

    What else lies there, and what was moved aside, is left out.
    """
    kinds = (kind,) if kind else KINDS
    return [name for name in place.list() if _kind(name) in kinds]


def copy_out(place: Store, kind: str, to: Path) -> list[str]:
    """Copy all tasks' objects of a kind into a folder, looking again until there is nothing new; return their names.

    What a merge takes away meanwhile is left out: what it wrote instead was there before, and the next look finds it.
    """
    found: list[str] = []
    seen: set[str] = set()
    while new := [name for name in names(place, kind) if name not in seen]:
        for some in _parts(new):
            for name, content in zip(some, get_there(place, some), strict=True):
                if content is not None:
                    (to / name).parent.mkdir(parents=True, exist_ok=True)
                    (to / name).write_bytes(content)
                    found.append(name)
        seen.update(new)
    return found


def put_in(place: Store, folder: Path) -> None:
    """Put every file of a folder into a bucket, under its name from there."""
    files = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda name: place.put(name, (folder / name).read_bytes()), files))


def move_aside(place: Store, under: str) -> None:
    """Move all tasks' objects below a name of their own: each is copied there before it goes."""
    for some in _parts(names(place)):
        for name, content in zip(some, get_there(place, some), strict=True):
            if content is not None:
                (place / under).put(name, content)
                place.delete(name)


def _kind(name: str) -> str:
    """Return the kind of an object by its name, and "" for what is of no task's archive or history."""
    task, _, rest = name.partition("/")
    kind, mark, last = rest.partition("/")
    return kind if mark and not task.startswith(".") and not last.startswith(".") else ""


def _parts(of: Sequence[str]) -> Iterator[Sequence[str]]:
    yield from (of[first : first + AT_ONCE] for first in range(0, len(of), AT_ONCE))
