"""The command line: `python -m pipelines COMMAND`; `--help` lists the commands.

Exit status: 0 when the model is pushed (or nothing had to be done), 1 when something failed, 2 for a wrong command,
3 when the run finished and the model was not pushed, 130 when it was interrupted, 141 when nobody reads what it prints.

Where `TF_CONFIG` describes several workers, each gets the same `run`: the chief runs the pipeline, and the others
wait for its training and take part in it.
"""

import argparse
import json
import logging
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from components import comparison
from components.artifacts.push import read_push
from components.errors import ClusterError, ComponentError
from components.storage.bucket import is_url
from components.storage.disk import explain
from components.storage.files import read_json
from components.storage.models import open_models
from components.training import cluster
from pipelines import compare, kubeflow, local_runner, prune, show
from pipelines.artifact_store import Artifact
from pipelines.config import Config, override
from pipelines.declaration import Step
from pipelines.flowers import STEPS
from pipelines.folders import Folders
from pipelines.kubeflow import KubeflowOptions
from pipelines.labels import command as labels
from pipelines.local_runner import Selection
from pipelines.review import command as review
from pipelines.runs import list_runs

NOT_PUSHED, BROKEN_PIPE = 3, 141
MAKE_VARIABLES = {"examples.source": "DATA", "model.weights": "WEIGHTS"}
"""The options that have a variable of their own in the Makefile."""


