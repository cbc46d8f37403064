"""What the commands are made of: values and tokens read, sentences and tables written."""

import io
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import typer.main
from kubernetes.client import ApiClient, Configuration
from kubernetes.client.exceptions import ApiException

from honeyframe_connectors.cli import rotate, store
from honeyframe_connectors.cli.__main__ import app
from honeyframe_connectors.cli.cluster import ApiFault, Cluster
from honeyframe_connectors.cli.faults import EXIT_CODES, Fault
from honeyframe_connectors.cli.options import duration
from honeyframe_connectors.cli.output import ago, plain, table
from honeyframe_connectors.cli.rotate import read_values
from honeyframe_connectors.cli.status import card
from honeyframe_connectors.cli.tokens import handled, later
from honeyframe_connectors.registry import default_registry

SECRET = "hunter2-in-the-wrong-place"


def commands() -> dict[str, Any]:
    return dict(leaves("", typer.main.get_command(app)))


def leaves(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Every command, those of groups under the group's name too."""
    if not hasattr(command, "commands"):
        yield name.strip(), command
        return
    for each, below in command.commands.items():
        yield from leaves(f"{name} {each}", below)


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_command_says_what_it_needs_and_how_it_ends(name: str) -> None:
    command = commands()[name]
    assert "Needs: " in command.help
    assert command.epilog in (EXIT_CODES, store.EXIT_CODES)


# --- values ----------------------------------------------------------------------------------------------------------


def test_a_single_line_loses_its_newline_and_several_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "password").write_bytes(b"one\r\n")
    (tmp_path / "key").write_bytes(b"-----BEGIN\nMII\n-----END\n")
    monkeypatch.setenv("TOKEN", "two")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"three\n")))
    files = [f"password={tmp_path / 'password'}", f"ssl_key={tmp_path / 'key'}"]
    assert read_values(files, ["token=TOKEN"], "other") == {
        "password": b"one",
        "ssl_key": b"-----BEGIN\nMII\n-----END\n",
        "token": b"two",
        "other": b"three",
    }
    said = capsys.readouterr().err
    assert ("password: the newline" in said, "other: the newline" in said, "ssl_key" in said) == (True, True, False)
    assert read_values(files[:1], [], keep_newline=True) == {"password": b"one\r\n"}
    assert capsys.readouterr().err == ""


def test_a_value_typed_at_a_terminal_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(rotate, "getpass", lambda prompt: f"typed after {prompt}")
    assert read_values([], [], "password") == {"password": b"typed after password: "}


@pytest.mark.parametrize(
    ("files", "variables", "word"),
    [
        ([SECRET], [], "write FIELD=PATH"),
        ([], [f"={SECRET}"], "write FIELD=VARIABLE"),
        ([], [f"password={SECRET}"], "never write the value here"),
        ([f"password=/nonexistent/{SECRET}"], [], "the file cannot be read: No such file"),
        (["password=/dev/null"], [], "is empty"),
        (["password=/dev/null"], ["password=HOME"], "is empty"),
        ([], ["password=HOME", "password=HOME"], "given twice"),
    ],
)
def test_a_value_that_cannot_be_read(files: list[str], variables: list[str], word: str) -> None:
    with pytest.raises(Fault, match=word) as caught:
        read_values(files, variables)
    assert SECRET not in str(caught.value)


def connector(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "c", "namespace": "n", "generation": 1}, "spec": spec}


def test_which_key_of_the_secret_a_field_is() -> None:
    body = connector(
        config={"postgresql": {}}, secretRef={"name": "s", "keys": {"password": "PGPASSWORD", "username": "PGUSER"}}
    )
    fields = {"password": b"", "username": b""}
    assert rotate._keys(body, fields) == ("s", {"password": "PGPASSWORD", "username": "PGUSER"})
    plain_body = connector(config={"postgresql": {}}, secretRef={"name": "s"})
    assert rotate._keys(plain_body, {"password": b""}) == ("s", {"password": "password"})
    with pytest.raises(
        Fault, match=r"field username of Connector c does not come from its Secret; these do: .*password"
    ):
        rotate._keys(plain_body, fields)
    with pytest.raises(Fault, match=r"no spec\.secretRef"):
        rotate._keys(connector(config={"postgresql": {}}), fields)
    newer = connector(config={"a-type-of-tomorrow": {}}, secretRef={"name": "s"})
    assert rotate._keys(newer, {"key": b""}) == ("s", {"key": "key"}), "the operator may know more types than we do"


# --- tokens ----------------------------------------------------------------------------------------------------------


