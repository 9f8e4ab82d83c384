"""A set of rows in immutable Parquet segments: added to whole, merged by month, read and written without a lock.

What is stored is a *set*: a row stored twice counts once, and neither the order of segments nor the way rows are spread
over them means anything. That is what makes every step safe to be killed at, to be done again, and to be done by
several processes at once, on any store (see ``store``):

- ``add`` writes one new segment, named by its content, whole or not at all;
- merging removes a segment only after others that hold all its rows are there, and each of those is *greater*: a month
  where it was a batch, or of the same kind with more rows or columns, or equal with a lesser name. So no circle of
  mergers can remove each other's last copy of a row, however late one of their requests arrives;
- ``read`` lists again after reading, and starts over where the segments changed meanwhile.

    batch-20130201T000000-20130202T230000-144-5d41402abc4b2a76.parquet     what one call of add brought
    month-20130201T000000-20130228T230000-2016-7d793037a0760186.parquet    all rows of a month, merged

Each carries its format among Parquet's own notes; one without was written before and is of the first. Code that is
older than a segment refuses to read or merge it, so that it neither misreads nor forgets; code that is newer reads it,
and merging writes the newest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from io import BytesIO

import polars as pl

from forecastle import __version__
from forecastle.data import formats
from forecastle.data.decoded import SMALL, decode, is_kept, keep
from forecastle.data.store import Store
from forecastle.errors import StorageUnavailable
from forecastle.frame import instant

MOST_BATCHES = 8  # every read opens each of them
LARGE_BATCH = 100_000  # rows: merged into its months at once
WORTH_A_MONTH = 4  # batches are merged into their months when those hold at most this many times their rows
MOST_TRIES = 100  # of a reader beside mergers; each try that fails is one of their merges
SUFFIX = ".parquet"
SECOND = timedelta(seconds=1)
NAME_TIME = "%Y%m%dT%H%M%S"
FORMAT = 1
FORMAT_NOTE, WRITER_NOTE = "forecastle_format", "forecastle"


@dataclass(frozen=True)
class Segment:
    """What a segment's name tells: its kind, the span of its rows (inclusive, whole seconds), and their number."""

    name: str
    kind: str
    first: datetime
    last: datetime
    rows: int

    def meets(self, start: datetime | None, end: datetime | None) -> bool:
        """Tell whether rows from start (inclusive) to end (exclusive) can lie in it."""
        return (start is None or self.last + SECOND > start) and (end is None or self.first < end)


