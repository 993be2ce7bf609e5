import asyncio
import gc
import logging
import math
import threading
import time
import weakref
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import anyio
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.local_server import batches, batching, protos
from serving.local_server.batching import BatchRecord, Scheduler
from serving.local_server.batching_options import BatchingOptions
from serving.local_server.errors import Code, StatusError, invalid_argument
from serving.local_server.servable import Array
from tests.serving.local_server.conftest import status_error

TIMEOUT_S = 30
WIDE = BatchingOptions(max_batch_size=8, num_batch_threads=1)
PADDED = replace(WIDE, pad_variable_length_inputs=True)

pytestmark = pytest.mark.anyio


class Doubler:
    """A model that doubles each input and refuses negative numbers; while `gate` is closed its calls wait."""

    signatures: Mapping[str, Any] = {}

    def __init__(self) -> None:
        self.calls: list[dict[str, Array]] = []
        self.timeouts_s: list[float] = []
        self.gate = threading.Event()
        self.gate.set()

    def shape(self, tensor_name: str) -> None:
        return None

    def run(self, feeds: Mapping[str, Array], fetches: Sequence[str], timeout_s: float = math.inf) -> list[Array]:
        self.timeouts_s.append(timeout_s)
        assert self.gate.wait(TIMEOUT_S)
        self.calls.append(dict(feeds))
        for array in feeds.values():
            if array.dtype.kind == "f" and (array < 0).any():
                raise invalid_argument("a number is negative")
        return [self.compute(array) for array in feeds.values()][: len(fetches)]

    def compute(self, array: Array) -> Array:
        return array + array

    def close(self) -> None:
        pass

    @property
    def sizes(self) -> list[int]:
        return [len(next(iter(feeds.values()))) for feeds in self.calls]


@pytest.fixture
def model() -> Iterator[Doubler]:
    model = Doubler()
    yield model
    model.gate.set()


def rows(*values: float) -> Array:
    return np.array([[value] for value in values], np.float32)


def submit(scheduler: Scheduler, model: Doubler, x: Array, fetches: Sequence[str] = ("y",), name: str = "x") -> Any:
    return asyncio.ensure_future(scheduler.run(model, {name: x}, fetches))


async def settle() -> None:
    """Let the event loop do all that it can do by itself."""
    for _ in range(5):
        await asyncio.sleep(0)


async def occupy(scheduler: Scheduler, model: Doubler) -> Any:
    """Close a model's gate and keep the only thread busy there."""
    model.gate.clear()
    busy = submit(scheduler, model, rows(0))
    await settle()
    return busy


async def run_waiting(scheduler: Scheduler, model: Doubler, *inputs: Array) -> list[Any]:
    """Send requests while the only thread is busy; return the first output of each, or its error."""
    busy = await occupy(scheduler, model)
    waiting = [submit(scheduler, model, x) for x in inputs]
    await settle()
    model.gate.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    await busy
    return [result if isinstance(result, BaseException) else result[0] for result in results]


async def code_of(work: Awaitable[Any]) -> Code:
    with pytest.raises(StatusError) as caught:
        await work
    return caught.value.code


async def test_requests_that_wait_share_a_batch_and_get_their_own_rows(model: Doubler) -> None:
    outputs = await run_waiting(Scheduler(WIDE), model, rows(1, 2), rows(3), rows(4, 5, 6))
    assert [output.tolist() for output in outputs] == [[[2], [4]], [[6]], [[8], [10], [12]]]
    assert model.sizes == [1, 6]


@pytest.mark.parametrize(
    ("x", "name", "fetches"),
    [
        (np.ones((1, 2), np.float32), "x", ["y"]),
        (np.ones((1, 1, 1), np.float32), "x", ["y"]),
        (np.ones((1, 1), np.float64), "x", ["y"]),
        (np.ones((1, 1), np.int32), "x", ["y"]),
        (np.array([[b"text"]], object), "x", ["y"]),
        (np.ones((1, 1), np.float32), "tokens", ["y"]),
        (np.ones((1, 1), np.float32), "x", ["z"]),
    ],
    ids=["size", "rank", "precision", "type", "text", "input", "output"],
)
async def test_requests_of_different_kinds_never_share_a_batch(
    model: Doubler, x: Array, name: str, fetches: list[str]
) -> None:
    scheduler = Scheduler(WIDE)
    busy = await occupy(scheduler, model)
    one, other = submit(scheduler, model, rows(1)), submit(scheduler, model, x, fetches, name)
    await settle()
    model.gate.set()
    await asyncio.gather(busy, one, other)
    assert model.sizes == [1, 1, 1]


