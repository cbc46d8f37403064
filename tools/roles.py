"""The roles: the operator's own, cluster-wide or by namespace, and those of people."""

from collections.abc import Sequence
from typing import Any

from honeyframe_connectors.api import catalog_config, connector, connector_test
from honeyframe_connectors.api.kinds import GROUP

_KINDS = [connector.KIND.plural, catalog_config.KIND.plural, connector_test.KIND.plural]
_QUESTIONS = [connector_test.KIND.plural]
"""Answered once, and then deleted by the operator."""
_READ = ["get", "list", "watch"]


def _rule(group: str, resources: Sequence[str], verbs: Sequence[str], names: Sequence[str] = ()) -> dict[str, Any]:
    rule: dict[str, Any] = {"apiGroups": [group], "resources": list(resources), "verbs": list(verbs)}
    if names:
        rule["resourceNames"] = list(names)
    return rule


_WATCHED = [
    _rule(GROUP, _KINDS, _READ),
    _rule(GROUP, [f"{plural}/status" for plural in _KINDS], ["update"]),
    _rule(GROUP, _QUESTIONS, ["delete"]),
    _rule("", ["secrets", "configmaps"], _READ),
    _rule("", ["events"], ["create"]),
]
_LEASE = [_rule("coordination.k8s.io", ["leases"], ["get", "create", "update"])]


def _role(name: str, rules: list[dict[str, Any]], *, kind: str = "ClusterRole", **labels: str) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name}
    if labels:
        metadata["labels"] = {f"rbac.authorization.k8s.io/aggregate-to-{role}": "true" for role in labels}
    return {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": metadata, "rules": rules}


def files() -> dict[str, list[dict[str, Any]]]:
    """The documents by file name."""
    connectors = [connector.KIND.plural]
    catalogs = [catalog_config.KIND.plural]
    everything = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
    read, edit = _rule(GROUP, connectors, _READ), _rule(GROUP, [*connectors, *_QUESTIONS], everything)
    administer, told = _rule(GROUP, catalogs, everything), _rule("", ["events"], _READ)
    return {
        "operator.yaml": [
            _role("honeyframe-operator", [*_WATCHED, _rule("", ["namespaces"], _READ)]),
            _role("honeyframe-operator-lease", _LEASE, kind="Role"),
        ],
        "operator-namespaced.yaml": [
            _role("honeyframe-operator", [*_WATCHED, _rule("", ["namespaces"], ["get"])], kind="Role"),
            _role("honeyframe-operator-lease", _LEASE, kind="Role"),
        ],
        "people.yaml": [
            _role("honeyframe-connector-read", [read]),
            _role("honeyframe-connector-edit", [edit, told], edit="true", admin="true"),
            _role("honeyframe-admin", [edit, administer, told]),
            _role("honeyframe-designer", [edit, told]),
            _role("honeyframe-analyst", [read]),
            _role("honeyframe-viewer", []),
        ],
    }
