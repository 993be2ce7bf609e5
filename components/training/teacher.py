"""A pushed model as teacher: another network learns its predictions instead of the labels (knowledge distillation).

Both see the same augmented photos, epoch after epoch (L. Beyer et al., "Knowledge distillation: A good teacher is
patient and consistent", 2022). The teacher predicts those of all epochs before its student sees the first one, so each
has the machine to itself. Its predictions are kept until the training ends: one that is killed finds them.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from components.artifacts.examples import IndexRow
from components.artifacts.learned_photos import read_learned_photos, to_id
from components.artifacts.training import CHECKPOINTS_DIR
from components.errors import ComponentError
from components.progress import Progress
from components.storage.files import atomic_write, sha256
from components.training import hardware
from components.training.batches import Batches
from components.training.hardware import Replicas
from export.spec import SPEC, ModelSpec, read_spec

if TYPE_CHECKING:
    import tensorflow as tf

log = logging.getLogger(__name__)


def describe(model_dir: Path) -> str:
    """Return the digest of a teacher's files.

    Raises:
        ComponentError: the folder holds no model of this project.
    """
    if not (model_dir / SPEC).is_file():
        raise ComponentError(
            f"trainer.teacher must be the folder of a pushed version, such as models/flowers/3. Received: {model_dir}"
        )
    files = sorted(path for path in model_dir.rglob("*") if path.is_file())
    lines = [f"{sha256(path)} {path.relative_to(model_dir).as_posix()}\n" for path in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def check(model_dir: Path, class_names: Sequence[str], rows: Iterable[IndexRow]) -> ModelSpec:
    """Return the spec of a teacher that may teach these classes, with these examples.

    Raises:
        ComponentError: it knows other classes, or has learned from photos that are to judge its student.
    """
    spec = read_spec(model_dir)
    if spec["class_names"] != list(class_names):
        raise ComponentError(
            f"A teacher must know the classes that its student learns: {', '.join(class_names)}. "
            f"Received: {', '.join(spec['class_names'])}, of {model_dir}. Name another trainer.teacher."
        )
    learned = read_learned_photos(model_dir)
    if learned is None:
        log.warning("trainer: THE TEACHER HAS NO LIST of what it learned from: test photos may be among them")
    elif seen := sum(row["split"] == "test" and to_id(row["sha256"]) in learned for row in rows):
        raise ComponentError(
            f"A teacher must not have learned from the photos that judge its student. Received: {model_dir}, which has "
            f"learned from {seen} of the test photos. Train the teacher on these examples first."
        )
    return spec


def teach(
    photos: Batches, model_dir: Path, *, num_epochs: int, precision: str, replicas: Replicas, out_dir: Path
) -> Batches:
    """Return batches of the same photos with the teacher's probabilities as targets; those of validation stay.

    Args:
        photos: augmented `uint8 [N, size, size, 3]`, targets `float32 [N, C]` and, for several replicas, weights `[N]`.
        model_dir: the teacher, see `check`.
        num_epochs: how many will be asked for, at most.
        precision: that the teacher computes in.
        replicas: that train together; in each worker the teacher predicts the worker's own rows.
        out_dir: for the teacher's predictions.
    """
    import tensorflow as tf

    folder = out_dir / CHECKPOINTS_DIR / "teacher"
    paths = [folder / f"worker-{replicas.worker}.epoch-{epoch}.npz" for epoch in range(num_epochs)]
    waiting = [(epoch, path) for epoch, path in enumerate(paths) if not path.exists()]
    if waiting:
        predict = _load(model_dir, precision)
        with Progress(total=len(waiting) * photos.num_steps, desc="teacher", unit="step") as progress:
            for epoch, path in waiting:
                predictions = []
                for images, *_ in photos.of_epoch(epoch):
                    predictions.append(predict(images))
                    progress.update()
                with atomic_write(path) as temporary, temporary.open("wb") as file:
                    np.savez(file, *predictions)
    num_classes = photos.validation.element_spec[1].shape[-1]

    def of_epoch(epoch: int) -> tf.data.Dataset:
        def generate() -> Iterator[NDArray[np.float32]]:
            with np.load(paths[epoch]) as file:
                yield from file.values()

        predictions = tf.data.Dataset.from_generator(
            generate, output_signature=tf.TensorSpec([None, num_classes], tf.float32)
        )
        both = tf.data.Dataset.zip(photos.of_epoch(epoch), predictions)
        return both.map(lambda batch, predicted: (batch[0], predicted, *batch[2:]))

    return replace(photos, of_epoch=of_epoch)


def _load(model_dir: Path, precision: str) -> Callable[["tf.Tensor"], NDArray[np.float32]]:
    """Load a teacher: images `uint8 [N, any, any, 3]`, resized where it takes another size, to `float32 [N, C]`."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    from export import preprocessing

    size_px = read_spec(model_dir)["image_size_px"]
    model = tf.saved_model.load(str(model_dir))

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8)], autograph=False)
    def call(images: tf.Tensor) -> tf.Tensor:
        resized = tf.map_fn(lambda image: preprocessing.resize(image, size_px), images)
        return model.signatures["images"](images=tf.ensure_shape(resized, [None, size_px, size_px, 3]))["probabilities"]

    # The graph is pruned to the one output that is needed, with the weights as constants.
    frozen = convert_variables_to_constants_v2(call.get_concrete_function())

    def predict(images: tf.Tensor) -> NDArray[np.float32]:
        with hardware.bfloat16_graphs(precision == "bfloat16"):
            (probabilities,) = frozen(images)
            return probabilities.numpy()

    return predict
