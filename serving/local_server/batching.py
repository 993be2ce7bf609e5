"""One queue in front of the models: requests become batches, batches run on a few threads.

Everything but the models' own work happens on the event loop, so nothing here needs a lock. Without batching a batch is
one request. The parameters are TensorFlow Serving's (session_bundle_config.proto), with its defaults.
"""

import asyncio
import logging
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from serving.local_server.errors import Code, StatusError, invalid_argument
from serving.local_server.servable import Servable
from serving.local_server.tensors import Array

log = logging.getLogger(__name__)

_NUM_CORES = os.cpu_count() or 1
# What may wait where batching is off: some seconds of work for a heavy model.
_MAX_QUEUED_REQUESTS = 128


@dataclass(frozen=True)
class BatchingOptions:
    """How requests are batched.

    Attributes:
        max_batch_size: rows of a batch.
        batch_timeout_s: how long the oldest request waits for a batch to fill up while a thread is free.
        max_enqueued_batches: batches that may wait; beyond that a request is refused at once.
        num_batch_threads: batches at work at the same time.
        allowed_batch_sizes: a batch is filled up to the next of these sizes; any size where empty.
        pad_variable_length_inputs: fill shorter inputs with zeros, so that different shapes share a batch.
        enable_large_batch_splitting: split a request of more rows than a batch, which is an error otherwise.
    """

    max_batch_size: int = 1000
    batch_timeout_s: float = 0.0
    max_enqueued_batches: int = 10
    num_batch_threads: int = _NUM_CORES
    allowed_batch_sizes: tuple[int, ...] = ()
    pad_variable_length_inputs: bool = False
    enable_large_batch_splitting: bool = False

    def __post_init__(self) -> None:
        for name in ("max_batch_size", "max_enqueued_batches", "num_batch_threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1. Received: {getattr(self, name)}")
        if self.batch_timeout_s < 0:
            raise ValueError(f"batch_timeout_micros must not be negative. Received: {self.batch_timeout_s * 1e6:.0f}")
        sizes = self.allowed_batch_sizes
        if sizes and (list(sizes) != sorted(set(sizes)) or sizes[0] < 1 or sizes[-1] != self.max_batch_size):
            raise ValueError(
                f"allowed_batch_sizes must increase and end with max_batch_size ({self.max_batch_size}). "
                f"Received: {list(sizes)}"
            )

    @classmethod
    def from_proto(cls, proto: Any) -> "BatchingOptions":
        """Read a `BatchingParameters` message; what it leaves out keeps its default."""
        given = {name: getattr(proto, name).value for name in _WRAPPED if proto.HasField(name)}
        if "batch_timeout_micros" in given:
            given["batch_timeout_s"] = given.pop("batch_timeout_micros") / 1e6
        return cls(
            **given,
            allowed_batch_sizes=tuple(proto.allowed_batch_sizes),
            pad_variable_length_inputs=proto.pad_variable_length_inputs,
        )


_WRAPPED = (
    "max_batch_size",
    "batch_timeout_micros",
    "max_enqueued_batches",
    "num_batch_threads",
    "enable_large_batch_splitting",
)


@dataclass(eq=False)
class _Task:
    servable: Servable
    feeds: Mapping[str, Array]
    fetches: Sequence[str]
    num_rows: int
    arrival_s: float
    future: "asyncio.Future[list[Array]]" = field(repr=False)


