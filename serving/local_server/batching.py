"""One queue in front of the models: requests become batches, batches run on a few threads.

Everything but the models' own work happens on the event loop, so nothing here needs a lock. Without batching a batch is
one request. The models take turns and the queues end as in TensorFlow Serving's shared_batch_scheduler.h.
"""

import asyncio
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from serving.local_server.batching_options import BatchingOptions
from serving.local_server.errors import Code, StatusError, invalid_argument
from serving.local_server.servable import Array, Servable

log = logging.getLogger(__name__)

_NUM_CORES = os.cpu_count() or 1
# What may wait for a model where batching is off: some seconds of work for a heavy one.
_MAX_QUEUED_REQUESTS = 128
# Of one input of a padded batch; the requests of a larger one run apart.
_MAX_PADDED_BYTES = 1 << 28


@dataclass(eq=False)
class _Task:
    feeds: Mapping[str, Array]
    num_rows: int
    future: "asyncio.Future[list[Array]]"


@dataclass(eq=False)
class _Batch:
    """Requests of one kind that run together, at the latest at `start_at_s`."""

    servable: Servable
    fetches: Sequence[str]
    kind: Any
    arrival_s: float
    start_at_s: float
    tasks: list[_Task] = field(default_factory=list)
    num_rows: int = 0


