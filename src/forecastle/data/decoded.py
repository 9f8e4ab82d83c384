"""Small Parquet files, each decoded once by a process: a live pass opens the same few again and again.

A table is known by the digest of its file's bytes, so whatever else may stand in that file by now is read anew, and
what is damaged is found. Opening a file of a hundred rows takes Polars some milliseconds; looking it up takes none.
"""

from __future__ import annotations

import hashlib
from threading import Lock

import polars as pl

SMALL = 2**20  # bytes of a file; opening a larger one takes long because of its rows
MOST_OF_ONE, MOST = 4 * 2**20, 16 * 2**20  # bytes of a table, and of all that are kept: those used longest ago give way
_TABLES: dict[bytes, tuple[pl.DataFrame, int]] = {}  # those used last at the end; each with its size
_TAKEN = Lock()


def decode(content: bytes) -> pl.DataFrame:
    """Return the table that a Parquet file's bytes hold; of a small one, what was kept of it.

    Raises Polars' own errors where they hold none.
    """
    if len(content) > SMALL:
        return pl.read_parquet(content)
    key = _key(content)
    table = _found(key)
    if table is None:
        table = pl.read_parquet(content)
        _remember(key, table)
    return table


def is_kept(content: bytes) -> bool:
    """Tell whether ``decode`` need not look at a file's bytes again."""
    return len(content) <= SMALL and _key(content) in _TABLES


def keep(content: bytes, table: pl.DataFrame) -> None:
    """Keep a copy of the table that a file's bytes hold, if it is small: whoever wrote it need not read it.

    A copy, for a part of a large table would keep all of that alive.
    """
    if len(content) <= SMALL and table.estimated_size() <= MOST_OF_ONE:
        _remember(_key(content), table.select(pl.all().gather(pl.int_range(pl.len()))))


def _remember(key: bytes, table: pl.DataFrame) -> None:
    size = int(table.estimated_size())
    if size > MOST_OF_ONE:
        return
    with _TAKEN:
        _TABLES[key] = table.clone(), size
        room = MOST - sum(one for _, one in _TABLES.values())
        while room < 0:
            room += _TABLES.pop(next(iter(_TABLES)))[1]


def _found(key: bytes) -> pl.DataFrame | None:
    with _TAKEN:
        known = _TABLES.pop(key, None)
        if known is None:
            return None
        _TABLES[key] = known
        return known[0].clone()


def _key(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()
