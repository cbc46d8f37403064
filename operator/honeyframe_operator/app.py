"""The operator, wired: client, watches, queue, Lease, vault."""

import asyncio
import contextlib
import ipaddress
import logging
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from honeyframe_connectors.api import catalog_config, connector, connector_test
from honeyframe_connectors.api.kinds import ADOPT_ANNOTATION, CREDENTIALS_LABEL, GROUP, VERSION
from honeyframe_connectors.connector_type import CheckResult
from honeyframe_connectors.errors import Reason, Stalled, Waiting
from honeyframe_connectors.probe import Gate, probe
from honeyframe_connectors.redact import Redactor
from honeyframe_connectors.registry import default_registry
from honeyframe_connectors.store.database import Database
from honeyframe_connectors.targets import Targets
from honeyframe_connectors.usage import UsageCounter
from honeyframe_connectors.vault.answers import Answers
from honeyframe_connectors.vault.clusters import BEAT_SECONDS, Held, Leadership
from honeyframe_connectors.vault.keyring import Keyring
from honeyframe_connectors.vault.orgs import Orgs
from honeyframe_connectors.vault.refusals import Refusals
from honeyframe_connectors.vault.rewrap import rewrap
from honeyframe_connectors.vault.rows import ConnectorRow
from honeyframe_connectors.vault.vault import Vault
from honeyframe_operator import endpoints
from honeyframe_operator.cluster import ClusterView
from honeyframe_operator.connectors import ConnectorBinding
from honeyframe_operator.controller import Controller
from honeyframe_operator.kube import UNANSWERED, ApiError, KubeClient
from honeyframe_operator.leader import Leader
from honeyframe_operator.metadata import Metadata, MetadataWatch, decode
from honeyframe_operator.metrics import Metrics
from honeyframe_operator.objects import Key, Objects, newer, resource
from honeyframe_operator.settings import Settings
from honeyframe_operator.usage import UsageFollower
from honeyframe_operator.watching import KindWatch
from honeyframe_operator.workqueue import WorkQueue
from reconcilers.catalog_config import CatalogConfigs
from reconcilers.connector import Connectors
from reconcilers.connector_test import ConnectorTests
from reconcilers.connector_usage import UsageBoard
from reconcilers.logins import Logins
from reconcilers.ports import Attempt, Resource
from reconcilers.upkeep import Upkeep

logger = logging.getLogger(__name__)

KINDS = (connector.KIND, catalog_config.KIND, connector_test.KIND)
LEASE = "honeyframe-operator"
RETRY_SECONDS = 2.0
RELEASE_SECONDS = 2.0
REWRAP_SECONDS = 60.0
"""Until what could not be wrapped anew is tried again."""
STUCK_SECONDS = 180.0
"""A queue in which nothing moves for longer than this is broken."""


@dataclass
class Health:
    """What /healthz and /readyz go by."""

    stale_since: float | None = None
    synced: bool = False
    vault: str = "the vault is not open yet"
    standing_by: str = ""
    """Why this process does not work although it holds the Lease."""


