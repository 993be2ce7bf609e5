"""A queue in front of each model: requests become batches, batches run on the model's own threads.

Everything but the models' own work happens on the event loop, so nothing here needs a lock. Without batching a batch is
one request. Batches fill and queues end as in TensorFlow Serving's shared_batch_scheduler.h, but that models share no
threads: a slow one holds up no other.
"""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from serving.local_server import batches
from serving.local_server.batches import Task
from serving.local_server.batching_options import BatchingOptions
from serving.local_server.errors import Code, StatusError, invalid_argument
from serving.local_server.servable import Array, Servable

_NUM_CORES = os.cpu_count() or 1
FOREVER = float("inf")
"""The deadline of a request that has none."""

# What a waiting request takes besides its inputs, about.
_REQUEST_BYTES = 8192


@dataclass(frozen=True)
class BatchRecord:
    """What there is to tell of a batch when it starts.

    Attributes:
        thread_pool_name: of the batching options.
        sizes: rows of each request.
        waits_s: how long each request has waited.
        num_rows: of the batch, padding included.
    """

    thread_pool_name: str
    sizes: Sequence[int]
    waits_s: Sequence[float]
    num_rows: int


OnBatch = Callable[[BatchRecord], None]


@dataclass(eq=False)
class _Batch:
    """Requests of one kind that run together, at the latest at `start_at_s`."""

    servable: Servable
    fetches: Sequence[str]
    kind: Any
    start_at_s: float
    tasks: list[Task] = field(default_factory=list)
    num_rows: int = 0


class Scheduler:
    """Run requests on models, several of them together where a model's options allow it.

    Args:
        options: of models that have none of their own; `None` runs every request for itself.
        max_queued_bytes: of all requests that wait or are at work. One model's may take as much as is still free, so
            that however many of them are stuck, others have room.
        on_batch: called with each batch of a model that is batched, when it starts.
    """

    def __init__(
        self,
        options: BatchingOptions | None,
        *,
        max_queued_bytes: int = 1 << 30,
        on_batch: OnBatch = lambda record: None,
    ) -> None:
        self._options = options
        self._queues: WeakKeyDictionary[Servable, _Queue] = WeakKeyDictionary()
        self._num_bytes = 0
        self._max_bytes = max_queued_bytes
        self._on_batch = on_batch
        self._is_closed = False

    def add(self, servable: Servable, options: BatchingOptions | None) -> None:
        """Give a model options of its own, before its first request."""
        self._queues[servable] = _Queue(options, self._on_batch)

    async def run(
        self, servable: Servable, feeds: Mapping[str, Array], fetches: Sequence[str], deadline_s: float = FOREVER
    ) -> list[Array]:
        """Run one request; when the caller is cancelled while it waits, nothing is computed.

        Args:
            servable: the model.
            feeds: inputs by tensor name.
            fetches: names of the output tensors.
            deadline_s: on `time.monotonic`, when the model stops computing for nobody.

        Raises:
            StatusError: UNAVAILABLE at once when a queue is full, or the model's error for this request.
        """
        if self._is_closed:
            raise _ending()
        queue = self._queues.get(servable)
        if queue is None:
            queue = self._queues[servable] = _Queue(self._options, self._on_batch)
        num_bytes = _REQUEST_BYTES + sum(map(_count_bytes, feeds.values()))
        num_free = self._max_bytes - self._num_bytes
        if queue.num_bytes + num_bytes > num_free:
            raise StatusError(
                Code.UNAVAILABLE,
                f"The model's queue is full: its requests of {queue.num_bytes} bytes wait, {num_free} bytes are free, "
                f"and this one has {num_bytes}. Try again later.",
            )
        self._num_bytes += num_bytes
        queue.num_bytes += num_bytes
        try:
            return await queue.run(servable, feeds, fetches, deadline_s)
        finally:
            self._num_bytes -= num_bytes
            queue.num_bytes -= num_bytes

    def close(self) -> None:
        """Refuse what waits and what is still to come; batches at work are finished."""
        self._is_closed = True
        for queue in list(self._queues.values()):
            queue.close()


