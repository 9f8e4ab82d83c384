"""The journal: every forecast, its outcome, every incident and sign of life, in one transactional database.

    forecasts    one row a forecast; ``state`` is waiting, scored or never_came
    outcomes     one row a scored forecast: the forecast beside what came true
    predictions  one row for each series a request was answered about, with its forecasts; see ``predictions``
    heads        the newest origin of each series, so that "the current forecasts" is one look-up
    incidents    what went wrong, from when to when; one open incident a task and kind; incident_steps: what was done
    samples      what monitoring measured lately, for rules that look at a stretch of time
    heartbeats   when each kind of work last succeeded, and how often it did
    signs_of_life  every quarter of a minute in which the service was there; see ``uptime``

The database is SQLite (write-ahead log) or PostgreSQL, told apart by the URL alone. Every write is one transaction
and idempotent: whatever is retried, a forecast is recorded once and scored once; a revised truth scores it again and is
told as such.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property
from typing import Any, Self

import polars as pl
import sqlalchemy as sql
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DatabaseError, DataError, IntegrityError, InterfaceError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from forecastle.errors import StorageUnavailable
from forecastle.frame import EPOCH
from forecastle.models.untrained import UNTRAINED
from forecastle.monitoring.migrations import open_schema
from forecastle.monitoring.records import ALL, BEATS, CLOSE, OF_TASK, OPEN
from forecastle.monitoring.records import Heartbeat as Heartbeat, Incident as Incident, IncidentStep as IncidentStep
from forecastle.monitoring.rows import FORECAST as FORECAST, OUTCOME as OUTCOME, PROVENANCE
from forecastle.monitoring.rows import as_rows, as_table, columns_of, identified, statement, statements
from forecastle.monitoring.tables import (
    FORECASTS,
    HEADS,
    HEARTBEATS,
    INCIDENT_STEPS,
    INCIDENTS,
    OUTCOMES,
    PREDICTIONS,
    make_engine,
)
from forecastle.monitoring.tallies import FORGOTTEN as FORGOTTEN, LATEST_TRUTH, Tallies

FIGURES = ("series_id", "horizon", "value", "lower", "upper", "last", "actual", "model_version")

OPENED, CLOSED = "opened", "closed"  # the first and the last step of every incident

RESCORED = "state:rescored"  # the heartbeat that counts, never mind when, outcomes whose truth was revised

PENDING = "alert:"  # heartbeats of this prefix remember since when a rule's condition holds


class Journal:
    """Keep forecasts, outcomes, incidents and heartbeats in the database at a SQLAlchemy URL.

    The tables are made where there are none; FormatError where they are of another version (see ``migrations``). Every
    method takes the *name* of a task, times with a zone, and raises StorageUnavailable where the database does not
    answer. One Journal may be shared by threads, not by forks.
    """

    def __init__(self, url: str) -> None:
        self.engine = make_engine(url)
        self._tallies = Tallies()
        with self._faults():
            open_schema(self.engine)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the database's connections."""
        self.engine.dispose()

    def record(self, forecasts: pl.DataFrame) -> int:
        """Record forecasts, all or none, and return how many were new.

        The table holds the columns of FORECAST (``forecast_id`` is computed here; NaN counts as missing) and may hold
        those of PROVENANCE. A forecast that is there already (all of IDENTITY is the same) stays as it was issued.
        """
        if forecasts.is_empty():
            return 0
        unsaid = [
            pl.lit(None, dtype).alias(name) for name, dtype in PROVENANCE.items() if name not in forecasts.columns
        ]
        forecasts = forecasts.with_columns(unsaid).with_columns(pl.col("feature_digest").fill_null(""))
        schema = FORECAST | PROVENANCE
        rows = identified(forecasts).select(pl.col(name).cast(dtype) for name, dtype in schema.items())
        heads = rows.group_by("task", "series_id").agg(pl.col("origin").max())
        with self.transaction() as connection:
            new = self._insert_forecasts(connection, rows.with_columns(pl.lit("waiting").alias("state")))
            upsert = self.insert(HEADS)
            newer = upsert.on_conflict_do_update(
                index_elements=["task", "series_id"],
                set_={"origin": upsert.excluded.origin},
                where=upsert.excluded.origin > HEADS.c.origin,
            )
            connection.execute(newer, heads.rows(named=True))
        return new

    def due(self, task: str, now: datetime) -> pl.DataFrame:
        """Return the forecasts without an outcome whose time has come, oldest first.

        One whose truth was counted as never come is among them for LATEST_TRUTH: ``score`` takes a late truth too.
        """
        due = (FORECASTS.c.task == task) & (FORECASTS.c.timestamp <= now)
        waiting = due & (FORECASTS.c.state == "waiting")
        lost = due & (FORECASTS.c.state == "never_came") & (FORECASTS.c.timestamp >= now - LATEST_TRUTH)
        return self._select(FORECASTS, FORECAST, waiting | lost)

    def score(self, outcomes: pl.DataFrame) -> int:
        """Record outcomes (the columns of OUTCOME), all or none, and return how many forecasts they scored.

        A forecast that is scored already stays as it was scored (see ``rescore``); one given up is scored after all.
        """
        if outcomes.is_empty():
            return 0
        with self.transaction() as connection:
            given_up = self._given_up(connection, outcomes)
            new = self._insert_new(connection, OUTCOMES, as_rows(outcomes, OUTCOME))
            late = Counter(given_up[one] for one in new if one in given_up)
            for task, times in late.items():
                self._beat(connection, task, f"{FORGOTTEN}never_came", EPOCH, "", times)
            if new:
                mark = sql.update(FORECASTS).where(FORECASTS.c.forecast_id == sql.bindparam("scored"))
                connection.execute(mark.values(state="scored"), [{"scored": one} for one in new])
        return len(new)

    def rescore(self, outcomes: pl.DataFrame) -> int:
        """Score again what is scored already, where the truth has been revised since; return how many that were.

        ``outcomes`` is what ``outcomes.score`` makes of them now. Each keeps when it was scored and the truth it was
        first scored by (``first_actual``), and counts its ``revisions``.
        """
        other: Any = sql.bindparam("truth")
        changed = (
            sql.update(OUTCOMES)
            .where((OUTCOMES.c.forecast_id == sql.bindparam("scored")) & (OUTCOMES.c.actual != other))
            .values(
                actual=other,
                revisions=OUTCOMES.c.revisions + 1,
                first_actual=sql.func.coalesce(OUTCOMES.c.first_actual, OUTCOMES.c.actual),
            )
            .returning(OUTCOMES.c.task)
        )
        with self.transaction() as connection:
            revised = Counter(
                task
                for one, truth in outcomes.select("forecast_id", "actual").iter_rows()
                for task in connection.execute(changed, {"scored": one, "truth": truth}).scalars()
            )
            for task, times in revised.items():
                self._beat(connection, task, RESCORED, EPOCH, "", times)
        return revised.total()

    def revised(self, task: str) -> int:
        """Return how many outcomes were scored again because their truth was revised."""
        query = sql.select(sql.func.count()).where((OUTCOMES.c.task == task) & (OUTCOMES.c.revisions > 0))
        with self.transaction() as connection:
            return int(connection.execute(query).scalar_one())

    def give_up(self, task: str, before: datetime) -> int:
        """Count as never come what still waits for a truth from before that time; return how many that were."""
        lost = (FORECASTS.c.task == task) & (FORECASTS.c.state == "waiting") & (FORECASTS.c.timestamp < before)
        with self.transaction() as connection:
            return connection.execute(sql.update(FORECASTS).where(lost).values(state="never_came")).rowcount

    def latest(self, task: str) -> pl.DataFrame:
        """Return the current forecasts: of each series' newest origin one row a horizon, the last issued of each."""
        heads = sql.select(HEADS.c.series_id, HEADS.c.origin).where(HEADS.c.task == task)
        at_head = sql.tuple_(FORECASTS.c.series_id, FORECASTS.c.origin).in_(heads)  # a join would scan every forecast
        query = sql.select(*columns_of(FORECASTS, FORECAST)).where((FORECASTS.c.task == task) & at_head)
        rows = self._read(query, FORECAST).sort("series_id", "horizon", "issued_at", "forecast_id")
        return rows.unique(["series_id", "horizon"], keep="last", maintain_order=True)

    def forecasts(self, task: str, since: datetime | None = None) -> pl.DataFrame:
        """Return the task's forecasts for ``since`` and later, in order of time, series and horizon."""
        return self._select(FORECASTS, FORECAST, _of(FORECASTS, task, since))

    def outcomes(
        self, task: str, since: datetime | None = None, columns: Sequence[str] = tuple(OUTCOME)
    ) -> pl.DataFrame:
        """Return the task's outcomes for ``since`` and later, in order of time, series and horizon.

        With FIGURES as ``columns`` it reads what scores are made of, several times faster than everything.
        """
        return self._select(OUTCOMES, {name: OUTCOME[name] for name in columns}, _of(OUTCOMES, task, since))

    def forget(self, task: str, before: datetime, kept: Collection[str], dry_run: bool = False) -> dict[str, int]:
        """Remove what is over and done since before a time: forecasts scored or given up, their outcomes, incidents
        closed, predictions on request; return how many of each.

        The forecasts and outcomes of the model versions in ``kept`` stay, whose intervals follow them; so do those that
        wait for their truth, and the current ones of every series.
        """
        heads = sql.select(HEADS.c.series_id, HEADS.c.origin).where(HEADS.c.task == task)
        over = (
            (FORECASTS.c.task == task)
            & (FORECASTS.c.timestamp < before)
            & (FORECASTS.c.state != "waiting")
            & FORECASTS.c.model_version.not_in(sorted(kept))
            & sql.tuple_(FORECASTS.c.series_id, FORECASTS.c.origin).not_in(heads)
        )
        closed = (INCIDENTS.c.task == task) & (INCIDENTS.c.closed_at < before)
        asked = (PREDICTIONS.c.task == task) & (PREDICTIONS.c.issued_at < before)
        where = {
            OUTCOMES: OUTCOMES.c.forecast_id.in_(sql.select(FORECASTS.c.forecast_id).where(over)),
            FORECASTS: over,
            INCIDENTS: closed,
            PREDICTIONS: asked,
        }
        with self.transaction() as connection:
            if dry_run:
                counts = {one: sql.select(sql.func.count()).select_from(one).where(what) for one, what in where.items()}
                return {one.name: int(connection.execute(count).scalar_one()) for one, count in counts.items()}
            number = sql.func.count()
            of_forecasts, of_outcomes = (sql.select(number).select_from(one) for one in (FORECASTS, OUTCOMES))
            gone = {
                "predictions": of_forecasts.where(over & (FORECASTS.c.horizon == 1)),
                "never_came": of_forecasts.where(over & (FORECASTS.c.state == "never_came")),
                "revised": of_outcomes.where(where[OUTCOMES] & (OUTCOMES.c.revisions > 0)),
            }
            lost = {name: int(connection.execute(query).scalar_one()) for name, query in gone.items()}
            removed = {one: connection.execute(sql.delete(one).where(what)).rowcount for one, what in where.items()}
            lost |= {"scored": removed[OUTCOMES], "predictions": lost["predictions"] + removed[PREDICTIONS]}
            for name, times in lost.items():
                if times:
                    self._beat(connection, task, FORGOTTEN + name, before, "", times)
            return {one.name: count for one, count in removed.items()}

    def counts(self, task: str) -> dict[str, int]:
        """Return how many forecasts wait for their outcome, were scored, and never saw their truth come."""
        ours, number = FORECASTS.c.task == task, sql.func.count()
        # each counted along an index: to group by the state would read every forecast there is
        parts = [sql.select(number).where(ours & (FORECASTS.c.state == state)) for state in ("waiting", "never_came")]
        query = sql.select(*(one.scalar_subquery() for one in (*parts, sql.select(number).where(ours))))
        with self.transaction() as connection:
            waiting, lost, every = connection.execute(query).one()
        return {"waiting": waiting, "scored": every - waiting - lost, "never_came": lost}

    def find(self, task: str, prefix: str, limit: int = 2) -> pl.DataFrame:
        """Return the task's forecasts whose id begins with these hexadecimal digits, at most so many."""
        beyond = f"{prefix}g"  # sorts after every digit, so that the index answers
        ours = (FORECASTS.c.task == task) & (FORECASTS.c.forecast_id >= prefix) & (FORECASTS.c.forecast_id < beyond)
        found = FORECAST | PROVENANCE
        query = sql.select(*columns_of(FORECASTS, found)).where(ours).order_by(FORECASTS.c.forecast_id)
        return self._read(query.limit(limit), found)

    def waiting_models(self, task: str) -> tuple[tuple[str, str], ...]:
        """Return model version and data version of the forecasts of a model that still wait for their outcome."""
        query = sql.select(FORECASTS.c.model_version, FORECASTS.c.data_version).distinct()
        of_models = (FORECASTS.c.task == task) & (FORECASTS.c.data_version != "")  # a stand-in learnt from no table
        waiting = query.where(of_models & (FORECASTS.c.state == "waiting"))
        with self.transaction() as connection:
            return tuple(sorted((row[0], row[1]) for row in connection.execute(waiting)))

    def revision(self, task: str) -> tuple[Any, ...]:
        """Return a value that differs after any of the task's forecasts, outcomes or incidents changed.

        Each of its look-ups is answered by an index, so it may be asked for every second.
        """

        def of(table: sql.Table, *what: Any, where: Any = True) -> list[sql.ScalarSelect[Any]]:
            return [sql.select(one).where((table.c.task == task) & where).scalar_subquery() for one in what]

        # what a revised truth changes shows in no time and no number of rows
        query = sql.select(
            *of(HEARTBEATS, HEARTBEATS.c.count, where=HEARTBEATS.c.work == RESCORED),
            *of(FORECASTS, sql.func.max(FORECASTS.c.issued_at), where=FORECASTS.c.horizon == 1),
            *of(FORECASTS, sql.func.count(), where=FORECASTS.c.state == "waiting"),
            *of(FORECASTS, sql.func.count(), where=FORECASTS.c.state == "never_came"),
            *of(HEADS, sql.func.count(), sql.func.max(HEADS.c.origin)),
            *of(OUTCOMES, sql.func.max(OUTCOMES.c.timestamp)),
            *of(INCIDENTS, sql.func.count(), sql.func.max(INCIDENTS.c.closed_at)),
        )
        with self.transaction() as connection:
            return tuple(connection.execute(query).one())

    def tally(self, task: str, model_version: str, now: datetime, coverage: float) -> dict[tuple[str, int], float]:
        """Return, by series and horizon, how far outcomes have moved a model's intervals, which promise a coverage;
        horizon 0 is the series itself.

        Only outcomes scored by ``now`` count, so that a past is replayed as it was; they do as ``intervals.follow``
        says, in the order of their times. What is settled is counted once by a process.
        """
        with self.transaction() as connection:
            return self._tallies.tally(connection, task, model_version, now, coverage)

    def predictions(self, task: str) -> int:
        """Return how many predictions (a series at an origin) were ever recorded, live and on request."""
        count = sql.func.count()
        live = sql.select(count).where((FORECASTS.c.task == task) & (FORECASTS.c.horizon == 1)).scalar_subquery()
        asked = sql.select(count).where(PREDICTIONS.c.task == task).scalar_subquery()
        with self.transaction() as connection:
            return int(connection.execute(sql.select(live + asked)).scalar_one())

    def record_predictions(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Record what requests were answered, all or none: the columns of PREDICTIONS; one that is there stays."""
        if not rows:
            return
        insert = self.insert(PREDICTIONS).on_conflict_do_nothing(index_elements=["prediction_id"])
        with self.transaction() as connection:
            for text, values in statements(insert, self.engine.dialect, rows):
                connection.exec_driver_sql(text, values)

    def drift_flags(self, task: str, limit: int, now: datetime) -> tuple[bool, ...]:
        """Return whether each of the newest predictions (a series at an origin) had drifted features, newest first.

        Those made live and those made on request count alike, if issued by ``now``, and only those of the model that
        made the newest: another model's were held against another Reference.
        """
        found: list[tuple[Any, bool, str]] = []
        with self.transaction() as connection:
            for table, key in ((FORECASTS, FORECASTS.c.forecast_id), (PREDICTIONS, PREDICTIONS.c.prediction_id)):
                issued = (table.c.task == task) & (table.c.issued_at <= now) & (table.c.model_version != UNTRAINED)
                issued &= (table.c.horizon == 1) if table is FORECASTS else sql.true()
                moment = sql.type_coerce(table.c.issued_at, sql.types.NullType)  # compared only
                query = sql.select(moment, table.c.drifted, table.c.model_version).where(issued)
                newest = query.order_by(table.c.issued_at.desc(), key).limit(limit)
                found += [(at, drifted, model) for at, drifted, model in connection.execute(newest)]
        found.sort(key=lambda one: one[0], reverse=True)
        return tuple(drifted for _, drifted, model in found[:limit] if model == found[0][2])

    def open_incident(self, task: str, kind: str, reason: str, now: datetime) -> bool:
        """Open an incident; return False where one of this task and kind is open already (it stays as it is)."""
        row = {"task": task, "kind": kind, "reason": reason, "opened_at": now, "note": ""}
        insert = self.insert(INCIDENTS).on_conflict_do_nothing(
            index_elements=["task", "kind"], index_where=INCIDENTS.c.closed_at.is_(None)
        )
        with self.transaction() as connection:
            number = connection.execute(insert.returning(INCIDENTS.c.number), [row]).scalar()
            if number is not None:
                _note(connection, number, OPENED, reason, now)
        return number is not None

    def close_incident(self, task: str, kind: str, now: datetime, note: str = "") -> bool:
        """Close the open incident of this task and kind; return False where there is none, or one opened later: what
        works as of the past says nothing of it."""
        with self.transaction() as connection:
            number = connection.execute(CLOSE, {"of": task, "such": kind, "now": now, "said": note}).scalar()
            if number is not None:
                _note(connection, number, CLOSED, note, now)
        return number is not None

    def note_step(self, number: int, what: str, detail: str, now: datetime) -> None:
        """Note a step of an incident: what was done about it, and what is to be said of that."""
        with self.transaction() as connection:
            _note(connection, number, what, detail, now)

    def incident_steps(self, numbers: Collection[int]) -> dict[int, tuple[IncidentStep, ...]]:
        """Return the steps of these incidents in their order, by the incident's number."""
        ours = INCIDENT_STEPS.c.number.in_(sorted(numbers))
        query = sql.select(*(INCIDENT_STEPS.c[name] for name in ("number", "at", "what", "detail"))).where(ours)
        found: dict[int, tuple[IncidentStep, ...]] = dict.fromkeys(numbers, ())
        with self.transaction() as connection:
            for number, *step in connection.execute(query.order_by(INCIDENT_STEPS.c.step)):
                found[number] += (IncidentStep(*step),)
        return found

    def incidents(self, task: str | None = None, open_only: bool = False) -> tuple[Incident, ...]:
        """Return incidents in the order they were opened, of one task or of all."""
        query = OPEN if open_only else ALL
        if task is not None:
            query = query.where(OF_TASK)
        with self.transaction() as connection:
            rows = connection.execute(query, {} if task is None else {"of": task}).all()
        return tuple(Incident(*row) for row in rows)

    def beat(self, task: str, work: str, now: datetime, detail: str = "") -> None:
        """Note that a kind of work (a step's name, or for the gate ``gate:pass``) succeeded just now."""
        with self.transaction() as connection:
            self._beat(connection, task, work, now, detail, 1)

    def heartbeats(self, task: str) -> dict[str, Heartbeat]:
        """Return the task's heartbeats by kind of work."""
        with self.transaction() as connection:
            rows = connection.execute(BEATS, {"of": task}).all()
        return {row.work: Heartbeat(*row) for row in rows}

    def _select(self, table: sql.Table, schema: Mapping[str, pl.DataType], where: Any) -> pl.DataFrame:
        order = (table.c.timestamp, table.c.series_id, table.c.horizon, table.c.origin, table.c.forecast_id)
        return self._read(sql.select(*columns_of(table, schema)).where(where).order_by(*order), schema)

    def _read(self, query: sql.Select[Any], schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
        with self.transaction() as connection:
            rows = connection.execute(query).all()
        return as_table(schema, rows)

    def insert(self, table: sql.Table) -> Any:
        """Return the dialect's insert, the one that knows ``on_conflict``."""
        return (postgresql if self.engine.dialect.name == "postgresql" else sqlite).insert(table)

    def _beat(self, connection: sql.Connection, task: str, work: str, now: datetime, detail: str, times: int) -> None:
        """Count what was done so many times more; what was done as of the past does not become the newest of it."""
        row = {"task": task, "work": work, "at": now, "count": times, "detail": detail}
        connection.execute(self._once_more, [row])

    @cached_property
    def _once_more(self) -> Any:
        insert = self.insert(HEARTBEATS)
        newer = insert.excluded.at >= HEARTBEATS.c.at
        return insert.on_conflict_do_update(
            index_elements=["task", "work"],
            set_={
                "at": sql.case((newer, insert.excluded.at), else_=HEARTBEATS.c.at),
                "detail": sql.case((newer, insert.excluded.detail), else_=HEARTBEATS.c.detail),
                "count": HEARTBEATS.c.count + insert.excluded.count,
            },
        )

    def _given_up(self, connection: sql.Connection, outcomes: pl.DataFrame) -> dict[str, str]:
        """Return the tasks of forecasts that were given up, by their ids: of the time and tasks of these outcomes."""
        within = FORECASTS.c.timestamp.between(outcomes["timestamp"].min(), outcomes["timestamp"].max())
        lost = FORECASTS.c.task.in_(outcomes["task"].unique().to_list()) & (FORECASTS.c.state == "never_came")
        query = sql.select(FORECASTS.c.forecast_id, FORECASTS.c.task).where(lost & within)
        return {row[0]: row[1] for row in connection.execute(query)}

    def _insert_forecasts(self, connection: sql.Connection, forecasts: pl.DataFrame) -> int:
        """Insert those that are not there yet and return how many: as the driver takes them, many at a time."""
        insert = self.insert(FORECASTS).on_conflict_do_nothing(index_elements=["forecast_id"])
        return connection.exec_driver_sql(*statement(insert, self.engine.dialect, forecasts)).rowcount

    def _insert_new(self, connection: sql.Connection, table: sql.Table, rows: Sequence[dict[str, Any]]) -> list[str]:
        """Insert the rows that are not there yet and return their ids."""
        insert = self.insert(table).on_conflict_do_nothing(index_elements=["forecast_id"])
        return list(connection.execute(insert.returning(table.c.forecast_id), rows).scalars())

    @contextmanager
    def transaction(self) -> Iterator[sql.Connection]:
        """Give a connection whose changes are all kept or none; a database that does not answer is told as such."""
        with self._faults(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except (IntegrityError, DataError, ProgrammingError):
            raise  # a mistake of ours, not a fault of the database: nothing to wait for
        except (DatabaseError, InterfaceError, PoolTimeout) as error:
            raise StorageUnavailable(
                f"the journal at {self.engine.url.render_as_string(hide_password=True)} to answer",
                str(getattr(error, "orig", None) or error).strip() or type(error).__name__,
                "Check the database, then run the same command again.",
            ) from error


def _note(connection: sql.Connection, number: int, what: str, detail: str, now: datetime) -> None:
    connection.execute(sql.insert(INCIDENT_STEPS).values(number=number, at=now, what=what, detail=detail))


def _of(table: sql.Table, task: str, since: datetime | None) -> Any:
    return table.c.task == task if since is None else (table.c.task == task) & (table.c.timestamp >= since)
