"""What a person types after `--set` becomes an option of the right type, or an error that helps."""

import dataclasses
import math

import pytest

from pipelines.config import Config, override


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("trainer.epochs=3", 3),
        ("trainer.dropout=0.25", 0.25),
        ("trainer.dropout=0", 0.0),
        ("trainer.learning_rate=1e-4", 1e-4),
        ("validator.update_schema=true", True),
        ("pusher.push_withdrawn=True", True),
        ("transform.horizontal_flip=false", False),
        ("examples.source=/data/my=photos", "/data/my=photos"),
        ("examples.source=123", "123"),
        ("trainer.hidden_units=(64,32)", (64, 32)),
        ("trainer.hidden_units=64,32", (64, 32)),
        ("trainer.hidden_units=[64,32]", (64, 32)),
        ("trainer.hidden_units=64", (64,)),
        ("trainer.hidden_units=()", ()),
        (" trainer.epochs = 3 ", 3),
    ],
)
def test_an_override_has_the_type_of_its_option(assignment, value):
    section, name = assignment.partition("=")[0].strip().split(".")
    found = getattr(getattr(override(Config(), [assignment]), section), name)
    assert found == value
    assert type(found) is type(value)


def test_an_override_changes_nothing_else():
    changed = dataclasses.asdict(override(Config(), ["trainer.epochs=3"]))
    expected = dataclasses.asdict(Config())
    expected["trainer"]["epochs"] = 3
    assert changed == expected


def test_the_last_override_wins():
    assert override(Config(), ["trainer.epochs=0", "trainer.seed=5", "trainer.epochs=4"]).trainer.epochs == 4


@pytest.mark.parametrize(
    "assignments",
    [
        ("examples.validation_fraction=0.85", "examples.test_fraction=0.05"),
        ("model.image_size_px=16", "model.backbone=small_cnn"),
    ],
)
def test_options_that_fit_together_are_taken_in_any_order(assignments):
    assert override(Config(), assignments) == override(Config(), reversed(assignments))


@pytest.mark.parametrize(
    ("assignment", "nearest"),
    [
        ("trainer.epohcs=2", "trainer.epochs"),
        ("trainr.epochs=2", "trainer.epochs"),
        ("epochs=2", "trainer.epochs"),
        ("model.epochs=2", "trainer.epochs"),
        ("evaluator.min_acuracy=0.5", "evaluator.min_accuracy"),
    ],
)
def test_an_unknown_option_names_the_nearest(assignment, nearest):
    with pytest.raises(ValueError, match=rf"Unknown option '{assignment.partition('=')[0]}'\. .*'{nearest}'\?"):
        override(Config(), [assignment])


def test_an_option_like_no_other_gets_the_whole_list():
    with pytest.raises(ValueError, match=r"Known options: .*trainer\.epochs"):
        override(Config(), ["zzz=2"])


@pytest.mark.parametrize(
    ("assignment", "kind"),
    [
        ("trainer.epochs=2.5", "int"),
        ("trainer.epochs=many", "int"),
        ("trainer.epochs=true", "int"),
        ("trainer.epochs=", "int"),
        ("trainer.epochs=None", "int"),
        ("trainer.epochs=__import__('os').getpid()", "int"),
        ("trainer.dropout=half", "float"),
        ("trainer.dropout=true", "float"),
        ("trainer.dropout=(0.5,)", "float"),
        ("validator.update_schema=1", "bool"),
        ("validator.update_schema=yes", "bool"),
        ("trainer.hidden_units=(64,0.5)", r"tuple\[int, \.\.\.\]"),
        ("trainer.hidden_units=(true,)", r"tuple\[int, \.\.\.\]"),
        ("trainer.hidden_units=", r"tuple\[int, \.\.\.\]"),
    ],
)
def test_a_value_of_another_type_is_refused(assignment, kind):
    path = assignment.partition("=")[0]
    with pytest.raises(ValueError, match=rf"^{path} takes a value of type {kind}\. Received: "):
        override(Config(), [assignment])


@pytest.mark.parametrize("assignment", ["trainer.epochs", "--from", ""])
def test_an_assignment_without_a_value_shows_an_example(assignment):
    with pytest.raises(ValueError, match=r"section\.option=value\. Received: .* Example: trainer\.epochs=2"):
        override(Config(), [assignment])


@pytest.mark.parametrize(
    ("assignment", "rule"),
    [
        ("trainer.epochs=0", "trainer: epochs must be at least 1. Received: 0"),
        ("trainer.learning_rate=1e400", f"trainer: learning_rate must be above 0 and at most 1. Received: {math.inf}"),
        ("trainer.hidden_units=(64,0)", "trainer: hidden_units must be at least 1 each. Received: (64, 0)"),
        ("evaluator.min_accuracy=1.5", "evaluator: min_accuracy must be 0 to 1. Received: 1.5"),
        (
            "model.backbone=vgg",
            "model: backbone must be one of resnet50, mobilenet_v2, efficientnet_v2_b0, small_cnn. Received: 'vgg'",
        ),
        (
            "export.model_name=my model",
            "export: model_name must be letters, digits and _, and not tflite. Received: 'my model'",
        ),
    ],
)
def test_a_value_out_of_range_states_the_rule(assignment, rule):
    with pytest.raises(ValueError, match="must be") as raised:
        override(Config(), [assignment])
    assert str(raised.value) == rule


@pytest.mark.parametrize("seed", ["-1", "2147483648"])
@pytest.mark.parametrize("section", ["examples", "transform", "trainer"])
def test_a_seed_that_no_generator_takes_is_an_error(section: str, seed: str) -> None:
    with pytest.raises(ValueError, match=f"{section}: seed must be 0 to 2147483647. Received: {seed}"):
        override(Config(), [f"{section}.seed={seed}"])
