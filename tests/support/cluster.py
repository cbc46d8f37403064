"""A real API server as tests use it: objects made, changed and waited for, never slept for."""

import asyncio
import base64
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from honeyframe_connectors.api.kinds import API_VERSION
from honeyframe_operator.kube import ApiError, KubeClient

PATIENCE = 20.0
"""Seconds after which a test gives up waiting; nothing waits this long when all is well."""
COLLECTIONS = {
    "Connector": f"/apis/{API_VERSION}/namespaces/{{}}/connectors",
    "CatalogConfig": f"/apis/{API_VERSION}/namespaces/{{}}/catalogconfigs",
    "ConnectorTest": f"/apis/{API_VERSION}/namespaces/{{}}/connectortests",
    "Secret": "/api/v1/namespaces/{}/secrets",
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "Event": "/api/v1/namespaces/{}/events",
}
Body = dict[str, Any]


@dataclass
class Namespace:
    """One test's namespace, with the shortest ways to make what tests need there."""

    client: KubeClient
    name: str

    async def create(self, kind: str, name: str, **fields: Any) -> Body:
        """Make an object."""
        metadata = {"name": name, **fields.pop("metadata", {})}
        version = API_VERSION if kind in ("Connector", "CatalogConfig", "ConnectorTest") else "v1"
        body = {"apiVersion": version, "kind": kind, "metadata": metadata, **fields}
        return await self.client.post(self._path(kind), body)

    async def secret(self, name: str, labelled: bool = True, **values: str | bytes) -> Body:
        """Make a Secret; a dot in a key is written as two underscores."""
        labels = {"honeyframe.io/credentials": "true"} if labelled else {}
        return await self.create("Secret", name, metadata={"labels": labels}, data=_encoded(values))

    async def connector(self, name: str, config: Mapping[str, Any], secret: str | None = None, **spec: Any) -> Body:
        """Make a Connector."""
        keys = spec.pop("keys", None)
        if secret:
            spec["secretRef"] = {"name": secret, **({"keys": keys} if keys else {})}
        annotations = spec.pop("annotations", {})
        return await self.create(
            "Connector", name, metadata={"annotations": annotations}, spec={"config": dict(config), **spec}
        )

    async def get(self, kind: str, name: str) -> Body:
        """An object as it is now."""
        return await self.client.get(f"{self._path(kind)}/{name}")

    async def list(self, kind: str) -> list[Body]:
        """All objects of a kind."""
        items: list[Body] = (await self.client.get(self._path(kind)))["items"]
        return items

    async def patch(self, kind: str, name: str, patch: Mapping[str, Any], subresource: str = "") -> Body:
        """A JSON merge patch."""
        return await request(
            self.client, "PATCH", f"{self._path(kind)}/{name}{subresource}", patch, "application/merge-patch+json"
        )

    async def set_secret(self, name: str, **values: str | bytes) -> Body:
        """Change values of a Secret."""
        return await self.patch("Secret", name, {"data": _encoded(values)})

    async def delete(self, kind: str, name: str) -> None:
        """Delete an object."""
        await request(self.client, "DELETE", f"{self._path(kind)}/{name}")

    async def wait(self, kind: str, name: str, until: Callable[[Body], bool], patience: float = PATIENCE) -> Body:
        """Wait on a watch until an object is as it should be.

        Raises:
            AssertionError: it did not become so; the message holds its last status.
        """
        path, last = self._path(kind), {}
        deadline = time.monotonic() + patience
        try:
            async with asyncio.timeout(patience):
                while True:
                    try:
                        last = await self.client.get(f"{path}/{name}")
                        if until(last):
                            return last
                        async for event in self.client.watch(
                            path,
                            version=last["metadata"]["resourceVersion"],
                            accept="application/json",
                            fieldSelector=f"metadata.name={name}",
                        ):
                            if event["type"] in ("ADDED", "MODIFIED"):
                                last = event["object"]
                                if until(last):
                                    return last
                    except (ApiError, OSError):
                        if time.monotonic() > deadline:
                            raise
                        await asyncio.sleep(0.1)  # the API server is being restarted under us
        except TimeoutError:
            raise AssertionError(f"{kind} {name} is still: {json.dumps(last.get('status'), indent=1)}") from None

    async def event(self, reason: str) -> None:
        """Wait for an Event: it is posted after the status is written."""
        async with asyncio.timeout(PATIENCE):
            while reason not in [each["reason"] for each in await self.list("Event")]:
                await asyncio.sleep(0.05)

    async def ready(self, name: str, status: str = "True", reason: str | None = None, kind: str = "Connector") -> Body:
        """Wait until Ready is as it should be for the newest generation."""

        def until(body: Body) -> bool:
            found = condition(body, "Ready")
            return (
                found is not None
                and body["status"].get("observedGeneration") == body["metadata"]["generation"]
                and found["status"] == status
                and (reason is None or found["reason"] == reason)
            )

        return await self.wait(kind, name, until)

    def _path(self, kind: str) -> str:
        return COLLECTIONS[kind].format(self.name)


def condition(body: Mapping[str, Any], type_: str) -> dict[str, Any] | None:
    """One condition of an object."""
    found: dict[str, Any] | None = next(
        (each for each in (body.get("status") or {}).get("conditions", []) if each["type"] == type_), None
    )
    return found


async def request(
    client: KubeClient, method: str, path: str, body: Mapping[str, Any] | None = None, content_type: str = ""
) -> Body:
    """A request that the operator itself never makes."""
    headers = {**await client._headers(), **({"Content-Type": content_type} if content_type else {})}
    data = json.dumps(body) if body is not None else None
    async with client._session.request(method, client._url(path), data=data, headers=headers) as response:
        payload: Body = await response.json()
        if response.status >= 400:
            raise ApiError(response.status, payload.get("message", ""))
        return payload


def _encoded(values: Mapping[str, str | bytes]) -> dict[str, str]:
    return {
        key.replace("__", "."): base64.b64encode(value.encode() if isinstance(value, str) else value).decode()
        for key, value in values.items()
    }
