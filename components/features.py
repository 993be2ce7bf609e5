"""Compute the features that the frozen backbone has for each photo, once.

Reads examples and the backbone; writes a file for each shard of train and validation (or of test) and each view. View 0
is the clean photo, views 1 to K (of train only) are augmented. With them on disk, another head trains in seconds. A
file is complete as soon as it has its name, so a killed step goes on with the next one.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from components.artifacts.backbone import WEIGHTS_FILE, Backbone, read_backbone
from components.artifacts.examples import IndexRow, read_image, read_index, shards
from components.artifacts.features import KnownFeatures, features_path, write_features
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
    earlier_dir: Path | None = None,
) -> Summary:
    """Run the examples to train and to validate on through the frozen backbone, in each of their views.

    A photo's features depend on nothing but the photo: those that `earlier_dir`, an output of this step with the same
    backbone and options, has are not computed again.
    """
    num_views = {"train": 1 + options.num_augmented_views, "validation": 1}
    return _extract(num_views, examples_dir, model_dir, out_dir, options, transform, earlier_dir)


def extract_clean(
    *,
    examples_dir: Path,
    model_dir: Path,
    out_dir: Path,
    options: FeaturesOptions,
    earlier_dir: Path | None = None,
) -> Summary:
    """Run the examples of the train split through the frozen backbone, each in its clean view: to select among them."""
    return _extract({"train": 1}, examples_dir, model_dir, out_dir, options, TransformOptions(), earlier_dir)


def extract_test(*, examples_dir: Path, model_dir: Path, out_dir: Path, options: FeaturesOptions) -> Summary:
    """Run the test examples through the frozen backbone: for models that are compared and never pushed."""
    return _extract({"test": 1}, examples_dir, model_dir, out_dir, options, TransformOptions(), None)


def _extract(
    num_views: dict[str, int],
    examples_dir: Path,
    model_dir: Path,
    out_dir: Path,
    options: FeaturesOptions,
    transform: TransformOptions,
    earlier_dir: Path | None,
) -> Summary:
    precision = hardware.resolve_precision(options.precision)
    rows_of = {shard: list(rows) for shard, rows in groupby(read_index(examples_dir), key=lambda row: row["shard"])}
    jobs = [
        (view, rows_of[shard.name], features_path(out_dir, shard, view))
        for split, count in num_views.items()
        for view in range(count)
        for shard in shards(examples_dir, split)
    ]
    waiting = [job for job in jobs if not job[2].exists()]
    if 0 < len(waiting) < len(jobs):
        log.info("features: going on after %d of %d files", len(jobs) - len(waiting), len(jobs))
    num_images = num_reused = 0
    compute = _Backbone(model_dir, precision, batch_size=options.batch_size)
    with Progress(total=len(waiting), desc="features", unit="file") as progress:
        for view, group in groupby(waiting, key=lambda job: job[0]):
            known = KnownFeatures(earlier_dir, view)
            files = [(path, rows, [row for row in rows if row["sha256"] not in known]) for _, rows, path in group]
            images = _read(
                examples_dir, [row for *_, new in files for row in new], view, transform, compute.image_size_px
            )
            for path, rows, new in files:
                # A shard is decoded before it goes through the backbone: both want every processor, and taking turns
                # is a third faster than running side by side.
                computed = dict(
                    zip((row["sha256"] for row in new), compute(list(islice(images, len(new)))), strict=True)
                )
                found = [computed.get(row["sha256"]) or known.read(row["sha256"]) for row in rows]
                write_features(
                    path,
                    np.stack([each["features"] for each in found]),
                    np.array([row["label"] for row in rows], np.int64),
                    photos=[row["sha256"] for row in rows],
                    embeddings=None if view else np.stack([each["embeddings"] for each in found]),
                )
                num_images += len(new)
                num_reused += len(rows) - len(new)
                progress.update()
    reused = {"num_reused": num_reused} if num_reused else {}
    return {"num_views": max(num_views.values()), "num_images": num_images, **reused, "precision": precision}


def _read(
    examples_dir: Path, rows: Sequence[IndexRow], view: int, options: TransformOptions, image_size_px: int
) -> Iterator[NDArray[np.uint8]]:
    """Read photos as the backbone sees them in a view, `uint8 [size, size, 3]` each, in their order."""
    if not rows:
        return iter(())
    import tensorflow as tf

    def generate() -> Iterator[tuple[bytes, tuple[int, int]]]:
        for row in rows:
            # By its content alone, so that a photo has the same views whatever the others are.
            yield read_image(examples_dir, row), (options.seed + view, int(row["sha256"][:7], 16))

    signature = (tf.TensorSpec([], tf.string), tf.TensorSpec([2], tf.int32))
    photos = tf.data.Dataset.from_generator(generate, output_signature=signature)
    load = _loader(image_size_px, options if view else None)
    return photos.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).as_numpy_iterator()


@cache
def _loader(image_size_px: int, augmentation: TransformOptions | None) -> "Callable[[tf.Tensor, tf.Tensor], tf.Tensor]":
    """Make the function that decodes and augments a photo; tracing it takes a second, so that is done once."""
    import tensorflow as tf

    from export import preprocessing

    layer = transforms.make_augmentation(augmentation) if augmentation else None

    @tf.function(input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([2], tf.int32)], autograph=False)
    def load(encoded: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        image = preprocessing.load(encoded, image_size_px)
        return layer(image[tf.newaxis], training=True, seed=seed)[0] if layer else image

    return load


class _Backbone:
    """The frozen backbone, built when the first photo needs it."""

    def __init__(self, model_dir: Path, precision: str, *, batch_size: int) -> None:
        self._description, self._weights = read_backbone(model_dir), model_dir / WEIGHTS_FILE
        self._precision, self._batch_size = precision, batch_size
        self._run: Callable[[NDArray[np.uint8]], tuple[tf.Tensor, tf.Tensor]] | None = None

    @property
    def image_size_px(self) -> int:
        return self._description["image_size_px"]

    def __call__(self, images: Sequence[NDArray[np.uint8]]) -> Iterator[dict[str, NDArray[np.float32]]]:
        """Yield the features `[D]` and the embedding `[E]` of each image."""
        if self._run is None:
            if not images:
                return
            self._run = _make_runner(self._description, self._weights, self._precision)
        for first in range(0, len(images), self._batch_size):
            features, embeddings = self._run(np.stack(images[first : first + self._batch_size]))
            for each, embedding in zip(features.numpy(), embeddings.numpy(), strict=True):
                yield {"features": each, "embeddings": embedding}


def _make_runner(
    backbone: Backbone, weights: Path, precision: str
) -> Callable[[NDArray[np.uint8]], "tuple[tf.Tensor, tf.Tensor]"]:
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

    def run(images: NDArray[np.uint8]) -> tuple[tf.Tensor, tf.Tensor]:
        with hardware.bfloat16_graphs(precision == "bfloat16"):
            embeddings, features = frozen(tf.constant(images))
            return features, embeddings

    return run
