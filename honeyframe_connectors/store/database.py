"""One metadata store: reads in threads, writes grouped by one writer.

All writes that wait at the same moment go in one transaction: the cost of a commit is shared, and no timer makes a
lone write wait. Where one of them fails, the transaction is undone and each is run again alone, so a write may run
twice. Most writes are `Change`s, plain data, and the same statement of many of them is sent once. A `guard` runs first
in every transaction, once for all that share it.
"""

import asyncio
import logging
import queue
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import orjson
from sqlalchemy import Connection, Engine, Executable, Integer, create_engine, event, func, inspect, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from honeyframe_connectors.errors import Reason, Stalled, TryAgain, Waiting
from honeyframe_connectors.store.tables import SCHEMA, data_connectors

T = TypeVar("T")
logger = logging.getLogger(__name__)

BATCH = 256
MIGRATION_LOCK = 0x686F6E65
"""Key of PostgreSQL's advisory lock: two replicas that start together migrate one after the other."""
READERS = 4
SQLITE_TIMEOUT = 10.0
"""Seconds that one process waits for another's lock."""
_LOCAL_SQLSTATES = ("40", "55", "57014")
"""Deadlock, lock and statement timeout: trouble of one transaction, while the server is well."""
_POSTGRESQL_SETTINGS = {
    "application_name": "honeyframe-operator",
    "connect_timeout": 5,
    # A process that is frozen in a transaction keeps its locks: the server ends it when its cluster's row runs out.
    "options": "-c statement_timeout=30000 -c lock_timeout=10000 -c idle_in_transaction_session_timeout=15000",
    # The server's own timeouts end nothing where the network between eats every packet.
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}


