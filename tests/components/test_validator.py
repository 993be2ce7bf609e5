"""The validator's rules and its schema, on the statistics of examples made by hand."""

import contextlib
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from components import statistics, validator
from components.artifacts.examples import Exclusion
from components.artifacts.validation import read_schema, read_validation
from components.errors import DataError
from components.validator import ValidatorOptions
from pipelines.config import Config, override
from tests.components import hand_made

Counts = dict[str, dict[str, int]]
HEALTHY: Counts = {
    "train": {"daisy": 6, "tulip": 6},
    "validation": {"daisy": 10, "tulip": 10},
    "test": {"daisy": 10, "tulip": 10},
}


def exclude(rule: str, count: int = 1) -> list[Exclusion]:
    return [{"file": f"{rule}{i}.jpg", "split": "train", "rule": rule, "reason": "-"} for i in range(count)]


class Project:
    """A folder with the outputs of the two steps and the state between runs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.out_dir, self.state_dir = root / "validation", root / "state"

    def write(
        self,
        counts: Counts = HEALTHY,
        *,
        excluded: Sequence[Exclusion] = (),
        resolved: str = "synthetic",
        **images: Any,
    ) -> None:
        """Write the examples of `counts` ({split: {class: count}}) and compute their statistics."""
        class_names = list(counts["train"])
        rows = [
            hand_made.make_row(split, class_names.index(name), **images)
            for split, per_class in counts.items()
            for name, count in per_class.items()
            for _ in range(count)
        ]
        examples_dir = hand_made.write(
            self.root / "examples", rows, class_names=class_names, excluded=excluded, resolved=resolved
        )
        statistics.compute(examples_dir=examples_dir, out_dir=self.root / "statistics")

    def validate(self, **options: Any) -> dict[str, int | float | str]:
        return validator.validate(
            statistics_dir=self.root / "statistics",
            out_dir=self.out_dir,
            state_dir=self.state_dir,
            options=ValidatorOptions(**options),
        )

    def find_rules(self, **options: Any) -> set[tuple[str, str]]:
        """Validate, whether the data passes or not, and return (severity, rule) of each anomaly."""
        with contextlib.suppress(DataError):
            self.validate(**options)
        return {(anomaly["severity"], anomaly["rule"]) for anomaly in read_validation(self.out_dir)["anomalies"]}

    def read_outputs(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.out_dir.iterdir()}

    def read_state(self) -> dict[str, bytes]:
        paths = self.state_dir.iterdir() if self.state_dir.exists() else ()
        return {path.name: path.read_bytes() for path in paths}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture
def known(project: Project) -> Project:
    """A project that has the schema of healthy data."""
    project.write()
    project.validate()
    return project


# Rules on the data itself


def test_validator_finds_nothing_in_healthy_data(project: Project) -> None:
    project.write()
    result = project.validate()
    assert result == {"num_warnings": 0, "schema": validator.schema_name("synthetic")}
    assert read_validation(project.out_dir) == {"anomalies": [], "schema": result["schema"]}


@pytest.mark.parametrize(
    ("change", "options", "expected"),
    [
        ({"validation": {"daisy": 0, "tulip": 0}}, {}, ("error", "empty_split")),
        ({"train": {"daisy": 0, "tulip": 0}}, {}, ("error", "empty_split")),
        ({"test": {"daisy": 20, "tulip": 0}}, {}, ("error", "missing_class")),
        ({"train": {"daisy": 6, "tulip": 0}}, {}, ("error", "missing_class")),
        ({"train": {"daisy": 6, "tulip": 4}}, {}, ("error", "too_few_examples")),
        ({"train": {"daisy": 12, "tulip": 4}}, {"min_examples_per_class": 4}, None),
        ({"train": {"daisy": 5, "tulip": 5}}, {}, None),
        ({"train": {"daisy": 60, "tulip": 6}}, {}, None),
        ({"train": {"daisy": 61, "tulip": 6}}, {}, ("warning", "imbalance")),
        ({"train": {"daisy": 12, "tulip": 5}}, {"max_imbalance": 2}, ("warning", "imbalance")),
        ({"test": {"daisy": 10, "tulip": 9}}, {}, ("warning", "small_split")),
        ({split: {"daisy": 20} for split in HEALTHY}, {}, ("error", "single_class")),
    ],
    ids=str,
)
def test_validator_names_the_one_rule_that_counts_break(
    project: Project, change: Counts, options: dict[str, float], expected: tuple[str, str] | None
) -> None:
    project.write(HEALTHY | change)
    assert project.find_rules(**options) == ({expected} if expected else set())


def test_validator_stops_when_too_many_files_are_unusable(project: Project) -> None:
    project.write(excluded=exclude("unreadable", 5) + exclude("too_large", 5))  # 10 of 62
    assert project.find_rules() == {("error", "too_many_excluded"), ("warning", "excluded")}
    assert project.find_rules(max_excluded_fraction=0.2) == {("warning", "excluded")}


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("duplicate", "excluded"), ("near_duplicate", "excluded"), ("conflicting_label", "conflicting_label")],
)
def test_validator_only_warns_of_duplicates_however_many(project: Project, rule: str, expected: str) -> None:
    project.write(excluded=exclude(rule, 100))
    assert project.find_rules() == {("warning", expected)}


def test_validator_names_the_first_excluded_files(project: Project) -> None:
    project.write(excluded=exclude("unreadable", 5))
    project.validate()
    (anomaly,) = read_validation(project.out_dir)["anomalies"]
    assert "unreadable0.jpg (unreadable)" in anomaly["message"]
    assert "and 2 more" in anomaly["message"]
    assert "unreadable3.jpg" not in anomaly["message"]


# The schema, from run to run


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"counts": {s: {**c, "rose": 5} for s, c in HEALTHY.items()}}, ("error", "schema_class_new")),
        ({"format": "png"}, ("warning", "unseen_format")),
        ({"brightness": 0.9}, ("warning", "brightness_drift")),
        ({"counts": HEALTHY | {"train": {"daisy": 5, "tulip": 500}}}, ("warning", "label_drift")),
    ],
)
def test_validator_holds_later_data_against_the_schema(
    known: Project, change: dict[str, Any], expected: tuple[str, str]
) -> None:
    before = known.read_state()
    known.write(**change)
    limits = {"max_imbalance": 1000, "max_drift": 0.2}  # 1/101 of the labels against 1/2: 0.25 bits
    assert known.find_rules(**limits) == {expected}
    assert known.read_state() == before
    assert known.find_rules(**limits, update_schema=True) == set()
    assert known.read_state() != before
    assert known.find_rules(**limits) == set()


def test_message_states_how_to_accept_a_renamed_class(known: Project) -> None:
    known.write({split: {"daisy": 10, "rose": 10} for split in HEALTHY})
    with pytest.raises(DataError, match=r"--set validator\.update_schema=true") as failure:
        known.validate()
    assert "classes ['tulip'] of the schema are not in the data" in str(failure.value)
    assert "classes ['rose'] are not in the schema" in str(failure.value)


def test_validator_tolerates_drift_within_the_limit(known: Project) -> None:
    known.write(HEALTHY | {"train": {"daisy": 6, "tulip": 8}}, brightness=0.52)
    assert known.find_rules() == set()


def test_validator_writes_the_same_bytes_when_run_again(project: Project) -> None:
    project.write(HEALTHY | {"test": {"daisy": 2, "tulip": 3}}, excluded=exclude("duplicate"))
    result, outputs, state = project.validate(), project.read_outputs(), project.read_state()
    assert set(outputs) == {"schema.json", "validation.json"}
    assert list(state.values()) == [outputs["schema.json"]]
    for options in ({}, {"update_schema": True}):
        assert project.validate(**options) == result
        assert project.read_outputs() == outputs
        assert project.read_state() == state


def test_failing_data_lists_every_error_and_leaves_no_schema(project: Project) -> None:
    project.write(HEALTHY | {"train": {"daisy": 6, "tulip": 1}, "test": {"daisy": 0, "tulip": 20}})
    with pytest.raises(DataError) as failure:
        project.validate()
    lines = str(failure.value).splitlines()
    assert [line.split(":")[0] for line in lines[1:-1]] == ["- missing_class", "- too_few_examples"]
    assert "class daisy has no example in test" in lines[1]
    assert lines[-1].endswith("then run again.")
    assert set(project.read_outputs()) == {"schema.json", "validation.json"}
    assert project.read_state() == {}


def test_failing_data_does_not_update_the_schema(known: Project) -> None:
    before = known.read_state()
    known.write({split: {"daisy": 10, "rose": 1} for split in HEALTHY})
    with pytest.raises(DataError, match="too_few_examples"):
        known.validate(update_schema=True)
    assert known.read_state() == before


def test_validator_keeps_one_schema_for_each_source(project: Project) -> None:
    for resolved in ("synthetic", "/data/my flowers", "/data/my-flowers"):
        project.write(resolved=resolved)
        project.validate()
    names = sorted(project.read_state())
    assert len(names) == 3
    assert names[0].startswith("data-my-flowers-")
    assert names[2].startswith("synthetic-")


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_validator_refuses_a_broken_schema_until_it_is_updated(known: Project, text: str) -> None:
    (path,) = known.state_dir.iterdir()
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"A schema must .*Delete it and run again"):
        known.validate()
    known.validate(update_schema=True)
    assert "class_names" in read_schema(path)


# The divergence and the options


def test_jensen_shannon_matches_known_values() -> None:
    # By hand: p = (1, 0), q = (1/2, 1/2), m = (3/4, 1/4); log2(4/3)/2 + (log2(2/3)/2 + log2(2)/2)/2.
    expected = math.log2(4 / 3) / 2 + (math.log2(2 / 3) / 2 + 0.5) / 2
    assert validator.jensen_shannon({"a": 1}, {"a": 1, "b": 1}) == pytest.approx(expected, abs=1e-12)
    assert validator.jensen_shannon({}, {"a": 1}) == 0.0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("min_examples_per_class", 0),
        ("max_imbalance", 0.5),
        ("max_imbalance", math.nan),
        ("max_excluded_fraction", 1.1),
        ("max_drift", -0.1),
        ("max_drift", math.nan),
    ],
)
def test_options_refuse_a_limit_out_of_range(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"{name} must .*Received: {value}"):
        ValidatorOptions(**{name: value})  # type: ignore[arg-type]


# Remedies


BROKEN: dict[str, dict[str, Any]] = {
    "single_class": {"counts": {split: {"daisy": 20} for split in HEALTHY}},
    "empty_split": {"counts": HEALTHY | {"validation": {"daisy": 0, "tulip": 0}}},
    "missing_class": {"counts": HEALTHY | {"test": {"daisy": 20, "tulip": 0}}},
    "missing_train_class": {"counts": HEALTHY | {"train": {"daisy": 6, "tulip": 0}}},
    "small_split": {"counts": HEALTHY | {"test": {"daisy": 10, "tulip": 9}}},
    "too_few_examples": {"counts": HEALTHY | {"train": {"daisy": 6, "tulip": 2}}},
    "imbalance": {"counts": HEALTHY | {"train": {"daisy": 95, "tulip": 6}}},
    "too_many_excluded": {"excluded": exclude("unreadable", 10)},
    "excluded": {"excluded": exclude("unreadable", 1)},
    "conflicting_label": {"excluded": exclude("conflicting_label", 1)},
    "schema_class_missing": {"counts": {split: {"daisy": 10, "rose": 10} for split in HEALTHY}},
    "schema_class_new": {"counts": {split: {**counts, "rose": 9} for split, counts in HEALTHY.items()}},
    "unseen_format": {"format": "png"},
    "brightness_drift": {"brightness": 0.9},
    "label_drift": {"counts": HEALTHY | {"train": {"daisy": 5, "tulip": 500}}},
}


@pytest.mark.parametrize(
    ("rule", "remedy"),
    [
        ("single_class", "Add the folder of another, or label photos of it: make review, or"),
        ("empty_split", "--set examples.validation_fraction=0.2"),
        ("missing_class", "class tulip has no example in test. Add photos, or enlarge its share"),
        ("missing_train_class", "python -m pipelines select --input FOLDER --count 2"),
        ("small_split", "--set examples.test_fraction=0.2"),
        ("too_few_examples", "Add 3 of it. To find some among photos without labels: python -m pipelines select"),
        ("imbalance", "--set trainer.class_weights=balanced, or add 4 of tulip."),
        ("too_many_excluded", "or allow more: --set validator.max_excluded_fraction=0.17."),
        ("excluded", "Repair or remove unreadable files."),
        ("conflicting_label", "make review, or python -m pipelines labels import FILE"),
        ("schema_class_missing", "--set validator.update_schema=true"),
        ("schema_class_new", "python -m pipelines labels undo PHOTO"),
        ("unseen_format", "--set validator.update_schema=true"),
        ("brightness_drift", "Photos are brighter than before: look at the new ones."),
        ("label_drift", "Most grew tulip, from 50% to 99%: add photos of the others, or --set trainer.class_weights="),
    ],
)
def test_each_anomaly_names_a_remedy_that_exists(known: Project, rule: str, remedy: str) -> None:
    known.write(**BROKEN[rule])
    known.find_rules(max_drift=0.2)
    (message,) = [
        a["message"] for a in read_validation(known.out_dir)["anomalies"] if a["rule"] == rule.replace("train_", "")
    ]
    assert remedy in message
    for option in re.findall(r"--set (\S+?=[\w.]*\w)", message):
        override(Config(), [option])
    for command in re.findall(r"python -m pipelines (\w+)", message):
        assert command in {"labels", "select"}


@pytest.mark.parametrize("rule", sorted(set(validator.REMEDIES)))
def test_photos_that_are_left_out_have_a_remedy_by_their_rule(project: Project, rule: str) -> None:
    project.write(excluded=exclude(rule))
    project.find_rules()
    (anomaly,) = read_validation(project.out_dir)["anomalies"]
    assert anomaly["message"].endswith(validator.REMEDIES[rule])


def test_an_imbalance_counts_what_is_missing_of_each_class(project: Project) -> None:
    train = {"daisy": 100, "tulip": 6, "rose": 8, "aster": 5, "lily": 9, "poppy": 60}
    project.write(dict.fromkeys(HEALTHY, train))
    project.validate()
    (anomaly,) = read_validation(project.out_dir)["anomalies"]
    assert "add 5 of aster, 4 of tulip, 2 of rose and more of 1 other class" in anomaly["message"]
    assert f"--count {12 * 6}" in anomaly["message"]


def test_a_split_that_lacks_train_examples_asks_for_photos(project: Project) -> None:
    project.write(HEALTHY | {"train": {"daisy": 0, "tulip": 0}})
    with pytest.raises(DataError, match=r"train has no example\. Add photos, or label some: make review"):
        project.validate()
