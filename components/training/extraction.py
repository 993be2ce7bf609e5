"""The features that the frozen backbone has for photos, a file at a time: by this process, or one on another machine.

Reads examples and the backbone; writes `components.artifacts.features`. A file has the same bytes whoever makes it, on
processors of one kind.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from components.artifacts.backbone import WEIGHTS_FILE, read_backbone
from components.artifacts.backbone import Backbone as Description
from components.artifacts.examples import IndexRow, read_image
from components.artifacts.features import KnownFeatures, write_features
from components.data import transform as transforms
from components.data.transform import TransformOptions
from components.training import hardware, networks

if TYPE_CHECKING:
    import tensorflow as tf

_ONE_AT_A_TIME = Lock()
"""Of the threads of a worker: the backbone takes every processor, and its precision is a setting of the process."""


@dataclass(frozen=True)
class Part:
    """A file to be made: a view of the photos of a shard."""

    path: Path
    view: int
    rows: Sequence[IndexRow]

    def select_new(self, known: KnownFeatures) -> list[IndexRow]:
        """Return the rows whose features are not known."""
        return [row for row in self.rows if row["sha256"] not in known]


Engine = Callable[[Callable[[Part], None], Sequence[Part]], None]
"""Calls a function on each part somewhere, and waits for the end."""


@dataclass(frozen=True)
class Inputs:
    """What every file is made from."""

    examples_dir: Path
    model_dir: Path
    earlier_dir: Path | None
    transform: TransformOptions
    precision: str
    batch_size: int


def write_part(inputs: Inputs, part: Part) -> None:
    """Make a file in a worker, which builds the backbone once for all of its files."""
    with _ONE_AT_A_TIME:
        for _ in write_parts(inputs, [part], _open_known(inputs.earlier_dir, part.view), _open_backbone(inputs)):
            pass


def write_parts(inputs: Inputs, parts: Sequence[Part], known: KnownFeatures, compute: "Backbone") -> Iterator[None]:
    """Make the files of parts of one view, and yield after each."""
    new_of = [part.select_new(known) for part in parts]
    rows_to_read = [row for new in new_of for row in new]
    images = _read(inputs.examples_dir, rows_to_read, parts[0].view, inputs.transform, compute.image_size_px)
    for part, new in zip(parts, new_of, strict=True):
        # A shard is decoded before it goes through the backbone: both want every processor, and taking turns is a third
        # faster than running side by side.
        computed = dict(zip((row["sha256"] for row in new), compute(list(islice(images, len(new)))), strict=True))
        found = [computed.get(row["sha256"]) or known.read(row["sha256"]) for row in part.rows]
        write_features(
            part.path,
            np.stack([each["features"] for each in found]),
            np.array([row["label"] for row in part.rows], np.int64),
            photos=[row["sha256"] for row in part.rows],
            embeddings=None if part.view else np.stack([each["embeddings"] for each in found]),
        )
        yield


@lru_cache(maxsize=1)
def _open_known(earlier_dir: Path | None, view: int) -> KnownFeatures:
    return KnownFeatures(earlier_dir, view)


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


class Backbone:
    """The frozen backbone, built when the first photo needs it."""

    def __init__(self, inputs: Inputs) -> None:
        self._description, self._weights = read_backbone(inputs.model_dir), inputs.model_dir / WEIGHTS_FILE
        self._precision, self._batch_size = inputs.precision, inputs.batch_size
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


@lru_cache(maxsize=1)
def _open_backbone(inputs: Inputs) -> Backbone:
    """Return the backbone of this process, which builds it once."""
    return Backbone(inputs)


def _make_runner(
    backbone: Description, weights: Path, precision: str
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
