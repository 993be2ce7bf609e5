"""Write the report: one page that tells what was trained, how good it is and whether it was pushed.

Reads the examples, their statistics and validation, the suspect labels, the learning curve, the training, the
evaluation, the blessings of both validators, the server's log where it did not serve the model, the evaluation of the
LiteRT files, the parity, the push and the explanations. Writes `report.html`, a page that needs nothing but itself
(images inlined, no script, no request), and `plots/*.png`. It exists so that a verdict can be judged without opening
a single JSON file.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from components.artifacts.blessing import Check, read_blessing
from components.artifacts.evaluation import Metrics, Prediction, read_metrics, read_predictions
from components.artifacts.examples import Examples, Exclusion, read_examples, read_index
from components.artifacts.explanations import read_explanations
from components.artifacts.infra_validation import SERVER_LOG
from components.artifacts.labels import AppliedCounts, count_applied, read_applied
from components.artifacts.learning_curve import read_learning_curve
from components.artifacts.litert_evaluation import LiteRTEvaluation, read_litert_evaluation
from components.artifacts.manifest import read_manifest
from components.artifacts.parity import read_parity
from components.artifacts.push import Push, read_push
from components.artifacts.statistics import Statistics, read_statistics
from components.artifacts.summary import Summary
from components.artifacts.suspects import Outlier, Suspect, read_outliers, read_suspects
from components.artifacts.training import History, read_history, read_training
from components.artifacts.validation import read_validation
from components.options import check_range
from components.reporting import limits_plots, page, plots
from components.reporting.gallery import read_photos, to_thumbnail
from components.training.label_errors import MIN_PHOTOS
from serving.errors import read_tail

MAX_PHOTOS = 200
"""Of each kind. At about 6 kB a thumbnail a page has below 2 MB with so many, and 7 MB with as many of each."""
MAX_CONFUSIONS = 5


@dataclass(frozen=True)
class ReportOptions:
    """What the report shows.

    Attributes:
        num_mistakes: at most so many mistakes are shown as photos, 0 to 200.
        num_strange: so many of the test photos, and of those to train on, that look least like the others, 0 to 200.
        num_suspects: at most so many photos whose label is suspect, and of look-alikes with different ones, 0 to 200.
    """

    num_mistakes: int = 24
    num_strange: int = 12
    num_suspects: int = 24

    def __post_init__(self) -> None:
        check_range(self, 0, MAX_PHOTOS, "num_mistakes", "num_strange", "num_suspects")


class _Shown(TypedDict):
    """What the page shows of a prediction; the thumbnail is a data URI, or `None` if it cannot be made."""

    filename: str
    true: str
    predicted: str
    probability: float
    true_probability: float
    p_value: float | None
    is_known: bool | None
    thumbnail: str | None


class _Labels(TypedDict):
    """What the page shows of the labels to train on; the thumbnails are data URIs by file name."""

    decisions: AppliedCounts
    people: dict[str, int]
    num_suspects: int
    suspects: list[Suspect]
    conflicts: list[Exclusion]
    outliers: list[Outlier]
    unjudged: list[str]
    thumbnails: dict[str, str | None]


class _Decision(TypedDict):
    """What the page shows of the decision to push; `good` is a model that was blessed and pushed."""

    verdict: str
    good: bool
    push: Push
    checks: list[Check]
    server_log: str


class _Explanation(TypedDict):
    """What the page shows of an explained prediction; the image is a data URI."""

    filename: str
    true: str
    predicted: str
    probability: float
    image: str


def build(
    *,
    examples_dir: Path,
    statistics_dir: Path,
    validation_dir: Path,
    suspects_dir: Path,
    learning_curve_dir: Path,
    training_dir: Path,
    evaluation_dir: Path,
    infra_validation_dir: Path,
    litert_evaluation_dir: Path,
    parity_dir: Path,
    push_dir: Path,
    explanation_dir: Path,
    out_dir: Path,
    options: ReportOptions,
) -> Summary:
    """Write `report.html` and `plots/` into `out_dir`; the same inputs give the same bytes.

    Returns:
        The verdict, the number of all mistakes and the size of the page.

    Raises:
        FileNotFoundError: an input file is missing.
        ComponentError: the predictions are not of the photos in the test shards.
    """
    inputs = [
        examples_dir,
        statistics_dir,
        validation_dir,
        suspects_dir,
        learning_curve_dir,
        training_dir,
        evaluation_dir,
        infra_validation_dir,
        litert_evaluation_dir,
        parity_dir,
        push_dir,
        explanation_dir,
    ]
    examples, statistics = read_examples(examples_dir), read_statistics(statistics_dir)
    training, history = read_training(training_dir), read_history(training_dir)
    metrics, on_device = read_metrics(evaluation_dir), read_litert_evaluation(litert_evaluation_dir)
    predictions = read_predictions(evaluation_dir)
    mistakes = _find_mistakes(predictions)
    strangest = _find_strangest(predictions)[: options.num_strange]
    images = _draw(history, metrics, statistics, on_device)
    decision = _describe_decision(evaluation_dir, infra_validation_dir, push_dir)
    html = page.template("report").render(
        **decision,
        examples=examples,
        statistics=statistics,
        validation=read_validation(validation_dir),
        training=training,
        history=history,
        metrics=metrics,
        # The evaluation repeats both; whichever file admits a fallback is believed.
        data_fallback=examples["fallback"] or metrics["data"]["fallback"],
        weights_fallback=training["weights"]["fallback"] or metrics["weights"]["fallback"],
        on_device=on_device,
        parity=read_parity(parity_dir),
        confusions=_find_confusions(metrics["confusion_matrix"], metrics["class_names"]),
        explanations=_describe_explanations(explanation_dir, metrics["class_names"]),
        mistakes=_describe(mistakes[: options.num_mistakes], examples_dir, metrics["class_names"]),
        strangest=_describe(strangest, examples_dir, metrics["class_names"]),
        num_mistakes=len(mistakes),
        labels=_describe_labels(suspects_dir, examples_dir, examples, options),
        learning_curve=read_learning_curve(learning_curve_dir),
        manifests=[read_manifest(folder) for folder in inputs],
        trainer=read_manifest(training_dir),
        plots={name: page.to_data_uri(png, "image/png") for name, png in images.items()},
    )
    num_bytes = _write(out_dir, html, images)
    return {"verdict": decision["verdict"], "num_mistakes": len(mistakes), "num_bytes": num_bytes}


def _describe_decision(evaluation_dir: Path, infra_validation_dir: Path, push_dir: Path) -> _Decision:
    blessings, push = [read_blessing(evaluation_dir), read_blessing(infra_validation_dir)], read_push(push_dir)
    blessed = all(blessing["blessed"] for blessing in blessings)
    verdict = "Blessed" if blessed else "Not blessed"
    return {
        "verdict": verdict + (f", pushed as version {push['version']}" if push["pushed"] else ", not pushed"),
        "good": blessed and push["pushed"],
        "push": push,
        "checks": [check for blessing in blessings for check in blessing["checks"]],
        "server_log": "" if blessed else _read_server_log(infra_validation_dir),
    }


def _draw(
    history: dict[str, History], metrics: Metrics, statistics: Statistics, on_device: LiteRTEvaluation
) -> dict[str, bytes]:
    """Return the plots, PNG files by name."""
    names, matrix = metrics["class_names"], metrics["confusion_matrix"]
    images = {
        "accuracy": plots.learning_curve(history, "accuracy"),
        "loss": plots.learning_curve(history, "loss"),
        "model_results": plots.model_results(metrics["per_class"], matrix, names),
        "confusion_matrix": plots.confusion_matrix(matrix, names),
        "calibration": plots.calibration(
            metrics["calibration"]["bins"], before=metrics["uncalibrated"]["calibration"]["bins"]
        ),
        "data": plots.data(statistics["splits"], names),
    }
    if limits := metrics["limits"]:
        images["risk_coverage"] = limits_plots.risk_coverage(limits["risk_coverage"])
        foreign = limits["foreign"]["p_values"] if limits["foreign"] else ()
        images["p_values"] = limits_plots.p_values(limits["p_values"], foreign, limits["expected_refused_share"])
    if on_device["saved_model"]:
        images["on_device"] = plots.on_device({"SavedModel": on_device["saved_model"], **on_device["files"]})
    return images


def _write(out_dir: Path, html: str, images: dict[str, bytes]) -> int:
    """Write the page and the plots; return the size of the page in bytes."""
    (out_dir / "plots").mkdir(parents=True, exist_ok=True)
    for name, png in images.items():
        (out_dir / "plots" / f"{name}.png").write_bytes(png)
    # A file name that is not UTF-8 should cost a character, not the report.
    return (out_dir / "report.html").write_bytes(html.encode("utf-8", "replace"))


def _read_server_log(infra_validation_dir: Path) -> str:
    """Return the end of the server's log; nothing where no server was started."""
    path = infra_validation_dir / SERVER_LOG
    return read_tail(path) if path.exists() else ""


