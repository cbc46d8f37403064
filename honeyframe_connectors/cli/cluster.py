"""The API server as the commands use it: plain dicts, any kubeconfig that kubectl takes, errors as sentences."""

import base64
import contextlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

import urllib3
import yaml

from honeyframe_connectors.api import connector
from honeyframe_connectors.api.kinds import GROUP, REASON_ANNOTATION, VERSION
from honeyframe_connectors.cli.faults import Fault
from honeyframe_connectors.cli.output import plain
from honeyframe_connectors.redact import Redactor

MANAGER = "honeyframe-cli"
"""Our field manager: what it sets is left alone by those who undo what kubectl owns."""
CONNECTORS = connector.KIND.plural
TESTS = "connectortests"
Body = dict[str, Any]

_KINDS = {CONNECTORS: "Connector", TESTS: "ConnectorTest", "secrets": "Secret", "events": "Events"}
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_REQUEST = (10, 30)
"""Seconds to connect, and to wait for an answer."""
_MERGE_PATCH = "application/merge-patch+json"
_PAGE = 500
_ANONYMOUS = 'User "system:anonymous"'
"""Whom the API server sees where a login plugin failed."""


class ApiFault(Fault):
    """The API server said no, or nothing."""

    def __init__(self, message: str, status: int | None) -> None:
        super().__init__(message)
        self.status = status
        """The HTTP status; None where there was no answer."""

    @property
    def passing(self) -> bool:
        """Whether time may mend it: no answer, or the server is busy, starting or has forgotten."""
        return self.status is None or self.status in (410, 429) or self.status >= 500  # noqa: PLR2004 - HTTP's own


