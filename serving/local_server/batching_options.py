"""The parameters of batching, which are TensorFlow Serving's (session_bundle_config.proto), with its defaults."""

import os
from dataclasses import dataclass
from typing import Any

# Wrapped in messages, which tell "not set" from zero.
_WRAPPED = (
    "max_batch_size",
    "batch_timeout_micros",
    "max_enqueued_batches",
    "num_batch_threads",
    "enable_large_batch_splitting",
    "max_execution_batch_size",
    "thread_pool_name",
)


@dataclass(frozen=True)
class BatchingOptions:
    """How requests are batched.

    Attributes:
        max_batch_size: rows of a request, and of a batch.
        batch_timeout_s: how long the oldest request waits for a batch to fill up while a thread is free.
        max_enqueued_batches: batches that may wait for one signature of a model, and one shape of its inputs; beyond, a
            request is refused at once.
        num_batch_threads: batches of one model at work at the same time.
        allowed_batch_sizes: a batch is filled up to the next of these sizes; any size where empty.
        pad_variable_length_inputs: fill shorter inputs with their first value, so that different shapes share a batch.
        enable_large_batch_splitting: split a request of more than `max_execution_batch_size` rows.
        max_execution_batch_size: rows of a batch where requests are split; `None` is `max_batch_size`.
        thread_pool_name: a label of the metrics.
    """

    max_batch_size: int = 1000
    batch_timeout_s: float = 0.0
    max_enqueued_batches: int = 10
    num_batch_threads: int = os.cpu_count() or 1
    allowed_batch_sizes: tuple[int, ...] = ()
    pad_variable_length_inputs: bool = False
    enable_large_batch_splitting: bool = False
    max_execution_batch_size: int | None = None
    thread_pool_name: str = "model_server_batch_threads"

    def __post_init__(self) -> None:
        for name in ("max_batch_size", "max_enqueued_batches", "num_batch_threads", "num_rows_per_batch"):
            if getattr(self, name) < 1:
                shown = name.replace("num_rows_per_batch", "max_execution_batch_size")
                raise ValueError(f"{shown} must be at least 1. Received: {getattr(self, name)}")
        if self.batch_timeout_s < 0:
            raise ValueError(f"batch_timeout_micros must not be negative. Received: {self.batch_timeout_s * 1e6:.0f}")
        if self.num_rows_per_batch > self.max_batch_size:
            raise ValueError(
                f"max_execution_batch_size must not be above max_batch_size ({self.max_batch_size}). "
                f"Received: {self.max_execution_batch_size}"
            )
        sizes = self.allowed_batch_sizes
        if sizes and sizes[-1] != self.max_batch_size:
            raise ValueError(
                "Last entry in allowed_batch_sizes must match max_batch_size; last entry was "
                f"{sizes[-1]}; expected {self.max_batch_size}"
            )
        if sizes and (list(sizes) != sorted(set(sizes)) or sizes[0] < 1):
            raise ValueError(f"allowed_batch_sizes must increase from at least 1. Received: {list(sizes)}")

    @property
    def num_rows_per_batch(self) -> int:
        if self.enable_large_batch_splitting and self.max_execution_batch_size is not None:
            return self.max_execution_batch_size
        return self.max_batch_size

    def round_up(self, num_rows: int) -> int:
        """Return the rows that a batch of `num_rows` is filled up to."""
        return next((size for size in (0, *self.allowed_batch_sizes) if size >= num_rows), num_rows)

    @classmethod
    def from_proto(cls, proto: Any) -> "BatchingOptions":
        """Read a `BatchingParameters` message; what it leaves out keeps its default."""
        given = {name: getattr(proto, name).value for name in _WRAPPED if proto.HasField(name)}
        if "batch_timeout_micros" in given:
            given["batch_timeout_s"] = given.pop("batch_timeout_micros") / 1e6
        given.setdefault("thread_pool_name", "")
        return cls(
            **given,
            allowed_batch_sizes=tuple(proto.allowed_batch_sizes),
            pad_variable_length_inputs=proto.pad_variable_length_inputs,
        )
