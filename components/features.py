"""Compute the features that the frozen backbone has for each photo, once.

Reads examples and the backbone; writes a file for each shard of train and validation (or of test) and each view. View 0
is the clean photo, views 1 to K (of train only) are augmented. With them on disk, another head trains in seconds. A
file is complete as soon as it has its name, so a killed step goes on with the next one.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from components.artifacts.backbone import WEIGHTS_FILE, Backbone, read_backbone
from components.artifacts.examples import shards
from components.artifacts.features import features_path, write_features
from components.artifacts.summary import Summary
from components.data import transform as transforms
from components.data.transform import TransformOptions
from components.options import check_at_least, check_choice
from components.progress import Progress
from components.training import hardware, networks

if TYPE_CHECKING:
    import tensorflow as tf

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FeaturesOptions:
    """How features are computed.

    Attributes:
        num_augmented_views: augmented views of each training photo, beside the clean one; each costs as much again.
        batch_size: photos that go through the backbone together.
        precision: `auto`, `float32`, `bfloat16` or `float16`.
    """

    num_augmented_views: int = 1
    batch_size: int = 32
    precision: str = "auto"

    def __post_init__(self) -> None:
        check_at_least(self, 0, "num_augmented_views")
        check_at_least(self, 1, "batch_size")
        check_choice(self, hardware.PRECISIONS, "precision")

    def resolve(self) -> "FeaturesOptions":
        """Return the options with the precision that `auto` means on this machine."""
        return replace(self, precision=hardware.resolve_precision(self.precision))


def extract(
    *,
    examples_dir: Path,
    validation_dir: Path,  # nothing is computed from data that was not validated
    model_dir: Path,
    out_dir: Path,
    options: FeaturesOptions,
    transform: TransformOptions,
) -> Summary:
    """Run the examples to train and to validate on through the frozen backbone, in each of their views."""
    num_views = {"train": 1 + options.num_augmented_views, "validation": 1}
    return _extract(num_views, examples_dir, model_dir, out_dir, options, transform)


def extract_clean(*, examples_dir: Path, model_dir: Path, out_dir: Path, options: FeaturesOptions) -> Summary:
    """Run the examples of the train split through the frozen backbone, each in its clean view: to select among them."""
    return _extract({"train": 1}, examples_dir, model_dir, out_dir, options, TransformOptions())


def extract_test(*, examples_dir: Path, model_dir: Path, out_dir: Path, options: FeaturesOptions) -> Summary:
    """Run the test examples through the frozen backbone: for models that are compared and never pushed."""
    return _extract({"test": 1}, examples_dir, model_dir, out_dir, options, TransformOptions())


def _extract(
    num_views: dict[str, int],
    examples_dir: Path,
    model_dir: Path,
    out_dir: Path,
    options: FeaturesOptions,
    transform: TransformOptions,
) -> Summary:
    precision = hardware.resolve_precision(options.precision)
    jobs = [
        (view, shard, features_path(out_dir, shard, view))
        for split, count in num_views.items()
        for view in range(count)
        for shard in shards(examples_dir, split)
    ]
    waiting = [job for job in jobs if not job[2].exists()]
    if 0 < len(waiting) < len(jobs):
        log.info("features: going on after %d of %d files", len(jobs) - len(waiting), len(jobs))
    num_images = 0
    if waiting:
        backbone = read_backbone(model_dir)
        run = _make_runner(backbone, model_dir / WEIGHTS_FILE, precision)
        with Progress(total=len(waiting), desc="features", unit="file") as progress:
            for view, group in groupby(waiting, key=lambda job: job[0]):
                _, sources, paths = zip(*group, strict=True)
                batches = _read(
                    sources,
                    view,
                    transform,
                    image_size_px=backbone["image_size_px"],
                    batch_size=options.batch_size,
                )
                for path, batches_of_shard in zip(paths, batches, strict=True):
                    features, embeddings, labels = _run_all(run, batches_of_shard)
                    write_features(path, features, labels, embeddings=None if view else embeddings)
                    num_images += len(labels)
                    progress.update()
    return {"num_views": max(num_views.values()), "num_images": num_images, "precision": precision}


def _read(
    shards: Sequence[Path], view: int, options: TransformOptions, *, image_size_px: int, batch_size: int
) -> "Iterator[Iterator[tuple[tf.Tensor, tf.Tensor]]]":
    """Read the batches of each shard, one shard after the other.

    One pipeline reads them all: one for each shard would be traced each time, and leave megabytes behind.
    """
    import tensorflow as tf

    # A seed of its own for each shard and view: `train-00003-of-00006` gives 3.
    seeds = [int(shard.stem.split("-")[1]) * 1000 + view for shard in shards]
    layer = transforms.make_augmentation(options) if view else None

    def read(index: tf.Tensor, name: tf.Tensor, seed: tf.Tensor) -> "tf.data.Dataset":
        batches = transforms.parse(tf.data.TFRecordDataset(name), image_size_px=image_size_px).batch(batch_size)
        if layer:
            batches = transforms.augment(batches, layer, seed=seed)
        return tf.data.Dataset.zip((tf.data.Dataset.from_tensors(index).repeat(), batches))

    names = [str(shard) for shard in shards]
    indexed = tf.data.Dataset.from_tensor_slices((range(len(names)), names, seeds)).flat_map(read)
    for _, group in groupby(indexed, key=lambda each: int(each[0])):
        yield (batch for _, batch in group)


def _make_runner(
    backbone: Backbone, weights: Path, precision: str
) -> Callable[["tf.Tensor"], "tuple[tf.Tensor, tf.Tensor]"]:
    """Compile the backbone for inference: images to features and embeddings.

    Its weights are constants, so that the whole graph can be optimized.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    from export.embedding import add_embedding

    with networks.dtype_policy("mixed_float16" if precision == "float16" else "float32"):
        extractor = networks.build_extractor(
            backbone["backbone"], image_size_px=backbone["image_size_px"], weights=weights
        )
        both = add_embedding(extractor)
    signature = [tf.TensorSpec(extractor.input_shape, tf.uint8)]
    function = tf.function(lambda images: both(images, training=False), input_signature=signature)
    frozen = convert_variables_to_constants_v2(function.get_concrete_function())

    def run(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with _bfloat16_graphs(precision == "bfloat16"):
            embeddings, features = frozen(images)
            return features, embeddings

    return run


@contextmanager
def _bfloat16_graphs(on: bool) -> Iterator[None]:
    """Let TensorFlow's graph optimizer multiply in bfloat16 while inside: on a processor faster than Keras' policy."""
    import tensorflow as tf

    name = "auto_mixed_precision_onednn_bfloat16"
    before = tf.config.optimizer.get_experimental_options().get(name, False)
    tf.config.optimizer.set_experimental_options({name: on})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({name: before})


def _run_all(
    run: Callable[["tf.Tensor"], "tuple[tf.Tensor, tf.Tensor]"],
    batches: "Iterator[tuple[tf.Tensor, tf.Tensor]]",
) -> tuple[Any, Any, Any]:
    # A shard is decoded before it goes through the backbone: both want every processor, and taking turns is a third
    # faster than running side by side.
    images, labels = zip(*batches, strict=True)
    features, embeddings = zip(*(run(batch) for batch in images), strict=True)
    return np.concatenate(features), np.concatenate(embeddings), np.concatenate(labels)