async def test_models_never_share_a_batch(model: Doubler) -> None:
    scheduler, other = Scheduler(WIDE), Doubler()
    busy = await occupy(scheduler, model)
    waiting = [submit(scheduler, each, rows(1)) for each in (model, other)]
    await settle()
    model.gate.set()
    await asyncio.gather(busy, *waiting)
    assert (model.sizes, other.sizes) == ([1, 1], [1])


async def test_without_batching_each_request_runs_for_itself(model: Doubler) -> None:
    scheduler = Scheduler(None)
    outputs = await asyncio.gather(*(scheduler.run(model, {"x": np.float32(i)}, ["y"]) for i in range(20)))
    assert [output[0] for output in outputs] == [2 * i for i in range(20)]
    assert len(model.calls) == 20


async def test_a_batch_holds_at_most_max_batch_size_rows(model: Doubler) -> None:
    outputs = await run_waiting(Scheduler(WIDE), model, *(rows(*range(size)) for size in (5, 3, 6, 3, 8)))
    assert model.sizes == [1, 8, 6, 3, 8]
    assert [len(output) for output in outputs] == [5, 3, 6, 3, 8]


async def test_a_request_of_more_rows_than_a_batch_is_refused(model: Doubler) -> None:
    with status_error(Code.INVALID_ARGUMENT, r"Task size 9 is larger than maximum input batch size 8\. Send fewer"):
        await Scheduler(WIDE).run(model, {"x": rows(*range(9))}, ["y"])
    assert not model.calls


SPLIT = BatchingOptions(
    max_batch_size=20, max_execution_batch_size=8, enable_large_batch_splitting=True, num_batch_threads=2
)


async def test_a_large_request_is_split_and_joined_in_order(model: Doubler) -> None:
    output = await Scheduler(SPLIT).run(model, {"x": rows(*range(20))}, ["y"])
    assert output[0].ravel().tolist() == [2 * i for i in range(20)]
    assert sorted(model.sizes) == [4, 8, 8]


class Careful(Doubler):
    """It closes its gate behind each call."""

    def run(self, feeds: Mapping[str, Array], fetches: Sequence[str], timeout_s: float = math.inf) -> list[Array]:
        try:
            return super().run(feeds, fetches, timeout_s)
        finally:
            self.gate.clear()


async def test_when_one_part_of_a_large_request_fails_the_others_are_given_up() -> None:
    scheduler, model = Scheduler(replace(SPLIT, num_batch_threads=1)), Careful()
    assert await code_of(scheduler.run(model, {"x": rows(-1, *range(19))}, ["y"])) is Code.INVALID_ARGUMENT
    model.gate.set()  # for the second part, which is at work already
    with anyio.fail_after(TIMEOUT_S):
        while len(model.calls) < 2:
            await asyncio.sleep(0.001)
    model.gate.set()
    await scheduler.run(model, {"x": rows(1)}, ["y"])
    assert model.sizes == [8, 8, 1]


async def test_a_large_request_takes_no_more_room_than_there_is(model: Doubler) -> None:
    scheduler = Scheduler(replace(SPLIT, num_batch_threads=1, max_enqueued_batches=2))
    busy = await occupy(scheduler, model)
    assert await code_of(scheduler.run(model, {"x": rows(*range(20))}, ["y"])) is Code.UNAVAILABLE
    waiting = submit(scheduler, model, rows(*range(16)))
    await settle()
    model.gate.set()
    assert [len((await work)[0]) for work in (busy, waiting)] == [1, 16]


async def test_a_batch_waits_for_more_requests_until_its_time_is_up(model: Doubler) -> None:
    loop = asyncio.get_running_loop()
    clock, skipped_s = loop.time, 0.0
    loop.time = lambda: clock() + skipped_s  # type: ignore[method-assign]
    records: list[BatchRecord] = []
    options = BatchingOptions(max_batch_size=8, batch_timeout_s=10, num_batch_threads=1)
    scheduler = Scheduler(options, on_batch=records.append)
    first, second = submit(scheduler, model, rows(1)), submit(scheduler, model, rows(2))
    await settle()
    assert not model.calls
    skipped_s = 1.0
    await settle()
    assert not records
    skipped_s = 10.0
    assert await first == [rows(2)]
    assert await second == [rows(4)]
    (record,) = records
    assert (record.thread_pool_name, record.sizes, record.num_rows) == ("model_server_batch_threads", [1, 1], 2)
    assert record.waits_s == [pytest.approx(10, abs=5)] * 2  # as long as the test itself takes is fine


