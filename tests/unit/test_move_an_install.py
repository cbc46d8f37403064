"""The page `move-an-install-to-git.md`, command by command, on an older install with real rows."""

import re
import secrets
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from honeyframe_connectors.cli.__main__ import app
from tests.support.older import (
    PLANTED,
    ROWS,
    URL_TOKEN,
    OlderRow,
    dump,
    is_sqlite,
    make_older_install,
    older_columns,
    sql,
)

PAGE = Path(__file__).parents[2] / "docs/how-to/move-an-install-to-git.md"
NETWEAVER = 2


@pytest.fixture
def pod(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The variables of the operator's pod, and an empty folder to work in."""
    (tmp_path / "secret").write_text(secrets.token_hex(32) + "\n")
    (tmp_path / "url").write_text(url + "\n")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HONEYFRAME_DATABASE", "")
    monkeypatch.setenv("HONEYFRAME_DATABASE_FILE", str(tmp_path / "url"))
    monkeypatch.setenv("HONEYFRAME_SECRET_FILE", str(tmp_path / "secret"))
    return tmp_path / "work"


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, arguments)
    assert PLANTED not in result.output
    assert URL_TOKEN not in result.output
    return result


def test_every_command_of_the_page(url: str, pod: Path) -> None:
    commands = re.findall(r"^ +honeyframe (.+)$", PAGE.read_text(), re.MULTILINE)
    assert len(commands) == 6
    made = make_older_install(url, [row for row in ROWS if row.type != "netweaver"])
    sql(url, "CREATE TABLE honeyframe.app_config (org TEXT, key TEXT, value TEXT)")
    values = {"key": "notif_webhook_url", "value": f"https://hooks.example.com/{URL_TOKEN}"}
    sql(url, "INSERT INTO honeyframe.app_config VALUES ('acme', :key, :value)", values)
    before = dump(url)
    printed = {}
    for command in commands:
        result = run(*command.split())
        assert result.exit_code == 0, f"{command}: {result.output}"
        printed[command] = result.stdout.splitlines()
        if command.endswith("secrets --dry-run"):
            assert dump(url) == before
    for rehearsed, done in (commands[0:2], commands[2:4]):
        assert printed[rehearsed][:-1] == printed[done][:-1]
        assert printed[rehearsed][-1] == f"{printed[done][-1]} (dry run: nothing was changed)"
    assert printed[commands[1]][-1] == "3 done, 0 already, 1 left, 0 failed"
    assert printed[commands[5]] == ["5 manifests are right"]
    assert PLANTED not in repr(older_columns(url))
    found = {path.relative_to(pod / "connectors").as_posix(): path.read_text() for path in pod.rglob("*.yaml")}
    assert set(found) == {
        "analytics/webhook-notifications.yaml",
        *(f"default/{name}.yaml" for name in ("alerts", "production-postgres", "sealed-elsewhere", "trusting")),
    }
    assert PLANTED not in repr(found)
    connector = yaml.safe_load(found["default/production-postgres.yaml"].partition("---\n")[2].partition("---\n")[0])
    assert connector["metadata"]["annotations"] == {"honeyframe.io/adopt": made[0]}


def test_what_could_not_be_done_is_named_and_the_exit_code_says_so(url: str, pod: Path) -> None:
    make_older_install(url, [*ROWS, OlderRow("masked", "pg", {"password": "••••••••"})])
    result = run("backfill", "secrets")
    assert result.exit_code == 1
    assert "failed" in result.stdout
    assert "masked" in result.stdout
    assert result.stdout.splitlines()[-1] == "3 done, 0 already, 2 left, 1 failed"
    assert "6 of 6 rows" in result.stderr
    assert ("written anew without" if is_sqlite(url) else "VACUUM FULL honeyframe.data_connectors") in result.stderr
    exported = run("export")
    assert exported.exit_code == 1
    assert ROWS[NETWEAVER].name in exported.stderr
    assert len(list(yaml.safe_load_all(exported.stdout))) == 9


@pytest.mark.parametrize("command", [["backfill", "secrets"], ["backfill", "notifications"], ["export"]])
def test_wrong_usage(command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HONEYFRAME_DATABASE", "HONEYFRAME_DATABASE_FILE", "HONEYFRAME_SECRET_FILE"):
        monkeypatch.delenv(name, raising=False)
    secret = tmp_path / "secret"
    secret.write_text(secrets.token_hex(32))
    database = f"sqlite:///{tmp_path}/honeyframe.db"
    for arguments, words in (
        ([], "--secret-file"),
        (["--secret-file", str(tmp_path / "none"), "--database", "postgresql://127.0.0.1:1/x"], "cannot be read"),
        (["--secret-file", str(secret), "--database", database], "there is no file"),
        (["--secret-file", str(secret), "--database", f"postgresql://u:{PLANTED}@127.0.0.1/x"], "--database-file"),
        (
            ["--secret-file", str(secret), "--database", f"postgresql://u@127.0.0.1/x?password={PLANTED}"],
            "--database-file",
        ),
        (["--secret-file", str(secret), "--database", PLANTED], "cannot be read"),
    ):
        result = run(*command, *arguments)
        assert (result.exit_code, words in result.stderr) == (2, True), result.output
    assert not (tmp_path / "honeyframe.db").exists()
    away = run(*command, "--secret-file", str(secret), "--database", "postgresql://u@127.0.0.1:1/x")
    assert (away.exit_code, "cannot be used" in away.stderr) == (1, True)


def test_a_short_secret_is_wrong_usage(url: str, pod: Path) -> None:
    make_older_install(url)
    before = dump(url)
    (pod.parent / "secret").write_text("short")
    assert run("backfill", "secrets").exit_code == 2
    assert dump(url) == before