class Unreachable(Waiting):
    """The store does not answer at all: no other transaction would fare better now."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.VAULT_UNAVAILABLE, message)


class Fenced(TryAgain):
    """This process may not write any more. Raised by a guard."""


class Missed(Exception):
    """A `Change` that has to meet a row met none."""


@dataclass(frozen=True, slots=True)
class Change:
    """One statement and its values. The same statement object is sent once for all that wait."""

    statement: Executable
    values: Mapping[str, Any]
    meets: bool = False
    """It has to meet exactly one row."""


class _Write:
    """What waits for the writer, a function or changes, and the loop that waits for it."""

    __slots__ = ("changes", "future", "guarded", "loop", "work")

    def __init__(
        self,
        work: Callable[[Connection], Any] | None,
        changes: Sequence[Change],
        future: "asyncio.Future[Any]",
        *,
        guarded: bool,
    ) -> None:
        self.work = work
        self.changes = changes
        self.guarded = guarded
        self.future = future
        self.loop = future.get_loop()


class Database:
    """A store on SQLite or PostgreSQL. Its URL, which may hold a password, is never shown."""

    def __init__(self, url: str) -> None:
        """Take `sqlite:///path` or `postgresql://user:password@host:port/database`; nothing is opened yet.

        Raises:
            Stalled: `InvalidConfig`, it is no such URL.
        """
        self._url = _parse(url)
        self._engine = self._create_engine()
        self._reading = self._engine.execution_options(reads=True)
        self._opened = False
        self.guard: Callable[[Connection], object] | None = None
        """Runs first in every transaction that writes; raises `Fenced` where it must not."""
        self._numbered = False
        self._waiting: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._writer: threading.Thread | None = None
        # Threads of its own: those of the loop can all be waiting for somebody's dead name server.
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="store-reader")

    def __repr__(self) -> str:
        return f"Database({self.place})"

    @property
    def place(self) -> str:
        """Where it is: no user, password or parameter, each of which can hold a secret."""
        if self.sqlite:
            return f"sqlite:///{self._url.database or ''}"
        port = f":{self._url.port}" if self._url.port else ""
        return f"postgresql://{self._url.host or ''}{port}/{self._url.database or ''}"

    @property
    def has_password(self) -> bool:
        """Whether its URL holds a password."""
        return self._url.password is not None or "password" in self._url.query

    @property
    def file(self) -> Path | None:
        """The file of a SQLite store."""
        name = self._url.database
        return Path(name) if self.sqlite and name and name != ":memory:" else None

    async def open(self, first: Callable[[Connection], object] | None = None) -> None:
        """Bring the schema up to date. May be called again after it failed, and does nothing once it worked.

        `first` runs in the same transaction, before any other write is let in and with no other process doing the
        same; where it raises, nothing is kept and the store stays closed.

        Raises:
            Waiting: `VaultUnavailable`, the store cannot be reached or used. And what `first` raises.
        """
        if self._opened:
            return
        await self._in_thread(lambda: self._migrate(first))
        self._opened = True
        if self._writer is None:
            self._writer = threading.Thread(target=self._write_all, name="store-writer", daemon=True)
            self._writer.start()

    async def close(self) -> None:
        """Finish what was begun and close the connections. It may be opened again."""
        writer, self._writer, self._opened = self._writer, None, False
        if writer is not None:
            self._waiting.put(None)
            await asyncio.to_thread(writer.join)
        self._engine.dispose()

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run a function on a connection, in a thread.

        Raises:
            Waiting: `VaultUnavailable`.
        """
        return await self._in_thread(lambda: self._run(work))

    async def write(self, work: Callable[[Connection], T], *, guarded: bool = True) -> T:
        """Run a function in a transaction that it may share with others, and commit. It may run twice.

        Cancelled before it is begun, it does not run; later, its transaction still ends as a whole. `guarded` False
        is for what the guard itself goes by.

        Raises:
            Fenced: the guard says that this process may not.
            Waiting: `VaultUnavailable`.
            Stalled: `InvalidConfig`, the store cannot hold a value.
            Exception: whatever the function raises, and nothing of it is kept.
        """
        result: T = await self._queued(work, (), guarded=guarded)
        return result

    async def new_row_id(self) -> str:
        """An id for a new connector: a UUID, or the next number where the platform made the table with numbers.

        Raises:
            Waiting: `VaultUnavailable`.
        """
        return await self.read(_next_number) if self._numbered else str(uuid.uuid4())

    async def compact(self) -> bool:
        """Write a SQLite file anew, so that nothing that was removed is left in it or its log; whether that was done.

        Raises:
            Waiting: `VaultUnavailable`, somebody else uses the file.
        """
        return self.sqlite and await self._in_thread(self._vacuum)

    async def apply(self, *changes: Change) -> None:
        """Make changes in one transaction, all or none. Their order is the store's, so none may need another's.

        Raises:
            Fenced: the guard says that this process may not.
            Missed: a change met no row; nothing is changed.
            Waiting: `VaultUnavailable`.
            Stalled: `InvalidConfig`, the store cannot hold a value.
        """
        await self._queued(None, changes, guarded=True)

    async def _queued(
        self, work: Callable[[Connection], Any] | None, changes: Sequence[Change], *, guarded: bool
    ) -> Any:
        if self._writer is None:
            raise Waiting(Reason.VAULT_UNAVAILABLE, f"the metadata store {self.place} is not open yet")
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.put(_Write(work, changes, future, guarded=guarded))
        return await future

    # --- the writer's thread ---------------------------------------------------------------------------------------

    def _write_all(self) -> None:
        while True:
            batch = [self._waiting.get()]
            with suppress(queue.Empty):
                while len(batch) < BATCH:
                    batch.append(self._waiting.get_nowait())
            writes = [write for write in batch if write is not None and not write.future.cancelled()]
            if writes:
                _resolve(self._commit(writes))
            if None in batch:
                return

    def _commit(self, writes: list[_Write]) -> list[tuple[_Write, Any, BaseException | None]]:
        if len(writes) > 1:
            with suppress(Exception):  # each is run again alone, and its error goes to whoever waits for it
                return [(write, result, None) for write, result in zip(writes, self._together(writes), strict=True)]
        results: list[tuple[_Write, Any, BaseException | None]] = []
        lost: Unreachable | None = None
        for write in writes:
            if lost is not None:  # trying each would cost the timeout of a connection for each
                results.append((write, None, Unreachable(lost.message)))
                continue
            result, error = self._alone(write)
            lost = error if isinstance(error, Unreachable) else None
            results.append((write, result, error))
        return results

    def _together(self, writes: list[_Write]) -> list[Any]:
        with self._engine.begin() as connection:
            if self.guard is not None and any(write.guarded for write in writes):
                self.guard(connection)
            results = [write.work(connection) if write.work is not None else None for write in writes]
            send(connection, [change for write in writes for change in write.changes])
            return results

    def _alone(self, write: _Write) -> tuple[Any, BaseException | None]:
        try:
            return self._guarded(lambda: self._together([write])[0]), None
        except BaseException as error:  # noqa: BLE001 - it goes to whoever waits for it, and the writer lives on
            return None, error

    # --- connections -----------------------------------------------------------------------------------------------

    async def _in_thread(self, run: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._guarded, run)

    def _run(self, work: Callable[[Connection], T]) -> T:
        with self._reading.connect() as connection:
            return work(connection)

    def _guarded(self, run: Callable[[], T]) -> T:
        try:
            return run()
        except IntegrityError:
            raise
        except DataError as error:
            raise Stalled(
                Reason.INVALID_CONFIG,
                f"the metadata store cannot hold a value ({_first_line(error.orig)}): shorten it, or take the "
                "character out",
            ) from None
        except PoolTimeoutError:
            raise Unreachable(self._unusable("all connections are taken")) from None
        except DBAPIError as error:
            message = self._unusable(_first_line(error.orig))
            state = getattr(error.orig, "sqlstate", None) or ""
            if state.startswith(_LOCAL_SQLSTATES) and not error.connection_invalidated:
                raise Waiting(Reason.VAULT_UNAVAILABLE, message) from None
            raise Unreachable(message) from None

    def _vacuum(self) -> bool:
        with self._engine.connect() as connection:
            raw: Any = connection.connection.driver_connection
            try:
                raw.execute("VACUUM")
                busy = raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            except sqlite3.OperationalError as error:
                raise Waiting(Reason.VAULT_UNAVAILABLE, self._unusable(_first_line(error))) from None
        return not busy

    def _unusable(self, cause: str) -> str:
        return (
            f"the metadata store {self.place} cannot be used ({cause}): see that it runs and that the operator may "
            "reach and change it; nothing is lost"
        )

    def _migrate(self, first: Callable[[Connection], object] | None) -> None:
        if self.sqlite and self._url.database and self._url.database != ":memory:":
            try:
                Path(self._url.database).parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise Waiting(
                    Reason.VAULT_UNAVAILABLE, f"the metadata store {self.place} cannot be made: {error.strerror}"
                ) from None
        # Not above: a third of what a command takes to start, most of which open no store.
        from alembic import command  # noqa: PLC0415
        from alembic.config import Config  # noqa: PLC0415
        from alembic.script import ScriptDirectory  # noqa: PLC0415

        with self._migrating() as connection:
            config = Config()
            config.set_main_option("script_location", "honeyframe_connectors.store:migrations")
            config.set_main_option("path_separator", "os")
            config.attributes["connection"] = connection
            known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
            if _is_newer(connection, known):
                logger.warning("the metadata store was migrated by a newer release, and is used as it is")
            else:
                command.upgrade(config, "head")
            self._numbered = _numbered(connection)
            if first is not None:
                first(connection)

    @contextmanager
    def _migrating(self) -> Iterator[Connection]:
        if not self.sqlite:
            with self._engine.begin() as connection:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
                connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
                yield connection
            return
        with self._engine.connect() as connection:
            # Batch mode makes a table anew and drops the old one, which would cascade. No effect inside a transaction.
            raw: Any = connection.connection.driver_connection
            raw.execute("PRAGMA foreign_keys=OFF")
            try:
                with connection.begin():
                    yield connection
            finally:
                raw.execute("PRAGMA foreign_keys=ON")

    @property
    def sqlite(self) -> bool:
        """Whether it is a file of SQLite."""
        return self._url.get_backend_name() == "sqlite"

    def _create_engine(self) -> Engine:
        if not self.sqlite:
            return create_engine(
                self._url,
                pool_pre_ping=True,
                pool_size=READERS + 1,
                pool_timeout=10,
                hide_parameters=True,
                json_serializer=_dumps,
                json_deserializer=orjson.loads,
                connect_args=_POSTGRESQL_SETTINGS,
            )
        engine = create_engine(
            self._url,
            hide_parameters=True,
            json_serializer=_dumps,
            json_deserializer=orjson.loads,
            connect_args={"timeout": SQLITE_TIMEOUT},
            execution_options={"schema_translate_map": {SCHEMA: None}},
        )
        event.listen(engine, "connect", _tune_sqlite)
        event.listen(engine, "begin", _begin)
        return engine


