"""Augmented images a second: `ImageDataGenerator`'s six random changes against the same six as one affine warp.

Both start from the same decoded pixels and end with batches of 32, as `fit` would get them; the best of several rounds
counts. The original recipe augments on one processor and ours on all of them, so the ratio for each processor second
stands beside the one for each second on the clock.
"""

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from benchmarks import photos
from components.data import transform
from components.data.transform import TransformOptions
from export import preprocessing

BATCH, SIZE_PX, NUM_IMAGES, NUM_ROUNDS = 32, 224, 512, 3


def measure(data: str) -> None:
    """Print images a second of both sides and their ratio."""
    import tensorflow as tf

    with photos.folder(data) as folder:
        files = sorted(folder.glob("train/*/*.jpg"))[:NUM_IMAGES]
        images = np.stack([preprocessing.load(tf.constant(f.read_bytes()), SIZE_PX).numpy() for f in files])
    peer = min(_time(_peer(images)) for _ in range(NUM_ROUNDS))
    ours = min(_time(_ours(images)) for _ in range(NUM_ROUNDS))
    for name, was, now in (("second", peer[0], ours[0]), ("processor second", peer[1], ours[1])):
        print(
            f"augmentation, images a {name}: ours {len(images) / now:.0f}, ImageDataGenerator {len(images) / was:.0f}: "
            f"{was / now:.2f} times as many"
        )


def _time(run: Callable[[], None]) -> tuple[float, float]:
    """Return the seconds on the clock and the seconds of all processors that a run takes."""
    started, started_processors = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - started, time.process_time() - started_processors


def _peer(images: NDArray[np.uint8]) -> Callable[[], None]:
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    generator = ImageDataGenerator(
        rotation_range=20, width_shift_range=0.2, height_shift_range=0.2, shear_range=0.2, zoom_range=0.2,
        horizontal_flip=True, fill_mode="nearest",
    )  # fmt: skip

    def run() -> None:
        batches = generator.flow(images, batch_size=BATCH, shuffle=False)
        for number in range(len(batches)):
            batches[number]

    return run


def _ours(images: NDArray[np.uint8]) -> Callable[[], None]:
    import tensorflow as tf

    layer = transform.make_augmentation(TransformOptions())
    batches = tf.data.Dataset.from_tensor_slices((images, np.zeros(len(images)))).batch(BATCH)
    augmented = transform.augment(batches, layer, seed=1).prefetch(tf.data.AUTOTUNE)

    def run() -> None:
        for _ in augmented:
            pass

    return run
