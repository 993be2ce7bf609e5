"""Compare the same test photos through Keras, the SavedModel, the server and the LiteRT files; fail when they differ.

Reads the test examples, the trained classifier, the SavedModel, the LiteRT files and what the infra validator's server
answered. Writes `parity.json`. It exists because one of these ways being wrong is a defect of the software, which no
accuracy shows as long as it is small.
"""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from components import examples, litert_exporter
from components.data import transform
from components.errors import ParityError
from components.infra_validator import ANSWERS
from components.storage.files import read_json, write_json
from export.spec import read_spec

QUANTIZED = ("litert_float16", "litert_dynamic", "litert_int8")
"""Measured here; whether they are good enough is said by the share of photos on which they name the same class."""


@dataclass(frozen=True)
class ParityOptions:
    """How the ways are compared.

    Attributes:
        num_examples: test photos.
        tolerance: how far a probability may be from Keras', in float32. Sums in another order move a ResNet50's by some
            1e-6.
    """

    num_examples: int = 8
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        if self.num_examples < 1:
            raise ValueError(f"num_examples must be at least 1. Received: {self.num_examples}")
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
) -> dict[str, Any]:
    """Compare all ways that there are.

    Raises:
        ParityError: two of them answer differently.
    """
    import keras

    from export import parity

    encoded = list(islice(transform.encoded(examples.shards(examples_dir, "test")), options.num_examples))
    files = litert_exporter.find(litert_dir, read_spec(export_dir)["model_name"])
    classifier = keras.models.load_model(training_dir / "model.keras", compile=False)
    answers = parity.predict(classifier, export_dir, files, encoded)
    served = read_json(infra_validation_dir / ANSWERS)
    answers |= {way: np.array(rows)[: len(encoded)] for way, rows in served.items()}
    tolerances = {way: options.tolerance for way in answers if way not in QUANTIZED}
    rows = parity.compare(answers, reference="keras", tolerances=tolerances)
    write_json(out_dir / "parity.json", {"reference": "keras", "ways": rows})
    failed = [f"{row['form']} by {row['max_difference']:.2g}" for row in rows if not row["passed"]]
    if failed:
        raise ParityError(
            "The same photo must get the same answer in every way, within parity.tolerance "
            f"({options.tolerance:g}). From Keras' answer differ: {', '.join(failed)}. "
            "This is a defect of the conversion or of the server, not of the data: nothing was pushed."
        )
    largest = max(row["max_difference"] for row in rows if row["tolerance"] is not None)
    return {"num_ways": len(answers), "num_examples": len(encoded), "max_difference": f"{largest:.1g}"}
