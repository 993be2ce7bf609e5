"""Compare what was pushed with what was measured: `python -m tests.campaign.pushed MODEL LITERT EXAMPLES EVALUATION …`.

Loads the SavedModel and each LiteRT file as a user would, calls them with the test photos, and fails where they are not
right on as many as `metrics.json` and `evaluation.json` say.
"""

import sys
from pathlib import Path

from client.classifier_client import Client, ImageError, LiteRTTransport
from components.artifacts.evaluation import read_metrics, read_predictions
from components.artifacts.examples import read_encoded
from components.artifacts.litert_evaluation import read_passed_files


def main(model: Path, litert: str, examples_dir: Path, evaluation_dir: Path, litert_evaluation_dir: Path) -> None:
    """Compare the accuracies, which are of the same photos: to a rounding."""
    import tensorflow as tf

    labels = [prediction["label"] for prediction in read_predictions(evaluation_dir)]
    encoded = [content for _, content in read_encoded(examples_dir, "test")]
    assert len(encoded) == len(labels), f"{len(encoded)} test examples, {len(labels)} predictions"
    class_names = read_metrics(evaluation_dir)["class_names"]

    outputs = tf.saved_model.load(str(model)).signatures["serving_default"](image_bytes=tf.constant(encoded))
    predicted = outputs["probabilities"].numpy().argmax(axis=1).tolist()
    classes = [name.decode() for name in outputs["classes"].numpy()[0].tolist()]
    assert classes == class_names, f"classes {classes}, measured {class_names}"
    _compare(model, predicted, labels, read_metrics(evaluation_dir)["accuracy"])
    if not litert:
        return
    for file in read_passed_files(litert_evaluation_dir).values():
        client = Client(LiteRTTransport(Path(litert) / file["name"]))
        results = [result for content in encoded for result in client.classify(content)]
        predicted = [-1 if isinstance(r, ImageError) else class_names.index(r.label) for r in results]
        _compare(Path(litert) / file["name"], predicted, labels, file["accuracy"])


def _compare(path: Path, predicted: list[int], labels: list[int], expected: float) -> None:
    accuracy = sum(p == label for p, label in zip(predicted, labels, strict=True)) / len(labels)
    assert abs(accuracy - expected) < 1e-6, f"{path} scores {accuracy:.4f} on the test photos, measured {expected:.4f}"


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], *map(Path, sys.argv[3:6]))
