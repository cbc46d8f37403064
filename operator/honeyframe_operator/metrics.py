"""What Prometheus reads of the operator. No label ever holds a name that users choose without a bound."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from honeyframe_connectors.connector_type import CheckResult
from honeyframe_operator.workqueue import WorkQueue


class Metrics:
    """The operator's metrics in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.reconciles = Counter(
            "honeyframe_reconciles", "Reconciles that ended.", ("kind", "result"), registry=self.registry
        )
        self.reconcile_seconds = Histogram(
            "honeyframe_reconcile_seconds",
            "How long a reconcile took.",
            ("kind",),
            registry=self.registry,
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
        )
        self.first_reconcile_seconds = Histogram(
            "honeyframe_first_reconcile_seconds",
            "From the first sight of an object to the end of its first reconcile.",
            ("kind",),
            registry=self.registry,
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
        )
        self.queue_wait_seconds = Histogram(
            "honeyframe_queue_wait_seconds",
            "How long a key waited in the queue.",
            registry=self.registry,
            buckets=(0.001, 0.005, 0.025, 0.1, 0.5, 1, 5, 30),
        )
        self.status_writes = Counter(
            "honeyframe_status_writes", "Status writes.", ("kind", "result"), registry=self.registry
        )
        self.probes = Counter(
            "honeyframe_probes",
            "Checks of targets, with the reason of those that failed.",
            ("type", "result"),
            registry=self.registry,
        )
        self.probe_seconds = Histogram(
            "honeyframe_probe_seconds", "How long a check took.", ("type",), registry=self.registry
        )
        self.probe_last_success = Gauge(
            "honeyframe_probe_last_success_timestamp_seconds",
            "When a check of this type last passed.",
            ("type",),
            registry=self.registry,
        )
        self.versions = Counter("honeyframe_versions", "Versions that were made.", ("type",), registry=self.registry)
        self.rows_purged = Counter(
            "honeyframe_rows_purged", "Deleted rows that were purged with their history.", registry=self.registry
        )
        self.purges_halted = Gauge(
            "honeyframe_purges_halted",
            "Deleted rows that are kept for a week, because so many went at once.",
            registry=self.registry,
        )
        self.usage_counts = Counter(
            "honeyframe_usage_counts", "Counts of what uses the Connectors.", ("result",), registry=self.registry
        )
        self.leading = Gauge("honeyframe_leading", "Whether this process works.", registry=self.registry)
        self.vault_open = Gauge("honeyframe_vault_open", "Whether the vault is open.", registry=self.registry)

    def probed(self, type_name: str, result: CheckResult) -> None:
        """A target was checked."""
        self.probes.labels(type_name, str(result.error.reason) if result.error else "passed").inc()
        self.probe_seconds.labels(type_name).observe(result.latency_ms / 1000)
        if result.ok:
            self.probe_last_success.labels(type_name).set_to_current_time()

    def committed(self, type_name: str) -> None:
        """A version was made."""
        self.versions.labels(type_name).inc()

    def follow(self, queue: WorkQueue[tuple[str, str, str]]) -> None:
        """Show the queue's lanes, as they are when asked."""
        depth = Gauge("honeyframe_queue_depth", "Keys that wait.", ("lane",), registry=self.registry)
        age = Gauge(
            "honeyframe_queue_oldest_seconds", "How long the first key waited.", ("lane",), registry=self.registry
        )
        for lane, fast in (("fast", True), ("slow", False)):
            depth.labels(lane).set_function(lambda fast=fast: queue.depth(fast=fast))  # type: ignore[misc]
            age.labels(lane).set_function(lambda fast=fast: queue.oldest(fast=fast))  # type: ignore[misc]
