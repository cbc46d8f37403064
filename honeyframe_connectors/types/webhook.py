"""Any HTTP endpoint that takes JSON."""

import base64
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from honeyframe_connectors.connector_type import Category, Checkup, ConnectorType, Guard, Mark
from honeyframe_connectors.families import http, tcp, tls


class WebhookConfig(tls.ClientCertificate):
    """Where messages are sent as JSON, and how the sender shows who it is."""

    url: Annotated[
        str,
        Mark.DESTINATION,
        Mark.MAPPABLE,
        Field(
            max_length=2048,
            repr=False,
            description="Where messages are sent. May come from the Secret, where it belongs when it holds a token.",
        ),
    ]
    method: Annotated[
        Literal["POST", "PUT"], Field(description="HTTP method that messages are sent with. Default: `POST`.")
    ] = "POST"
    headers: Annotated[
        dict[str, SecretStr],
        Mark.MAPPABLE,
        Field(
            default_factory=dict,
            max_length=32,
            description="Headers that are sent along. One that is secret comes from the Secret: `headers.X-Api-Key`.",
        ),
    ]
    bearer_token: Annotated[
        SecretStr | None,
        Mark.SECRET,
        Field(description="Sent as `Authorization: Bearer`."),
    ] = None
    username: Annotated[
        str | None,
        Mark.ACCOUNT,
        Mark.MAPPABLE,
        Field(max_length=255, description="User name for `Authorization: Basic`. May come from the Secret."),
    ] = None
    password: Annotated[
        SecretStr | None,
        Mark.SECRET,
        Field(description="Password for `Authorization: Basic`."),
    ] = None
    signing_secret: Annotated[
        SecretStr | None,
        Mark.SECRET,
        Field(description="Key of an HMAC-SHA256 over each message, so that the receiver knows who sent it."),
    ] = None
    check_url: Annotated[
        str | None,
        Mark.DESTINATION,
        Mark.MAPPABLE,
        Field(
            max_length=2048,
            repr=False,
            description="Asked at each check, with the credential; must have no side effect, and the scheme, host and "
            "port of `url`. Default: none, and the credential is not tested.",
        ),
    ] = None
    check_method: Annotated[
        Literal["GET", "HEAD"], Field(description="HTTP method that `check_url` is asked with. Default: `GET`.")
    ] = "GET"

    @field_validator("url", "check_url")
    @classmethod
    def _usable(cls, url: str | None) -> str | None:
        return None if url is None else http.normal(url)

    @field_validator("headers")
    @classmethod
    def _sendable(cls, headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
        if len({name.lower() for name in headers}) != len(headers):
            raise ValueError("a header is there twice, in other letters: keep one")
        for name, value in headers.items():
            http.check_header(name, value.get_secret_value())
        return headers

    @field_validator("bearer_token")
    @classmethod
    def _fits(cls, token: SecretStr | None) -> SecretStr | None:
        if token is not None:
            http.check_header_value(token.get_secret_value(), "the token")
        return token

    @model_validator(mode="after")
    def _one_credential(self) -> Self:
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password go together: give both, or neither")
        ways = [
            self.bearer_token is not None,
            self.username is not None,
            any(name.lower() == "authorization" for name in self.headers),
        ]
        if sum(ways) > 1:
            raise ValueError("bearer_token, username and headers.Authorization exclude each other: give one of them")
        if self.username is not None and ":" in self.username:
            raise ValueError("username holds a colon, which Basic authentication cannot carry: give another")
        if self.check_url is not None and _origin(self.check_url) != _origin(self.url):
            raise ValueError("check_url is asked with the credential of url: give it the scheme, host and port of url")
        return self


def _origin(url: str) -> tuple[str, str, int]:
    to = http.endpoint(url)
    return to.scheme, to.host, to.port


def request_headers(config: WebhookConfig) -> dict[str, str]:
    """The headers of every request, with the credential."""
    headers = {name: value.get_secret_value() for name, value in config.headers.items()}
    if config.bearer_token is not None:
        headers["Authorization"] = f"Bearer {config.bearer_token.get_secret_value()}"
    elif config.username is not None and config.password is not None:
        pair = f"{config.username}:{config.password.get_secret_value()}".encode()
        headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
    return headers


class Webhook(ConnectorType[WebhookConfig]):
    """A webhook: messages as JSON."""

    name: ClassVar[str] = "webhook"
    title: ClassVar[str] = "Webhook"
    category: ClassVar[Category] = Category.MESSAGING
    driver: ClassVar[str | None] = "httpx"
    extra: ClassVar[str | None] = "http"
    steps: ClassVar[tuple[str, ...]] = ("resolve", "connect", "TLS", "authenticate")
    guard: ClassVar[Guard] = Guard.PINNED
    config = WebhookConfig

    def endpoints(self, config: WebhookConfig) -> tuple[tuple[str, int], ...]:
        """The host of `url`, which `check_url` shares."""
        to = http.endpoint(config.url)
        return ((to.host, to.port),)

    def logs_in(self, config: WebhookConfig) -> bool:
        """Only where there is something to ask."""
        return config.check_url is not None

    async def check(self, config: WebhookConfig, checkup: Checkup) -> None:
        """Connect and verify TLS; ask `check_url` where there is one, else send nothing."""
        to = http.endpoint(config.url)
        addresses = await checkup.targets.resolve(to.host, to.port)
        checkup.passed("resolve")
        connected, address = await tcp.connect(addresses, to.host, to.port)
        checkup.passed("connect")
        context = None
        if to.scheme == "https":
            try:
                context = tls.context(checkup.ca, config)
            except BaseException:
                connected.close()
                raise
            await tcp.handshake(connected, context, to.host, to.port)
            checkup.passed("TLS")
        else:
            connected.close()
            checkup.not_tested("TLS", "plain http")
        if config.check_url is None:
            checkup.not_tested("authenticate", "only a message would show it: give a check_url to have it tested")
            return
        self.require_driver()
        asked = http.endpoint(config.check_url)
        status = await http.ask(
            asked, address, method=config.check_method, headers=request_headers(config), context=context
        )
        http.judge(status, asked, "check_url")
        checkup.passed("authenticate", f"{config.check_method} of check_url answers {status}")
