"""What rotation, rollback, deletion, tests and usage need.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from honeyframe_connectors.store.migrations.older import id_type

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

SCHEMA = "honeyframe"
JSON = sa.JSON().with_variant(JSONB(), "postgresql")
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add columns to what is there, and the tables that are not."""
    # Alembic's own ALTER TABLE does not go through the translation that takes the schema away on SQLite.
    schema = None if op.get_bind().dialect.name == "sqlite" else SCHEMA
    for column in (
        sa.Column("held", sa.String(64)),
        sa.Column("forced", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("handled_rollback_at", sa.String(64)),
        sa.Column("deletion_policy", sa.String(16), nullable=False, server_default=sa.text("'Delete'")),
        sa.Column("purge_at", MOMENT),
        sa.Column("rekeyed_at", MOMENT),
    ):
        op.add_column("data_connectors", column, schema=schema)
    op.add_column("connector_secret_history", sa.Column("secret_mac", sa.String(64)), schema=schema)
    op.create_table(
        "clusters",
        sa.Column("cluster_id", sa.String(128), nullable=False),
        sa.Column("process_id", sa.String(36), nullable=False),
        sa.Column("renewed_at", MOMENT, nullable=False),
        sa.Column("released", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.PrimaryKeyConstraint("cluster_id", name="pk_clusters"),
        schema=SCHEMA,
    )
    op.create_table(
        "login_refusals",
        sa.Column("namespace_uid", sa.String(64), nullable=False),
        sa.Column("target", sa.String(64), nullable=False),
        sa.Column("secret_mac", sa.String(64), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("refused_at", MOMENT, nullable=False),
        sa.Column("next_at", MOMENT, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("namespace_uid", "target", "secret_mac", name="pk_login_refusals"),
        schema=SCHEMA,
    )
    op.create_table(
        "connector_tests",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("connector_id", id_type()),
        sa.Column("org", sa.String(63), nullable=False),
        sa.Column("project", sa.String(253), nullable=False),
        sa.Column("type", sa.String(64), nullable=False),
        sa.Column("ok", sa.Boolean, nullable=False),
        sa.Column("latency_ms", sa.Integer, nullable=False),
        sa.Column("error", sa.Text, nullable=False, server_default=sa.text("''")),
        sa.Column("steps", JSON, nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_connector_tests"),
        sa.ForeignKeyConstraint(
            ["connector_id"],
            [f"{SCHEMA}.data_connectors.id"],
            name="fk_connector_tests_connector_id",
            ondelete="CASCADE",
        ),
        schema=SCHEMA,
    )
    op.create_index("ix_connector_tests_connector", "connector_tests", ["connector_id", "at"], schema=SCHEMA)
    not_applied = sa.text("connector_id IS NULL")
    op.create_index(
        "ix_connector_tests_not_applied",
        "connector_tests",
        ["org", "project", "at"],
        sqlite_where=not_applied,
        postgresql_where=not_applied,
        schema=SCHEMA,
    )
    _create_what_the_platform_may_have(set(sa.inspect(op.get_bind()).get_table_names(schema)))


def _create_what_the_platform_may_have(there: set[str]) -> None:
    """The platform's own tables: where it runs on this database they are there already, and are left as they are."""
    for table in ("datasets", "agent_tools"):
        if table in there:
            continue
        op.create_table(
            table,
            sa.Column("id", sa.String(36), nullable=False),
            sa.Column("org", sa.String(63), nullable=False),
            sa.Column("project", sa.String(253), nullable=False),
            sa.Column("name", sa.String(253), nullable=False),
            sa.Column("connector_id", id_type()),
            sa.Column("last_used_at", MOMENT),
            sa.PrimaryKeyConstraint("id", name=f"pk_{table}"),
            schema=SCHEMA,
        )
        op.create_index(f"ix_{table}_connector", table, ["connector_id", "last_used_at"], schema=SCHEMA)
    if "app_config" not in there:
        op.create_table(
            "app_config",
            sa.Column("org", sa.String(63), nullable=False),
            sa.Column("key", sa.String(128), nullable=False),
            sa.Column("value", sa.Text, nullable=False),
            sa.PrimaryKeyConstraint("org", "key", name="pk_app_config"),
            schema=SCHEMA,
        )


def downgrade() -> None:
    """Migrations only expand."""
    raise RuntimeError("migrations only expand: restore a backup to go back")
