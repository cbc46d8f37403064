"""What can go wrong, and who can mend it.

ConnectorError           a sentence that may be shown, with the reason of a condition
├── Stalled              a person must act: no passing of time helps
├── Waiting              something else may come: looked at again
│   └── TryAgain         this try could not be finished; says nothing of the object
└── CheckFailed          a check of the target did not pass
    ├── Refused          the target answered and said no: who, may not, not there
    └── Unanswered       no answer that counts: network, timeout, TLS, busy
"""

from enum import StrEnum


class Reason(StrEnum):
    """Why a condition is as it is. API: a value is never renamed."""

    SUCCEEDED = "Succeeded"
    PROGRESSING = "Progressing"
    PROGRESSING_WITH_RETRY = "ProgressingWithRetry"
    SUSPENDED = "Suspended"
    INVALID_CONFIG = "InvalidConfig"
    SECRET_NOT_FOUND = "SecretNotFound"
    SECRET_NOT_LABELLED = "SecretNotLabelled"
    SECRET_KEY_MISSING = "SecretKeyMissing"
    CA_NOT_FOUND = "CANotFound"
    ORG_MISMATCH = "OrgMismatch"
    CONNECTOR_NOT_FOUND = "ConnectorNotFound"
    TARGET_NOT_ALLOWED = "TargetNotAllowed"
    TARGET_CHANGED = "TargetChanged"
    CONNECTION_FAILED = "ConnectionFailed"
    AUTHENTICATION_FAILED = "AuthenticationFailed"
    AUTHORIZATION_FAILED = "AuthorizationFailed"
    TARGET_NOT_FOUND = "TargetNotFound"
    RATE_LIMITED = "RateLimited"
    TLS_VERIFICATION_FAILED = "TLSVerificationFailed"
    TIMEOUT = "Timeout"
    DRIVER_MISSING = "DriverMissing"
    CREDENTIALS_ROTATED = "CredentialsRotated"
    ROTATION_REJECTED = "RotationRejected"
    ROTATION_FORCED = "RotationForced"
    ROTATION_HELD = "RotationHeld"
    ROLLED_BACK = "RolledBack"
    ROLLBACK_REJECTED = "RollbackRejected"
    TOO_MANY = "TooMany"
    INTERRUPTED = "Interrupted"
    VAULT_UNAVAILABLE = "VaultUnavailable"
    NAME_CONFLICT = "NameConflict"
    CONFLICT = "Conflict"


class ConnectorError(Exception):
    """Something that a person may be told.

    The message says what is wrong, where, and ends with what mends it; it never holds a secret.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class Stalled(ConnectorError):
    """A person must act. Looked at again when something changes, and now and then."""


class Waiting(ConnectorError):
    """Something may still come.

    ``retry_after`` is in seconds; None leaves it to the queue's backoff.
    """

    def __init__(self, reason: Reason, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(reason, message)
        self.retry_after = retry_after


class TryAgain(Waiting):
    """This try could not be finished, through no fault of the object: no condition speaks of it."""


class CheckFailed(ConnectorError):
    """A check of the target did not pass."""


class Refused(CheckFailed):
    """The target answered and said no."""


class Unanswered(CheckFailed):
    """There was no answer that counts for or against the credential."""
