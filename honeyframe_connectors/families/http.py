"""HTTP for every type that speaks it: URLs, headers, and one request to an address that was checked."""

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urlsplit

from honeyframe_connectors.errors import CheckFailed, Reason, Refused, Unanswered
from honeyframe_connectors.families import tls

_PORTS: Final = {"http": 80, "https": 443}
_NOT_IN_URLS: Final = re.compile(r"[\s\\\x00-\x20\x7f-\xa0]")
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OUR_HEADERS: Final = frozenset(
    {"connection", "content-length", "host", "te", "trailer", "transfer-encoding", "upgrade", "proxy-authorization"}
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a URL goes."""

    scheme: str
    host: str
    """Without the brackets of an IPv6 address."""
    port: int
    netloc: str
    path: str
    """With the query."""


def endpoint(url: str) -> Endpoint:
    """The parts of a URL.

    Raises:
        ValueError: it is none that may be used; the text never holds it.
    """
    if _NOT_IN_URLS.search(url):
        raise ValueError("it holds spaces, line ends or backslashes: write it without, with printf instead of echo")
    parts: SplitResult | None
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = None, None
    if parts is None or parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError(
            "it is no URL that can be used: write https://host/path, or http:// if all may be read on the way"
        )
    if parts.username is not None or parts.password is not None:
        raise ValueError("it holds a username or password: put them into the Secret, as username and password")
    if parts.fragment:
        raise ValueError("it has a part behind #, which is never sent: leave it out")
    host = parts.hostname.removesuffix(".")
    if not host.isascii():
        raise ValueError("its host has letters that DNS has not: write it in the form that begins with xn--")
    port = _PORTS[parts.scheme] if port is None else port
    shown = f"[{host}]" if ":" in host else host
    return Endpoint(
        scheme=parts.scheme,
        host=host,
        port=port,
        netloc=shown if port == _PORTS[parts.scheme] else f"{shown}:{port}",
        path=(parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
    )


def normal(url: str) -> str:
    """A URL as it is compared: scheme and host in lower case, no default port.

    Raises:
        ValueError: as `endpoint`.
    """
    to = endpoint(url)
    return f"{to.scheme}://{to.netloc}{to.path}"


def check_header(name: str, value: str) -> None:
    """Make sure that a header may be sent.

    Raises:
        ValueError: it may not; the text never holds the value.
    """
    if not _HEADER_NAME.fullmatch(name):
        raise ValueError(
            "a header's name holds characters that HTTP has not in names: write letters, digits and hyphens"
        )
    if name.lower() in _OUR_HEADERS:
        raise ValueError(f"the header {name} is made by HTTP itself: leave it out")
    check_header_value(value, f"the header {name}")


def check_header_value(value: str, what: str) -> None:
    """Make sure that something fits into a header.

    Raises:
        ValueError: it does not; the text never holds it.
    """
    if value.endswith(("\n", "\r")):
        raise ValueError(f"{what} ends with a newline: write it without, with printf instead of echo")
    if not value.isascii() or not value.isprintable() or value != value.strip():
        raise ValueError(f"{what} holds line ends, surrounding spaces or letters beyond ASCII: write it without")


async def ask(
    to: Endpoint,
    address: str,
    *,
    method: str,
    headers: Mapping[str, str],
    context: ssl.SSLContext | None,
) -> int:
    """The status of one request to the address that was checked; no redirect is followed and no body is read.

    Raises:
        Unanswered: `ConnectionFailed`, `Timeout` or `TLSVerificationFailed`.
    """
    import httpx  # noqa: PLC0415 - the driver is an extra

    host = f"[{address}]" if ":" in address else address
    transport = httpx.AsyncHTTPTransport(
        verify=context or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), trust_env=False, retries=0
    )
    async with (
        httpx.AsyncClient(transport=transport, trust_env=False, follow_redirects=False, timeout=None) as client,  # noqa: S113
    ):
        request = client.build_request(
            method,
            f"{to.scheme}://{host}:{to.port}{to.path}",
            headers={"Host": to.netloc, "User-Agent": "honeyframe-connectors", **headers},
            extensions={"sni_hostname": to.host},
        )
        try:
            answer = await client.send(request, stream=True)
        except httpx.TransportError as error:
            raise _explained(error, to) from None
        await answer.aclose()
        return answer.status_code


def _explained(error: Exception, to: Endpoint) -> CheckFailed:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return tls.explained(cause, to.host, to.port)
        cause = cause.__cause__ or cause.__context__
    return Unanswered(
        Reason.CONNECTION_FAILED,
        f"{to.host}:{to.port} gave no answer in HTTP ({type(error).__name__}): "
        f"make sure that {to.scheme} is spoken there",
    )


def judge(status: int, to: Endpoint, what: str) -> None:
    """Nothing for a status that accepts; ``what`` names the field that the URL came from.

    Raises:
        Refused: it says no.
        Unanswered: it says later, or does not say.
    """
    says = f"{to.host}:{to.port} answers {status}"
    match status:
        case _ if 200 <= status < 300:  # noqa: PLR2004 - HTTP
            return
        case _ if 300 <= status < 400:  # noqa: PLR2004 - HTTP
            raise Refused(
                Reason.TARGET_NOT_FOUND,
                f"{says}, a redirect, which is never followed with a credential: write in {what} where it leads to",
            )
        case 401:
            raise Refused(Reason.AUTHENTICATION_FAILED, f"{says}: put the right credential into the Secret")
        case 403:
            raise Refused(Reason.AUTHORIZATION_FAILED, f"{says}: let the credential do what {what} asks for")
        case 404 | 410:
            raise Refused(Reason.TARGET_NOT_FOUND, f"{says}: write in {what} a path that exists")
        case 408 | 425 | 429 | 503 | 529:
            raise Unanswered(
                Reason.RATE_LIMITED, f"{says}: it is tried again by itself; if it stays so, raise spec.interval"
            )
        case _ if status >= 500:  # noqa: PLR2004 - HTTP
            raise Unanswered(
                Reason.CONNECTION_FAILED, f"{says}: it is tried again by itself; see the log of the server"
            )
        case _:
            raise Refused(
                Reason.INVALID_CONFIG, f"{says}: mend {what}, or the method and headers that it is asked with"
            )
