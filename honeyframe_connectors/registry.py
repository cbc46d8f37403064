"""The connector types that there are, by name and alias."""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from honeyframe_connectors.connector_type import ConnectorType
from honeyframe_connectors.errors import Reason, Stalled


class Registry(Mapping[str, ConnectorType[Any]]):
    """Types by name; never changes once made."""

    def __init__(self, types: Iterable[ConnectorType[Any]]) -> None:
        self._types: dict[str, ConnectorType[Any]] = {}
        self._names: dict[str, str] = {}
        for type_ in types:
            self._types[type_.name] = type_
            for name in (type_.name, *type_.aliases):
                if name in self._names:
                    raise ValueError(f"the name {name} belongs to both {self._names[name]} and {type_.name}")
                self._names[name] = type_.name

    def __getitem__(self, name: str) -> ConnectorType[Any]:
        return self._types[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._types)

    def __len__(self) -> int:
        return len(self._types)

    def canonical(self, name: str) -> str:
        """The name of the type that a name or an alias means.

        Raises:
            Stalled: `InvalidConfig`, listing what is known.
        """
        known = self._names.get(name)
        if known is not None:
            return known
        near = difflib.get_close_matches(name, self._names, n=1)
        meant = f"write {self._names[near[0]]}, if that is what is meant; " if near else ""
        raise Stalled(
            Reason.INVALID_CONFIG,
            f"there is no connector type {name[:64]!r}: {meant}the types are {', '.join(sorted(self._types))}",
        )

    def lookup(self, name: str) -> ConnectorType[Any]:
        """The type that a name or an alias means.

        Raises:
            Stalled: `InvalidConfig`, listing what is known.
        """
        return self._types[self.canonical(name)]


def default_registry() -> Registry:
    """Every type of this distribution."""
    # Not at the top: whoever brings types of his own does not load these.
    from honeyframe_connectors.types import ALL  # noqa: PLC0415

    return Registry(ALL)
