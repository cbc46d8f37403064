"""The notification settings of older installs (`app_config`, keys `notif_*`) become messaging connectors.

Each org's channel (Slack, webhook, SMTP) becomes one row of the platform, its secret values in the vault from the
start. The settings stay unless they are to be removed, and only those go whose row is there.
"""

import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import orjson
from sqlalchemy import Column, Connection, MetaData, Table, bindparam, delete, insert, null, select, true

from honeyframe_connectors.api.kinds import now
from honeyframe_connectors.backfill.fields import Sealed, Split, sealed_fields, split
from honeyframe_connectors.backfill.report import Line, Outcome, Report, Undone, listed, plain
from honeyframe_connectors.connector_type import Category
from honeyframe_connectors.errors import Reason, Stalled
from honeyframe_connectors.registry import Registry
from honeyframe_connectors.store.database import Database, send
from honeyframe_connectors.store.tables import SCHEMA, connector_secret_history, data_connectors
from honeyframe_connectors.vault.rows import OPERATOR
from honeyframe_connectors.vault.vault import Vault

REASON: Final = "taken in from app_config"
"""Of the version that this backfill makes."""
PREFIX: Final = "notif_"
PLATFORM: Final = "platform"


@dataclass(frozen=True, slots=True)
class Channel:
    """One way to send notices, and how its settings become fields."""

    type: str
    name: str
    """Of the row that is made."""
    display_name: str
    keys: Mapping[str, str]
    """Key of `app_config`, without `notif_` -> field."""
    required: tuple[str, ...]
    secret: frozenset[str]
    """Where this release does not know the type; else its marks say."""
    switch: tuple[str, ...]
    """Keys that turn the channel on and off."""


CHANNELS: Final = (
    Channel(
        type="slack_webhook",
        name="slack-notifications",
        display_name="Slack notifications",
        keys=dict.fromkeys(("slack_webhook_url", "slack_webhook", "slack_url"), "url"),
        required=("url",),
        secret=frozenset({"url"}),
        switch=("slack_enabled",),
    ),
    Channel(
        type="webhook",
        name="webhook-notifications",
        display_name="Webhook notifications",
        keys={
            "webhook_url": "url",
            **dict.fromkeys(("webhook_auth", "webhook_auth_header", "webhook_authorization"), "headers.Authorization"),
            **dict.fromkeys(("webhook_token", "webhook_auth_token", "webhook_bearer_token"), "bearer_token"),
            **dict.fromkeys(("webhook_username", "webhook_user"), "username"),
            "webhook_password": "password",
            **dict.fromkeys(("webhook_secret", "webhook_signing_secret"), "signing_secret"),
            "webhook_headers": "headers",
        },
        required=("url",),
        secret=frozenset({"url", "headers", "bearer_token", "password", "signing_secret"}),
        switch=("webhook_enabled",),
    ),
    Channel(
        type="smtp_email",
        name="smtp-notifications",
        display_name="E-mail notifications",
        keys={
            "smtp_host": "host",
            "smtp_port": "port",
            **dict.fromkeys(("smtp_user", "smtp_username"), "username"),
            **dict.fromkeys(("smtp_password", "smtp_pass"), "password"),
            **dict.fromkeys(("smtp_from", "smtp_from_address", "email_from"), "from_address"),
            **dict.fromkeys(("smtp_to", "smtp_to_addresses", "smtp_recipients", "email_to"), "to_addresses"),
            **dict.fromkeys(("smtp_tls", "smtp_use_tls", "smtp_starttls"), "starttls"),
        },
        required=("host", "from_address", "to_addresses"),
        secret=frozenset({"password"}),
        switch=("smtp_enabled", "email_enabled"),
    ),
)
_KNOWN: Final = frozenset(key for channel in CHANNELS for key in (*channel.keys, *channel.switch))


@dataclass(frozen=True, slots=True)
class _Settings:
    """What an org has set."""

    org: str
    stored_org: Any
    """As the table has it."""
    values: Mapping[str, Any] = field(repr=False)
    """By key, without `notif_`."""