def test_a_token_is_later_than_the_last_one() -> None:
    now = datetime.now(UTC)
    token = later(None)
    assert datetime.fromisoformat(token) >= now
    assert later("2999-01-01T00:00:00+01:00") == "2998-12-31T23:00:00.000001Z"
    assert later("no time") >= token
    body = {"status": {"at": "2999-01-01T00:00:00Z"}}
    assert handled(body, "at", token)
    assert not handled(body, "at", later("2999-01-01T00:00:00Z"))
    assert not handled({}, "at", token)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("1m30s", 90), ("0", 0), ("1.5h", 5400)])
def test_a_duration(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "90", "1d", "-1s", "1s "])
def test_no_duration(text: str) -> None:
    with pytest.raises(Fault, match="30s or 5m"):
        duration(text)


# --- what is written -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moment", "said"),
    [
        (None, "never"),
        ("no time", "never"),
        ("2026-01-10T12:00:10Z", "just now"),
        ("2026-01-10T11:59:00Z", "1m ago"),
        ("2026-01-10T09:00:00Z", "3h ago"),
        ("2026-01-01T12:00:00Z", "9d ago"),
    ],
)
def test_how_long_ago(moment: str | None, said: str) -> None:
    assert ago(moment, datetime(2026, 1, 10, 12, 0, 10, tzinfo=UTC)) == said


def test_what_a_terminal_would_obey_is_left_away(capsys: pytest.CaptureFixture[str]) -> None:
    assert plain("a\x1b[2Jb\nc\x9b") == "a [2Jb c "
    table(["NAME", "MESSAGE"], [["[red]x[/red]", "y" * 300], ["z", "short"]])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == f"[red]x[/red]   {'y' * 300}"
    assert lines[2].endswith("short"), "a row is a line, not filled up to the longest"


def test_the_state_of_a_card() -> None:
    def state(generation: int = 1, **conditions: str) -> str:
        shown = [
            {"type": type_, "status": status, "reason": "R", "message": f"{type_} says so", "observedGeneration": 1}
            for type_, status in conditions.items()
        ]
        body = connector(config={"webhook": {}}) | {"status": {"observedGeneration": generation, "conditions": shown}}
        return card(body).state

    assert state(Ready="True", CredentialsInSync="True") == "ready"
    assert state(Ready="True", CredentialsInSync="False") == "degraded"
    assert state(Ready="False", Reconciling="True") == "progressing"
    assert state(Ready="False", Stalled="True") == "failed"
    assert state(Ready="False") == "failed"
    assert state(Ready="Unknown") == "progressing"
    assert state(generation=-1, Ready="True") == "progressing", "it speaks of another generation"


def test_what_a_type_can_do() -> None:
    assert all(type_.capabilities == ("check",) for type_ in default_registry().values())

    class Reads(type(default_registry()["webhook"])):  # type: ignore[misc]
        async def read(self) -> None: ...

        async def send(self) -> None: ...

    assert Reads().capabilities == ("check", "read", "send")


# --- what the API server says ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, {"message": "Unauthorized"}, "does not know who you are: log in again"),
        (403, {"message": 'User "system:anonymous" cannot get'}, "does not know who you are: log in again"),
        (404, "404 page not found", "has no kind Connector: install the CRDs"),
        (404, {"message": 'connectors "c" not found'}, "there is no Connector c in namespace n"),
        (403, {"message": 'User "u" cannot get resource'}, "the ClusterRole honeyframe-connector-read grants it"),
        (403, {"message": "exceeded quota: q"}, "did not get Connector c in namespace n (403): exceeded quota: q"),
        (500, {"message": "etcd \x1b[2J is away"}, "(500): etcd  [2J is away"),
    ],
)
def test_an_error_is_a_sentence(status: int, body: Any, words: str) -> None:
    cluster = Cluster(ApiClient(Configuration()), "n")
    text = body if isinstance(body, str) else json.dumps(body)
    with pytest.raises(ApiFault) as caught, cluster._speaking("get", "connectors", "c"):
        raise ApiException(status=status, reason="R", body=text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.passing == (status >= 500)


def test_what_was_sent_is_not_repeated() -> None:
    cluster = Cluster(ApiClient(Configuration()), "n")
    with pytest.raises(ApiFault) as caught, cluster._speaking("patch", "secrets", "s", sent=[SECRET.encode()]):
        raise ApiException(status=422, body=json.dumps({"message": f"a webhook denied {SECRET}"}))
    assert "a webhook denied" in str(caught.value)
    assert SECRET not in str(caught.value)
