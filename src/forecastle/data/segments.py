"""A set of rows in immutable Parquet segments: added to whole, merged by month, read without a lock.

What is stored is a *set*: a row stored twice counts once, and neither the order of segments nor the way rows are spread
over them means anything. That is what makes every step safe to be killed at, and to be done again:

- ``add`` writes one new file, named by its content, whole or not at all;
- merging writes the merged files first and removes what they replace after, so between any two lines every row is
  there, some twice;
- ``read`` lists the folder again after reading, and starts over where a merge took files away meanwhile.

    batch-20130201T000000-20130202T230000-144-5d41402abc4b2a76.parquet     what one call of add brought
    month-20130201T000000-20130228T230000-2016-7d793037a0760186.parquet    all rows of a month, merged
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import polars as pl
from filelock import FileLock, Timeout

from forecastle.errors import StorageUnavailable
from forecastle.frame import write_bytes

LOCK_SECONDS = 60.0
MOST_BATCHES = 8  # every read opens each of them
LARGE_BATCH = 100_000  # rows: merged into its months at once
WORTH_A_MONTH = 4  # batches are merged into their months when those hold at most this many times their rows
SECOND = timedelta(seconds=1)
NAME_TIME = "%Y%m%dT%H%M%S"


@dataclass(frozen=True)
class Segment:
    """What a segment's name tells: its kind, the span of its rows (inclusive, whole seconds), and their number."""

    path: Path
    kind: str
    first: datetime
    last: datetime
    rows: int

    def meets(self, start: datetime | None, end: datetime | None) -> bool:
        """Tell whether rows from start (inclusive) to end (exclusive) can lie in it."""
        return (start is None or self.last + SECOND > start) and (end is None or self.first < end)


@dataclass(frozen=True)
class Segments:
    """A folder of segments whose rows lie in time by the column ``by`` (a UTC time, never null)."""

    root: Path
    by: str
    most_batches: int | None = None  # None: MOST_BATCHES

    def list(self, start: datetime | None = None, end: datetime | None = None) -> tuple[Segment, ...]:
        """Return the segments that can hold rows from start (inclusive) to end (exclusive), by name."""
        try:
            paths = sorted(self.root.glob("*.parquet"))
        except OSError as error:
            raise _unreadable(self.root, error) from error
        return tuple(segment for segment in map(_from_name, paths) if segment.meets(start, end))

    def read(
        self, schema: Mapping[str, pl.DataType], start: datetime | None = None, end: datetime | None = None
    ) -> pl.DataFrame:
        """Return these columns of the rows from start (inclusive) to end (exclusive), in no order, some perhaps twice.

        A column that a segment lacks is null there. Raises StorageUnavailable where a segment cannot be read.
        """
        while True:
            segments = self.list(start, end)
            try:
                contents = [segment.path.read_bytes() for segment in segments]
            except FileNotFoundError:
                continue
            except OSError as error:
                raise _unreadable(self.root, error) from error
            if segments == self.list(start, end):
                break
        if not contents:
            return pl.DataFrame(schema=dict(schema))
        rows = pl.scan_parquet(contents, schema=dict(schema), missing_columns="insert", extra_columns="ignore")
        try:
            return rows.filter(*self._bounds(start, end)).collect()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise _unreadable(self.root, error) from error

    def add(self, table: pl.DataFrame) -> None:
        """Add rows in one new segment, then merge segments if there are too many; call it only under ``locked``."""
        if table.is_empty():
            return
        added = self._write("batch", table)
        batches = sum(one.kind == "batch" for one in self.list())
        if added.rows >= LARGE_BATCH or batches > (self.most_batches or MOST_BATCHES):
            self.merge()

    def merge(self) -> None:
        """Make fewer segments of the same rows; call it only under ``locked``.

        Batches join the months they touch, or only each other while they are small beside those months, so that a row
        is written again a few times and not at every merge.
        """
        for torn in self.root.glob(".*.part"):
            torn.unlink(missing_ok=True)
        segments = self.list()
        batches = [one for one in segments if one.kind == "batch"]
        if not batches:
            return
        table = _read_whole(batches)
        touched = table[self.by].dt.truncate("1mo").unique().to_list()
        months = [one for one in segments if one.kind == "month" and _month(one.first) in touched]
        if WORTH_A_MONTH * table.height < sum(one.rows for one in months):
            self._replace(batches, "batch", table)
            return
        for start in touched:
            old = [one for one in months if _month(one.first) == start]
            new = table.filter(pl.col(self.by).dt.truncate("1mo") == start)
            self._replace(old, "month", pl.concat([_read_whole(old), new], how="diagonal") if old else new)
        for one in batches:
            one.path.unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder's write lock; it ends with the process, however that ends.

        Raises StorageUnavailable when another process holds it for a minute.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.root / ".lock", timeout=LOCK_SECONDS)
            lock.acquire()
        except Timeout as error:
            raise StorageUnavailable(
                f"to write to {self.root} within {LOCK_SECONDS:.0f} s", "another process writing", "Try again."
            ) from error
        except OSError as error:
            raise _unreadable(self.root, error) from error
        try:
            yield
        finally:
            lock.release()

    def _bounds(self, start: datetime | None, end: datetime | None) -> Iterator[pl.Expr]:
        if start is not None:
            yield pl.col(self.by) >= start
        if end is not None:
            yield pl.col(self.by) < end

    def _replace(self, old: Sequence[Segment], kind: str, table: pl.DataFrame) -> None:
        """Write the rows of old segments (and perhaps more) as one, and only then remove those."""
        written = self._write(kind, table.unique(maintain_order=True))
        for one in old:
            if one.path != written.path:
                one.path.unlink(missing_ok=True)

    def _write(self, kind: str, table: pl.DataFrame) -> Segment:
        table = table.sort(self.by, maintain_order=True)
        buffer = BytesIO()
        table.write_parquet(buffer, compression="zstd", statistics=True)
        content = buffer.getvalue()
        first, last = table[self.by][0], table[self.by][-1]
        digest = hashlib.sha256(content).hexdigest()[:16]
        name = f"{kind}-{first:{NAME_TIME}}-{last:{NAME_TIME}}-{table.height}-{digest}.parquet"
        return _from_name(write_bytes(self.root / name, content))


def _read_whole(segments: Sequence[Segment]) -> pl.DataFrame:
    """Return every row of these segments with every column that one of them has, so that a merge forgets nothing."""
    try:
        return pl.concat([pl.read_parquet(one.path.read_bytes()) for one in segments], how="diagonal")
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _unreadable(segments[0].path.parent, error) from error


@lru_cache(maxsize=4096)
def _from_name(path: Path) -> Segment:
    try:
        kind, first, last, rows, _ = path.stem.split("-")
        return Segment(path, kind, _moment(first), _moment(last), int(rows))
    except ValueError:
        raise StorageUnavailable(
            f"only segments written by forecastle in {path.parent}", path.name, "Move that file elsewhere."
        ) from None


def _moment(text: str) -> datetime:
    return datetime.strptime(text, NAME_TIME).replace(tzinfo=UTC)


def _month(moment: datetime) -> datetime:
    return moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _unreadable(root: Path, error: Exception) -> StorageUnavailable:
    found = str(error).splitlines()[0] if str(error) else type(error).__name__
    return StorageUnavailable(f"readable segments in {root}", found, "Mend the folder, or restore it from a backup.")
