"""The input pipeline: from TFRecord shards to batches of pixels, clean or augmented, with `tf.data`.

Every random choice is drawn from a seed and the example's position, so equal options make equal images on any
number of processors, and after a restart.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from components.artifacts.examples import ENCODED, LABEL
from components.options import check_at_least, check_fraction, check_seed

if TYPE_CHECKING:
    import tensorflow as tf

    from components.data.augmentation import RandomAffine


@dataclass(frozen=True)
class TransformOptions:
    """The augmentation's ranges; see `components.data.augmentation.RandomAffine`."""

    rotation_deg: float = 20.0
    width_shift: float = 0.2
    height_shift: float = 0.2
    shear_deg: float = 0.2
    zoom: float = 0.2
    horizontal_flip: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        check_at_least(self, 0, "rotation_deg", "width_shift", "height_shift", "shear_deg")
        check_fraction(self, "zoom")
        check_seed(self)


def make_augmentation(options: TransformOptions) -> "RandomAffine":
    from components.data.augmentation import RandomAffine

    return RandomAffine(**asdict(options))


def read(shards: Sequence[Path], *, image_size_px: int) -> "tf.data.Dataset":
    """Read examples in their stored order.

    Returns:
        A data set of (`uint8 [size, size, 3]` RGB 0–255, label `int64 []`).
    """
    return parse(records(shards), image_size_px=image_size_px)


def records(shards: Sequence[Path]) -> "tf.data.Dataset":
    """Read serialized examples, `string []`, in their stored order."""
    import tensorflow as tf

    return tf.data.TFRecordDataset([str(shard) for shard in shards])


def parse(dataset: "tf.data.Dataset", *, image_size_px: int) -> "tf.data.Dataset":
    """Turn serialized examples into (`uint8 [size, size, 3]` RGB 0–255, label `int64 []`), keeping their order."""
    import tensorflow as tf

    return dataset.map(_loader(image_size_px), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


@cache
def _loader(image_size_px: int) -> "Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]":
    """Make the function that decodes one example; tracing it takes a second, so that is done once."""
    import tensorflow as tf

    from export import preprocessing

    features = {ENCODED: tf.io.FixedLenFeature([], tf.string), LABEL: tf.io.FixedLenFeature([], tf.int64)}

    @tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
    def load(serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        example = tf.io.parse_single_example(serialized, features)
        return preprocessing.load(example[ENCODED], image_size_px), example[LABEL]

    return load


def augment(batches: "tf.data.Dataset", layer: "RandomAffine", *, seed: "tf.Tensor | int") -> "tf.data.Dataset":
    """Augment batches of (`uint8 [N, size, size, 3]`, anything); batch `i` draws from `[seed + layer.seed, i]`."""
    import tensorflow as tf

    def change(number: tf.Tensor, batch: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        images, others = batch
        batch_seed = tf.stack([tf.cast(seed, tf.int32) + layer.seed, tf.cast(number, tf.int32)])
        return layer(images, training=True, seed=batch_seed), others

    return batches.enumerate().map(change, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
