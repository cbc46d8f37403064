"""Logs: one line an entry, through the redactor."""

import logging

from honeyframe_connectors.redact import Redactor


class RedactingFormatter(logging.Formatter):
    """Formats as usual, then takes out whatever looks like a secret; tracebacks included."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S%z")
        self._redact = Redactor()

    def format(self, record: logging.LogRecord) -> str:
        """The entry as text."""
        return self._redact(super().format(record))


def configure(level: str) -> None:
    """Log to standard error; kopf says only what goes wrong."""
    handler = logging.StreamHandler()
    handler.setFormatter(RedactingFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for chatty in ("kopf", "aiohttp", "asyncio", "alembic"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLevelName(level)))
