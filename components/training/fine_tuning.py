"""The backbone's last stages are fine-tuned, and the head with them, on augmented photos."""

from pathlib import Path
from typing import TYPE_CHECKING

from components.artifacts.backbone import Backbone
from components.artifacts.training import History
from components.training import fitting, hardware, networks
from components.training.batches import Batches
from components.training.fitting import Schedule
from components.training.hardware import Replicas

if TYPE_CHECKING:
    import keras

    from components.trainer import TrainerOptions


def fine_tune(
    classifier: "keras.Model",
    backbone: Backbone,
    photos: Batches,
    options: "TrainerOptions",
    replicas: Replicas,
    out_dir: Path,
) -> History:
    """Train the last stages and the head of a classifier, which takes their weights."""
    import keras

    precision = hardware.resolve_precision(options.precision)
    policy = "float32" if precision == "float32" else f"mixed_{precision}"
    with networks.dtype_policy(policy), replicas.strategy.scope():
        extractor = networks.build_extractor(backbone["backbone"], image_size_px=backbone["image_size_px"])
        head = keras.models.clone_model(classifier.get_layer("head"))
        tuned = networks.build_classifier(extractor, head)
        tuned.set_weights(classifier.get_weights())
        networks.unfreeze(extractor, backbone["backbone"], num_stages=options.fine_tune)
        fitting.compile_classifier(
            tuned, learning_rate=options.fine_tune_learning_rate, label_smoothing=options.label_smoothing
        )
    schedule = Schedule(options.fine_tune_epochs, options.early_stopping_patience, options.reduce_lr_patience)
    history = fitting.fit(tuned, photos, phase="fine_tune", schedule=schedule, replicas=replicas, out_dir=out_dir)
    classifier.set_weights(tuned.get_weights())
    return history
