"""Servers that misbehave on purpose, on loopback, each in threads of its own."""

import contextlib
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from hack.certificates import Authority, ServerCertificate

Handler = Callable[[socket.socket], None]


class Listener:
    """Takes connections, counts them, and gives each to a handler in a thread."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._open: list[socket.socket] = []
        self.port: int = self._socket.getsockname()[1]
        self._peers: list[int] = []
        self._accepted = threading.Condition()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                taken, peer = self._socket.accept()
            except OSError:
                return
            self._open.append(taken)
            with self._accepted:
                self._peers.append(peer[1])
                self._accepted.notify_all()
            threading.Thread(target=self._serve, args=(taken,), daemon=True).start()

    def connections(self) -> int:
        """How many came before this call."""
        # The kernel connects before the thread accepts: one of our own, behind the others, shows when all are counted.
        # Not create_connection: a test may have planted a resolver.
        with socket.socket() as own:
            own.connect(("127.0.0.1", self.port))
            port = own.getsockname()[1]
            with self._accepted:
                self._accepted.wait_for(lambda: port in self._peers)
                return self._peers.index(port)

    def _serve(self, taken: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._handler(taken)

    def close(self) -> None:
        for each in (self._socket, *self._open):
            # A close alone does not wake a thread that waits in accept or recv.
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


@contextlib.contextmanager
def listening(handler: Handler) -> Iterator[Listener]:
    listener = Listener(handler)
    try:
        yield listener
    finally:
        listener.close()


@contextlib.contextmanager
def closed_port() -> Iterator[int]:
    """Bound and not listening: refused for as long as this lasts, and nobody else's meanwhile."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def silent(connection: socket.socket) -> None:
    """Reads and never answers."""
    while connection.recv(65_536):
        pass


def garbage(connection: socket.socket) -> None:
    """Answers what no protocol knows."""
    connection.sendall(b"\x00\xffthis is neither\r\n\r\n" * 8)
    silent(connection)


def scripted(replies: Sequence[bytes]) -> Handler:
    """Answers each thing that it reads with the next reply."""

    def handle(connection: socket.socket) -> None:
        for reply in replies:
            if not connection.recv(65_536):
                return
            connection.sendall(reply)
        silent(connection)

    return handle


def tls(certificate: ServerCertificate, before: Handler) -> Handler:
    """Shakes hands with this certificate, after what a protocol says before TLS."""
    with tempfile.TemporaryDirectory() as folder:
        chain, key = Path(folder, "chain.pem"), Path(folder, "key.pem")
        chain.write_bytes(certificate.certificate)
        key.write_bytes(certificate.key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain, key)

    def handle(connection: socket.socket) -> None:
        before(connection)
        with context.wrap_socket(connection, server_side=True) as secured:
            silent(secured)

    return handle


def expired(authority: Authority) -> ServerCertificate:
    """A certificate that was valid for half an hour."""
    days = authority._days
    authority._days = -1 / 48  # type: ignore[assignment]
    try:
        return authority.server("expired")
    finally:
        authority._days = days
