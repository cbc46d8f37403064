"""What the API server itself refuses, and with which words."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from hack.cluster import ControlPlane
from honeyframe_connectors.types import ALL

ROOT = Path(__file__).parents[2]
WAYS = ([], ["--server-side"], ["--validate=false"])
GOOD = {"config": {"postgresql": {"host": "db.example.com"}}}


@pytest.fixture(scope="module", autouse=True)
def crds(control_plane: ControlPlane) -> None:
    control_plane.kubectl_run("apply", "-f", str(ROOT / "crds"))
    control_plane.kubectl_run("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    control_plane.kubectl_run("create", "namespace", "admission", check=False)


def apply(
    cluster: ControlPlane, spec: dict[str, Any], *flags: str, kind: str = "Connector", name: str = "x"
) -> subprocess.CompletedProcess[str]:
    manifest = {
        "apiVersion": "honeyframe.io/v1beta1",
        "kind": kind,
        "metadata": {"name": name, "namespace": "admission"},
        "spec": spec,
    }
    return cluster.kubectl_run(
        "apply", "-f", "-", *flags, "--dry-run=server", input=yaml.safe_dump(manifest), check=False
    )


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        pytest.param(
            {"config": {"postgresq": {"host": "a"}}},
            ['unknown field "spec.config.postgresq"', "postgresq: field not declared", "at least 1 properties"],
            id="unknown type",
        ),
        pytest.param(
            {"config": {"rds": {"host": "a"}}},
            ['unknown field "spec.config.rds"', "rds: field not declared", "at least 1 properties"],
            id="alias",
        ),
        pytest.param(
            {"config": {"postgresql": {"hots": "a"}}},
            ['unknown field "spec.config.postgresql.hots"', "hots: field not declared", None],
            id="unknown field",
        ),
        pytest.param(
            {"config": {"postgresql": {"host": "a"}, "webhook": {"url": "http://a"}}},
            ["must have at most 1 item"] * 3,
            id="two types",
        ),
        pytest.param({"interval": "5m"}, ["spec.config: Required value"] * 3, id="missing config"),
        pytest.param(GOOD | {"secretRef": {}}, ["spec.secretRef.name: Required value"] * 3, id="missing name"),
        pytest.param(
            {"config": {"postgresql": {"port": "5432"}}},
            ["must be of type integer", "expected numeric", "must be of type integer"],
            id="wrong type of value",
        ),
        pytest.param(
            {"config": {"postgresql": {"port": 70000}}}, ["less than or equal to 65535"] * 3, id="out of range"
        ),
        pytest.param(
            {"config": {"postgresql": {"host": "a", "password": "planted-in-config"}}},
            ["secrets do not belong in config"] * 3,
            id="secret in config",
        ),
        pytest.param(GOOD | {"interval": "5 minutes"}, ["should match"] * 3, id="bad interval"),
    ],
)
def test_refused(control_plane: ControlPlane, spec: dict[str, Any], words: list[str | None]) -> None:
    for flags, word in zip(WAYS, words, strict=True):
        result = apply(control_plane, spec, *flags)
        assert (result.returncode == 0) == (word is None), (flags, result)
        assert word is None or word in result.stderr
        assert "planted-in-config" not in result.stderr


def test_the_type_cannot_be_changed(control_plane: ControlPlane) -> None:
    for name, *flags in (("client",), ("server", "--server-side")):
        for spec in (GOOD, {"config": {"webhook": {"url": "http://a"}}}):
            manifest = {
                "apiVersion": "honeyframe.io/v1beta1",
                "kind": "Connector",
                "metadata": {"name": name, "namespace": "admission"},
                "spec": spec,
            }
            result = control_plane.kubectl_run("apply", "-f", "-", *flags, input=yaml.safe_dump(manifest), check=False)
            assert (result.returncode == 0) == (spec is GOOD)
        assert "the type cannot be changed" in result.stderr
        control_plane.kubectl_run("delete", "connector", name, "-n", "admission")


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ({"org": "a", "adapters": [{"adapter": "nope"}]}, "supported values"),
        ({"org": "a", "adapters": [{"adapter": "dbt"}, {"adapter": "dbt"}]}, "same instanceName"),
        (
            {"org": "a", "adapters": [{"adapter": "dbt", "instanceName": "native"}, {"adapter": "native"}]},
            "same instanceName",
        ),
        ({"org": "a", "engineProfile": "spark"}, "supported values"),
        ({}, "spec.org: Required value"),
    ],
)
def test_catalog_config_refused(control_plane: ControlPlane, spec: dict[str, Any], word: str) -> None:
    result = apply(control_plane, spec, kind="CatalogConfig")
    assert result.returncode != 0
    assert word in result.stderr


def test_explain_teaches_every_field(control_plane: ControlPlane) -> None:
    for type_ in ALL:
        text = control_plane.kubectl_run("explain", f"connector.spec.config.{type_.name}").stdout
        for field in type_.config.model_fields:
            assert f"  {field}\t" in text
        assert "<no description>" not in text


def test_the_crds_are_small() -> None:
    for path in (ROOT / "crds").glob("*.yaml"):
        assert path.stat().st_size < 200_000


@pytest.mark.parametrize("path", sorted((ROOT / "examples/manifests").rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_example_is_accepted_but_the_one_that_is_not(control_plane: ControlPlane, path: Path) -> None:
    result = control_plane.kubectl_run("apply", "-n", "admission", "--dry-run=server", "-f", str(path), check=False)
    assert (result.returncode == 0) == (path.stem != "refused"), result.stderr


def test_status_of_a_new_object_says_that_nothing_was_looked_at(control_plane: ControlPlane) -> None:
    result = apply(control_plane, GOOD, "-o", "yaml")
    assert yaml.safe_load(result.stdout)["status"] == {"observedGeneration": -1}
