"""Any sequence of edits, tokens, outages, crashes and restarts keeps what section "rotation" promises."""

import asyncio
import shutil
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from honeyframe_connectors.connector_type import Checkup
from honeyframe_connectors.errors import TryAgain
from honeyframe_connectors.store.database import Database
from tests.support.crash import Crash, CrashAt
from tests.support.stores import sqlite_url
from tests.support.told import NO, SILENT, Bench, Told, ToldCluster, ToldConfig, connectors_on

PASSWORDS = st.sampled_from([b"alpha", b"bravo", b"charlie"])
BULLETS = "••••••••".encode()
REFUSED_AT_LEAST = 20.0


class Server(Told):
    """A server whose role has one password, at two hosts."""

    def __init__(self, cluster: ToldCluster) -> None:
        super().__init__()
        self.cluster = cluster
        self.up = True
        self.password = "alpha"
        self.accepted: set[tuple[str, str, str]] = set()
        self.refused: list[tuple[str, str]] = []
        self.sent_by_its_holder: set[tuple[str, str]] = set()
        """Host and password of every login with a password that the Secret had at that moment."""
        self.stolen: list[tuple[str, str]] = []

    async def check(self, config: ToldConfig, checkup: Checkup) -> None:
        password = config.password.get_secret_value() if config.password else ""
        self.dialled.append((config.host, password))
        if (self.cluster.data or {}).get("password") == password.encode():
            self.sent_by_its_holder.add((config.host, password))
        elif (config.host, password) not in self.sent_by_its_holder:
            self.stolen.append((config.host, password))
        await asyncio.sleep(0)
        if not self.up or config.database == "broken":
            raise SILENT
        if password != self.password:
            self.refused.append((config.host, password))
            raise NO
        self.accepted.add((config.host, config.database, password))
        checkup.passed("authenticate")


