"""Alembic's entry: runs on the connection that `Database.open` hands over."""

from alembic import context

from honeyframe_connectors.store.tables import SCHEMA, metadata

connection = context.config.attributes["connection"]
schema = SCHEMA if connection.dialect.name == "postgresql" else None
context.configure(
    connection=connection,
    target_metadata=metadata,
    render_as_batch=True,
    version_table_schema=schema,
    include_schemas=schema is not None,
)
with context.begin_transaction():
    context.run_migrations()