@dataclass(frozen=True)
class Segments:
    """The segments directly in a store, whose rows lie in time by the column ``by`` (a UTC time, never null)."""

    store: Store
    by: str
    most_batches: int | None = None  # None: MOST_BATCHES

    def list(self, start: datetime | None = None, end: datetime | None = None) -> tuple[Segment, ...]:
        """Return the segments that can hold rows from start (inclusive) to end (exclusive), by name."""
        names = (name for name in self.store.list(below=False) if name.endswith(SUFFIX))
        segments = (_from_name(self.store.uri, name) for name in names)
        return tuple(segment for segment in segments if segment.meets(start, end))

    def read(
        self, schema: Mapping[str, pl.DataType], start: datetime | None = None, end: datetime | None = None
    ) -> pl.DataFrame:
        """Return these columns of the rows from start (inclusive) to end (exclusive), in no order, some perhaps twice.

        A column that a segment lacks is null there. Raises StorageUnavailable where a segment cannot be read.
        """
        return self.read_listed(schema, start, end)[0]

    def read_listed(
        self, schema: Mapping[str, pl.DataType], start: datetime | None = None, end: datetime | None = None
    ) -> tuple[pl.DataFrame, frozenset[Segment]]:
        """Return what ``read`` does, and the segments that held it."""
        segments, contents = self.fetch(start, end)
        return self.parse(contents, schema, start, end), frozenset(segments)

    def fetch(
        self, start: datetime | None = None, end: datetime | None = None
    ) -> tuple[tuple[Segment, ...], tuple[bytes, ...]]:
        """Return the segments that ``list`` does, all as they were at one moment, and their contents.

        Raises FormatError where one is newer than this code.
        """
        segments = self.list(start, end)
        for _ in range(MOST_TRIES):
            try:
                contents = self.store.get([segment.name for segment in segments])
            except FileNotFoundError:
                contents = None
            before, segments = segments, self.list(start, end)
            if contents is not None and before == segments:
                self._require_known(contents)
                return segments, tuple(contents)
        raise StorageUnavailable(
            f"segments of {self.store.uri} that stay while they are read",
            f"others at each of {MOST_TRIES} tries, or names without their objects",
            "Try again; if it stays so, restore the store from a backup.",
        )

    def parse(
        self,
        contents: Sequence[bytes],
        schema: Mapping[str, pl.DataType],
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> pl.DataFrame:
        """Return these columns of the rows from start to end that contents of segments hold."""
        if not contents:
            return pl.DataFrame(schema=dict(schema))
        bounds = list(self._bounds(start, end))
        try:
            if sum(map(len, contents)) <= SMALL:
                rows = pl.concat(_shaped(decode(content), schema) for content in contents)
                return rows.filter(*bounds) if bounds else rows
            found = pl.scan_parquet(
                list(contents), schema=dict(schema), missing_columns="insert", extra_columns="ignore"
            )
            return found.filter(*bounds).collect()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise _unreadable(self.store, error) from error

    def add(self, table: pl.DataFrame) -> Segment | None:
        """Add rows in one new segment and return it; None where there are no rows."""
        return None if table.is_empty() else self._write("batch", table)

    def merge_if_many(self, added: Segment | None) -> bool:
        """Merge where there are too many batches, or the one that was added is large; tell whether it was done."""
        if added is None:
            return False
        batches = sum(one.kind == "batch" for one in self.list())
        many = added.rows >= LARGE_BATCH or batches > (self.most_batches or MOST_BATCHES)
        if many:
            self.merge()
        return many

    def merge(self) -> None:
        """Make fewer segments of the same rows; where another merger is faster, leave it to that one.

        Batches join the months they touch, or only each other while they are small beside those months, so that a row
        is written again a few times and not at every merge.
        """
        self.store.sweep()
        segments = self.list()
        batches = [one for one in segments if one.kind == "batch"]
        if not batches:
            return
        try:
            self._merge(batches, [one for one in segments if one.kind == "month"])
        except FileNotFoundError:
            return

    def forget(self, before: datetime) -> None:
        """Remove the months that ended before a time."""
        for one in self.list():
            if one.kind == "month" and one.last < before:
                self.store.delete(one.name)

    def _merge(self, batches: Sequence[Segment], months: Sequence[Segment]) -> None:
        table = self._read_whole(batches)
        touched = table[self.by].dt.truncate("1mo").unique().to_list()
        near = [one for one in months if _month(one.first) in touched]
        if WORTH_A_MONTH * table.height < sum(one.rows for one in near):
            self._replace(batches, "batch", table)
            return
        for start in touched:
            old = [one for one in near if _month(one.first) == start]
            new = table.filter(pl.col(self.by).dt.truncate("1mo") == start)
            self._replace(old, "month", pl.concat([self._read_whole(old), new], how="diagonal") if old else new)
        self._remove(batches)

    def _replace(self, old: Sequence[Segment], kind: str, table: pl.DataFrame) -> None:
        """Write the rows of old segments (and perhaps more) as one, and only then remove those.

        Where one of them holds all of it already, that one stays: of several the first by name, so that two mergers
        that see them do not each remove what the other keeps.
        """
        table = table.unique(maintain_order=True)
        whole = [one for one in old if one.kind == kind and self._holds(one, table)]
        kept = whole[0] if whole else self._write(kind, table)
        self._remove(one for one in old if one != kept)

    def _holds(self, segment: Segment, table: pl.DataFrame) -> bool:
        """Tell of a segment whose rows are all in a table whether those are all rows of the table."""
        if segment.rows < table.height:
            return False
        held = self._read_whole([segment])
        return held.unique().height == table.height and set(held.columns) == set(table.columns)

    def _remove(self, segments: Iterable[Segment]) -> None:
        for one in segments:
            self.store.delete(one.name)

    def _read_whole(self, segments: Sequence[Segment]) -> pl.DataFrame:
        """Return every row of these segments with every column one of them has, so that a merge forgets nothing."""
        contents = self.store.get([one.name for one in segments])
        self._require_known(contents)
        try:
            return pl.concat([decode(content) for content in contents], how="diagonal")
        except (pl.exceptions.PolarsError, OSError) as error:
            raise _unreadable(self.store, error) from error

    def _require_known(self, contents: Sequence[bytes]) -> None:
        try:
            notes = [pl.read_parquet_metadata(BytesIO(content)) for content in contents if not is_kept(content)]
        except (pl.exceptions.PolarsError, OSError) as error:
            raise _unreadable(self.store, error) from error
        for note in notes:
            formats.require(int(note.get(FORMAT_NOTE, 1)), FORMAT, f"the segments in {self.store.uri}", note)

    def _bounds(self, start: datetime | None, end: datetime | None) -> Iterator[pl.Expr]:
        if start is not None:
            yield pl.col(self.by) >= instant(start)
        if end is not None:
            yield pl.col(self.by) < instant(end)

    def _write(self, kind: str, table: pl.DataFrame) -> Segment:
        table = table.sort(self.by, maintain_order=True)
        buffer = BytesIO()
        notes = {FORMAT_NOTE: str(FORMAT), WRITER_NOTE: __version__}
        table.write_parquet(buffer, compression="zstd", statistics=True, metadata=notes)
        content = buffer.getvalue()
        keep(content, table)
        first, last = table[self.by][0], table[self.by][-1]
        digest = hashlib.sha256(content).hexdigest()[:16]
        name = f"{kind}-{first:{NAME_TIME}}-{last:{NAME_TIME}}-{table.height}-{digest}{SUFFIX}"
        self.store.put(name, content)
        return _from_name(self.store.uri, name)


def _shaped(table: pl.DataFrame, schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """Return these columns of a table, null where it lacks one; a column of another type is an error of Polars'."""
    columns = []
    for name, kind in schema.items():
        if name not in table.columns or table.get_column(name).dtype == pl.Null:
            columns.append(pl.Series(name, [None], kind).new_from_index(0, table.height))
        elif (column := table.get_column(name)).dtype == kind:
            columns.append(column)
        else:
            raise pl.exceptions.SchemaError(f"column {name!r} of type {column.dtype}, not {kind}")
    return pl.DataFrame(columns)


@lru_cache(maxsize=4096)
def _from_name(uri: str, name: str) -> Segment:
    try:
        kind, first, last, rows, _ = name.removesuffix(SUFFIX).split("-")
        return Segment(name, kind, _moment(first), _moment(last), int(rows))
    except ValueError:
        raise StorageUnavailable(
            f"only segments written by forecastle in {uri}", name, "Move that file elsewhere."
        ) from None


def _moment(text: str) -> datetime:
    return datetime.strptime(text, NAME_TIME).replace(tzinfo=UTC)


def _month(moment: datetime) -> datetime:
    return moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _unreadable(store: Store, error: Exception) -> StorageUnavailable:
    found = str(error).splitlines()[0] if str(error) else type(error).__name__
    return StorageUnavailable(f"readable segments in {store.uri}", found, "Mend it, or restore it from a backup.")
