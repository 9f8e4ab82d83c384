"""The archive: every answer as it was received, byte for byte, stamped with the time of its collection.

    bodies/<aa>/<sha256>                        what was sent; equal answers are stored once
    <year>/<month>/<day>/<time>-<digest>.json   one note a collection: address, status, headers, time, body digest

The body is written before its note, each whole or not at all: a crash leaves at most a body that no note names.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from forecastle.errors import StorageUnavailable
from forecastle.frame import iso, write_bytes, write_json
from forecastle.http import Answer

FORMAT = 1


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
        if not self._body(digest).exists():
            write_bytes(self._body(digest), answer.body)
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
        return name

    def read(self, name: str) -> bytes:
        """Return the body stored under a name, as it was received.

        Raises StorageUnavailable where it is not there, cannot be read, or is no longer what was stored.
        """
        try:
            digest = str(json.loads((self.root / name).read_bytes())["sha256"])
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
