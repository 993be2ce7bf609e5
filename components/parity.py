"""Compare the predictions of Keras, the SavedModel, the server and the LiteRT files; fail when they differ.

Reads the test examples, the trained classifier, its limits, the SavedModel, the LiteRT files and the responses that
the infra validator got. Writes `parity.json`. It exists because a form that is wrong is a defect of the software,
which no accuracy shows as long as it is small.
"""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from components.artifacts.examples import read_encoded
from components.artifacts.infra_validation import read_responses
from components.artifacts.litert import find_litert_files
from components.artifacts.parity import write_parity
from components.artifacts.summary import Summary
from components.artifacts.training import read_classifier
from components.errors import ParityError
from components.options import check_at_least
from export.spec import read_spec

if TYPE_CHECKING:
    from export.parity import FormParity

QUANTIZED = ("litert_float16", "litert_dynamic", "litert_int8")
"""Only measured here: the LiteRT evaluator decides whether they are good enough."""


@dataclass(frozen=True)
class ParityOptions:
    """How the forms are compared.

    Attributes:
        num_examples: test photos.
        tolerance: how far a probability may be from that of Keras, in float32. Sums in another order move those of a
            ResNet50 by some 1e-6.
        p_value_tolerance: how far a p-value may be from that of Keras, or by one rank where ranks are coarser: such
            sums let one photo in a hundred change places with the next of 276 known ones.
    """

    num_examples: int = 8
    tolerance: float = 1e-3
    p_value_tolerance: float = 0.01

    def __post_init__(self) -> None:
        check_at_least(self, 1, "num_examples")
        for name in ("tolerance", "p_value_tolerance"):
            value = getattr(self, name)
            if not 0 < value < 1:
                raise ValueError(f"{name} must lie between 0 and 1. Received: {value}")


def check(
    *,
    examples_dir: Path,
    training_dir: Path,
    limits_dir: Path,
    export_dir: Path,
    infra_validation_dir: Path,
    litert_dir: Path,
    out_dir: Path,
    options: ParityOptions,
) -> Summary:
    """Compare all forms that there are.

    Raises:
        ParityError: two of them differ.
    """
    from export import parity
    from export.limits import read_limits

    encoded = [encoded for _, encoded in islice(read_encoded(examples_dir, "test"), options.num_examples)]
    files = find_litert_files(litert_dir, read_spec(export_dir)["model_name"])
    limits = read_limits(limits_dir)
    predictions = parity.predict(read_classifier(training_dir), limits, export_dir, files, encoded)
    for form, served in read_responses(infra_validation_dir).items():
        rows = (served[name][: len(encoded)] for name in ("probabilities", "p_values"))
        predictions[form] = parity.to_outputs(*rows)
    tolerances = {form: options.tolerance for form in predictions if form not in QUANTIZED}
    p_value_tolerance = max(options.p_value_tolerance, 1 / (len(limits.scores) + 1))
    forms = parity.compare(predictions, reference="keras", tolerances=tolerances, p_value_tolerance=p_value_tolerance)
    write_parity(out_dir, {"reference": "keras", "forms": forms})
    failed = [_describe(form) for form in forms if not form["passed"]]
    if failed:
        raise ParityError(
            "Every form of the model must predict the same for the same photo, probabilities within parity.tolerance "
            f"({options.tolerance:g}) and p-values within {p_value_tolerance:.2g} (parity.p_value_tolerance, or one "
            f"rank). From the prediction of Keras differ: {', '.join(failed)}. "
            "This is a defect of the conversion or of the server, not of the data: nothing was pushed."
        )
    largest = max(form["max_difference"] for form in forms if form["tolerance"] is not None)
    return {"num_forms": len(predictions), "num_examples": len(encoded), "max_difference": f"{largest:.1g}"}


def _describe(form: "FormParity") -> str:
    of_p_values = form["max_p_value_difference"]
    p_values = "without a p-value" if of_p_values is None else f"{of_p_values:.2g} in p-values"
    return f"{form['form']} by {form['max_difference']:.2g}, {p_values}"
