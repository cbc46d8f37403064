"""Reading manifests: every Kubernetes object in files and folders."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from honeyframe_connectors.cli.faults import Fault

Files = Annotated[list[Path], typer.Option("-f", "--filename", help="A manifest, or a folder of them.")]


def documents(files: Sequence[Path]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every object of the files, with the file it is in.

    Raises:
        Fault: a file is not there, is no YAML, or holds something else.
    """
    for given in files:
        if not given.exists():
            raise Fault(f"{given}: there is no such file or folder")
        for path in sorted(given.rglob("*.yaml")) if given.is_dir() else [given]:
            try:
                found = [each for each in yaml.safe_load_all(path.read_text()) if each is not None]
            except yaml.YAMLError as error:
                raise Fault(f"{path}: it is no YAML: {' '.join(str(error).split())}") from None
            for document in found:
                if not isinstance(document, dict):
                    raise Fault(f"{path}: it holds something else than Kubernetes objects")
                yield path, document
