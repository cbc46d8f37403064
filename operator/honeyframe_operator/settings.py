"""Everything that is read from flags and environment."""

import ipaddress
import os
import socket
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from honeyframe_connectors.api.kinds import Duration, seconds

_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
Names = Annotated[list[str], NoDecode]


class Settings(BaseSettings):
    """Makes Honeyframe's Connectors and CatalogConfigs so, and answers ConnectorTests.

    Each flag may be given as an environment variable instead: HONEYFRAME_ and its name in capitals, such as
    HONEYFRAME_DATABASE.
    """

    model_config = SettingsConfigDict(
        env_prefix="HONEYFRAME_",
        cli_prog_name="honeyframe-operator",
        cli_kebab_case=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
        env_ignore_empty=True,
        hide_input_in_errors=True,
        extra="forbid",
    )

    secret_file: Path = Field(
        description="File that holds the platform's JWT secret, or a secret of the vault's own, of at least 32 random "
        "bytes: the vault's key is derived from it."
    )
    older_secret_files: Names = Field(
        default=[], description="Files that hold earlier secrets, comma-separated: they open what they sealed."
    )
    database: str = Field(
        default="sqlite:////var/lib/honeyframe/honeyframe.db",
        description="The metadata store, sqlite:///PATH or postgresql://USER@HOST/NAME. A URL with a password belongs "
        "in --database-file.",
    )
    database_file: Path | None = Field(
        default=None, description="File that holds the URL of the metadata store; wins over --database."
    )
    kubeconfig: Path | None = Field(
        default=None, description="Kubeconfig to log in with. Default: the pod's ServiceAccount, else KUBECONFIG."
    )
    namespace: str = Field(default="", description="Namespace of the Lease. Default: the pod's own, else honeyframe.")
    watch_namespaces: Names = Field(
        default=[],
        description="Watch these namespaces only, comma-separated, with Roles instead of a ClusterRole; then "
        "--cluster-id is required. Default: all.",
    )
    cluster_id: str = Field(
        default="", description="What the rows of this cluster are known by. Default: the uid of namespace kube-system."
    )
    default_org: str = Field(
        default="default", description="The org of namespaces without the label honeyframe.io/org.", min_length=1
    )
    allow_target: Names = Field(
        default=[],
        description="CIDRs that Connectors may reach though they are loopback, link-local, metadata or the API "
        "server's own, comma-separated.",
    )
    secret_opt_in: bool = Field(
        default=True,
        description='Read only Secrets with the label honeyframe.io/credentials: "true". With false, whoever may '
        "write a Connector can have any Secret of the namespace sent where he likes.",
    )
    http_address: str = Field(
        default="0.0.0.0:8080",
        description="Address of /metrics, /healthz and /readyz.",
    )
    resync: float = Field(
        default=300.0, ge=1, description="Seconds between two complete LISTs that are held against the watches."
    )
    stale_after: float = Field(
        default=60.0, ge=1, description="Seconds that a watch may be behind a LIST before /healthz says so."
    )
    purge_after: Duration = Field(
        default="24h",
        description="How long the row of a deleted Connector is kept in the vault, with its history, such as 24h; "
        "until then a Connector made again under the same name finds it. With deletionPolicy Retain it stays.",
    )
    usage_interval: float = Field(
        default=60.0,
        ge=0,
        description="Seconds between two counts of the datasets and agent tools that use each Connector; 0: never, and "
        "no status speaks of usage.",
    )
    identity: str = Field(default="", description="Name of this process in the Lease. Default: host name and a number.")
    log_level: str = Field(default="INFO", description="DEBUG, INFO, WARNING or ERROR.")

    @field_validator("older_secret_files", "watch_namespaces", "allow_target", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        parts = value.split(",") if isinstance(value, str) else [part for item in value for part in item.split(",")]
        return [part.strip() for part in parts if part.strip()]

    @field_validator("allow_target")
    @classmethod
    def _networks(cls, value: list[str]) -> list[str]:
        for cidr in value:
            try:
                ipaddress.ip_network(cidr)
            except ValueError as error:
                raise ValueError(f"{error}: write a network such as 10.0.0.0/8 or 127.0.0.1/32") from None
        return value

    @field_validator("log_level")
    @classmethod
    def _level(cls, value: str) -> str:
        if value.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR"):
            raise ValueError("it must be DEBUG, INFO, WARNING or ERROR")
        return value.upper()

    @field_validator("http_address")
    @classmethod
    def _address(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if not host or not port.isdigit():
            raise ValueError("write it as HOST:PORT, such as 127.0.0.1:8080")
        return value

    @field_validator("database")
    @classmethod
    def _database(cls, value: str) -> str:
        if make_store_url(value).password is not None:
            raise ValueError("a password in a flag or variable can be read by others: put the URL in --database-file")
        return value

    @model_validator(mode="after")
    def _complete(self) -> "Settings":
        if self.watch_namespaces and not self.cluster_id:
            raise ValueError("--watch-namespaces needs --cluster-id: a Role cannot read the uid of kube-system")
        if not self.secret_file.is_file():
            raise ValueError(f"--secret-file: there is no file {self.secret_file}: mount the Secret that holds it")
        missing = [path for path in self.older_secret_files if not Path(path).is_file()]
        if missing:
            raise ValueError(f"--older-secret-files: there is no file {missing[0]}")
        if self.database_file is not None:
            if not self.database_file.is_file():
                raise ValueError(f"--database-file: there is no file {self.database_file}")
            make_store_url(self.database_file.read_text().strip())
        return self

    @property
    def store_url(self) -> str:
        """The URL of the metadata store, with its password: never to be shown."""
        return self.database_file.read_text().strip() if self.database_file else self.database

    @property
    def kept(self) -> timedelta:
        """How long a deleted row is kept."""
        return timedelta(seconds=seconds(self.purge_after))

    @property
    def lease_namespace(self) -> str:
        """Where the Lease is."""
        if self.namespace:
            return self.namespace
        return _NAMESPACE_FILE.read_text().strip() if _NAMESPACE_FILE.is_file() else "honeyframe"

    @property
    def name(self) -> str:
        """What this process calls itself in the Lease."""
        return self.identity or f"{socket.gethostname()}-{os.getpid()}"

    @property
    def bound_flags(self) -> list[Any]:
        """The flags that a Connector's reconcile depends on."""
        return [sorted(self.allow_target), self.secret_opt_in]


def make_store_url(text: str) -> Any:
    """A URL of a store that we can use."""
    try:
        url = make_url(text)
    except ArgumentError:
        raise ValueError("it is no URL: write sqlite:///PATH or postgresql://USER@HOST/NAME") from None
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise ValueError(f"{url.get_backend_name()} is not supported: use sqlite or postgresql")
    return url


def explain(error: ValidationError) -> str:
    """What is wrong with the flags, a line each."""
    lines = []
    for problem in error.errors(include_input=False, include_url=False):
        place = "--" + str(problem["loc"][0]).replace("_", "-") if problem["loc"] else ""
        message = str(problem["msg"]).removeprefix("Value error, ")
        lines.append(f"{place}: {message}" if place else message)
    return "\n".join(f"honeyframe-operator: {line}" for line in lines)
