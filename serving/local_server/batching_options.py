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
)


@dataclass(frozen=True)
class BatchingOptions:
    """How requests are batched.

    Attributes:
        max_batch_size: rows of a request, and of a batch.
        batch_timeout_s: how long the oldest request waits for a batch to fill up while a thread is free.
        max_enqueued_batches: batches that may wait for one model; beyond, a request is refused at once.
        num_batch_threads: batches at work at the same time.
        allowed_batch_sizes: a batch is filled up to the next of these sizes; any size where empty.
        pad_variable_length_inputs: fill shorter inputs with zeros, so that different shapes share a batch.
        enable_large_batch_splitting: split a request of more than `max_execution_batch_size` rows.
        max_execution_batch_size: rows of a batch where requests are split; `None` is `max_batch_size`.
    """

    max_batch_size: int = 1000
    batch_timeout_s: float = 0.0
    max_enqueued_batches: int = 10
    num_batch_threads: int = os.cpu_count() or 1
    allowed_batch_sizes: tuple[int, ...] = ()
    pad_variable_length_inputs: bool = False
    enable_large_batch_splitting: bool = False
    max_execution_batch_size: int | None = None

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
        if sizes and (list(sizes) != sorted(set(sizes)) or sizes[0] < 1 or sizes[-1] != self.num_rows_per_batch):
            raise ValueError(
                f"allowed_batch_sizes must increase and end with the rows of a full batch ({self.num_rows_per_batch}). "
                f"Received: {list(sizes)}"
            )

    @property
    def num_rows_per_batch(self) -> int:
        if self.enable_large_batch_splitting and self.max_execution_batch_size is not None:
            return self.max_execution_batch_size
        return self.max_batch_size

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
