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
import os
import tempfile
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from forecastle.data import formats
from forecastle.errors import StorageUnavailable
from forecastle.frame import iso, write_bytes, write_json
from forecastle.http import Answer

FORMAT = 1
GRACE = timedelta(days=1)


@dataclass(frozen=True)
class Note:
    """What one collection left: its name, when it was, the digest of the body it names, and the note's own bytes."""

    name: str
    collected_at: datetime
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Archive:
    """The answers one task has ever received, in a folder."""

    root: Path

    def save(self, answer: Answer, collected_at: datetime) -> str:
        """Store an answer and return its name; saving it again with the same time changes nothing.

        Raises StorageUnavailable where the folder refuses.
        """
        digest = hashlib.sha256(answer.body).hexdigest()
        collection = hashlib.sha256(f"{answer.url}\n{iso(collected_at)}\n{digest}".encode()).hexdigest()[:12]
        name = f"{collected_at.astimezone(UTC):%Y/%m/%d/%H%M%S}-{collection}.json"
        self._keep(digest, answer.body)
        if not (self.root / name).exists():
            note = {
                "format": FORMAT,
                "url": answer.url,
                "status": answer.status,
                "headers": answer.headers,
                "collected_at": collected_at,
                "bytes": len(answer.body),
                "sha256": digest,
            }
            write_json(self.root / name, note)
            self._keep(digest, answer.body)  # should it have been forgotten between the two
        return name

    def notes(self) -> Iterator[Note]:
        """Yield what each collection left, in order of time."""
        for path in sorted(self.root.glob("[0-9]*/*/*/*.json")):
            name = path.relative_to(self.root).as_posix()
            try:
                note = json.loads(path.read_bytes())
                at = datetime.fromisoformat(note["collected_at"])
                yield Note(name, at, str(note["sha256"]), path.stat().st_size)
            except FileNotFoundError:
                continue  # forgotten since it was listed
            except (OSError, ValueError, KeyError) as error:
                raise StorageUnavailable(
                    f"the archived answer {name} in {self.root}", str(error), "Restore the archive from its backup."
                ) from error

    def forget(self, names: Collection[str], dry_run: bool = False) -> int:
        """Remove the notes of these names and the bodies that no other note names; return how many bytes that frees.

        A body that was saved or asked for within GRACE stays until the next time.
        """
        notes = list(self.notes())
        gone = [note for note in notes if note.name in names]
        kept = {note.sha256 for note in notes if note.name not in names}
        freed = sum(note.bytes for note in gone)
        if not dry_run:
            for note in gone:
                (self.root / note.name).unlink(missing_ok=True)
        before = self._clock() - GRACE.total_seconds()
        for body in sorted(self.root.glob("bodies/*/*")):
            if body.name in kept or body.name.startswith("."):
                continue
            with suppress(FileNotFoundError):  # another process was first
                if body.stat().st_mtime < before:
                    freed += body.stat().st_size
                    if not dry_run:
                        body.unlink()
        return freed

    def _clock(self) -> float:
        """Return what the clock of the archive's disk says, which stamped its files."""
        if not self.root.is_dir():
            return 0.0
        with tempfile.NamedTemporaryFile(dir=self.root, prefix=".clock.") as file:
            return os.stat(file.name).st_mtime

    def _keep(self, digest: str, content: bytes) -> None:
        """Make sure that a body is there, and young."""
        try:
            os.utime(self._body(digest))
        except FileNotFoundError:
            write_bytes(self._body(digest), content)

    def read(self, name: str) -> bytes:
        """Return the body stored under a name, as it was received.

        Raises StorageUnavailable where it is not there, cannot be read, or is no longer what was stored.
        """
        try:
            note = json.loads((self.root / name).read_bytes())
            formats.require(int(note.get("format", 1)), FORMAT, f"the archived answer {name} in {self.root}")
            digest = str(note["sha256"])
            body = self._body(digest).read_bytes()
        except (OSError, ValueError, KeyError) as error:
            raise StorageUnavailable(
                f"the archived answer {name} in {self.root}", str(error), "Restore the archive from its backup."
            ) from error
        if hashlib.sha256(body).hexdigest() != digest:
            raise StorageUnavailable(
                f"the archived answer {name} as it was received",
                f"other bytes than its digest {digest[:12]} names",
                "Restore the archive from its backup.",
            )
        return body

    def names(self, since: datetime, until: datetime) -> list[str]:
        """Return the names of the collections from since to until (UTC, both included, to the second), in order."""
        first, last = since.astimezone(UTC), until.astimezone(UTC)
        days = [first.date() + timedelta(days=number) for number in range((last.date() - first.date()).days + 1)]
        found = [
            f"{day:%Y/%m/%d}/{path.name}"
            for day in days
            for path in (self.root / f"{day:%Y/%m/%d}").glob("[0-9]*.json")
        ]
        return sorted(name for name in found if f"{first:%Y/%m/%d/%H%M%S}" <= name[:17] <= f"{last:%Y/%m/%d/%H%M%S}")

    def note(self, name: str) -> dict[str, Any]:
        """Return the note of a name: url, status, headers, collected_at (ISO 8601), bytes, sha256.

        Raises StorageUnavailable where it is not there, cannot be read, or is no note.
        """
        try:
            note: dict[str, Any] = json.loads((self.root / name).read_bytes())
            note["sha256"]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise StorageUnavailable(
                f"the archived answer {name} in {self.root}", str(error), "Restore the archive from its backup."
            ) from error
        return note

    def _body(self, digest: str) -> Path:
        return self.root / "bodies" / digest[:2] / digest
