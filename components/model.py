"""Fetch the backbone's weights and check that they fit, before anything expensive runs.

Reads weights from wherever the options say; writes `backbone.weights.h5` and `model.json`.
"""

from dataclasses import dataclass
from pathlib import Path

from components.artifacts.backbone import WEIGHTS_FILE, write_backbone
from components.artifacts.manifest import write_missing
from components.artifacts.summary import Summary
from components.errors import WeightsError
from components.options import check_choice
from components.training.backbones import BACKBONES, build_backbone
from components.training.weights import AUTO, NONE, describe_weights, load_weights


@dataclass(frozen=True)
class ModelOptions:
    """The backbone.

    Attributes:
        backbone: a name in `BACKBONES`.
        weights: `imagenet`, a weights file or its URL, `none` (random), or `auto`: ImageNet's where they can be had,
            else random.
        image_size_px: side of the square that photos are resized to.
        seed: of random weights.
    """

    backbone: str = "resnet50"
    weights: str = AUTO
    image_size_px: int = 224
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice(self, tuple(BACKBONES), "backbone")
        if self.image_size_px < BACKBONES[self.backbone].min_size_px:
            raise ValueError(
                f"image_size_px must be at least {BACKBONES[self.backbone].min_size_px} for {self.backbone}. "
                f"Received: {self.image_size_px}"
            )


def describe_source(options: ModelOptions) -> dict[str, str]:
    """Describe the weights that the options name; a file counts by its content.

    Raises:
        WeightsError: the file does not exist.
        StorageError: it cannot be fetched from its URL.
    """
    return describe_weights(options.weights)


def fetch(*, out_dir: Path, options: ModelOptions) -> Summary:
    """Build the backbone with its weights, and save it.

    Raises:
        WeightsError: named weights cannot be fetched or do not fit the backbone.
    """
    import keras

    keras.utils.set_random_seed(options.seed)
    backbone = build_backbone(options.backbone, image_size_px=options.image_size_px)
    fallback = load_weights(backbone, options.weights)
    source = NONE if fallback else options.weights
    backbone.save_weights(out_dir / WEIGHTS_FILE)
    write_backbone(
        out_dir,
        {
            "backbone": options.backbone,
            "image_size_px": options.image_size_px,
            "weights": {"source": source, "fallback": fallback},
            "num_features": backbone.output_shape[-1],
            "num_parameters": backbone.count_params(),
        },
    )
    return {"backbone": options.backbone, "weights": source, "num_parameters": backbone.count_params()}


def fetch_or_explain(*, out_dir: Path, options: ModelOptions) -> Summary:
    """Do as `fetch` does; where the weights cannot be had, leave the reason for those who can do without."""
    try:
        return fetch(out_dir=out_dir, options=options)
    except WeightsError as exc:
        write_missing(out_dir, what=options.backbone, reason=str(exc))
        return {"backbone": options.backbone, "missing": "its weights"}
