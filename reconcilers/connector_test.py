"""The reconcile of a ConnectorTest: declare, admit, find, ask; and once it is answered, delete it.

A question is asked once. The target is waited for beside the worker, which only looks whether an answer is there, so
that targets that hang hold back nobody else's reconcile. A message is begun only after `status.startedAt` was written
by this process: what was begun by another one, or before a restart, is not known to have been sent, and not sent again.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

from pydantic import ValidationError

from honeyframe_connectors.api.connector import ConnectorSpec, Reach
from honeyframe_connectors.api.connector_test import DEFAULT_TTL_SECONDS, KIND, ConnectorTestSpec, Message
from honeyframe_connectors.api.kinds import ConditionType, parse_timestamp, seconds, sentences, timestamp
from honeyframe_connectors.connector_type import CheckResult, ConnectorType, Mark, marked, merge
from honeyframe_connectors.errors import ConnectorError, Reason, Stalled, Waiting
from honeyframe_connectors.redact import shorten
from honeyframe_connectors.registry import Registry
from honeyframe_connectors.secret_targets import require_allowed
from honeyframe_connectors.vault.answers import Answers
from honeyframe_connectors.vault.rows import ConnectorRow, Owner
from honeyframe_connectors.vault.vault import RowChanged, Vault
from reconcilers import references
from reconcilers.attempts import GRACE, Pending
from reconcilers.conditions import MESSAGE_LIMIT, conditions
from reconcilers.connector_status import step
from reconcilers.ledger import Ledger
from reconcilers.ports import Attempt, Cluster, Login, Resource, Source
from reconcilers.secret_values import certificates, pick, unlabelled
from reconcilers.steps import Outcome, Report, Step, Unreached, Verdict, run

logger = logging.getLogger(__name__)
T = TypeVar("T")

MOST_UNANSWERED = 20
"""In one namespace; the newest beyond it are refused."""
PATIENCE = 0.5
"""Seconds that a worker waits for a target before it turns to others."""
LOOK_AGAIN = 1.0
"""Seconds between two looks whether the answer is there."""


class Send(Protocol):
    """Sends a message through a connector. What goes wrong is in the result."""

    async def __call__(self, attempt: Attempt, message: Message) -> CheckResult:
        """Send it."""
        ...


@dataclass(slots=True)
class Question:
    """One test that is not answered yet, as this process knows it from one look to the next."""

    resource: Resource
    spec: ConnectorTestSpec | None = None
    owner: Owner | None = None
    type: ConnectorType[Any] | None = None
    row: ConnectorRow | None = None
    """Of the Connector that is tested, where it is applied."""
    attempt: Attempt | None = None
    begun: bool = False
    """`status.startedAt` of a message was written by this process."""
    asked: "asyncio.Task[CheckResult] | None" = None
    result: CheckResult | None = None
    answer: Outcome | None = None
    """What the status could not be made to say yet."""


@dataclass(slots=True)
class ConnectorTests:
    """Reconciles ConnectorTests: what it needs, and what it keeps."""

    registry: Registry
    vault: Vault
    answers: Answers
    cluster: Cluster
    login: Login
    fence: Callable[[], None]
    """Raises when this process must not act any more: it is not the leader."""
    ledger: Callable[[], Ledger | None]
    """The vault's rows; None while it is not open."""
    connector: Callable[[str, str], Resource | None]
    """A Connector by namespace and name, as far as the watch shows it."""
    peers: Callable[[str], Iterable[Resource]]
    """The ConnectorTests of a namespace, as far as the watch shows them."""
    senders: Mapping[str, Send] = field(default_factory=dict)
    """How a message is sent, by type; a type that is not here cannot."""
    secret_opt_in: bool = True
    clock: Callable[[], float] = time.time
    plural: str = KIND.plural
    _questions: dict[tuple[str, str], Question] = field(default_factory=dict)

    def known(self, resource: Resource) -> float | None:
        """Seconds until an answered test is deleted; None: it has no answer yet."""
        return max(0.0, _expiry(resource) - self.clock()) if _answered(resource) else None

    async def reconcile(self, resource: Resource) -> Outcome:
        """Ask, unless it is answered; what is answered goes when its time has come."""
        if _answered(resource):
            return await self._tidy(resource)
        question = self._question(resource)
        if question.answer is None:
            report = await run(self._steps(), question)
            outcome = self._outcome(question, report)
            if "completedAt" not in outcome.status:
                return outcome
            question.answer = outcome
            await self._keep(question)
        return question.answer

    async def remember(self, resource: Resource, outcome: Outcome) -> None:
        """An answer that stands in the cluster needs no memory; a message whose start stands there may be sent."""
        if _answered(resource):
            self._questions.pop((resource.namespace, resource.name), None)
        elif "startedAt" in outcome.status:
            self._question(resource).begun = True

    async def gone(self, namespace: str, name: str, uid: str | None) -> None:  # noqa: ARG002 - any other is gone too
        """Nobody waits for the answer any more."""
        self._forget((namespace, name))

    def names(self) -> set[tuple[str, str]]:
        """None: no row needs its test."""
        return set()

    # --- steps -------------------------------------------------------------------------------------------------------

    def _steps(self) -> tuple[Step[Question], ...]:
        return (
            Step("declare", ConditionType.READY, self._declare),
            Step("admit", ConditionType.READY, self._admit, needs=("declare",)),
            Step("find", ConditionType.READY, self._find, needs=("admit",)),
            Step("ask", ConditionType.READY, self._ask, needs=("find",)),
        )

    async def _declare(self, question: Question) -> str:
        """The spec can be read."""
        try:
            question.spec = ConnectorTestSpec.model_validate(question.resource.spec)
        except ValidationError as error:
            raise Stalled(Reason.INVALID_CONFIG, sentences(error, "spec")) from None
        question.owner = self.cluster.owner(question.resource.namespace)
        return "the spec is valid"

    async def _admit(self, question: Question) -> str:
        """It is among the oldest that wait, and no message that may have been sent already."""
        resource = question.resource
        started = resource.status.get("startedAt")
        if _required(question.spec).message is not None and started and not question.begun:
            raise Stalled(
                Reason.INTERRUPTED,
                f"the message was begun at {started} by an operator that ended, and may have been sent: look there, "
                "and create another ConnectorTest to send it again",
            )
        if question.asked is None and self._before(resource) >= MOST_UNANSWERED:
            raise Stalled(
                Reason.TOO_MANY,
                f"{MOST_UNANSWERED} ConnectorTests of namespace {resource.namespace} wait for an answer already: "
                "create this one again when they have theirs",
            )
        return "its turn has come"

    async def _find(self, question: Question) -> str:
        """What is asked, with the secret values that belong to it."""
        spec = _required(question.spec)
        if question.asked is not None:
            return "it is asked already"
        if spec.connector is not None:
            await self._find_not_applied(question, spec.connector)
        else:
            await self._find_serving(question, _required(spec.connector_ref).name)
        return "what is asked is known"

    async def _ask(self, question: Question) -> str:
        """The target answers."""
        message, patience = _required(question.spec).message, 0.0
        if message is not None and not (question.begun and "startedAt" in question.resource.status):
            raise Unreached(Reason.PROGRESSING, "the message is about to be sent")
        if question.asked is None:
            self.fence()
            question.asked = asyncio.ensure_future(self._answer(_required(question.attempt), message))
            question.attempt = None
            patience = PATIENCE
        done, _ = await asyncio.wait((question.asked,), timeout=patience)
        if not done:
            raise Unreached(Reason.PROGRESSING, "the target is being asked")
        try:
            question.result = question.asked.result()
        except Exception as error:
            if message is None:
                question.asked = None  # what was not answered may be asked again
                raise
            told = error.message if isinstance(error, ConnectorError) else "a fault of the operator"
            raise Stalled(Reason.INTERRUPTED, f"the message may have been sent: look there ({told})") from None
        if question.result.error is not None:
            raise question.result.error
        return f"{_required(question.type).title} answers"

    # --- what the steps share ----------------------------------------------------------------------------------------

    async def _answer(self, attempt: Attempt, message: Message | None) -> CheckResult:
        return await (self.senders[attempt.type.name](attempt, message) if message else self.login(attempt))

    async def _find_not_applied(self, question: Question, reach: Reach) -> None:
        namespace, owner = question.resource.namespace, _required(question.owner)
        name, block = next(iter(reach.config.items()))
        type_ = question.type = self.registry.lookup(name)
        type_.require_driver()
        values: Mapping[str, bytes] = {}
        targets: str | None = None
        name_of_secret = reach.secret_ref.name if reach.secret_ref is not None else ""
        if reach.secret_ref is not None:
            secret = await references.read_secret(self.cluster, namespace, name_of_secret)
            self._require_opt_in("Secret", namespace, name_of_secret, secret.source)
            values, targets = pick(type_, reach.secret_ref.keys, secret.data, name_of_secret), secret.source.targets
            _require_own(values, name_of_secret)
        elif type_.secret_required:
            raise Stalled(
                Reason.INVALID_CONFIG,
                f"type {name} needs a secret: name the Secret that holds it in spec.secretRef",
            )
        config = merge(type_, block, values)
        require_allowed(targets, type_.endpoints(config), name_of_secret)
        ca = None
        if reach.ca_ref is not None:
            content = await references.read_ca(self.cluster, namespace, reach.ca_ref)
            self._require_opt_in(reach.ca_ref.kind, namespace, reach.ca_ref.name, content.source)
            ca = certificates(content.data, reach.ca_ref.kind, reach.ca_ref.name, reach.ca_ref.key)
        question.attempt = Attempt(
            namespace_uid=owner.namespace_uid,
            type=type_,
            config=config,
            known_good=False,
            ca=ca,
            output_schemas=reach.output_schemas,
            timeout=seconds(reach.timeout),
        )

    async def _find_serving(self, question: Question, name: str) -> None:
        namespace, owner = question.resource.namespace, _required(question.owner)
        row = question.row = await self._serving_row(owner, namespace, name)
        type_ = question.type = self.registry.lookup(row.type)
        if _required(question.spec).message is not None and type_.name not in self.senders:
            raise Stalled(
                Reason.INVALID_CONFIG,
                f"type {type_.name}, which Connector {name} is of, cannot send messages: take spec.message out to test "
                "the Connector, or name one of a type that sends",
            )
        type_.require_driver()
        try:
            version = await self.vault.serving(row, marked(type_.config, Mark.TUNING))
        except RowChanged:
            await self._read_again(row)
            raise
        spec = self._spec_of(namespace, name)
        question.attempt = Attempt(
            namespace_uid=owner.namespace_uid,
            type=type_,
            config=merge(type_, version.config, version.secrets),
            known_good=not row.forced,
            ca=version.ca,
            output_schemas=spec.output_schemas if spec else (),
            timeout=seconds(spec.timeout if spec else Reach.model_fields["timeout"].default),
        )

    async def _serving_row(self, owner: Owner, namespace: str, name: str) -> ConnectorRow:
        """The row of a Connector that serves; whose namespace was made anew has none."""
        ledger = self.ledger()
        if ledger is None:
            raise Waiting(
                Reason.VAULT_UNAVAILABLE,
                "the vault is not open yet: see the operator's log and its --database and --secret-file",
            )
        rows = (row for row in ledger.of(namespace, name) if row.deleted_at is None)
        row = next((row for row in rows if row.owner.namespace_uid == owner.namespace_uid), None)
        if row is None:
            if await self.cluster.uid("Connector", namespace, name) is None:
                raise Stalled(
                    Reason.CONNECTOR_NOT_FOUND,
                    f"there is no Connector {name} in namespace {namespace}: create it, or test its spec in "
                    "spec.connector",
                )
            raise _nothing_serves(namespace, name, None)
        if row.revoked and row.secret_name is not None:
            source = await self.cluster.source("Secret", namespace, row.secret_name)
            if source is not None:
                self._require_opt_in("Secret", namespace, row.secret_name, source)
            raise _nothing_serves(namespace, name, None)
        if row.serving_version is None or row.revoked:
            raise _nothing_serves(namespace, name, Pending.load(row.pending))
        return row

    async def _read_again(self, row: ConnectorRow) -> None:
        ledger, fresh = self.ledger(), await self.vault.load(row.id)
        if ledger is not None and fresh is not None:
            ledger.put(fresh)
        elif ledger is not None:
            ledger.drop(row)

    def _spec_of(self, namespace: str, name: str) -> ConnectorSpec | None:
        resource = self.connector(namespace, name)
        try:
            return ConnectorSpec.model_validate(resource.spec) if resource is not None else None
        except ValidationError:  # what serves goes on, and so does a question about it
            return None

    def _require_opt_in(self, kind: str, namespace: str, name: str, source: Source) -> None:
        if self.secret_opt_in and not source.labelled:
            raise unlabelled(kind, namespace, name)

    def _before(self, resource: Resource) -> int:
        """How many unanswered ones of the namespace are older, or are being asked already."""
        return sum(
            _age(peer) < _age(resource) or self._is_asked(peer)
            for peer in self.peers(resource.namespace)
            if peer.uid != resource.uid and not _answered(peer)
        )

    def _is_asked(self, resource: Resource) -> bool:
        question = self._questions.get((resource.namespace, resource.name))
        return question is not None and question.resource.uid == resource.uid and question.asked is not None

    def _question(self, resource: Resource) -> Question:
        key = (resource.namespace, resource.name)
        question = self._questions.get(key)
        if question is None or question.resource.uid != resource.uid:
            self._forget(key)
            question = self._questions[key] = Question(resource)
        question.resource = resource
        return question

    def _forget(self, key: tuple[str, str]) -> None:
        question = self._questions.pop(key, None)
        if question is not None and question.asked is not None:
            question.asked.cancel()

    # --- the answer --------------------------------------------------------------------------------------------------

    def _outcome(self, question: Question, report: Report) -> Outcome:
        resource, error, waits = question.resource, report.first_error, report.blocked.get(ConditionType.READY)
        started = resource.status.get("startedAt")
        status: dict[str, Any] = {"observedGeneration": resource.generation}
        if started is not None:
            status["startedAt"] = started
        after: float | None = None
        retry: ConnectorError | None = None
        if error is None and waits is not None:
            status["startedAt"] = started or self._timestamp()
            verdict = Verdict("Unknown", Reason.PROGRESSING, waits.message, ConditionType.RECONCILING)
            after = LOOK_AGAIN if question.asked is not None else 0.0  # a message goes as soon as its start is written
        elif error is not None and error.reason == Reason.VAULT_UNAVAILABLE and self._is_young(resource):
            verdict = Verdict("False", error.reason, error.message, ConditionType.RECONCILING)
            retry = error
        else:
            if question.result is not None:
                status.setdefault("startedAt", self._timestamp())
            status |= {"completedAt": self._timestamp(), "result": _result(question, error)}
            verdict = _answer_of(question, error)
            after = float(_ttl(resource))
        status["conditions"] = conditions(
            report, verdict, (), previous=resource.status.get("conditions", ()), generation=resource.generation
        )
        return Outcome(status, after, retry=retry)

    def _timestamp(self) -> str:
        return timestamp(datetime.fromtimestamp(self.clock(), UTC))

    def _is_young(self, resource: Resource) -> bool:
        """Whether the vault may still come."""
        moment = self.clock()
        return moment < _seconds(resource.created_at, moment) + GRACE

    async def _keep(self, question: Question) -> None:
        """The answer in the history; it goes out whether or not it can be kept."""
        result, type_, owner = question.result, question.type, question.owner
        if result is None or type_ is None or owner is None:
            return
        connector_id = question.row.id if question.row is not None else None
        try:
            self.fence()
            await self.answers.add(
                question.resource.uid, owner, connector_id=connector_id, type_name=type_.name, result=result
            )
        except ConnectorError as error:
            logger.warning("the answer of ConnectorTest %s is not in the history: %s", question.resource.name, error)

    async def _tidy(self, resource: Resource) -> Outcome:
        left = _expiry(resource) - self.clock()
        if left > 0:
            return Outcome(dict(resource.status), left)
        self.fence()
        await self.cluster.delete(KIND.kind, resource.namespace, resource.name, resource.uid)
        return Outcome(dict(resource.status), None)


