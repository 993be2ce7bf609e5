"""What each command of `python -m pipelines` does, given its options; each returns the exit status."""

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path

from components import comparison
from components.artifacts.push import read_push
from components.errors import ClusterError
from components.storage.bucket import is_url
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
from pipelines.local_runner import Selection
from pipelines.release import command as release_
from pipelines.review import command as review
from pipelines.runs import list_runs
from pipelines.verify import verify

NOT_PUSHED = 3
MAKE_VARIABLES = {"examples.source": "DATA", "model.weights": "WEIGHTS"}
"""The options that have a variable of their own in the Makefile."""


class WrongCommandError(Exception):
    """The command does not fit the pipeline or its options."""


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
        raise WrongCommandError(str(exc)) from exc
    return local_runner.run(steps, config, folders=folders, selection=selection, cluster=workers)


def run(options: argparse.Namespace, folders: Folders) -> int:
    """Run the pipeline, or take part in its training as a worker."""
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


def run_comparison(options: argparse.Namespace, folders: Folders) -> int:
    """Run the comparison with other models."""
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


def run_inference(options: argparse.Namespace, folders: Folders) -> int:
    """Classify many images."""
    from components.bulk_inference import runner as infer
    from components.bulk_inference.classifier import Trust

    names = [field.name for field in fields(infer.InferOptions)]
    try:
        chosen = infer.InferOptions(**{name: getattr(options, name) for name in names})
    except ValueError as exc:
        raise WrongCommandError(str(exc)) from exc
    trust = Trust(**{field.name: getattr(options, field.name) for field in fields(Trust)})
    model = options.model or str(folders.models)
    counts = infer.infer(options.input, model, options.output, models_dir=folders.models, options=chosen, trust=trust)
    print(f"Predictions: {options.output} ({counts})")
    return 0


def print_selection(options: argparse.Namespace, folders: Folders) -> int:
    """Print which photos to label next."""
    from pipelines.select import select

    if options.count < 1:
        raise WrongCommandError(f"--count takes a number of photos, 1 or more. Received: {options.count}")
    try:
        config = override(Config(), options.set)
    except ValueError as exc:
        raise WrongCommandError(str(exc)) from exc
    name = config.export.model_name
    for selected in select(options.input, options.count, config=config, folders=folders, model_name=name):
        print(selected.path)
    return 0


def serve_review(options: argparse.Namespace, folders: Folders) -> int:
    """Serve the page on which people decide on labels."""
    try:
        task, settings = review.read(options, folders)
    except ValueError as exc:
        raise WrongCommandError(str(exc)) from exc
    review.show(task, settings, lambda url: print(f"ready: {url}  (decisions: {options.labels})", flush=True))
    return 0


def print_lineage(options: argparse.Namespace, folders: Folders) -> int:
    """Print where a pushed model comes from."""
    origin = show.read_lineage(open_models(folders.models), options.model_name, options.version)
    if options.decisions:
        print(show.as_lines(show.read_model_decisions(origin, folders.store)))
        return 0
    releases = release_.read_releases_of(origin["version"], options.model_name, folders)
    if options.json:
        print(json.dumps({"model_name": options.model_name, **origin, "releases": releases}, indent=2))
    else:
        print(show.as_tree(options.model_name, origin))
        if releases:
            print(f"releases:\n{release_.describe(releases)}")
    return 0


def print_runs(options: argparse.Namespace, folders: Folders) -> int:
    """Print all runs."""
    folders.fetch_records()
    print(show.as_table(list_runs(folders.runs), folders.runs))
    return 0


def remove_artifacts(options: argparse.Namespace, folders: Folders) -> int:
    """Remove the artifacts that nothing stands on."""
    if folders.remote_runs:
        raise WrongCommandError(
            f"prune removes artifacts of this machine. Received: {options.runs_dir}. Give a folder."
        )
    if options.keep < 0:
        raise WrongCommandError(f"--keep takes a number of runs, 0 or more. Received: {options.keep}")
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


def roll_back(options: argparse.Namespace, folders: Folders) -> int:
    """Withdraw the newest pushed model."""
    withdrawn, newest = open_models(folders.models).rollback(options.model_name)
    print(f"Withdrew version {withdrawn} of {options.model_name}; version {newest} is the newest now.")
    return 0


def release_model(options: argparse.Namespace, folders: Folders) -> int:
    """Release a version beside the one that serves, or do what a person asks of a release."""
    try:
        text, status = release_.release(options, folders)
    except ValueError as exc:
        raise WrongCommandError(str(exc)) from exc
    print(text)
    return status


def verify_version(options: argparse.Namespace, folders: Folders) -> int:
    """Check that a pushed version is what was signed."""
    if is_url(folders.models):
        raise WrongCommandError(
            f"verify reads models of this machine. Received: {folders.models}. Bring the newest here first: "
            f"fetch --models-dir {folders.models}"
        )
    try:
        found = verify(Path(str(folders.models)), options.model_name, options.version, options.verify_key)
    except ValueError as exc:
        raise WrongCommandError(str(exc)) from exc
    for folder, is_there in found.items():
        print(f"{folder}: {'as it was signed' if is_there else 'not there, so there is nothing to verify'}")
    return 0


def fetch_model(options: argparse.Namespace, folders: Folders) -> int:
    """Bring the newest model from a URL to a folder."""
    version = open_models(folders.models).fetch(options.model_name, options.to)
    print(f"Version {version} of {options.model_name} is the newest in {options.to} now.")
    return 0


def compile_pipeline(options: argparse.Namespace, _: Folders) -> int:
    """Write the pipeline as a file for Kubeflow Pipelines."""
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
        raise WrongCommandError(str(exc)) from exc
    print(f"Compiled: {options.output} ({len(STEPS)} steps, {num_parameters} parameters)")
    return 0


def _pairs(flag: str, texts: Sequence[str], *, example: str) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    for name, _, value in pairs:
        if not (name and value):
            raise ValueError(f"{flag} takes NAME=VALUE, such as {example}. Received: {name!r}")
    return {name: value for name, _, value in pairs}