async def test_a_full_batch_does_not_wait(model: Doubler) -> None:
    scheduler = Scheduler(BatchingOptions(max_batch_size=4, batch_timeout_s=3600, num_batch_threads=1))
    late = submit(scheduler, model, np.ones((1, 2), np.float32))
    assert len((await scheduler.run(model, {"x": rows(*range(4))}, ["y"]))[0]) == 4
    outputs = await asyncio.gather(submit(scheduler, model, rows(1, 2, 3)), submit(scheduler, model, rows(4)))
    assert [output[0].ravel().tolist() for output in outputs] == [[2, 4, 6], [8]]
    assert not late.done()
    late.cancel()


async def test_a_batch_that_the_next_request_does_not_fit_in_does_not_wait(model: Doubler) -> None:
    scheduler = Scheduler(BatchingOptions(max_batch_size=4, batch_timeout_s=3600, num_batch_threads=1))
    first, second = submit(scheduler, model, rows(1, 2, 3)), submit(scheduler, model, rows(4, 5))
    assert len((await first)[0]) == 3
    assert not second.done()
    second.cancel()


async def test_a_batch_is_filled_up_to_an_allowed_size(model: Doubler) -> None:
    records: list[BatchRecord] = []
    scheduler = Scheduler(BatchingOptions(max_batch_size=8, allowed_batch_sizes=(2, 4, 8)), on_batch=records.append)
    for num_rows in (0, 1, 2, 3, 5):
        output = await scheduler.run(model, {"x": rows(*range(num_rows)).reshape(-1, 1)}, ["y"])
        assert output[0].ravel().tolist() == [2 * i for i in range(num_rows)]
    assert model.sizes == [0, 2, 2, 4, 8]
    assert [(record.sizes, record.num_rows) for record in records] == [
        ([0], 0), ([1], 2), ([2], 2), ([3], 4), ([5], 8)
    ]  # fmt: skip
    assert model.calls[-1]["x"].ravel().tolist() == [0, 1, 2, 3, 4, 0, 0, 0]


@pytest.mark.parametrize(
    ("one", "other", "joined"),
    [
        (np.float32([[7, 8]]), np.float32([[1, 2, 3], [4, 5, 6]]), [[7, 8, 7], [1, 2, 3], [4, 5, 6]]),
        (np.int64([[[1], [2]]]), np.int64([[[3, 4]]]), [[[1, 1], [2, 1]], [[3, 4], [3, 3]]]),
        (np.array([[b"a", b"b"]], object), np.array([[b"c"]], object), [[b"a", b"b"], [b"c", b"c"]]),
        (np.ones((0, 2), bool), np.ones((1, 1), bool), [[True, True]]),
    ],
    ids=["float", "two axes", "text", "no row"],
)
async def test_inputs_of_different_lengths_are_filled_up_with_their_first_value(
    model: Doubler, one: Array, other: Array, joined: list[Any]
) -> None:
    outputs = await run_waiting(Scheduler(PADDED), model, one, other)
    assert model.calls[1]["x"].tolist() == joined
    assert model.calls[1]["x"].dtype == one.dtype
    assert [len(output) for output in outputs] == [len(one), len(other)]


@pytest.mark.parametrize(
    ("one", "other"), [((1, 0), (1, 1)), ((1, 1, 1, 1, 1, 1, 1), (1, 1, 1, 1, 1, 1, 2))], ids=["empty", "rank"]
)
async def test_what_cannot_be_padded_runs_apart(model: Doubler, one: tuple[int, ...], other: tuple[int, ...]) -> None:
    outputs = await run_waiting(Scheduler(PADDED), model, np.ones(one, np.float32), np.ones(other, np.float32))
    assert [output.shape for output in outputs] == [one, other]


async def test_padding_never_makes_a_batch_huge(model: Doubler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "_MAX_PADDED_BYTES", 4000)
    inputs = [np.ones((1, size), np.float32) for size in (1, 2, 1000, 3)]
    outputs = await run_waiting(Scheduler(PADDED), model, *inputs)
    assert [output.shape for output in outputs] == [(1, 1), (1, 2), (1, 1000), (1, 3)]


