"""`python -m pipelines watch`: whether what a model is asked is still what it was validated on.

Reads predictions (`pipelines.traffic`) and the reference that travels with their model; writes a page, and metrics
where they are wanted. The exit status is the verdict's.
"""

import argparse
import json
import logging
from dataclasses import fields
from pathlib import Path

from components.artifacts.watch_reference import WATCH_REFERENCE, WatchReference, parse_watch_reference
from components.errors import ComponentError
from components.monitoring import drift
from components.monitoring.drift import WatchOptions
from components.storage.models import ModelStore, open_models
from pipelines import watch_output
from pipelines.commands import WrongCommandError
from pipelines.folders import Folders
from pipelines.traffic import OpenCaptured, read_traffic
from pipelines.watch_output import Watched
from serving.shared.capture import read_captured

log = logging.getLogger(__name__)

NUM_STRANGEST = 24
PAGE = "watch.html"
_METRICS_SUFFIX = ".prom"
_HELP = {
    "false_alarm": "probability that there is ever an alarm where nothing is beyond its tolerance",
    "strangeness_tolerance": "by which the mean squared p-value may be below one third",
    "refused_tolerance": "by which the share of refused photos may be above validation's",
    "confidence_tolerance": "by which the mean confidence may differ",
    "class_tolerance": "by which the share of a predicted class may differ",
    "brightness_tolerance": "by which the mean brightness, 0 to 1, may differ",
    "accuracy_margin": "half the width of an interval of the accuracy that is worth telling",
    "min_photos": "fewer are too little to say that nothing is found",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "--input", required=True, metavar="PARQUET|DIR", help="an output of infer, or a folder of captured traffic"
    )
    parser.add_argument("--version", type=int, metavar="N", help="of the model (default: the newest pushed one)")
    parser.add_argument("--in-order", action="store_true", help="an output of infer by the paths, not shuffled")
    parser.add_argument("--page", type=Path, metavar="FILE", help=f"default: {PAGE} in --runs-dir")
    parser.add_argument("--metrics", type=Path, metavar=f"FILE{_METRICS_SUFFIX}", help="for node-exporter's textfiles")
    parser.add_argument("--json", action="store_true", help="print one object for machines")
    for field in fields(WatchOptions):
        flag = f"--{field.name.replace('_', '-')}"
        kind = type(field.default)
        text = f"{_HELP[field.name]} (default: {field.default})"
        parser.add_argument(flag, type=kind, default=field.default, metavar="N", help=text)


def run(options: argparse.Namespace, folders: Folders) -> int:
    """Watch, say what was found, write it to files, and return the exit status."""
    try:
        chosen = _read_options(options)
    except ValueError as exc:
        raise WrongCommandError(str(exc)) from exc
    watched = watch(
        options.input,
        models=open_models(folders.models),
        model_name=options.model_name,
        version=options.version,
        options=chosen,
        keeps_order=options.in_order,
    )
    path = options.page or folders.runs / PAGE
    watch_output.write_page(watched, path)
    if options.metrics:
        watch_output.write_metrics(watched, options.metrics)
    if options.json:
        print(json.dumps({**watch_output.describe(watched), "page": str(path)}))
    else:
        print(*watch_output.to_lines(watched), f"Page: {path}", sep="\n")
    return watched.verdict.status


def _read_options(options: argparse.Namespace) -> WatchOptions:
    """Return the options that were given.

    Raises:
        ValueError: one of them is out of its range, or the metrics are for a file that nobody reads.
    """
    if options.metrics and options.metrics.suffix != _METRICS_SUFFIX:
        raise ValueError(
            f"--metrics takes a file that ends in {_METRICS_SUFFIX}, as node-exporter reads no others. "
            f"Received: {options.metrics}"
        )
    return WatchOptions(**{field.name: getattr(options, field.name) for field in fields(WatchOptions)})


def watch(
    source: str,
    *,
    models: ModelStore,
    model_name: str,
    version: int | None,
    options: WatchOptions,
    keeps_order: bool = False,
    open_captured: OpenCaptured = read_captured,
) -> Watched:
    """Compare the predictions of a version with its reference.

    Args:
        source: an output of `infer`, or a folder of captured traffic.
        models: with the version.
        model_name: of the model.
        version: `None` for the newest.
        options: what counts as moved.
        keeps_order: whether an output of `infer` is taken in the order of the paths.
        open_captured: reads captured traffic.

    Raises:
        ComponentError: there is no such version, it carries no reference, or there are no predictions of it.
    """
    chosen = _find_version(models, model_name, version)
    reference = _read_reference(models, model_name, chosen)
    traffic = read_traffic(
        source,
        model_name=model_name,
        version=str(chosen),
        class_names=reference["class_names"],
        num_strangest=NUM_STRANGEST,
        keeps_order=keeps_order,
        open_captured=open_captured,
    )
    for reason, count in traffic.left_out.items():
        log.warning("watch: left out: %d records %s", count, reason)
    return Watched(model_name, chosen, source, reference, traffic, drift.judge(traffic.predictions, reference, options))


def _find_version(models: ModelStore, model_name: str, version: int | None) -> int:
    pushed = models.versions(model_name)
    if not pushed:
        raise ComponentError(f"Only a pushed model is watched. There is none in {models}/{model_name}: run make train.")
    if version not in (None, *pushed):
        raise ComponentError(
            f"--version is that of a pushed model. Received: {version}. {models}/{model_name} holds "
            f"{', '.join(map(str, pushed))}."
        )
    return pushed[-1] if version is None else version


def _read_reference(models: ModelStore, model_name: str, version: int) -> WatchReference:
    content = models.read(model_name, version, WATCH_REFERENCE)
    if content is None:
        raise ComponentError(
            f"A model is watched by the reference that it carries, {WATCH_REFERENCE}. Received: "
            f"{models.path(model_name, version)}, which has none: it was pushed before there were any. Run make train, "
            "which makes what is missing and pushes a new version."
        )
    return parse_watch_reference(content)
