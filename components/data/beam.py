"""Run a transform with Apache Beam: here in several processes, or on the runner that Beam's own options name.

Beam is an extra package and takes seconds to import, so it is imported when it is used.
"""

import importlib.util
from collections.abc import Sequence
from typing import Any

from components.errors import BeamError


def is_installed() -> bool:
    """Return whether Beam is installed."""
    return importlib.util.find_spec("apache_beam") is not None


def require(wanted_by: str) -> None:
    """Raise unless Beam is installed.

    Args:
        wanted_by: the option that needs it, for the message.

    Raises:
        BeamError: it is not installed.
    """
    if not is_installed():
        raise BeamError(f"{wanted_by} needs apache-beam, which is not installed. Run: make scale")


def run(elements: Sequence[Any], transform: Any, *, num_workers: int, options: Sequence[str] = ()) -> None:
    """Apply a transform to elements that can be pickled, and wait for the end.

    Args:
        elements: the work, which the workers divide among themselves.
        transform: a `PTransform`; its output is dropped.
        num_workers: processes of the direct runner.
        options: of Beam; they override the ones here.

    Raises:
        BeamError: the pipeline failed.
    """
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    defaults = [
        f"--direct_num_workers={num_workers}",
        "--direct_running_mode=multi_processing",
        # Nothing here has triggers; but with this option the direct runner does its work itself, instead of trying to
        # download another runner.
        "--allow_unsafe_triggers",
        "--default_sdk_harness_log_level=ERROR",
    ]
    try:
        with beam.Pipeline(options=PipelineOptions([*defaults, *options])) as pipeline:
            _ = pipeline | "Elements" >> beam.Create(elements) | "Spread" >> beam.Reshuffle() | "Work" >> transform
    except Exception as exc:  # Beam's runners raise what they like, with the text of a worker's failure.
        lines = str(exc).strip().splitlines() or [type(exc).__name__]
        raise BeamError(f"The Beam pipeline failed: {lines[-1]} Mend that and run the same command again.") from exc
