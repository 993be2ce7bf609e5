"""Who is next: one client cannot keep the others waiting, whatever it sends."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from serving.web import turns
from serving.web.errors import RequestError
from serving.web.turns import SLOW_S, Turns

pytestmark = pytest.mark.anyio


class Room:
    """Clients that take turns, and those who have one now; each keeps it until it is told to leave."""

    def __init__(self, num_at_once: int, max_at_work: int = 100) -> None:
        self.now_s = 0.0
        self.turns = Turns(num_at_once, max_at_work, clock=lambda: self.now_s)
        self.inside: list[str] = []
        self.refused: list[str] = []
        self._leaving: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, *photos: str) -> None:
        """Let photos come, each named for its client: `a1` is of `a`."""
        for photo in photos:
            self._leaving[photo] = asyncio.Event()
            self._tasks[photo] = asyncio.create_task(self._stay(photo))
            await asyncio.sleep(0)
        await self._settle()

    async def leave(self, *photos: str) -> None:
        for photo in photos:
            self._leaving[photo].set()
            await self._settle()

    async def hang_up(self, photo: str) -> None:
        self._tasks[photo].cancel()
        await self._settle()

    async def _stay(self, photo: str) -> None:
        try:
            async with self.turns.take(photo[0]):
                self.inside.append(photo)
                try:
                    await self._leaving[photo].wait()
                finally:
                    self.inside.remove(photo)
        except RequestError:
            self.refused.append(photo)

    async def close(self) -> None:
        """Send everybody home: a task that is left would end within another test."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)


@pytest.fixture
async def make_room() -> AsyncIterator[Callable[..., Room]]:
    rooms: list[Room] = []

    def make(num_at_once: int, **options: int) -> Room:
        rooms.append(Room(num_at_once, **options))
        return rooms[-1]

    yield make
    for room in rooms:
        await room.close()


async def test_clients_take_turns_however_much_one_sends(make_room: Callable[..., Room]) -> None:
    room = make_room(1)
    await room.come("a1", "a2", "a3", "a4", "b1", "c1")
    seen = []
    while room.inside:
        seen += room.inside
        await room.leave(room.inside[0])
    assert seen == ["a1", "a2", "b1", "c1", "a3", "a4"]
    assert room.turns.num_at_work == 0


async def test_slow_clients_leave_a_worker_to_the_others_and_come_last(make_room: Callable[..., Room]) -> None:
    room = make_room(2)
    for client in "ab":
        room.turns.note(client, SLOW_S)
    room.turns.note("c", SLOW_S / 2)
    await room.come("a1", "b1")
    assert room.inside == ["a1"]
    await room.come("c1", "c2")
    assert room.inside == ["a1", "c1"]
    await room.leave("a1")
    assert room.inside == ["c1", "c2"]
    room.now_s += 61
    await room.come("a2")
    await room.leave("c1", "c2")
    assert room.inside == ["b1"]


async def test_strangers_leave_a_worker_to_those_whose_photos_were_quick(make_room: Callable[..., Room]) -> None:
    room = make_room(2)
    room.turns.note("c", SLOW_S / 2)
    await room.come("a1", "b1", "c1")
    assert room.inside == ["a1", "c1"]
    await room.leave("a1")
    assert room.inside == ["c1", "b1"]


async def test_one_quick_photo_does_not_make_up_for_a_slow_one(make_room: Callable[..., Room]) -> None:
    room = make_room(2)
    for decoding_s in (SLOW_S, SLOW_S / 2):
        room.turns.note("a", decoding_s)
    await room.come("a1", "a2")
    assert room.inside == ["a1"]


async def test_with_one_worker_slow_clients_have_it_when_nobody_else_waits(make_room: Callable[..., Room]) -> None:
    room = make_room(1)
    room.turns.note("a", SLOW_S)
    await room.come("a1")
    assert room.inside == ["a1"]


async def test_when_all_that_may_wait_do_the_client_that_has_most_loses_one(make_room: Callable[..., Room]) -> None:
    room = make_room(1, max_at_work=4)
    await room.come("a1", "a2", "a3", "a4", "a5")
    assert room.refused == ["a5"]
    await room.come("b1")
    assert room.refused == ["a5", "a4"]
    await room.come("c1")
    assert room.refused == ["a5", "a4", "a3"]
    await room.come("d1")
    assert room.refused == ["a5", "a4", "a3", "d1"]
    await room.leave("a1", "a2", "b1", "c1")
    assert room.turns.num_at_work == 0


async def test_who_hangs_up_makes_room(make_room: Callable[..., Room]) -> None:
    room = make_room(1)
    await room.come("a1", "b1", "c1")
    await room.hang_up("b1")
    assert room.turns.num_at_work == 2
    await room.hang_up("a1")
    assert room.inside == ["c1"]
    await room.leave("c1")
    assert room.turns.num_at_work == 0


async def test_millions_of_clients_take_no_more_memory(
    monkeypatch: pytest.MonkeyPatch, make_room: Callable[..., Room]
) -> None:
    monkeypatch.setattr(turns, "_MAX_CLIENTS", 10)
    room = make_room(1)
    for number in range(100):
        room.turns.note(str(number), SLOW_S)
    assert len(room.turns._seen) == 10
