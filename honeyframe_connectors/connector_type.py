"""What a connector type is: a config with marked fields, a check, and what it can do.

A type is one module under `types/`, one line in its list and one example manifest; the CRD's block,
the docs page and the contract tests follow from what is declared here.
"""

import abc
import difflib
import functools
import importlib.metadata
import importlib.util
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import NoneType, UnionType
from typing import Any, ClassVar, Final, Generic, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, SecretBytes, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from honeyframe_connectors.errors import CheckFailed, Reason, Stalled
from honeyframe_connectors.targets import Targets


class Mark(StrEnum):
    """What a field of a config is, written in its annotation: ``Annotated[str, Mark.DESTINATION, Mark.MAPPABLE]``."""

    SECRET = "secret"  # noqa: S105 - a mark, no secret
    """Comes from the Secret only; never in `spec.config`, status, log or repr."""
    DESTINATION = "destination"
    """Where a connection goes: a kept secret value is never sent to another one."""
    ACCOUNT = "account"
    """Who logs in: refused logins are counted for an account at a destination."""
    TUNING = "tuning"
    """Applies at once and is no part of a version: pool sizes and the like."""
    MAPPABLE = "mappable"
    """May come from the Secret too, by `spec.secretRef.keys`."""


class ConnectorConfig(BaseModel):
    """The fields of one type, in snake_case as in the platform. Errors never show an input's value."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


def marks(info: FieldInfo) -> frozenset[Mark]:
    """The marks of a field."""
    return frozenset(mark for mark in info.metadata if isinstance(mark, Mark))


def marked(config: type[BaseModel], mark: Mark) -> frozenset[str]:
    """The names of a config's fields that bear a mark."""
    return _marked(config, mark)


@functools.cache
def _marked(config: Any, mark: Mark) -> frozenset[str]:
    return frozenset(name for name, info in config.model_fields.items() if mark in marks(info))


class Category(StrEnum):
    """What a type is for, as the platform groups them."""

    DATABASE = "database"
    API = "api"
    FILE = "file"
    STORAGE = "storage"
    LLM = "llm"
    VECTOR = "vector"
    ORCHESTRATION = "orchestration"
    MESSAGING = "messaging"


class Guard(StrEnum):
    """How the address guard holds where the driver dials."""

    PINNED = "pinned"
    """The driver is given the very address that was checked."""
    CHECKED_BEFORE = "checked before"
    """The addresses are checked, then the driver resolves again."""
    NETWORK_POLICY_ONLY = "NetworkPolicy only"
    """The driver dials what the server announces: only a NetworkPolicy holds it."""


