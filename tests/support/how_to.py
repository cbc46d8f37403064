"""Runs what a how-to page says, word for word."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from hack.operator_process import ROOT

_BLOCK = re.compile(r"^ *```sh\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


@dataclass
class HowTo:
    """A page's commands, in order. Leaving it with a command that was not run is an error."""

    page: str
    directory: Path
    env: dict[str, str]
    left: list[str] = field(init=False)

    def __post_init__(self) -> None:
        text = (ROOT / "docs/how-to" / self.page).read_text()
        self.left = [line.strip() for block in _BLOCK.findall(text) for line in block.splitlines() if line.strip()]
        (self.directory / "honeyframe").write_text(
            f'#!/bin/sh\nexec {sys.executable} -m honeyframe_connectors.cli "$@"\n'
        )
        (self.directory / "honeyframe").chmod(0o755)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            assert self.left == [], "every command of the page is run"

    def next(self, count: int = 1, typed: str = "") -> str:
        """Run the next commands, and return what the last one wrote to stdout."""
        env = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'operator'}"} | self.env
        env["PATH"] = f"{self.directory}{os.pathsep}{env['PATH']}"
        output = ""
        for _ in range(count):
            command = self.left.pop(0)
            result = subprocess.run(
                ["/bin/sh", "-c", command], cwd=self.directory, env=env, input=typed, capture_output=True, text=True,
                check=False, timeout=120,
            )  # fmt: skip
            assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
            output = result.stdout
        return output