def _answered(resource: Resource) -> bool:
    ends = (ConditionType.COMPLETE, ConditionType.FAILED)
    return any(each["type"] in ends and each["status"] == "True" for each in resource.status.get("conditions", ()))


def _expiry(resource: Resource) -> float:
    """When it is deleted, in seconds since the epoch."""
    created = _seconds(resource.created_at, 0.0)
    return _seconds(resource.status.get("completedAt", ""), created) + _ttl(resource)


def _ttl(resource: Resource) -> int:
    return int(resource.spec.get("ttlSecondsAfterFinished", DEFAULT_TTL_SECONDS))


def _seconds(text: str, default: float) -> float:
    moment: datetime | None = parse_timestamp(text)
    return moment.astimezone(UTC).timestamp() if moment is not None else default


def _age(resource: Resource) -> tuple[str, str]:
    return (resource.created_at, resource.name)


def _require_own(values: Mapping[str, bytes], secret: str) -> None:
    """Of what is not applied no version keeps a value that bullets could stand for."""
    for name, value in values.items():
        if not value.decode("utf-8", "replace").strip("•"):
            raise Stalled(
                Reason.SECRET_KEY_MISSING,
                f"Secret {secret} holds only bullets for field {name}: a test keeps no value: write the value itself",
            )


def _nothing_serves(namespace: str, name: str, pending: Pending | None) -> Stalled:
    if pending is not None:
        return Stalled(Reason(pending.reason), f"Connector {name} serves nothing yet: {pending.message}")
    return Stalled(
        Reason.CONNECTOR_NOT_FOUND,
        f"Connector {name} serves nothing: kubectl -n {namespace} describe connector {name} says why; create this test "
        "again when it is Ready",
    )


