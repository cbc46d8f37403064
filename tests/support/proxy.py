"""A proxy in front of the API server that answers some calls with a fault instead."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import aiohttp
import yaml
from aiohttp import web

from honeyframe_operator.kube import KubeClient

Fault = Callable[[web.Request], tuple[int, dict[str, str]] | None]
"""Status and headers to answer a call with; None lets it through. A watch that is to be 410 gets the event that real
servers send; status 0 answers and then says nothing more."""


@dataclass
class FaultyProxy:
    """Forwards to a real API server over its TLS, as whoever asks; plain HTTP on loopback towards the operator."""

    upstream: KubeClient
    fault: Fault
    calls: list[str] = field(default_factory=list)
    _runner: web.AppRunner | None = None
    port: int = 0

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=10 * 2**20)
        app.router.add_route("*", "/{tail:.*}", self._forward)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    def kubeconfig(self, like: Path, path: Path) -> Path:
        """A kubeconfig with the same user that goes through here."""
        config = yaml.safe_load(like.read_text())
        config["clusters"][0]["cluster"] = {"server": f"http://127.0.0.1:{self.port}"}
        path.write_text(json.dumps(config))
        return path

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        injected = self.fault(request)
        self.calls.append(f"{request.method} {request.path} {injected[0] if injected else ''}".strip())
        if injected is not None:
            status, headers = injected
            if status in (0, 410):
                return await _watch(request, status)
            body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "injected", "code": status}
            return web.json_response(body, status=status, headers=headers)
        headers = {
            key: value for key, value in request.headers.items() if key.lower() not in ("host", "content-length")
        }
        async with self.upstream._session.request(
            request.method,
            self.upstream._url(request.path_qs),
            data=await request.read() or None,
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=None),
        ) as answer:
            response = web.StreamResponse(status=answer.status, headers={"Content-Type": answer.content_type})
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            return response


async def _watch(request: web.Request, status: int) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    if status:
        error = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "too old", "code": status}
        await response.write(json.dumps({"type": "ERROR", "object": error}).encode() + b"\n")
    else:
        await asyncio.sleep(3600)
    return response
