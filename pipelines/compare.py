"""The comparison: other models beside the flowers pipeline's own, all on one split. Nothing is pushed.

Steps of the flowers pipeline are the same here, so each pipeline finds the other's artifacts. Some of them are repeated
under a prefix, with options of their own.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from components.classical import ClassicalOptions
from components.depthwise import DepthwiseOptions
from components.edges import EdgesOptions
from components.evaluator import EvaluatorOptions
from components.model import ModelOptions
from components.trainer import TrainerOptions
from components.training.weights import IMAGENET
from pipelines import flowers
from pipelines.config import Config
from pipelines.declaration import Step

LATEST = "latest_comparison"
"""The link to the newest comparison; `latest` goes on pointing to the newest run that made a model."""

_FLOWERS = {step.name: step for step in flowers.STEPS}
_JUDGING = ("limits", "export", "litert", "evaluator", "litert_evaluator")
_BACKBONES = ("mobilenet_v2", "efficientnet_v2_b0")
"""Chosen for the device: see `components.training.backbones.BACKBONES`."""


def _backbone(name: str) -> ModelOptions:
    return ModelOptions(backbone=name, weights=IMAGENET)


@dataclass(frozen=True)
class CompareConfig(Config):
    """The options of the flowers pipeline, and those of the other models.

    `fine_tuning` trains the last stage for two epochs, about two minutes each on two busy cores, to stay short. A
    tenfold rate did worse on validation (flower_photos: 0.902, here 0.928, the head alone 0.953). `student` teaches a
    MobileNetV2, whose head alone has 0.913 on validation, for six epochs: 0.938 to 0.960 with a ResNet50 that has
    0.949. `judging` blesses any accuracy: a model is converted to be compared, not pushed. Where
    `evaluator.other_photos` is given, all networks are judged on them.
    """

    edges: EdgesOptions = field(default_factory=EdgesOptions)
    classical: ClassicalOptions = field(default_factory=ClassicalOptions)
    depthwise: DepthwiseOptions = field(default_factory=DepthwiseOptions)
    fine_tuning: TrainerOptions = field(default_factory=lambda: TrainerOptions(fine_tune=1, fine_tune_epochs=2))
    student: TrainerOptions = field(
        default_factory=lambda: TrainerOptions(fine_tune=8, fine_tune_epochs=6, fine_tune_learning_rate=2e-4)
    )
    mobilenet_v2: ModelOptions = field(default_factory=lambda: _backbone("mobilenet_v2"))
    efficientnet_v2_b0: ModelOptions = field(default_factory=lambda: _backbone("efficientnet_v2_b0"))
    judging: EvaluatorOptions = field(default_factory=lambda: EvaluatorOptions(min_accuracy=0.0))

    def __post_init__(self) -> None:
        if not self.judging.other_photos:
            judging = replace(self.judging, other_photos=self.evaluator.other_photos)
            object.__setattr__(self, "judging", judging)


def _repeat(
    prefix: str,
    names: Iterable[str],
    *,
    made: Iterable[str] = (),
    others: Mapping[str, str] | None = None,
    sections: Mapping[str, str] | None = None,
) -> Iterator[Step]:
    """Declare steps of the flowers pipeline once more, as `<prefix>_<name>`.

    Args:
        prefix: of their names.
        names: of the steps.
        made: steps already declared under the prefix. The repeated steps read from these and from each other, and from
            the flowers pipeline otherwise.
        others: the step to read from instead of another.
        sections: the section of the configuration that replaces another.
    """
    names = tuple(names)
    found = {**{name: f"{prefix}_{name}" for name in (*names, *made)}, **(others or {})}
    sections = {"evaluator": "judging", **(sections or {})}
    for name in names:
        step = _FLOWERS[name]
        inputs = {parameter: found.get(i, i) for parameter, i in step.inputs.items() if i != "baseline"}
        options = {parameter: sections.get(section, section) for parameter, section in step.options.items()}
        yield replace(step, name=f"{prefix}_{name}", inputs=inputs, options=options)


def _row(prefix: str = "", features: str | None = None) -> Step:
    """Declare the step that describes a network, trained under a prefix, on features if any."""
    inputs = {
        "training_dir": f"{prefix}trainer",
        "evaluation_dir": f"{prefix}evaluator",
        "litert_evaluation_dir": f"{prefix}litert_evaluator",
    }
    return Step(
        name=f"{prefix}row",
        function="components.network_row:describe",
        inputs={**inputs, **({"features_dir": features} if features else {})},
    )


def _other_backbone(name: str) -> Iterator[Step]:
    """Declare all steps of another backbone, which are skipped where its weights are not available."""
    for step in _repeat(name, ("model", "features", "trainer", *_JUDGING), sections={"model": name}):
        is_first = step.name == f"{name}_model"
        if is_first:
            step = replace(step, function="components.model:fetch_or_explain", fallback_option=f"{name}.weights=none")
        yield step
    yield _row(f"{name}_", features=f"{name}_features")


def _student() -> Iterator[Step]:
    """Declare all steps of the MobileNetV2 that the flowers pipeline's own model teaches."""
    others = {name: f"mobilenet_v2_{name}" for name in ("model", "features")}
    for step in _repeat("student", ("trainer", *_JUDGING), others=others, sections={"trainer": "student"}):
        is_first = step.name == "student_trainer"
        yield replace(step, inputs={**step.inputs, "teacher_dir": "export"}) if is_first else step
    yield _row("student_", features="mobilenet_v2_features")


