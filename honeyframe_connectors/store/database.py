"""One metadata store: reads in threads, writes grouped by one writer.

All writes that wait at the same moment go in one transaction: the cost of a commit is shared, and no timer makes a
lone write wait. Where one of them fails, the transaction is undone and each is run again alone, so a write is a
function that may run twice.
"""

import asyncio
import logging
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from honeyframe_connectors.errors import Reason, Waiting
from honeyframe_connectors.store.tables import SCHEMA

T = TypeVar("T")
logger = logging.getLogger(__name__)

BATCH = 256
MIGRATION_LOCK = 0x686F6E65
"""Key of PostgreSQL's advisory lock: two replicas that start together migrate one after the other."""


class _Write:
    """One function that waits for the writer, and the loop that waits for it."""

    __slots__ = ("future", "loop", "work")

    def __init__(self, work: Callable[[Connection], Any], future: "asyncio.Future[Any]") -> None:
        self.work = work
        self.future = future
        self.loop = future.get_loop()


class Database:
    """A store on SQLite or PostgreSQL. Its URL, which may hold a password, is never shown."""

    def __init__(self, url: str) -> None:
        self._url = _with_driver(make_url(url))
        self._engine = self._create_engine()
        self._reading = self._engine.execution_options(reads=True)
        self._opened = False
        self._waiting: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._writer: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"Database({self.place})"

    @property
    def place(self) -> str:
        """Where it is, without the password."""
        return self._url.render_as_string(hide_password=True)

    async def open(self) -> None:
        """Bring the schema up to date. May be called again after it failed, and does nothing once it worked.

        Raises:
            Waiting: `VaultUnavailable`, the store cannot be reached or used.
        """
        if self._opened:
            return
        await asyncio.to_thread(self._guarded, self._migrate)
        self._opened = True
        if self._writer is None:
            self._writer = threading.Thread(target=self._write_all, name="store-writer", daemon=True)
            self._writer.start()

    async def close(self) -> None:
        """Finish what was begun and close the connections."""
        if self._writer is not None:
            self._waiting.put(None)
            await asyncio.to_thread(self._writer.join)
            self._writer = None
        self._opened = False
        self._engine.dispose()

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run a function on a connection, in a thread.

        Raises:
            Waiting: `VaultUnavailable`.
        """
        return await asyncio.to_thread(self._guarded, lambda: self._run(work))

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run a function in a transaction that it may share with others, and commit. It may run twice.

        Cancelled before it is begun, it does not run; later, its transaction still ends as a whole.

        Raises:
            Waiting: `VaultUnavailable`. Whatever the function raises is raised here, and nothing of it is kept.
        """
        if self._writer is None:
            raise Waiting(Reason.VAULT_UNAVAILABLE, f"the metadata store {self.place} is not open yet")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.put(_Write(work, future))
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
        return [(write, *self._alone(write)) for write in writes]

    def _together(self, writes: list[_Write]) -> list[Any]:
        with self._engine.begin() as connection:
            return [write.work(connection) for write in writes]

    def _alone(self, write: _Write) -> tuple[Any, BaseException | None]:
        def run() -> Any:
            with self._engine.begin() as connection:
                return write.work(connection)

        try:
            return self._guarded(run), None
        except Exception as error:  # noqa: BLE001 - it goes to whoever waits for it
            return None, error

    # --- connections -----------------------------------------------------------------------------------------------

    def _run(self, work: Callable[[Connection], T]) -> T:
        with self._reading.connect() as connection:
            return work(connection)

    def _guarded(self, run: Callable[[], T]) -> T:
        try:
            return run()
        except (OperationalError, InterfaceError, PoolTimeoutError) as error:
            self._unavailable(error)
        except DBAPIError as error:
            if error.connection_invalidated:
                self._unavailable(error)
            raise

    def _unavailable(self, error: SQLAlchemyError) -> NoReturn:
        cause = str(error.orig if isinstance(error, DBAPIError) else error).strip().splitlines()
        raise Waiting(
            Reason.VAULT_UNAVAILABLE,
            f"the metadata store {self.place} does not answer ({cause[0][:200] if cause else 'no reason given'}): "
            "see that it runs and that the operator may reach it; nothing is lost",
        ) from None

    def _migrate(self) -> None:
        if self._sqlite and self._url.database and self._url.database != ":memory:":
            try:
                Path(self._url.database).parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise Waiting(
                    Reason.VAULT_UNAVAILABLE, f"the metadata store {self.place} cannot be made: {error.strerror}"
                ) from None
        config = Config()
        config.set_main_option("script_location", "honeyframe_connectors.store:migrations")
        config.set_main_option("path_separator", "os")
        with self._engine.begin() as connection:
            if not self._sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
                connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    @property
    def _sqlite(self) -> bool:
        return self._url.get_backend_name() == "sqlite"

    def _create_engine(self) -> Engine:
        if not self._sqlite:
            options = "-c statement_timeout=30000 -c lock_timeout=10000"
            return create_engine(
                self._url,
                pool_pre_ping=True,
                pool_size=5,
                pool_timeout=10,
                hide_parameters=True,
                connect_args={"connect_timeout": 5, "options": options, "application_name": "honeyframe-operator"},
            )
        engine = create_engine(
            self._url,
            hide_parameters=True,
            connect_args={"timeout": 10},
            execution_options={"schema_translate_map": {SCHEMA: None}},
        )
        event.listen(engine, "connect", _tune_sqlite)
        event.listen(engine, "begin", _begin)
        return engine


def _tune_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None
    for pragma in ("foreign_keys=ON", "journal_mode=WAL", "synchronous=NORMAL", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    """A writer takes the lock at once: to find out at its first write that another one has it is too late to wait."""
    connection.exec_driver_sql("BEGIN" if connection.get_execution_options().get("reads") else "BEGIN IMMEDIATE")


def _with_driver(url: URL) -> URL:
    return url.set(drivername="postgresql+psycopg") if url.get_backend_name() == "postgresql" else url


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
