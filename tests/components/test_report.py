"""The report is one page that needs nothing else and tells the truth."""

import base64
import html
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components import report
from components.errors import ComponentError
from components.report import ReportOptions

CLASSES = ["daisy", "rose", "tulip"]
LABELS = [0, 0, 0, 1, 1, 1, 2, 2]
PREDICTED = [0, 1, 0, 1, 2, 0, 2, 2]
CONFIDENCE = [0.9, 0.6, 0.8, 0.7, 0.95, 0.75, 0.9, 0.99]
WRONG = ["photo-4.jpg", "photo-5.jpg", "photo-1.jpg"]  # the most confident first
EVIL = '<img src=x onerror="alert(1)">.jpg'


class Inputs:
    """The input folders of a report about eight photos, three of them named wrong."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name, content in _artifacts().items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content), encoding="utf-8")
        for folder in sorted(path for path in root.iterdir()):
            (folder / "manifest.json").write_text(json.dumps(_manifest(folder.name)), encoding="utf-8")
        Image.new("RGB", (448, 224)).save(root / "explanation" / "00.jpg")
        self.write_photos([f"photo-{index}.jpg" for index in range(len(LABELS))])

    def write_photos(self, filenames: list[str], shard_filenames: list[str] | None = None) -> None:
        """Write the test split's photos and the predictions of them; the second names lie in the shards."""
        write_shard(self.root / "examples" / "test-00000-of-00001.tfrecord", shard_filenames or filenames)
        rows = zip(filenames, LABELS, PREDICTED, CONFIDENCE, strict=True)
        lines = [
            json.dumps(
                {
                    "filename": name,
                    "label": label,
                    "predicted": predicted,
                    "probabilities": _spread(predicted, p),
                }
            )
            for name, label, predicted, p in rows
        ]
        (self.root / "evaluation" / "predictions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def change(self, name: str, **values: Any) -> None:
        path = self.root / name
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")

    def build(self, out: str = "out", options: ReportOptions | None = None) -> str:
        folders: dict[str, Any] = {
            f"{name}_dir": self.root / name
            for name in (
                "examples",
                "statistics",
                "validation",
                "training",
                "evaluation",
                "infra_validation",
                "litert_evaluation",
                "parity",
                "push",
                "explanation",
            )
        }
        report.build(**folders, out_dir=self.root / out, options=options or ReportOptions())
        return (self.root / out / "report.html").read_text(encoding="utf-8")


def write_shard(path: Path, filenames: list[str]) -> None:
    import tensorflow as tf

    random = np.random.default_rng(0)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for filename, label in zip(filenames, LABELS, strict=True):
            buffer = io.BytesIO()
            small = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
            small.resize((320, 240), Image.Resampling.BICUBIC).save(buffer, "JPEG")
            feature = {
                "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[buffer.getvalue()])),
                "image/filename": tf.train.Feature(bytes_list=tf.train.BytesList(value=[filename.encode()])),
                "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
            }
            example = tf.train.Example(features=tf.train.Features(feature=feature))
            writer.write(example.SerializeToString())


def _spread(predicted: int, confidence: float) -> list[float]:
    return [confidence if index == predicted else (1 - confidence) / 2 for index in range(len(CLASSES))]


def _manifest(step: str) -> dict[str, Any]:
    return {
        "step": step,
        "key": "0123456789abcdef",
        "created": "2025-03-01T10:20:30+00:00",
        "seconds": 61.5,
        "options": {"options": {"seed": 7, "augmentation": {"flip": True}}},
        "code": "abc",
        "versions": {"tensorflow": "2.21.0"},
        "inputs": {},
        "summary": {},
    }


def _file(kind: str, objections: list[str]) -> dict[str, Any]:
    return {
        "name": f"flowers_{kind}.tflite",
        "accuracy": 0.5,
        "accuracy_interval": [0.2, 0.8],
        "num_examples": 8,
        "agreement": 0.875,
        "size_bytes": 24_800_000,
        "latency_ms": 7.7,
        "peak_memory_bytes": 120_000_000,
        "passed": not objections,
        "objections": objections,
    }


def _artifacts() -> dict[str, Any]:
    per_class = {"daisy": 3, "rose": 3, "tulip": 2}
    size = {"min": 240, "median": 240, "mean": 240.0, "max": 320}
    light = {"mean": 0.5, "std": 0.1, "histogram": [0, 0, 1, 1, 2, 2, 1, 1, 0, 0]}
    split = {"num_examples": 8, "per_class": per_class}
    described = split | {
        "width": size,
        "height": size,
        "brightness": light,
        "contrast": light,
        "formats": {"jpeg": 8},
    }
    curves = {key: [0.5, 0.6, 0.7] for key in ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")}
    scores = {"precision": 0.6, "recall": 0.5, "f1": 0.55, "num_examples": 3, "recall_interval": [0.2, 0.8]}
    slice_ = {"accuracy": 0.625, "accuracy_interval": [0.3, 0.86], "num_examples": 8}
    return {
        "examples/examples.json": {
            "source": "auto",
            "resolved": "tf_flowers",
            "fallback": None,
            "class_names": CLASSES,
            "splits": {
                "train": split | {"shards": []},
                "test": split | {"shards": ["test-00000-of-00001.tfrecord"]},
            },
            "excluded": [],
        },
        "statistics/statistics.json": {
            "class_names": CLASSES,
            "splits": {"train": described, "test": described},
            "num_excluded": 0,
            "excluded_by_rule": {},
            "excluded": [],
        },
        "validation/validation.json": {"anomalies": [], "schema": "tf_flowers.json"},
        "training/history.json": {"head": curves, "fine_tune": curves},
        "training/training.json": {
            "backbone": "resnet50",
            "weights": {"source": "imagenet", "fallback": None},
            "num_parameters": 23_600_000,
            "num_trainable": 10_245,
            "image_size_px": 224,
            "epochs": {"head": 3},
            "best_epoch": 3,
        },
        "evaluation/metrics.json": {
            "accuracy": 0.625,
            "accuracy_interval": [0.306, 0.863],
            "loss": 0.789,
            "num_examples": 8,
            "class_names": CLASSES,
            "data": {"source": "auto", "resolved": "tf_flowers", "fallback": None},
            "weights": {"source": "imagenet", "fallback": None},
            "macro": {"precision": 0.6, "recall": 0.5, "f1": 0.55},
            "per_class": dict.fromkeys(CLASSES, scores),
            "confusion_matrix": [[2, 1, 0], [1, 1, 1], [0, 0, 2]],
            "calibration": {
                "ece": 0.12,
                "bins": [
                    {"lower": 0.0, "upper": 0.5, "confidence": None, "accuracy": None, "num_examples": 0},
                    {"lower": 0.5, "upper": 1.0, "confidence": 0.8, "accuracy": 0.625, "num_examples": 8},
                ],
            },
            "slices": {
                "brightness": {
                    "dark": {"accuracy": None, "accuracy_interval": None, "num_examples": 0},
                    "bright": slice_,
                }
            },
            "baseline": None,
        },
        "evaluation/blessing.json": {
            "blessed": True,
            "checks": [{"name": "accuracy", "passed": True, "message": "0.625 is above 0.5"}],
        },
        "infra_validation/blessing.json": {
            "blessed": True,
            "checks": [{"name": "rest_images", "passed": True, "message": "3 photos answered as in the evaluation"}],
        },
        "litert_evaluation/evaluation.json": {
            "saved_model": slice_ | {"size_bytes": 98_700_000, "latency_ms": 37.2, "peak_memory_bytes": 1_200_000_000},
            "files": {"float32": _file("float32", []), "int8": _file("int8", ["it answers one class for everything"])},
        },
        "parity/parity.json": {
            "reference": "keras",
            "ways": [
                {
                    "form": "rest_images",
                    "num_images": 8,
                    "max_difference": 3.4e-7,
                    "agreement": 1.0,
                    "tolerance": 1e-3,
                    "passed": True,
                },
                {
                    "form": "litert_int8",
                    "num_images": 8,
                    "max_difference": 0.021,
                    "agreement": 0.875,
                    "tolerance": None,
                    "passed": True,
                },
            ],
        },
        "explanation/explanations.json": [
            {
                "filename": "photo-4.jpg",
                "label": 1,
                "predicted": 2,
                "probability": 0.95,
                "position": 4,
                "picture": "00.jpg",
            }
        ],
        "push/push.json": {
            "pushed": True,
            "version": 7,
            "path": "models/flowers/7",
            "reason": "It was blessed.",
        },
    }


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    return Inputs(tmp_path)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return Inputs(tmp_path_factory.mktemp("inputs")).build()


def _text(page: str) -> str:
    """Return what a reader sees, spaces collapsed."""
    body = re.sub(r"<[^>]*>", " ", page[page.index("<body>") :])
    return re.sub(r"\s+", " ", html.unescape(body))


def test_report_tells_how_good_each_file_for_a_device_is(page: str) -> None:
    text = _text(page)
    assert "float32 50.0 % 20.0 % to 80.0 % 87.5 % 24.8 7.7 120 ✓ yes" in text
    assert "✗ no: it answers one class for everything" in text
    assert "rest images 3.4e-07 1e-03 100.0 %" in text
    assert "litert int8 2.1e-02 – 87.5 %" in text


def test_report_shows_what_the_model_looked_at(page: str, inputs: Inputs) -> None:
    assert "tulip 95.0 %, true rose photo-4.jpg" in _text(page)
    (inputs.root / "explanation" / "explanations.json").write_text("[]")
    assert "What it looked at" not in inputs.build()


def test_report_says_that_there_are_no_files_for_a_device(inputs: Inputs) -> None:
    inputs.change("litert_evaluation/evaluation.json", saved_model=None, files={})
    assert "There are no LiteRT files: the evaluator did not bless the model." in _text(inputs.build())


def _mistakes(page: str) -> str:
    """Return the section of the worst mistakes."""
    return page[page.index('id="mistakes"') : page.index('id="explanations"')]


def test_report_needs_nothing_but_itself(page: str) -> None:
    assert not re.search(r"<(script|link|iframe|object|base)\b", page)
    assert not re.search(r"https?://|url\(|@import", page)
    sources = re.findall(r"""\b(?:src|href|srcset|poster|action)\s*=\s*["']?([^"'\s>]*)""", page)
    assert len(sources) == 6 + 1 + len(WRONG)
    assert all(source.startswith(("data:image/png;base64,", "data:image/jpeg;base64,")) for source in sources)
    assert "default-src 'none'" in page


def test_report_is_accessible(page: str) -> None:
    assert '<html lang="en">' in page
    assert all(re.search(r'\balt="[^"]+"', image) for image in re.findall(r"<img\b[^>]*>", page))
    assert all('scope="' in header for header in re.findall(r"<th\b[^>]*>", page))
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'aria-labelledby="([^"]+)"', page)) <= set(ids)


