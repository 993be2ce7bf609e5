"""The configuration of a run: the options of every step, composed, and the overrides a person types."""

import ast
import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from components.data.transform import TransformOptions
from components.evaluator import EvaluatorOptions
from components.examples import ExamplesOptions
from components.explainer import ExplainerOptions
from components.exporter import ExportOptions
from components.features import FeaturesOptions
from components.infra_validator import InfraValidatorOptions
from components.limits import LimitsOptions
from components.litert_evaluator import LiteRTEvaluatorOptions
from components.litert_exporter import LiteRTOptions
from components.model import ModelOptions
from components.parity import ParityOptions
from components.pusher import PusherOptions
from components.report import ReportOptions
from components.suspects import SuspectsOptions
from components.trainer import TrainerOptions
from components.validator import ValidatorOptions


@dataclass(frozen=True)
class Config:
    """All options, a section for each step that has any. `--set trainer.epochs=2` changes one of them."""

    examples: ExamplesOptions = field(default_factory=ExamplesOptions)
    validator: ValidatorOptions = field(default_factory=ValidatorOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    transform: TransformOptions = field(default_factory=TransformOptions)
    features: FeaturesOptions = field(default_factory=FeaturesOptions)
    suspects: SuspectsOptions = field(default_factory=SuspectsOptions)
    trainer: TrainerOptions = field(default_factory=TrainerOptions)
    limits: LimitsOptions = field(default_factory=LimitsOptions)
    export: ExportOptions = field(default_factory=ExportOptions)
    evaluator: EvaluatorOptions = field(default_factory=EvaluatorOptions)
    infra_validator: InfraValidatorOptions = field(default_factory=InfraValidatorOptions)
    litert: LiteRTOptions = field(default_factory=LiteRTOptions)
    litert_evaluator: LiteRTEvaluatorOptions = field(default_factory=LiteRTEvaluatorOptions)
    parity: ParityOptions = field(default_factory=ParityOptions)
    pusher: PusherOptions = field(default_factory=PusherOptions)
    explainer: ExplainerOptions = field(default_factory=ExplainerOptions)
    report: ReportOptions = field(default_factory=ReportOptions)


AnyConfig = TypeVar("AnyConfig", bound=Config)


def override(config: AnyConfig, assignments: Iterable[str]) -> AnyConfig:
    """Apply `section.option=value` assignments, the last one winning, in any order.

    Raises:
        ValueError: an assignment without `=`, an unknown option (the nearest is named), a value of another type or one
            that the options refuse.
    """
    changes: dict[str, dict[str, Any]] = {}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise ValueError(f"--set takes section.option=value. Received: {assignment!r}. Example: trainer.epochs=2")
        section, _, name = path.strip().partition(".")
        known = {f"{s.name}.{o.name}" for s in fields(config) for o in fields(getattr(config, s.name))}
        if f"{section}.{name}" not in known:
            raise ValueError(f"Unknown option {path.strip()!r}.{_suggestion(path.strip(), known)}")
        kind = get_type_hints(type(getattr(config, section)))[name]
        changes.setdefault(section, {})[name] = _parse(text.strip(), kind, path.strip())
    for section, options in changes.items():
        try:
            config = replace(config, **{section: replace(getattr(config, section), **options)})
        except ValueError as exc:
            raise ValueError(f"{section}: {exc}") from exc
    return config


def _suggestion(path: str, known: set[str]) -> str:
    nearest = difflib.get_close_matches(path, sorted(known), n=1, cutoff=0.5)
    same_name = sorted(k for k in known if k.split(".")[1] == path.split(".")[-1])
    if nearest or same_name:
        return f" Did you mean {(same_name or nearest)[0]!r}?"
    return f" Known options: {', '.join(sorted(known))}."


def _parse(text: str, kind: Any, path: str) -> Any:
    """Read `text` as a value of the annotated type: str, int, float, bool or `tuple[int, ...]`."""
    if kind is str:
        return text
    try:
        value = ast.literal_eval({"true": "True", "false": "False"}.get(text.lower(), text))
        if get_origin(kind) is tuple:
            value = tuple(value) if isinstance(value, (tuple, list)) else (value,)
            (item, _) = get_args(kind)
            valid = all(type(v) is item for v in value)
        elif kind is float:
            valid, value = type(value) in (int, float), float(value)
        else:
            valid = type(value) is kind
    except (ValueError, SyntaxError, TypeError):
        valid, value = False, None
    if not valid:
        name = str(kind) if get_origin(kind) else kind.__name__
        raise ValueError(f"{path} takes a value of type {name}. Received: {text!r}")
    return value
