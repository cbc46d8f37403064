"""Tokens of annotations that act once: RFC 3339 times, each later than the one that was handled last."""

from datetime import UTC, datetime, timedelta
from typing import Any

from honeyframe_connectors.api.kinds import parse_timestamp
from honeyframe_connectors.cli.cluster import Body
from honeyframe_connectors.cli.faults import Fault
from honeyframe_connectors.cli.objects import status


def later(handled: Any) -> str:
    """An RFC 3339 token of now that is later than the one handled last."""
    moment = datetime.now(UTC)
    last = parse_timestamp(handled) if isinstance(handled, str) else None
    if last is not None and last >= moment:
        moment = last.astimezone(UTC) + timedelta(microseconds=1)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def handled(body: Body, field: str, token: str) -> bool:
    """Whether a token, or a later one, was handled as `status.FIELD` says."""
    shown, asked = parse_timestamp(str(status(body).get(field))), parse_timestamp(token)
    return shown is not None and asked is not None and shown >= asked


def not_suspended(body: Body, namespace: str) -> None:
    """Refuse to wait for what would happen at resume only.

    Raises:
        Fault: the Connector is suspended.
    """
    name = body["metadata"]["name"]
    if body["spec"].get("suspend"):
        raise Fault(
            f"Connector {name} is suspended, so nothing is tested or changed: resume it first, with "
            f"""kubectl -n {namespace} patch connector {name} --type=merge -p '{{"spec":{{"suspend":false}}}}'"""
        )
