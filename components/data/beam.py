"""Run a transform with Apache Beam: here in several processes, or on the runner that Beam's own options name.

Beam is an extra package and takes seconds to import, so it is imported when it is used. A runner may do a piece of work
twice, forget a result, or keep its processes for days: so the work of all steps makes files, a file that is there is
not made again, a missing one is an error in the end, and workers of another version of the project refuse to work.
"""

import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from components.errors import BeamError
from components.storage.files import TEMPORARY_FILES

_ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("client", "components", "export")
_LIBRARIES = ("apache-beam", "tensorflow", "keras", "numpy", "pillow")


class Part(Protocol):
    """Work that makes one file; it can be pickled."""

    @property
    def path(self) -> Path:
        """Return the absolute path of the file, on a disk that all workers share."""


PartT = TypeVar("PartT", bound=Part)


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


def make_files(make: Callable[[PartT], object], parts: Sequence[PartT], *, options: Sequence[str]) -> None:
    """Make the file of each part that is not there yet, and wait for the end.

    Args:
        make: writes the file of a part atomically; a function of a module, or a `partial` of one.
        parts: the work, which the workers divide among themselves.
        options: of Beam.

    Raises:
        BeamError: the pipeline failed, or ended without some of the files.
    """
    from apache_beam import Map

    run(parts, Map(partial(_make_file, make)), num_workers=0, options=options)
    for folder in {part.path.parent for part in parts}:
        for leftover in folder.glob(TEMPORARY_FILES):
            leftover.unlink(missing_ok=True)  # of a worker that was killed
    if missing := [part.path for part in parts if not part.path.exists()]:
        raise BeamError(
            f"A Beam pipeline must run to its end, and its workers share the disk of {missing[0].parent}. It ended, as "
            f"when a scheduler is restarted, and {len(missing)} of {len(parts)} files are not there, such as "
            f"{missing[0].name}. Run the same command again."
        )


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
    sizes = ("--dask_npartitions", "--dask_partition_size")
    if any("DaskRunner" in option for option in options) and not any(o.startswith(sizes) for o in options):
        # It would send 128 elements at once to a worker, and each of ours is minutes of work.
        defaults.append("--dask_partition_size=1")
    pipeline = None
    try:
        with beam.Pipeline(options=PipelineOptions([*defaults, *options])) as pipeline:
            _ = (
                pipeline
                | "Elements" >> beam.Create(elements)
                | "Spread" >> beam.Reshuffle()
                | "Check" >> beam.Map(_check_version, digest_version())
                | "Work" >> transform
            )
    except Exception as exc:  # Beam's runners raise what they like, with the text of a worker's failure.
        lines = str(exc).strip().splitlines() or [type(exc).__name__]
        raise BeamError(f"The Beam pipeline failed: {lines[-1]} Mend that and run the same command again.") from exc
    finally:
        # Dask's runner leaves its client open: finished work would be done again whenever a worker is lost.
        if client := getattr(getattr(pipeline, "result", None), "client", None):
            client.close()


@cache
def digest_version() -> str:
    """Digest the project's code, and the versions of the libraries that decide results, as this process found them."""
    digest = hashlib.sha256()
    for path in sorted(path for package in _PACKAGES for path in (_ROOT / package).rglob("*.py")):
        digest.update(f"{path.relative_to(_ROOT)}\n".encode() + path.read_bytes())
    for library in _LIBRARIES:
        digest.update(f"{library} {importlib.metadata.version(library)}\n".encode())
    return digest.hexdigest()


def _check_version(element: Any, expected: str) -> Any:
    """Return the element where this worker would do what the process does that sent it."""
    if digest_version() != expected:
        raise BeamError(
            "All workers must run the version of the project, and of its libraries, that the command runs. A worker "
            "runs another one. Update its folder, and start it again."
        )
    return element


def _make_file(make: Callable[[PartT], object], part: PartT) -> None:
    if not part.path.exists():
        make(part)
