"""What the SQL types share: the fields of a connection pool, and names of hosts."""

from typing import Annotated

from pydantic import Field

from honeyframe_connectors.connector_type import ConnectorConfig, Mark

TRAILING_NEWLINE = (
    "the value of password ends with a newline, which is part of it: write it without, with printf instead of echo"
)
SURROUNDING_SPACE = (
    "the value of password begins or ends with a space, which is part of it: write it without, if that is not meant"
)


class Pool(ConnectorConfig):
    """How many connections sync, discovery and queries may hold. Applies at once and makes no new version."""

    pool_size: Annotated[
        int, Mark.TUNING, Field(ge=1, le=200, description="Connections that are kept open. Default: 5.")
    ] = 5
    max_overflow: Annotated[
        int,
        Mark.TUNING,
        Field(ge=0, le=200, description="Connections beyond `pool_size` that may be opened under load. Default: 15."),
    ] = 15
    pool_recycle: Annotated[
        int,
        Mark.TUNING,
        Field(ge=1, le=86_400, description="Seconds after which a kept connection is replaced. Default: 1800."),
    ] = 1800


def host_name(host: str) -> str:
    """A host as it is compared: lower case, no dot at its end.

    Raises:
        ValueError: it is no single host; the text never holds the value.
    """
    if "," in host:
        raise ValueError("name one host, not a list: give each its own Connector")
    if not host or len(host) > 253 or any(char.isspace() or not char.isprintable() for char in host):  # noqa: PLR2004 - DNS
        raise ValueError("it is no host name: name a host or an address, without spaces or line ends")
    if "://" in host:
        raise ValueError("it is a URL: name the host alone")
    return host.lower().removesuffix(".")


def password_hint(password: str | None) -> str:
    """What is odd about a password that was refused, as the end of a sentence, or nothing."""
    if password is None:
        return ""
    if password.endswith(("\n", "\r")):
        return f"; {TRAILING_NEWLINE}"
    return f"; {SURROUNDING_SPACE}" if password != password.strip() else ""