STEPS = (
    *(_FLOWERS[name] for name in ("examples", "statistics", "validator", "model", "features", "suspects", "trainer")),
    *(_FLOWERS[name] for name in ("limits", "export", "litert", "baseline", "evaluator", "litert_evaluator")),
    _row(features="features"),
    Step(
        name="edges",
        function="components.edges:extract",
        inputs={"examples_dir": "examples", "validation_dir": "validator"},
        options={"options": "edges"},
        libraries=("opencv-python-headless",),
        resumable=True,
    ),
    Step(
        name="classical_on_edges",
        function="components.classical:compare_on_edges",
        inputs={"examples_dir": "examples", "edges_dir": "edges"},
        options={"options": "classical"},
        libraries=("scikit-learn",),
        resumable=True,
    ),
    Step(
        name="test_features",
        function="components.features:extract_test",
        inputs={"examples_dir": "examples", "model_dir": "model"},
        options={"options": "features"},
        unkeyed=("options.engine", "options.beam_options"),
        resumable=True,
        is_spread=True,
    ),
    Step(
        name="classical_on_features",
        function="components.classical:compare_on_features",
        inputs={
            "examples_dir": "examples",
            "model_dir": "model",
            "features_dir": "features",
            "test_features_dir": "test_features",
        },
        options={"options": "classical"},
        libraries=("scikit-learn",),
        resumable=True,
    ),
    Step(
        name="depthwise_trainer",
        function="components.depthwise:train",
        inputs={"examples_dir": "examples", "validation_dir": "validator"},
        options={"options": "depthwise", "transform": "transform"},
        resumable=True,
    ),
    *_repeat("depthwise", _JUDGING, made=("trainer",)),
    _row("depthwise_"),
    *_repeat("fine_tuned", ("trainer", *_JUDGING), sections={"trainer": "fine_tuning"}),
    _row("fine_tuned_", features="features"),
    *(step for name in _BACKBONES for step in _other_backbone(name)),
    *_student(),
    Step(
        name="comparison",
        function="components.comparison:build",
        inputs={
            "examples_dir": "examples",
            "edges": "classical_on_edges",
            "depthwise": "depthwise_row",
            "features": "classical_on_features",
            "resnet50": "row",
            "fine_tuned": "fine_tuned_row",
            **{name: f"{name}_row" for name in _BACKBONES},
            "student": "student_row",
        },
        libraries=("matplotlib", "jinja2"),
        accepts_missing=True,
    ),
)