@dataclass(frozen=True)
class Cluster:
    """Requests to one API server, in one namespace. Every request raises `ApiFault` where it cannot be done."""

    api: Any
    namespace: str

    def get(self, plural: str, name: str) -> Body:
        """One object."""
        with self._speaking("get", plural, name):
            return self._custom.get_namespaced_custom_object(*self._where(plural), name, _request_timeout=_REQUEST)  # type: ignore[no-any-return]

    def connectors(self, *, everywhere: bool = False) -> list[Body]:
        """All Connectors of the namespace, or of all."""
        found: list[Body] = []
        more = None
        while True:
            options = {"limit": _PAGE, "_continue": more, "_request_timeout": _REQUEST}
            with self._speaking("list", CONNECTORS, everywhere=everywhere):
                page = (
                    self._custom.list_cluster_custom_object(GROUP, VERSION, CONNECTORS, **options)
                    if everywhere
                    else self._custom.list_namespaced_custom_object(*self._where(CONNECTORS), **options)
                )
            found += page["items"]
            more = page["metadata"].get("continue")
            if not more:
                return found

    def create(self, plural: str, body: Body) -> Body:
        """Make an object."""
        with self._speaking("create", plural):
            return self._custom.create_namespaced_custom_object(  # type: ignore[no-any-return]
                *self._where(plural), body, field_manager=MANAGER, _request_timeout=_REQUEST
            )

    def annotate(self, name: str, annotations: Mapping[str, str], *, try_only: bool = False) -> None:
        """Set annotations of a Connector, or only find out whether one may."""
        with self._speaking("patch", CONNECTORS, name):
            self._custom.patch_namespaced_custom_object(
                *self._where(CONNECTORS),
                name,
                {"metadata": {"annotations": dict(annotations)}},
                dry_run="All" if try_only else None,
                field_manager=MANAGER,
                _content_type=_MERGE_PATCH,
                _request_timeout=_REQUEST,
            )

    def delete(self, plural: str, name: str) -> None:
        """Delete an object."""
        with self._speaking("delete", plural, name):
            self._custom.delete_namespaced_custom_object(*self._where(plural), name, _request_timeout=_REQUEST)

    def set_secret(self, name: str, values: Mapping[str, bytes], reason: str | None) -> None:
        """Change some keys of a Secret and say why; a reason that stood there before goes."""
        data = {key: base64.b64encode(value).decode() for key, value in values.items()}
        with self._speaking("patch", "secrets", name, sent=values.values()):
            self._core.patch_namespaced_secret(
                name,
                self.namespace,
                {"metadata": {"annotations": {REASON_ANNOTATION: reason}}, "data": data},
                field_manager=MANAGER,
                _content_type=_MERGE_PATCH,
                _request_timeout=_REQUEST,
            )

    def watch(self, plural: str, name: str, version: str, seconds: int) -> Iterator[Body]:
        """What becomes of one object after a resourceVersion, for so many seconds; ends early where it is deleted."""
        with self._speaking("watch", plural, name):
            listing = partial(self._custom.list_namespaced_custom_object, *self._where(plural))
            for event in _watch(listing, f"metadata.name={name}", version, seconds):
                if event["type"] == "DELETED":
                    return
                yield event["object"]

    def events(self, about: Body, seconds: int = 0) -> Iterator[Body]:
        """The Events about an object: those that are there, then those that come within so many seconds."""
        selector = f"involvedObject.uid={about['metadata']['uid']}"
        listing = partial(self._core.list_namespaced_event, self.namespace)
        with self._speaking("list", "events"):
            page = self.api.sanitize_for_serialization(listing(field_selector=selector, _request_timeout=_REQUEST))
        yield from page["items"]
        if not seconds:
            return
        with self._speaking("watch", "events"):
            for event in _watch(listing, selector, page["metadata"]["resourceVersion"], seconds):
                yield event["object"]

    @property
    def _custom(self) -> Any:
        from kubernetes.client import CustomObjectsApi  # noqa: PLC0415 - takes half a second, which help need not wait

        return CustomObjectsApi(self.api)

    @property
    def _core(self) -> Any:
        from kubernetes.client import CoreV1Api  # noqa: PLC0415 - as above

        return CoreV1Api(self.api)

    def _where(self, plural: str) -> tuple[str, str, str, str]:
        return GROUP, VERSION, self.namespace, plural

    @contextlib.contextmanager
    def _speaking(
        self, verb: str, plural: str, name: str = "", *, everywhere: bool = False, sent: Iterable[bytes] = ()
    ) -> Iterator[None]:
        """What goes wrong in a request becomes a sentence, without the secret values that were sent."""
        from kubernetes.client.exceptions import ApiException  # noqa: PLC0415 - as above

        where = "in any namespace" if everywhere else f"in namespace {self.namespace}"
        try:
            yield
        except ApiException as error:
            # An admission webhook may repeat what it refuses.
            said = Redactor(sent).message(_said(error.body))
            raise ApiFault(self._sentence(error.status, said, verb, plural, name, where), error.status) from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            why = type(getattr(error, "reason", None) or error).__name__
            raise ApiFault(
                f"no answer from the API server at {self.api.configuration.host} ({why}): "
                "see whether kubectl reaches it, and with which --context",
                None,
            ) from None

    def _sentence(self, status: int | None, said: str, verb: str, plural: str, name: str, where: str) -> str:
        kind = _KINDS[plural]
        if status == HTTPStatus.UNAUTHORIZED or _ANONYMOUS in said:
            return f"the API server at {self.api.configuration.host} does not know who you are: log in again"
        if status == HTTPStatus.FORBIDDEN and " cannot " in said:
            what = f"{plural}/{name}" if name else plural
            return f"you may not {verb} {what} {where}: {_who_grants(verb, plural, name, self.namespace)}"
        if status == HTTPStatus.NOT_FOUND and plural in (CONNECTORS, TESTS) and not said:
            return f"the API server has no kind {kind}: install the CRDs, with kubectl apply -f crds/"
        if status == HTTPStatus.NOT_FOUND and name:
            return f"there is no {kind} {name} {where}: kubectl -n {self.namespace} get {plural} lists those there are"
        what = f"{kind} {name}".rstrip()
        return f"the API server did not {verb} {what} {where} ({status}): {plain(said) or 'it does not say why'}"


