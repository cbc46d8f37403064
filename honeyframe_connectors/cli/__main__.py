"""The command `honeyframe`: which types there are, and whether manifests are right, with no cluster."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
import yaml
from pydantic import ValidationError

from honeyframe_connectors.api.catalog_config import CatalogConfigSpec
from honeyframe_connectors.api.connector import ConnectorSpec
from honeyframe_connectors.api.kinds import API_VERSION, sentences
from honeyframe_connectors.cli import rows
from honeyframe_connectors.connector_type import ConnectorType, Mark, marked
from honeyframe_connectors.errors import Stalled
from honeyframe_connectors.registry import Registry, default_registry

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)
app.add_typer(rows.app, name="vault")
WRONG_INPUT = 2


@app.command()
def types(
    name: Annotated[str | None, typer.Argument(help="One type, by its name or an alias of older installs.")] = None,
    output: Annotated[str, typer.Option("-o", "--output", help="table or json.")] = "table",
) -> None:
    """List the connector types, or one of them with its fields."""
    registry = default_registry()
    try:
        chosen = [registry.lookup(registry.canonical(name))] if name else [registry[each] for each in sorted(registry)]
    except Stalled as error:
        _fail(error.message)
    if output == "json":
        print(json.dumps([_described(type_) for type_ in chosen], indent=2))
    elif name:
        _show(chosen[0])
    else:
        for type_ in chosen:
            print(f"{type_.name:<20} {type_.category:<14} {type_.title}")


@app.command()
def validate(
    files: Annotated[list[Path], typer.Option("-f", "--filename", help="A manifest, or a folder of them.")],
) -> None:
    """Check Connectors and CatalogConfigs in manifests, as the operator will; the exit code is 2 if one is wrong."""
    registry, wrong, count = default_registry(), 0, 0
    for path, document in _documents(files):
        if document.get("apiVersion") != API_VERSION:
            continue
        count += 1
        name = f"{document.get('kind')} {(document.get('metadata') or {}).get('name')}"
        for fault in _faults(document, registry):
            wrong += 1
            print(f"{path}: {name}: {fault}", file=sys.stderr)
    if wrong:
        raise typer.Exit(WRONG_INPUT)
    print(f"{count} manifests are right")


def main() -> None:
    """Run the command line."""
    app()


def _documents(files: list[Path]) -> Iterator[tuple[Path, dict[str, Any]]]:
    for given in files:
        if not given.exists():
            _fail(f"{given}: there is no such file or folder")
        for path in sorted(given.rglob("*.yaml")) if given.is_dir() else [given]:
            try:
                documents = [each for each in yaml.safe_load_all(path.read_text()) if each is not None]
            except yaml.YAMLError as error:
                _fail(f"{path}: it is no YAML: {' '.join(str(error).split())}")
            for document in documents:
                if not isinstance(document, dict):
                    _fail(f"{path}: it holds something else than Kubernetes objects")
                yield path, document


def _faults(document: dict[str, Any], registry: Registry) -> Iterator[str]:
    spec = document.get("spec") or {}
    try:
        if document.get("kind") == "CatalogConfig":
            CatalogConfigSpec.model_validate(spec)
            return
        ((name, block),) = ConnectorSpec.model_validate(spec).config.items()
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


def _described(type_: ConnectorType[Any]) -> dict[str, Any]:
    return {
        "name": type_.name,
        "title": type_.title,
        "category": str(type_.category),
        "queryable": type_.queryable,
        "aliases": list(type_.aliases),
        "extra": type_.extra,
    }


def _show(type_: ConnectorType[Any]) -> None:
    print(
        f"{type_.title} ({type_.name}), {type_.category}; also known as: {', '.join(type_.aliases) or 'nothing else'}\n"
    )
    secret = marked(type_.config, Mark.SECRET)
    for field, info in type_.config.model_fields.items():
        print(f"  {field:<20} {'[secret] ' if field in secret else ''}{info.description}")


def _fail(message: str) -> NoReturn:
    print(message, file=sys.stderr)
    raise typer.Exit(WRONG_INPUT)


if __name__ == "__main__":
    main()
