"""`test`: does a connector work? Asked of the operator, or tried on the spot."""

import asyncio
import ipaddress
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from honeyframe_connectors.api.connector import ConnectorSpec
from honeyframe_connectors.api.kinds import API_VERSION, seconds, sentences
from honeyframe_connectors.cli.cluster import TESTS, ApiFault, Body, Cluster, connect
from honeyframe_connectors.cli.completion import connector_names
from honeyframe_connectors.cli.faults import Code, Fault
from honeyframe_connectors.cli.manifests import documents
from honeyframe_connectors.cli.objects import condition, is_true, status
from honeyframe_connectors.cli.options import Context, Format, Kubeconfig, Namespace, Timeout
from honeyframe_connectors.cli.output import Output, plain, table, write
from honeyframe_connectors.cli.rotate import FromEnv, FromFile, KeepNewline, read_values
from honeyframe_connectors.cli.waiting import Deadline, until
from honeyframe_connectors.connector_type import Outcome, merge
from honeyframe_connectors.errors import Stalled
from honeyframe_connectors.probe import Gate, probe
from honeyframe_connectors.registry import default_registry
from honeyframe_connectors.targets import Targets

_ASKED = ("config", "secretRef", "caRef", "timeout")
"""What a ConnectorTest takes of a Connector's spec."""
_WORDS = {True: "passed", False: "failed", None: "not tested"}


@dataclass(frozen=True)
class Answer:
    """How one test went."""

    name: str
    ok: bool
    latency_ms: int | None
    error: str
    steps: tuple[tuple[str, bool | None, str], ...] = ()
    """Name, whether it passed (None: not tested), message."""


