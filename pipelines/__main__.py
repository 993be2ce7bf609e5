"""The command line: `python -m pipelines COMMAND`; `--help` lists the commands.

Exit status: 0 when the model is pushed or released (or nothing had to be done), 1 when something failed, 2 for a wrong
command, 3 when the run finished and the model was not pushed, when watch raises an alarm or a release is rolled back,
4 when watch or a release has too little to tell, 130 when it was interrupted, 141 when nobody reads what it prints.

Where `TF_CONFIG` describes several workers, each gets the same `run`: the chief runs the pipeline, and the others
wait for its training and take part in it.
"""

import argparse
import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.errors import ComponentError
from components.storage.disk import explain
from pipelines import commands, prune, watch
from pipelines.folders import Folders
from pipelines.kubeflow import KubeflowOptions
from pipelines.labels import command as labels
from pipelines.release import command as release
from pipelines.review import command as review

BROKEN_PIPE = 141


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
    except commands.WrongCommandError as exc:
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines", description="Train, judge and push an image classifier."
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--runs-dir", default="runs", help="runs and artifacts, a folder or a URL (default: runs)")
    common.add_argument("--models-dir", default="models", help="pushed models, a folder or a URL (default: models)")
    named = argparse.ArgumentParser(add_help=False)
    named.add_argument("--model-name", default="flowers", help="default: flowers")
    subs = parser.add_subparsers(
        required=True,
        metavar="run|compare|infer|watch|select|review|labels|show|list|prune|rollback|release|verify|fetch|compile",
    )

    overrides = argparse.ArgumentParser(add_help=False)
    overrides.add_argument("--set", nargs="+", action="extend", default=[], metavar="SECTION.OPTION=VALUE")
    steps = argparse.ArgumentParser(add_help=False, parents=[overrides])
    steps.add_argument("--from", dest="first", metavar="STEP", help="begin here, with what the newest run made before")
    steps.add_argument("--to", dest="last", metavar="STEP", help="end after this step")
    steps.add_argument("--force", nargs="+", action="extend", default=[], metavar="STEP", help="run even when cached")

    run = subs.add_parser("run", parents=[common, steps], help="run the pipeline; what is cached is not run again")
    run.set_defaults(command=commands.run)

    compare_ = subs.add_parser("compare", parents=[common, steps], help="other models beside it, on the same photos")
    compare_.set_defaults(command=commands.run_comparison)

    infer = subs.add_parser("infer", parents=[common], help="classify many images; what is done is not done again")
    infer.add_argument("--input", required=True, metavar="FOLDER|PATTERN|URL", help="the images")
    infer.add_argument("--output", required=True, metavar="FOLDER|URL", help="predictions.parquet, a folder")
    infer.add_argument(
        "--model", metavar="FILE|FOLDER|URL", help="default: the newest version's int8 LiteRT file in --models-dir"
    )
    infer.add_argument("--tls", action="store_true", help="speak TLS with a server")
    infer.add_argument(
        "--ca-file", type=Path, metavar="FILE", help="PEM certificates that vouch for the server; implies --tls"
    )
    infer.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="holds the server's token (default: CLASSIFIER_TOKEN in the environment)",
    )
    infer.add_argument(
        "--verify-key",
        type=Path,
        metavar="FILE",
        help="PEM public key or root certificate: refuse a LiteRT file that is not signed with it",
    )
    infer.add_argument("--engine", choices=("auto", "local", "beam"), default="auto", help="default: Beam for many")
    infer.add_argument("--workers", dest="num_workers", type=int, default=0, metavar="N", help="default: one a core")
    infer.add_argument("--part-size", type=int, default=256, metavar="N", help="images in a file (default: 256)")
    infer.add_argument("--overwrite", action="store_true", help="make parts of something else again")
    infer.add_argument("beam_options", nargs="*", metavar="-- BEAM_OPTION", help="such as --runner=DataflowRunner")
    infer.set_defaults(command=commands.run_inference)

    watch_ = subs.add_parser(
        "watch", parents=[common, named], help="whether photos, confidence and classes are as on validation"
    )
    watch.add_options(watch_)
    watch_.set_defaults(command=watch.run)

    labels.add_parser(subs, common)

    select_ = subs.add_parser("select", parents=[common, overrides], help="the photos of a folder to label next")
    select_.add_argument("--input", required=True, metavar="FOLDER|URL", help="the photos, in any depth")
    select_.add_argument("--count", required=True, type=int, metavar="N", help="how many; the best comes first")
    select_.set_defaults(command=commands.print_selection)

    review_ = subs.add_parser(
        "review", parents=[common, overrides], help="a page to decide on photos whose labels are doubted or missing"
    )
    review.add_options(review_)
    review_.set_defaults(command=commands.serve_review)

    show_ = subs.add_parser("show", parents=[common, named], help="where a pushed model comes from")
    show_.add_argument("version", nargs="?", type=int, help="default: the newest")
    shown = show_.add_mutually_exclusive_group()
    shown.add_argument("--json", action="store_true")
    shown.add_argument("--decisions", action="store_true", help="the labels that people decided")
    show_.set_defaults(command=commands.print_lineage)

    list_ = subs.add_parser("list", parents=[common], help="all runs")
    list_.set_defaults(command=commands.print_runs)

    prune_ = subs.add_parser("prune", parents=[common], help="remove artifacts that no run or model stands on")
    prune_.add_argument(
        "--keep", type=int, default=prune.KEEP, metavar="N", help=f"the newest runs that count (default: {prune.KEEP})"
    )
    prune_.add_argument("--dry-run", action="store_true", help="say what would be removed, and remove nothing")
    prune_.set_defaults(command=commands.remove_artifacts)

    rollback = subs.add_parser("rollback", parents=[common, named], help="withdraw the newest pushed model")
    rollback.set_defaults(command=commands.roll_back)

    release_ = subs.add_parser("release", parents=[common, named], help="a new version beside the one that serves")
    release.add_options(release_)
    release_.set_defaults(command=commands.release_model)

    verify = subs.add_parser("verify", parents=[common, named], help="check that a pushed model is as it was signed")
    verify.add_argument("version", nargs="?", type=int, help="default: the newest")
    verify.add_argument(
        "--verify-key", type=Path, required=True, metavar="FILE", help="PEM public key or root certificate"
    )
    verify.set_defaults(command=commands.verify_version)

    fetch = subs.add_parser("fetch", parents=[common, named], help="bring the newest model from a URL to a folder")
    fetch.add_argument("--to", type=Path, default=Path("models"), help="a folder of models (default: models)")
    fetch.set_defaults(command=commands.fetch_model)

    compile_ = subs.add_parser(
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
    compile_.set_defaults(command=commands.compile_pipeline, runs_dir="runs", models_dir="models")
    return parser


if __name__ == "__main__":
    sys.exit(main())