class _Queue:
    """The batches of one model that wait, and the threads that run them. It holds no model for longer than these."""

    def __init__(self, options: BatchingOptions | None, on_batch: OnBatch) -> None:
        self._options = options
        self._num_rows_per_batch = options.num_rows_per_batch if options else 1
        self._num_idle = options.num_batch_threads if options else _NUM_CORES
        self._threads = ThreadPoolExecutor(self._num_idle, thread_name_prefix="batch")
        self._waiting: list[_Batch] = []
        # The same batches, where several requests may share one.
        self._alike: dict[Any, list[_Batch]] = {}
        self.num_bytes = 0
        self._on_batch = on_batch
        self._timer: asyncio.TimerHandle | None = None

    async def run(
        self, servable: Servable, feeds: Mapping[str, Array], fetches: Sequence[str], deadline_s: float
    ) -> list[Array]:
        if self._options is None:
            return await self._enqueue(servable, feeds, fetches, deadline_s, num_rows=1)
        num_rows = batches.count_rows(feeds)
        if num_rows > self._options.max_batch_size:
            raise invalid_argument(
                f"Task size {num_rows} is larger than maximum input batch size {self._options.max_batch_size}. "
                "Send fewer rows at once."
            )
        limit = self._num_rows_per_batch
        if num_rows <= limit:
            return await self._enqueue(servable, feeds, fetches, deadline_s, num_rows)
        parts = []
        sizes = [min(limit, num_rows - start) for start in range(0, num_rows, limit)]
        for i, size in enumerate(sizes):
            part = {name: array[i * limit : i * limit + size] for name, array in feeds.items()}
            parts.append(asyncio.ensure_future(self._enqueue(servable, part, fetches, deadline_s, size)))
        try:
            outputs = await asyncio.gather(*parts)
        finally:
            while parts:
                parts.pop().cancel()
        for size, found in zip(sizes, outputs, strict=True):
            batches.check_rows(found, size)
        pads = self._options.pad_variable_length_inputs
        return [batches.join(pieces, pads=pads) for pieces in zip(*outputs, strict=True)]

    def close(self) -> None:
        waiting, self._waiting, self._alike = self._waiting, [], {}
        for task in (task for batch in waiting for task in batch.tasks):
            if not task.future.done():
                task.future.set_exception(_ending())
        self._threads.shutdown(wait=False)

    async def _enqueue(
        self,
        servable: Servable,
        feeds: Mapping[str, Array],
        fetches: Sequence[str],
        deadline_s: float,
        num_rows: int,
    ) -> list[Array]:
        loop = asyncio.get_running_loop()
        batch = self._find_batch(servable, feeds, fetches, num_rows)
        task = Task(feeds, num_rows, loop.time(), deadline_s, loop.create_future())
        batch.tasks.append(task)
        batch.num_rows += num_rows
        try:
            self._start_batches()
            return await task.future
        finally:
            if task.future.cancelled():
                self._leave(batch, task)
            del task, batch  # else an error, which refers to this frame and back, keeps the arrays for a while

    def _find_batch(
        self, servable: Servable, feeds: Mapping[str, Array], fetches: Sequence[str], num_rows: int
    ) -> _Batch:
        """Return the batch that a request waits in: the last one of its kind that has room, else a new one."""
        kind, start_at_s = None, 0.0
        if self._options:
            kind = _kind(feeds, fetches, padded=self._options.pad_variable_length_inputs)
            alike = self._alike.get(kind, [])
            if alike:
                last = alike[-1]
                room = self._num_rows_per_batch - last.num_rows
                if num_rows <= room and len(last.tasks) < self._num_rows_per_batch:
                    if num_rows == room:
                        last.start_at_s = 0.0
                    return last
                last.start_at_s = 0.0
            if len(alike) >= self._options.max_enqueued_batches:
                raise StatusError(
                    Code.UNAVAILABLE,
                    "The batch scheduling queue to which this task was submitted is full; currently "
                    f"{len(alike)} batches enqueued and max_enqueued_batches is {self._options.max_enqueued_batches}. "
                    "Try again later.",
                )
            if num_rows < self._num_rows_per_batch:
                start_at_s = asyncio.get_running_loop().time() + self._options.batch_timeout_s
        batch = _Batch(servable, fetches, kind, start_at_s)
        self._waiting.append(batch)
        if self._options:
            self._alike.setdefault(kind, []).append(batch)
        return batch

    def _remove(self, batch: _Batch) -> None:
        self._waiting.remove(batch)
        if self._options:
            self._alike[batch.kind].remove(batch)
            if not self._alike[batch.kind]:
                del self._alike[batch.kind]

    def _leave(self, batch: _Batch, task: Task) -> None:
        """Take a request out of its batch, unless that is at work already."""
        if batch not in self._waiting:
            return
        batch.tasks.remove(task)
        batch.num_rows -= task.num_rows
        if not batch.tasks:
            self._remove(batch)

    def _start_batches(self) -> None:
        """Start a batch that is full, or has waited long enough, on every idle thread."""
        loop = asyncio.get_running_loop()
        if self._timer:
            self._timer.cancel()
            self._timer = None
        while self._num_idle and self._waiting:
            now = loop.time()
            batch = next((batch for batch in self._waiting if batch.start_at_s <= now), None)
            if batch is None:
                self._timer = loop.call_at(min(b.start_at_s for b in self._waiting), self._start_batches)
                return
            self._remove(batch)
            self._num_idle -= 1
            running = loop.run_in_executor(
                self._threads, batches.run, batch.servable, batch.tasks, batch.fetches, self._options
            )
            running.add_done_callback(partial(self._finish, batch))
            if self._options:
                sizes = [task.num_rows for task in batch.tasks]
                waits_s = [now - task.arrival_s for task in batch.tasks]
                num_rows = self._options.round_up(batch.num_rows)
                self._on_batch(BatchRecord(self._options.thread_pool_name, sizes, waits_s, num_rows))

    def _finish(self, batch: _Batch, done: "asyncio.Future[list[list[Array] | StatusError]]") -> None:
        self._num_idle += 1
        self._start_batches()
        for task, result in zip(batch.tasks, done.result(), strict=True):
            if task.future.done():
                continue
            if isinstance(result, StatusError):
                task.future.set_exception(result)
            else:
                task.future.set_result(result)


def _kind(feeds: Mapping[str, Array], fetches: Sequence[str], *, padded: bool) -> Any:
    """Return what requests must have in common to share a batch."""
    return tuple((name, a.dtype, a.ndim if padded else a.shape[1:]) for name, a in feeds.items()), tuple(fetches)


def _ending() -> StatusError:
    return StatusError(Code.UNAVAILABLE, "The server is ending. Ask another one, or try again later.")


def _count_bytes(array: Array) -> int:
    return sum(map(len, array.flat)) if array.dtype.hasobject else array.nbytes
