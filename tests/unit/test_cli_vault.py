"""`honeyframe vault`: exit codes, what is said, and that no secret is."""

import asyncio
import json
import os
import pty
import secrets
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from sqlalchemy import update
from typer.testing import CliRunner

from honeyframe_connectors.cli.__main__ import app
from honeyframe_connectors.store.database import Database
from honeyframe_connectors.store.tables import data_connectors
from honeyframe_connectors.vault.keyring import Keyring
from honeyframe_connectors.vault.vault import Vault
from tests.support.stores import PASSWORD, accept, make, opened

OLD, NEW = secrets.token_hex(32), secrets.token_hex(32)
SECRET = "planted-Passw0rd"


class Pod:
    """The files and variables that the operator's pod has."""

    def __init__(self, url: str, directory: Path) -> None:
        self.url, self.directory = url, directory
        self.env = {"HONEYFRAME_DATABASE_FILE": str(self.file("url", url + "\n")), "COLUMNS": "200"}
        self.given(OLD)

    def file(self, name: str, content: str) -> Path:
        path = self.directory / name
        path.write_text(content)
        return path

    def given(self, active: str, *older: str) -> None:
        self.env["HONEYFRAME_SECRET_FILE"] = str(self.file("active", active + "\n"))
        files = [str(self.file(f"older-{number}", each)) for number, each in enumerate(older)]
        self.env["HONEYFRAME_OLDER_SECRET_FILES"] = ", ".join(files)

    def run(self, *arguments: str, typed: str | None = None) -> tuple[int, str, str]:
        result = CliRunner().invoke(app, ["vault", *arguments], env=self.env, input=typed)
        for secret in (OLD, NEW, SECRET, PASSWORD, "store%2Fp"):
            assert secret not in result.output
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.stdout, result.stderr

    def with_vault(self, work: Callable[[Database, Vault], Awaitable[None]]) -> None:
        async def run() -> None:
            async with opened(self.url, Keyring(OLD.encode())) as (database, vault):
                await work(database, vault)

        asyncio.run(run())


async def three(_: Database, vault: Vault) -> None:
    for name in ("a", "b", "c"):
        await accept(vault, await make(vault, name), {"password": SECRET.encode()})


@pytest.fixture
def pod(url: str, tmp_path: Path) -> Pod:
    found = Pod(url, tmp_path)
    found.with_vault(three)
    return found


async def tamper(database: Database, _: Vault) -> None:
    change = update(data_connectors).where(data_connectors.c.name == "b").values(row_mac="0" * 64)
    await database.write(lambda connection: connection.execute(change))


def test_rewrap(pod: Pod) -> None:
    pod.given(NEW, OLD)
    code, out, err = pod.run("rewrap")
    assert (code, out, err) == (0, "3 connectors were wrapped anew, 0 are not under the newest secret\n", "")
    code, out, _ = pod.run("rewrap", "-o", "json", "--forget-older")
    answer = json.loads(out)
    assert (code, answer["done"], answer["left"], answer["failed"], len(answer["forgotten"])) == (0, 0, 0, [], 1)
    pod.given(OLD)
    code, _, err = pod.run("rewrap")
    assert (code, "--older-secret-files" in err, "vault reset" in err) == (1, True, True)


def test_rewrap_names_what_is_left(pod: Pod) -> None:
    pod.with_vault(tamper)
    pod.given(NEW, OLD)
    code, out, err = pod.run("rewrap", "-o", "json")
    (failed,) = json.loads(out)["failed"]
    assert (code, failed["namespace"], failed["name"]) == (1, "analytics", "b")
    assert f"analytics/b (row {failed['connectorId']}): it does not open" in err


def test_rekey_tells_what_to_rotate(pod: Pod) -> None:
    pod.given(NEW, OLD)
    code, out, err = pod.run("rekey")
    assert code == 0
    assert "3 connectors have other keys, 0 failed" in out
    assert "analytics/a  postgresql  Secret warehouse" in out
    assert "honeyframe vault rekey --since 20" in err
    again = err.split("--since ")[1].split()[0]
    code, out, _ = pod.run("rekey", "--since", again, "-o", "json")
    answer = json.loads(out)
    assert (code, answer["done"], [each["name"] for each in answer["toRotate"]]) == (0, 0, ["a", "b", "c"])
    assert answer["toRotate"][0]["secretName"] == "warehouse"
    pod.given(NEW)
    assert pod.run("rewrap")[0] == 0