class _WrongCommandError(Exception):
    """The command does not fit the pipeline or its options."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
    # A user of the pipeline cannot act on what the libraries log.
    for package in ("pipelines", "components", "export", "serving"):
        logging.getLogger(package).setLevel(logging.INFO)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.getLogger("absl").setLevel(logging.ERROR)
    try:
        folders = Folders.at(options.runs_dir, options.models_dir)
        status = options.command(options, folders)
        sys.stdout.flush()
        return status
    except _WrongCommandError as exc:
        return _fail(str(exc), status=2)
    except ComponentError as exc:
        return _fail(str(exc))
    except BrokenPipeError:
        # As Python's documentation of `signal` has it: what is still to be flushed at the end must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except OSError as exc:
        return _fail(explain(exc, (options.runs_dir, options.models_dir, tempfile.gettempdir())))
    except KeyboardInterrupt:
        return _fail("interrupted; the same command goes on where this run was", status=130)


def _fail(message: str, *, status: int = 1) -> int:
    print(f"error: {message.strip()}", file=sys.stderr)
    return status


def _start(
    steps: Sequence[Step],
    config: Config,
    options: argparse.Namespace,
    folders: Folders,
    workers: cluster.Cluster | None = None,
) -> tuple[Path, Mapping[str, Artifact]]:
    selection = Selection(first=options.first, last=options.last, forced=options.force)
    try:
        config = override(config, options.set)
        selection.check(steps)
    except ValueError as exc:
        raise _WrongCommandError(str(exc)) from exc
    return local_runner.run(steps, config, folders=folders, selection=selection, cluster=workers)


def _run(options: argparse.Namespace, folders: Folders) -> int:
    workers = cluster.from_environment()
    if workers:
        # A worker trains in a process of its own, beside this one, on the same graphics cards.
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    trainings_dir = folders.artifacts / "trainer"
    if workers and not workers.is_chief:
        trained = cluster.train_as_worker(workers, trainings_dir)
        print(f"{'Trained' if trained else 'Nothing to train'}: the chief, {workers.addresses[0]}, does the rest.")
        return 0
    run_dir, artifacts = _start(STEPS, Config(), options, folders, workers)
    if workers:
        cluster.release_workers(trainings_dir)
    if "report" in artifacts:
        print(f"Report: {run_dir / 'report.html'}")
    _print_fallbacks(STEPS, artifacts)
    if "pusher" not in artifacts:
        return 0
    push = read_push(artifacts["pusher"].path)
    if push["pushed"]:
        print(f"Pushed: {push['path']}")
        return 0
    print(f"Not pushed: {push['reason']}")
    return NOT_PUSHED


def _compare(options: argparse.Namespace, folders: Folders) -> int:
    if cluster.from_environment():
        raise ClusterError("A comparison trains with one worker, and TF_CONFIG describes several. Unset TF_CONFIG.")
    folders = replace(folders, latest=compare.LATEST)
    run_dir, artifacts = _start(compare.STEPS, compare.CompareConfig(), options, folders)
    if "comparison" in artifacts:
        print(comparison.as_table(read_json(artifacts["comparison"].path / "comparison.json")["rows"]))
        print(f"Comparison: {run_dir / 'comparison.html'}")
    _print_fallbacks(compare.STEPS, artifacts)
    return 0


def _print_fallbacks(steps: Sequence[Step], artifacts: Mapping[str, Artifact]) -> None:
    """Say what a run stands on that is not what was wanted first, and how to choose it."""
    for step in steps:
        artifact = artifacts.get(step.name)
        if artifact and artifact.fallback and artifact.manifest["step"] == step.name:
            print(f"FALLBACK: {step.name}: {artifact.fallback}")
            if step.fallback_option:
                option, _, value = step.fallback_option.partition("=")
                variable = f"{MAKE_VARIABLES[option]}={value} or " if option in MAKE_VARIABLES else ""
                print(f"  The next run tries again. To choose it instead: {variable}--set {step.fallback_option}")


def _infer(options: argparse.Namespace, folders: Folders) -> int:
    from components.bulk_inference import runner as infer

    names = [field.name for field in fields(infer.InferOptions)]
    try:
        chosen = infer.InferOptions(**{name: getattr(options, name) for name in names})
    except ValueError as exc:
        raise _WrongCommandError(str(exc)) from exc
    if is_url(folders.models):
        raise _WrongCommandError(
            f"infer reads models of this machine. Received: {folders.models}. Bring the newest here first: "
            f"fetch --models-dir {folders.models}"
        )
    models_dir = Path(folders.models)
    model = options.model or str(models_dir)
    counts = infer.infer(options.input, model, options.output, models_dir=models_dir, options=chosen)
    print(f"Predictions: {options.output} ({counts})")
    return 0


def _select(options: argparse.Namespace, folders: Folders) -> int:
    from pipelines.select import select

    if options.count < 1:
        raise _WrongCommandError(f"--count takes a number of photos, 1 or more. Received: {options.count}")
    try:
        config = override(Config(), options.set)
    except ValueError as exc:
        raise _WrongCommandError(str(exc)) from exc
    name = config.export.model_name
    for selected in select(options.input, options.count, config=config, folders=folders, model_name=name):
        print(selected.path)
    return 0


def _review(options: argparse.Namespace, folders: Folders) -> int:
    try:
        task, settings = review.read(options, folders)
    except ValueError as exc:
        raise _WrongCommandError(str(exc)) from exc
    review.show(task, settings, lambda url: print(f"ready: {url}  (decisions: {options.labels})", flush=True))
    return 0


def _show(options: argparse.Namespace, folders: Folders) -> int:
    origin = show.read_lineage(open_models(folders.models), options.model_name, options.version)
    if options.decisions:
        print(show.as_lines(show.read_model_decisions(origin, folders.store)))
    elif options.json:
        print(json.dumps({"model_name": options.model_name, **origin}, indent=2))
    else:
        print(show.as_tree(options.model_name, origin))
    return 0


def _list(options: argparse.Namespace, folders: Folders) -> int:
    folders.fetch_records()
    print(show.as_table(list_runs(folders.runs), folders.runs))
    return 0


def _prune(options: argparse.Namespace, folders: Folders) -> int:
    if folders.remote_runs:
        raise _WrongCommandError(
            f"prune removes artifacts of this machine. Received: {options.runs_dir}. Give a folder."
        )
    if options.keep < 0:
        raise _WrongCommandError(f"--keep takes a number of runs, 0 or more. Received: {options.keep}")
    removals = prune.prune(folders, keep=options.keep, is_dry=options.dry_run)
    for removal in removals:
        print(f"{removal.path}  {removal.size_bytes / 1e6:.1f} MB")
    total = sum(removal.size_bytes for removal in removals) / 1e6
    done = "Would remove" if options.dry_run else "Removed"
    print(
        f"{done}: {len(removals)} artifacts, {total:.1f} MB. Kept: those of the newest runs ({options.keep}), of the "
        "runs that links point to, and of every pushed model."
    )
    return 0


def _rollback(options: argparse.Namespace, folders: Folders) -> int:
    withdrawn, newest = open_models(folders.models).rollback(options.model_name)
    print(f"Withdrew version {withdrawn} of {options.model_name}; version {newest} is the newest now.")
    return 0


def _fetch(options: argparse.Namespace, folders: Folders) -> int:
    version = open_models(folders.models).fetch(options.model_name, options.to)
    print(f"Version {version} of {options.model_name} is the newest in {options.to} now.")
    return 0


def _compile(options: argparse.Namespace, _: Folders) -> int:
    try:
        config = override(Config(), options.set)
        target = KubeflowOptions(
            image=options.image,
            retries=options.retries,
            gpus=_pairs("--gpu", options.gpu, example="trainer=1"),
            accelerator=options.accelerator,
            volumes=_pairs("--volume", options.volume, example="flowers=/mnt/flowers"),
            state=_pairs("--state", options.state, example="models=/mnt/models"),
        )
        num_parameters = kubeflow.compile_pipeline(STEPS, config, target, options.output)
    except ValueError as exc:
        raise _WrongCommandError(str(exc)) from exc
    print(f"Compiled: {options.output} ({len(STEPS)} steps, {num_parameters} parameters)")
    return 0


def _pairs(flag: str, texts: Sequence[str], *, example: str) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    for name, _, value in pairs:
        if not (name and value):
            raise ValueError(f"{flag} takes NAME=VALUE, such as {example}. Received: {name!r}")
    return {name: value for name, _, value in pairs}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines", description="Train, judge and push an image classifier."
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--runs-dir", default="runs", help="runs and artifacts, a folder or a URL (default: runs)")
    common.add_argument("--models-dir", default="models", help="pushed models, a folder or a URL (default: models)")
    named = argparse.ArgumentParser(add_help=False)
    named.add_argument("--model-name", default="flowers", help="default: flowers")
    commands = parser.add_subparsers(
        required=True, metavar="run|compare|infer|select|review|labels|show|list|prune|rollback|fetch|compile"
    )

    overrides = argparse.ArgumentParser(add_help=False)
    overrides.add_argument("--set", nargs="+", action="extend", default=[], metavar="SECTION.OPTION=VALUE")
    steps = argparse.ArgumentParser(add_help=False, parents=[overrides])
    steps.add_argument("--from", dest="first", metavar="STEP", help="begin here, with what the newest run made before")
    steps.add_argument("--to", dest="last", metavar="STEP", help="end after this step")
    steps.add_argument("--force", nargs="+", action="extend", default=[], metavar="STEP", help="run even when cached")

    run = commands.add_parser("run", parents=[common, steps], help="run the pipeline; what is cached is not run again")
    run.set_defaults(command=_run)

    compare_ = commands.add_parser(
        "compare", parents=[common, steps], help="other models beside it, on the same photos"
    )
    compare_.set_defaults(command=_compare)

    infer = commands.add_parser("infer", parents=[common], help="classify many images; what is done is not done again")
    infer.add_argument("--input", required=True, metavar="FOLDER|PATTERN|URL", help="the images")
    infer.add_argument("--output", required=True, metavar="FOLDER|URL", help="predictions.parquet, a folder")
    infer.add_argument(
        "--model", metavar="FILE|FOLDER|URL", help="default: the newest version's int8 LiteRT file in --models-dir"
    )
    infer.add_argument("--engine", choices=("auto", "local", "beam"), default="auto", help="default: Beam for many")
    infer.add_argument("--workers", dest="num_workers", type=int, default=0, metavar="N", help="default: one a core")
    infer.add_argument("--part-size", type=int, default=256, metavar="N", help="images in a file (default: 256)")
    infer.add_argument("--overwrite", action="store_true", help="make parts of something else again")
    infer.add_argument("beam_options", nargs="*", metavar="-- BEAM_OPTION", help="such as --runner=DataflowRunner")
    infer.set_defaults(command=_infer)

    labels.add_parser(commands, common)

    select_ = commands.add_parser("select", parents=[common, overrides], help="the photos of a folder to label next")
    select_.add_argument("--input", required=True, metavar="FOLDER|URL", help="the photos, in any depth")
    select_.add_argument("--count", required=True, type=int, metavar="N", help="how many; the best comes first")
    select_.set_defaults(command=_select)

    review_ = commands.add_parser(
        "review", parents=[common, overrides], help="a page to decide on photos whose labels are doubted or missing"
    )
    review.add_options(review_)
    review_.set_defaults(command=_review)

    show_ = commands.add_parser("show", parents=[common, named], help="where a pushed model comes from")
    show_.add_argument("version", nargs="?", type=int, help="default: the newest")
    shown = show_.add_mutually_exclusive_group()
    shown.add_argument("--json", action="store_true")
    shown.add_argument("--decisions", action="store_true", help="the labels that people decided")
    show_.set_defaults(command=_show)

    list_ = commands.add_parser("list", parents=[common], help="all runs")
    list_.set_defaults(command=_list)

    prune_ = commands.add_parser("prune", parents=[common], help="remove artifacts that no run or model stands on")
    prune_.add_argument(
        "--keep", type=int, default=prune.KEEP, metavar="N", help=f"the newest runs that count (default: {prune.KEEP})"
    )
    prune_.add_argument("--dry-run", action="store_true", help="say what would be removed, and remove nothing")
    prune_.set_defaults(command=_prune)

    rollback = commands.add_parser("rollback", parents=[common, named], help="withdraw the newest pushed model")
    rollback.set_defaults(command=_rollback)

    fetch = commands.add_parser("fetch", parents=[common, named], help="bring the newest model from a URL to a folder")
    fetch.add_argument("--to", type=Path, default=Path("models"), help="a folder of models (default: models)")
    fetch.set_defaults(command=_fetch)

    compile_ = commands.add_parser(
        "compile", parents=[overrides], help="the pipeline as a file that Kubeflow Pipelines runs"
    )
    several: dict[str, Any] = {"nargs": "+", "action": "extend", "default": []}
    default = KubeflowOptions()
    compile_.add_argument("--output", type=Path, default=Path("flowers.yaml"), help="default: flowers.yaml")
    compile_.add_argument("--image", default=default.image, help=f"default: {default.image}")
    compile_.add_argument("--gpu", **several, metavar="STEP=N", help="graphics cards of a step")
    compile_.add_argument("--accelerator", default=default.accelerator, help=f"default: {default.accelerator}")
    compile_.add_argument("--retries", type=int, default=default.retries, help=f"default: {default.retries}")
    compile_.add_argument(
        "--volume", **several, metavar="CLAIM=FOLDER", help="persistent volume claims, mounted in every container"
    )
    compile_.add_argument(
        "--state",
        **several,
        metavar="NAME=FOLDER",
        help="where models and schemas are kept: a path in the containers or a URL",
    )
    compile_.set_defaults(command=_compile, runs_dir="runs", models_dir="models")
    return parser


if __name__ == "__main__":
    sys.exit(main())