def connect(kubeconfig: str | None, context: str | None, namespace: str | None) -> Cluster:
    """Log in as kubectl does: the files of `--kubeconfig`, KUBECONFIG or ~/.kube/config, else the pod's account.

    Raises:
        Fault: there is none of them, or it cannot be used.
    """
    from kubernetes.client import ApiClient, Configuration  # noqa: PLC0415 - as above
    from kubernetes.config import ConfigException, load_incluster_config  # noqa: PLC0415 - as above

    # It tells every try of a connection; what is said of the last one is ours.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    configuration = Configuration()
    files = _files(kubeconfig)
    try:
        if not files and kubeconfig is None and "KUBERNETES_SERVICE_HOST" in os.environ:
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
            found: str | None = (_ACCOUNT / "namespace").read_text().strip()
        else:
            found = _load(files, context, configuration)
    except (ConfigException, yaml.YAMLError, OSError, KeyError, TypeError, AttributeError) as error:
        named = kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
        why = f": {plain(str(error))}" if isinstance(error, ConfigException) and files else ""
        raise Fault(
            f"there is no usable kubeconfig at {named}{why}: give one with --kubeconfig or KUBECONFIG, "
            "and see kubectl config get-contexts for its contexts"
        ) from None
    return Cluster(ApiClient(configuration), namespace or found or "default")


def _files(kubeconfig: str | None) -> list[str]:
    """The kubeconfigs that are there and not empty, in order; an empty one among several is none."""
    named = [kubeconfig] if kubeconfig else (os.environ.get("KUBECONFIG") or "~/.kube/config").split(os.pathsep)
    paths = [Path(name).expanduser() for name in named if name]
    return [str(path) for path in paths if path.is_file() and path.stat().st_size]


def _load(files: list[str], context: str | None, configuration: Any) -> str | None:
    """Fill the client's configuration from the merged files, and return the context's namespace."""
    from kubernetes.config.kube_config import KubeConfigLoader, KubeConfigMerger  # noqa: PLC0415 - as above

    merged = KubeConfigMerger(os.pathsep.join(files))  # type: ignore[no-untyped-call]
    # kubectl takes the current context of the first file that has one; the client would take the last's.
    current = (merged.config_files[path].get("current-context") for path in merged.paths)
    context = context or next(filter(None, current), None)
    loader: Any = KubeConfigLoader(  # type: ignore[no-untyped-call]
        config_dict=merged.config, active_context=context, config_persister=merged.save_changes
    )
    loader.load_and_set(configuration)
    found: str | None = loader.current_context["context"].get("namespace")
    return found


def _watch(listing: Any, selector: str, version: str, seconds: int) -> Iterator[dict[str, Any]]:
    from kubernetes.watch import Watch  # noqa: PLC0415 - as above

    watch: Any = Watch()  # type: ignore[no-untyped-call]
    yield from watch.stream(
        listing,
        field_selector=selector,
        resource_version=version,
        timeout_seconds=seconds,
        # The server ends it in time; where it does not, the connection is dead.
        _request_timeout=(_REQUEST[0], seconds + _REQUEST[1]),
        deserialize=False,
    )


def _said(body: str | None) -> str:
    """What the API server itself said; "" where that is no Status."""
    try:
        message = json.loads(body or "").get("message")
    except (ValueError, AttributeError):
        return ""
    return str(message or "")


def _who_grants(verb: str, plural: str, name: str, namespace: str) -> str:
    if plural == "secrets":
        return (
            "Kubernetes' own role edit grants it, or a role for this one Secret: "
            f"kubectl -n {namespace} create role {name}-rotate --verb={verb} --resource=secrets --resource-name={name}"
        )
    if plural == "events":
        return "Kubernetes' own role view grants it"
    role = "read" if plural == CONNECTORS and verb in ("get", "list", "watch") else "edit"
    return f"the ClusterRole honeyframe-connector-{role} grants it; ask for a binding to it"
