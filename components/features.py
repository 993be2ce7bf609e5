"""What the frozen backbone sees in each photo, computed once.

Reads examples and the backbone; writes, for each shard of train and validation (or of test) and each view,
`<shard>.view<k>.npz` with `features` `float16 [N, D]` and `labels` `int64 [N]`. View 0 is the clean photo, views 1 to K
(of train only) are augmented. With them on disk, another head trains in seconds. A file is complete as soon as it has
its name, so a killed step goes on with the next one.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from components import examples, model
from components.data import transform
from components.data.transform import TransformOptions
from components.storage.files import atomic_write
from components.training import hardware

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

    num_augmented_views: int = 0
    batch_size: int = 32
    precision: str = "auto"

    def __post_init__(self) -> None:
        if self.num_augmented_views < 0:
            raise ValueError(f"num_augmented_views must be at least 0. Received: {self.num_augmented_views}")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1. Received: {self.batch_size}")
        hardware.check_precision(self.precision)

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
) -> dict[str, int | str]:
    """Run the examples to train and to validate on through the frozen backbone, in each of their views."""
    num_views = {"train": 1 + options.num_augmented_views, "validation": 1}
    return _extract(num_views, examples_dir, model_dir, out_dir, options, transform)


def extract_test(
    *, examples_dir: Path, model_dir: Path, out_dir: Path, options: FeaturesOptions
) -> dict[str, int | str]:
    """Run the test examples through the frozen backbone: for models that are compared and never pushed."""
    return _extract({"test": 1}, examples_dir, model_dir, out_dir, options, TransformOptions())


def _extract(
    num_views: dict[str, int],
    examples_dir: Path,
    model_dir: Path,
    out_dir: Path,
    options: FeaturesOptions,
    transform: TransformOptions,
) -> dict[str, int | str]:
    from tqdm import tqdm

    precision = hardware.resolve_precision(options.precision)
    jobs = [
        (shard, view, out_dir / f"{shard.stem}.view{view}.npz")
        for split, count in num_views.items()
        for view in range(count)
        for shard in examples.shards(examples_dir, split)
    ]
    waiting = [job for job in jobs if not job[2].exists()]
    if 0 < len(waiting) < len(jobs):
        log.info("features: going on after %d of %d files", len(jobs) - len(waiting), len(jobs))
    num_images = 0
    if waiting:
        run = _make_runner(model_dir, precision)
        image_size_px = model.describe(model_dir)["image_size_px"]
        with tqdm(total=len(waiting), desc="features", unit="file", disable=None, leave=False) as progress:
            for view, group in groupby(waiting, key=lambda job: job[1]):
                shards, _, paths = zip(*group, strict=True)
                batches = _read(shards, view, transform, image_size_px=image_size_px, batch_size=options.batch_size)
                for path, batches_of_shard in zip(paths, batches, strict=True):
                    features, labels = _run_all(run, batches_of_shard)
                    _save(path, features=features, labels=labels)
                    num_images += len(labels)
                    progress.update()
    return {"num_views": max(num_views.values()), "num_images": num_images, "precision": precision}


def load(features_dir: Path, split: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Read the features of a split: `float32 [N, views, D]`, the clean view first, and labels `int64 [N]`."""
    views = sorted({path.suffixes[-2] for path in features_dir.glob(f"{split}-*.view*.npz")}, key=lambda s: int(s[5:]))
    columns, labels = [], np.empty(0, np.int64)
    for view in views:
        files = [np.load(path) for path in sorted(features_dir.glob(f"{split}-*{view}.npz"))]
        columns.append(np.concatenate([file["features"] for file in files]).astype(np.float32))
        labels = np.concatenate([file["labels"] for file in files])
    return np.stack(columns, axis=1), labels


def _read(
    shards: Sequence[Path], view: int, options: TransformOptions, *, image_size_px: int, batch_size: int
) -> "Iterator[Iterator[tuple[tf.Tensor, tf.Tensor]]]":
    """Read the batches of each shard, one shard after the other.

    One pipeline reads them all: one for each shard would be traced each time, and leave megabytes behind.
    """
    import tensorflow as tf

    # A seed of its own for each shard and view: `train-00003-of-00006` gives 3.
    seeds = [int(shard.stem.split("-")[1]) * 1000 + view for shard in shards]
    layer = transform.make_augmentation(options) if view else None

    def read(place: tf.Tensor, name: tf.Tensor, seed: tf.Tensor) -> "tf.data.Dataset":
        batches = transform.parse(tf.data.TFRecordDataset(name), image_size_px=image_size_px).batch(batch_size)
        if layer:
            batches = transform.augment(batches, layer, seed=seed)
        return tf.data.Dataset.zip((tf.data.Dataset.from_tensors(place).repeat(), batches))

    names = [str(shard) for shard in shards]
    placed = tf.data.Dataset.from_tensor_slices((range(len(names)), names, seeds)).flat_map(read)
    for _, group in groupby(placed, key=lambda each: int(each[0])):
        yield (batch for _, batch in group)


def _make_runner(model_dir: Path, precision: str) -> Callable[["tf.Tensor"], "tf.Tensor"]:
    """Compile the backbone for inference: weights folded in as constants, so that the graph can be optimized whole."""
    import keras
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    spec = model.describe(model_dir)
    previous = keras.config.dtype_policy()
    if precision == "float16":
        keras.config.set_dtype_policy("mixed_float16")
    try:
        extractor = model.build_extractor(
            spec["backbone"], image_size_px=spec["image_size_px"], weights=model_dir / "backbone.weights.h5"
        )
    finally:
        keras.config.set_dtype_policy(previous)
    signature = [tf.TensorSpec(extractor.input_shape, tf.uint8)]
    function = tf.function(lambda images: extractor(images, training=False), input_signature=signature)
    frozen = convert_variables_to_constants_v2(function.get_concrete_function())

    def run(images: tf.Tensor) -> tf.Tensor:
        with _bfloat16_graphs(precision == "bfloat16"):
            return frozen(images)[0]

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
    run: Callable[["tf.Tensor"], "tf.Tensor"], batches: "Iterator[tuple[tf.Tensor, tf.Tensor]]"
) -> tuple[Any, Any]:
    # A shard is decoded before it goes through the backbone: both want every processor, and taking turns is a third
    # faster than running side by side.
    images, labels = zip(*batches, strict=True)
    features = [run(batch).numpy() for batch in images]
    return np.concatenate(features).astype(np.float16), np.concatenate(labels)


def _save(path: Path, **arrays: Any) -> None:
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)