class Outcome(StrEnum):
    """How a step of a check went."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_TESTED = "not tested"


@dataclass(frozen=True, slots=True)
class CheckStep:
    """One named step of a check and how it went."""

    name: str
    outcome: Outcome
    message: str = ""


@dataclass(slots=True)
class Checkup:
    """What a check is given besides its config, and where it notes how far it came.

    A check passes its steps in the order in which the type declares them; the first that is not noted when it
    raises is the one that failed.
    """

    targets: Targets
    """Resolves names and refuses addresses that no Connector may reach."""
    ca: bytes | None = None
    """CERTIFICATE blocks (PEM) to trust instead of the public roots, from `spec.caRef`."""
    output_schemas: tuple[str, ...] = ()
    server_version: str | None = None
    """Written by the check where the target tells it."""
    steps: dict[str, CheckStep] = field(default_factory=dict)

    def passed(self, name: str, message: str = "") -> None:
        """Note that a step passed."""
        self.steps[name] = CheckStep(name, Outcome.PASSED, message)

    def not_tested(self, name: str, why: str) -> None:
        """Note that a step cannot be tested without a side effect, or does not apply."""
        self.steps[name] = CheckStep(name, Outcome.NOT_TESTED, why)


@dataclass(frozen=True, slots=True)
class CheckResult:
    """A whole check: every declared step in order, and the error that ended it."""

    steps: tuple[CheckStep, ...]
    error: CheckFailed | Stalled | None
    latency_ms: int
    server_version: str | None = None
    again_at: float | None = None
    """Nothing was dialled, for this login was refused before: when it may be, in seconds since the epoch."""

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return self.error is None

    @property
    def credential_tested(self) -> bool:
        """Whether the target judged the credential; False gives the version the test status `skipped`."""
        return any(step.name == "authenticate" and step.outcome is Outcome.PASSED for step in self.steps)


CAPABILITIES: Final = ("check", "discover", "read", "query", "notify", "send")
"""What a type may be able to do: each is a method of that name, and a type that cannot has none."""

C = TypeVar("C", bound=ConnectorConfig)


class ConnectorType(abc.ABC, Generic[C]):
    """One kind of external system. Instances hold no state; drivers are imported inside methods."""

    name: ClassVar[str]
    title: ClassVar[str]
    category: ClassVar[Category]
    queryable: ClassVar[bool] = False
    aliases: ClassVar[tuple[str, ...]] = ()
    driver: ClassVar[str | None]
    """The module that is imported lazily; None where the standard library is enough."""
    distribution: ClassVar[str | None] = None
    """The driver's distribution, where its name is not the module's."""
    extra: ClassVar[str | None] = None
    """The extra of this distribution that installs the driver."""
    steps: ClassVar[tuple[str, ...]]
    """The names of a check's steps, in order."""
    guard: ClassVar[Guard]
    secret_required: ClassVar[bool] = False
    """Whether a spec without `secretRef` is refused."""
    config: type[C]

    @property
    def capabilities(self) -> tuple[str, ...]:
        """What it can do, by the methods that it has."""
        return tuple(name for name in CAPABILITIES if callable(getattr(self, name, None)))

    @abc.abstractmethod
    async def check(self, config: C, checkup: Checkup) -> None:
        """Try the config against the target, without cost or side effect.

        Raises:
            Refused: the target answered and said no.
            Unanswered: no answer that counts.
            Stalled: the address is not allowed (`TargetNotAllowed`) or the config cannot be used.
        """

    def endpoints(self, config: C) -> tuple[tuple[str, int], ...]:  # noqa: ARG002 - for those that know theirs
        """Host and port of everything that is dialled, as it is declared; what `honeyframe.io/targets` is held against.

        A type that does not say is refused where a Secret names its targets.
        """
        return ()

    def strictness(self, config: C, ca: bytes | None) -> int:  # noqa: ARG002 - for those whose fields decide it
        """How much of the server's identity is verified: a kept secret value never goes where it is less."""
        return 0

    def logs_in(self, config: C) -> bool:  # noqa: ARG002 - for those whose fields decide it
        """Whether a check shows the credential to the target, which can turn it away."""
        return "authenticate" in self.steps

    def require_driver(self) -> None:
        """Make sure that the driver is there.

        Raises:
            Stalled: `DriverMissing`, naming the extra to install.
        """
        if self.driver is not None and importlib.util.find_spec(self.driver) is None:
            raise Stalled(
                Reason.DRIVER_MISSING,
                f"type {self.name} needs the Python module {self.driver}, which is not installed here: "
                f"install the extra with pip install 'honeyframe-connectors[{self.extra}]', "
                "or use an image that has it",
            )

    def driver_version(self) -> str:
        """The driver's version, "missing" where it is not installed, "" where there is none."""
        if self.driver is None:
            return ""
        try:
            return importlib.metadata.version(self.distribution or self.driver)
        except importlib.metadata.PackageNotFoundError:
            return "missing"

    def schema_digest_source(self) -> bytes:
        """What changes when the type's fields or defaults change: its JSON Schema, canonical."""
        return json.dumps(self.config.model_json_schema(), sort_keys=True).encode()


Values = Mapping[str, Any]
"""Declared fields, or fields that came from a Secret, as plain data."""

MAX_SECRET_VALUE: Final = 64 * 1024
"""Bytes of one value of a Secret."""
_MAX_PROBLEMS: Final = 5


def merge(type_: ConnectorType[C], declared: Values, from_secret: Mapping[str, bytes]) -> C:
    """The config that a spec and its Secret make together.

    ``from_secret`` has field names, or dotted paths below a field that holds a mapping (`headers.X-Api-Key`).

    Raises:
        Stalled: `InvalidConfig`, naming each field and what mends it, never a value.
    """
    problems = [
        f"spec.config.{type_.name}.{name}: secrets do not belong in config: "
        "put it in the Secret that spec.secretRef names"
        for name in sorted(marked(type_.config, Mark.SECRET).intersection(declared))
    ]
    values: dict[str, Any] = dict(declared)
    for path, raw in from_secret.items():
        try:
            _place(type_, values, path, raw)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise _invalid(problems)
    try:
        return type_.config.model_validate(values)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        # A new one, without the old as its context: pydantic's frames hold the input.
        raise _invalid([_sentence(type_, each, from_secret) for each in found]) from None


def destination(type_: ConnectorType[Any], config: ConnectorConfig) -> tuple[Any, ...]:
    """The values of the fields that say where a connection goes, in the order in which the type declares them."""
    return tuple(getattr(config, name) for name in _destination_fields(type_))


def secret_values(config: BaseModel) -> Iterator[bytes | str]:
    """What no text may show: every secret value of a config, and those of fields that its repr hides."""
    for name, hidden in _where_secrets_are(type(config)):
        yield from _secrets_of(getattr(config, name), hidden=hidden)


@functools.cache
def _where_secrets_are(config: type[BaseModel]) -> tuple[tuple[str, bool], ...]:
    # A value of one of these types holds no secret and is not hidden: looking at it would only cost.
    return tuple(
        (name, not info.repr)
        for name, info in config.model_fields.items()
        if not (info.repr and _is_plain(info.annotation))
    )


def _is_plain(annotation: Any) -> bool:
    if get_origin(annotation) in (Union, UnionType):
        return all(_is_plain(each) for each in get_args(annotation))
    return annotation in (str, int, float, bool, NoneType) or get_origin(annotation) is Literal