@dataclass
class Operator:
    """One process. `run` ends when it is cancelled or one of its parts does."""

    settings: Settings
    client: KubeClient
    vault: Vault
    cluster: ClusterView
    connectors: Connectors
    catalog_configs: CatalogConfigs
    controller: Controller
    leader: Leader
    leadership: Leadership
    upkeep: Upkeep
    metrics: Metrics
    usage: UsageFollower
    health: Health = field(default_factory=Health)
    _metadata_watches: list[MetadataWatch] = field(default_factory=list)

    async def run(self) -> None:
        """Watch, and work while leading."""
        address = self.settings.http_address
        try:
            runner = await endpoints.serve(address, self.metrics.registry, alive=self._alive, ready=self._ready)
        except OSError as error:
            raise Stalled(
                Reason.INVALID_CONFIG, f"--http-address: {address} cannot be listened on: {error.strerror}"
            ) from None
        try:
            async with asyncio.TaskGroup() as group:
                self._metadata_watches = self._watches()
                for watch in self._metadata_watches:
                    group.create_task(watch.run())
                kinds = KindWatch(
                    self.client,
                    [(kind.kind, kind.plural) for kind in KINDS],
                    namespaces=self.settings.watch_namespaces,
                    seen=self._saw,
                )
                group.create_task(kinds.run(self._crds))
                group.create_task(self._hold_watches_to_lists())
                group.create_task(self.leader.run(self._lead))
        finally:
            await runner.cleanup()

    # --- watches ---------------------------------------------------------------------------------------------------

    def _watches(self) -> list[MetadataWatch]:
        selector = f"{CREDENTIALS_LABEL}=true" if self.settings.secret_opt_in else ""
        watches = []
        for namespace in self.controller.scopes:
            core = f"/api/v1/namespaces/{namespace}" if namespace else "/api/v1"
            watches += [
                self._watch(f"{core}/secrets", "Secret", selector),
                self._watch(f"{core}/configmaps", "ConfigMap", ""),
            ]
        if not self.settings.watch_namespaces:
            watches.append(
                MetadataWatch(
                    self.client,
                    "/api/v1/namespaces",
                    changed=self._namespace_changed,
                    gone=self._namespace_gone,
                )
            )
        return watches

    def _watch(self, path: str, kind: str, selector: str) -> MetadataWatch:
        def changed(metadata: Metadata) -> None:
            key = (kind, metadata.namespace, metadata.name)
            if kind == "Secret" or key in self.cluster.sources or any(self.controller.objects.users(key)):
                self.cluster.sources[key] = metadata.source(always=kind == "ConfigMap")
                self._look_at_users(key)

        def gone(metadata: Metadata) -> None:
            key = (kind, metadata.namespace, metadata.name)
            self.cluster.sources.pop(key, None)
            self._look_at_users(key)
            for name in self.connectors.served_from(metadata.namespace, metadata.name) if kind == "Secret" else ():
                self.controller.queue.add((connector.KIND.kind, metadata.namespace, name))

        return MetadataWatch(self.client, path, changed=changed, gone=gone, selector=selector)

    def _look_at_users(self, reference: tuple[str, str, str]) -> None:
        for key in tuple(self.controller.objects.users(reference)):
            self.controller.look(key)

    def _namespace_changed(self, metadata: Metadata) -> None:
        before = self.cluster.namespaces.get(metadata.name)
        self.cluster.namespaces[metadata.name] = metadata
        if before is None or (before.uid, before.org) != (metadata.uid, metadata.org):
            for kind in KINDS:
                for key in self.controller.objects.keys(kind.kind):
                    if key[1] == metadata.name:
                        self.controller.look(key)

    def _namespace_gone(self, metadata: Metadata) -> None:
        self.cluster.namespaces.pop(metadata.name, None)

    def _saw(self, kind: str, event: str | None, body: dict[str, Any]) -> None:
        metadata = body["metadata"]
        key = (kind, metadata["namespace"], metadata["name"])
        if event != "DELETED":
            self.controller.saw(key, body)
            return
        successor = self.controller.objects.get(key)
        if successor is not None and newer(successor, body):
            return  # made again meanwhile; its own reconcile sees that the old one is gone
        self.controller.lost(key)
        if kind == catalog_config.KIND.kind:
            for other in self.controller.objects.keys(kind):
                self.controller.look(other)

    async def _crds(self) -> None:
        """Wait until our kinds are served."""
        said = False
        while True:
            try:
                listed = await self.client.get(f"/apis/{GROUP}/{VERSION}")
                missing = {kind.plural for kind in KINDS} - {each["name"] for each in listed["resources"]}
            except ApiError as error:
                missing = {kind.plural for kind in KINDS} if error.status == 404 else {error.message}  # noqa: PLR2004
            except UNANSWERED:
                missing = {"the API server's answer"}
            if not missing:
                return
            if not said:
                logger.warning("waiting for %s: kubectl apply -f crds/", ", ".join(sorted(missing)))
                said = True
            await asyncio.sleep(RETRY_SECONDS)

    async def _hold_watches_to_lists(self) -> None:
        """Find what a broken watch missed, and prove that the watches work."""
        await self._metadata_synced()
        pause = 0.05
        while True:
            try:
                fresh = await self.controller.sweep()
            except (ApiError, *UNANSWERED):
                self.health.stale_since = None
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if fresh:
                self.health.stale_since = None
                self.health.synced = True
                pause = self.settings.resync
            else:
                self.health.stale_since = self.health.stale_since or time.monotonic()
                pause = min(self.settings.resync, 0.25 if not self.health.synced else 5.0)
            await asyncio.sleep(pause)

    async def _metadata_synced(self) -> None:
        for watch in self._metadata_watches:
            await watch.synced.wait()

    # --- work ------------------------------------------------------------------------------------------------------

    async def _lead(self) -> None:
        """Work, unless another process has the cluster's row: the Lease is one API server's word only."""
        await self._metadata_synced()
        try:
            while True:
                try:
                    await self._open_vault_once()
                    await self._work()
                except* Held as held:
                    self._stand_by(held)
                await asyncio.sleep(RETRY_SECONDS)
        finally:
            try:
                await asyncio.wait_for(self.leadership.release(), RELEASE_SECONDS)
            except (Waiting, TimeoutError):
                logger.info("the cluster's row could not be released; it runs out by itself")

    async def _work(self) -> None:
        self.health.standing_by = ""
        self.metrics.leading.set(1)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.controller.work())
                await asyncio.sleep(0)
                self.controller.look_at_all()
                group.create_task(self._keep_leading())
                group.create_task(self._rewrap())
                group.create_task(self.upkeep.run())
                group.create_task(self.usage.run())
        finally:
            self.metrics.leading.set(0)
            self.metrics.vault_open.set(0)
            self.connectors.unload()

    async def _keep_leading(self) -> None:
        """Open the vault as soon as that can be done, then say in the cluster's row that this process leads."""
        if self.connectors.ledger is None:
            while self.connectors.ledger is None:
                await asyncio.sleep(RETRY_SECONDS)
                await self._open_vault_once()
            self.controller.look_at_all()
        trouble = ""
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            try:
                await self.leadership.renew()
                trouble = ""
            except Held:
                raise
            except Waiting as error:
                if error.message != trouble:
                    logger.error("the cluster's row: %s", error.message)  # noqa: TRY400 - the sentence is what helps
                trouble = error.message

    def _stand_by(self, held: BaseExceptionGroup[Held]) -> None:
        said, self.health.standing_by = self.health.standing_by, "another process leads this cluster"
        if not said:
            first: BaseException = held
            while isinstance(first, BaseExceptionGroup):
                first = first.exceptions[0]
            logger.warning("%s", first)

    async def _rewrap(self) -> None:
        """Wrap anew what older secrets hold, once the vault is open. Nothing waits for it."""
        while self.connectors.ledger is None:  # noqa: ASYNC110 - its opener is a loop of tries, too
            await asyncio.sleep(RETRY_SECONDS)
        while True:
            try:
                result = await rewrap(self.vault.database, self.vault.wrapping)
            except Waiting as error:
                logger.warning("the vault: keys under older secrets could not be wrapped anew: %s", error.message)
            else:
                for each in result.failures:
                    logger.error("the vault: %s/%s (%s): %s", each.project, each.name, each.connector_id, each.error)
                if result.done:
                    logger.info("the vault: the keys of %d connectors are under the newest secret now", result.done)
                if result.left == len(result.failures):
                    return
            await asyncio.sleep(REWRAP_SECONDS)

    async def _open_vault_once(self) -> None:
        try:
            await self.vault.open()
            await self.leadership.take()
            await self.connectors.load(self.cluster.cluster_id)
            await self.catalog_configs.load()
        except Held:
            raise
        except Waiting as error:
            if self.health.vault != error.message:
                logger.error("the vault: %s", error.message)  # noqa: TRY400 - the sentence is what helps
            self.health.vault = error.message
            self.metrics.vault_open.set(0)
        else:
            self.health.vault = ""
            self.metrics.vault_open.set(1)
            await self.usage.count()

    # --- probes ----------------------------------------------------------------------------------------------------

    def _alive(self) -> str:
        stale, queue = self.health.stale_since, self.controller.queue
        if self.health.synced and stale is not None and time.monotonic() - stale > self.settings.stale_after:
            return "the watch does not show what a LIST shows"
        if self.controller.working and max(queue.longest_held(), queue.oldest(fast=True)) > STUCK_SECONDS:
            return "the queue does not move"
        return ""

    def _ready(self) -> str:
        if not self.health.synced:
            return "not every object is known yet"
        if self.leader.leads and not self.controller.working and not self.health.standing_by:
            return "the vault's rows are being read"
        return ""


