"""`validate`: whether manifests are right, with no cluster."""

import sys
from collections.abc import Iterator
from typing import Any

import typer
from pydantic import ValidationError

from honeyframe_connectors.api.catalog_config import CatalogConfigSpec
from honeyframe_connectors.api.connector import ConnectorSpec
from honeyframe_connectors.api.connector_test import ConnectorTestSpec
from honeyframe_connectors.api.kinds import API_VERSION, sentences
from honeyframe_connectors.cli.faults import Code
from honeyframe_connectors.cli.manifests import Files, documents
from honeyframe_connectors.connector_type import ConnectorType, Mark, marked
from honeyframe_connectors.errors import Stalled
from honeyframe_connectors.registry import Registry, default_registry


def validate(files: Files) -> None:
    """Check objects of our kinds in manifests, as the operator will.

    The exit code is 2 if one is wrong.

    Needs: nothing, not even a cluster.
    """
    registry, wrong, count = default_registry(), 0, 0
    for path, document in documents(files):
        if document.get("apiVersion") != API_VERSION:
            continue
        count += 1
        name = f"{document.get('kind')} {(document.get('metadata') or {}).get('name')}"
        for fault in _faults(document, registry):
            wrong += 1
            print(f"{path}: {name}: {fault}", file=sys.stderr)
    if wrong:
        raise typer.Exit(Code.NOT_ASKED)
    print(f"{count} manifests are right")


def _faults(document: dict[str, Any], registry: Registry) -> Iterator[str]:
    spec = document.get("spec") or {}
    try:
        if document.get("kind") == "CatalogConfig":
            CatalogConfigSpec.model_validate(spec)
            return
        is_test = document.get("kind") == "ConnectorTest"
        reach = ConnectorTestSpec.model_validate(spec).connector if is_test else ConnectorSpec.model_validate(spec)
        if reach is None:
            return
        ((name, block),) = reach.config.items()
    except ValidationError as error:
        yield sentences(error, "spec")
        return
    try:
        canonical = registry.canonical(name)
    except Stalled as error:
        yield error.message
        return
    if canonical != name:
        yield f"spec.config.{name}: {name} is a name of older installs: write {canonical}"
        return
    yield from _block_faults(registry[name], block)


def _block_faults(type_: ConnectorType[Any], block: dict[str, Any]) -> Iterator[str]:
    secret = marked(type_.config, Mark.SECRET)
    for field in sorted(block):
        if field in secret:
            yield f"spec.config.{type_.name}.{field}: secrets do not belong in config: put it in the Secret"
        elif field not in type_.config.model_fields:
            yield f"spec.config.{type_.name}.{field}: there is no such field; see honeyframe types {type_.name}"
