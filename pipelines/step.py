"""One step carried out, whatever runs the pipeline: what its output is made from, the call, the manifest.

Every runner writes the same manifest, so that steps, reports and lineage do not tell one from another.
"""

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from components.storage.bucket import Bucket
from pipelines import fingerprint
from pipelines.declaration import Step, load

log = logging.getLogger(__name__)


def describe_origin(
    step: Step, options: Mapping[str, Any], *, source: Any, inputs: Mapping[str, str]
) -> dict[str, Any]:
    """Say what the output of a step depends on, as JSON has it.

    Args:
        step: of the pipeline.
        options: by parameter.
        source: what the step's `source` says of the outside.
        inputs: the digests of its inputs, by parameter.
    """
    made_from = {
        "code": fingerprint.of_code(step.function.partition(":")[0], *step.programs),
        "options": {parameter: asdict(value) for parameter, value in options.items()},
        "source": source,
        "inputs": inputs,
        "versions": fingerprint.versions(),
    }
    return json.loads(json.dumps(made_from))


def execute(
    step: Step,
    options: Mapping[str, Any],
    made_from: Mapping[str, Any],
    *,
    inputs: Mapping[str, Path],
    references: Mapping[str, Any],
    state: Mapping[str, Path | Bucket],
    out_dir: Path,
) -> dict[str, Any]:
    """Call a step's function and give the manifest of what it wrote, still without its files.

    Args:
        step: of the pipeline.
        options: by parameter.
        made_from: what `describe_origin` says; its digest is the key of the output.
        inputs: folders, by parameter.
        references: what the manifest says of each input, by parameter.
        state: what is kept between runs, a folder or a URL, by parameter.
        out_dir: the folder that the step writes to.
    """
    started = time.monotonic()
    summary = load(step.function)(**inputs, **options, **state, out_dir=out_dir)
    seconds = round(time.monotonic() - started, 2)
    numbers = ", ".join(f"{name} {value}" for name, value in summary.items())
    log.info("%s: finished in %.1f s%s", step.name, seconds, f" ({numbers})" if numbers else "")
    return {
        "step": step.name,
        "key": fingerprint.of_value(made_from),
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "seconds": seconds,
        "summary": summary,
        **made_from,
        "inputs": dict(references),
    }
