"""The backbone's last stages are fine-tuned, and the head with them, on augmented photos."""

import logging
from collections.abc import Sequence
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

log = logging.getLogger(__name__)


def fine_tune(
    classifier: "keras.Model",
    backbone: Backbone,
    photos: Batches,
    options: "TrainerOptions",
    replicas: Replicas,
    out_dir: Path,
    *,
    before: History,
    class_weights: Sequence[float] | None,
) -> History:
    """Train the last stages and the head of a classifier, which takes their weights if it is the better for them.

    Args:
        classifier: what is tuned.
        backbone: of the classifier.
        photos: to train on, and to validate on.
        options: of the trainer.
        replicas: that train together.
        out_dir: for checkpoints and logs.
        before: the history of the classifier's head, validated on the same photos by the same loss.
        class_weights: see `compile_classifier`.
    """
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
            tuned,
            learning_rate=options.fine_tune_learning_rate,
            label_smoothing=options.label_smoothing,
            class_weights=class_weights,
        )
    schedule = Schedule(options.fine_tune_epochs, options.early_stopping_patience, options.reduce_lr_patience)
    history = fitting.fit(tuned, photos, phase="fine_tune", schedule=schedule, replicas=replicas, out_dir=out_dir)
    if fitting.find_best({"head": before, "fine_tune": history})[0] == "fine_tune":
        classifier.set_weights(tuned.get_weights())
    else:
        log.warning(
            "trainer: FINE-TUNING DID NOT HELP, the model before it is kept: validation loss %.4f and accuracy %.4f, "
            "after it %.4f and %.4f",
            *(
                each[name][fitting.best_epoch(each)]
                for each in (before, history)
                for name in ("val_loss", "val_accuracy")
            ),
        )
    return history
