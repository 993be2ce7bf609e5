"""The same photo gets the same prediction from every form of the model, or nothing is pushed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components import parity
from components.artifacts.infra_validation import Responses, read_responses, write_responses
from components.artifacts.parity import read_parity
from components.errors import ParityError
from components.parity import ParityOptions
from export.parity import FormParity, compare, to_outputs


@pytest.fixture
def check(tmp_path: Path, inputs: Callable[[str], dict[str, Path]]) -> Callable[..., list[FormParity]]:
    """Return the function that compares two photos, with other responses of the server."""

    def check(responses: Responses, **folders: Path) -> list[FormParity]:
        write_responses(tmp_path, responses)
        folders = {**inputs("parity"), "infra_validation_dir": tmp_path, **folders}
        parity.check(**folders, out_dir=tmp_path, options=ParityOptions(num_examples=2))
        return read_parity(tmp_path)["forms"]

    return check


def test_every_form_is_compared(artifact: Callable[[str], Path]) -> None:
    forms = {row["form"]: row for row in read_parity(artifact("parity"))["forms"]}
    served = [f"{protocol}_{signature}" for protocol in ("rest", "grpc") for signature in ("serving_default", "images")]
    files = [f"litert_{kind}" for kind in ("dynamic", "float16", "float32", "int8")]
    assert set(forms) == {"saved_model_images", "saved_model_serving_default", *files, *served}
    # The server got two photos.
    assert all(row["num_images"] == (2 if form in served else 8) for form, row in forms.items())
    for form, row in forms.items():
        if form in parity.QUANTIZED:
            assert (row["tolerance"], row["passed"]) == (None, True)
            assert 0 < row["max_difference"] < 0.05
            # Of five known photos there are six ranks.
            assert 0 <= row["max_p_value_difference"] <= 2 / 6
        else:
            # Sums of float32 in another order; JSON gives nine digits.
            assert row["max_difference"] < 1e-5
            assert (row["tolerance"], row["agreement"], row["passed"]) == (1e-3, 1.0, True)
            assert row["p_value_tolerance"] == pytest.approx(1 / 6)
            assert row["max_p_value_difference"] <= 1 / 6 + 1e-6


def test_a_server_that_predicts_something_else_fails_the_run(
    check: Any, artifact: Callable[[str], Path], tmp_path: Path
) -> None:
    responses = read_responses(artifact("infra_validator"))
    responses["grpc_images"]["probabilities"][1][2] += 0.01
    with pytest.raises(
        ParityError, match=r"within parity\.tolerance \(0\.001\) .*differ: grpc_images by 0\.01, .* in p-values\."
    ):
        check(responses)
    assert [row["form"] for row in read_parity(tmp_path)["forms"] if not row["passed"]] == ["grpc_images"]


@pytest.mark.parametrize(("p_value", "message"), [(2 / 6, "0.33 in p-values"), (None, "without a p-value")])
def test_a_server_that_finds_a_photo_stranger_or_does_not_say_fails_the_run(
    check: Any, artifact: Callable[[str], Path], tmp_path: Path, p_value: float | None, message: str
) -> None:
    """One rank is what rounding may change, two are not."""
    responses = read_responses(artifact("infra_validator"))
    p_values = responses["rest_images"]["p_values"]
    (before,) = p_values[1:]
    assert before is not None
    p_values[1] = p_value and (before - p_value if before > 0.5 else before + p_value)
    with pytest.raises(ParityError, match=rf"p-values within 0\.17 .*rest_images by .*, {message}\."):
        check(responses)
    assert [row["form"] for row in read_parity(tmp_path)["forms"] if not row["passed"]] == ["rest_images"]


def test_what_was_not_made_is_not_compared(check: Any, tmp_path: Path) -> None:
    forms = [row["form"] for row in check({}, litert_dir=tmp_path)]
    assert forms == ["saved_model_images", "saved_model_serving_default"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_a_failure(value: float) -> None:
    given, of_photo, of_rank = to_outputs([[0.5, 0.5]], [0.5]), [[0.5, value]], [value]
    predictions = {
        "a": given,
        "b": to_outputs(of_photo, [0.5]),
        "c": to_outputs(of_photo, of_rank),
        "d": to_outputs([[0.5, 0.5]], of_rank),
        "e": given,
    }
    tolerances = dict.fromkeys("bde", 1e-3)
    rows = compare(predictions, reference="a", tolerances=tolerances, p_value_tolerance=0.1)
    assert [row["passed"] for row in rows] == [False, True, False, True]


@pytest.mark.parametrize(
    ("option", "value"), [("num_examples", 0), ("tolerance", 0), ("tolerance", 1), ("p_value_tolerance", 0)]
)
def test_options_out_of_range_are_refused(option: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{option} must .*Received: {value}"):
        ParityOptions(**{option: value})
