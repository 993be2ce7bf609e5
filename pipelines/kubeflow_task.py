"""The tasks of the compiled pipeline, each in its container: describe the sources, carry out a step.

Reads and writes folders as the local runner does, with the same manifest in them. A task sees only its own inputs, so
its manifest holds the whole lineage of each of them. Needs nothing of KFP, whose executor calls these functions.
"""

import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Protocol, get_type_hints

from components.artifacts.manifest import read_fallback, trace, write_manifest
from components.storage.files import TEMPORARY_FILES
from components.storage.store import open_store
from components.training import cluster
from pipelines.artifact_store import complete
from pipelines.config import Config, override
from pipelines.declaration import Step, load
from pipelines.execution import describe_origin, execute, resolve_options
from pipelines.flowers import STEPS
from pipelines.folders import open_state

log = logging.getLogger(__name__)


class KubeflowArtifact(Protocol):
    """What is used of an artifact that KFP's executor passes: its path, and the metadata that its page shows."""

    path: str
    metadata: dict[str, Any]


def describe_sources(**arguments: Any) -> None:
    """Describe what steps read from outside the pipeline, before any of them runs.

    The descriptions are parameters of these steps: Kubeflow's cache knows a step again as long as its source is the
    same.

    Args:
        arguments: a value for each option of the steps, and a file for each description, named as `option_parameters`
            and `source_parameter` say.

    Raises:
        ValueError: an option has a value that the step refuses.
        ComponentError: a source is not available.
    """
    for step in STEPS:
        if step.source and (file := arguments.get(source_parameter(step))):
            Path(file).write_text(json.dumps(load(step.source)(**_options(step, arguments))))


def run(name: str, *, output: KubeflowArtifact, page: KubeflowArtifact | None = None, **arguments: Any) -> None:
    """Carry out a step of the flowers pipeline.

    Args:
        name: of the step.
        output: the folder to be made; its metadata takes the few numbers worth a log line.
        page: takes a copy of the step's HTML page, which Kubeflow shows.
        arguments: an artifact for each input, a value for each option, a folder for each state and the description of
            the source, named as `option_parameters`, `state_parameter` and `source_parameter` say.

    Raises:
        ValueError: an option has a value that the step refuses.
        ComponentError: the step cannot go on.
    """
    step = next(step for step in STEPS if step.name == name)
    options = _options(step, arguments)
    source = json.loads(arguments[source_parameter(step)]) if step.source else None
    inputs = {parameter: Path(arguments[parameter].path) for parameter in step.inputs}
    origins = {parameter: trace(path) for parameter, path in inputs.items()}
    made_from = describe_origin(step, options, source=source, inputs={p: o["digest"] for p, o in origins.items()})
    out_dir = Path(output.path)
    # Where a bucket is mounted, a retry finds what the failed attempt has written.
    if not step.resumable:
        shutil.rmtree(out_dir, ignore_errors=True)
    out_dir.mkdir(parents=True, exist_ok=True)
    for leftover in out_dir.rglob(TEMPORARY_FILES):
        leftover.unlink()
    stores = {state: open_store(arguments[state_parameter(state)]) for state in step.state.values()}
    for store in stores.values():
        store.check_writable()
    log.info("%s: started", name)
    with open_state(step, stores) as state:
        manifest = execute(
            step,
            options,
            made_from,
            inputs=inputs,
            references=origins,
            state=state,
            cluster=cluster.from_environment(),
            out_dir=out_dir,
        )
    write_manifest(out_dir, complete(out_dir, manifest))
    output.metadata.update(manifest["summary"])
    if fallback := read_fallback(manifest):
        log.warning("%s: FALLBACK: %s To choose it instead: %s.", name, fallback, step.fallback_option)
    if page:
        shutil.copyfile(next(out_dir.glob("*.html")), page.path)


def option_parameters(step: Step) -> Iterator[tuple[str, str, str]]:
    """Yield each option of a step: the pipeline's parameter for it, its section and its name."""
    for section in step.options.values():
        for option in fields(get_type_hints(Config)[section]):
            yield f"{section}_{option.name}", section, option.name


def state_parameter(folder: str) -> str:
    """Return the name of the pipeline's parameter for a folder that is kept between runs."""
    return f"{folder}_dir"


def source_parameter(step: Step) -> str:
    """Return the name of the parameter for the description of a step's source."""
    return f"source_of_{step.name}"


def _options(step: Step, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return resolve_options(step, override(Config(), _assignments(step, arguments)))


def _assignments(step: Step, arguments: Mapping[str, Any]) -> Iterator[str]:
    """Write options as a person would type them, so that they are checked in the same way."""
    for parameter, section, option in option_parameters(step):
        value = arguments[parameter]
        yield f"{section}.{option}={[_number(v) for v in value] if isinstance(value, list) else _number(value)}"


def _number(value: Any) -> Any:
    """Return an integer as one: KFP carries every number as a float."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
