"""`rotate`: new secret values into the Secret, and what becomes of them."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from getpass import getpass
from pathlib import Path
from typing import Annotated, Any

import typer

from honeyframe_connectors.api.kinds import FORCE_ANNOTATION, RECONCILE_ANNOTATION, ConditionType
from honeyframe_connectors.cli.cluster import CONNECTORS, Body, Cluster, connect
from honeyframe_connectors.cli.faults import Code, Fault
from honeyframe_connectors.cli.objects import condition, status
from honeyframe_connectors.cli.options import Context, Format, Kubeconfig, Name, Namespace, Timeout
from honeyframe_connectors.cli.output import Output, plain, write
from honeyframe_connectors.cli.tokens import handled, later, not_suspended
from honeyframe_connectors.cli.waiting import Deadline, until
from honeyframe_connectors.connector_type import Mark, marked
from honeyframe_connectors.registry import default_registry

_LONGEST_REASON = 256

FromFile = Annotated[
    list[str] | None, typer.Option("--from-file", metavar="FIELD=PATH", help="A field's value from a file.")
]
FromEnv = Annotated[
    list[str] | None,
    typer.Option("--from-env", metavar="FIELD=VARIABLE", help="A field's value from an environment variable."),
]
FromStdin = Annotated[
    str | None,
    typer.Option(
        "--from-stdin", metavar="FIELD", help="A field's value from standard input; a terminal does not show it."
    ),
]
KeepNewline = Annotated[
    bool,
    typer.Option("--keep-newline", help="Take values as they are, also a single line that ends with a newline."),
]


@dataclass(frozen=True)
class Result:
    """What became of a rotation."""

    ok: bool
    version: int | None
    """The version that serves."""
    state: str | None
    """`status.credentials.state`."""
    reason: str
    message: str


def rotate(
    name: Name,
    from_file: FromFile = None,
    from_env: FromEnv = None,
    from_stdin: FromStdin = None,
    reason: Annotated[str | None, typer.Option("--reason", help="Why; kept with the version.")] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Let the values in although no check passes. Alone: those that were refused."),
    ] = False,
    keep_newline: KeepNewline = False,
    timeout: Timeout = "2m",
    namespace: Namespace = None,
    output: Format = Output.TABLE,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Write new secret values into a Connector's Secret, and wait until they serve or are refused.

    The operator tests them before they replace those that work: where they are refused, the old ones go on serving
    and the exit code is 1. Fields are those of the type (honeyframe types TYPE); spec.secretRef.keys says which key
    of the Secret each is. A value of a single line loses the newline at its end, as docker login --password-stdin
    does; a value of several lines, such as a PEM key, is taken byte for byte.

    Needs: get, watch and patch on connectors, which honeyframe-connector-edit has, and patch on that one Secret, which
    Kubernetes' own role edit has.
    """
    values = read_values(from_file or (), from_env or (), from_stdin, keep_newline=keep_newline)
    if not values and not force:
        raise Fault("there is no new value: give one with --from-file, --from-env or --from-stdin")
    if reason and len(reason) > _LONGEST_REASON:
        raise Fault(f"--reason is longer than {_LONGEST_REASON} characters: say it shorter")
    deadline = Deadline.after(timeout)
    cluster = connect(kubeconfig, context, namespace)
    body = cluster.get(CONNECTORS, name)
    not_suspended(body, cluster.namespace)
    if values:
        secret, keys = _keys(body, values)
        before = status(body).get("servedVersion")
        cluster.annotate(name, {RECONCILE_ANNOTATION: ""}, try_only=True)  # before anything is changed
        cluster.set_secret(secret, {keys[field]: value for field, value in values.items()}, reason)
        body = _looked_at(cluster, body, {}, deadline)
        result = _result(body, before)
    else:
        result = _result(body, None)
    if not result.ok and force:
        result = _force(cluster, body, result, deadline, told=not output.for_programs)
    if output.for_programs:
        write(output, asdict(result))
    else:
        print(f"{name}: {result.message}")
    if not result.ok:
        raise typer.Exit(Code.NO)


def read_values(
    from_file: Sequence[str], from_env: Sequence[str], from_stdin: str | None = None, *, keep_newline: bool = False
) -> dict[str, bytes]:
    """The values by field. What was typed is repeated nowhere: it may be a password in the wrong place.

    Raises:
        Fault: a source cannot be read, is empty, or a field has two.
    """
    values: dict[str, bytes] = {}
    sources: list[tuple[str, str, Callable[[str, str], bytes]]] = []
    sources += [(*_assigned("--from-file", "PATH", each), _read_file) for each in from_file]
    sources += [(*_assigned("--from-env", "VARIABLE", each), _read_variable) for each in from_env]
    if from_stdin is not None:
        sources.append((from_stdin, "", _read_stdin))
    for field, source, read in sources:
        if field in values:
            raise Fault(f"field {field} is given twice: give it once")
        value = read(field, source)
        if not keep_newline and (shorter := _without_newline(value)) is not None:
            print(f"{field}: the newline at its end is left away; --keep-newline keeps it", file=sys.stderr)
            value = shorter
        if not value:
            raise Fault(f"the value for field {field} is empty")
        values[field] = value
    return values


