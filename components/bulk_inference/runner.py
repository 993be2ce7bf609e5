"""Bulk inference: `python -m pipelines infer --input photos/ --model models --output predictions.parquet`.

Reads images and a model; writes one row for each image to a folder of Parquet files (`output`). The same command
continues where it was stopped. Few images are classified by processes of this machine, many by a Beam pipeline, on the
machines that its own options name. Both call `classify_part`, so the rows are the same.
"""

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from tqdm import tqdm

from client.classifier_client import ClassifierError, Client
from components.bulk_inference.classifier import Classifier, Trust, classify_part
from components.bulk_inference.images import list_images
from components.bulk_inference.models import find_model
from components.bulk_inference.output import Part, PredictionFolder, to_inference_error
from components.bulk_inference.rows import Counts
from components.data import beam
from components.errors import InferenceError

log = logging.getLogger(__name__)

AUTO, LOCAL, BEAM = "auto", "local", "beam"
_NO_TRUST = Trust()
BEAM_FROM = 10_000
"""Images from which on `auto` takes Beam: its start of several seconds is below a tenth of the time then."""


@dataclass(frozen=True)
class InferOptions:
    """How the images are classified.

    Attributes:
        part_size: images in a file of the output; what a kill may cost each process.
        engine: processes here (`local`), a Beam pipeline (`beam`), or Beam where it pays, if it is there (`auto`).
        num_workers: processes, here or of Beam's direct runner; 0 is one for each core.
        beam_options: options of Beam, such as `--runner=DataflowRunner`; with any, `auto` takes Beam.
        overwrite: make the parts again that the output holds of other or changed images, or of another model.
    """

    part_size: int = 256
    engine: str = AUTO
    num_workers: int = 0
    beam_options: Sequence[str] = ()
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.part_size < 1:
            raise ValueError(f"--part-size must be at least 1. Received: {self.part_size}")
        if self.num_workers < 0:
            raise ValueError(f"--workers must be at least 1, or 0 for one a core. Received: {self.num_workers}")
        if self.beam_options and self.engine == LOCAL:
            raise ValueError(f"Beam's options need --engine beam. Received: {' '.join(self.beam_options)}")


def infer(
    images: str, model: str, output: str, *, models_dir: str | Path, options: InferOptions, trust: Trust = _NO_TRUST
) -> Counts:
    """Classify the images that have no row yet, as they are now.

    Args:
        images: a folder, a pattern or a file; a path or a URL.
        model: see `find_model`; or a server.
        output: the folder of predictions; a path or a URL.
        models_dir: where pushed models are, a folder or a URL.
        options: how.
        trust: for the server, or for the file.

    Returns:
        What the whole output holds.

    Raises:
        InferenceError: there are no images or no model, the output cannot be written or holds something else, or the
            processes failed.
        StorageError: a bucket cannot be read or written.
        BeamError: the Beam pipeline failed.
    """
    started = time.monotonic()
    model = find_model(model, models_dir)
    log.info("infer: started with %s", model)
    listing = list_images(images)
    if others := listing.describe_left_out():
        log.info("infer: %s", others)
    found = listing.images
    num_workers = options.num_workers or _count_cores()
    classifier = Classifier(model, num_threads=max(1, _count_cores() // num_workers), trust=trust)
    try:
        classifier.open().close()
        folder = PredictionFolder(output)
        with folder.lock():
            parts = folder.plan(
                found, model=classifier.identify(), part_size=options.part_size, overwrite=options.overwrite
            )
            num_missing = min(len(found), len(parts) * options.part_size)
            log.info("infer: %d images in %s, %d to do", len(found), images, num_missing)
            if parts:
                _run(classifier, folder, parts, num_workers, options)
            counts = folder.complete()
    except ClassifierError as exc:
        raise InferenceError(f"{exc} What is done is kept: the same command goes on.") from exc
    except OSError as exc:
        raise to_inference_error(exc, output) from exc
    seconds = time.monotonic() - started
    speed = f", {num_missing / seconds:.0f} images/s" if parts else ""
    log.info("infer: finished in %.1f s (%s%s)", seconds, counts, speed)
    return counts


def _run(
    classifier: Classifier, folder: PredictionFolder, parts: Sequence[Part], num_workers: int, options: InferOptions
) -> None:
    """Classify the missing parts."""
    is_large = len(parts) * options.part_size >= BEAM_FROM and beam.is_installed()
    with _progress(folder, len(parts)):
        if options.engine == BEAM or (options.engine == AUTO and (is_large or options.beam_options)):
            beam.require("--engine beam")
            from components.bulk_inference import beam_pipeline

            beam_pipeline.run(classifier, folder, parts, num_workers=num_workers, options=options.beam_options)
        elif min(num_workers, len(parts)) == 1:
            with replace(classifier, num_threads=None).open() as client:
                for part in parts:
                    classify_part(client, folder, part)
        else:
            _run_processes(classifier, folder, parts, num_workers)


def _run_processes(classifier: Classifier, folder: PredictionFolder, parts: Sequence[Part], num_workers: int) -> None:
    pool = ProcessPoolExecutor(
        min(num_workers, len(parts)), mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker
    )
    try:
        for done in [pool.submit(_work, classifier, folder, part) for part in parts]:
            done.result()
    except BrokenProcessPool as exc:
        raise InferenceError(
            "A process that classified images ended, as when memory is short. What is done is kept: the same command "
            "goes on; with --workers 1 it needs less."
        ) from exc
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The process that started this one handles it.
    parent = multiprocessing.parent_process()

    def end_with_parent() -> None:
        """Exit when the parent has ended, however it ended: this process would wait for its queue of work for ever."""
        if parent:
            parent.join()
            os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _work(classifier: Classifier, folder: PredictionFolder, part: Part) -> None:
    classify_part(_open(classifier), folder, part)


@cache
def _open(classifier: Classifier) -> Client:
    """Return the client of this process."""
    return classifier.open()


@contextmanager
def _progress(folder: PredictionFolder, num_parts: int) -> Iterator[None]:
    """Draw a bar on a terminal of the parts that appear in the folder, whichever process writes them."""
    if not sys.stderr.isatty():
        yield
        return
    ended = threading.Event()

    def watch() -> None:
        before = folder.num_parts()
        with tqdm(total=num_parts, desc="classifying", unit="part", delay=2, leave=False) as bar:
            while not ended.wait(1):
                bar.update(folder.num_parts() - before - bar.n)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def _count_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
