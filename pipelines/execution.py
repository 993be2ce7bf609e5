"""One step carried out, whatever runs the pipeline: what its output is made from, the call, the manifest.

Every runner writes the same manifest, so that steps, reports and lineage do not tell one from another.
"""

import json
import logging
import shlex
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.artifacts.manifest import Lineage, Origin, Output, Reference
from components.data import beam
from components.storage.bucket import is_url
from components.storage.disk import find_problem
from components.storage.store import Store
from pipelines import fingerprint
from pipelines.artifact_store import Artifact
from pipelines.config import Config
from pipelines.declaration import Step, load

if TYPE_CHECKING:
    from components.training.cluster import Cluster

log = logging.getLogger(__name__)


def resolve_options(step: Step, config: Config) -> dict[str, Any]:
    """Return the options of a step by parameter, with what the step would otherwise resolve on its own machine."""
    options = {parameter: getattr(config, section) for parameter, section in step.options.items()}
    return {name: value.resolve() if hasattr(value, "resolve") else value for name, value in options.items()}


def digest_code(step: Step) -> str:
    """Return the digest of the code of a step."""
    return fingerprint.of_code(step.function.partition(":")[0], *step.programs)


def resolve_inputs(step: Step, config: Config) -> dict[str, str]:
    """Return the step whose output each parameter takes, without the inputs that the options do not ask for."""

    def is_wanted(parameter: str) -> bool:
        if parameter not in step.optional:
            return True
        options, _, option = step.optional[parameter].partition(".")
        return bool(getattr(getattr(config, step.options[options]), option))

    return {parameter: name for parameter, name in step.inputs.items() if is_wanted(parameter)}


def describe_origin(step: Step, options: Mapping[str, Any], *, source: Any, inputs: Mapping[str, str]) -> Origin:
    """Return what the output of a step depends on, as JSON has it.

    Args:
        step: of the pipeline.
        options: by parameter, as `resolve_options` returns them.
        source: what the step's `source` function returned.
        inputs: the digests of its inputs, by parameter.
    """
    origin = {
        "code": digest_code(step),
        "options": {parameter: _keyed_options(step, parameter, value) for parameter, value in options.items()},
        "source": source,
        "inputs": inputs,
        "versions": fingerprint.versions(*step.libraries),
    }
    return json.loads(json.dumps(origin))


def execute(
    step: Step,
    options: Mapping[str, Any],
    origin: Origin,
    *,
    inputs: Mapping[str, Path],
    references: Mapping[str, Reference | Lineage],
    state: Mapping[str, Path | Store],
    cluster: "Cluster | None",
    out_dir: Path,
    earlier_dir: Path | None = None,
) -> Output:
    """Call a step's function and return the manifest of its output, still without its files.

    Args:
        step: of the pipeline.
        options: by parameter.
        origin: from `describe_origin`; its digest is the key of the output.
        inputs: folders, by parameter.
        references: the entry of each input in the manifest, by parameter.
        state: what is kept between runs, a folder or a URL, by parameter.
        cluster: the workers of a step that is distributed.
        out_dir: the folder that the step writes to.
        earlier_dir: an earlier output of a step that is incremental.

    Raises:
        ComponentError: the step cannot go on; a `StorageError` where a disk is full or cannot be written to, whichever
            library found that out.
    """
    started = time.monotonic()
    workers = {"cluster": cluster} if step.is_distributed else {}
    earlier = {"earlier_dir": earlier_dir} if step.incremental else {}
    engine = {"engine": _make_engine(step, options["options"])} if step.is_spread else {}
    try:
        summary = load(step.function)(**inputs, **options, **state, **workers, **earlier, **engine, out_dir=out_dir)
    except Exception as exc:
        states = [str(store) for store in state.values()]
        folders: list[str | Path] = [
            out_dir,
            *(folder for folder in states if not is_url(folder)),
            Path(tempfile.gettempdir()),
        ]
        if problem := find_problem(exc, folders):
            raise problem from exc
        raise
    seconds = round(time.monotonic() - started, 2)
    numbers = ", ".join(f"{name} {value}" for name, value in summary.items())
    log.info("%s: finished in %.1f s%s", step.name, seconds, f" ({numbers})" if numbers else "")
    return {
        "step": step.name,
        "key": fingerprint.of_value(origin),
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "seconds": seconds,
        "summary": summary,
        **origin,
        "inputs": dict(references),
    }


def _keyed_options(step: Step, parameter: str, options: Any) -> dict[str, Any]:
    return {name: value for name, value in asdict(options).items() if f"{parameter}.{name}" not in step.unkeyed}


def _make_engine(step: Step, options: Any) -> Callable[..., None] | None:
    """Return what spreads the work of a step, or `None` where this process does it.

    Raises:
        BeamError: Beam is not installed.
    """
    if options.engine != "beam":
        return None
    beam.require(f"{step.options['options']}.engine=beam")
    return partial(beam.make_files, options=shlex.split(options.beam_options))


def warn_of_fallback(step: Step, artifact: Artifact) -> None:
    """Log the fallback that a step's own output stands on."""
    if artifact.fallback and artifact.manifest["step"] == step.name:
        choice = f" To choose it instead: {step.fallback_option}." if step.fallback_option else ""
        log.warning("%s: FALLBACK, tried again in every run: %s%s", step.name, artifact.fallback, choice)