def _assigned(option: str, what: str, text: str) -> tuple[str, str]:
    field, equals, source = text.partition("=")
    if not (field and equals and source):
        raise Fault(f"{option}: write FIELD={what}, such as {option} password={what}")
    return field, source


def _read_file(field: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise Fault(f"--from-file {field}: the file cannot be read: {error.strerror}") from None


def _read_variable(field: str, variable: str) -> bytes:
    value = os.environ.get(variable)
    if value is None:
        raise Fault(f"--from-env {field}: no environment variable has that name: name one, never write the value here")
    return os.fsencode(value)


def _read_stdin(field: str, _: str) -> bytes:
    # Typed at a terminal, it is not shown.
    return os.fsencode(getpass(f"{field}: ")) if sys.stdin.isatty() else sys.stdin.buffer.read()


def _without_newline(value: bytes) -> bytes | None:
    """A single line without its newline; None where it has none, or is several lines."""
    line = value.removesuffix(b"\n").removesuffix(b"\r")
    return line if line != value and value.count(b"\n") == 1 else None


def _keys(body: Body, fields: Mapping[str, bytes]) -> tuple[str, dict[str, str]]:
    """The Secret's name, and the key in it for each field.

    Raises:
        Fault: the Connector takes none of its values from a Secret, or not this field.
    """
    name, spec = body["metadata"]["name"], body["spec"]
    reference = spec.get("secretRef")
    if not reference:
        raise Fault(f"Connector {name} has no spec.secretRef, so there is no Secret to write to: add it first")
    mapped, (type_,), registry = reference.get("keys") or {}, spec["config"], default_registry()
    secret = marked(registry[type_].config, Mark.SECRET) if type_ in registry else frozenset(fields)
    for field in fields:
        if field not in mapped and field not in secret:
            raise Fault(
                f"field {plain(field)} of Connector {name} does not come from its Secret; these do: "
                f"{', '.join(sorted(secret | set(mapped)))}; others may be mapped in spec.secretRef.keys"
            )
    return reference["name"], {field: mapped.get(field, field) for field in fields}


def _looked_at(cluster: Cluster, body: Body, annotations: dict[str, str], deadline: Deadline) -> Body:
    """The Connector as it is once the operator has looked at it and its Secret again."""
    token = later(status(body).get("lastHandledReconcileAt"))
    name = body["metadata"]["name"]
    cluster.annotate(name, {**annotations, RECONCILE_ANNOTATION: token})

    def answer(found: Body) -> Body | None:
        seen = handled(found, "lastHandledReconcileAt", token)
        return found if seen and condition(found, ConditionType.CREDENTIALS_IN_SYNC) is not None else None

    return until(cluster, CONNECTORS, name, answer, deadline, "the new values are not tested")


def _result(body: Body, before: int | None) -> Result:
    """What a Connector says of the values that its Secret holds."""
    found = status(body)
    credentials: dict[str, Any] = found.get("credentials") or {}
    version, state = found.get("servedVersion"), credentials.get("state")
    said = condition(body, ConditionType.CREDENTIALS_IN_SYNC) or {}
    reason = said.get("reason", "Progressing")
    if said.get("status") != "True" or version is None:
        serving = f"version {version} goes on serving" if version is not None else "nothing serves"
        pending = credentials.get("pending") or {}
        again = f"; tried again at {pending['nextTryAt']}" if pending.get("nextTryAt") else ""
        message = f"the new values do not serve: {reason}: {plain(said.get('message', '-'))} ({serving}{again})"
        return Result(False, version, state, reason, message)
    ready = condition(body, ConditionType.READY) or {}
    ill = "" if ready.get("status") == "True" else f"; it is not Ready: {plain(ready.get('message', '-'))}"
    done = "serves already, with these values" if version == before else "serves"
    return Result(True, version, state, reason, f"version {version} {done}{ill}")


def _force(cluster: Cluster, body: Body, refused: Result, deadline: Deadline, *, told: bool) -> Result:
    """Let in what was refused or got no answer, by the id under which it was shown."""
    pending = (status(body).get("credentials") or {}).get("pending") or {}
    if "id" not in pending:
        return refused
    if told:
        print(f"{body['metadata']['name']}: {refused.message}; forcing it", file=sys.stderr)
    after = _looked_at(cluster, body, {FORCE_ANNOTATION: pending["id"]}, deadline)
    return _result(after, refused.version)
