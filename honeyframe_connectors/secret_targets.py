"""Where the values of a Secret may go, as its owner says in the annotation `honeyframe.io/targets`.

Who may edit a Connector but not read its Secret could otherwise have it sent to a server of his own.
"""

from collections.abc import Iterable

from honeyframe_connectors.api.kinds import TARGETS_ANNOTATION
from honeyframe_connectors.errors import Reason, Stalled


def require_allowed(named: str | None, endpoints: Iterable[tuple[str, int]], secret: str) -> None:
    """Hold destinations, as they are declared, against what a Secret's annotation names (None: it has none).

    The annotation holds `host`, `host:port`, `*.domain` or `*.domain:port`, separated by commas; without a port, any.

    Raises:
        Stalled: `TargetNotAllowed`.
    """
    if named is None:
        return
    patterns = [_split(each.strip()) for each in named.split(",") if each.strip()]
    found = tuple(endpoints)
    for host, port in found:
        if not any(_fits(pattern, host, port) for pattern in patterns):
            raise Stalled(
                Reason.TARGET_NOT_ALLOWED,
                f"Secret {secret} does not let its values go to {host}:{port}: its annotation {TARGETS_ANNOTATION} "
                f"names {named.strip() or 'no target'}; add {host}:{port} there, or correct spec.config",
            )
    if not found:
        raise Stalled(
            Reason.TARGET_NOT_ALLOWED,
            f"Secret {secret} names its targets in the annotation {TARGETS_ANNOTATION}, and this type does not say "
            "where it connects to: take the annotation away, or use another type",
        )


def _split(pattern: str) -> tuple[str, str]:
    host, colon, port = pattern.rpartition(":")
    # An IPv6 address has colons of its own: with a port it stands in brackets.
    if not colon or ("]" not in host and ":" in host) or pattern.endswith("]"):
        host, port = pattern, ""
    return _normal(host), port


def _normal(host: str) -> str:
    return host.strip().strip("[]").rstrip(".").lower()


def _fits(pattern: tuple[str, str], host: str, port: int) -> bool:
    name, only_port = pattern
    if only_port and only_port != str(port):
        return False
    host = _normal(host)
    return host.endswith(name[1:]) and host != name[1:] if name.startswith("*.") else host == name
