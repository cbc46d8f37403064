"""The tables of the metadata store, as the migrations leave them.

They stand in the schema `honeyframe`; on SQLite, which has none, in the file itself.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    false,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeEngine, UserDefinedType

SCHEMA = "honeyframe"

metadata = MetaData(
    schema=SCHEMA,
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    },
)
Json = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


class Moment(TypeDecorator[datetime]):
    """A time with its zone: SQLite keeps none, so it is UTC there and on the way out."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """To UTC; a time without a zone is a mistake."""
        if value is not None and value.tzinfo is None:
            raise ValueError("a time needs a zone")
        return value.astimezone(UTC) if value is not None else None

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """With its zone."""
        if value is None:
            return None
        moment: datetime = value
        return moment.astimezone(UTC) if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


class _Text(UserDefinedType[str]):
    """Text whose parameter goes without a cast: PostgreSQL then takes it as whatever the column is."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "VARCHAR(36)"


class RowId(TypeDecorator[str]):
    """A connector's id: text where we made the table, a UUID or a number where the platform made it before us."""

    impl = String(36)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Uncast on PostgreSQL."""
        return dialect.type_descriptor(_Text() if dialect.name == "postgresql" else String(36))

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Always text."""
        return None if value is None else str(value)


class Sealed(TypeDecorator[bytes]):
    """Bytes; in a column of text, which the platform may have made before us, as PostgreSQL writes bytes in text."""

    impl = LargeBinary
    cache_ok = True

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], bytes | None]:  # noqa: ARG002
        """What of a text is not of that form is somebody else's: its characters."""

        def process(value: Any) -> bytes | None:
            if not isinstance(value, str):
                return None if value is None else bytes(value)
            try:
                return bytes.fromhex(value.removeprefix("\\x")) if value.startswith("\\x") else value.encode()
            except ValueError:
                return value.encode()

        return process


install = Table(
    "install",
    metadata,
    Column("one", Integer, primary_key=True, autoincrement=False),
    Column("install_id", String(36), nullable=False),
    Column("checks", Json, nullable=False),
)
"""One row: the install's id, and for each key id in use a sealed value that only that key opens."""

data_connectors = Table(
    "data_connectors",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("org", String(63), nullable=False),
    Column("project", String(253), nullable=False),
    Column("name", String(253), nullable=False),
    Column("display_name", String(256), nullable=False),
    Column("type", String(64), nullable=False),
    Column("category", String(64), nullable=False),
    Column("config", Json, nullable=False),
    Column("connection_secrets_enc", Sealed),
    Column("managed_by", String(32), nullable=False),
    Column("cluster_id", String(128)),
    Column("namespace_uid", String(64)),
    Column("object_uid", String(64)),
    Column("deleted_at", Moment),
    Column("serving_version", Integer),
    Column("last_version", Integer, nullable=False, server_default=text("0")),
    Column("config_mac", String(64)),
    Column("secret_mac", String(64)),
    Column("secret_name", String(253)),
    Column("revoked", Boolean, nullable=False, server_default=false()),
    Column("pending", Json),
    Column("observed", Json),
    Column("wrapped_keys", LargeBinary),
    Column("row_mac", String(64)),
    Column("held", String(64)),
    Column("forced", Boolean, nullable=False, server_default=false()),
    Column("handled_rollback_at", String(64)),
    Column("deletion_policy", String(16), nullable=False, server_default=text("'Delete'")),
    Column("purge_at", Moment),
    Column("rekeyed_at", Moment),
    Column("revision", String(32), nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    Index(
        "uq_data_connectors_live_name",
        "org",
        "project",
        "name",
        unique=True,
        sqlite_where=text("deleted_at IS NULL"),
        postgresql_where=text("deleted_at IS NULL"),
    ),
    Index("ix_data_connectors_owner", "cluster_id", "namespace_uid", "name"),
)

connector_secret_history = Table(
    "connector_secret_history",
    metadata,
    Column(
        "connector_id",
        RowId,
        ForeignKey(f"{SCHEMA}.data_connectors.id", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("config", Json, nullable=False),
    Column("secrets_enc", Sealed, nullable=False),
    Column("ca", Text),
    Column("secret_mac", String(64)),
    Column("test_status", String(16), nullable=False),
    Column("reason", Text, nullable=False, server_default=text("''")),
    Column("restored_from", Integer),
    Column("created_at", Moment, nullable=False),
)

orgs = Table(
    "orgs",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("catalog_config", Json),
    Column("engine_profile", String(32), nullable=False, server_default=text("'dbt'")),
    Column("holder", Json),
    Column("updated_at", Moment, nullable=False),
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", Moment, nullable=False),
    Column("action", String(64), nullable=False),
    Column("subject", String(512), nullable=False),
    Column("detail", Json, nullable=False),
    Index("ix_audit_log_subject", "subject", "at"),
)

clusters = Table(
    "clusters",
    metadata,
    Column("cluster_id", String(128), primary_key=True),
    Column("process_id", String(36), nullable=False),
    Column("renewed_at", Moment, nullable=False),
    Column("released", Boolean, nullable=False, server_default=false()),
)
"""One row a cluster: which process leads there, and when, by the database's clock, it last said so."""

login_refusals = Table(
    "login_refusals",
    metadata,
    Column("namespace_uid", String(64), primary_key=True),
    Column("target", String(64), primary_key=True),
    Column("secret_mac", String(64), primary_key=True),
    Column("attempts", Integer, nullable=False),
    Column("refused_at", Moment, nullable=False),
    Column("next_at", Moment, nullable=False),
    Column("message", Text, nullable=False),
)
"""Logins that were refused, or never answered: which values at which destination and account, as keyed MACs."""

connector_tests = Table(
    "connector_tests",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("connector_id", RowId, ForeignKey(f"{SCHEMA}.data_connectors.id", ondelete="CASCADE")),
    Column("org", String(63), nullable=False),
    Column("project", String(253), nullable=False),
    Column("type", String(64), nullable=False),
    Column("ok", Boolean, nullable=False),
    Column("latency_ms", Integer, nullable=False),
    Column("error", Text, nullable=False, server_default=text("''")),
    Column("steps", Json, nullable=False),
    Column("at", Moment, nullable=False),
    Index("ix_connector_tests_connector", "connector_id", "at"),
    Index(
        "ix_connector_tests_not_applied",
        "org",
        "project",
        "at",
        sqlite_where=text("connector_id IS NULL"),
        postgresql_where=text("connector_id IS NULL"),
    ),
)
"""What was asked by ConnectorTests and answered."""

datasets = Table(
    "datasets",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("org", String(63), nullable=False),
    Column("project", String(253), nullable=False),
    Column("name", String(253), nullable=False),
    Column("connector_id", RowId),
    Column("last_used_at", Moment),
    Index("ix_datasets_connector", "connector_id", "last_used_at"),
)
"""The platform's: what was made from a connector."""

agent_tools = Table(
    "agent_tools",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("org", String(63), nullable=False),
    Column("project", String(253), nullable=False),
    Column("name", String(253), nullable=False),
    Column("connector_id", RowId),
    Column("last_used_at", Moment),
    Index("ix_agent_tools_connector", "connector_id", "last_used_at"),
)
"""The platform's: which tools of agents use a connector."""

app_config = Table(
    "app_config",
    metadata,
    Column("org", String(63), primary_key=True),
    Column("key", String(128), primary_key=True),
    Column("value", Text, nullable=False),
)
"""The platform's settings of older installs, `notif_*` among them."""
