"""Rows as manifests: a Connector each, and a stub of its Secret with bullets for values.

Nothing secret is written: what a type keeps in the Secret shows as bullets, a field that the type does not know is left
out, because nobody can say what it holds, and so is a value that looks as if a password were in it.
"""

import functools
import hashlib
import json
import re
import unicodedata
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, Final

import yaml
from pydantic import Field, TypeAdapter, ValidationError
from sqlalchemy import ColumnClause, Connection, Select, column, inspect, select

from honeyframe_connectors.api.kinds import ADOPT_ANNOTATION, API_VERSION, CREDENTIALS_LABEL
from honeyframe_connectors.backfill.fields import sealed_fields, split
from honeyframe_connectors.backfill.report import Line, Outcome, plain, subject
from honeyframe_connectors.connector_type import ConnectorType, Mark, marked
from honeyframe_connectors.errors import Stalled, Waiting
from honeyframe_connectors.redact import BULLETS, Redactor
from honeyframe_connectors.registry import Registry
from honeyframe_connectors.store.database import Database
from honeyframe_connectors.store.tables import SCHEMA, data_connectors
from honeyframe_connectors.vault.rows import OPERATOR
from honeyframe_connectors.vault.vault import Vault

PAGE: Final = 200
"""Rows that are in memory at a time."""

_LABEL: Final = "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_NAMESPACE: Final = re.compile(_LABEL)
_NAME: Final = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*")
_LONGEST_CONVERTED: Final = 200
_NOT_IN_A_KEY: Final = re.compile(r"[^-._a-zA-Z0-9]")
LONGEST_DISPLAY_NAME: Final = 256
LONGEST_DESCRIPTION: Final = 2048
_redacted: Final = Redactor()
_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which rows."""

    everything: bool = False
    """The operator's own too."""
    org: str | None = None
    project: str | None = None


@dataclass(frozen=True, slots=True)
class Exported:
    """One row's manifests, and what is to be said of it."""

    namespace: str
    name: str
    manifests: str
    """YAML of one or two documents; empty where the row cannot be exported."""
    line: Line


@dataclass(slots=True)
class _Names:
    """Valid names, each given once in its namespace."""

    valid: frozenset[tuple[str, str]]
    """Those that stay what they are, and that no converted one may take."""
    given: set[tuple[str, str]] = field(default_factory=set)

    def give(self, namespace: str, name: str, row_id: str) -> str:
        """The name of a row's Connector: always the same for the same rows."""
        stays = _NAME.fullmatch(name) is not None
        base = name if stays else converted(name) or "connector"
        if not self._is_taken(namespace, base, stays=stays):
            chosen = base
        else:
            digest = hashlib.sha256(row_id.encode()).hexdigest()
            longer = (f"{base[:_LONGEST_CONVERTED]}-{digest[:length]}" for length in range(6, len(digest)))
            chosen = next(each for each in longer if not self._is_taken(namespace, each, stays=False))
        self.given.add((namespace, chosen))
        return chosen

    def _is_taken(self, namespace: str, name: str, *, stays: bool) -> bool:
        return (namespace, name) in self.given or (not stays and (namespace, name) in self.valid)


@dataclass(slots=True)
class _Secrets:
    """What may be told of a row's secret values: their fields, or dotted paths."""

    paths: set[str] = field(default_factory=set)
    adoptable: bool = True
    remarks: list[str] = field(default_factory=list)
    unlisted: bool = False
    """It has some that cannot be told."""
    fault: str = ""


async def export(database: Database, vault: Vault, registry: Registry, wanted: Wanted) -> AsyncIterator[Exported]:
    """Every row that is wanted, by id, a page in memory at a time. The vault is open.

    Raises:
        Waiting: `VaultUnavailable`, the store cannot be used.
    """
    names = _Names(await database.read(partial(_valid_names, wanted=wanted)))
    statement = await database.read(partial(_statement, wanted=wanted))
    rows = await database.read(partial(_rows, statement=statement))
    while rows:
        for row in rows:
            yield await _exported(row, vault, registry, names)
        if len(rows) < PAGE:
            return
        rows = await database.read(partial(_rows, statement=statement.where(data_connectors.c.id > rows[-1].id)))


