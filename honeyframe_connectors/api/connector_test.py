"""The kind ConnectorTest: a question that is answered once, and then goes away: does this work?"""

from datetime import datetime
from typing import Literal

from pydantic import Field, model_validator

from honeyframe_connectors.api.connector import HealthStep, Reach
from honeyframe_connectors.api.kinds import Condition, Kind, Model

KIND = Kind(
    kind="ConnectorTest",
    plural="connectortests",
    short_names=("conntest",),
    columns=(
        {"name": "Connector", "type": "string", "jsonPath": ".spec.connectorRef.name"},
        {"name": "OK", "type": "boolean", "jsonPath": ".status.result.ok"},
        {"name": "Latency", "type": "integer", "jsonPath": ".status.result.latencyMs"},
        {"name": "Error", "type": "string", "jsonPath": ".status.result.error"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ),
    description="A question that is answered once in its status and then goes away: does this Connector, or one that "
    "is not applied, work? Nothing is changed by it.",
)
DEFAULT_TTL_SECONDS = 600


class ConnectorRef(Model):
    """A Connector of the same namespace."""

    name: str = Field(description="Its name; it must be in the same namespace.", min_length=1, max_length=253)


class Message(Model):
    """A message to send."""

    subject: str = Field(description="The subject, or the title.", min_length=1, max_length=256)
    body: str = Field(default="", description="The text.", max_length=4096)
    severity: Literal["info", "warning", "critical"] = Field(
        default="info", description="How grave it is: info, warning or critical. Default: info."
    )
    to: str | None = Field(
        default=None, description="To whom, where the type has recipients: a number or an address.", max_length=256
    )


class ConnectorTestSpec(Model):
    """What is asked. Exactly one of connectorRef and connector; none of it can be changed."""

    connector_ref: ConnectorRef | None = Field(
        default=None, description="Tests the version of this Connector that serves, suspended or not."
    )
    connector: Reach | None = Field(
        default=None,
        description="Tests a Connector's spec that is not applied. Its Secret must be in this namespace, labelled, "
        "and hold the values themselves.",
    )
    message: Message | None = Field(
        default=None,
        description="Sends this message through the Connector that connectorRef names, at most once, instead of "
        "testing it.",
    )
    ttl_seconds_after_finished: int = Field(
        default=DEFAULT_TTL_SECONDS,
        description="Seconds from its answer until it is deleted. Default: 600.",
        ge=0,
        le=604_800,
    )

    @model_validator(mode="after")
    def _one_question(self) -> "ConnectorTestSpec":
        if (self.connector_ref is None) == (self.connector is None):
            raise ValueError("write exactly one of connectorRef and connector")
        if self.message is not None and self.connector_ref is None:
            raise ValueError("a message is sent through an applied Connector: name it in connectorRef")
        return self


class Answer(Model):
    """What came of it."""

    ok: bool = Field(description="Whether it works.")
    latency_ms: int | None = Field(default=None, description="How long the check took, in milliseconds.", ge=0)
    error: str | None = Field(default=None, description="What went wrong.", max_length=1024)
    server_version: str | None = Field(default=None, description="What the server calls itself.", max_length=256)
    steps: tuple[HealthStep, ...] = Field(default=(), description="The check, step by step.", max_length=16)


class ConnectorTestStatus(Model):
    """The answer. Nothing in it derives from a secret."""

    observed_generation: int = Field(default=-1, description="The metadata.generation last acted on; -1: none yet.")
    started_at: datetime | None = Field(
        default=None, description="When it was begun. A message that was begun is never sent again."
    )
    completed_at: datetime | None = Field(default=None, description="When it was answered.")
    result: Answer | None = Field(default=None, description="The answer.")
    conditions: tuple[Condition, ...] = Field(
        default=(),
        description="Ready; Reconciling until it is answered; then Complete, or Failed and Stalled.",
    )
