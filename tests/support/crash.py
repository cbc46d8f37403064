"""A process that ends between any two awaits."""

from collections.abc import Coroutine, Generator
from typing import Any


class Crash(BaseException):
    """What SIGKILL looks like from inside: nothing after it runs but what is written already."""


class CrashAt:
    """Awaits a coroutine and ends it at its n-th suspension; whatever it waited for may still come about."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], suspension: int) -> None:
        self._coroutine = coroutine
        self._left = suspension

    def __await__(self) -> Generator[Any, Any, Any]:
        inner = self._coroutine.__await__()
        sent: Any = None
        while True:
            try:
                waited_for = inner.send(sent)
            except StopIteration as done:
                return done.value
            if self._left == 0:
                inner.close()
                raise Crash
            self._left -= 1
            sent = yield waited_for
