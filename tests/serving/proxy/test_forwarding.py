"""Where a request goes, and what is seen of it; calls are coroutines, and no server is there."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from serving.proxy.forwarding import Forwarder, Result
from serving.proxy.plan import Board, Plan
from serving.proxy.predictions import Prediction

STABLE, CANARY = 1, 2
Behaviour = Callable[[], Awaitable[Result]]


def returns(response: str, *labels: str) -> Behaviour:
    async def call() -> Result:
        return Result(response, True, False, lambda: [Prediction({label: 0.9, "other": 0.1}) for label in labels])

    return call


def fails(response: str, *, is_fault: bool) -> Behaviour:
    async def call() -> Result:
        return Result(response, False, is_fault, list)

    return call


async def never() -> Result:
    await asyncio.Event().wait()
    raise AssertionError


class Sent:
    """A forwarder, what its board has seen, and which versions got requests."""

    def __init__(self, *, stable: Behaviour, canary: Behaviour, lease_s: float = 60, **plan: Any) -> None:
        self.board = Board(lease_s)
        self.board.begin(Plan(**{"stable": STABLE, "canary": CANARY, "timeout_s": 0.05, **plan}))
        self.forwarder = Forwarder(self.board)
        self.versions: list[int | None] = []
        self._behaviours = {None: stable, STABLE: stable, CANARY: canary}

    async def send(self, *photos: str, left_s: float | None = None) -> Any:
        async def call(version: int | None) -> Result:
            self.versions.append(version)
            return await self._behaviours[version]()

        return await self.forwarder.forward(call, lambda: [*photos], left_s=left_s)

    async def settle(self) -> None:
        """Wait for what is compared behind the response."""
        while self.forwarder._shadows:
            await asyncio.gather(*self.forwarder._shadows)

    def seen(self) -> list[tuple[Any, ...]]:
        """Return photo, and what came of stable and of the canary: a label, an error, or nothing."""

        def told(reply: dict[str, Any] | None) -> str:
            return "-" if reply is None else "failed" if reply["failed"] else reply["label"]

        return [(each["photo"], told(each["stable"]), told(each["canary"])) for each in self.board.after(0)]


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, 20))


def photo_of(version: int, plan: Plan) -> str:
    return next(str(n) for n in range(1000) if plan.goes_to_canary(str(n)) == (version == CANARY))


@pytest.mark.parametrize("canary", [fails("no", is_fault=True), fails("no", is_fault=False), never])
def test_split_responds_with_stable_where_the_canary_does_not(canary: Behaviour) -> None:
    sent = Sent(mode="split", share=0.5, stable=returns("yes", "a"), canary=canary)
    assert sent.board.plan
    photo = photo_of(CANARY, sent.board.plan)
    assert run(sent.send(photo)) == "yes"
    assert sent.versions == [CANARY, STABLE]
    assert sent.seen() == [(photo, "-", "failed")]


def test_what_both_versions_refuse_is_the_fault_of_the_request() -> None:
    refused = fails("bad image", is_fault=False)
    for mode in ("split", "shadow"):
        sent = Sent(mode=mode, stable=refused, canary=refused, share=0.5)

        async def work(sent: Sent = sent) -> None:
            for number in range(10):
                assert await sent.send(str(number)) == "bad image"
                await sent.settle()

        run(work())
        assert sent.seen() == []


def test_split_sends_a_photo_to_the_same_version_again() -> None:
    sent = Sent(mode="split", share=0.3, stable=returns("s", "a"), canary=returns("c", "a"))

    async def work() -> list[list[Any]]:
        return [[await sent.send(str(number)) for number in range(60)] for _ in range(2)]

    first, second = run(work())
    assert first == second
    assert {*first} == {"s", "c"}


def test_shadow_does_not_wait_for_the_canary() -> None:
    sent = Sent(mode="shadow", stable=returns("yes", "a"), canary=never, timeout_s=30)

    async def work() -> None:
        assert await sent.send("photo") == "yes"
        assert sent.seen() == []
        await sent.forwarder.close()

    run(work())


def test_shadow_compares_each_photo_of_a_request() -> None:
    sent = Sent(mode="shadow", stable=returns("yes", "a", "b"), canary=returns("no", "a", "c"))

    async def work() -> None:
        assert await sent.send("one", "two") == "yes"
        await sent.settle()

    run(work())
    assert sent.seen() == [("one", "a", "a"), ("two", "b", "c")]


def test_photos_of_one_request_are_drawn_once_in_split() -> None:
    sent = Sent(mode="split", share=0.5, stable=returns("s", *"aaa"), canary=returns("c", *"aaa"))

    async def work() -> None:
        for number in range(10):
            await sent.send(f"{number} one", f"{number} two", f"{number} three")

    run(work())
    assert [photo for photo, *_ in sent.seen()] == [f"{number} one" for number in range(10)]


def test_each_version_is_first_at_times() -> None:
    sent = Sent(mode="shadow", stable=returns("yes", "a"), canary=returns("no", "a"))

    async def work() -> None:
        for number in range(40):
            await sent.send(str(number))
            await sent.settle()

    run(work())
    assert {*sent.versions[::2]} == {STABLE, CANARY}


def test_a_request_fails_once_however_many_photos_it_has() -> None:
    sent = Sent(mode="shadow", stable=returns("yes", "a", "b"), canary=fails("no", is_fault=True))

    async def work() -> None:
        await sent.send("one", "two")
        await sent.settle()

    run(work())
    assert sent.seen() == [("one", "a", "failed")]


def test_at_first_the_canary_gets_one_request_at_a_time() -> None:
    sent = Sent(mode="shadow", stable=returns("yes", "a"), canary=never, timeout_s=30)

    async def work() -> None:
        for number in range(10):
            assert await sent.send(str(number)) == "yes"
        await sent.forwarder.close()

    run(work())
    assert sent.versions.count(CANARY) == 1
    assert sent.board.num_skipped == 0  # it is not too much load, but care


def test_deadline_of_the_client_leaves_time_for_stable() -> None:
    sent = Sent(mode="split", share=0.5, stable=returns("yes", "a"), canary=never, timeout_s=60)
    assert sent.board.plan
    photo = photo_of(CANARY, sent.board.plan)
    assert run(sent.send(photo, left_s=0.1)) == "yes"
    assert sent.seen() == [(photo, "-", "failed")]


@pytest.mark.parametrize("mode", ["shadow", "split"])
def test_pause_of_the_server_is_late_for_both_versions(mode: str) -> None:
    ended = asyncio.Event()

    async def hangs() -> Result:
        try:
            return await never()
        finally:
            ended.set()

    async def waits() -> Result:
        await ended.wait()
        return await returns("late", "a")()

    async def work() -> None:
        if mode == "split":
            await sent.send(canarys)
            assert await sent.send(stables, left_s=0) == "late"
        else:
            assert await sent.send("photo") == "late"
            await sent.settle()

    sent = Sent(mode=mode, share=0.5, stable=waits, canary=hangs)
    assert sent.board.plan
    canarys, stables = (photo_of(version, sent.board.plan) for version in (CANARY, STABLE))
    run(work())
    expected = {
        "shadow": [("photo", "failed", "failed")],
        "split": [(canarys, "-", "failed"), (stables, "failed", "-")],
    }
    assert sent.seen() == expected[mode]


def test_server_that_is_down_counts_for_the_version_that_was_drawn() -> None:
    down = fails("down", is_fault=True)
    sent = Sent(mode="split", share=0.5, stable=down, canary=down)

    async def work() -> None:
        for number in range(40):
            assert await sent.send(str(number)) == "down"

    run(work())
    assert len(sent.seen()) == 40


def test_client_that_goes_stops_no_comparison() -> None:
    release = asyncio.Event()

    async def waits() -> Result:
        await release.wait()
        return await returns("yes", "a")()

    sent = Sent(mode="shadow", stable=waits, canary=waits, timeout_s=30)

    async def work() -> None:
        client = asyncio.create_task(sent.send("photo"))
        while len(sent.versions) < 2:
            await asyncio.sleep(0)
        client.cancel()
        await asyncio.wait([client])
        release.set()
        await sent.settle()

    run(work())
    assert sent.seen() == [("photo", "a", "a")]


def test_plan_of_a_release_that_is_gone_ends() -> None:
    sent = Sent(mode="split", share=0.999, stable=returns("yes", "a"), canary=fails("no", is_fault=True), lease_s=0)
    assert run(sent.send("photo")) == "yes"
    assert sent.versions == [None]


def test_what_comes_late_of_another_plan_is_dropped() -> None:
    sent = Sent(mode="shadow", stable=returns("yes", "a"), canary=returns("no", "a"))
    old = sent.board.plan
    assert old
    sent.board.begin(Plan(mode="shadow", stable=STABLE, canary=CANARY + 1))
    sent.board.add(old, {"photo": "late", "stable": None, "canary": None})
    assert sent.board.after(0) == []


@pytest.mark.parametrize(
    "wrong", [{"mode": "mirror"}, {"stable": "1"}, {"canary": 0}, {"canary": True}, {"share": 1.0}, {"timeout_s": 0}]
)
def test_plan_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Plan(**{"mode": "split", "stable": 1, "canary": 2, **wrong})