def send(connection: Connection, changes: Iterable[Change]) -> None:
    """Make changes in the transaction of a function that was given to `Database.write`.

    Raises:
        Missed: a change met no row; the transaction must not be kept.
    """
    grouped: dict[tuple[Executable, bool], list[Mapping[str, Any]]] = {}
    for change in changes:
        grouped.setdefault((change.statement, change.meets), []).append(change.values)
    for (statement, meets), values in grouped.items():
        result = connection.execute(statement, values)
        if meets and result.rowcount != len(values):
            raise Missed


def _tune_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None
    _switch_to_wal(connection)
    for pragma in ("foreign_keys=ON", "synchronous=NORMAL", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _switch_to_wal(connection: Any) -> None:
    """SQLite waits for no lock here, whatever its timeout: two that open a new file at once meet."""
    deadline = time.monotonic() + SQLITE_TIMEOUT
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _begin(connection: Connection) -> None:
    """A writer takes the lock at once: to find out at its first write that another one has it is too late to wait."""
    connection.exec_driver_sql("BEGIN" if connection.get_execution_options().get("reads") else "BEGIN IMMEDIATE")


def _parse(url: str) -> URL:
    # What the parser says of a URL that it cannot read may quote the password.
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        parsed = None
    backend = parsed.get_backend_name() if parsed is not None else ""
    if parsed is None or backend not in {"sqlite", "postgresql"} or "@" in f"{parsed.host}{parsed.database}":
        raise Stalled(
            Reason.INVALID_CONFIG,
            "the metadata store's URL cannot be read: write sqlite:///PATH or "
            "postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with special characters of the password percent-encoded",
        )
    return parsed.set(drivername="postgresql+psycopg") if backend == "postgresql" else parsed


def _dumps(value: Any) -> str:
    return orjson.dumps(value).decode()


def _first_line(error: BaseException | None) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else "no reason given"


def _is_newer(connection: Connection, known: set[str]) -> bool:
    """Whether a later release has migrated it: after a `helm rollback` an older one must work on."""
    from alembic.migration import MigrationContext  # noqa: PLC0415 - as above

    schema = None if connection.dialect.name == "sqlite" else SCHEMA
    context = MigrationContext.configure(connection, opts={"version_table_schema": schema})
    return not known.issuperset(context.get_current_heads())


def _numbered(connection: Connection) -> bool:
    schema = None if connection.dialect.name == "sqlite" else SCHEMA
    columns = inspect(connection).get_columns(data_connectors.name, schema)
    return any(column["name"] == "id" and isinstance(column["type"], Integer) for column in columns)


def _next_number(connection: Connection) -> str:
    if connection.dialect.name == "postgresql":
        sequence = text("SELECT pg_get_serial_sequence(:table, 'id')")
        name = connection.scalar(sequence, {"table": f"{SCHEMA}.{data_connectors.name}"})
        if name is not None:
            return str(connection.scalar(text("SELECT nextval(:name)"), {"name": name}))
    # Two that come to the same number meet in the table's key, and one of them tries again.
    return str(int(connection.scalar(select(func.max(data_connectors.c.id))) or 0) + 1)


def _resolve(results: list[tuple[_Write, Any, BaseException | None]]) -> None:
    """Tell the waiters: one wake-up a loop, however many of its writes were in the transaction."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any, BaseException | None]]] = {}
    for write, result, error in results:
        by_loop.setdefault(write.loop, []).append((write.future, result, error))
    for loop, told in by_loop.items():
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_tell, told)


def _tell(told: list[tuple["asyncio.Future[Any]", Any, BaseException | None]]) -> None:
    for future, result, error in told:
        if future.done():
            continue
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)