def converted(name: str) -> str:
    """The valid name that is nearest to a name; empty where no character of it is left."""
    plain_letters = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain_letters)[:_LONGEST_CONVERTED].strip("-")


# --- rows ----------------------------------------------------------------------------------------------------------


def _rows(connection: Connection, statement: Select[Any]) -> Sequence[Any]:
    return connection.execute(statement).all()


def _statement(connection: Connection, wanted: Wanted) -> Select[Any]:
    schema = None if connection.dialect.name == "sqlite" else SCHEMA
    there = {each["name"] for each in inspect(connection).get_columns(data_connectors.name, schema)}
    more: list[ColumnClause[Any]] = [column(name) for name in ("description", "output_schemas") if name in there]
    return _only(select(data_connectors, *more), wanted).order_by(data_connectors.c.id).limit(PAGE)


def _only(statement: Select[Any], wanted: Wanted) -> Select[Any]:
    statement = statement.where(data_connectors.c.deleted_at.is_(None))
    if not wanted.everything:
        statement = statement.where(data_connectors.c.managed_by != OPERATOR)
    if wanted.org is not None:
        statement = statement.where(data_connectors.c.org == wanted.org)
    return statement if wanted.project is None else statement.where(data_connectors.c.project == wanted.project)


def _valid_names(connection: Connection, wanted: Wanted) -> frozenset[tuple[str, str]]:
    found = connection.execution_options(yield_per=PAGE).execute(
        _only(select(data_connectors.c.project, data_connectors.c.name), wanted)
    )
    return frozenset((_namespace(project), name) for project, name in found if _NAME.fullmatch(name))


def _namespace(project: str) -> str:
    return project if _NAMESPACE.fullmatch(project) else converted(project)[:63].strip("-") or "default"


async def _exported(row: Any, vault: Vault, registry: Registry, names: _Names) -> Exported:
    namespace = _namespace(row.project)
    name = names.give(namespace, row.name, row.id)
    try:
        type_ = registry.lookup(row.type)
    except Stalled:
        return Exported(namespace, name, "", Line(subject(row), Outcome.FAILED, "its type is not known here"))
    config = {} if row.config is None else row.config
    if not isinstance(config, Mapping):
        return Exported(namespace, name, "", Line(subject(row), Outcome.FAILED, "its config is no JSON object"))
    found = split(config, sealed_fields(type_))
    secrets = await _secrets(row, type_, vault)
    secrets.paths.update(found.secrets, found.masked)
    block, remarks = _block(type_, found.config)
    if namespace != row.project:
        remarks.append(f"project {plain(row.project)} is no name of a namespace: this Connector cannot adopt its row")
    if secrets.adoptable and block != found.config:
        remarks.append("its adoption is a rotation, for this config is not the one that serves")
    manifests = _manifests(row, type_, (namespace, name), block, secrets, [*secrets.remarks, *remarks])
    if secrets.fault:
        return Exported(namespace, name, manifests, Line(subject(row), Outcome.FAILED, secrets.fault))
    return Exported(namespace, name, manifests, Line(subject(row), Outcome.DONE, f"{namespace}/{name}"))


async def _secrets(row: Any, type_: ConnectorType[Any], vault: Vault) -> _Secrets:
    told = _Secrets(adoptable=row.managed_by != OPERATOR)
    if row.wrapped_keys is not None:
        try:
            current = await vault.load(row.id)
            if current is None or current.serving_version is None:
                told.remarks.append("nothing serves: name its Secret, if it has one, in spec.secretRef")
                return told
            version = await vault.serving(current, marked(type_.config, Mark.TUNING))
        except Waiting as error:
            told.unlisted = True
            told.fault = f"its secrets cannot be listed: {error.message}"
            told.remarks.append("its secrets do not open: add the keys that it has")
            return told
        told.paths.update(version.secrets)
        if version.ca is not None:
            told.remarks.append("it trusts a CA of its own: name it in spec.caRef")
    elif row.connection_secrets_enc:
        told.adoptable, told.unlisted = False, True
        told.remarks.append(
            "its secrets are sealed in a format that is not ours: add the keys that it has, and delete the row in "
            "the platform, for it cannot be adopted"
        )
    elif told.adoptable:
        told.remarks.append("it can be adopted once `honeyframe backfill secrets` has taken it in")
    return told


