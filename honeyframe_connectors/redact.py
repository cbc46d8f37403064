"""What leaves the process as text goes through here: known secret values, and what looks like one."""

import base64
import json
import re
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import quote, quote_plus

BULLETS: Final = "••••••••"
MESSAGE_LIMIT: Final = 1024
"""Characters of a message that is shown."""

_SHORT: Final = 4
_LINE: Final = 16
_READ: Final = 16 * 1024

_PATTERNS: Final[tuple[tuple[re.Pattern[str], str], ...]] = (
    (re.compile(r"(?<=://)([^\s/?#:@'\"]*:)[^\s/?#'\"]*@"), rf"\1{BULLETS}@"),
    (
        re.compile(r"(?i)\b((?:proxy-)?authorization|cookie|set-cookie|x-api-key|api-key)(['\"]?\s*[:=]\s*)[^\r\n]+"),
        rf"\1\2{BULLETS}",
    ),
    (re.compile(r"(?i)\b(bearer|basic)(\s+)(?=[\w.~+/-]*[\d=._~+/-])[\w.~+/-]{8,}=*"), rf"\1\2{BULLETS}"),
    (
        re.compile(
            r"(?i)((?:password|passwd|passphrase|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|signature)"
            r"['\"]?\s*=\s*)(?:'(?:[^'\\]|\\.)*'?|\"(?:[^\"\\]|\\.)*\"?|[^\s,;&'\"]+)"
        ),
        rf"\1{BULLETS}",
    ),
    (
        re.compile(
            r"(?i)((?:password|passwd|passphrase|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|signature)"
            r"['\"]\s*:\s*)(?:'(?:[^'\\]|\\.)*'?|\"(?:[^\"\\]|\\.)*\"?|[^\s,;&}'\"]+)"
        ),
        rf"\1{BULLETS}",
    ),
    (
        re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
        BULLETS,
    ),
)


def shorten(text: str, limit: int = MESSAGE_LIMIT) -> str:
    """A text of at most so many characters; what was cut shows as an ellipsis."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


class Redactor:
    """Replaces secret values by bullets: as they are, and as base64, URLs and JSON write them.

    A value of fewer than four characters is replaced only where it stands as a word of its own: elsewhere the bullets
    would make every message illegible and give the value away.
    """

    def __init__(self, secrets: Iterable[bytes | str] = ()) -> None:
        long: set[str] = set()
        short: set[str] = set()
        for secret in secrets:
            for form in _forms(secret):
                (long if len(form) >= _SHORT else short).add(form)
        # The longest first, so that no value hides the end of another that begins with it.
        self._long = sorted(long, key=len, reverse=True)
        self._longest = len(self._long[0]) if self._long else 0
        words = "|".join(re.escape(form) for form in sorted(short, key=len, reverse=True))
        self._short = re.compile(rf"(?<!\w)(?:{words})(?!\w)") if words else None

    def __call__(self, text: str) -> str:
        """The text without secrets, as long as it comes."""
        # Not one expression of them all: to compile that takes a quarter of a second for a long key.
        for form in self._long:
            text = text.replace(form, BULLETS)
        if self._short is not None:
            text = self._short.sub(BULLETS, text)
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
        return text

    def message(self, text: str, limit: int = MESSAGE_LIMIT) -> str:
        """The text without secrets and shortened, at a cost that does not grow with what a hostile server sends."""
        cut = text[: _READ + self._longest]
        clean = self(cut)
        if len(cut) < len(text):
            # A value that the cut went through was not recognised: what may be its beginning goes too.
            clean = clean[: max(0, len(clean) - self._longest)] + "…"
        return shorten(clean, limit)

    def __repr__(self) -> str:
        """Nothing of what it knows."""
        return "Redactor()"


def _forms(secret: bytes | str) -> Iterator[str]:
    raw = secret.encode("utf-8", "surrogateescape") if isinstance(secret, str) else secret
    for value in {raw, raw.strip()}:
        if not value:
            continue
        text = value.decode("utf-8", "replace")
        yield text
        yield from _base64_forms(value)
        yield from (quote(value, safe=""), quote(value), quote_plus(value))
        yield from (escaped[1:-1] for escaped in (json.dumps(text), json.dumps(text, ensure_ascii=False), repr(text)))
        # A driver that quotes a certificate or key quotes one line of it.
        yield from (line.strip() for line in text.splitlines() if len(line.strip()) >= _LINE and line.strip() != text)


def _base64_forms(value: bytes) -> Iterator[str]:
    if len(value) < _SHORT:
        return
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield encode(value).decode().rstrip("=")
        # Behind one or two other bytes (user:password) a value looks different: the characters that hold only its bits.
        for before in (1, 2):
            encoded = encode(b"\0" * before + value).decode().rstrip("=")
            inner = encoded[2 if before == 1 else 3 :]
            end = len(inner) - (1 if (before + len(value)) % 3 else 0)
            if end >= 2 * _SHORT:
                yield inner[:end]