def test_rekey_fails_where_a_row_does(pod: Pod) -> None:
    pod.with_vault(tamper)
    code, out, err = pod.run("rekey", "-o", "json")
    answer = json.loads(out)
    assert (code, answer["done"], [each["name"] for each in answer["failed"]]) == (1, 2, ["b"])
    assert "analytics/b" in err


def test_reset_asks_and_names_what_is_gone(pod: Pod) -> None:
    assert pod.run("reset")[0] == 2
    code, _, err = pod.run("reset", "--from-secrets", "--yes")
    assert (code, "vault rewrap" in err) == (2, True)
    pod.given(NEW)
    code, _, err = pod.run("reset", "--from-secrets", typed="n\n")
    assert (code, "3 versions" in err, "nothing was changed" in err) == (2, True, True)
    assert pod.run("rewrap")[0] == 1, "it was not changed"
    code, out, _ = pod.run("reset", "--from-secrets", typed="y\n")
    assert (code, "3 connectors begin anew" in out, "analytics/a  versions gone: 1" in out) == (0, True, True)
    assert pod.run("rewrap")[0] == 0


def test_reset_as_json(pod: Pod) -> None:
    pod.given(NEW)
    code, out, err = pod.run("reset", "--from-secrets", "--yes", "-o", "json")
    answer = json.loads(out)
    assert (code, err, answer["left"]) == (0, "", [])
    assert [(each["namespace"], each["name"], each["versions"]) for each in answer["reset"]] == [
        ("analytics", name, 1) for name in "abc"
    ]


@pytest.mark.parametrize(
    ("arguments", "env", "word"),
    [
        (["rewrap"], {"HONEYFRAME_SECRET_FILE": ""}, "--secret-file"),
        (["rewrap", "--secret-file", "/nowhere"], {}, "/nowhere cannot be read"),
        (["rewrap", "--older-secret-files", "/nowhere"], {}, "/nowhere cannot be read"),
        (["rewrap", "--database-file", "/nowhere"], {}, "/nowhere cannot be read"),
        (["rewrap", "--database", "mysql://h/d"], {"HONEYFRAME_DATABASE_FILE": ""}, "sqlite:///PATH"),
        (["rewrap", "--database", f"postgresql://u:{SECRET}@h/d"], {"HONEYFRAME_DATABASE_FILE": ""}, "--database-file"),
        (["rekey", "--since", "yesterday"], {}, "--since yesterday"),
        (["rewrap", "-o", "xml"], {}, "xml"),
    ],
)
def test_wrong_usage(tmp_path: Path, arguments: list[str], env: dict[str, str], word: str) -> None:
    (tmp_path / "d").touch()
    pod = Pod(f"sqlite:///{tmp_path}/d", tmp_path)
    pod.env |= env
    code, _, err = pod.run(*arguments)
    assert (code, word in err) == (2, True), err


def test_a_secret_that_is_too_short_is_not_told(tmp_path: Path) -> None:
    (tmp_path / "d").touch()
    pod = Pod(f"sqlite:///{tmp_path}/d", tmp_path)
    pod.given("hunter2")
    code, _, err = pod.run("rewrap")
    assert (code, "at least 32" in err, "hunter2" in err) == (2, True, False)


def test_a_store_that_does_not_answer(tmp_path: Path) -> None:
    pod = Pod("postgresql://u@127.0.0.1:1/d", tmp_path)
    code, _, err = pod.run("rewrap")
    assert (code, "cannot be used" in err) == (1, True)


def test_help_says_the_exit_codes() -> None:
    for command in ("rewrap", "rekey", "reset"):
        result = CliRunner().invoke(app, ["vault", command, "--help"])
        assert "Exit codes: 0" in result.output
        assert "HONEYFRAME_SECRET_FILE" in result.output


def test_a_bar_on_a_terminal_and_the_answer_on_stdout(tmp_path: Path) -> None:
    pod = Pod(f"sqlite:///{tmp_path}/d.db", tmp_path)
    pod.with_vault(three)
    pod.given(NEW, OLD)
    terminal, theirs = pty.openpty()
    env = {**os.environ, **pod.env, "TERM": "xterm", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "honeyframe_connectors.cli", "vault", "rewrap", "-o", "json"]
    result = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=theirs, text=True, check=True, timeout=60)
    os.close(theirs)
    shown = os.read(terminal, 65536).decode()
    os.close(terminal)
    assert json.loads(result.stdout)["done"] == 3
    assert "3/3" in shown
