"""The files that the real pipeline writes are what their types say."""

from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, Literal, get_args, get_origin, get_type_hints, is_typeddict

import pytest

from components import artifacts
from components.artifacts.backbone import Backbone
from components.artifacts.baseline import Baseline
from components.artifacts.blessing import Blessing
from components.artifacts.comparison_rows import Comparison, Int8, MissingRow, Row
from components.artifacts.evaluation import Metrics, Prediction
from components.artifacts.examples import Examples, IndexRow
from components.artifacts.explanations import Explanation
from components.artifacts.infra_validation import Responses
from components.artifacts.labels import AppliedCounts, AppliedDecision
from components.artifacts.learning_curve import LearningCurve
from components.artifacts.litert_evaluation import LiteRTEvaluation, Measured
from components.artifacts.manifest import Manifest, Missing, Reference
from components.artifacts.parity import Parity
from components.artifacts.push import Push, PushedOrigin, read_push
from components.artifacts.release import Order, ReleaseRecord
from components.artifacts.statistics import Statistics
from components.artifacts.suspects import Outlier, Suspect
from components.artifacts.training import History, Training
from components.artifacts.validation import Schema, Validation
from components.artifacts.watch_reference import WatchReference
from components.storage.files import read_json, read_jsonl
from components.storage.models import LINEAGE
from export.parity import FormParity

FORMATS: dict[str, Any] = {
    "examples/examples.json": Examples,
    "examples/index.jsonl": list[IndexRow],
    "statistics/statistics.json": Statistics,
    "validator/validation.json": Validation,
    "validator/schema.json": Schema,
    "model/model.json": Backbone,
    "learning_curve/learning_curve.json": LearningCurve,
    "trainer/training.json": Training,
    "trainer/history.json": dict[str, History],
    "limits/watch_reference.json": WatchReference,
    "export/assets.extra/watch_reference.json": WatchReference,
    "baseline/baseline.json": Baseline,
    "evaluator/metrics.json": Metrics,
    "evaluator/predictions.jsonl": list[Prediction],
    "evaluator/blessing.json": Blessing,
    "infra_validator/blessing.json": Blessing,
    "infra_validator/responses.json": Responses,
    "litert_evaluator/evaluation.json": LiteRTEvaluation,
    "saved_model_cost/saved_model.json": Measured,
    "parity/parity.json": Parity,
    "pusher/push.json": Push,
    "explainer/explanations.json": list[Explanation],
    "report/manifest.json": Manifest,
}
ELSEWHERE = (
    Row,
    Int8,
    MissingRow,
    Comparison,
    Missing,
    Reference,
    PushedOrigin,
    Suspect,
    Outlier,
    AppliedDecision,
    AppliedCounts,
    ReleaseRecord,
    Order,
)
"""Types of what other pipelines write, of a part that has no type of its own in its file, or of rows that so few photos
do not have."""


@pytest.mark.parametrize("file", FORMATS)
def test_file_is_what_its_type_says(artifact: Callable[[str], Path], file: str) -> None:
    step, _, name = file.partition("/")
    path = artifact(step) / name
    value = read_jsonl(path) if path.suffix == ".jsonl" else read_json(path)
    assert value
    assert list(_find_errors(value, FORMATS[file], name)) == []


def test_inputs_of_a_manifest_are_references(artifact: Callable[[str], Path]) -> None:
    inputs = read_json(artifact("report") / "manifest.json")["inputs"]
    assert list(_find_errors(inputs, dict[str, Reference], "inputs")) == []


def test_the_origin_of_a_pushed_model_is_what_its_type_says(artifact: Callable[[str], Path]) -> None:
    pushed = Path(read_push(artifact("pusher"))["path"] or "")
    assert list(_find_errors(read_json(pushed / LINEAGE), PushedOrigin, "lineage")) == []


def test_every_type_is_that_of_a_file() -> None:
    modules = [import_module(f"components.artifacts.{module.name}") for module in iter_modules(artifacts.__path__)]
    types = {each for module in modules for each in vars(module).values() if is_typeddict(each)}
    known = {each for root in (*FORMATS.values(), *ELSEWHERE) for each in _reach(root)}
    # A type that others extend is a part of them.
    forgotten = [t for t in types if not any(_hints(t).items() <= _hints(other).items() for other in known)]
    assert len(types) > 30
    assert forgotten == []


def _hints(typed_dict: Any) -> dict[str, Any]:
    return get_type_hints(typed_dict, localns={"FormParity": FormParity})


def _reach(kind: Any) -> Iterator[Any]:
    """Yield the typed dicts in a type."""
    if is_typeddict(kind):
        yield kind
    for part in _hints(kind).values() if is_typeddict(kind) else get_args(kind):
        yield from _reach(part)


def _find_errors(value: Any, kind: Any, where: str) -> Iterator[str]:
    """Yield each difference between a JSON value and its type."""
    origin, arguments = get_origin(kind), get_args(kind)
    if is_typeddict(kind):
        hints = _hints(kind)
        if not isinstance(value, dict) or value.keys() != hints.keys():
            yield f"{where} must have the keys {sorted(hints)}. Received: {value}"
            return
        for name, part in hints.items():
            yield from _find_errors(value[name], part, f"{where}.{name}")
    elif origin in (dict, list) and not isinstance(value, origin):
        yield f"{where} must be a {origin.__name__}. Received: {value!r}"
    elif origin is dict:
        for name, part in value.items():
            yield from _find_errors(part, arguments[1], f"{where}.{name}")
    elif origin is list:
        for position, part in enumerate(value):
            yield from _find_errors(part, arguments[0], f"{where}[{position}]")
    elif origin is Literal:
        if value not in arguments:
            yield f"{where} must be one of {arguments}. Received: {value!r}"
    elif arguments:  # a union
        if all(any(_find_errors(value, choice, where)) for choice in arguments):
            yield f"{where} must be {kind}. Received: {value!r}"
    elif kind is not Any and type(value) not in ((int, float) if kind is float else (kind,)):
        yield f"{where} must be {kind.__name__}. Received: {value!r}"