def test_report_tells_verdict_numbers_and_timings(page: str) -> None:
    text = _text(page)
    assert "Blessed, pushed as version 7" in text
    assert "62.5 %" in text
    assert "30.6 % to 86.3 %" in text
    assert "0.789" in text
    assert "0.625 is above 0.5" in text
    assert "3 photos answered as in the evaluation" in text
    assert "epochs, and fine-tuning followed for 3 epochs" in text
    assert "Total 10 min 15 s" in text  # ten steps of 61.5 s


@pytest.mark.parametrize(
    ("evaluated", "served", "verdict"),
    [
        (True, True, "Blessed, not pushed"),
        (False, True, "Not blessed, not pushed"),
        (True, False, "Not blessed, not pushed"),
    ],
)
def test_report_tells_why_nothing_was_pushed(inputs: Inputs, evaluated: bool, served: bool, verdict: str) -> None:
    inputs.change("evaluation/blessing.json", blessed=evaluated)
    inputs.change("infra_validation/blessing.json", blessed=served)
    inputs.change("push/push.json", pushed=False, version=None, path=None, reason="The server refused it.")
    page = inputs.build()
    assert f'<h1 class="bad">{verdict}</h1>' in page
    assert "The server refused it." in page


def test_report_shows_the_end_of_the_log_of_a_server_that_did_not_serve(inputs: Inputs) -> None:
    log = inputs.root / "infra_validation" / "logs" / "server.log"
    log.parent.mkdir()
    log.write_text("\n".join([f"line {number}" for number in range(99)] + [EVIL]), encoding="utf-8")
    assert "line 98" not in inputs.build(), "a log is of interest when something failed"
    inputs.change("infra_validation/blessing.json", blessed=False)
    page = inputs.build()
    assert "line 98" in page
    assert "line 2\n" not in page
    assert "<img src=x" not in page