async def test_a_full_queue_refuses_at_once_and_takes_requests_again_afterwards(model: Doubler) -> None:
    scheduler = Scheduler(BatchingOptions(max_batch_size=4, max_enqueued_batches=2, num_batch_threads=1))
    busy = await occupy(scheduler, model)
    # Batches count, as in TensorFlow Serving, not rows: two requests of three rows do not fit in one.
    waiting = [submit(scheduler, model, rows(1, 2, 3)) for _ in range(2)]
    await settle()
    refused = scheduler.run(model, {"x": rows(1, 2)}, ["y"])
    with status_error(Code.UNAVAILABLE, "is full; currently 2 batches enqueued and max_enqueued_batches is 2"):
        refused.send(None)  # it does not even wait for the event loop
    waiting.append(submit(scheduler, model, rows(9)))  # fits in the last batch
    await settle()
    model.gate.set()
    outputs = await asyncio.gather(busy, *waiting)
    assert [len(output[0]) for output in outputs] == [1, 3, 3, 1]
    assert len(await asyncio.gather(*(submit(scheduler, model, rows(1)) for _ in range(8)))) == 8


async def test_each_signature_and_shape_has_a_queue_of_its_own(model: Doubler) -> None:
    scheduler = Scheduler(BatchingOptions(max_batch_size=1, max_enqueued_batches=1, num_batch_threads=1))
    busy = await occupy(scheduler, model)
    waiting = [submit(scheduler, model, rows(1), fetches) for fetches in (["y"], ["z"])]
    waiting.append(submit(scheduler, model, np.ones((1, 2), np.float32)))
    await settle()
    assert await code_of(scheduler.run(model, {"x": rows(1)}, ["z"])) is Code.UNAVAILABLE
    model.gate.set()
    await asyncio.gather(busy, *waiting)


async def test_empty_requests_cannot_outgrow_the_queue(model: Doubler) -> None:
    scheduler = Scheduler(BatchingOptions(max_batch_size=4, max_enqueued_batches=3, num_batch_threads=1))
    outputs = await run_waiting(scheduler, model, *[np.ones((0, 2), np.float32)] * 20)
    assert sum(isinstance(output, StatusError) for output in outputs) == 20 - 3 * 4


@pytest.mark.parametrize("options", [None, WIDE], ids=["alone", "batched"])
async def test_a_model_at_work_keeps_no_other_model_waiting(model: Doubler, options: BatchingOptions | None) -> None:
    scheduler, other = Scheduler(options), Doubler()
    model.gate.clear()
    stuck = [submit(scheduler, model, rows(i)) for i in range(60)]
    await settle()
    assert await scheduler.run(other, {"x": rows(1)}, ["y"]) == [rows(2)]
    model.gate.set()
    await asyncio.gather(*stuck)


async def test_a_model_may_have_options_of_its_own(model: Doubler) -> None:
    scheduler, other = Scheduler(WIDE), Doubler()
    scheduler.add(other, None)
    await run_waiting(scheduler, model, rows(1), rows(2))
    other.gate.clear()
    waiting = [submit(scheduler, other, rows(i)) for i in range(5)]
    await settle()
    other.gate.set()
    await asyncio.gather(*waiting)
    assert (model.sizes, other.sizes) == ([1, 2], [1] * 5)


async def test_an_unloaded_model_leaves_nothing_behind() -> None:
    scheduler, model = Scheduler(WIDE), Doubler()
    await scheduler.run(model, {"x": rows(1)}, ["y"])
    num_threads = threading.active_count()
    watched = weakref.ref(model)
    del model
    with anyio.fail_after(TIMEOUT_S):
        while watched() is not None or threading.active_count() >= num_threads:
            await asyncio.sleep(0.001)


@pytest.mark.parametrize(("options", "num_runs"), [(None, 2), (WIDE, 1)], ids=["alone", "batched"])
async def test_a_model_ends_its_work_at_the_last_deadline_of_its_requests(
    model: Doubler, options: BatchingOptions | None, num_runs: int
) -> None:
    scheduler = Scheduler(options)
    busy = await occupy(scheduler, model)
    now = time.monotonic()
    waiting = [asyncio.ensure_future(scheduler.run(model, {"x": rows(1)}, ["y"], now + left_s)) for left_s in (60, 600)]
    await settle()
    model.gate.set()
    await asyncio.gather(busy, *waiting)
    assert sorted(model.timeouts_s[1:]) == pytest.approx([60, 600][-num_runs:], abs=30)
    assert model.timeouts_s[0] == math.inf


