"""`types`: which connector types there are, and what each takes."""

from typing import Annotated, Any

import typer

from honeyframe_connectors.cli.faults import Fault
from honeyframe_connectors.cli.options import Format
from honeyframe_connectors.cli.output import Output, write
from honeyframe_connectors.connector_type import ConnectorType, Mark, marked
from honeyframe_connectors.errors import Stalled
from honeyframe_connectors.registry import default_registry


def types(
    name: Annotated[
        str | None, typer.Argument(metavar="TYPE", help="One type, by its name or an alias of older installs.")
    ] = None,
    output: Format = Output.TABLE,
) -> None:
    """List the connector types, or one of them with its fields.

    Needs: nothing, not even a cluster.
    """
    registry = default_registry()
    try:
        chosen = [registry.lookup(registry.canonical(name))] if name else [registry[each] for each in sorted(registry)]
    except Stalled as error:
        raise Fault(error.message) from None
    if output.for_programs:
        write(output, [_described(type_) for type_ in chosen])
    elif name:
        _show(chosen[0])
    else:
        for type_ in chosen:
            print(f"{type_.name:<20} {type_.category:<14} {type_.title}")


def _described(type_: ConnectorType[Any]) -> dict[str, Any]:
    return {
        "name": type_.name,
        "category": str(type_.category),
        "queryable": type_.queryable,
        "capabilities": list(type_.capabilities),
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
