"""A process that ends at any await of a rotation leaves the old version or the new one, on both stores."""

from dataclasses import replace

from tests.support.crash import Crash, CrashAt
from tests.support.told import Bench, connectors_on, told_bench

ROUNDS = 600
"""About 100 for each await, of which a rotation has five, and for none."""


async def test_at_every_await_of_a_rotation(url: str) -> None:
    async with told_bench(url) as bench:
        await bench.look()
        suspension, awaits = 0, 0
        for number in range(ROUNDS):
            old = await bench.serving()
            new = ("h", f"password-{number}")
            bench.cluster.put(new[1].encode())
            ended = await crash(bench, suspension)
            assert await bench.serving() in (old, new)
            await bench.look()
            await bench.look()
            assert await bench.serving() == new
            numbers = [each["version"] for each in bench.credentials["history"]]
            assert numbers == sorted(set(numbers), reverse=True)
            awaits = max(awaits, suspension)
            suspension = 0 if ended else suspension + 1
        assert awaits >= 4, "note, probe, forget, commit: a rotation has at least that many awaits"


async def crash(bench: Bench, suspension: int) -> bool:
    """End the process at its n-th await and start another; whether it had ended before."""
    ended = False
    try:
        outcome = await CrashAt(bench.connectors.reconcile(bench.resource), suspension)
        bench.resource = replace(bench.resource, status=outcome.status)
        ended = True
    except Crash:
        pass
    database = bench.connectors.vault._database
    await database.write(lambda _: None)  # what was sent to the store before the end comes about
    bench.connectors = connectors_on(database, bench.type, bench.cluster)
    bench.connectors.clock = bench.connectors.logins.clock = lambda: bench.now
    await bench.connectors.load("cluster")
    bench.later(21)  # a login whose answer nobody knows is tried again then
    return ended
