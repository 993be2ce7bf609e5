"""Compute the features that the frozen backbone has for each photo, once.

Reads examples and the backbone; writes a file for each shard of train and validation (or of test) and each view. View 0
is the clean photo, views 1 to K (of train only) are augmented. With them on disk, another head trains in seconds. A
file is complete as soon as it has its name, so a killed step goes on with the next one. An engine may make the files
on other machines: each by itself, and with the same bytes.
"""

import logging
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path

from components.artifacts.examples import read_index, shards
from components.artifacts.features import KnownFeatures, features_path
from components.artifacts.summary import Summary
from components.data.transform import TransformOptions
from components.options import check_at_least, check_choice
from components.progress import Progress
from components.training import hardware
from components.training.extraction import Backbone, Engine, Inputs, Part, write_part, write_parts

log = logging.getLogger(__name__)

AUTO, LOCAL, BEAM = "auto", "local", "beam"


@dataclass(frozen=True)
class FeaturesOptions:
    """How features are computed.

    Attributes:
        num_augmented_views: augmented views of each training photo, beside the clean one; each costs as much again.
        batch_size: photos that go through the backbone together.
        precision: `auto`, `float32`, `bfloat16` or `float16`.
        engine: what computes them: this process (`local`), a Beam pipeline whose workers share the disk of the runs
            (`beam`), or Beam where `beam_options` name any (`auto`). The features are the same.
        beam_options: options of Beam as on a command line, such as `--runner=FlinkRunner --flink_master=host:8081`.
    """

    num_augmented_views: int = 1
    batch_size: int = 32
    precision: str = "auto"
    engine: str = AUTO
    beam_options: str = ""

    def __post_init__(self) -> None:
        check_at_least(self, 0, "num_augmented_views")
        check_at_least(self, 1, "batch_size")
        check_choice(self, hardware.PRECISIONS, "precision")
        check_choice(self, (AUTO, LOCAL, BEAM), "engine")
        if self.beam_options and self.engine == LOCAL:
            raise ValueError(f"beam_options need engine=beam. Received: engine=local and {self.beam_options!r}")

    def resolve(self) -> "FeaturesOptions":
        """Return the options with the precision that `auto` means on this machine, and the engine."""
        engine = (BEAM if self.beam_options else LOCAL) if self.engine == AUTO else self.engine
        return replace(self, precision=hardware.resolve_precision(self.precision), engine=engine)


def extract(
    *,
    examples_dir: Path,
    validation_dir: Path,  # nothing is computed from data that was not validated
    model_dir: Path,
    out_dir: Path,
    options: FeaturesOptions,
    transform: TransformOptions,
    earlier_dir: Path | None = None,
    engine: Engine | None = None,
) -> Summary:
    """Run the examples to train and to validate on through the frozen backbone, in each of their views.

    A photo's features depend on nothing but the photo: those that `earlier_dir`, an output of this step with the same
    backbone and options, has are not computed again. The engine computes them elsewhere; `None` here.
    """
    num_views = {"train": 1 + options.num_augmented_views, "validation": 1}
    return _extract(num_views, examples_dir, model_dir, out_dir, options, transform, earlier_dir, engine)


def extract_clean(
    *,
    examples_dir: Path,
    model_dir: Path,
    out_dir: Path,
    options: FeaturesOptions,
    earlier_dir: Path | None = None,
    engine: Engine | None = None,
) -> Summary:
    """Run the examples of the train split through the frozen backbone, each in its clean view: to select among them."""
    return _extract({"train": 1}, examples_dir, model_dir, out_dir, options, TransformOptions(), earlier_dir, engine)


def extract_test(
    *, examples_dir: Path, model_dir: Path, out_dir: Path, options: FeaturesOptions, engine: Engine | None = None
) -> Summary:
    """Run the test examples through the frozen backbone: for models that are compared and never pushed."""
    return _extract({"test": 1}, examples_dir, model_dir, out_dir, options, TransformOptions(), None, engine)


def _extract(
    num_views: dict[str, int],
    examples_dir: Path,
    model_dir: Path,
    out_dir: Path,
    options: FeaturesOptions,
    transform: TransformOptions,
    earlier_dir: Path | None,
    engine: Engine | None,
) -> Summary:
    inputs = Inputs(
        examples_dir=examples_dir.absolute(),
        model_dir=model_dir.absolute(),
        earlier_dir=earlier_dir and earlier_dir.absolute(),
        transform=transform,
        precision=hardware.resolve_precision(options.precision),
        batch_size=options.batch_size,
    )
    rows_of = {shard: list(rows) for shard, rows in groupby(read_index(examples_dir), key=lambda row: row["shard"])}
    parts = [
        Part(features_path(out_dir.absolute(), shard, view), view, rows_of[shard.name])
        for split, count in num_views.items()
        for view in range(count)
        for shard in shards(examples_dir, split)
    ]
    waiting = [part for part in parts if not part.path.exists()]
    if 0 < len(waiting) < len(parts):
        log.info("features: going on after %d of %d files", len(parts) - len(waiting), len(parts))
    num_images = num_reused = 0
    compute = Backbone(inputs)
    with Progress(total=len(waiting), desc="features", unit="file") as progress:
        for view, group in groupby(waiting, key=lambda part: part.view):
            some, known = list(group), KnownFeatures(earlier_dir, view)
            for part in some:
                num_new = len(part.select_new(known))
                num_images += num_new
                num_reused += len(part.rows) - num_new
            if engine is None:
                for _ in write_parts(inputs, some, known, compute):
                    progress.update()
    if engine and waiting:
        engine(partial(write_part, inputs), waiting)
    reused = {"num_reused": num_reused} if num_reused else {}
    return {"num_views": max(num_views.values()), "num_images": num_images, **reused, "precision": inputs.precision}
