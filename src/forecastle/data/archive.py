"""The archive: every answer as it was received, byte for byte, stamped with the time of its collection.

    bodies/<aa>/<sha256>                        what was sent; equal answers are stored once
    <year>/<month>/<day>/<time>-<digest>.json   one note a collection: address, status, headers, time, body digest

The body is written before its note, each whole or not at all: a crash leaves at most a body that no note names.
Forgetting goes the other way: notes first, then the bodies that no note names any more and that nobody has just asked
for, so that a crash, or a save beside it, never leaves a note without its body.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from forecastle.data import formats
from forecastle.data.store import Place, Store, at, get_there
from forecastle.errors import StorageUnavailable
from forecastle.frame import iso, to_json
from forecastle.http import Answer

FORMAT = 1
GRACE = timedelta(days=1)
AT_ONCE = 64  # notes read together
_NOTE = re.compile(r"[0-9]{4}/.*\.json")


@dataclass(frozen=True)
class Note:
    """What one collection left: its name, when it was, the digest of the body it names, and the note's own bytes."""

    name: str
    collected_at: datetime
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Archive:
    """The answers one task has ever received, in a folder or store."""

    root: Place

    def save(self, answer: Answer, collected_at: datetime) -> str:
        """Store an answer and return its name; saving it again with the same time changes nothing.

        Raises StorageUnavailable where the store refuses.
        """
        store = at(self.root)
        digest = hashlib.sha256(answer.body).hexdigest()
        collection = hashlib.sha256(f"{answer.url}\n{iso(collected_at)}\n{digest}".encode()).hexdigest()[:12]
        name = f"{collected_at.astimezone(UTC):%Y/%m/%d/%H%M%S}-{collection}.json"
        self._keep(store, digest, answer.body)
        if not store.exists(name):
            note = {
                "format": FORMAT,
                "url": answer.url,
                "status": answer.status,
                "headers": answer.headers,
                "collected_at": collected_at,
                "bytes": len(answer.body),
                "sha256": digest,
            }
            store.put(name, f"{to_json(note, indent=2)}\n".encode())
            if not store.exists(_body(digest)):  # it may have been forgotten between the two
                store.put(_body(digest), answer.body)
        return name

    def notes(self) -> Iterator[Note]:
        """Yield what each collection left, in order of time."""
        store = at(self.root)
        names = [name for name in store.list() if _NOTE.fullmatch(name)]
        for first in range(0, len(names), AT_ONCE):
            some = names[first : first + AT_ONCE]
            for name, content in zip(some, get_there(store, some), strict=True):
                if content is not None:  # forgotten since it was listed
                    note = self._read_note(name, content)
                    collected_at = datetime.fromisoformat(note["collected_at"])
                    yield Note(name, collected_at, str(note["sha256"]), len(content))

    def forget(self, names: Collection[str], dry_run: bool = False) -> int:
        """Remove the notes of these names and the bodies that no other note names; return how many bytes that frees.

        A body that was saved or asked for within GRACE stays until the next time.
        """
        store = at(self.root)
        notes = list(self.notes())
        gone = [note for note in notes if note.name in names]
        kept = {note.sha256 for note in notes if note.name not in names}
        freed = sum(note.bytes for note in gone)
        if not dry_run:
            for note in gone:
                store.delete(note.name)
        entries = store.entries()
        before = store.clock() - GRACE.total_seconds() if entries else 0.0
        for one in entries:
            if one.name.startswith("bodies/") and one.name[-64:] not in kept and one.changed < before:
                freed += one.size
                if not dry_run:
                    store.delete(one.name)
        return freed

    def _keep(self, store: Store, digest: str, content: bytes) -> None:
        """Make sure that a body is there, and young."""
        if not store.refresh(_body(digest)):
            store.put(_body(digest), content)

    def read(self, name: str) -> bytes:
        """Return the body stored under a name, as it was received.

        Raises StorageUnavailable where it is not there, cannot be read, or is no longer what was stored.
        """
        digest = str(self.note(name)["sha256"])
        body = self._get(name, _body(digest))
        if hashlib.sha256(body).hexdigest() != digest:
            raise StorageUnavailable(
                f"the archived answer {name} as it was received",
                f"other bytes than its digest {digest[:12]} names",
                "Restore the archive from its backup.",
            )
        return body

    def holds(self, name: str) -> bool:
        """Tell whether an answer of that name is there."""
        return at(self.root).exists(name)

    def names(self, since: datetime, until: datetime) -> list[str]:
        """Return the names of the collections from since to until (UTC, both included, to the second), in order."""
        first, last = since.astimezone(UTC), until.astimezone(UTC)
        days = [first.date() + timedelta(days=number) for number in range((last.date() - first.date()).days + 1)]
        found = [
            f"{day:%Y/%m/%d}/{name}"
            for day in days
            for name in (at(self.root) / f"{day:%Y/%m/%d}").list()
            if name.endswith(".json")
        ]
        return sorted(name for name in found if f"{first:%Y/%m/%d/%H%M%S}" <= name[:17] <= f"{last:%Y/%m/%d/%H%M%S}")

    def note(self, name: str) -> dict[str, Any]:
        """Return the note of a name: url, status, headers, collected_at (ISO 8601), bytes, sha256.

        Raises StorageUnavailable where it is not there, cannot be read, or is no note.
        """
        return self._read_note(name, self._get(name, name))

    def _read_note(self, name: str, content: bytes) -> dict[str, Any]:
        try:
            note: dict[str, Any] = json.loads(content)
            formats.require(int(note.get("format", 1)), FORMAT, f"the archived answer {name} in {at(self.root).uri}")
            note["sha256"], note["collected_at"]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise self._lost(name, f"no note of it ({error})") from error
        return note

    def _get(self, name: str, part: str) -> bytes:
        try:
            return at(self.root).get([part])[0]
        except FileNotFoundError as error:
            raise self._lost(name, f"nothing at {part}") from error

    def _lost(self, name: str, found: str) -> StorageUnavailable:
        action = "Restore the archive from its backup."
        return StorageUnavailable(f"the archived answer {name} in {at(self.root).uri}", found, action)


def _body(digest: str) -> str:
    return f"bodies/{digest[:2]}/{digest}"
