"""Compare the predictions of Keras, the SavedModel, the server and the LiteRT files; fail when they differ.

Reads the test examples, the trained classifier, the SavedModel, the LiteRT files and the responses that the infra
validator got. Writes `parity.json`. It exists because a form that is wrong is a defect of the software, which no
accuracy shows as long as it is small.
"""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from components.artifacts.examples import read_encoded
from components.artifacts.infra_validation import read_responses
from components.artifacts.litert import find_litert_files
from components.artifacts.parity import write_parity
from components.artifacts.summary import Summary
from components.artifacts.training import read_classifier
from components.errors import ParityError
from components.options import check_at_least
from export.spec import read_spec

QUANTIZED = ("litert_float16", "litert_dynamic", "litert_int8")
"""Only measured here: the LiteRT evaluator decides whether they are good enough."""


@dataclass(frozen=True)
class ParityOptions:
    """How the forms are compared.

    Attributes:
        num_examples: test photos.
        tolerance: how far a probability may be from that of Keras, in float32. Sums in another order move those of a
            ResNet50 by some 1e-6.
    """

    num_examples: int = 8
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        check_at_least(self, 1, "num_examples")
        if not 0 < self.tolerance < 1:
            raise ValueError(f"tolerance must lie between 0 and 1. Received: {self.tolerance}")


def check(
    *,
    examples_dir: Path,
    training_dir: Path,
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

    encoded = [encoded for _, encoded in islice(read_encoded(examples_dir, "test"), options.num_examples)]
    files = find_litert_files(litert_dir, read_spec(export_dir)["model_name"])
    predictions = parity.predict(read_classifier(training_dir), export_dir, files, encoded)
    responses = read_responses(infra_validation_dir)
    predictions |= {form: np.array(rows)[: len(encoded)] for form, rows in responses.items()}
    tolerances = {form: options.tolerance for form in predictions if form not in QUANTIZED}
    forms = parity.compare(predictions, reference="keras", tolerances=tolerances)
    write_parity(out_dir, {"reference": "keras", "forms": forms})
    failed = [f"{form['form']} by {form['max_difference']:.2g}" for form in forms if not form["passed"]]
    if failed:
        raise ParityError(
            "Every form of the model must predict the same for the same photo, within parity.tolerance "
            f"({options.tolerance:g}). From the prediction of Keras differ: {', '.join(failed)}. "
            "This is a defect of the conversion or of the server, not of the data: nothing was pushed."
        )
    largest = max(form["max_difference"] for form in forms if form["tolerance"] is not None)
    return {"num_forms": len(predictions), "num_examples": len(encoded), "max_difference": f"{largest:.1g}"}
