"""The kind CatalogConfig: an org's metadata adapters and its engine profile."""

from typing import Any, Literal

from pydantic import Field

from honeyframe_connectors.api.kinds import Condition, Kind, Model, PositiveDuration

KIND = Kind(
    kind="CatalogConfig",
    plural="catalogconfigs",
    short_names=("catcfg",),
    selectable=(".spec.org",),
    columns=(
        {"name": "Org", "type": "string", "jsonPath": ".spec.org"},
        {"name": "Adapters", "type": "string", "jsonPath": ".status.adapterNames"},
        {"name": "Engine", "type": "string", "jsonPath": ".status.engineProfile"},
        {"name": "Ready", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Ready")].status'},
        {"name": "Status", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Ready")].reason'},
        {
            "name": "Message",
            "type": "string",
            "jsonPath": '.status.conditions[?(@.type=="Ready")].message',
            "priority": 1,
        },
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ),
    description="The metadata adapters of an org and the engine that builds its datasets. One per org.",
)

AdapterName = Literal["dbt", "native", "saphana"]
DEFAULT_ADAPTERS: list[dict[str, Any]] = [{"adapter": "dbt"}]


class Adapter(Model):
    """One source of metadata."""

    adapter: AdapterName = Field(description="Which adapter: dbt, native or saphana.")
    instance_name: str | None = Field(
        default=None,
        description="Tells two of the same adapter apart; unique in the list. Default: the adapter's name.",
        min_length=1,
        max_length=63,
    )
    config: dict[str, Any] = Field(default_factory=dict, description="The adapter's own settings.")

    @property
    def instance(self) -> str:
        """The name that must be unique."""
        return self.instance_name or self.adapter


class CatalogConfigSpec(Model):
    """What is declared of an org's catalog."""

    org: str = Field(
        description="The org; must be that of the namespace. It cannot be changed.", min_length=1, max_length=63
    )
    interval: PositiveDuration = Field(
        default="10m", description="How often the org's row is looked at, such as 10m. Default: 10m."
    )
    adapters: tuple[Adapter, ...] = Field(
        default=(), description="The sources of metadata. Absent or empty: dbt alone.", max_length=32
    )
    engine_profile: Literal["dbt", "native"] | None = Field(
        default=None, description="The engine that builds datasets. Absent: left as it is."
    )


class CatalogConfigStatus(Model):
    """What the operator found."""

    observed_generation: int = Field(default=-1, description="The metadata.generation last acted on; -1: none yet.")
    last_handled_reconcile_at: str | None = Field(
        default=None, description="The last reconcile.fluxcd.io/requestedAt that was acted on.", max_length=64
    )
    org: str | None = Field(default=None, description="The org whose catalog this declares.", max_length=63)
    adapter_names: str | None = Field(default=None, description="The adapters that are in force.", max_length=4096)
    engine_profile: str | None = Field(default=None, description="The engine that is in force.", max_length=63)
    conditions: tuple[Condition, ...] = Field(
        default=(), description="Ready, ConfigValid; Reconciling or Stalled while True."
    )