def _find_mistakes(predictions: Sequence[Prediction]) -> list[tuple[int, Prediction]]:
    """Return the wrong predictions with their positions in the test split, the most confident first."""
    wrong = [(position, p) for position, p in enumerate(predictions) if p["predicted"] != p["label"]]
    return sorted(wrong, key=lambda each: -each[1]["probabilities"][each[1]["predicted"]])


def _find_strangest(predictions: Sequence[Prediction]) -> list[tuple[int, Prediction]]:
    """Return the predictions with their positions, the least p-value first; none of a model without limits."""
    return sorted(
        ((position, p) for position, p in enumerate(predictions) if p["p_value"] is not None),
        key=lambda each: each[1]["p_value"] or 0.0,
    )


def _describe(
    predictions: Sequence[tuple[int, Prediction]], examples_dir: Path, class_names: Sequence[str]
) -> list[_Shown]:
    photos = read_photos(examples_dir, {position: each["filename"] for position, each in predictions})
    return [
        {
            "filename": each["filename"],
            "true": class_names[each["label"]],
            "predicted": class_names[each["predicted"]],
            "probability": each["probabilities"][each["predicted"]],
            "true_probability": each["probabilities"][each["label"]],
            "p_value": each["p_value"],
            "is_known": each["is_known"],
            "thumbnail": to_thumbnail(photos[position]),
        }
        for position, each in predictions
    ]


