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
_COMMANDS = ("honeyframe", "kubectl-honeyframe")


def headings(page: str) -> dict[str, str]:
    """What a page says under each heading of the third level, in order; "" for what comes before the first."""
    before, *parts = re.split(r"^### ", (ROOT / "docs/how-to" / page).read_text(), flags=re.MULTILINE)
    return {"": before} | {heading: text for heading, _, text in (part.partition("\n") for part in parts)}


def commands(page: str) -> dict[str, list[str]]:
    """A page's commands by heading, in order; a heading without any is not there."""
    found = {
        heading: [line.strip() for block in _BLOCK.findall(text) for line in block.splitlines() if line.strip()]
        for heading, text in headings(page).items()
    }
    return {heading: lines for heading, lines in found.items() if lines}


@dataclass
class HowTo:
    """A page's commands, in order. Leaving it with a command that was not run is an error."""

    page: str
    directory: Path
    env: dict[str, str]
    heading: str | None = None
    """Only the commands under this heading of the third level; "" for those before the first. Default: all."""
    left: list[str] = field(init=False)

    def __post_init__(self) -> None:
        under = commands(self.page)
        chosen = under.values() if self.heading is None else [under[self.heading]]
        self.left = [command for each in chosen for command in each]
        for name in _COMMANDS:
            (self.directory / name).write_text(f'#!/bin/sh\nexec {sys.executable} -m honeyframe_connectors.cli "$@"\n')
            (self.directory / name).chmod(0o755)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            assert self.left == [], "every command of the page is run"

    def next(self, count: int = 1, typed: str = "", code: int = 0) -> str:
        """Run the next commands, which end with `code`, and return what the last one wrote to stdout."""
        env = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'operator'}"} | self.env
        env["PATH"] = f"{self.directory}{os.pathsep}{env['PATH']}"
        output = ""
        for _ in range(count):
            command = self.left.pop(0)
            result = subprocess.run(
                ["/bin/sh", "-c", command], cwd=self.directory, env=env, input=typed, capture_output=True, text=True,
                check=False, timeout=120,
            )  # fmt: skip
            assert result.returncode == code, f"{command}\n{result.stdout}\n{result.stderr}"
            output = result.stdout
        return output