# --- manifests -----------------------------------------------------------------------------------------------------


def _block(type_: ConnectorType[Any], config: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """What of a clean config a Connector may declare, and what is to be said of the rest."""
    block: dict[str, Any] = {}
    unknown, wrong, telling = [], [], []
    for name, value in config.items():
        if name not in type_.config.model_fields:
            unknown.append(name)
        elif value is not None:
            try:
                adapter = _adapter(type_, name)
                block[name] = adapter.dump_python(adapter.validate_python(value), mode="json")
            except ValidationError:
                wrong.append(name)
            else:
                if isinstance(value, str) and _redacted(value) != value:
                    telling.append(name)
                    del block[name]
    remarks = [
        (unknown, f"left out, for type {type_.name} has no such field"),
        (wrong, f"left out, for type {type_.name} does not take the value"),
        (telling, "left out, for a password seems to be in the value"),
    ]
    return block, [
        f"{what}: {', '.join(json.dumps(plain(name)) for name in found)}" for found, what in remarks if found
    ]


@functools.cache
def _adapter(type_: ConnectorType[Any], name: str) -> TypeAdapter[Any]:
    """What judges one field, as the type declares it."""
    info = type_.config.model_fields[name]
    annotation: Any = Annotated[info.annotation, Field(), *info.metadata]
    return TypeAdapter(annotation)


def _manifests(
    row: Any,
    type_: ConnectorType[Any],
    place: tuple[str, str],
    block: Mapping[str, Any],
    secrets: _Secrets,
    remarks: Sequence[str],
) -> str:
    namespace, name = place
    metadata: dict[str, Any] = {"name": name, "namespace": namespace}
    if secrets.adoptable:
        metadata["annotations"] = {ADOPT_ANNOTATION: row.id}
    spec: dict[str, Any] = {}
    shown = row.display_name or row.name
    if shown != name:
        spec["displayName"] = shown[:LONGEST_DISPLAY_NAME]
    if getattr(row, "description", None):
        spec["description"] = _redacted(row.description)[:LONGEST_DESCRIPTION]
    spec["config"] = {type_.name: block}
    keys = _keys(secrets.paths)
    has_secret = bool(keys) or secrets.unlisted or type_.secret_required
    if has_secret:
        own = marked(type_.config, Mark.SECRET)
        mapped = {path: key for path, key in keys.items() if path != key or path not in own}
        spec["secretRef"] = {"name": name, **({"keys": mapped} if mapped else {})}
    schemas = _schemas(getattr(row, "output_schemas", None))
    if schemas:
        spec["outputSchemas"] = schemas
    documents = [{"apiVersion": API_VERSION, "kind": "Connector", "metadata": metadata, "spec": spec}]
    if has_secret:
        remarks = [*remarks, "write the values into the Secret before it is applied: bullets are none"]
        documents.append(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": name, "namespace": namespace, "labels": {CREDENTIALS_LABEL: "true"}},
                "stringData": dict.fromkeys(keys.values(), BULLETS),
            }
        )
    comments = "".join(f"# {remark}\n" for remark in (f"connector {plain(row.id)}", *remarks))
    return "".join(f"---\n{comments if document is documents[0] else ''}{_yaml(document)}" for document in documents)


def _keys(paths: Iterable[str]) -> dict[str, str]:
    """A key of a Secret for each path, of the characters that one may have."""
    keys: dict[str, str] = {}
    for path in sorted(paths):
        key = base = _NOT_IN_A_KEY.sub("_", path)
        number = 2
        while key in keys.values():
            key, number = f"{base}_{number}", number + 1
        keys[path] = key
    return keys


def _schemas(value: Any) -> list[str]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return []
    return [str(each) for each in value] if isinstance(value, list) else []


def _yaml(document: Mapping[str, Any]) -> str:
    text: str = yaml.dump(document, Dumper=_DUMPER, sort_keys=False, allow_unicode=True, width=120)
    return text