async def test_a_request_whose_time_is_up_is_not_computed(model: Doubler) -> None:
    with status_error(Code.DEADLINE_EXCEEDED, "Timed out waiting for notification"):
        await Scheduler(None).run(model, {"x": rows(1)}, ["y"], time.monotonic())
    assert not model.calls


@pytest.mark.parametrize("options", [None, WIDE], ids=["alone", "batched"])
@pytest.mark.parametrize(
    "x", [np.zeros((1, 100), np.float32), np.array([[b"\0" * 400]], object)], ids=["numbers", "text"]
)
async def test_inputs_that_wait_take_bounded_memory(model: Doubler, options: BatchingOptions | None, x: Array) -> None:
    scheduler = Scheduler(options, max_queued_bytes=2 * (1000 + 2 * batching._REQUEST_BYTES))
    model.gate.clear()
    many = [submit(scheduler, model, x) for _ in range(4)]
    await settle()
    assert await code_of(many[2]) is Code.UNAVAILABLE
    assert await code_of(many[3]) is Code.UNAVAILABLE
    model.gate.set()
    await asyncio.gather(*many[:2])
    await scheduler.run(model, {"x": x}, ["y"])


async def test_however_many_models_are_stuck_others_have_room(model: Doubler) -> None:
    scheduler, stuck = Scheduler(None, max_queued_bytes=64 * batching._REQUEST_BYTES), [Doubler() for _ in range(3)]
    waiting = []
    for each in stuck:
        each.gate.clear()
        waiting += [submit(scheduler, each, rows(1)) for _ in range(64)]
    await settle()
    assert sum(work.done() for work in waiting) > 64  # refused
    assert await scheduler.run(model, {"x": rows(1)}, ["y"]) == [rows(2)]
    for each in stuck:
        each.gate.set()
    await asyncio.gather(*waiting, return_exceptions=True)


@pytest.mark.parametrize("options", [None, WIDE], ids=["alone", "batched"])
async def test_a_cancelled_request_is_not_computed_and_frees_its_room(
    model: Doubler, options: BatchingOptions | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "_NUM_CORES", 1)
    scheduler = Scheduler(options, max_queued_bytes=2 * (16 + 3 * batching._REQUEST_BYTES))
    busy = await occupy(scheduler, model)
    for _ in range(300):
        gone = submit(scheduler, model, rows(7))
        await settle()
        gone.cancel()
        await settle()
        assert gone.cancelled()
    stays, gone = submit(scheduler, model, rows(1)), submit(scheduler, model, rows(7))
    await settle()
    gone.cancel()
    await settle()
    model.gate.set()
    assert await stays == [rows(2)]
    await busy
    assert 7 not in np.concatenate([feeds["x"] for feeds in model.calls])


async def test_a_request_cancelled_at_work_leaves_its_neighbours_alone(model: Doubler) -> None:
    scheduler = Scheduler(WIDE)
    busy = await occupy(scheduler, model)
    waiting = [submit(scheduler, model, rows(i)) for i in range(3)]
    await settle()
    busy.cancel()
    await settle()
    model.gate.set()
    waiting[1].cancel()
    assert await waiting[0] == [rows(0)]
    assert await waiting[2] == [rows(4)]
    assert await scheduler.run(model, {"x": rows(3)}, ["y"]) == [rows(6)]


async def test_a_bad_request_never_fails_its_neighbours(model: Doubler) -> None:
    scheduler = Scheduler(BatchingOptions(max_batch_size=64, num_batch_threads=1))
    bad = {3, 4, 17, 31}
    outputs = await run_waiting(scheduler, model, *(rows(-1 if i in bad else i) for i in range(32)))
    for i, output in enumerate(outputs):
        if i in bad:
            assert output.code is Code.INVALID_ARGUMENT
        else:
            assert output == rows(2 * i)
    assert len(model.calls) == 1 + 1 + 32  # the one before, together, and each for itself


class TooSlow(Doubler):
    def compute(self, array: Array) -> Array:
        raise StatusError(Code.DEADLINE_EXCEEDED, "Timed out waiting for notification")