@dataclass(frozen=True, slots=True)
class _Run:
    """One run of the backfill; without `write` it keeps nothing."""

    vault: Vault
    registry: Registry
    project: str
    remove: bool
    write: bool

    def org(self, connection: Connection, settings: _Settings, ids: Sequence[str]) -> list[Line]:
        """One org's channels, as rows with these ids."""
        lines = [
            self._channel(connection, channel, settings, row_id)
            for channel, row_id in zip(CHANNELS, ids, strict=True)
            if settings.values.keys() & channel.keys.keys()
        ]
        unknown = [PREFIX + key for key in settings.values if key not in _KNOWN]
        if unknown:
            what = f"no setting of a channel, left in app_config: {listed(unknown)}"
            lines.append(Line(f"{plain(settings.org)} app_config", Outcome.LEFT, what))
        return lines

    def _channel(self, connection: Connection, channel: Channel, settings: _Settings, row_id: str) -> Line:
        def say(outcome: Outcome, what: str) -> Line:
            return Line(f"{plain(settings.org)}/{plain(self.project)}/{channel.name} ({channel.type})", outcome, what)

        chosen = {key: value for key, value in settings.values.items() if key in channel.keys}
        off = next((key for key in channel.switch if _is_off(settings.values.get(key))), None)
        if off is not None:
            return say(Outcome.LEFT, f"turned off by {PREFIX}{off}")
        place = {"org": settings.org, "project": self.project, "name": channel.name}
        there = connection.execute(_THERE, place).one_or_none()
        if there is not None and not _is_made_of_settings(there, channel):
            return say(Outcome.FAILED, "a connector of this name was not made from these settings: rename it")
        if there is not None:
            return say(Outcome.ALREADY, f"it is there; {self._settings_go(connection, channel, settings)}")
        try:
            found = split(_config(channel, chosen), self._sealed(channel))
        except ValueError as error:
            return say(Outcome.FAILED, str(error))
        if self.write:
            self._insert(connection, channel, row_id, settings.org, found)
        kept = self._settings_go(connection, channel, settings)
        return say(Outcome.DONE, f"made, {listed(found.secrets) or 'nothing'} in the vault; {kept}")

    def _sealed(self, channel: Channel) -> Sealed:
        try:
            return sealed_fields(self.registry.lookup(channel.type))
        except Stalled:
            return Sealed(channel.secret)

    def _insert(self, connection: Connection, channel: Channel, row_id: str, org: str, found: Split) -> None:
        values = {
            "id": row_id,
            "org": org,
            "project": self.project,
            "name": channel.name,
            "display_name": channel.display_name,
            "type": channel.type,
            "category": str(Category.MESSAGING),
            "config": found.config,
            "managed_by": PLATFORM,
            "revision": secrets.token_hex(16),
            "created_at": now(),
            "updated_at": now(),
        }
        connection.execute(insert(data_connectors), values)
        row = connection.execute(select(data_connectors).where(data_connectors.c.id == row_id)).one()
        type_ = self.registry.get(channel.type)
        send(connection, self.vault.take_in(row, type_, config=found.config, secrets=found.secrets, reason=REASON))

    def _settings_go(self, connection: Connection, channel: Channel, settings: _Settings) -> str:
        if not self.remove:
            return "its settings stay in app_config (--remove takes them away)"
        if self.write:
            table, org = _app_config(connection)
            mine = true() if org is None else org.is_not_distinct_from(settings.stored_org)
            keys = [PREFIX + key for key in (*channel.keys, *channel.switch)]
            connection.execute(delete(table).where(mine, table.c["key"].in_(keys)))
        return "its settings removed from app_config"


async def backfill_notifications(
    database: Database,
    vault: Vault,
    registry: Registry,
    report: Report,
    *,
    project: str,
    default_org: str,
    dry_run: bool,
    remove: bool,
) -> None:
    """Make the rows that are not there yet, in `project` of each org, and report each channel.

    `default_org` is the org of settings that name none. A dry run keeps nothing, not even a migration.

    Raises:
        Stalled: `InvalidConfig`, `app_config` is no table of settings.
        Waiting: `VaultUnavailable`; what was reported before is done.
    """
    run = _Run(vault, registry, project, remove, write=not dry_run)
    if dry_run:

        def rehearse(connection: Connection) -> None:
            for settings in _settings(connection, default_org):
                for line in run.org(connection, settings, [""] * len(CHANNELS)):
                    report(line)
            raise Undone

        with suppress(Undone):
            await vault.open(rehearse)
        return
    await vault.open()
    for settings in await database.read(partial(_settings, default_org=default_org)):
        ids = [await database.new_row_id() for _ in CHANNELS]
        for line in await database.write(partial(run.org, settings=settings, ids=ids)):
            report(line)


