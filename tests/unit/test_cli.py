import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from honeyframe_connectors.cli.__main__ import app

EXAMPLES = Path(__file__).parents[2] / "examples/manifests"
run = CliRunner().invoke


def test_types() -> None:
    assert "PostgreSQL" in run(app, ["types"]).output
    (described,) = json.loads(run(app, ["types", "rds", "-o", "json"]).output)
    assert described["name"] == "postgresql"
    assert "[secret]" in run(app, ["types", "postgresql"]).output
    wrong = run(app, ["types", "postgrsql"])
    assert (wrong.exit_code, "postgresql" in wrong.output) == (2, True)


def test_every_example_is_right_but_the_refused_one() -> None:
    for path in EXAMPLES.rglob("*.yaml"):
        result = run(app, ["validate", "-f", str(path)])
        assert (result.exit_code == 0) == (path.stem != "refused"), result.output


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ("{rds: {host: a}}", "write postgresql"),
        ("{nope: {}}", "nope"),
        ("{postgresql: {hots: a}}", "hots: there is no such field"),
        ("{postgresql: {password: hunter2}}", "secrets do not belong in config"),
        ("{postgresql: {}, webhook: {}}", "spec.config"),
    ],
)
def test_a_wrong_manifest(tmp_path: Path, config: str, word: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        f"apiVersion: honeyframe.io/v1beta1\nkind: Connector\nmetadata: {{name: c}}\nspec: {{config: {config}}}\n"
    )
    result = run(app, ["validate", "-f", str(path)])
    assert result.exit_code == 2
    assert word in result.output
    assert "hunter2" not in result.output


def test_no_file_and_no_yaml(tmp_path: Path) -> None:
    assert run(app, ["validate", "-f", str(tmp_path / "nope")]).exit_code == 2
    (tmp_path / "bad.yaml").write_text("a: [")
    assert "no YAML" in run(app, ["validate", "-f", str(tmp_path / "bad.yaml")]).output