def test_report_has_no_banner_without_a_fallback(page: str) -> None:
    assert 'class="banner"' not in page


@pytest.mark.parametrize(
    ("name", "values", "title"),
    [
        ("examples/examples.json", {"fallback": "No network.", "resolved": "synthetic"}, "Stand-in data:"),
        (
            "training/training.json",
            {"weights": {"source": "none", "fallback": "No network."}},
            "Stand-in weights:",
        ),
        (
            "evaluation/metrics.json",
            {"weights": {"source": "none", "fallback": "No network."}},
            "Stand-in weights:",
        ),
    ],
)
def test_report_is_loud_about_a_fallback(inputs: Inputs, name: str, values: dict[str, Any], title: str) -> None:
    inputs.change(name, **values)
    page = inputs.build()
    assert 'class="banner"' in page
    assert title in _text(page)
    assert "No network." in page


def test_report_shows_the_most_confident_mistakes_first(page: str) -> None:
    shown = re.findall(r"(photo-\d\.jpg)</code>", _mistakes(page))
    assert shown == WRONG
    assert "predicted tulip 95.0 % true rose 2.5 % photo-4.jpg" in _text(page)


def test_report_limits_the_mistakes_but_counts_them_all(inputs: Inputs) -> None:
    page = inputs.build(options=ReportOptions(num_mistakes=1))
    assert re.findall(r"(photo-\d\.jpg)</code>", _mistakes(page)) == WRONG[:1]
    assert "3 photos of 8 got a wrong name" in _text(page)
    assert "these are 1 of them" in _text(page)


