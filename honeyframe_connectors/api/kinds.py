"""What all kinds share: group, version, labels, annotations and the shape of a spec and a condition."""

import re
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

GROUP = "honeyframe.io"
VERSION = "v1beta1"
API_VERSION = f"{GROUP}/{VERSION}"

CREDENTIALS_LABEL = "honeyframe.io/credentials"
"""A Secret opts in by this label with the value "true"."""
ORG_LABEL = "honeyframe.io/org"
"""A namespace's org."""
RECONCILE_ANNOTATION = "reconcile.fluxcd.io/requestedAt"
"""Check now; its value is an RFC 3339 time, and acts once."""
ROLLBACK_ANNOTATION = "honeyframe.io/rollback-to"
"""`VERSION@TIME`: bring the secret values of a version back; acts once."""
FORCE_ANNOTATION = "honeyframe.io/force-rotation"
"""Let a content in although no check passes: its value is `status.credentials.pending.id`."""
ADOPT_ANNOTATION = "honeyframe.io/adopt"
"""Take over the row with this connector id."""
TARGETS_ANNOTATION = "honeyframe.io/targets"
"""On a Secret: where its values may go, as `host:port` or `*.domain:port`, separated by commas."""
REASON_ANNOTATION = "honeyframe.io/rotation-reason"
"""On a Secret: why its values changed; kept with the version."""
LONGEST_REASON = 256
"""Characters of a rotation's reason that are kept."""
LONGEST_TOKEN = 64
"""Characters of a token; a longer one is none."""

_DURATION = r"^(0|([0-9]+(\.[0-9]+)?(ms|s|m|h))+)$"
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(duration: str) -> float:
    """A duration as Flux writes it (``1h30m``, ``10s``, ``0``) in seconds."""
    return sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"([0-9.]+)(ms|s|m|h)", duration))


def parse_duration(text: str) -> float | None:
    """A duration that somebody wrote, in seconds, or None where it is none."""
    return seconds(text) if re.fullmatch(_DURATION, text) else None


Duration = Annotated[str, Field(pattern=_DURATION, max_length=32)]


def _positive(duration: str) -> str:
    if seconds(duration) <= 0:
        raise ValueError("must be greater than 0")
    return duration


PositiveDuration = Annotated[Duration, AfterValidator(_positive)]
LONGEST_TIMEOUT = 120.0
"""Seconds that one check may take at most: a worker waits for it."""


def _timeout(duration: str) -> str:
    if seconds(duration) > LONGEST_TIMEOUT:
        raise ValueError("must be 2m at most")
    return _positive(duration)


Timeout = Annotated[Duration, AfterValidator(_timeout)]


class Model(BaseModel):
    """A part of a kind: camelCase in YAML, snake_case here; unknown fields are refused."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True, hide_input_in_errors=True
    )


class ConditionType(StrEnum):
    """The conditions. All are true when things are well, but the two that kstatus reads as abnormal."""

    READY = "Ready"
    """What is declared is what serves, and it works."""
    CONFIG_VALID = "ConfigValid"
    """The spec can be used as it is."""
    CREDENTIALS_IN_SYNC = "CredentialsInSync"
    """The secret values that serve are those that the Secret holds."""
    HEALTHY = "Healthy"
    """The last check of what serves passed."""
    RECONCILING = "Reconciling"
    """Abnormal: not there yet, and time may bring it there. Present only while True."""
    STALLED = "Stalled"
    """Abnormal: a person must act. Present only while True."""
    COMPLETE = "Complete"
    """A question was answered with yes. Present only while True."""
    FAILED = "Failed"
    """A question was answered with no, or cannot be. Present only while True."""


class Condition(Model):
    """One observation, as `metav1.Condition`."""

    type: str = Field(description="Which condition this is.", max_length=316)
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    reason: str = Field(description="Why, in one word that programs may read.", max_length=1024)
    message: str = Field(description="Why, for people; ends with what mends it.", max_length=32768)
    observed_generation: int = Field(description="The metadata.generation that this was said about.", ge=0)
    last_transition_time: datetime = Field(description="When the status last changed.")


class Kind(BaseModel):
    """How a kind is named in the API, and what `kubectl get` shows of it."""

    model_config = ConfigDict(frozen=True)

    kind: str
    plural: str
    short_names: tuple[str, ...] = ()
    columns: tuple[dict[str, Any], ...] = ()
    selectable: tuple[str, ...] = ()
    description: str


def now() -> datetime:
    """The time, to the second as Kubernetes writes it."""
    return datetime.now(UTC).replace(microsecond=0)


def timestamp(moment: datetime) -> str:
    """A moment as Kubernetes writes it: RFC 3339 in UTC, to the second."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_timestamp(text: str) -> datetime | None:
    """An RFC 3339 time, or None where it is none."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else None


def sentences(error: ValidationError, prefix: str) -> str:
    """What is wrong with a spec and where, without any value of it."""
    return "; ".join(
        f"{'.'.join((prefix, *map(str, problem['loc'])))}: {problem['msg'][0].lower()}{problem['msg'][1:]}"
        for problem in error.errors(include_input=False, include_url=False, include_context=False)
    )
