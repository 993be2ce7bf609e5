"""Show where the classifier looks: Grad-CAM pictures of right and of wrong answers.

Reads the test examples, the trained classifier and the evaluator's `predictions.jsonl`. Writes `explanations.json` and
a JPEG for each answer: the photo as the model sees it, and beside it the regions that speak for the class it named. It
exists because a model may be right for a wrong reason, such as a meadow behind every daisy.

The method is R. R. Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization"
(2017), equations 1 and 2, on the last feature map of the backbone.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from components import examples
from components.data import transform
from components.storage.files import write_json
from components.training.networks import POOL

if TYPE_CHECKING:
    import keras

_STRENGTH = 0.8
"""How much of the colour covers the photo where the evidence is greatest."""


@dataclass(frozen=True)
class ExplainerOptions:
    """What is explained.

    Attributes:
        num_examples: right answers, and as many wrong ones: the most confident of each, and of the right ones one of
            every class before a second.
    """

    num_examples: int = 6

    def __post_init__(self) -> None:
        if not 0 <= self.num_examples <= 50:
            raise ValueError(f"num_examples must be 0 to 50. Received: {self.num_examples}")


def explain(
    *, examples_dir: Path, training_dir: Path, evaluation_dir: Path, out_dir: Path, options: ExplainerOptions
) -> dict[str, Any]:
    """Draw the most confident right and wrong answers."""
    lines = (evaluation_dir / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    chosen = _choose([json.loads(line) for line in lines], options.num_examples)
    if chosen:
        import keras

        classifier = keras.models.load_model(training_dir / "model.keras", compile=False)
        images = _read_images(examples_dir, [answer["position"] for answer in chosen], classifier.input_shape[1])
        heat = grad_cam(classifier, images, [answer["predicted"] for answer in chosen])
        for number, (answer, image, map_) in enumerate(zip(chosen, images, heat, strict=True)):
            answer["picture"] = f"{number:02d}.jpg"
            draw(image, map_).save(out_dir / answer["picture"], quality=85)
    write_json(out_dir / "explanations.json", chosen)
    num_right = sum(answer["predicted"] == answer["label"] for answer in chosen)
    return {"num_right": num_right, "num_wrong": len(chosen) - num_right}


def grad_cam(classifier: "keras.Model", images: NDArray[np.uint8], classes: Sequence[int]) -> NDArray[np.float32]:
    """Give the evidence for a class in each region of each image.

    Args:
        classifier: of `networks.build_classifier`: a backbone, the mean over its last feature map, a head.
        images: `uint8 [N, size, size, 3]`, RGB, 0–255.
        classes: one for each image.

    Returns:
        `float32 [N, h, w]`, 0–1, the greatest evidence of an image being 1; all 0 where nothing speaks for the class.
    """
    import keras
    import tensorflow as tf

    pool, head = classifier.get_layer(POOL), classifier.layers[-1]
    maps = keras.Model(classifier.input, pool.input)(images, training=False)
    with tf.GradientTape() as tape:
        tape.watch(maps)
        hidden = pool(maps)
        for layer in head.layers[:-1]:
            hidden = layer(hidden, training=False)
        # The scores before the softmax.
        scores = hidden @ head.layers[-1].kernel + head.layers[-1].bias
        chosen = tf.gather(scores, list(classes), batch_dims=1)
    weights = tf.reduce_mean(tape.gradient(chosen, maps), axis=(1, 2), keepdims=True)
    evidence = tf.nn.relu(tf.reduce_sum(weights * maps, axis=-1)).numpy()
    greatest = evidence.max(axis=(1, 2), keepdims=True)
    return np.divide(evidence, greatest, out=np.zeros_like(evidence), where=greatest > 0)


def draw(image: NDArray[np.uint8], evidence: NDArray[np.float32]) -> Image.Image:
    """Put an image beside itself in grey, its evidence over it in colours up to yellow.

    Args:
        image: `uint8 [size, size, 3]`, RGB, 0–255.
        evidence: `float32 [h, w]`, 0–1.

    Returns:
        An RGB picture of twice the width.
    """
    size_px = image.shape[0]
    heat = np.asarray(Image.fromarray(evidence).resize((size_px, size_px), Image.Resampling.BICUBIC)).clip(0, 1)
    colours = matplotlib.colormaps["inferno"](heat)[..., :3] * 255
    strength = _STRENGTH * heat[..., np.newaxis]
    grey = np.asarray(Image.fromarray(image).convert("L"))[..., np.newaxis]
    covered = (1 - strength) * grey + strength * colours
    return Image.fromarray(np.concatenate([image, covered.round().astype(np.uint8)], axis=1))


def _choose(predictions: Sequence[dict[str, Any]], num_examples: int) -> list[dict[str, Any]]:
    """Give the answers to explain, right ones first, each with its `position` in the test split."""
    answers = [
        {
            "filename": prediction["filename"],
            "label": prediction["label"],
            "predicted": prediction["predicted"],
            "probability": prediction["probabilities"][prediction["predicted"]],
            "position": position,
        }
        for position, prediction in enumerate(predictions)
    ]
    answers.sort(key=lambda answer: -answer["probability"])
    right = [answer for answer in answers if answer["predicted"] == answer["label"]]
    wrong = [answer for answer in answers if answer["predicted"] != answer["label"]]
    seen: dict[int, int] = {}
    for answer in right:
        answer["turn"] = seen[answer["label"]] = seen.get(answer["label"], -1) + 1
    right.sort(key=lambda answer: answer.pop("turn"))
    return [*right[:num_examples], *wrong[:num_examples]]


def _read_images(examples_dir: Path, positions: Sequence[int], size_px: int) -> NDArray[np.uint8]:
    """Read the test images at some positions: `uint8 [N, size, size, 3]`."""
    import tensorflow as tf

    from export import preprocessing

    wanted = set(positions)
    photos = enumerate(transform.encoded(examples.shards(examples_dir, "test")))
    found = {position: encoded for position, encoded in photos if position in wanted}
    return np.stack([preprocessing.load(tf.constant(found[position]), size_px).numpy() for position in positions])