async def test_a_batch_that_ran_out_of_time_is_not_run_again() -> None:
    scheduler, model = Scheduler(WIDE), TooSlow()
    busy = await occupy(scheduler, model)
    waiting = [submit(scheduler, model, rows(i)) for i in range(3)]
    await settle()
    model.gate.set()
    assert {await code_of(work) for work in (busy, *waiting)} == {Code.DEADLINE_EXCEEDED}
    assert model.sizes == [1, 3]


class Broken(Doubler):
    def compute(self, array: Array) -> Array:
        raise ZeroDivisionError("a bug of the model")


@pytest.mark.parametrize("options", [None, WIDE], ids=["alone", "batched"])
async def test_a_model_that_breaks_is_an_internal_error_and_the_scheduler_lives_on(
    model: Doubler, options: BatchingOptions | None, caplog: pytest.LogCaptureFixture
) -> None:
    scheduler, broken = Scheduler(options), Broken()
    broken.gate.clear()
    with caplog.at_level(logging.CRITICAL):
        failing = [submit(scheduler, broken, rows(i)) for i in range(5)]
        await settle()
        broken.gate.set()
        assert {await code_of(work) for work in failing} == {Code.INTERNAL}
    assert await scheduler.run(model, {"x": rows(1)}, ["y"]) == [rows(2)]


class Summer(Doubler):
    """Its output has no rows."""

    def compute(self, array: Array) -> Array:
        return array.sum()


class Flattener(Doubler):
    """Its output has two rows for each of the input's."""

    def compute(self, array: Array) -> Array:
        return np.repeat(array.ravel(), 2)


@pytest.mark.parametrize("kind", [Summer, Flattener])
async def test_requests_on_a_model_whose_outputs_have_no_rows_run_apart(kind: type[Doubler]) -> None:
    model, inputs = kind(), [rows(i, i) for i in range(4)]
    outputs = await run_waiting(Scheduler(WIDE), model, *inputs)
    assert [output.tolist() for output in outputs] == [model.compute(x).tolist() for x in inputs]


@pytest.mark.parametrize("kind", [Summer, Flattener])
async def test_what_was_split_or_filled_up_needs_outputs_with_rows(kind: type[Doubler]) -> None:
    model = kind()
    assert await code_of(Scheduler(SPLIT).run(model, {"x": rows(*range(20))}, ["y"])) is Code.FAILED_PRECONDITION
    filled = Scheduler(BatchingOptions(max_batch_size=8, allowed_batch_sizes=(8,)))
    assert await code_of(filled.run(model, {"x": rows(1)}, ["y"])) is Code.FAILED_PRECONDITION


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({"x": np.float32(1)}, "must have at least one dimension"),
        ({"x": np.ones(2), "y": np.ones(3)}, r"must have equal 0th-dimension size\. Received: \[2, 3\]"),
    ],
)
async def test_what_has_no_rows_cannot_be_batched(model: Doubler, feeds: dict[str, Array], message: str) -> None:
    with status_error(Code.INVALID_ARGUMENT, message):
        await Scheduler(WIDE).run(model, {name: np.asarray(array) for name, array in feeds.items()}, ["y"])


@pytest.mark.parametrize("splitting", [False, True])
@pytest.mark.parametrize("padding", [False, True])
@settings(max_examples=20, deadline=None)
@given(data=st.data())
async def test_every_request_gets_its_own_rows(splitting: bool, padding: bool, data: st.DataObject) -> None:
    sizes = st.lists(st.tuples(st.integers(0, 12), st.integers(1, 3), st.booleans()), min_size=1, max_size=40)
    requests = data.draw(sizes)
    options = BatchingOptions(
        max_batch_size=12,
        max_enqueued_batches=100,
        num_batch_threads=2,
        allowed_batch_sizes=data.draw(st.sampled_from([(), (12,), (1, 2, 12), (5, 12)])),
        pad_variable_length_inputs=padding,
        enable_large_batch_splitting=splitting,
        max_execution_batch_size=5,
    )
    scheduler, model = Scheduler(options), Doubler()
    inputs = [
        np.full((num_rows, width), i + 1, np.float32 if is_float else np.int32)
        for i, (num_rows, width, is_float) in enumerate(requests)
    ]
    outputs = await asyncio.gather(*(scheduler.run(model, {"x": x}, ["y"]) for x in inputs))
    for x, [y] in zip(inputs, outputs, strict=True):
        assert y.dtype == x.dtype
        np.testing.assert_array_equal(y[:, : x.shape[1]], x + x)
        assert (y[:, x.shape[1] :] == 2 * x.flat[0]).all() if x.size else True
        assert padding or y.shape == x.shape
    assert max(model.sizes) <= options.round_up(options.num_rows_per_batch)
    scheduler.close()