class Scheduler:
    """Run requests on models, several of them together where `options` allow it.

    Args:
        options: `None` runs every request for itself.
        max_queued_bytes: of inputs that wait, over all models.
        on_batch: called with the rows of each batch and the seconds that its oldest request waited.
    """

    def __init__(
        self,
        options: BatchingOptions | None,
        *,
        max_queued_bytes: int = 1 << 30,
        on_batch: Callable[[int, float], None] = lambda num_rows, waited_s: None,
    ) -> None:
        self._options = options
        self._num_idle = options.num_batch_threads if options else _NUM_CORES
        self._threads = ThreadPoolExecutor(self._num_idle, thread_name_prefix="batch")
        self._queues: dict[Any, deque[_Task]] = {}
        self._queued_bytes = 0
        self._max_queued_bytes = max_queued_bytes
        self._on_batch = on_batch
        self._timer: asyncio.TimerHandle | None = None

    async def run(self, servable: Servable, feeds: Mapping[str, Array], fetches: Sequence[str]) -> list[Array]:
        """Run one request; when the caller is cancelled while it waits, nothing is computed.

        Raises:
            StatusError: UNAVAILABLE at once when the queue is full, or whatever the model says of this request.
        """
        if self._options is None:
            return await self._enqueue(servable, feeds, fetches, num_rows=1)
        num_rows = _count_rows(feeds)
        limit = self._options.max_batch_size
        if num_rows <= limit:
            return await self._enqueue(servable, feeds, fetches, num_rows)
        if not self._options.enable_large_batch_splitting:
            raise invalid_argument(
                f"Task size {num_rows} is larger than maximum input batch size {limit}. Send fewer rows at once, or "
                "let the server split them: enable_large_batch_splitting."
            )
        starts = range(0, num_rows, limit)
        parts = [{name: array[i : i + limit] for name, array in feeds.items()} for i in starts]
        outputs = await asyncio.gather(*(self.run(servable, part, fetches) for part in parts))
        return [np.concatenate(pieces) for pieces in zip(*outputs, strict=True)]

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _enqueue(
        self, servable: Servable, feeds: Mapping[str, Array], fetches: Sequence[str], num_rows: int
    ) -> list[Array]:
        key = self._group(servable, feeds, fetches)
        queue = self._queues.setdefault(key, deque())
        num_bytes = sum(array.nbytes for array in feeds.values())
        capacity = self._options.max_batch_size * self._options.max_enqueued_batches if self._options else None
        queued = sum(task.num_rows for task in queue)
        if (
            queued + num_rows > (capacity or _MAX_QUEUED_REQUESTS)
            or self._queued_bytes + num_bytes > self._max_queued_bytes
        ):
            raise StatusError(
                Code.UNAVAILABLE,
                f"The batch scheduling queue to which this task was submitted is full ({queued} waiting). "
                "Try again later.",
            )
        loop = asyncio.get_running_loop()
        task = _Task(servable, feeds, fetches, num_rows, loop.time(), loop.create_future())
        queue.append(task)
        self._queued_bytes += num_bytes
        try:
            self._start_batches()
            return await task.future
        finally:
            self._queued_bytes -= num_bytes
            if task in queue:
                queue.remove(task)

    def _group(self, servable: Servable, feeds: Mapping[str, Array], fetches: Sequence[str]) -> Any:
        """Tell which requests can share a batch."""
        if self._options is None:
            return servable
        padded = self._options.pad_variable_length_inputs
        kinds = tuple((k, a.dtype.str, a.ndim if padded else a.shape[1:]) for k, a in feeds.items())
        return servable, kinds, tuple(fetches)

    def _start_batches(self) -> None:
        loop = asyncio.get_running_loop()
        while self._num_idle:
            self._queues = {key: queue for key, queue in self._queues.items() if queue}
            waiting = sorted(self._queues.values(), key=lambda queue: queue[0].arrival_s)
            ripe = next((queue for queue in waiting if self._ripens_at(queue) <= loop.time()), None)
            if ripe is None:
                self._wait_for(waiting)
                return
            batch = self._take(ripe)
            self._num_idle -= 1
            self._on_batch(sum(task.num_rows for task in batch), loop.time() - batch[0].arrival_s)
            running = loop.run_in_executor(self._threads, _run, batch, self._options)
            running.add_done_callback(lambda done, batch=batch: self._finish(batch, done))  # type: ignore[misc]

    def _ripens_at(self, queue: deque[_Task]) -> float:
        if self._options is None or sum(task.num_rows for task in queue) >= self._options.max_batch_size:
            return 0.0
        return queue[0].arrival_s + self._options.batch_timeout_s

    def _wait_for(self, waiting: Sequence[deque[_Task]]) -> None:
        if self._timer:
            self._timer.cancel()
        if waiting:
            when = min(map(self._ripens_at, waiting))
            self._timer = asyncio.get_running_loop().call_at(when, self._start_batches)

    def _take(self, queue: deque[_Task]) -> list[_Task]:
        batch = [queue.popleft()]
        if self._options:
            num_rows = batch[0].num_rows
            while queue and num_rows + queue[0].num_rows <= self._options.max_batch_size:
                batch.append(queue.popleft())
                num_rows += batch[-1].num_rows
        return batch

    def _finish(self, batch: Sequence[_Task], done: "asyncio.Future[list[list[Array] | StatusError]]") -> None:
        self._num_idle += 1
        self._start_batches()
        if done.cancelled():
            return
        for task, result in zip(batch, done.result(), strict=True):
            if task.future.done():
                continue
            if isinstance(result, StatusError):
                task.future.set_exception(result)
            else:
                task.future.set_result(result)


