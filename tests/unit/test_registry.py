from typing import Any, ClassVar

import pytest

from honeyframe_connectors.connector_type import Category, Checkup, ConnectorConfig, ConnectorType, Guard
from honeyframe_connectors.errors import Reason, Stalled
from honeyframe_connectors.registry import Registry, default_registry
from honeyframe_connectors.types import ALL


def a_type(type_name: str, *other: str) -> ConnectorType[Any]:
    class Plain(ConnectorType[ConnectorConfig]):
        name: ClassVar[str] = type_name
        title: ClassVar[str] = type_name
        category: ClassVar[Category] = Category.API
        aliases: ClassVar[tuple[str, ...]] = other
        driver: ClassVar[str | None] = None
        steps: ClassVar[tuple[str, ...]] = ("resolve",)
        guard: ClassVar[Guard] = Guard.PINNED
        config = ConnectorConfig

        async def check(self, config: ConnectorConfig, checkup: Checkup) -> None:
            """Nothing."""

    return Plain()


def test_it_is_a_mapping_by_name() -> None:
    one, two = a_type("one", "eins"), a_type("two")
    registry = Registry([one, two])
    assert dict(registry) == {"one": one, "two": two}
    assert len(registry) == 2
    assert "eins" not in registry


def test_aliases_lead_to_the_name() -> None:
    registry = Registry([a_type("one", "eins", "un")])
    assert registry.canonical("un") == "one"
    assert registry.canonical("one") == "one"
    assert registry.lookup("eins") is registry["one"]


@pytest.mark.parametrize("second", [("one",), ("two", "one"), ("two", "eins"), ("eins",)])
def test_a_name_belongs_to_one_type(second: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="belongs to both one and"):
        Registry([a_type("one", "eins"), a_type(*second)])


def test_an_unknown_name_is_answered_with_what_is_known() -> None:
    with pytest.raises(Stalled) as caught:
        default_registry().canonical("postgresq")
    assert caught.value.reason is Reason.INVALID_CONFIG
    assert "write postgresql, if that is what is meant" in caught.value.message
    assert all(type_.name in caught.value.message for type_ in ALL)


def test_an_alias_is_near_too() -> None:
    with pytest.raises(Stalled, match="write postgresql"):
        default_registry().lookup("postgress")


def test_the_default_registry_has_every_type() -> None:
    assert list(default_registry().values()) == list(ALL)
