"""Batches at work: requests joined, filled up, run together and taken apart, in a thread of their model's.

What is padded and how is as in TensorFlow Serving's batching_session.cc and batching_util.cc.
"""

import asyncio
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from serving.local_server.batching_options import BatchingOptions
from serving.local_server.errors import Code, StatusError, invalid_argument
from serving.local_server.servable import Array, Servable

log = logging.getLogger(__name__)

# Of one input of a padded batch; the requests of a larger one run apart.
_MAX_PADDED_BYTES = 1 << 28
_MAX_PADDED_RANK = 6
# What one request alone may be to blame for. After any other failure its neighbours would fare no better apart.
_PERHAPS_ONE_REQUESTS = (
    Code.INVALID_ARGUMENT,
    Code.FAILED_PRECONDITION,
    Code.OUT_OF_RANGE,
    Code.UNIMPLEMENTED,
    Code.NOT_FOUND,
    Code.UNKNOWN,
    Code.INTERNAL,
    Code.RESOURCE_EXHAUSTED,
)


@dataclass(eq=False)
class Task:
    """A request in a batch: its inputs, by tensor name, and the times of its arrival and its deadline.

    Both are on `time.monotonic`, which is the event loop's clock.
    """

    feeds: Mapping[str, Array]
    num_rows: int
    arrival_s: float
    deadline_s: float
    future: "asyncio.Future[list[Array]]"


def run(
    servable: Servable, tasks: Sequence[Task], fetches: Sequence[str], options: BatchingOptions | None
) -> list[list[Array] | StatusError]:
    """Run a batch: each request's outputs, or its error.

    Where the batch fails, its requests are run once more, each for itself: a bad one fails alone.
    """
    try:
        return list(_run_together(servable, tasks, fetches, options))
    except StatusError as exc:
        code, message = exc.code, exc.message
    except Exception as exc:
        if len(tasks) == 1:
            log.exception("a model failed in a way that is not the request's fault")
        code, message = Code.INTERNAL, f"the model failed: {type(exc).__name__}; the server's log says more"
    if len(tasks) == 1 or code not in _PERHAPS_ONE_REQUESTS:
        # New ones: the one caught refers to the arrays.
        return [StatusError(code, message) for _ in tasks]
    results: list[list[Array] | StatusError] = []
    for task in tasks:
        # Whoever has gone needs no second run.
        gone = task.future.done()
        results += [StatusError(code, message)] if gone else run(servable, [task], fetches, options)
    return results


def _run_together(
    servable: Servable, tasks: Sequence[Task], fetches: Sequence[str], options: BatchingOptions | None
) -> list[list[Array]]:
    timeout_s = max(task.deadline_s for task in tasks) - time.monotonic()
    if timeout_s <= 0:
        raise StatusError(Code.DEADLINE_EXCEEDED, "Timed out waiting for notification")
    num_rows = sum(task.num_rows for task in tasks)
    size = options.round_up(num_rows) if options else num_rows
    if len(tasks) == 1 and size == num_rows:
        return [servable.run(tasks[0].feeds, fetches, timeout_s)]
    pads = options is not None and options.pad_variable_length_inputs
    feeds = {}
    for name in tasks[0].feeds:
        joined = join([task.feeds[name] for task in tasks], pads=pads)
        # The first row of the last request, which is sure to be a valid one.
        filling = joined[-tasks[-1].num_rows :][:1]
        feeds[name] = np.concatenate([joined, *[filling] * (size - num_rows)]) if size > num_rows else joined
    outputs = servable.run(feeds, fetches, timeout_s)
    check_rows(outputs, size)
    ends = np.cumsum([task.num_rows for task in tasks])
    return [[output[end - task.num_rows : end] for output in outputs] for task, end in zip(tasks, ends, strict=True)]


def count_rows(feeds: Mapping[str, Array]) -> int:
    """Return how many rows a request has.

    Raises:
        StatusError: an input has no rows, or more than another.
    """
    if any(array.ndim == 0 for array in feeds.values()):
        raise invalid_argument("Batching Run() input tensors must have at least one dimension")
    sizes = {len(array) for array in feeds.values()}
    if len(sizes) > 1:
        raise invalid_argument(
            f"Batching Run() input tensors must have equal 0th-dimension size. Received: {sorted(sizes)}"
        )
    return sizes.pop() if sizes else 1


def check_rows(outputs: Sequence[Array], num_rows: int) -> None:
    """Refuse outputs that cannot be taken apart.

    Raises:
        StatusError: one of them has not as many rows as the inputs.
    """
    if any(output.ndim == 0 for output in outputs):
        raise StatusError(Code.FAILED_PRECONDITION, "Batched output tensor has 0 dimensions")
    if any(len(output) != num_rows for output in outputs):
        raise StatusError(
            Code.FAILED_PRECONDITION,
            "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input "
            "tensors. Serve this model without batching.",
        )


def join(arrays: Sequence[Array], *, pads: bool) -> Array:
    """Join the rows of arrays; where `pads` is set each is first filled up to the widest with its own first value."""
    if not pads or len({array.shape[1:] for array in arrays}) == 1:
        return np.concatenate(arrays)
    shape = [sum(map(len, arrays)), *(max(sizes) for sizes in zip(*(a.shape[1:] for a in arrays), strict=True))]
    dtype = arrays[0].dtype
    if len(shape) > _MAX_PADDED_RANK:
        raise invalid_argument(f"Only tensors with rank from 1 to {_MAX_PADDED_RANK} can be padded.")
    if any(len(array) and not array.size for array in arrays):
        raise invalid_argument("Got empty tensor in batch of non-empty tensors.")
    if math.prod(shape) * dtype.itemsize > _MAX_PADDED_BYTES:
        raise StatusError(Code.RESOURCE_EXHAUSTED, f"a batch padded to {shape} would be too large")
    joined = np.empty(shape, dtype)
    start = 0
    for array in arrays:
        rows = slice(start, start + len(array))
        if len(array):
            joined[rows] = array.flat[0]
            own = (rows, *map(slice, array.shape[1:]))
            joined[own] = array
        start += len(array)
    return joined