def _count_rows(feeds: Mapping[str, Array]) -> int:
    if any(array.ndim == 0 for array in feeds.values()):
        raise invalid_argument("Batching Run() input tensors must have at least one dimension")
    sizes = {len(array) for array in feeds.values()}
    if len(sizes) > 1:
        raise invalid_argument(
            f"Batching Run() input tensors must have equal 0th-dimension size. Received: {sorted(sizes)}"
        )
    return sizes.pop() if sizes else 1


def _run(batch: Sequence[_Task], options: BatchingOptions | None) -> list[list[Array] | StatusError]:
    """Run a batch in a thread; a request that makes it fail is found by halves, and the others are answered."""
    try:
        return list(_run_together(batch, options))
    except StatusError as exc:
        if len(batch) == 1:
            return [exc]
    except Exception:
        log.exception("a model failed in a way that is not the request's fault")
        if len(batch) == 1:
            return [StatusError(Code.INTERNAL, "the model failed; the server's log says more")]
    middle = len(batch) // 2
    return _run(batch[:middle], options) + _run(batch[middle:], options)


def _run_together(batch: Sequence[_Task], options: BatchingOptions | None) -> list[list[Array]]:
    first = batch[0]
    num_rows = sum(task.num_rows for task in batch)
    size = next((size for size in options.allowed_batch_sizes if size >= num_rows), num_rows) if options else num_rows
    if len(batch) == 1 and size == num_rows:
        return [first.servable.run(first.feeds, first.fetches)]
    pad = options is not None and options.pad_variable_length_inputs
    feeds = {name: _stack([task.feeds[name] for task in batch], size - num_rows, pad=pad) for name in first.feeds}
    outputs = first.servable.run(feeds, first.fetches)
    if any(output.ndim == 0 or len(output) != size for output in outputs):
        raise StatusError(
            Code.FAILED_PRECONDITION,
            "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input "
            "tensors. Serve this model without batching.",
        )
    ends = np.cumsum([task.num_rows for task in batch])
    return [[output[end - task.num_rows : end] for output in outputs] for task, end in zip(batch, ends, strict=True)]


def _stack(arrays: Sequence[Array], num_extra: int, *, pad: bool) -> Array:
    """Join the rows of several requests; extra rows repeat the first one."""
    if pad:
        shape = np.max([array.shape[1:] for array in arrays], axis=0)
        arrays = [
            np.pad(
                array,
                [(0, 0), *((0, int(most - size)) for most, size in zip(shape, array.shape[1:], strict=True))],
                constant_values=b"" if array.dtype == object else 0,
            )
            for array in arrays
        ]
    return np.concatenate([*arrays, *[arrays[0][:1]] * num_extra])
