"""What a Connector depends on is in its fingerprint, and nothing else of other types is."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import Field

from honeyframe_connectors.probe import Gate
from honeyframe_connectors.registry import Registry, default_registry
from honeyframe_connectors.targets import Targets
from honeyframe_connectors.types import webhook
from honeyframe_connectors.vault.rows import Owner
from reconcilers.connector import Connectors
from reconcilers.ports import Resource, Source
from reconcilers.restart import matches, status_digest


@dataclass
class FixedVault:
    key_id: str = "k1"


@dataclass
class FixedCluster:
    org: str = "acme"
    calls: list[str] = field(default_factory=list)

    def owner(self, namespace: str) -> Owner:
        return Owner("cluster", "uid", self.org, namespace)


def fingerprints(
    registry: Registry | None = None, *, flags: str = "[]", key_id: str = "k1", org: str = "acme"
) -> dict[str, str]:
    found: Any = Connectors(
        registry=registry or default_registry(),
        vault=FixedVault(key_id),  # type: ignore[arg-type]
        cluster=FixedCluster(org),  # type: ignore[arg-type]
        logins=None,  # type: ignore[arg-type]
        targets=Targets(),
        gate=Gate(),
        fence=lambda: None,
        flags=flags,
    )
    return {name: found._fingerprint(name, "acme", "ns") for name in ("postgresql", "webhook")}


def test_flags_keys_and_orgs_change_all() -> None:
    before = fingerprints()
    assert fingerprints() == before
    for other in (fingerprints(flags="[1]"), fingerprints(key_id="k2"), fingerprints(org="other")):
        assert all(other[name] != before[name] for name in before)


def test_another_driver_changes_its_types_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprints()
    monkeypatch.setattr(webhook.Webhook, "driver_version", lambda _: "99")
    after = fingerprints()
    assert after["webhook"] != before["webhook"]
    assert after["postgresql"] == before["postgresql"]


def test_another_default_changes_its_type_alone() -> None:
    class Config(webhook.WebhookConfig):
        check_method: str = Field(default="HEAD", description="Another default.")

    class Changed(webhook.Webhook):
        config = Config

    registry = Registry([*(type_ for name, type_ in default_registry().items() if name != "webhook"), Changed()])
    before, after = fingerprints(), fingerprints(registry)
    assert after["webhook"] != before["webhook"]
    assert after["postgresql"] == before["postgresql"]


def test_a_row_matches_only_what_it_was_made_from() -> None:
    resource = Resource("ns", "c", "u", 3, "", {}, {}, {"a": 1})
    secret = Source("su", "7", labelled=True)
    seen = {
        "uid": "u", "generation": 3, "secret": ["su", "7"], "ca": None, "fingerprint": "f",
        "status": status_digest({"a": 1}),
    }  # fmt: skip
    assert matches(seen, resource, secret, None, "f")
    assert not matches(seen, resource, Source("su", "8", labelled=True), None, "f")
    assert not matches(seen, resource, None, None, "f")
    assert not matches(seen, resource, secret, secret, "f")
    assert not matches(seen, resource, secret, None, "g")
    for key in seen:
        assert not matches({**seen, key: "another"}, resource, secret, None, "f")