def _describe_labels(suspects_dir: Path, examples_dir: Path, examples: Examples, options: ReportOptions) -> _Labels:
    applied = read_applied(examples_dir)
    suspects = [each for each in read_suspects(suspects_dir) if each["is_suspect"]]
    shown = suspects[: options.num_suspects]
    conflicts = examples["label_conflicts"][: options.num_suspects]
    outliers = read_outliers(suspects_dir)[: options.num_strange]
    filenames = {*(each["photo"] for each in (*shown, *outliers)), *(each["file"] for each in conflicts)}
    train = (row["filename"] for row in read_index(examples_dir) if row["split"] == "train") if filenames else ()
    positions = {position: name for position, name in enumerate(train) if name in filenames}
    photos = read_photos(examples_dir, positions, "train")
    return {
        "decisions": count_applied(applied),
        "people": dict(Counter(each["who"] for each in applied).most_common()),
        "num_suspects": len(suspects),
        "suspects": shown,
        "conflicts": conflicts,
        "outliers": outliers,
        "unjudged": [name for name, num in examples["splits"]["train"]["per_class"].items() if num < MIN_PHOTOS],
        "thumbnails": {name: to_thumbnail(photos[position]) for position, name in positions.items()},
    }


def _describe_explanations(explanation_dir: Path, class_names: Sequence[str]) -> list[_Explanation]:
    return [
        {
            "filename": explanation["filename"],
            "true": class_names[explanation["label"]],
            "predicted": class_names[explanation["predicted"]],
            "probability": explanation["probability"],
            "image": page.to_data_uri((explanation_dir / explanation["image"]).read_bytes(), "image/jpeg"),
        }
        for explanation in read_explanations(explanation_dir)
    ]


def _find_confusions(matrix: Sequence[Sequence[int]], names: Sequence[str]) -> list[tuple[str, str, int]]:
    """Return the most frequent confusions as (true class, predicted class, number of examples)."""
    cells = [
        (names[row], names[column], count)
        for row, counts in enumerate(matrix)
        for column, count in enumerate(counts)
        if count and row != column
    ]
    return sorted(cells, key=lambda cell: -cell[2])[:MAX_CONFUSIONS]