@contextlib.asynccontextmanager
async def operator(settings: Settings) -> AsyncIterator[Operator]:
    """An operator with its connections, closed at the end.

    Raises:
        ConnectorError: the secret cannot be used.
    """
    keyring = Keyring.read(settings.secret_file, [Path(path) for path in settings.older_secret_files])
    database = Database(settings.store_url)
    client = await KubeClient.login(settings.kubeconfig)
    try:
        yield await _wire(settings, client, Vault(database, keyring), database)
    finally:
        await client.close()
        await database.close()


async def _wire(settings: Settings, client: KubeClient, vault: Vault, database: Database) -> Operator:
    cluster = ClusterView(
        client=client,
        cluster_id=settings.cluster_id or await _cluster_id(client),
        default_org=settings.default_org,
        plurals=frozenset(kind.plural for kind in KINDS),
        watches_namespaces=not settings.watch_namespaces,
        opt_in=settings.secret_opt_in,
    )
    for namespace in settings.watch_namespaces:
        cluster.namespaces[namespace] = decode(await client.get(f"/api/v1/namespaces/{namespace}"))
    leader = Leader(client, namespace=settings.lease_namespace, name=LEASE, identity=settings.name)
    leadership = Leadership(database, cluster.cluster_id)
    objects, metrics = Objects(), Metrics()

    def fence() -> None:
        leader.fence()
        leadership.fence()

    def look_at_adopters(row: ConnectorRow) -> None:
        """A row that was deleted may be what a Connector of its namespace waits for."""
        for key in objects.keys(connector.KIND.kind):
            body = objects.get(key)
            if body and key[1] == row.owner.project and ADOPT_ANNOTATION in (body["metadata"].get("annotations") or {}):
                controller.look(key)

    queue: WorkQueue[Key] = WorkQueue()
    metrics.follow(queue)
    connectors = Connectors(
        registry=default_registry(),
        vault=vault,
        cluster=cluster,
        logins=Logins(Refusals(database, vault)),
        targets=Targets(
            allowed=tuple(ipaddress.ip_network(cidr) for cidr in settings.allow_target),
            own=await _addresses(client.host),
        ),
        gate=Gate(),
        fence=fence,
        flags=orjson.dumps(settings.bound_flags).decode(),
        secret_opt_in=settings.secret_opt_in,
        usage=UsageBoard(on=settings.usage_interval > 0),
        probed=metrics.probed,
        committed=metrics.committed,
        purge_after=settings.kept,
        went=look_at_adopters,
    )

    def seen(kind: str) -> Iterator[Resource]:
        return (resource(body) for key in objects.keys(kind) if (body := objects.get(key)) is not None)

    def rivals(org: str) -> list[Resource]:
        return [each for each in seen(catalog_config.KIND.kind) if each.spec.get("org") == org]

    def peers(namespace: str) -> list[Resource]:
        return [each for each in seen(connector_test.KIND.kind) if each.namespace == namespace]

    def seen_connector(namespace: str, name: str) -> Resource | None:
        body = objects.get((connector.KIND.kind, namespace, name))
        return resource(body) if body is not None else None

    async def login(attempt: Attempt) -> CheckResult:
        async def dial() -> CheckResult:
            return await probe(
                attempt.type,
                attempt.config,
                targets=connectors.targets,
                ca=attempt.ca,
                output_schemas=attempt.output_schemas,
                timeout=attempt.timeout,
                gate=connectors.gate,
            )

        result = await connectors.logins.login(
            attempt.namespace_uid, attempt.type, attempt.config, dial, known_good=attempt.known_good
        )
        metrics.probed(attempt.type.name, result)
        return result

    catalog_configs = CatalogConfigs(orgs=Orgs(database), cluster=cluster, fence=fence, rivals=rivals)
    connector_tests = ConnectorTests(
        registry=connectors.registry,
        vault=vault,
        answers=Answers(database),
        cluster=cluster,
        login=login,
        fence=fence,
        ledger=lambda: connectors.ledger,
        connector=seen_connector,
        peers=peers,
        secret_opt_in=settings.secret_opt_in,
    )
    controller = Controller(
        client=client,
        objects=objects,
        queue=queue,
        bindings={
            connector.KIND.kind: ConnectorBinding(connectors, cluster),
            catalog_config.KIND.kind: catalog_configs,
            connector_test.KIND.kind: connector_tests,
        },
        leader=leader,
        metrics=metrics,
        redact=Redactor(),
        identity=settings.name,
        scopes=tuple(settings.watch_namespaces) or ("",),
    )
    upkeep = Upkeep(
        connectors,
        database,
        cluster.cluster_id,
        look=lambda namespace, name: controller.look((connector.KIND.kind, namespace, name)),
        purged=metrics.rows_purged.inc,
        halted=metrics.purges_halted.set,
    )
    usage = UsageFollower(
        counter=UsageCounter(database),
        board=connectors.usage,
        controller=controller,
        metrics=metrics,
        cluster_id=cluster.cluster_id,
        interval=settings.usage_interval,
    )
    return Operator(
        settings,
        client,
        vault,
        cluster,
        connectors,
        catalog_configs,
        controller,
        leader,
        leadership,
        upkeep,
        metrics,
        usage,
    )


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT, then stop in order: no commit is torn, the Lease is let go."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    stopped = asyncio.ensure_future(stop.wait())
    main = asyncio.ensure_future(_run(settings))
    await asyncio.wait((main, stopped), return_when=asyncio.FIRST_COMPLETED)
    main.cancel()
    stopped.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await main


async def _run(settings: Settings) -> None:
    async with operator(settings) as running:
        await running.run()


async def _cluster_id(client: KubeClient) -> str:
    namespace = await client.get("/api/v1/namespaces/kube-system")
    uid: str = namespace["metadata"]["uid"]
    return uid


async def _addresses(host: str) -> tuple[str, ...]:
    """The API server's addresses: no Connector may reach it with the operator's network position."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return ()
    return tuple({str(each[4][0]) for each in found})