def test_report_is_glad_when_there_are_no_mistakes(inputs: Inputs) -> None:
    line = {"filename": "a.jpg", "label": 0, "predicted": 0, "probabilities": [0.9, 0.1, 0.0]}
    (inputs.root / "evaluation" / "predictions.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    (inputs.root / "examples" / "test-00000-of-00001.tfrecord").unlink()  # nobody reads it
    assert "Every test photo got its right name" in inputs.build()


def test_report_escapes_file_names_and_reasons(inputs: Inputs) -> None:
    inputs.write_photos([EVIL] * len(LABELS))
    excluded = [{"file": EVIL, "split": None, "rule": "unreadable", "reason": EVIL}]
    inputs.change("statistics/statistics.json", excluded=excluded, num_excluded=1, excluded_by_rule={"unreadable": 1})
    inputs.change("push/push.json", reason=EVIL)
    page = inputs.build()
    assert "<img src=x" not in page
    assert html.escape(EVIL, quote=False).split('"')[0] in page


def test_report_lists_the_first_excluded_files_and_counts_the_rest(inputs: Inputs) -> None:
    excluded = [
        {"file": f"bad-{index}.jpg", "split": "train", "rule": "unreadable", "reason": "It ends too early."}
        for index in range(53)
    ]
    inputs.change("statistics/statistics.json", excluded=excluded, num_excluded=53, excluded_by_rule={"unreadable": 53})
    text = _text(inputs.build())
    assert "bad-49.jpg" in text
    assert "bad-50.jpg" not in text
    assert "And 3 more" in text


def test_report_shows_anomalies(inputs: Inputs) -> None:
    anomaly = {
        "severity": "warning",
        "rule": "imbalance",
        "message": "daisy has 12 times the examples of rose",
    }
    inputs.change("validation/validation.json", anomalies=[anomaly])
    text = _text(inputs.build())
    assert "found 1 anomaly" in text
    assert "12 times the examples" in text


def test_report_shows_missing_numbers_as_a_dash(inputs: Inputs) -> None:
    inputs.change("evaluation/metrics.json", loss=float("nan"), accuracy=None)
    assert "Loss – cross-entropy" in _text(inputs.build())


def test_report_makes_small_thumbnails(page: str) -> None:
    for encoded in re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", _mistakes(page)):
        assert Image.open(io.BytesIO(base64.b64decode(encoded))).size == (160, 120)


def test_report_goes_on_without_a_photo_that_cannot_be_decoded() -> None:
    assert report._to_thumbnail(b"no picture") is None


def test_report_refuses_predictions_of_other_photos(inputs: Inputs) -> None:
    names = [f"photo-{index}.jpg" for index in range(len(LABELS))]
    inputs.write_photos(names, shard_filenames=names[::-1])
    with pytest.raises(ComponentError, match=r"'photo-1.jpg' as prediction 1.*Evaluate these examples again"):
        inputs.build()


def test_report_names_a_missing_input(inputs: Inputs) -> None:
    (inputs.root / "training" / "history.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"history\.json"):
        inputs.build()


def test_same_inputs_give_the_same_bytes(inputs: Inputs) -> None:
    inputs.build("a")
    inputs.build("b")
    first = {path.relative_to(inputs.root / "a"): path.read_bytes() for path in (inputs.root / "a").rglob("*.*")}
    second = {path.relative_to(inputs.root / "b"): path.read_bytes() for path in (inputs.root / "b").rglob("*.*")}
    assert first == second
    names = ("accuracy", "loss", "model_results", "confusion_matrix", "calibration", "data", "on_device")
    assert set(first) == {Path("report.html"), *(Path("plots") / f"{name}.png" for name in names)}
    assert all(first[path].startswith(b"\x89PNG\r\n") for path in first if path.suffix == ".png")
    assert len(first[Path("report.html")]) < 2_000_000


@pytest.mark.parametrize("num_mistakes", [-1, 201])
def test_options_bound_the_number_of_mistakes(num_mistakes: int) -> None:
    with pytest.raises(ValueError, match="num_mistakes must lie in 0–200"):
        ReportOptions(num_mistakes=num_mistakes)
