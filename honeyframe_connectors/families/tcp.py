"""Connections to addresses that were checked."""

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from honeyframe_connectors.errors import CheckFailed, Reason, Unanswered
from honeyframe_connectors.families import tls

NEXT_ADDRESS_AFTER: Final = 3.0
"""Seconds that one address of several has before the next is tried: half of a dual-stack name is often dead."""


def not_connected(host: str, port: int, error: OSError) -> Unanswered:
    """The error for a connection that did not come about."""
    what = "no answer" if isinstance(error, TimeoutError) else (error.strerror or type(error).__name__).lower()
    return Unanswered(
        Reason.CONNECTION_FAILED,
        f"cannot connect to {host}:{port}: {what}; make sure that the host and the port are right, that the server "
        "listens, and that firewalls and network policies let the operator through",
    )


async def connect(addresses: Sequence[str], host: str, port: int) -> tuple[socket.socket, str]:
    """A connected socket, which the caller closes, and the address that answered first.

    Raises:
        Unanswered: `ConnectionFailed`, for the last address.
    """
    for address in addresses[:-1]:
        with suppress(OSError):
            async with asyncio.timeout(NEXT_ADDRESS_AFTER):
                return await _connect(address, port), address
    try:
        return await _connect(addresses[-1], port), addresses[-1]
    except OSError as error:
        raise not_connected(host, port, error) from None


async def _connect(address: str, port: int) -> socket.socket:
    # Not loop.sock_connect: uvloop's costs as much as a whole check that is made this way.
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        code = made.connect_ex((address, port))
        if code == errno.EINPROGRESS:
            await ready(made.fileno(), write=True)
            code = made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    except BaseException:
        made.close()
        raise
    if code:
        made.close()
        raise OSError(code, os.strerror(code))
    return made


async def ready(descriptor: int, *, write: bool) -> None:
    """Wait until a descriptor can be written to, or read from."""
    loop = asyncio.get_running_loop()
    waiting: asyncio.Future[None] = loop.create_future()
    if write:
        loop.add_writer(descriptor, _tell, waiting)
    else:
        loop.add_reader(descriptor, _tell, waiting)
    try:
        await waiting
    finally:
        if write:
            loop.remove_writer(descriptor)
        else:
            loop.remove_reader(descriptor)


def _tell(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


async def handshake(connected: socket.socket, context: ssl.SSLContext, host: str, port: int) -> None:
    """Verify TLS over a connected socket, then close it.

    Raises:
        Refused: `AuthenticationFailed`, when the server does not take the client's certificate.
        Unanswered: `TLSVerificationFailed` or `ConnectionFailed`.
    """
    try:
        transport, _ = await asyncio.get_running_loop().create_connection(
            asyncio.Protocol, sock=connected, ssl=context, server_hostname=host.strip("[]")
        )
    except (OSError, ValueError) as error:
        connected.close()
        raise _handshake_failed(error, host, port) from None
    except BaseException:
        connected.close()
        raise
    transport.abort()


def _handshake_failed(error: Exception, host: str, port: int) -> CheckFailed:
    if isinstance(error, ssl.SSLError):
        return tls.explained(error, host, port)
    if isinstance(error, ssl.CertificateError | ValueError):
        return Unanswered(
            Reason.TLS_VERIFICATION_FAILED, f"no certificate can be for {host}: name the host that the server's is for"
        )
    return Unanswered(
        Reason.CONNECTION_FAILED,
        f"{host}:{port} ended the connection during the TLS handshake: make sure that TLS is spoken on this port",
    )
