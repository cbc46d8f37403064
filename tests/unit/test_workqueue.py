import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from honeyframe_operator.workqueue import WorkQueue


async def test_a_key_is_queued_once_and_held_by_one_worker() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    queue.add("a")
    key, _ = await queue.get()
    queue.add("a")  # while a worker holds it
    assert len(queue) == 1
    other = asyncio.ensure_future(queue.get())
    await asyncio.sleep(0)
    assert not other.done(), "two workers never hold the same key"
    queue.done(key)
    assert (await other)[0] == "a"
    queue.done("a")
    assert len(queue) == 0


async def test_the_fast_lane_goes_first() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("slow", fast=False)
    queue.add("moved", fast=False)
    queue.add("fast")
    queue.add("moved")
    assert [(await queue.get())[0] for _ in range(3)] == ["fast", "moved", "slow"]


async def test_of_two_times_the_earlier_counts() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", 3600)
    queue.add_after("a", 0)
    queue.add_after("a", 3600)
    assert (await asyncio.wait_for(queue.get(), 5))[0] == "a"
    queue.done("a")
    queue.add_after("b", 3600)
    queue.cancel("b")
    assert len(queue) == 0


async def test_backoff_doubles_until_it_went_well() -> None:
    queue: WorkQueue[str] = WorkQueue()
    delays = [queue.retry("a") for _ in range(12)]
    assert 0.4 <= delays[0] <= 0.6
    assert delays[3] > delays[0] * 4
    assert max(delays) <= 360
    queue.forget("a")
    assert queue.retry("a") <= 0.6
    queue.cancel("a")


async def test_a_cancelled_getter_loses_no_key() -> None:
    queue: WorkQueue[str] = WorkQueue()
    first, second = asyncio.ensure_future(queue.get()), asyncio.ensure_future(queue.get())
    await asyncio.sleep(0)
    queue.add("a")
    first.cancel()
    assert (await asyncio.wait_for(second, 5))[0] == "a"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=40))
def test_every_added_key_is_worked_on_after_it_was_added(adds: list[tuple[str, bool]]) -> None:
    async def run() -> None:
        queue: WorkQueue[str] = WorkQueue()
        owed: set[str] = set()
        held: set[str] = set()
        for number, (key, fast) in enumerate(adds):
            queue.add(key, fast=fast)
            owed.add(key)
            if number % 3 == 0 and owed - held:
                got, _ = await asyncio.wait_for(queue.get(), 5)
                assert got not in held
                held.add(got)
                owed.discard(got)
            if number % 5 == 0 and held:
                queue.done(held.pop())
        while held:
            queue.done(held.pop())
        while owed:
            got, _ = await asyncio.wait_for(queue.get(), 5)
            owed.discard(got)
            queue.done(got)
        assert len(queue) == 0

    asyncio.run(run())
