"""The Secret and the CA that a spec refers to, read now."""

from honeyframe_connectors.api.connector import CARef
from honeyframe_connectors.api.kinds import CREDENTIALS_LABEL
from honeyframe_connectors.errors import Reason, Waiting
from reconcilers.ports import Cluster, Content


async def read_secret(cluster: Cluster, namespace: str, name: str) -> Content:
    """A Secret; of one that does not opt in only the source.

    Raises:
        Waiting: `SecretNotFound`.
    """
    content = await cluster.content("Secret", namespace, name)
    if content is None:
        raise Waiting(
            Reason.SECRET_NOT_FOUND,
            f"Secret {name} is not in namespace {namespace}: create it with the label "
            f'{CREDENTIALS_LABEL}: "true", or correct spec.secretRef.name',
        )
    return content


async def read_ca(cluster: Cluster, namespace: str, ref: CARef) -> Content:
    """What holds a CA; of a Secret that does not opt in only the source.

    Raises:
        Waiting: `CANotFound`.
    """
    content = await cluster.content(ref.kind, namespace, ref.name)
    if content is None:
        raise Waiting(
            Reason.CA_NOT_FOUND,
            f"{ref.kind} {ref.name} is not in namespace {namespace}: create it, or correct spec.caRef",
        )
    return content
