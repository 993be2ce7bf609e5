"""Write the report: one page that tells what was trained, how good it is and whether it was pushed.

Reads `examples.json` and the shards of the test split, `statistics.json`, `validation.json`, `history.json`,
`training.json`, `metrics.json`, `predictions.jsonl`, the `blessing.json` of both validators, the server's log
where it did not serve the model, `evaluation.json` of the LiteRT files, `parity.json`, `push.json`,
`explanations.json` and its pictures. Writes `report.html`, a page that needs nothing but itself (pictures inlined, no
script, no request), and `plots/*.png`. It exists so that a verdict can be judged without opening a single JSON file.
"""

import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from components import infra_validator
from components.errors import ComponentError
from components.reporting import page, plots
from components.storage.files import read_json
from serving.errors import read_tail

MAX_MISTAKES = 200
"""About 6 kB a thumbnail: with the plots, a page below 2 MB."""
MAX_CONFUSIONS = 5
THUMBNAIL_PX = 160


@dataclass(frozen=True)
class ReportOptions:
    """Say what the report shows.

    Attributes:
        num_mistakes: The most mistakes shown as pictures, 0–200.
    """

    num_mistakes: int = 24

    def __post_init__(self) -> None:
        if not 0 <= self.num_mistakes <= MAX_MISTAKES:
            raise ValueError(f"num_mistakes must lie in 0–{MAX_MISTAKES}. Received: {self.num_mistakes}.")


def build(
    *,
    examples_dir: Path,
    statistics_dir: Path,
    validation_dir: Path,
    training_dir: Path,
    evaluation_dir: Path,
    infra_validation_dir: Path,
    litert_evaluation_dir: Path,
    parity_dir: Path,
    push_dir: Path,
    explanation_dir: Path,
    out_dir: Path,
    options: ReportOptions,
) -> dict[str, int | float | str]:
    """Write `report.html` and `plots/` into `out_dir`; the same inputs give the same bytes.

    Every input folder is an artifact with its `manifest.json` and the files named in the module's docstring.

    Returns:
        The verdict, the number of all mistakes and the size of the page.

    Raises:
        FileNotFoundError: An input file is missing.
        ComponentError: The predictions are not of the photos in the test shards.
    """
    folders = {
        "examples": examples_dir,
        "statistics": statistics_dir,
        "validation": validation_dir,
        "training": training_dir,
        "metrics": evaluation_dir,
        "parity": parity_dir,
        "push": push_dir,
    }
    read = {name: read_json(folder / f"{name}.json") for name, folder in folders.items()}
    examples, training, metrics, push = (read[key] for key in ("examples", "training", "metrics", "push"))
    history = read_json(training_dir / "history.json")
    blessings = [read_json(folder / "blessing.json") for folder in (evaluation_dir, infra_validation_dir)]
    blessed = all(blessing["blessed"] for blessing in blessings)
    on_device = read_json(litert_evaluation_dir / "evaluation.json")
    steps = (
        examples_dir,
        statistics_dir,
        validation_dir,
        training_dir,
        evaluation_dir,
        infra_validation_dir,
        litert_evaluation_dir,
        parity_dir,
        push_dir,
        explanation_dir,
    )
    manifests = [read_json(folder / "manifest.json") for folder in steps]

    names, matrix = metrics["class_names"], metrics["confusion_matrix"]
    wrong = _find_wrong(evaluation_dir / "predictions.jsonl")
    shards = [examples_dir / shard for shard in examples["splits"]["test"]["shards"]]
    pictures = {
        "accuracy": plots.learning_curve(history, "accuracy"),
        "loss": plots.learning_curve(history, "loss"),
        "model_results": plots.model_results(metrics["per_class"], matrix, names),
        "confusion_matrix": plots.confusion_matrix(matrix, names),
        "calibration": plots.calibration(metrics["calibration"]["bins"]),
        "data": plots.data(read["statistics"]["splits"], names),
    }
    if on_device["files"]:
        pictures["on_device"] = plots.on_device({"SavedModel": on_device["saved_model"], **on_device["files"]})
    verdict = "Blessed" if blessed else "Not blessed"
    verdict += f", pushed as version {push['version']}" if push["pushed"] else ", not pushed"
    html = page.template("report.html.j2").render(
        **read,
        verdict=verdict,
        history=history,
        good=blessed and push["pushed"],
        checks=[check for blessing in blessings for check in blessing["checks"]],
        server_log="" if blessed else _read_server_log(infra_validation_dir),
        # The evaluation repeats both; whichever file admits a fallback is believed.
        data_fallback=examples["fallback"] or metrics["data"]["fallback"],
        weights_fallback=training["weights"]["fallback"] or metrics["weights"]["fallback"],
        on_device=on_device,
        confusions=_find_confusions(matrix, names),
        explanations=_describe_explanations(explanation_dir, names),
        mistakes=_describe_mistakes(wrong[: options.num_mistakes], shards, names),
        num_mistakes=len(wrong),
        manifests=manifests,
        trainer=manifests[steps.index(training_dir)],
        pictures={name: page.to_data_uri(png, "image/png") for name, png in pictures.items()},
    )
    (out_dir / "plots").mkdir(parents=True, exist_ok=True)
    for name, png in pictures.items():
        (out_dir / "plots" / f"{name}.png").write_bytes(png)
    # A file name that is not UTF-8 should cost a character, not the report.
    num_bytes = (out_dir / "report.html").write_bytes(html.encode("utf-8", "replace"))
    return {"verdict": verdict, "num_mistakes": len(wrong), "num_bytes": num_bytes}


