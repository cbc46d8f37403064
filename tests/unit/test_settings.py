"""A wrong flag is a sentence and exit code 2."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("HONEYFRAME_", "KUBE"))}
    command = [sys.executable, "-m", "honeyframe_operator", *arguments]
    return subprocess.run(command, env=clean | env, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def secret(tmp_path: Path) -> str:
    path = tmp_path / "secret"
    path.write_text(os.urandom(32).hex())
    return str(path)


def test_help_explains_every_flag() -> None:
    result = run("--help")
    assert result.returncode == 0
    for flag in ("--secret-file", "--database", "--watch-namespaces", "--allow-target", "--secret-opt-in", "--resync"):
        assert flag in result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["--secret-file", "required"]),
        (["--secret-file", "/nowhere/secret"], ["there is no file /nowhere/secret"]),
        (["--nope"], ["--nope"]),
        (["--allow-target", "10.0.0.1/8"], ["--allow-target", "10.0.0.0/8"]),
        (["--database", "mysql://h/d"], ["--database", "use sqlite or postgresql"]),
        (["--database", "postgresql://u:planted-password@h/d"], ["--database-file"]),
        (["--http-address", "8080"], ["HOST:PORT"]),
        (["--log-level", "loud"], ["DEBUG"]),
        (["--watch-namespaces", "a,b"], ["--cluster-id"]),
        (["--resync", "soon"], ["--resync"]),
    ],
)
def test_wrong_flags(secret: str, arguments: list[str], words: list[str]) -> None:
    given = [] if not arguments or "--secret-file" in arguments else ["--secret-file", secret]
    result = run(*given, *arguments)
    assert result.returncode == 2, result.stderr
    for word in words:
        assert word in result.stderr
    assert "Traceback" not in result.stderr
    assert "planted-password" not in result.stderr


def test_a_secret_that_is_too_short(tmp_path: Path) -> None:
    (tmp_path / "short").write_text("hunter2")
    result = run("--secret-file", str(tmp_path / "short"))
    assert result.returncode == 2
    assert "at least 32" in result.stderr
    assert "hunter2" not in result.stderr


def test_no_kubeconfig(secret: str, tmp_path: Path) -> None:
    result = run(
        "--secret-file", secret, "--kubeconfig", str(tmp_path / "nope"), "--database", f"sqlite:///{tmp_path}/d"
    )
    assert result.returncode == 2
    assert "there is no kubeconfig" in result.stderr


def test_the_environment_serves_too(secret: str) -> None:
    result = run(HONEYFRAME_SECRET_FILE=secret, HONEYFRAME_LOG_LEVEL="loud")
    assert result.returncode == 2
    assert "--log-level" in result.stderr
