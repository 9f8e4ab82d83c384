"""The alert log: ``alerts.log`` in the home folder, a line of JSON for everything that was alarmed about.

It is only ever appended to, each line in one write, so that several processes may write it and a reader may follow it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forecastle.errors import StorageUnavailable
from forecastle.frame import to_json
from forecastle.settings import Settings

NAME = "alerts.log"


def place(settings: Settings) -> Path:
    """Return where the log lies."""
    return settings.home / NAME


def append(settings: Settings, entry: Mapping[str, Any]) -> None:
    """Append a line; StorageUnavailable where it cannot be written."""
    path = place(settings)
    line = f"{to_json(dict(entry))}\n".encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, line)
            os.fsync(file)
        finally:
            os.close(file)
    except OSError as error:
        raise StorageUnavailable(
            f"to append to {path}", str(error.strerror or error), "Mend the folder's permissions or free some space."
        ) from error