def _read_server_log(infra_validation_dir: Path) -> str:
    """Return the end of the server's log; nothing where no server was started."""
    path = infra_validation_dir / infra_validator.LOG
    return read_tail(path) if path.exists() else ""


def _find_wrong(path: Path) -> list[dict[str, Any]]:
    """Return the wrong predictions, the most confident first, each with its `position` in the test split."""
    with path.open(encoding="utf-8") as lines:
        predictions = [{**json.loads(line), "position": position} for position, line in enumerate(lines)]
    wrong = [each for each in predictions if each["predicted"] != each["label"]]
    return sorted(wrong, key=lambda each: -each["probabilities"][each["predicted"]])


def _describe_mistakes(
    wrong: Sequence[dict[str, Any]], shards: Sequence[Path], class_names: Sequence[str]
) -> list[dict[str, Any]]:
    """Return what the page shows of each mistake: names, probabilities and a thumbnail (or None)."""
    photos = _read_photos(shards, {each["position"]: each["filename"] for each in wrong})
    return [
        {
            "filename": each["filename"],
            "true": class_names[each["label"]],
            "predicted": class_names[each["predicted"]],
            "probability": each["probabilities"][each["predicted"]],
            "true_probability": each["probabilities"][each["label"]],
            "picture": _to_thumbnail(photos[each["position"]]),
        }
        for each in wrong
    ]


def _describe_explanations(explanation_dir: Path, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Return what the page shows of each explained answer: names, probability and the picture."""
    return [
        {
            **answer,
            "true": class_names[answer["label"]],
            "predicted": class_names[answer["predicted"]],
            "picture": page.to_data_uri((explanation_dir / answer["picture"]).read_bytes(), "image/jpeg"),
        }
        for answer in read_json(explanation_dir / "explanations.json")
    ]


def _read_photos(shards: Sequence[Path], filenames: dict[int, str]) -> dict[int, bytes]:
    """Return the encoded photos at some positions of a split, given the file name expected at each."""
    if not filenames:
        return {}
    import tensorflow as tf  # Takes seconds to import, and a model without mistakes needs none of it.

    records = tf.data.TFRecordDataset([str(path) for path in shards]).take(max(filenames) + 1)
    photos = {}
    for position, record in enumerate(records):
        if position in filenames:
            feature = tf.train.Example.FromString(record.numpy()).features.feature
            filename = os.fsdecode(feature["image/filename"].bytes_list.value[0])
            if filename == filenames[position]:
                photos[position] = feature["image/encoded"].bytes_list.value[0]
    if lost := sorted(filenames.keys() - photos.keys()):
        raise ComponentError(
            "The predictions must be of the photos in the test shards, in their order. Received: "
            f"{filenames[lost[0]]!r} as prediction {lost[0]}, which is not the photo there. "
            "Evaluate these examples again with --force evaluator."
        )
    return photos


def _to_thumbnail(encoded: bytes) -> str | None:
    """Return a photo as the data URI of a JPEG of at most 160 px a side; None if it cannot be decoded."""
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except OSError:  # TensorFlow decodes some files that Pillow does not.
        return None
    buffer = io.BytesIO()
    upright.save(buffer, "JPEG", quality=80, comment=b"")
    return page.to_data_uri(buffer.getvalue(), "image/jpeg")


def _find_confusions(matrix: Sequence[Sequence[int]], names: Sequence[str]) -> list[tuple[str, str, int]]:
    """Return the most frequent confusions as (true class, predicted class, number of examples)."""
    cells = [
        (names[row], names[column], count)
        for row, counts in enumerate(matrix)
        for column, count in enumerate(counts)
        if count and row != column
    ]
    return sorted(cells, key=lambda cell: -cell[2])[:MAX_CONFUSIONS]