def test(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="A live Connector: what serves is tested.", autocompletion=connector_names),
    ] = None,
    files: Annotated[
        list[Path] | None,
        typer.Option("-f", "--filename", help="Manifests of Connectors that need not be applied, or a folder of them."),
    ] = None,
    local: Annotated[
        bool, typer.Option("--local", help="With -f: test from here instead of asking the operator.")
    ] = False,
    from_file: FromFile = None,
    from_env: FromEnv = None,
    keep_newline: KeepNewline = False,
    ca_file: Annotated[
        Path | None, typer.Option("--ca-file", help="With --local: the certificates that spec.caRef names, PEM.")
    ] = None,
    timeout: Timeout = "2m",
    namespace: Namespace = None,
    output: Format = Output.TABLE,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Test a Connector, step by step; nothing is stored, and nothing that serves changes.

    With NAME, the operator tests the version that serves. With -f, it tests what the manifests say, with the Secrets
    that they name in the cluster: that is the network that matters. With --local the test runs here, with secret
    values from --from-file and --from-env. `-o json` writes ok, latency_ms and error; a list with names for several.
    The exit code is 0 if all pass.

    Needs: create, get, watch and delete on connectortests, which honeyframe-connector-edit has. With --local nothing,
    not even a cluster.
    """
    if bool(name) == bool(files):
        raise Fault("give the NAME of a Connector, or manifests with -f")
    if local and not files:
        raise Fault("--local tests what manifests say: give them with -f")
    if (from_file or from_env or ca_file) and not local:
        raise Fault("--from-file, --from-env and --ca-file are for --local: the operator reads the Secret itself")
    deadline = Deadline.after(timeout)
    if local:
        values = read_values(from_file or (), from_env or (), keep_newline=keep_newline)
        answers = _locally(list(_connectors(files or [])), values, ca_file, deadline.left)
    else:
        cluster = connect(kubeconfig, context, namespace)
        questions = (
            [(name, {"connectorRef": {"name": name}}, cluster)]
            if name
            else [_question(each, cluster, namespace) for each in _connectors(files or [])]
        )
        answers = [_asked(found, about, spec, deadline) for about, spec, found in questions]
    _show(answers, output)
    if not all(each.ok for each in answers):
        raise typer.Exit(Code.NO)


def _connectors(files: Sequence[Path]) -> Iterator[Body]:
    count = 0
    for _, document in documents(files):
        if document.get("apiVersion") == API_VERSION and document.get("kind") == "Connector":
            count += 1
            yield document
    if not count:
        raise Fault(f"there is no Connector in {', '.join(map(str, files))}")


def _question(document: Body, cluster: Cluster, namespace: str | None) -> tuple[str, dict[str, Any], Cluster]:
    metadata, spec = document.get("metadata") or {}, document.get("spec") or {}
    own = metadata.get("namespace")
    if own and namespace and own != namespace:
        raise Fault(f"Connector {_name(document)} is of namespace {own}, not {namespace}: leave -n away, or edit it")
    asked = {field: spec[field] for field in _ASKED if field in spec}
    return _name(document), {"connector": asked}, replace(cluster, namespace=own) if own else cluster


def _asked(cluster: Cluster, about: str, spec: dict[str, Any], deadline: Deadline) -> Answer:
    """Make a ConnectorTest, wait for its answer, and delete it whatever came of it."""
    body = cluster.create(
        TESTS,
        {
            "apiVersion": API_VERSION,
            "kind": "ConnectorTest",
            "metadata": {"generateName": f"{about[:200]}-"},
            "spec": spec,
        },
    )
    made = body["metadata"]["name"]
    try:
        return until(cluster, TESTS, made, lambda found: _answer(about, found), deadline, "the test has no answer")
    finally:
        try:
            cluster.delete(TESTS, made)
        except ApiFault as fault:
            print(f"ConnectorTest {made} stays until its time is over: {fault}", file=sys.stderr)


def _answer(about: str, body: Body) -> Answer | None:
    if not is_true(body, "Complete") and not is_true(body, "Failed"):
        return None
    result = status(body).get("result")
    if not result:
        said = condition(body, "Failed") or condition(body, "Ready") or {}
        return Answer(about, False, None, plain(said.get("message", "the operator does not say why")))
    steps = tuple(
        (each["name"], each.get("passed"), plain(each.get("message") or "")) for each in result.get("steps", ())
    )
    return Answer(about, result["ok"], result.get("latencyMs"), plain(result.get("error") or ""), steps)


def _locally(found: list[Body], values: dict[str, bytes], ca_file: Path | None, patience: float) -> list[Answer]:
    if values and len(found) > 1:
        raise Fault("values are for one Connector, and there are several in the manifests: give a file with one")
    try:
        ca = ca_file.read_bytes() if ca_file else None
    except OSError as error:
        raise Fault(f"--ca-file: the file cannot be read: {error.strerror}") from None
    return [_tried(each, values, ca, patience) for each in found]


def _tried(document: Body, values: dict[str, bytes], ca: bytes | None, patience: float) -> Answer:
    name, registry = _name(document), default_registry()
    try:
        spec = ConnectorSpec.model_validate(document.get("spec") or {})
        ((type_name, declared),) = spec.config.items()
        if spec.ca_ref is not None and ca is None:
            raise Fault(f"Connector {name} names certificates in spec.caRef: give them with --ca-file")
        type_ = registry.lookup(type_name)
        type_.require_driver()
        config = merge(type_, declared, values)
    except ValidationError as error:
        return Answer(name, False, None, sentences(error, "spec"))
    except Stalled as error:
        return Answer(name, False, None, error.message)
    # From one's own machine one may go where one may go: the operator's guard is not for here.
    everywhere = tuple(ipaddress.ip_network(each) for each in ("0.0.0.0/0", "::/0"))
    result = asyncio.run(
        probe(
            type_,
            config,
            targets=Targets(everywhere),
            ca=ca,
            output_schemas=spec.output_schemas,
            timeout=min(seconds(spec.timeout), patience),
            gate=Gate(),
        )
    )
    passed = {Outcome.PASSED: True, Outcome.FAILED: False, Outcome.NOT_TESTED: None}
    return Answer(
        name,
        result.ok,
        result.latency_ms,
        result.error.message if result.error else "",
        tuple((step.name, passed[step.outcome], step.message) for step in result.steps),
    )


def _show(answers: list[Answer], output: Output) -> None:
    if output.for_programs:
        found = [{"ok": each.ok, "latency_ms": each.latency_ms, "error": each.error} for each in answers]
        named = [{"name": each.name, **one} for each, one in zip(answers, found, strict=True)]
        write(output, found[0] if len(found) == 1 else named)
        return
    for each in answers:
        took = f" in {each.latency_ms} ms" if each.latency_ms is not None else ""
        print(f"{each.name}: {'it works' if each.ok else f'it does not work: {each.error}'}{took if each.ok else ''}")
        if each.steps:
            table(["STEP", "RESULT", "MESSAGE"], [[step, _WORDS[passed], said] for step, passed, said in each.steps])


def _name(document: Body) -> str:
    return str((document.get("metadata") or {}).get("name") or "connector")
