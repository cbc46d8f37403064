"""Every connector type of this distribution, in alphabetical order."""

from typing import Any

from honeyframe_connectors.connector_type import ConnectorType
from honeyframe_connectors.types.postgresql import PostgreSQL
from honeyframe_connectors.types.webhook import Webhook

ALL: tuple[ConnectorType[Any], ...] = (
    PostgreSQL(),
    Webhook(),
)
