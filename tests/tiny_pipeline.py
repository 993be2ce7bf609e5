"""The flowers pipeline at its smallest: 50 drawn flowers, a network of four small layers, two epochs."""

from collections.abc import Sequence
from dataclasses import asdict

from components.evaluator import EvaluatorOptions
from components.examples import ExamplesOptions
from components.features import FeaturesOptions
from components.infra_validator import InfraValidatorOptions
from components.litert_evaluator import LiteRTEvaluatorOptions
from components.litert_exporter import LiteRTOptions
from components.model import ModelOptions
from components.trainer import TrainerOptions
from pipelines.config import Config
from pipelines.declaration import Step
from pipelines.flowers import STEPS

IMAGE_SIZE_PX = 32

CONFIG = Config(
    examples=ExamplesOptions(source="synthetic", num_synthetic_per_class=10, seed=1),
    model=ModelOptions(backbone="small_cnn", weights="none", image_size_px=IMAGE_SIZE_PX, seed=7),
    features=FeaturesOptions(num_augmented_views=1, batch_size=8, precision="float32"),
    trainer=TrainerOptions(
        hidden_units=(8,), num_heads=3, epochs=2, batch_size=16, learning_rate=3e-2, precision="float32"
    ),
    evaluator=EvaluatorOptions(min_accuracy=0.0, min_recall=0.0, must_beat_majority=False),
    infra_validator=InfraValidatorOptions(engine="local", num_examples=2),
    litert=LiteRTOptions(num_calibration_images=10),
    litert_evaluator=LiteRTEvaluatorOptions(max_accuracy_drop=1.0, min_agreement=0.0),
)


def assignments() -> list[str]:
    """Return the configuration as it is typed after `--set`."""
    default = asdict(Config())
    return [
        f"{section}.{name}={value}"
        for section, options in asdict(CONFIG).items()
        for name, value in options.items()
        if value != default[section][name]
    ]


def steps_to(name: str) -> Sequence[Step]:
    """Return a step with all that it needs, in order."""
    needed = {name}
    for step in reversed(STEPS):
        if step.name in needed:
            needed |= set(step.inputs.values())
    return [step for step in STEPS if step.name in needed]
