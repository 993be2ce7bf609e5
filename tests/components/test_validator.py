"""The validator's rules and its schema, on the statistics of hand-made examples."""

import contextlib
import json
import math
from pathlib import Path
from typing import Any

import pytest

from components import statistics, validator
from components.errors import DataError
from components.validator import ValidatorOptions

HEALTHY = {
    "train": {"daisy": 6, "tulip": 6},
    "validation": {"daisy": 10, "tulip": 10},
    "test": {"daisy": 10, "tulip": 10},
}


def exclude(rule: str, count: int = 1) -> list[dict[str, Any]]:
    return [{"file": f"{rule}{i}.jpg", "split": None, "rule": rule, "reason": "-"} for i in range(count)]


class Project:
    """A folder with the outputs of the two steps and the state between runs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.out_dir, self.state_dir = root / "validation", root / "state"

    def write(
        self,
        counts: dict[str, dict[str, int]] = HEALTHY,
        *,
        excluded: list[dict[str, Any]] | None = None,
        image_format: str = "jpeg",
        brightness: float = 0.5,
        resolved: str = "synthetic",
    ) -> None:
        """Write the examples of `counts` ({split: {class: count}}) and compute their statistics."""
        class_names = list(counts["train"])
        examples = {
            "source": "auto",
            "resolved": resolved,
            "fallback": None,
            "class_names": class_names,
            "splits": {
                split: {"num_examples": sum(per_class.values()), "per_class": per_class, "shards": []}
                for split, per_class in counts.items()
            },
            "excluded": excluded or [],
        }
        pixels = {
            "format": image_format,
            "width": 320,
            "height": 240,
            "brightness": brightness,
            "contrast": 0.2,
        }
        lines = [
            json.dumps({"split": split, "label": class_names.index(name), **pixels})
            for split, per_class in counts.items()
            for name, count in per_class.items()
            for _ in range(count)
        ]
        examples_dir = self.root / "examples"
        examples_dir.mkdir(exist_ok=True)
        (examples_dir / "examples.json").write_text(json.dumps(examples), encoding="utf-8")
        (examples_dir / "index.jsonl").write_text("\n".join(lines), encoding="utf-8")
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
        anomalies = json.loads((self.out_dir / "validation.json").read_text(encoding="utf-8"))["anomalies"]
        return {(anomaly["severity"], anomaly["rule"]) for anomaly in anomalies}

    def read_outputs(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.out_dir.iterdir()}

    def read_state(self) -> dict[str, bytes]:
        paths = self.state_dir.iterdir() if self.state_dir.exists() else ()
        return {path.name: path.read_bytes() for path in paths}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


# Rules on the data itself


def test_validator_finds_nothing_in_healthy_data(project: Project) -> None:
    project.write()
    result = project.validate()
    assert result == {"num_warnings": 0, "schema": validator.schema_name("synthetic")}
    validation = json.loads((project.out_dir / "validation.json").read_text(encoding="utf-8"))
    assert validation == {"anomalies": [], "schema": result["schema"]}


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (
            {"train": {"daisy": 6}, "validation": {"daisy": 20}, "test": {"daisy": 20}},
            ("error", "single_class"),
        ),
        (HEALTHY | {"validation": {"daisy": 0, "tulip": 0}}, ("error", "empty_split")),
        (HEALTHY | {"train": {"daisy": 0, "tulip": 0}}, ("error", "empty_split")),
        (HEALTHY | {"test": {"daisy": 20, "tulip": 0}}, ("error", "missing_class")),
        (HEALTHY | {"train": {"daisy": 6, "tulip": 0}}, ("error", "missing_class")),
        (HEALTHY | {"train": {"daisy": 6, "tulip": 4}}, ("error", "too_few_examples")),
        (HEALTHY | {"train": {"daisy": 61, "tulip": 6}}, ("warning", "imbalance")),
        (HEALTHY | {"test": {"daisy": 10, "tulip": 9}}, ("warning", "small_split")),
    ],
)
def test_validator_names_the_one_rule_that_counts_break(
    project: Project, counts: dict[str, dict[str, int]], expected: tuple[str, str]
) -> None:
    project.write(counts)
    assert project.find_rules() == {expected}


@pytest.mark.parametrize(
    "train",
    [{"daisy": 5, "tulip": 5}, {"daisy": 60, "tulip": 6}],
    ids=["min_examples_per_class", "max_imbalance"],
)
def test_validator_accepts_counts_at_the_limit(project: Project, train: dict[str, int]) -> None:
    project.write(HEALTHY | {"train": train})
    assert project.find_rules() == set()


def test_validator_takes_its_limits_from_the_options(project: Project) -> None:
    project.write(HEALTHY | {"train": {"daisy": 12, "tulip": 4}})
    assert project.find_rules(min_examples_per_class=4) == set()
    assert project.find_rules(min_examples_per_class=4, max_imbalance=2) == {("warning", "imbalance")}


def test_validator_stops_when_too_many_files_are_unusable(project: Project) -> None:
    project.write(excluded=exclude("unreadable", 5) + exclude("too_large", 5))  # 10 of 62
    assert project.find_rules() == {("error", "too_many_excluded"), ("warning", "excluded")}
    assert project.find_rules(max_excluded_fraction=0.2) == {("warning", "excluded")}


@pytest.mark.parametrize("rule", ["duplicate", "near_duplicate"])
def test_validator_only_warns_of_duplicates_however_many(project: Project, rule: str) -> None:
    project.write(excluded=exclude(rule, 100))
    assert project.find_rules() == {("warning", "excluded")}


def test_validator_warns_of_conflicting_labels(project: Project) -> None:
    project.write(excluded=exclude("conflicting_label", 40))
    assert project.find_rules() == {("warning", "conflicting_label")}


def test_validator_names_the_first_excluded_files(project: Project) -> None:
    project.write(excluded=exclude("unreadable", 5))
    project.validate()
    text = (project.out_dir / "validation.json").read_text(encoding="utf-8")
    assert "unreadable0.jpg (unreadable)" in text
    assert "and 2 more" in text
    assert "unreadable3.jpg" not in text


# The schema, from run to run


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"counts": {s: {**c, "rose": 5} for s, c in HEALTHY.items()}}, ("error", "schema_class_new")),
        ({"image_format": "png"}, ("warning", "unseen_format")),
        ({"brightness": 0.9}, ("warning", "brightness_drift")),
        ({"counts": HEALTHY | {"train": {"daisy": 5, "tulip": 500}}}, ("warning", "label_drift")),
    ],
)
def test_validator_holds_later_data_against_the_schema(
    project: Project, change: dict[str, Any], expected: tuple[str, str]
) -> None:
    project.write()
    project.validate()
    before = project.read_state()
    project.write(**change)
    limits = {"max_imbalance": 1000, "max_drift": 0.2}  # 1/101 of the labels against 1/2: 0.25 bits
    assert project.find_rules(**limits) == {expected}
    assert project.read_state() == before
    assert project.find_rules(**limits, update_schema=True) == set()
    assert project.read_state() != before
    assert project.find_rules(**limits) == set()


def test_validator_tells_how_to_accept_a_renamed_class(project: Project) -> None:
    project.write()
    project.validate()
    project.write({split: {"daisy": 10, "rose": 10} for split in HEALTHY})
    with pytest.raises(DataError, match=r"--set validator\.update_schema=true") as failure:
        project.validate()
    assert "classes ['tulip'] of the schema are not in the data" in str(failure.value)
    assert "classes ['rose'] are not in the schema" in str(failure.value)


def test_validator_tolerates_drift_within_the_limit(project: Project) -> None:
    project.write()
    project.validate()
    project.write(HEALTHY | {"train": {"daisy": 6, "tulip": 8}}, brightness=0.52)
    assert project.find_rules() == set()


def test_validator_writes_the_same_bytes_when_run_again(project: Project) -> None:
    project.write(HEALTHY | {"test": {"daisy": 2, "tulip": 3}}, excluded=exclude("duplicate"))
    first_result, first_outputs, first_state = (
        project.validate(),
        project.read_outputs(),
        project.read_state(),
    )
    assert set(first_outputs) == {"schema.json", "validation.json"}
    assert list(first_state.values()) == [first_outputs["schema.json"]]
    assert project.validate() == first_result
    assert project.read_outputs() == first_outputs
    assert project.read_state() == first_state
    assert project.validate(update_schema=True) == first_result
    assert project.read_outputs() == first_outputs


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


def test_failing_data_does_not_update_the_schema(project: Project) -> None:
    project.write()
    project.validate()
    before = project.read_state()
    project.write({split: {"daisy": 10, "rose": 1} for split in HEALTHY})
    with pytest.raises(DataError, match="too_few_examples"):
        project.validate(update_schema=True)
    assert project.read_state() == before


def test_validator_keeps_one_schema_for_each_source(project: Project) -> None:
    for resolved in ("synthetic", "/data/my flowers", "/data/my-flowers"):
        project.write(resolved=resolved)
        project.validate()
    names = sorted(project.read_state())
    assert len(names) == 3
    assert names[0].startswith("data-my-flowers-")
    assert names[2].startswith("synthetic-")


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_validator_refuses_a_broken_schema_until_it_is_updated(project: Project, text: str) -> None:
    project.write()
    project.validate()
    (path,) = project.state_dir.iterdir()
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"A schema must .*Delete it and run again"):
        project.validate()
    project.validate(update_schema=True)
    assert "class_names" in validator.load_schema(path)


# The divergence and the options


def test_jensen_shannon_matches_known_values() -> None:
    assert validator.jensen_shannon({"a": 3, "b": 1}, {"a": 75, "b": 25}) == 0.0
    assert validator.jensen_shannon({"a": 1}, {"b": 1}) == 1.0
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