def _secrets_of(value: Any, *, hidden: bool) -> Iterator[bytes | str]:
    match value:
        case SecretStr() | SecretBytes():
            yield value.get_secret_value()
        case BaseModel():
            yield from secret_values(value)
        case Mapping():
            for each in value.values():
                yield from _secrets_of(each, hidden=hidden)
        case list() | tuple():
            for each in value:
                yield from _secrets_of(each, hidden=hidden)
        case str() | bytes() if hidden:
            yield value


@functools.cache
def _destination_fields(type_: ConnectorType[Any]) -> tuple[str, ...]:
    return tuple(name for name, info in type_.config.model_fields.items() if Mark.DESTINATION in marks(info))


def _invalid(problems: list[str]) -> Stalled:
    shown = problems[:_MAX_PROBLEMS]
    if len(problems) > len(shown):
        shown.append(f"and {len(problems) - len(shown)} more")
    return Stalled(Reason.INVALID_CONFIG, "; ".join(shown))


def _place(type_: ConnectorType[Any], values: dict[str, Any], path: str, raw: bytes) -> None:
    name, dot, rest = path.partition(".")
    info = type_.config.model_fields.get(name)
    if info is None:
        raise ValueError(
            f"the Secret's value for {path}: type {type_.name} has no field {name}{_did_you_mean(type_, name)}"
        )
    holds_mapping = _holds(info.annotation, dict)
    if not marks(info) & {Mark.SECRET, Mark.MAPPABLE}:
        raise ValueError(
            f"the Secret's value for {path}: this field cannot come from a Secret: "
            f"write spec.config.{type_.name}.{name}"
        )
    if bool(dot) != holds_mapping or (dot and not rest):
        how = f"name one entry, as in {name}.KEY" if holds_mapping else f"it has no entries: name it {name}"
        raise ValueError(f"the Secret's value for {path}: {how}")
    if name in values and (not holds_mapping or (isinstance(values[name], Mapping) and rest in values[name])):
        raise ValueError(
            f"spec.config.{type_.name}.{path}: it is written in config and comes from the Secret too: "
            "keep one, by removing it here or from spec.secretRef.keys"
        )
    value = _decoded(info, path, raw)
    if not holds_mapping:
        values[name] = value
        return
    before = values.get(name, {})
    if isinstance(before, Mapping):
        # What is no mapping is left for the model to refuse.
        values[name] = {**before, rest: value}


def _decoded(info: FieldInfo, path: str, raw: bytes) -> str | bytes:
    where = f"the Secret's value for {path}"
    if not raw:
        raise ValueError(f"{where} is empty: write it, or remove the key")
    if len(raw) > MAX_SECRET_VALUE:
        raise ValueError(
            f"{where} is longer than {MAX_SECRET_VALUE // 1024} KiB: put the value itself there, not a bundle"
        )
    if _holds(info.annotation, SecretBytes) or _holds(info.annotation, bytes):
        return raw
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = ""
    if not text or text.startswith("\ufeff") or "\0" in text:
        raise ValueError(
            f"{where} is not plain UTF-8 text: write it without a byte-order mark (commonest, with UTF-16, "
            "where a file was saved on Windows) and without a trailing newline"
        )
    if Mark.SECRET not in marks(info) and text.endswith("\n") and text.count("\n") == 1:
        raise ValueError(f"{where} ends with a newline: write it without, with printf instead of echo")
    return text


def _holds(annotation: Any, what: type) -> bool:
    if annotation is what or get_origin(annotation) is what:
        return True
    # Through `| None` only, not into a mapping or list: what its values are is theirs.
    return get_origin(annotation) in (Union, UnionType) and any(_holds(each, what) for each in get_args(annotation))


def _did_you_mean(type_: ConnectorType[Any], name: str) -> str:
    near = difflib.get_close_matches(name, type_.config.model_fields, n=1)
    return f": did you mean {near[0]}?" if near else f": it has {', '.join(type_.config.model_fields)}"


def _sentence(type_: ConnectorType[Any], error: ErrorDetails, from_secret: Mapping[str, bytes]) -> str:
    path = ".".join(str(part) for part in error["loc"] if part != "[key]")
    name = path.partition(".")[0]
    came = next((each for each in from_secret if path == each or path.startswith(f"{each}.")), None)
    where = f"the Secret's value for {came}" if came is not None else f"spec.config.{type_.name}.{path}".rstrip(".")
    if error["type"] == "missing":
        info = type_.config.model_fields.get(name)
        found = marks(info) if info is not None else frozenset()
        if Mark.SECRET in found:
            return f"{path}: it is missing: put it in the Secret that spec.secretRef names, under the key {path}"
        or_map = ", or map it from the Secret by spec.secretRef.keys" if Mark.MAPPABLE in found else ""
        return f"{where}: it is missing: write it{or_map}"
    if error["type"] == "extra_forbidden":
        return f"{where}: type {type_.name} has no such field{_did_you_mean(type_, path)}"
    text = error["msg"].removeprefix("Value error, ")
    return f"{where}: {text[:1].lower()}{text[1:]}"
