"""A work queue with client-go's semantics.

A key that is queued is queued once; no two workers ever hold the same key; a key that is added while a worker holds
it is queued again when the worker is done. What is new or changed goes in the fast lane and never waits behind
periodic looks.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

FIRST_BACKOFF = 0.5
LONGEST_BACKOFF = 300.0


class WorkQueue(Generic[K]):
    """Keys that want work, in a fast and a slow lane. Times are in seconds."""

    def __init__(self) -> None:
        self._lanes: dict[bool, deque[K]] = {True: deque(), False: deque()}
        self._queued: dict[K, tuple[bool, float]] = {}
        self._held: dict[K, float] = {}
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}
        self._waiters: deque[asyncio.Future[None]] = deque()

    def add(self, key: K, *, fast: bool = True) -> None:
        """Queue a key now; a key that waits in the slow lane is moved to the fast one where it is asked for."""
        if timer := self._timers.pop(key, None):
            timer.cancel()
        before = self._queued.get(key)
        if before is not None and (before[0] or not fast):
            return
        if before is not None and key not in self._held:
            self._lanes[False].remove(key)
        self._queued[key] = (fast, before[1] if before else time.monotonic())
        if key not in self._held:
            self._lanes[fast].append(key)
            self._wake()

    def add_after(self, key: K, delay: float, *, fast: bool = False) -> None:
        """Queue a key later; of two times the earlier counts."""
        loop = asyncio.get_running_loop()
        when = loop.time() + delay
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= when:
                return
            timer.cancel()
        self._timers[key] = loop.call_at(when, self._fire, key, fast)

    def retry(self, key: K) -> float:
        """Queue a key again after its backoff, which doubles with each failure in a row; returns the delay."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay = min(LONGEST_BACKOFF, FIRST_BACKOFF * 2.0 ** min(failures - 1, 16)) * random.uniform(0.8, 1.2)  # noqa: S311
        self.add_after(key, delay)
        return delay

    def forget(self, key: K) -> None:
        """A key went well: its next failure is the first again."""
        self._failures.pop(key, None)

    def cancel(self, key: K) -> None:
        """No later look at a key."""
        if timer := self._timers.pop(key, None):
            timer.cancel()

    async def get(self) -> tuple[K, float]:
        """The next key, and how long it waited; the caller holds it until `done`."""
        while not (self._lanes[True] or self._lanes[False]):
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._wake()
                raise
        key = (self._lanes[True] or self._lanes[False]).popleft()
        _, since = self._queued.pop(key)
        self._held[key] = time.monotonic()
        return key, time.monotonic() - since

    def done(self, key: K) -> None:
        """Let a key go; if it was added meanwhile, it is queued again."""
        self._held.pop(key, None)
        if key in self._queued:
            self._lanes[self._queued[key][0]].append(key)
            self._wake()

    def depth(self, *, fast: bool) -> int:
        """How many keys wait in a lane."""
        return len(self._lanes[fast])

    def oldest(self, *, fast: bool) -> float:
        """How long the first key of a lane has waited; 0 where it is empty."""
        lane = self._lanes[fast]
        return time.monotonic() - self._queued[lane[0]][1] if lane else 0.0

    def longest_held(self) -> float:
        """How long the slowest worker has held its key; 0 where all are idle."""
        return time.monotonic() - min(self._held.values()) if self._held else 0.0

    def __len__(self) -> int:
        return len(self._queued)

    def _fire(self, key: K, fast: bool) -> None:
        self._timers.pop(key, None)
        self.add(key, fast=fast)

    def _wake(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