class Life(RuleBasedStateMachine):
    """One Connector, whatever happens to it."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.cluster = ToldCluster({"password": b"alpha"})
        self.server = Server(self.cluster)
        self.held: str | None = None
        """What a rollback holds back, as far as a person can know."""
        self.rolled = False
        self.highest = 0
        """The newest version that a rollback made, as far as was looked."""
        self.saved: bytes | None = None
        self.declared_passwords = {"alpha"}
        self.declared_configs: set[tuple[str, str]] = {("h", "main")}
        self.seen: dict[int, tuple[str, str, str]] = {}
        self.refused_at: dict[tuple[str, str], float] = {}
        self.forced: set[str] = set()
        self.tokens = 0
        self.asked = False
        self.uids = 0

    @initialize()
    def start(self) -> None:
        self.database = Database(sqlite_url(Path(self.directory.name)))
        self.bench = Bench(connectors_on(self.database, self.server, self.cluster), self.server, self.cluster)
        self.load()
        self.look()

    def teardown(self) -> None:
        self.run(self.database.close())
        self.runner.close()
        self.directory.cleanup()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(coroutine)

    def load(self) -> None:
        connectors = connectors_on(self.database, self.server, self.cluster)
        connectors.clock = connectors.logins.clock = lambda: self.bench.now
        self.run(connectors.load("cluster"))
        self.bench.connectors = connectors

    # --- what people do ---

    @rule(password=PASSWORDS)
    def write_secret(self, password: bytes) -> None:
        self.cluster.put(password)
        self.declared_passwords.add(password.decode())

    @rule()
    def write_bullets(self) -> None:
        self.cluster.put(BULLETS)

    @rule()
    def delete_secret(self) -> None:
        self.cluster.put(None)

    @rule(labelled=st.booleans())
    def label(self, labelled: bool) -> None:
        self.cluster.labelled = labelled
        self.cluster.version += 1

    @rule(host=st.sampled_from(["h", "moved"]), database=st.sampled_from(["main", "other", "broken"]))
    def edit(self, host: str, database: str) -> None:
        self.bench.edit(config={"told": {"host": host, "database": database}})
        self.declared_configs.add((host, database))

    @rule(suspend=st.booleans())
    def suspend(self, suspend: bool) -> None:
        self.bench.edit(suspend=suspend)

    @rule(back=st.integers(0, 3))
    def roll_back(self, back: int) -> None:
        history = (self.bench.status.get("credentials") or {}).get("history") or [{"version": 7}]
        version = history[min(back, len(history) - 1)]["version"]
        self.tokens += 1
        self.rolled = True
        self.bench.annotate("honeyframe.io/rollback-to", f"{version}@2026-11-25T10:00:{self.tokens % 60:02}Z")
        self.asked = True

    @rule(password=PASSWORDS, back=st.integers(1, 2))
    def rotate_and_think_better_of_it(self, password: bytes, back: int) -> None:
        """A whole drill in one: the states behind a rollback that passes are rarely reached otherwise."""
        before = self.server.password
        self.server.up = True
        self.write_secret(password)
        self.server.password = password.decode()
        self.asked = True
        self.look()
        self.server.password = before
        self.roll_back(back)
        self.look()

    @rule()
    def force(self) -> None:
        pending = (self.bench.status.get("credentials") or {}).get("pending")
        if pending:
            self.bench.annotate("honeyframe.io/force-rotation", pending["id"])
            self.asked = True

    @rule()
    def ask(self) -> None:
        self.tokens += 1
        self.bench.annotate("reconcile.fluxcd.io/requestedAt", f"2026-11-25T11:00:{self.tokens % 60:02}Z")
        self.asked = True

    @rule()
    def make_again(self) -> None:
        self.uids += 1
        self.run(self.bench.connectors.gone("ns", "c", None))
        self.bench.resource = replace(
            self.bench.resource, uid=f"made-again-{self.uids}", generation=1, status={}, annotations={}
        )
        self.rolled = self.rolled or self.held is not None
        self.seen.clear()
        self.run(self.sees_versions())

    # --- what machines do ---

    @rule(up=st.booleans())
    def outage(self, up: bool) -> None:
        self.server.up = up

    @rule(password=PASSWORDS)
    def alter_role(self, password: bytes) -> None:
        self.server.password = password.decode()
        self.asked = True  # what serves may be turned away now, which lets what was refused in at once

    @rule(seconds=st.sampled_from([1, 16, 61, 301, 700, 4000]))
    def later(self, seconds: int) -> None:
        self.bench.later(seconds)

    @rule()
    def restart(self) -> None:
        self.load()

    @rule(suspension=st.integers(0, 25))
    def crash(self, suspension: int) -> None:
        async def crash() -> None:
            try:
                outcome = await CrashAt(self.bench.connectors.reconcile(self.bench.resource), suspension)
            except (Crash, TryAgain):
                return
            self.bench.resource = replace(self.bench.resource, status=outcome.status)

        self.run(crash())
        self.run(self.database.write(lambda _: None))  # what was sent to the store before the crash comes about
        self.load()
        self.asked = True

    @rule()
    def another_writes(self) -> None:
        """Another process on the same database, as while a Lease changes hands."""
        other = connectors_on(self.database, self.server, self.cluster)
        other.clock = other.logins.clock = lambda: self.bench.now
        self.run(other.load("cluster"))

        async def both() -> None:
            mine, theirs = self.bench.connectors.reconcile(self.bench.resource), other.reconcile(self.bench.resource)
            await asyncio.gather(mine, theirs, return_exceptions=True)

        self.run(both())
        self.load()  # only one goes on
        self.asked = True
        self.look()

    @rule()
    def save(self) -> None:
        self.run(self.database.close())
        self.saved = self.file.read_bytes()
        self.run(self.database.open())
        self.load()

    @precondition(lambda self: self.saved is not None)
    @rule()
    def restore(self) -> None:
        self.run(self.database.close())
        shutil.rmtree(self.file.parent)
        self.file.parent.mkdir()
        assert self.saved is not None
        self.file.write_bytes(self.saved)
        self.run(self.database.open())
        self.load()
        self.asked = self.rolled = True

    @property
    def file(self) -> Path:
        return Path(sqlite_url(Path(self.directory.name)).removeprefix("sqlite:///"))

    # --- what the operator does, and what must hold ---

    @rule()
    def look(self) -> None:
        refused_before, dialled_before = len(self.server.refused), len(self.server.dialled)
        for _ in range(10):
            try:
                found = self.run(self.bench.look())
            except TryAgain:
                continue
            if found["after"] is None or found["after"] > 0:
                break
        else:
            raise AssertionError("it never comes to rest")
        tried = self.server.refused[refused_before:]
        assert self.asked or len(tried) == len(set(tried)), "turned away twice in a moment"
        for login in tried:
            last = self.refused_at.get(login)
            assert self.asked or last is None or self.bench.now - last >= REFUSED_AT_LEAST
            self.refused_at[login] = self.bench.now
        self.holds({password for _, password in self.server.dialled[dialled_before:]})
        self.asked = False
        self.run(self.says_what_the_vault_holds())

    def holds(self, dialled: set[str]) -> None:
        """What is held back is not tried, and does not serve, until the Secret shows something else."""
        password = (self.cluster.data or {}).get("password", BULLETS)
        credentials = self.bench.status.get("credentials") or {}
        if self.rolled and not self.bench.resource.spec.get("suspend"):
            self.held, self.rolled = self.rolled_back_from(password), False
            return
        if self.held is None or self.rolled:
            return
        if self.bench.resource.spec.get("suspend") or not self.cluster.labelled or password == BULLETS:
            return
        if self.cluster.data is not None and password != self.held.encode():
            self.held = None
            return
        assert self.held not in dialled, "what is held back was tried"
        assert credentials.get("state") in ("Held", "Missing", "Revoked", None)

    def rolled_back_from(self, password: bytes) -> str | None:
        """The password that the Secret has, where a rollback has just brought back another one."""
        row, newest = self.row(), (self.bench.status.get("credentials") or {}).get("history") or [{}]
        brought_back = [each for each in newest if each.get("testStatus") == "rollback"]
        if row is None or password == BULLETS or row.handled_rollback_at != self.handled():
            return None
        if not brought_back or brought_back[0]["version"] <= self.highest:
            return self.held if row.held is not None else None
        self.highest = brought_back[0]["version"]
        version = self.run(self.bench.connectors.vault.version(row, self.highest, frozenset()))
        return password.decode() if version.secrets["password"] != password else None

    def handled(self) -> str:
        return self.bench.resource.annotations.get("honeyframe.io/rollback-to", "").partition("@")[2]

    async def says_what_the_vault_holds(self) -> None:
        row = self.row()
        if row is None:
            assert "servedVersion" not in self.bench.status
            return
        serves = row.serving_version is not None and not row.revoked
        assert self.bench.status.get("servedVersion") == (row.serving_version if serves else None)
        if not serves:
            return
        vault = self.bench.connectors.vault
        await self.sees_versions()
        version = await vault.serving(row, frozenset())
        host, database = str(version.config["host"]), str(version.config.get("database", "main"))
        password = version.secrets["password"].decode()
        (info,) = [each for each in await vault.history(row.id) if each.number == version.number]
        assert info.test_status == "failed" or (host, database, password) in self.server.accepted
        assert password in self.declared_passwords
        assert (host, database) in self.declared_configs
        shown = self.bench.credentials
        assert shown["version"] == row.serving_version
        assert (shown["state"] == "Held") == (row.held is not None) or shown["state"] == "Missing"

    async def sees_versions(self) -> None:
        """Every version that is kept opens, and no number ever stands for something else."""
        row = self.row()
        if row is None:
            return
        vault = self.bench.connectors.vault
        for info in await vault.history(row.id):
            version = await vault.version(row, info.number, frozenset())
            assert version is not None
            content = (
                str(version.config["host"]),
                str(version.config.get("database", "main")),
                version.secrets["password"].decode(),
            )
            if info.number <= (self.bench.status.get("servedVersion") or 0):
                assert self.seen.setdefault(info.number, content) == content, "a number was used twice"

    def row(self) -> Any:
        ledger = self.bench.connectors.ledger
        assert ledger is not None
        rows = [row for row in ledger.of("ns", "c") if row.deleted_at is None]
        assert len(rows) <= 1
        return rows[0] if rows else None

    @rule()
    def settle(self) -> None:
        """With time and an answering server, what is declared and works serves."""
        self.server.up = True
        for _ in range(4):
            self.bench.later(4000)
            self.asked = True
            self.look()
        data, row = self.cluster.data, self.row()
        if data is None or not self.cluster.labelled or row is None or row.revoked or row.held is not None:
            return
        if self.bench.resource.spec.get("suspend") or data["password"] == BULLETS:
            return
        if data["password"].decode() == self.server.password:
            _, password = self.run(self.bench.serving())
            assert password == self.server.password, "a working credential is held back"

    @invariant()
    def nothing_goes_elsewhere(self) -> None:
        assert self.server.stolen == [], "a stored password was sent to where its holder never sent it"


Life.TestCase.settings = settings(
    # The same examples in every run; to search for more, raise their number and take this away.
    derandomize=True,
    max_examples=25,
    stateful_step_count=40,
    deadline=None,
    phases=[Phase.reuse, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
TestLife = Life.TestCase