@pytest.mark.parametrize("options", [None, BatchingOptions(max_batch_size=16, max_enqueued_batches=1000)])
async def test_a_thousand_requests_at_once_each_get_one_response(
    model: Doubler, options: BatchingOptions | None
) -> None:
    scheduler = Scheduler(options)
    outputs = await asyncio.gather(*(scheduler.run(model, {"x": rows(i)}, ["y"]) for i in range(1000)))
    assert [output[0].item() for output in outputs] == [2 * i for i in range(1000)]
    assert sum(model.sizes) == 1000


async def test_closing_refuses_what_waits_and_finishes_what_is_at_work(model: Doubler) -> None:
    scheduler = Scheduler(WIDE)
    busy = await occupy(scheduler, model)
    waiting = submit(scheduler, model, rows(1))
    await settle()
    scheduler.close()
    assert await code_of(waiting) is Code.UNAVAILABLE
    assert await code_of(scheduler.run(model, {"x": rows(1)}, ["y"])) is Code.UNAVAILABLE
    model.gate.set()
    assert await busy == [rows(0)]
    assert model.sizes == [1]


@pytest.mark.parametrize("options", [None, WIDE, SPLIT], ids=["alone", "batched", "split"])
@pytest.mark.parametrize("kind", [Doubler, Broken])
async def test_a_refused_request_lets_go_of_its_arrays_at_once(
    options: BatchingOptions | None, kind: type[Doubler], caplog: pytest.LogCaptureFixture
) -> None:
    scheduler, model = Scheduler(options), kind()
    x = rows(*[-1] * 8) if options is WIDE else rows(*[-1] * 20)
    watched = weakref.ref(x)
    gc.disable()
    try:
        with caplog.at_level(logging.CRITICAL), suppress(StatusError):
            await scheduler.run(model, {"x": x}, ["y"])
        del x
        with anyio.fail_after(TIMEOUT_S):
            while watched() is not None:  # another part of it may still be at work
                model.calls.clear()
                await asyncio.sleep(0.001)
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_batch_size": 0}, "max_batch_size must be at least 1. Received: 0"),
        ({"max_enqueued_batches": 0}, "max_enqueued_batches must be at least 1. Received: 0"),
        ({"num_batch_threads": -1}, "num_batch_threads must be at least 1. Received: -1"),
        ({"batch_timeout_s": -1e-6}, "batch_timeout_micros must not be negative. Received: -1"),
        (
            {"max_batch_size": 8, "allowed_batch_sizes": (2, 4)},
            "must match max_batch_size; last entry was 4; expected 8",
        ),
        ({**vars(SPLIT), "allowed_batch_sizes": (4, 8)}, "must match max_batch_size; last entry was 8; expected 20"),
        ({"max_batch_size": 8, "allowed_batch_sizes": (4, 2, 8)}, "must increase"),
        ({"max_batch_size": 8, "allowed_batch_sizes": (0, 8)}, "must increase"),
        ({"max_execution_batch_size": 0, "enable_large_batch_splitting": True}, "max_execution_batch_size must be at"),
        (
            {"max_batch_size": 8, "max_execution_batch_size": 9, "enable_large_batch_splitting": True},
            r"max_execution_batch_size must not be above max_batch_size \(8\). Received: 9",
        ),
    ],
)
def test_options_are_checked(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BatchingOptions(**given)


def test_options_are_read_from_their_message() -> None:
    assert BatchingOptions.from_proto(protos.BatchingParameters()) == BatchingOptions(thread_pool_name="")
    read = BatchingOptions.from_proto(
        protos.BatchingParameters(
            max_batch_size={"value": 128},
            batch_timeout_micros={"value": 1500},
            max_enqueued_batches={"value": 7},
            num_batch_threads={"value": 3},
            allowed_batch_sizes=[8, 128],
            pad_variable_length_inputs=True,
            enable_large_batch_splitting={"value": True},
            max_execution_batch_size={"value": 32},
            thread_pool_name={"value": "pool"},
        )
    )
    assert read == BatchingOptions(128, 0.0015, 7, 3, (8, 128), True, True, 32, "pool")
