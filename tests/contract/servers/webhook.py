"""A real HTTPS server that knows one token, and paths for what else may be answered."""

import http.server
import ssl
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hack.certificates import Authority
from tests.contract.bench import Bench, Situation

TOKEN = "opensesame-8d02e7"
TEN_MB = 10 * 1024 * 1024


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            status = 401
        else:
            status = {"/check": 200, "/barred": 403}.get(self.path, 404)
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing: a test's output is pytest's."""


@contextmanager
def serving(authority: Authority) -> Iterator[int]:
    certificate = authority.server("webhook")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        chain, key = Path(folder, "chain.pem"), Path(folder, "key.pem")
        chain.write_bytes(certificate.certificate)
        key.write_bytes(certificate.key)
        context.load_cert_chain(chain, key)

    class Server(http.server.ThreadingHTTPServer):
        def finish_request(self, request: object, client_address: object) -> None:
            # Here, in the connection's own thread: a handshake on the listening socket would block all others.
            assert isinstance(request, ssl.SSLSocket)
            try:
                request.do_handshake()
                super().finish_request(request, client_address)
            except OSError:
                return

    server = Server(("127.0.0.1", 0), _Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def start(authority: Authority) -> Iterator[Bench]:
    with serving(authority) as port:

        def situation(
            host: str, port: int, *, scheme: str = "https", path: str = "/check", token: str | None = TOKEN
        ) -> Situation:
            origin = f"{scheme}://{host}:{port}"
            return Situation(
                declared={"url": f"{origin}/hook", "check_url": f"{origin}{path}"},
                secrets={} if token is None else {"bearer_token": token.encode()},
                ca=authority.pem,
            )

        yield Bench(
            right=situation("localhost", port),
            without_credential=situation("localhost", port, token=None),
            wrong_credential=situation("localhost", port, token="not-it-52cd"),
            no_permission=situation("localhost", port, path="/barred"),
            not_there=situation("localhost", port, path="/nowhere"),
            at=situation,
            plain_at=lambda host, port: situation(host, port, scheme="http"),
            before_tls=lambda _: None,
            huge=(
                (b"HTTP/1.1 200 OK\r\nContent-Length: 10485760\r\n\r\n" + b"x" * TEN_MB,),
                (b"HTTP/1.1 401 No\r\nContent-Length: 10485760\r\n\r\n" + b"x" * TEN_MB,),
                (b"HTTP/1.1 200 OK\r\nX-Header: " + b"x" * TEN_MB,),
                (b"HTTP/1.1 200 " + b"x" * TEN_MB,),
            ),
            environment={
                "HTTP_PROXY": "http://192.0.2.1:3128",
                "HTTPS_PROXY": "http://192.0.2.1:3128",
                "ALL_PROXY": "http://192.0.2.1:3128",
                "NETRC": "",
            },
            home={".netrc": f"machine localhost login x password {TOKEN}\ndefault login x password {TOKEN}\n"},
        )