def _answer_of(question: Question, error: ConnectorError | None) -> Verdict:
    if error is not None:
        message = _here(question, error.message)
        return Verdict("False", error.reason, message, ConditionType.STALLED, ConditionType.FAILED)
    if _required(question.spec).message is not None:
        what = "the message was sent"
    elif question.row is not None:
        what = f"version {question.row.serving_version} works"
    else:
        what = "it works as it is written here"
    message = f"{_required(question.type).title}: {what}"
    return Verdict("True", Reason.SUCCEEDED, message, ended=ConditionType.COMPLETE)


def _here(question: Question, message: str) -> str:
    """A sentence about a Connector's spec, where that stands under `spec.connector`."""
    not_applied = question.spec is not None and question.spec.connector is not None
    return shorten(message.replace("spec.", "spec.connector.") if not_applied else message, MESSAGE_LIMIT)


def _result(question: Question, error: ConnectorError | None) -> dict[str, Any]:
    result = question.result
    block: dict[str, Any] = {"ok": error is None}
    if error is not None:
        block["error"] = _here(question, error.message)
    if result is not None:
        block["latencyMs"] = result.latency_ms
        block["steps"] = [step(each.name, each.outcome, _here(question, each.message)) for each in result.steps]
        if result.server_version:
            block["serverVersion"] = result.server_version
    return block


def _required(value: T | None) -> T:
    """What an earlier step has set; a step that needs it says so in its `needs`."""
    if value is None:
        raise AssertionError("a step ran before one that it needs")
    return value
