"""What a type declares."""

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretBytes, SecretStr

from honeyframe_connectors.connector_type import ConnectorType, Mark, Outcome, destination, marked, merge
from honeyframe_connectors.errors import Reason, Stalled
from honeyframe_connectors.types import ALL
from tests.contract.bench import Bench, Situation, check

ROOT = Path(__file__).parents[2]
LOOKS_SECRET = re.compile(r"password|passphrase|secret|token(?!_url)|credential|api_?key|private|(^|_)key$|^uri$|dsn")


def test_the_list_is_alphabetical_and_complete() -> None:
    names = [type_.name for type_ in ALL]
    assert names == sorted(set(names))
    folder = ROOT / "honeyframe_connectors" / "types"
    assert names == sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")


def test_its_module_has_its_name(type_: ConnectorType[Any]) -> None:
    assert type(type_).__module__ == f"honeyframe_connectors.types.{type_.name}"


def test_it_says_what_it_is(type_: ConnectorType[Any]) -> None:
    assert type_.title
    assert type_.steps[:2] == ("resolve", "connect")
    assert "authenticate" in type_.steps
    assert len(set(type_.steps)) == len(type_.steps)
    assert (type_.driver is None) == (type_.extra is None)


def test_unknown_fields_are_refused(type_: ConnectorType[Any], bench: Bench) -> None:
    assert type_.config.model_json_schema()["additionalProperties"] is False
    with pytest.raises(Stalled, match=r"no such field") as caught:
        merge(type_, {**bench.right.declared, "surprise": "value-of-surprise"}, bench.right.secrets)
    assert caught.value.reason is Reason.INVALID_CONFIG
    assert "value-of-surprise" not in caught.value.message


def test_every_field_is_described(type_: ConnectorType[Any]) -> None:
    for name, info in type_.config.model_fields.items():
        assert info.description, name
        assert info.description.endswith("."), name


def test_fields_that_look_secret_are_secret(type_: ConnectorType[Any]) -> None:
    secret = marked(type_.config, Mark.SECRET)
    assert {name for name in type_.config.model_fields if LOOKS_SECRET.search(name)} <= secret


def test_secret_fields_hold_secret_types_and_no_default(type_: ConnectorType[Any]) -> None:
    for name in marked(type_.config, Mark.SECRET):
        info = type_.config.model_fields[name]
        assert "SecretStr" in str(info.annotation) or "SecretBytes" in str(info.annotation), name
        assert info.default is None or info.is_required(), name


def test_there_is_a_destination(type_: ConnectorType[Any], bench: Bench) -> None:
    assert marked(type_.config, Mark.DESTINATION)
    here = destination(type_, bench.right.config(type_))
    assert here == destination(type_, bench.right.config(type_))
    assert here != destination(type_, bench.at("elsewhere.example", 1234).config(type_))
    hash(here)


def test_defaults_are_valid(type_: ConnectorType[Any], bench: Bench) -> None:
    config = bench.right.config(type_)
    assert type_.config.model_validate(config.model_dump()) == config


def test_secrets_in_config_are_refused(type_: ConnectorType[Any], bench: Bench) -> None:
    for name in marked(type_.config, Mark.SECRET):
        with pytest.raises(Stalled, match=rf"config\.{type_.name}\.{name}: secrets do not belong in config") as caught:
            merge(type_, {**bench.right.declared, name: "written-in-git"}, {})
        assert "written-in-git" not in caught.value.message


def test_only_what_may_come_from_a_secret_does(type_: ConnectorType[Any], bench: Bench) -> None:
    may = marked(type_.config, Mark.SECRET) | marked(type_.config, Mark.MAPPABLE)
    for name in set(type_.config.model_fields) - may:
        with pytest.raises(Stalled, match="cannot come from a Secret"):
            merge(type_, bench.right.declared, {name: b"x"})


def _refusal(type_: ConnectorType[Any], declared: Mapping[str, Any], secrets: Mapping[str, bytes]) -> Stalled | None:
    try:
        merge(type_, declared, secrets)
    except Stalled as error:
        return error
    return None


def test_no_error_of_a_config_shows_a_value(type_: ConnectorType[Any], bench: Bench) -> None:
    shown = "do-not-show-71fe"
    fields = type_.config.model_fields
    for name in fields:
        for value in (shown, [shown], {shown: [shown]}, {"a": {"b": shown}}, f"{shown}\n", f"://{shown}:{shown}@"):
            with_it = {**bench.right.declared, name: value}
            error = _refusal(type_, with_it, {key: raw for key, raw in bench.right.secrets.items() if key != name})
            if error is None:
                continue
            # A mapping's own keys are names, which an error must give.
            assert shown not in error.message or isinstance(value, dict), name
            assert error.reason is Reason.INVALID_CONFIG
            assert error.__cause__ is None
            assert error.__suppress_context__ or error.__context__ is None
    for name in marked(type_.config, Mark.SECRET) | marked(type_.config, Mark.MAPPABLE):
        for raw in (
            shown.encode() + b"\xff",
            shown.encode() + b"\0",
            b"\xef\xbb\xbf" + shown.encode(),
            b"x" * 70_000,
            b"",
        ):
            with pytest.raises(Stalled) as caught:
                merge(type_, {k: v for k, v in bench.right.declared.items() if k != name}, {name: raw})
            assert shown not in caught.value.message
            assert name in caught.value.message


def test_no_secret_shows_in_repr_or_str(type_: ConnectorType[Any], bench: Bench) -> None:
    config = bench.right.config(type_)
    for text in (repr(config), str(config), f"{config}", repr(config.model_dump()), config.model_dump_json()):
        for value in bench.right.secrets.values():
            assert value.decode() not in text
    for info in type_.config.model_fields.values():
        assert not isinstance(info.default, SecretStr | SecretBytes)


def test_importing_the_types_loads_no_driver() -> None:
    drivers = sorted({type_.driver for type_ in ALL if type_.driver is not None})
    code = f"import sys, honeyframe_connectors.types; print([name for name in {drivers!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


async def test_a_missing_driver_is_named_with_its_extra(
    type_: ConnectorType[Any], bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    if type_.driver is None:
        pytest.skip("it needs no driver")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(Stalled) as caught:
        type_.require_driver()
    assert caught.value.reason is Reason.DRIVER_MISSING
    assert f"[{type_.extra}]" in caught.value.message
    result = await check(type_, bench.right)
    assert result.error is not None
    assert result.error.reason is Reason.DRIVER_MISSING
    assert [step.name for step in result.steps] == list(type_.steps)
    assert Outcome.FAILED in [step.outcome for step in result.steps]


def test_its_example_is_valid(type_: ConnectorType[Any]) -> None:
    path = ROOT / "examples" / "manifests" / "types" / f"{type_.name}.yaml"
    documents = list(yaml.safe_load_all(path.read_text()))
    (connector,) = [each for each in documents if each["kind"] == "Connector"]
    assert connector["apiVersion"] == "honeyframe.io/v1beta1"
    (name, declared) = next(iter(connector["spec"]["config"].items()))
    assert name == type_.name
    (secret,) = [each for each in documents if each["kind"] == "Secret"]
    assert secret["metadata"]["labels"]["honeyframe.io/credentials"] == "true"
    reference = connector["spec"]["secretRef"]
    assert reference["name"] == secret["metadata"]["name"]
    keys = {**{field: field for field in marked(type_.config, Mark.SECRET)}, **reference.get("keys", {})}
    values = {field: secret["stringData"][key].encode() for field, key in keys.items() if key in secret["stringData"]}
    assert values
    Situation(declared, values).config(type_)