_THERE = (
    select(data_connectors.c.managed_by, data_connectors.c.type, connector_secret_history.c.reason)
    .select_from(data_connectors.outerjoin(connector_secret_history))
    .where(
        data_connectors.c.org == bindparam("org"),
        data_connectors.c.project == bindparam("project"),
        data_connectors.c.name == bindparam("name"),
        data_connectors.c.deleted_at.is_(None),
    )
    .order_by(connector_secret_history.c.version)
    .limit(1)
)
"""Whose a row is, and why its first version was made, where the row is there."""


def _is_made_of_settings(there: Any, channel: Channel) -> bool:
    """By an earlier run; a Connector may have taken it over since, and its first version may be gone."""
    return bool(there.type == channel.type and (there.reason == REASON or there.managed_by == OPERATOR))


def _app_config(connection: Connection) -> tuple[Table, Column[Any] | None]:
    """The table as it is, which may be the platform's, and its column for the org."""
    schema = None if connection.dialect.name == "sqlite" else SCHEMA
    table = Table("app_config", MetaData(), schema=schema, autoload_with=connection)
    if not {"key", "value"}.issubset(table.c.keys()):
        raise Stalled(Reason.INVALID_CONFIG, "the table app_config has no columns key and value: it holds no settings")
    return table, next((table.c[name] for name in ("org", "org_id") if name in table.c), None)


def _settings(connection: Connection, default_org: str) -> list[_Settings]:
    """The `notif_*` settings of each org."""
    table, org = _app_config(connection)
    named = table.c["key"].startswith(PREFIX, autoescape=True)
    by_org: dict[Any, dict[str, Any]] = {}
    for stored, key, value in connection.execute(
        select(null() if org is None else org, table.c["key"], table.c["value"]).where(named).order_by(table.c["key"])
    ):
        by_org.setdefault(stored, {})[key.removeprefix(PREFIX)] = _decoded(value)
    found = [_Settings(default_org if stored is None else str(stored), stored, by_org[stored]) for stored in by_org]
    return sorted(found, key=lambda each: each.org)


def _decoded(value: Any) -> Any:
    """Older installs wrote texts as they are, or as JSON."""
    if isinstance(value, str):
        value = value.strip()
        if value[:1] in ('"', "[", "{"):
            with suppress(orjson.JSONDecodeError):
                return orjson.loads(value)
    return value


def _is_off(value: Any) -> bool:
    return value is not None and str(value).lower() in ("false", "0", "no", "off")


def _config(channel: Channel, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that settings make.

    Raises:
        ValueError: they make no whole; the text holds no value.
    """
    config: dict[str, Any] = {}
    for key, value in settings.items():
        if value is not None and value != "":
            _set(config, channel.keys[key], value, PREFIX + key)
    missing = [name for name in channel.required if name not in config]
    if missing:
        keys = [PREFIX + key for key, name in channel.keys.items() if name == missing[0]]
        raise ValueError(f"{missing[0]} is missing: set {keys[0]} in the platform")
    return config


def _set(config: dict[str, Any], name: str, value: Any, key: str) -> None:
    match name:
        case "port":
            if not str(value).isdecimal():
                raise ValueError(f"{key} is no number: correct it in the platform")
            config[name] = int(value)
        case "to_addresses":
            config[name] = value if isinstance(value, list) else [each.strip() for each in str(value).split(",")]
        case "starttls":
            config[name] = not _is_off(value)
        case "headers":
            if not isinstance(value, Mapping):
                raise ValueError(f"{key} is no JSON object: correct it in the platform")  # noqa: TRY004 - as the others
            config[name] = {**value, **config.get(name, {})}
        case "headers.Authorization":
            scheme, _, token = str(value).partition(" ")
            if scheme.lower() == "bearer":
                config["bearer_token"] = token.strip()
            else:
                config["headers"] = {**config.get("headers", {}), "Authorization": value}
        case _:
            config[name] = value
