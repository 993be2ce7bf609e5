"""A trained classifier: `model.keras`, `training.json` and `history.json`."""

import json
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from components.artifacts.backbone import Backbone
from components.storage.files import atomic_write, read_json, write_json

if TYPE_CHECKING:
    import keras

MODEL_FILE = "model.keras"
LOGS_DIR, CHECKPOINTS_DIR = "logs", "checkpoints"
History = dict[str, list[float]]
"""Each logged number, a value an epoch."""


class Training(Backbone):
    """`training.json`: what was trained, and how.

    Attributes:
        class_names: in the order of the outputs.
        num_trainable: how many of the parameters the head (or the network without a backbone) has learned.
        epochs: how many each phase took.
        best_epoch: which epoch of the last phase was kept, from 1; 0 where it changed nothing for the better.
        temperature: by which the logits were divided at the end, so that probabilities come true on validation photos.
        is_frozen: whether the backbone is as it was before, so that its features still stand for the photos.
        teacher: the backbone of the model that taught it while it was fine-tuned, if any.
    """

    class_names: list[str]
    num_trainable: int
    epochs: dict[str, int]
    best_epoch: int
    temperature: float
    is_frozen: bool
    teacher: str | None


def read_training(training_dir: Path) -> Training:
    """Read `training.json`."""
    return read_json(training_dir / "training.json")


def read_history(training_dir: Path) -> dict[str, History]:
    """Read the history of each phase, in their order."""
    return read_json(training_dir / "history.json")


def read_classifier(training_dir: Path) -> "keras.Model":
    """Load the classifier: `uint8 [N, size, size, 3]`, RGB, 0–255, to probabilities `float32 [N, C]`."""
    import keras

    return keras.models.load_model(training_dir / MODEL_FILE, compile=False)


def write_training(out_dir: Path, classifier: "keras.Model", training: Training, histories: dict[str, History]) -> None:
    """Write a trained classifier; the same weights give the same bytes."""
    write_classifier(out_dir / MODEL_FILE, classifier)
    write_json(out_dir / "history.json", histories)
    write_json(out_dir / "training.json", training)


def write_classifier(path: Path, classifier: "keras.Model") -> None:
    """Save a classifier without what Keras writes of the moment: the date and the addresses of objects in memory."""
    classifier.save(path)
    with atomic_write(path) as temporary, zipfile.ZipFile(path) as saved, zipfile.ZipFile(temporary, "w") as archive:
        for name in saved.namelist():
            content = saved.read(name)
            if name == "metadata.json":
                metadata = json.loads(content)
                del metadata["date_saved"]
                content = json.dumps(metadata).encode()
            if name == "config.json":
                content = _number_shared_objects(content)
            archive.writestr(zipfile.ZipInfo(name), content)


def _number_shared_objects(config: bytes) -> bytes:
    """Number the objects that several layers share in the order in which they appear."""
    numbers: dict[bytes, int] = {}
    return re.sub(
        rb'(?<="shared_object_id": )\d+', lambda found: b"%d" % numbers.setdefault(found[0], len(numbers)), config
    )
