"""The same photo gets the same answer in every way, or nothing is pushed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components import infra_validator, parity
from components.errors import ParityError
from components.infra_validator import ANSWERS, InfraValidatorOptions
from components.parity import ParityOptions
from components.storage.files import read_json, write_json
from export.parity import compare

Check = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="module")
def infra_validation_dir(
    tmp_path_factory: pytest.TempPathFactory, examples_dir: Path, export_dir: Path, evaluation_dir: Path
) -> Path:
    folder = tmp_path_factory.mktemp("infra_validation")
    infra_validator.validate(
        examples_dir=examples_dir,
        export_dir=export_dir,
        evaluation_dir=evaluation_dir,
        out_dir=folder,
        options=InfraValidatorOptions(engine="local", num_examples=3),
    )
    return folder


@pytest.fixture
def check(
    tmp_path: Path,
    examples_dir: Path,
    training_dir: Path,
    export_dir: Path,
    infra_validation_dir: Path,
    litert_dir: Path,
) -> Check:
    def check(served_dir: Path = infra_validation_dir, files_dir: Path = litert_dir, **options: Any) -> Any:
        parity.check(
            examples_dir=examples_dir,
            training_dir=training_dir,
            export_dir=export_dir,
            infra_validation_dir=served_dir,
            litert_dir=files_dir,
            out_dir=tmp_path,
            options=ParityOptions(**options),
        )
        return read_json(tmp_path / "parity.json")["ways"]

    return check


def test_every_way_is_compared(check: Check) -> None:
    ways = {row["form"]: row for row in check(num_examples=5)}
    served = [f"{protocol}_{way}" for protocol in ("rest", "grpc") for way in ("serving_default", "images")]
    files = [f"litert_{kind}" for kind in ("dynamic", "float16", "float32", "int8")]
    assert set(ways) == {"saved_model_images", "saved_model_serving_default", *files, *served}
    assert all(row["num_images"] == (3 if way in served else 5) for way, row in ways.items())
    for way, row in ways.items():
        if way in parity.QUANTIZED:
            assert (row["tolerance"], row["passed"]) == (None, True)
            assert 0 < row["max_difference"] < 0.05
        else:
            # Sums of float32 in another order; JSON gives nine digits.
            assert row["max_difference"] < 1e-5
            assert (row["tolerance"], row["agreement"], row["passed"]) == (1e-3, 1.0, True)


def test_a_server_that_answers_something_else_fails_the_run(
    check: Check, infra_validation_dir: Path, tmp_path: Path
) -> None:
    answers = read_json(infra_validation_dir / ANSWERS)
    answers["grpc_images"][1][2] += 0.01
    write_json(tmp_path / "other" / ANSWERS, answers)
    with pytest.raises(ParityError, match=r"within parity\.tolerance \(0\.001\)\. .*differ: grpc_images by 0\.01\."):
        check(tmp_path / "other")
    assert not next(way for way in read_json(tmp_path / "parity.json")["ways"] if way["form"] == "grpc_images")[
        "passed"
    ]


def test_what_was_not_made_is_not_compared(check: Check, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    write_json(tmp_path / "nothing" / ANSWERS, {})
    ways = [row["form"] for row in check(tmp_path / "nothing", tmp_path / "nothing", num_examples=1)]
    assert ways == ["saved_model_images", "saved_model_serving_default"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_a_failure(value: float) -> None:
    answers = {"a": np.array([[0.5, 0.5]]), "b": np.array([[0.5, value]]), "c": np.array([[0.5, value]])}
    rows = compare(answers, reference="a", tolerances={"b": 1e-3})
    assert [row["passed"] for row in rows] == [False, True]


@pytest.mark.parametrize(("option", "value"), [("num_examples", 0), ("tolerance", 0), ("tolerance", 1)])
def test_options_out_of_range_are_refused(option: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{option} must .*Received: {value}"):
        ParityOptions(**{option: value})
