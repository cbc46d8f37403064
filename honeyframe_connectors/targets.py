"""Which addresses a Connector may reach: an operator must not be a way into what only the cluster may see.

The addresses are judged, not the name: a name is looked up once, and the very addresses that were judged are what a
driver is given (DNS rebinding finds nothing to rebind).
"""

import asyncio
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from itertools import count
from typing import Any, Final

from honeyframe_connectors.errors import Reason, Stalled, Unanswered

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_REFUSED: Final[tuple[tuple[str, tuple[Network, ...]], ...]] = tuple(
    (what, tuple(ip_network(network) for network in networks))
    for what, networks in (
        (
            # Before link-local, which holds the first of them: the name that tells more is said.
            "a cloud's metadata service",
            (
                "169.254.169.254",
                "169.254.170.2",
                "fd00:ec2::254",
                "100.100.100.200",
                "168.63.129.16",
                "192.0.0.192",
                "fd20:ce::254",
            ),
        ),
        ("a loopback address", ("127.0.0.0/8", "::1")),
        ("a link-local address", ("169.254.0.0/16", "fe80::/10")),
        ("no address of a host", ("0.0.0.0/8", "::", "255.255.255.255")),
        ("a multicast address", ("224.0.0.0/4", "ff00::/8")),
    )
)

# Where IPv6 carries an IPv4 address that a router or the kernel may take out again, and how far from the end it stands.
_CARRIERS: Final[tuple[tuple[IPv6Network, int], ...]] = (
    (IPv6Network("::ffff:0:0/96"), 0),
    (IPv6Network("::ffff:0:0:0/96"), 0),
    (IPv6Network("::/96"), 0),
    (IPv6Network("64:ff9b::/96"), 0),
    (IPv6Network("64:ff9b:1::/48"), 0),
    (IPv6Network("2002::/16"), 80),
)
_TEREDO: Final = IPv6Network("2001::/32")

MAX_LOOKUPS: Final = 256
"""Look-ups that may hang at the same time; each is a thread that nothing can end."""


@dataclass(frozen=True)
class Targets:
    """The addresses that may be connected to."""

    allowed: Sequence[Network] = ()
    """From `--allow-target`: lifts every refusal but that of Unix sockets."""
    own: Sequence[str] = ()
    """Addresses of the API server, as text."""

    @cached_property
    def _own(self) -> frozenset[Address]:
        return frozenset(ip_address(address) for address in self.own)

    def forbids(self, address: str) -> bool:
        """Whether an address (as text, no name) may not be connected to.

        Raises:
            ValueError: it is no address.
        """
        return self._why_not(ip_address(address)) is not None

    def declared_refusal(self, host: str) -> str | None:
        """Why a host as it is written may not be reached; None where it may, or is a name. Asks no resolver."""
        if _is_unix_socket(host):
            return (
                f"{host[:1]}… is a Unix socket, which no Connector may reach: "
                "name a host that is reached over the network"
            )
        address = literal(host)
        if address is None:
            return None
        why = self._why_not(address)
        return None if why is None else _refusal(host, address, why)

    async def resolve(self, host: str, port: int) -> tuple[str, ...]:
        """The addresses behind a host that may be connected to, looked up once, in the resolver's order.

        There is no time-out here: the caller has a deadline, and cancelling leaves no more than a thread behind.

        Raises:
            Stalled: `TargetNotAllowed`, when any of the addresses is refused.
            Unanswered: `ConnectionFailed`, when the name does not resolve.
        """
        refusal = self.declared_refusal(host)
        if refusal is not None:
            raise Stalled(Reason.TARGET_NOT_ALLOWED, refusal)
        address = literal(host)
        if address is not None:
            return (str(address),)
        found = await _look_up(host, port)
        for each in found:
            why = self._why_not(ip_address(each))
            if why is not None:
                raise Stalled(Reason.TARGET_NOT_ALLOWED, _refusal(host, ip_address(each), why))
        return found

    def _why_not(self, address: Address) -> str | None:
        for form, judged in _judged(address):
            what = "the cluster's API server" if form in self._own else judged
            if what is not None and not any(form in network for network in self.allowed):
                return what
        return None


@lru_cache(maxsize=4096)
def literal(host: str) -> Address | None:
    """The address that a host is, also in the old forms that a resolver would read as one (127.1, 0x7f000001)."""
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        return ip_address(bare)
    except ValueError:
        pass
    if not bare[:1].isdigit() or not set(bare) <= set("0123456789abcdefABCDEFxX."):
        return None
    try:
        return IPv4Address(socket.inet_aton(bare.removesuffix(".")))
    except OSError:
        return None


def _is_unix_socket(host: str) -> bool:
    return host.startswith(("/", "@", "\0"))


def _refusal(host: str, address: Address, what: str) -> str:
    shown = host if literal(host) is not None else f"{host} ({address})"
    return (
        f"{shown} is {what}, which no Connector may reach: name another host, "
        f"or have the operator started with --allow-target {ip_network(_without_scope(address))}"
    )


def _without_scope(address: Address) -> Address:
    return IPv6Address(int(address)) if isinstance(address, IPv6Address) else address


@lru_cache(maxsize=4096)
def _judged(address: Address) -> tuple[tuple[Address, str | None], ...]:
    return tuple((form, _refused_as(form)) for form in _forms(address))


def _refused_as(address: Address) -> str | None:
    for what, networks in _REFUSED:
        if any(address in network for network in networks):
            return what
    return None


def _forms(address: Address) -> Iterator[Address]:
    if isinstance(address, IPv4Address):
        yield address
        return
    plain = IPv6Address(int(address))
    yield plain
    for network, shift in _CARRIERS:
        # :: and ::1 are themselves, not 0.0.0.0 and 0.0.0.1 carried.
        if plain in network and int(plain) > 1:
            yield IPv4Address((int(plain) >> shift) & 0xFFFFFFFF)
    if plain in _TEREDO:
        yield IPv4Address(~int(plain) & 0xFFFFFFFF)


_lookups: set[int] = set()
_numbers = count()


async def _look_up(host: str, port: int) -> tuple[str, ...]:
    # Not loop.getaddrinfo: uvloop has four threads for it, so four names of a dead zone would hold back every check.
    if len(_lookups) >= MAX_LOOKUPS:
        raise Unanswered(
            Reason.CONNECTION_FAILED,
            f"the name {host} was not looked up, because {MAX_LOOKUPS} look-ups hang already: "
            "mend the name servers that the operator's pod uses",
        )
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[Any]] = loop.create_future()
    number = next(_numbers)
    _lookups.add(number)

    def tell(result: list[Any] | None, error: Exception | None) -> None:
        if answer.done():
            return
        if error is None:
            answer.set_result(result or [])
        else:
            answer.set_exception(error)

    def run() -> None:
        result: list[Any] | None = None
        error: Exception | None = None
        try:
            result = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except Exception as caught:  # noqa: BLE001 - handed over to the loop
            error = caught
        finally:
            _lookups.discard(number)
        if not loop.is_closed():
            try:
                loop.call_soon_threadsafe(tell, result, error)
            except RuntimeError:
                # The loop closed in between: nobody waits any more.
                return

    # A daemon, so that a name server that never answers does not hold up the end of the process either.
    threading.Thread(target=run, name="resolve", daemon=True).start()
    try:
        found = await answer
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else "it is no host name"
        raise Unanswered(
            Reason.CONNECTION_FAILED,
            f"the name {host} does not resolve: {why}; mend the name, or the name servers that the operator's pod uses",
        ) from None
    return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))