class Scheduler:
    """Run requests on models, several of them together where `options` allow it.

    Args:
        options: `None` runs every request for itself.
        max_queued_bytes: of the inputs of all requests that wait or are at work.
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
        self._num_rows_per_batch = options.num_rows_per_batch if options else 1
        self._max_waiting = options.max_enqueued_batches if options else _MAX_QUEUED_REQUESTS
        self._timeout_s = options.batch_timeout_s if options else 0.0
        self._num_idle = options.num_batch_threads if options else _NUM_CORES
        self._threads = ThreadPoolExecutor(self._num_idle, thread_name_prefix="batch")
        # The batches that wait for each model; the model whose turn it is comes first.
        self._lines: dict[Servable, list[_Batch]] = {}
        self._num_bytes = 0
        self._max_bytes = max_queued_bytes
        self._on_batch = on_batch
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    async def run(self, servable: Servable, feeds: Mapping[str, Array], fetches: Sequence[str]) -> list[Array]:
        """Run one request; when the caller is cancelled while it waits, nothing is computed.

        Raises:
            StatusError: UNAVAILABLE at once when the queue is full, or the model's error for this request.
        """
        if self._options is None:
            return await self._enqueue(servable, feeds, fetches, num_rows=1)
        num_rows = _count_rows(feeds)
        if num_rows > self._options.max_batch_size:
            raise invalid_argument(
                f"Task size {num_rows} is larger than maximum input batch size {self._options.max_batch_size}. "
                "Send fewer rows at once."
            )
        limit = self._num_rows_per_batch
        if num_rows <= limit:
            return await self._enqueue(servable, feeds, fetches, num_rows)
        parts = []
        sizes = [min(limit, num_rows - start) for start in range(0, num_rows, limit)]
        for i, size in enumerate(sizes):
            part = {name: array[i * limit : i * limit + size] for name, array in feeds.items()}
            parts.append(asyncio.ensure_future(self._enqueue(servable, part, fetches, size)))
        try:
            outputs = await asyncio.gather(*parts)
        finally:
            while parts:
                parts.pop().cancel()
        for size, found in zip(sizes, outputs, strict=True):
            _check_outputs(found, size)
        return [_join(pieces, pad=self._options.pad_variable_length_inputs) for pieces in zip(*outputs, strict=True)]

    def close(self) -> None:
        """Refuse what waits and what is still to come; batches at work are finished."""
        self._is_closed = True
        lines, self._lines = self._lines, {}
        for task in (task for line in lines.values() for batch in line for task in batch.tasks):
            if not task.future.done():
                task.future.set_exception(_ending())
        self._threads.shutdown(wait=False)

    async def _enqueue(
        self, servable: Servable, feeds: Mapping[str, Array], fetches: Sequence[str], num_rows: int
    ) -> list[Array]:
        if self._is_closed:
            raise _ending()
        num_bytes = sum(map(_count_bytes, feeds.values()))
        if self._num_bytes + num_bytes > self._max_bytes:
            raise StatusError(
                Code.UNAVAILABLE,
                f"The server is full: {self._num_bytes} bytes of inputs wait, {self._max_bytes} may, and this request "
                f"has {num_bytes}. Try again later.",
            )
        task = _Task(feeds, num_rows, asyncio.get_running_loop().create_future())
        batch = self._find_batch(servable, feeds, fetches, num_rows)
        batch.tasks.append(task)
        batch.num_rows += num_rows
        self._num_bytes += num_bytes
        try:
            self._start_batches()
            return await task.future
        finally:
            self._num_bytes -= num_bytes
            if task.future.cancelled():
                self._leave(batch, task)
            del task, batch  # else an error, which refers to this frame and back, keeps the arrays for a while

    def _find_batch(
        self, servable: Servable, feeds: Mapping[str, Array], fetches: Sequence[str], num_rows: int
    ) -> _Batch:
        """Return the batch that a request waits in: the last one of its kind that has room, else a new one."""
        line = self._lines.get(servable, [])
        kind = self._kind(feeds, fetches)
        last = next((batch for batch in reversed(line) if batch.kind == kind), None) if self._options else None
        if last and last.num_rows + num_rows <= self._num_rows_per_batch and len(last.tasks) < self._num_rows_per_batch:
            if last.num_rows + num_rows == self._num_rows_per_batch:
                last.start_at_s = 0.0
            return last
        if len(line) >= self._max_waiting:
            raise StatusError(
                Code.UNAVAILABLE,
                "The batch scheduling queue to which this task was submitted is full; currently "
                f"{len(line)} batches enqueued and max_enqueued_batches is {self._max_waiting}. Try again later.",
            )
        if last:
            last.start_at_s = 0.0
        now = asyncio.get_running_loop().time()
        start_at_s = now + self._timeout_s if num_rows < self._num_rows_per_batch else 0.0
        batch = _Batch(servable, fetches, kind, now, start_at_s)
        self._lines.setdefault(servable, line).append(batch)
        return batch

    def _kind(self, feeds: Mapping[str, Array], fetches: Sequence[str]) -> Any:
        """Return what requests must have in common to share a batch."""
        if self._options is None:
            return None
        padded = self._options.pad_variable_length_inputs
        inputs = tuple((name, a.dtype, a.ndim if padded else a.shape[1:]) for name, a in feeds.items())
        return inputs, tuple(fetches)

    def _leave(self, batch: _Batch, task: _Task) -> None:
        """Take a request out of its batch, unless that is at work already."""
        line = self._lines.get(batch.servable, [])
        if batch not in line:
            return
        batch.tasks.remove(task)
        batch.num_rows -= task.num_rows
        if not batch.tasks:
            line.remove(batch)
        if not line:
            del self._lines[batch.servable]

    def _start_batches(self) -> None:
        """Start a batch that is full, or has waited long enough, on every idle thread."""
        loop = asyncio.get_running_loop()
        if self._timer:
            self._timer.cancel()
            self._timer = None
        while self._num_idle and self._lines:
            now = loop.time()
            waiting = [batch for line in self._lines.values() for batch in line]
            batch = next((batch for batch in waiting if batch.start_at_s <= now), None)
            if batch is None:
                self._timer = loop.call_at(min(batch.start_at_s for batch in waiting), self._start_batches)
                return
            line = self._lines.pop(batch.servable)
            line.remove(batch)
            if line:
                self._lines[batch.servable] = line  # behind the other models
            self._num_idle -= 1
            running = loop.run_in_executor(
                self._threads, _run, batch.servable, batch.tasks, batch.fetches, self._options
            )
            running.add_done_callback(partial(self._finish, batch))
            self._on_batch(batch.num_rows, now - batch.arrival_s)

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


def _ending() -> StatusError:
    return StatusError(Code.UNAVAILABLE, "The server is ending. Ask another one, or try again later.")


def _count_rows(feeds: Mapping[str, Array]) -> int:
    if any(array.ndim == 0 for array in feeds.values()):
        raise invalid_argument("Batching Run() input tensors must have at least one dimension")
    sizes = {len(array) for array in feeds.values()}
    if len(sizes) > 1:
        raise invalid_argument(
            f"Batching Run() input tensors must have equal 0th-dimension size. Received: {sorted(sizes)}"
        )
    return sizes.pop() if sizes else 1


def _count_bytes(array: Array) -> int:
    return sum(map(len, array.flat)) if array.dtype.hasobject else array.nbytes


def _run(
    servable: Servable, tasks: Sequence[_Task], fetches: Sequence[str], options: BatchingOptions | None
) -> list[list[Array] | StatusError]:
    """Run a batch in a thread; a request that makes it fail is found by halves, and the others get their outputs."""
    try:
        return list(_run_together(servable, tasks, fetches, options))
    except StatusError as exc:
        code, message = exc.code, exc.message
    except Exception as exc:
        if len(tasks) == 1:
            log.exception("a model failed in a way that is not the request's fault")
        code, message = Code.INTERNAL, f"the model failed: {type(exc).__name__}; the server's log says more"
    if len(tasks) == 1:
        return [StatusError(code, message)]  # a new one: the one caught refers to the arrays
    middle = len(tasks) // 2
    return [
        *_run(servable, tasks[:middle], fetches, options),
        *_run(servable, tasks[middle:], fetches, options),
    ]


def _run_together(
    servable: Servable, tasks: Sequence[_Task], fetches: Sequence[str], options: BatchingOptions | None
) -> list[list[Array]]:
    num_rows = sum(task.num_rows for task in tasks)
    allowed = (0, *options.allowed_batch_sizes) if options else ()
    size = next((size for size in allowed if size >= num_rows), num_rows)
    if len(tasks) == 1 and size == num_rows:
        return [servable.run(tasks[0].feeds, fetches)]
    feeds = {}
    for name in tasks[0].feeds:
        joined = _join([task.feeds[name] for task in tasks], pad=bool(options and options.pad_variable_length_inputs))
        # A row of the batch's own is sure to be a valid one.
        feeds[name] = np.concatenate([joined, *[joined[:1]] * (size - num_rows)]) if size > num_rows else joined
    outputs = servable.run(feeds, fetches)
    _check_outputs(outputs, size)
    ends = np.cumsum([task.num_rows for task in tasks])
    return [[output[end - task.num_rows : end] for output in outputs] for task, end in zip(tasks, ends, strict=True)]


def _check_outputs(outputs: Sequence[Array], num_rows: int) -> None:
    if any(output.ndim == 0 or len(output) != num_rows for output in outputs):
        raise StatusError(
            Code.FAILED_PRECONDITION,
            "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input "
            "tensors. Serve this model without batching.",
        )


def _join(arrays: Sequence[Array], *, pad: bool) -> Array:
    """Join the rows of arrays, where `pad` is set after filling them up to the widest with zeros, or empty strings."""
    if not pad or len({array.shape[1:] for array in arrays}) == 1:
        return np.concatenate(arrays)
    shape = [sum(map(len, arrays)), *(max(sizes) for sizes in zip(*(a.shape[1:] for a in arrays), strict=True))]
    dtype = arrays[0].dtype
    if math.prod(shape) * dtype.itemsize > _MAX_PADDED_BYTES:
        raise StatusError(Code.RESOURCE_EXHAUSTED, f"a batch padded to {shape} would be too large")
    joined = np.full(shape, b"" if dtype.hasobject else 0, dtype)
    start = 0
    for array in arrays:
        where = (slice(start, start + len(array)), *map(slice, array.shape[1:]))
        joined[where] = array
        start += len(array)
    return joined
