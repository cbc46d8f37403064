"""Connectors with their versions, orgs, the audit log and the install.

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from honeyframe_connectors.store.migrations.older import (
    NOW,
    RANDOM,
    Fill,
    existing,
    id_type,
    make_index,
    make_table,
    number_versions,
)

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SCHEMA = "honeyframe"
JSON = sa.JSON().with_variant(JSONB(), "postgresql")
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make the first tables; the platform may have some of them already."""
    op.create_table(
        "install",
        sa.Column("one", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("install_id", sa.String(36), nullable=False),
        sa.Column("checks", JSON, nullable=False),
        sa.PrimaryKeyConstraint("one", name="pk_install"),
        schema=SCHEMA,
    )
    make_table(
        "data_connectors",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("org", sa.String(63), nullable=False),
        sa.Column("project", sa.String(253), nullable=False),
        sa.Column("name", sa.String(253), nullable=False),
        sa.Column("display_name", sa.String(256), nullable=False),
        sa.Column("type", sa.String(64), nullable=False),
        sa.Column("category", sa.String(64), nullable=False),
        sa.Column("config", JSON, nullable=False),
        sa.Column("connection_secrets_enc", sa.LargeBinary),
        sa.Column("managed_by", sa.String(32), nullable=False),
        sa.Column("cluster_id", sa.String(128)),
        sa.Column("namespace_uid", sa.String(64)),
        sa.Column("object_uid", sa.String(64)),
        sa.Column("deleted_at", MOMENT),
        sa.Column("serving_version", sa.Integer),
        sa.Column("last_version", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("config_mac", sa.String(64)),
        sa.Column("secret_mac", sa.String(64)),
        sa.Column("secret_name", sa.String(253)),
        sa.Column("revoked", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("pending", JSON),
        sa.Column("observed", JSON),
        sa.Column("wrapped_keys", sa.LargeBinary),
        sa.Column("row_mac", sa.String(64)),
        sa.Column("revision", sa.String(32), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_data_connectors"),
        key=["id"],
        required=["id", "name", "type", "config"],
        fills={
            "org": Fill("'default'", copies=("org_id",)),
            "project": Fill("'default'", copies=("project_id",)),
            "display_name": Fill("''", copies=("name",)),
            "category": Fill("''"),
            "managed_by": Fill("'platform'"),
            "revision": RANDOM,
            "created_at": NOW,
            "updated_at": NOW,
        },
    )
    make_index(
        "uq_data_connectors_live_name",
        "data_connectors",
        ["org", "project", "name"],
        unique=True,
        where="deleted_at IS NULL",
    )
    make_index("ix_data_connectors_owner", "data_connectors", ["cluster_id", "namespace_uid", "name"])
    unnumbered = "version" not in (existing("connector_secret_history") or {"version": None})
    make_table(
        "connector_secret_history",
        sa.Column("connector_id", id_type(), nullable=False),
        sa.Column("version", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("config", JSON, nullable=False),
        sa.Column("secrets_enc", sa.LargeBinary, nullable=False),
        sa.Column("ca", sa.Text),
        sa.Column("test_status", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False, server_default=sa.text("''")),
        sa.Column("restored_from", sa.Integer),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("connector_id", "version", name="pk_connector_secret_history"),
        sa.ForeignKeyConstraint(
            ["connector_id"],
            [f"{SCHEMA}.data_connectors.id"],
            name="fk_connector_secret_history_connector_id",
            ondelete="CASCADE",
        ),
        key=[] if unnumbered else ["connector_id", "version"],
        required=["connector_id"],
        fills={
            "version": Fill("0"),
            "config": Fill("'{}'"),
            "secrets_enc": Fill("''"),
            "test_status": Fill("'skipped'"),
            "created_at": NOW,
        },
    )
    if unnumbered:
        number_versions()
    make_table(
        "orgs",
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("catalog_config", JSON),
        sa.Column("engine_profile", sa.String(32), nullable=False, server_default=sa.text("'dbt'")),
        sa.Column("holder", JSON),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_orgs"),
        key=["name"],
        required=["name"],
        fills={"updated_at": NOW},
    )
    make_table(
        "audit_log",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("subject", sa.String(512), nullable=False),
        sa.Column("detail", JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_log"),
        key=["id"],
        required=["id"],
        generated=["id"],
        fills={"at": NOW, "action": Fill("''"), "subject": Fill("''"), "detail": Fill("'{}'")},
    )
    make_index("ix_audit_log_subject", "audit_log", ["subject", "at"])


def downgrade() -> None:
    """Migrations only expand."""
    raise RuntimeError("migrations only expand: restore a backup to go back")
