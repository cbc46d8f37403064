"""The kind Connector: how to reach one external system."""

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from honeyframe_connectors.api.kinds import Condition, Duration, Kind, Model, Timeout

KIND = Kind(
    kind="Connector",
    plural="connectors",
    short_names=("conn",),
    selectable=(".status.type", ".spec.secretRef.name"),
    columns=(
        {"name": "Type", "type": "string", "jsonPath": ".status.type"},
        {"name": "Ready", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Ready")].status'},
        {"name": "Status", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Ready")].reason'},
        {"name": "Credential", "type": "string", "jsonPath": ".status.credentials.summary"},
        {"name": "Datasets", "type": "integer", "jsonPath": ".status.usage.datasets"},
        {"name": "Tools", "type": "integer", "jsonPath": ".status.usage.agentTools"},
        {"name": "Last-Used", "type": "date", "jsonPath": ".status.usage.lastUsedAt"},
        {"name": "Latency", "type": "integer", "jsonPath": ".status.health.latencyMs", "priority": 1},
        {
            "name": "Message",
            "type": "string",
            "jsonPath": '.status.conditions[?(@.type=="Ready")].message',
            "priority": 1,
        },
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ),
    description="How to reach one external system: a database, an object store, an LLM API, a webhook. "
    "Its credential is tested before it is stored, and before it replaces the one that works.",
)


class SecretRef(Model):
    """Where the secret values are."""

    name: str = Field(
        description='A Secret of the same namespace that bears the label honeyframe.io/credentials: "true".',
        min_length=1,
        max_length=253,
    )
    keys: dict[str, str] = Field(
        default_factory=dict,
        description="Field of the type -> key in the Secret, where the names differ. "
        "Default: each secret field's own name, where the Secret has it.",
        max_length=64,
    )


class CARef(Model):
    """Which certificate authority is trusted for TLS instead of the public ones."""

    kind: Literal["ConfigMap", "Secret"] = Field(description="What holds the certificates.")
    name: str = Field(description="Its name, in the same namespace.", min_length=1, max_length=253)
    key: str = Field(
        default="ca.crt", description="The key that holds CERTIFICATE blocks (PEM). Default: ca.crt.", max_length=253
    )


class Reach(Model):
    """What it takes to reach an external system."""

    config: dict[str, dict[str, Any]] = Field(
        description="Exactly one member, the type, with that type's settings. Secrets do not belong here: they come "
        "from the Secret that spec.secretRef names. A type without settings is written {}.",
        min_length=1,
        max_length=1,
    )
    secret_ref: SecretRef | None = Field(default=None, description="Where the secret values are.")
    ca_ref: CARef | None = Field(
        default=None, description="The certificate authority to trust for TLS instead of the public ones."
    )
    output_schemas: tuple[str, ...] = Field(
        default=(),
        description="The schemas that may be discovered and read. Default: those that the connector owns.",
        max_length=256,
    )
    timeout: Timeout = Field(
        default="10s", description="How long one check may take, such as 10s; 2m at most. Default: 10s."
    )


class ConnectorSpec(Reach):
    """What is declared of a connector."""

    display_name: str | None = Field(
        default=None, description="The name shown to people. Default: metadata.name.", max_length=256
    )
    description: str | None = Field(default=None, description="What it is for.", max_length=2048)
    interval: Duration = Field(
        default="5m",
        description='How often what serves is checked, such as 30s or 1h. "0s": on change only. Default: 5m.',
    )
    suspend: bool = Field(
        default=False,
        description="Stops checks and changes; what serves goes on. Default: false.",
    )
    failure_threshold: int = Field(
        default=3,
        description="How many checks in a row must fail before Ready turns False. Default: 3.",
        ge=1,
        le=100,
    )
    history_limit: int = Field(
        default=10,
        description="How many distinct secret values are kept in the history, the newest version of each. Default: 10.",
        ge=1,
        le=100,
    )
    deletion_policy: Literal["Delete", "Retain"] = Field(
        default="Delete",
        description="What becomes of the vault's row, with its history, after this object is deleted: Delete purges it "
        "after the operator's --purge-after, Retain keeps it. Default: Delete.",
    )


class Pending(Model):
    """A declared content that does not serve (yet)."""

    id: str = Field(
        description="Random; names this content: the annotation honeyframe.io/force-rotation with it lets it in "
        "although no check passes.",
        max_length=64,
    )
    reason: str = Field(description="Why it does not serve.", max_length=64)
    since: datetime = Field(description="When it was first found wanting.")
    next_try_at: datetime | None = Field(default=None, description="When it is tried again.")


class HistoryEntry(Model):
    """One version that is kept, without anything of what it holds."""

    version: int = Field(description="Its number; none is used twice.", ge=1)
    at: datetime = Field(description="When it was made.")
    test_status: Literal["passed", "skipped", "failed", "rollback"] = Field(
        description="How its test went: passed; skipped, where the type cannot be tested; failed and let in by force; "
        "rollback, tested and brought back."
    )
    reason: str | None = Field(
        default=None, description="The Secret's annotation honeyframe.io/rotation-reason at that time.", max_length=256
    )
    restored_from: int | None = Field(default=None, description="The version whose values it brought back.", ge=1)


class Credentials(Model):
    """The credential that serves, and the one that does not yet."""

    version: int | None = Field(default=None, description="The version that serves.", ge=1)
    state: Literal["Revoked", "Missing", "Held", "Testing", "Refused", "Unanswered", "Forced", "InSync"] = Field(
        description="How the declared content stands to what serves: the first of these that is true."
    )
    summary: str = Field(description="Version and state in one word or two.", max_length=64)
    rotated_at: datetime | None = Field(default=None, description="When the version that serves was made.")
    pending: Pending | None = Field(default=None, description="The content that does not serve yet.")
    history: tuple[HistoryEntry, ...] = Field(
        default=(), description="The versions that are kept, newest first.", max_length=101
    )


class HealthStep(Model):
    """One step of a check."""

    name: str = Field(description="What was tried.", max_length=64)
    passed: bool | None = Field(default=None, description="How it went; absent: not tested.")
    message: str | None = Field(default=None, description="More about it.", max_length=1024)


class Health(Model):
    """The last check of what serves, as of its last transition."""

    ok: bool = Field(description="Whether it passed.")
    latency_ms: int | None = Field(default=None, description="How long it took, in milliseconds.", ge=0)
    error: str | None = Field(default=None, description="What went wrong.", max_length=1024)
    since: datetime = Field(description="Since when it is so.")
    consecutive_failures: int = Field(default=0, description="Failures in a row, as of the transition.", ge=0)
    server_version: str | None = Field(default=None, description="What the server calls itself.", max_length=256)
    steps: tuple[HealthStep, ...] = Field(default=(), description="The check, step by step.", max_length=16)


class RecentUse(Model):
    """One dataset or agent tool that uses a connector."""

    kind: Literal["dataset", "agentTool"] = Field(description="What it is.")
    name: str = Field(description="Its name.", max_length=253)
    last_used_at: datetime | None = Field(default=None, description="When it was last used.")


class Usage(Model):
    """What uses the connector, as the platform's tables say."""

    datasets: int = Field(description="How many datasets.", ge=0)
    agent_tools: int = Field(description="How many tools of agents.", ge=0)
    last_used_at: datetime | None = Field(default=None, description="When it was last used, in steps of 15 minutes.")
    recent: tuple[RecentUse, ...] = Field(default=(), description="The ten most recent of them.", max_length=10)


class ConnectorStatus(Model):
    """What the operator found. Nothing in it derives from a secret."""

    observed_generation: int = Field(default=-1, description="The metadata.generation last acted on; -1: none yet.")
    last_handled_reconcile_at: str | None = Field(
        default=None, description="The last reconcile.fluxcd.io/requestedAt that was acted on.", max_length=64
    )
    last_handled_rollback_at: str | None = Field(
        default=None, description="The time of the last honeyframe.io/rollback-to that was acted on.", max_length=64
    )
    connector_id: str | None = Field(default=None, description="The connector's id in the platform.", max_length=64)
    served_version: int | None = Field(
        default=None, description="The version that sync, discovery and queries use; absent: none serves.", ge=1
    )
    type: str | None = Field(default=None, description="The connector's type.", max_length=64)
    category: str | None = Field(default=None, description="What the type is for.", max_length=64)
    queryable: bool | None = Field(default=None, description="Whether it can be the source of a dataset.")
    credentials: Credentials | None = Field(default=None, description="The credential.")
    health: Health | None = Field(default=None, description="The last check of what serves.")
    usage: Usage | None = Field(default=None, description="What uses the connector.")
    conditions: tuple[Condition, ...] = Field(
        default=(), description="Ready, ConfigValid, CredentialsInSync, Healthy; Reconciling or Stalled while True."
    )
