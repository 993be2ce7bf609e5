"""Hold the statistics of a data set against fixed rules and against the schema of its source.

Reads `statistics.json`; writes `schema.json` (the schema that was used) and `validation.json` (the anomalies)
so that broken or changed data stops the run before anything expensive. The schema outlives runs: it lies in a
state folder, one file a source. The first healthy data of a source write it, later data are held against it.
"""

import hashlib
import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from components.artifacts.examples import Exclusion
from components.artifacts.statistics import SplitStatistics, Statistics, read_statistics
from components.artifacts.summary import Summary
from components.artifacts.validation import Anomaly, Schema, read_schema, write_schema, write_validation
from components.errors import DataError
from components.options import check_at_least, check_range

Key = TypeVar("Key")

logger = logging.getLogger(__name__)

SMALL_SPLIT = 20
"""Examples below which an accuracy is little more than a guess: its 95% interval reaches ±22 points."""
USABLE_RULES = ("duplicate", "near_duplicate", "conflicting_label", "unlabelled", "none_of_these")
"""Exclusion rules that speak of readable files; every other rule counts towards `max_excluded_fraction`."""
ACCEPT = "If the change is meant, accept it with --set validator.update_schema=true."
LABEL = "make review, or python -m pipelines labels import FILE"
REMEDIES = {
    "unreadable": "Repair or remove unreadable files.",
    "too_large": "Make too large photos smaller.",
    "duplicate": "Copies need nothing: each photo counts once.",
    "near_duplicate": "To keep photos that only look alike: --set examples.near_duplicate_bits=0.",
    "unlabelled": "Move unlabelled photos into the folders of their classes.",
    "none_of_these": "A photo that is one of the classes all the same: python -m pipelines labels undo PHOTO.",
}
"""What to do about photos that are left out, by exclusion rule."""


@dataclass(frozen=True)
class ValidatorOptions:
    """Set the limits of the validator.

    Attributes:
        min_examples_per_class: Fewest train examples of a class; below is an error.
        max_imbalance: Largest class of train / smallest one; above is a warning.
        max_excluded_fraction: Excluded files / files found, 0–1, without those of `USABLE_RULES`; above is an error.
        max_drift: Jensen-Shannon divergence from the schema in bits, 0–1; above is a warning.
        update_schema: Accept the new data: rewrite the schema from it, unless it breaks another rule.
    """

    min_examples_per_class: int = 5
    max_imbalance: float = 10.0
    max_excluded_fraction: float = 0.1
    max_drift: float = 0.25
    update_schema: bool = False

    def __post_init__(self) -> None:
        check_at_least(self, 1, "min_examples_per_class", "max_imbalance")
        check_range(self, 0, 1, "max_excluded_fraction", "max_drift")


def validate(*, statistics_dir: Path, out_dir: Path, state_dir: Path, options: ValidatorOptions) -> Summary:
    """Validate the statistics, and keep the schema of a source seen for the first time.

    The outputs depend on the data and the schema only: a second run on the same data writes the same bytes.

    Args:
        statistics_dir: Folder with `statistics.json`.
        out_dir: Folder to write `schema.json` and `validation.json` to.
        state_dir: Folder of the schemas, kept from run to run; left as it is when the data has errors.
        options: The limits.

    Returns:
        The number of warnings and the schema's file name.

    Raises:
        DataError: The data has errors (both files are written first), or the stored schema cannot be read.
    """
    statistics = read_statistics(statistics_dir)
    path = state_dir / schema_name(statistics["resolved"])
    is_new = options.update_schema or not path.exists()
    schema = infer_schema(statistics) if is_new else read_schema(path)
    anomalies = [
        *_check_splits(statistics),
        *_check_train(statistics["splits"]["train"], options),
        *_check_excluded(statistics, options),
        *_check_schema(statistics, schema, options),
    ]
    write_validation(out_dir, {"anomalies": anomalies, "schema": path.name}, schema)

    errors = [anomaly for anomaly in anomalies if anomaly["severity"] == "error"]
    for anomaly in anomalies:
        if anomaly["severity"] == "warning":
            logger.warning("%s: %s", anomaly["rule"], anomaly["message"])
    if errors:
        listed = "\n".join(f"- {error['rule']}: {error['message']}" for error in errors)
        raise DataError(
            "The data must have no anomaly of severity error. "
            f"Received: {statistics['resolved']}, with {len(errors)}:\n{listed}\n"
            "Fix the data, or set the option a line names (--set validator.NAME=VALUE), then run again."
        )
    if is_new:
        write_schema(path, schema)
        logger.info("schema of %s written to %s", statistics["resolved"], path)
    return {"num_warnings": len(anomalies), "schema": path.name}


