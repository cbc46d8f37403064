"""The API server as plain JSON: the official client logs in, renews tokens and checks TLS; we send the requests.

Typed models of the client cost more CPU than all of ours, so bodies stay dicts here (docs/decisions/0003).
"""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import kopf
import orjson
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from kubernetes.aio.config.config_exception import ConfigException
from kubernetes.aio.config.incluster_config import load_incluster_config
from kubernetes.aio.config.kube_config import load_kube_config

from honeyframe_connectors.errors import Reason, TryAgain

REQUEST_TIMEOUT = aiohttp.ClientTimeout(total=30, connect=10)
METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
CONNECTIONS = 64
WATCH_SECONDS = 300
SILENT_SECONDS = 330
_DELETE = {"apiVersion": "v1", "kind": "DeleteOptions"}


class ApiError(Exception):
    """The API server said no. The text is its own, which names fields and never their values."""

    def __init__(self, status: int, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message
        self.retry_after = retry_after


class Gone(ApiError):
    """A list's or watch's resourceVersion is too old: list again."""


class KubeClient:
    """Requests to one API server.

    Raises `ApiError` for an answer that is an error, and what `UNANSWERED` names where there is none.
    """

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=RESTClientObject(configuration).ssl_context, limit=CONNECTIONS),
            timeout=REQUEST_TIMEOUT,
            headers={"User-Agent": "honeyframe-operator", "Accept": "application/json"},
            trust_env=False,
        )

    @classmethod
    async def login(cls, kubeconfig: Path | None) -> "KubeClient":
        """Log in as the pod's ServiceAccount, or by a kubeconfig.

        Raises:
            ConfigException: neither is there, or cannot be used.
        """
        configuration = Configuration()
        if kubeconfig is None and "KUBERNETES_SERVICE_HOST" in os.environ:
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        else:
            path = kubeconfig or Path(os.environ.get("KUBECONFIG") or Path.home() / ".kube" / "config")
            if not path.is_file():
                raise ConfigException(f"there is no kubeconfig at {path}: give --kubeconfig, or run in a pod")
            await load_kube_config(config_file=str(path), client_configuration=configuration)  # type: ignore[no-untyped-call]
        return cls(configuration)

    @property
    def host(self) -> str:
        """The API server's host name or address."""
        return urlsplit(self._configuration.host).hostname or ""

    async def connection(self) -> kopf.ConnectionInfo:
        """The same login for kopf's watch streams."""
        scheme, _, token = (await self._authorization() or "").partition(" ")
        configuration = self._configuration
        return kopf.ConnectionInfo(
            server=configuration.host,
            ca_path=configuration.ssl_ca_cert,
            certificate_path=configuration.cert_file,
            private_key_path=configuration.key_file,
            scheme=scheme or None,
            token=token or None,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def get(self, path: str, *, accept: str | None = None, **query: str) -> dict[str, Any]:
        """GET one object or one page."""
        return await self._request("GET", path, accept=accept, query=query)

    async def put(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """PUT a whole object; 409 where its resourceVersion is not the newest."""
        return await self._request("PUT", path, body=body)

    async def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """POST a new object."""
        return await self._request("POST", path, body=body)

    async def delete(self, path: str, *, uid: str) -> None:
        """DELETE an object; 409 where it has another uid."""
        await self._request("DELETE", path, body={**_DELETE, "preconditions": {"uid": uid}})

    async def pages(self, path: str, *, accept: str | None = None, **query: str) -> AsyncIterator[dict[str, Any]]:
        """A whole LIST, page by page.

        Raises:
            Gone: the list changed too much between two pages; start again.
        """
        token = ""
        while True:
            page = await self.get(path, accept=accept, limit="500", **({"continue": token} if token else {}), **query)
            page["items"] = page.get("items") or []  # an empty list of metadata is written as null
            yield page
            token = page["metadata"].get("continue", "")
            if not token:
                return

    async def watch(self, path: str, *, version: str, accept: str, **query: str) -> AsyncIterator[dict[str, Any]]:
        """The events after a resourceVersion, until the server ends the stream.

        Raises:
            Gone: the version is too old.
        """
        query |= {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        headers = {**await self._headers(), "Accept": accept}
        timeout = aiohttp.ClientTimeout(total=None, connect=10, sock_read=SILENT_SECONDS)
        async with self._session.get(self._url(path), params=query, headers=headers, timeout=timeout) as response:
            if response.status >= 400:  # noqa: PLR2004 - HTTP's own line
                raise _error(response, await response.read())
            async for line in _lines(response.content):
                event = orjson.loads(line)
                if event["type"] == "ERROR":
                    status = event["object"]
                    raise (Gone if status.get("code") == 410 else ApiError)(  # noqa: PLR2004 - HTTP 410 Gone
                        status.get("code", 500), status.get("message", "")
                    )
                yield event

    async def _request(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        accept: str | None = None,
        query: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        headers = await self._headers()
        if accept:
            headers["Accept"] = accept
        data = None
        if body is not None:
            data = orjson.dumps(body)
            headers["Content-Type"] = "application/json"
        async with self._session.request(
            method, self._url(path), data=data, params=query or None, headers=headers
        ) as response:
            payload = await response.read()
            if response.status >= 400:  # noqa: PLR2004 - HTTP's own line
                raise _error(response, payload)
            result: dict[str, Any] = orjson.loads(payload)
            return result

    def _url(self, path: str) -> str:
        return self._configuration.host + path

    async def _headers(self) -> dict[str, str]:
        authorization = await self._authorization()
        return {"Authorization": authorization} if authorization else {}

    async def _authorization(self) -> str | None:
        key: str | None = await self._configuration.get_api_key_with_prefix("BearerToken")
        return key


def waiting(error: Exception) -> TryAgain:
    """A call that failed: nothing is known of the object, so no condition speaks of it."""
    text = error.message if isinstance(error, ApiError) else "no answer"
    after = error.retry_after if isinstance(error, ApiError) else None
    return TryAgain(Reason.PROGRESSING, f"the API server: {text}", retry_after=after)


UNANSWERED = (aiohttp.ClientError, OSError, asyncio.TimeoutError)
"""What a call raises where there is no answer."""


def _error(response: aiohttp.ClientResponse, payload: bytes) -> ApiError:
    try:
        message = orjson.loads(payload).get("message", "")
    except (orjson.JSONDecodeError, AttributeError):
        message = response.reason or ""
    retry_after = response.headers.get("Retry-After", "")
    class_ = Gone if response.status == 410 else ApiError  # noqa: PLR2004 - HTTP 410 Gone
    return class_(response.status, message, float(retry_after) if retry_after.isdigit() else None)


async def _lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Lines of any length: the reader's own `readline` gives up at 64 KiB."""
    rest = bytearray()
    async for chunk in stream.iter_any():
        rest += chunk
        if b"\n" not in chunk:
            continue
        *lines, tail = rest.split(b"\n")
        rest = bytearray(tail)
        for line in lines:
            if line:
                yield bytes(line)