def schema_name(resolved: str) -> str:
    """Return the schema's file name for a resolved source: readable by its slug, unique by its digest."""
    slug = re.sub(r"[^a-z0-9]+", "-", resolved.lower())[-40:].strip("-") or "source"
    digest = hashlib.sha256(resolved.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{slug}-{digest[:8]}.json"


def infer_schema(statistics: Statistics) -> Schema:
    """Return the schema that these statistics fulfil; its distributions and ranges (pixels) are of train."""
    train = statistics["splits"]["train"]
    total = train["num_examples"] or 1
    return {
        "source": statistics["resolved"],
        "class_names": statistics["class_names"],
        "formats": _list_formats(statistics),
        "label_distribution": {name: count / total for name, count in train["per_class"].items()},
        "brightness_histogram": train["brightness"]["histogram"],
        "width": {"min": train["width"]["min"], "max": train["width"]["max"]},
        "height": {"min": train["height"]["min"], "max": train["height"]["max"]},
    }


def jensen_shannon(p: Mapping[Key, float], q: Mapping[Key, float]) -> float:
    """Return the Jensen-Shannon divergence of two distributions in bits: 0 if equal, 1 if they share nothing.

    Weights need not sum to 1, and a key may be absent from one side. A side without any weight has nothing to
    compare: 0. Source: J. Lin, Divergence measures based on the Shannon entropy, 1991,
    https://doi.org/10.1109/18.61115

    >>> jensen_shannon({"rose": 3, "tulip": 1}, {"rose": 75, "tulip": 25})
    0.0
    >>> jensen_shannon({"rose": 1}, {"tulip": 1})
    1.0
    """
    p_total, q_total = sum(p.values()), sum(q.values())
    if not p_total or not q_total:
        return 0.0
    divergence = 0.0
    for key in dict.fromkeys([*p, *q]):  # in order, so that the rounding is the same in every run
        a, b = p.get(key, 0) / p_total, q.get(key, 0) / q_total
        divergence += sum(x * math.log2(2 * x / (a + b)) / 2 for x in (a, b) if x)
    return min(max(divergence, 0.0), 1.0)


def _check_splits(statistics: Statistics) -> Iterator[Anomaly]:
    class_names = statistics["class_names"]
    if len(class_names) < 2:
        message = (
            f"a classifier needs at least 2 classes. Received: {class_names}. Add the folder of another, or label "
        )
        message += f"photos of it: {LABEL}."
        yield _error("single_class", message)
    for name, split in statistics["splits"].items():
        num_examples = split["num_examples"]
        if not num_examples:
            yield _error("empty_split", f"{name} has no example. {_enlarge(name)}")
            continue
        for missing in [key for key, count in split["per_class"].items() if not count]:
            # Photos that people label are to train on.
            more = f"Add photos of it, or remove the class. {_find_more(len(class_names))}"
            remedy = more if name == "train" else _enlarge(name)
            yield _error("missing_class", f"class {missing} has no example in {name}. {remedy}")
        if name != "train" and num_examples < SMALL_SPLIT:
            # Half of the 95% interval where it is widest: 1.96 * sqrt(p (1 - p) / n) at p = 0.5.
            half = 98 / math.sqrt(num_examples)
            message = f"{name} has only {num_examples} examples: its accuracy may be ±{half:.0f} points off. "
            message += _enlarge(name)
            yield _warning("small_split", message)


def _check_train(train: SplitStatistics, options: ValidatorOptions) -> Iterator[Anomaly]:
    counts = {name: count for name, count in train["per_class"].items() if count}  # 0 is missing_class
    minimum = options.min_examples_per_class
    for name in [key for key, count in counts.items() if count < minimum]:
        need = f"class {name} has {counts[name]} of the min_examples_per_class={minimum} it needs in train"
        missing = minimum - counts[name]
        yield _error("too_few_examples", f"{need}. Add {missing} of it. {_find_more(missing * len(counts))}")
    if not counts:
        return
    largest, smallest = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
    if counts[largest] / counts[smallest] > options.max_imbalance:
        enough = math.ceil(counts[largest] / options.max_imbalance)
        few = {name: enough - counts[name] for name in sorted(counts, key=counts.__getitem__) if counts[name] < enough}
        named = ", ".join(f"{count} of {name}" for name, count in list(few.items())[:3])
        num_others = len(few) - 3
        others = f" and more of {num_others} other class{'es' if num_others > 1 else ''}" if num_others > 0 else ""
        message = (
            f"train has {counts[largest]} examples of {largest} and {counts[smallest]} of {smallest}, a "
            f"ratio above max_imbalance={options.max_imbalance:g}. The model will favour {largest}: "
            f"--set trainer.class_weights=balanced, or add {named}{others}. "
        )
        message += _find_more(sum(few.values()) * len(counts))
        yield _warning("imbalance", message)


def _check_excluded(statistics: Statistics, options: ValidatorOptions) -> Iterator[Anomaly]:
    excluded, limit = statistics["excluded"], options.max_excluded_fraction
    num_found = len(excluded) + sum(split["num_examples"] for split in statistics["splits"].values())
    unusable = [entry for entry in excluded if entry["rule"] not in USABLE_RULES]
    conflicting = [entry for entry in excluded if entry["rule"] == "conflicting_label"]
    others = [entry for entry in excluded if entry["rule"] != "conflicting_label"]
    if unusable and len(unusable) / num_found > limit:
        message = (
            f"{len(unusable)} of {num_found} files cannot be used, more than max_excluded_fraction="
            f"{limit:g}: {_name_first(unusable)}. Repair or remove them, or allow more: "
            f"--set validator.max_excluded_fraction={math.ceil(100 * len(unusable) / num_found) / 100:g}."
        )
        yield _error("too_many_excluded", message)
    if others:
        rules = dict.fromkeys(entry["rule"] for entry in others)
        remedies = " ".join(remedy for rule, remedy in REMEDIES.items() if rule in rules)
        message = f"{len(others)} of {num_found} files are left out: {_name_first(others)}. {remedies}"
        yield _warning("excluded", message.rstrip())
    if conflicting := [*conflicting, *statistics["label_conflicts"]]:
        message = (
            f"{len(conflicting)} files show what looks the same under several labels: {_name_first(conflicting)}. "
            f"Decide which is right: {LABEL}. Where photos of one camera only look alike, compare whole files: --set "
            "examples.near_duplicate_bits=0."
        )
        yield _warning("conflicting_label", message)


def _check_schema(statistics: Statistics, schema: Schema, options: ValidatorOptions) -> Iterator[Anomaly]:
    known, received = schema["class_names"], statistics["class_names"]
    if gone := [name for name in known if name not in received]:
        message = f"classes {gone} of the schema are not in the data. {ACCEPT}"
        yield _error("schema_class_missing", message)
    if new := [name for name in received if name not in known]:
        message = f"classes {new} are not in the schema. {ACCEPT} A slip in a decision is taken back: python -m "
        yield _error("schema_class_new", f"{message}pipelines labels undo PHOTO.")
    if unseen := [name for name in _list_formats(statistics) if name not in schema["formats"]]:
        yield _warning("unseen_format", f"formats {unseen} are not in the schema. {ACCEPT}")
    train, limit = statistics["splits"]["train"], options.max_drift
    brightness, reference = train["brightness"]["histogram"], schema["brightness_histogram"]
    drifts = {
        "brightness": jensen_shannon(dict(enumerate(brightness)), dict(enumerate(reference))),
        "label": jensen_shannon(train["per_class"], schema["label_distribution"]),
    }
    remedies = {
        "brightness": f"Photos are {_compare_brightness(brightness, reference)} than before: look at the new ones.",
        "label": f"{_name_most_changed(train['per_class'], schema['label_distribution'])}: add photos of the others, "
        "or --set trainer.class_weights=balanced.",
    }
    for name in [key for key, drift in drifts.items() if drift > limit]:
        message = (
            f"the {name} distribution of train is {drifts[name]:.3f} bits from the schema's "
            f"(Jensen-Shannon), more than max_drift={limit:g}. {remedies[name]} {ACCEPT}"
        )
        yield _warning(f"{name}_drift", message)


def _find_more(count: int) -> str:
    """Return where photos that are missing come from; about as many are to be labelled until those are among them."""
    return f"To find some among photos without labels: python -m pipelines select --input FOLDER --count {count}."


def _enlarge(split: str) -> str:
    """Return what to do where a split has too few examples."""
    if split == "train":
        return "Add photos, or label some: " + LABEL + "."
    return f"Add photos, or enlarge its share where the source has no splits: --set examples.{split}_fraction=0.2."


def _compare_brightness(now: Sequence[int], before: Sequence[int]) -> str:
    """Return whether photos are `brighter` or `darker` on average, by histograms of equal bins."""
    means = [sum(bin_ * n for bin_, n in enumerate(counts)) / max(sum(counts), 1) for counts in (now, before)]
    return "brighter" if means[0] > means[1] else "darker"


def _name_most_changed(counts: Mapping[str, int], before: Mapping[str, float]) -> str:
    """Return the class whose share has grown most, and from what to what."""
    total = max(sum(counts.values()), 1)
    name = max(counts, key=lambda key: counts[key] / total - before.get(key, 0))
    return f"Most grew {name}, from {before.get(name, 0):.0%} to {counts[name] / total:.0%}"


def _error(rule: str, message: str) -> Anomaly:
    return {"severity": "error", "rule": rule, "message": message}


def _warning(rule: str, message: str) -> Anomaly:
    return {"severity": "warning", "rule": rule, "message": message}


def _list_formats(statistics: Statistics) -> list[str]:
    return sorted({name for split in statistics["splits"].values() for name in split["formats"]})


def _name_first(excluded: Sequence[Exclusion], count: int = 3) -> str:
    named = ", ".join(f"{entry['file']} ({entry['rule']})" for entry in excluded[:count])
    return named if len(excluded) <= count else f"{named} and {len(excluded) - count} more"
