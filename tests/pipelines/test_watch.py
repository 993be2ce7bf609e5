"""`watch` reads what was predicted, and ends with what it found: in words, in an object, on a page and as metrics."""

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from client.classifier_client import ImageError, Prediction
from components.artifacts.watch_reference import WATCH_REFERENCE
from components.bulk_inference.images import ListedImage
from components.bulk_inference.rows import encode_rows
from components.errors import ComponentError
from components.monitoring.drift import ALARM, NOTHING_FOUND, TOO_LITTLE, WatchOptions
from components.monitoring.reference import summarize
from components.storage.files import write_json
from components.storage.models import MARKER, open_models
from pipelines import __main__ as command_line
from pipelines import watch
from pipelines.watch_output import Watched
from serving.shared.capture import Captured
from tests.serving.shared.capture.records import make_message, write_file

NAMES = ["daisy", "roses", "tulips"]
VERSION, GREY = 2, 200

Write = Callable[..., Path]


def draw(count: int, *, seed: int = 0) -> NDArray[np.float64]:
    logits = np.random.default_rng(seed).normal(0, 4, (count, len(NAMES)))
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def p_values(count: int, *, is_strange: bool = False) -> list[float]:
    values = np.random.default_rng(7).random(count)
    return (values * (0.02 if is_strange else 1)).tolist()


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    """Two versions: the older one was pushed before there were references."""
    probabilities = draw(2000, seed=1)
    labels = (np.random.default_rng(2).random((2000, 1)) > probabilities.cumsum(axis=1)).sum(axis=1)
    brightness = np.random.default_rng(3).normal(GREY / 255, 0.05, 2000).clip(0, 1)
    reference = summarize(probabilities, labels, brightness, class_names=NAMES, num_scores=1000, num_refused=30)
    for version in (1, VERSION):
        folder = tmp_path / "models" / "flowers" / str(version)
        (folder / "assets.extra").mkdir(parents=True)
        (folder / MARKER).touch()
    write_json(folder / WATCH_REFERENCE, reference)
    return tmp_path / "models"


@pytest.fixture
def write(tmp_path: Path, encode: Callable[..., bytes]) -> Write:
    """Return the function that writes an output of `infer`, in two parts, with photos that are there."""
    photo = tmp_path / "photo.png"

    def write(
        count: int = 400, *, is_strange: bool = False, version: str = str(VERSION), errors: int = 0, grey: int = GREY
    ) -> Path:
        photo.write_bytes(encode(np.full((8, 8, 3), grey, np.uint8), "PNG"))
        folder = tmp_path / "predictions.parquet"
        folder.mkdir()
        results: list[Prediction | ImageError] = [ImageError("broken.jpg", "is no image")] * errors
        for row, p_value in zip(draw(count), p_values(count, is_strange=is_strange), strict=True):
            ranked = sorted(zip(NAMES, row.tolist(), strict=True), key=lambda pair: -pair[1])
            known = p_value > 0.03
            results.append(Prediction(str(photo), *ranked[0], dict(ranked), version, 1.0, p_value, known, ()))
        images = [ListedImage(str(photo))] * len(results)
        for number, part in enumerate((slice(0, 100), slice(100, None))):
            content = encode_rows(images[part], results[part], key="")
            (folder / f"part-{number:05d}-of-00002.parquet").write_bytes(content)
        (folder / "_SUCCESS").touch()
        return folder

    return write


@pytest.fixture
def run(models_dir: Path, tmp_path: Path) -> Callable[..., int]:
    def run(source: object, *options: object) -> int:
        folders = ("--models-dir", models_dir, "--runs-dir", tmp_path / "runs")
        return command_line.main(list(map(str, ("watch", *folders, "--input", source, *options))))

    return run


def test_traffic_as_on_validation_ends_with_0(
    run: Callable[..., int], write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(write()) == NOTHING_FOUND == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        "400 photos of flowers version 2, in random order, as paths tell no time: nothing is beyond its tolerance"
    )
    assert lines[1] == "strangeness: no alarm"
    assert lines[-2].startswith("accuracy: cannot tell: the interval is ± ")
    assert lines[-1] == f"Page: {tmp_path / 'runs' / 'watch.html'}"


def test_strange_traffic_ends_with_3_and_a_page_that_shows_it(
    run: Callable[..., int], write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "pages" / "page.html"
    assert run(write(is_strange=True), "--page", page) == ALARM == 3
    assert "strangeness: ALARM after " in capsys.readouterr().out
    html = page.read_text()
    assert '<h1 class="bad">Alarm</h1>' in html
    assert html.count("<figure>") == watch.NUM_STRANGEST
    assert html.count("data:image/jpeg;base64,") == watch.NUM_STRANGEST
    assert html.count("refused</b>") == watch.NUM_STRANGEST
    assert "Taken for" in html


def test_dark_photos_are_found_by_their_pixels(
    run: Callable[..., int], write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(write(grey=GREY // 2)) == ALARM
    printed = capsys.readouterr().out
    assert "brightness: ALARM after " in printed
    assert "strangeness: no alarm" in printed


def test_brightness_of_photos_that_are_gone_is_not_told(
    run: Callable[..., int], write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predictions = write()
    (tmp_path / "photo.png").unlink()
    assert run(predictions) == NOTHING_FOUND
    assert "brightness: cannot tell" in capsys.readouterr().out


def test_few_photos_end_with_4(run: Callable[..., int], write: Write) -> None:
    predictions = write(200)
    assert run(predictions) == TOO_LITTLE == 4
    assert run(predictions, "--min-photos", 200) == NOTHING_FOUND


def test_accuracy_is_told_to_the_margin_that_is_wanted(
    run: Callable[..., int], write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(write(), "--accuracy-margin", 0.2, "--json") == NOTHING_FOUND
    accuracy = json.loads(capsys.readouterr().out)["accuracy"]
    low, high = accuracy["interval"]
    assert low < draw(400).max(axis=1).mean() < high  # a calibrated model
    assert accuracy["reason"] == ""


def test_json_is_one_object(run: Callable[..., int], write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(write(is_strange=True, errors=3), "--json") == ALARM
    found = json.loads(capsys.readouterr().out)
    assert found["status"] == ALARM
    assert (found["model_name"], found["version"], found["num_photos"]) == ("flowers", VERSION, 400)
    assert found["left_out"] == {"without a prediction": 3}
    assert found["questions"]["strangeness"]["alarm_at"] < 100
    assert found["questions"]["confidence"]["alarm_at"] is None
    assert found["questions"]["classes"]["measures"].keys() == set(NAMES)
    assert found["questions"]["strangeness"]["measures"]["refused photos"]["mean"] == 1
    assert found["accuracy"]["expected"] is None


def test_metrics_are_what_prometheus_reads(run: Callable[..., int], write: Write, tmp_path: Path) -> None:
    path = tmp_path / "watch.prom"
    assert run(write(is_strange=True), "--metrics", path) == ALARM
    samples = [each for family in text_string_to_metric_families(path.read_text()) for each in family.samples]
    of_model = {"model_name": "flowers", "version": str(VERSION)}
    assert all(of_model.items() <= sample.labels.items() for sample in samples)
    alarms = {each.labels["question"]: each.value for each in samples if each.name == "classifier_watch_alarm"}
    assert alarms == {"strangeness": 1, "confidence": 0, "classes": 0, "brightness": 0}
    values = {each.name: each.value for each in samples}
    assert values["classifier_watch_photos"] == 400
    assert values["classifier_watch_status"] == ALARM
    assert "classifier_watch_accuracy" not in values  # it cannot be told


def test_paths_are_the_order_where_that_is_wanted(
    run: Callable[..., int], write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(write(), "--in-order") == NOTHING_FOUND
    assert "in the order of their paths" in capsys.readouterr().out


def test_a_part_alone_is_an_input_and_an_unfinished_output_is_said(
    run: Callable[..., int], write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    predictions = write()
    assert run(predictions / "part-00001-of-00002.parquet") == NOTHING_FOUND
    (predictions / "_SUCCESS").unlink()
    assert run(predictions) == NOTHING_FOUND
    assert "is not finished" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--version", 1], "which has none: it was pushed before there were any. Run make train"),
        (["--version", 7], "--version is that of a pushed model. Received: 7."),
        (["--model-name", "trees"], "run make train"),
    ],
)
def test_models_that_cannot_be_watched_are_an_error(
    run: Callable[..., int], write: Write, options: list[object], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(write(), *options) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--metrics", "watch.txt"], ["--false-alarm", 0.9]])
def test_wrong_options_end_with_2(run: Callable[..., int], write: Write, options: list[object]) -> None:
    assert run(write(), *options) == 2


def test_predictions_of_other_versions_alone_are_an_error(
    run: Callable[..., int], write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(write(version="1")) == 1
    assert "(400 of version 1). Choose another with --version." in capsys.readouterr().err


def test_damaged_and_missing_inputs_are_errors(
    run: Callable[..., int], write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = write() / "part-00001-of-00002.parquet"
    part.write_bytes(part.read_bytes()[:1000])
    assert run(part.parent) == 1
    assert f"Received: {part}, which cannot be read" in capsys.readouterr().err
    assert run(tmp_path / "nothing") == 1
    assert "Nothing is there" in capsys.readouterr().err


def capture(
    probabilities: NDArray[np.float64], values: Sequence[float | None], images: Iterable[bytes | None], **other: Any
) -> list[Captured]:
    start = datetime(2026, 1, 1, tzinfo=timezone.utc)
    return [
        Captured(
            when=start + timedelta(minutes=number),
            model_name=other.get("model_name", "flowers"),
            version=other.get("version", VERSION),
            class_names=("tulips", "daisy", "roses"),  # an order of its own
            probabilities=np.roll(row, 1).astype(np.float32),
            p_value=value,
            is_known=None if value is None else value > 0.03,
            image=image,
        )
        for number, (row, value, image) in enumerate(zip(probabilities, values, images, strict=True))
    ]


def watch_captured(records: list[Captured], models_dir: Path, folder: Path) -> Watched:
    def read(path: Path) -> Iterable[Captured]:
        assert path == folder
        return iter(records)

    return watch.watch(
        str(folder),
        models=open_models(models_dir),
        model_name="flowers",
        version=None,
        options=WatchOptions(),
        open_captured=read,
    )


def test_captured_traffic_is_watched_in_its_order(
    models_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = p_values(400) + p_values(100, is_strange=True)
    records = capture(draw(500), values, [b"%d" % number for number in range(500)])
    none = [None] * 5
    others = capture(draw(5), none, none, version=1) + capture(draw(5), none, none, model_name="trees")
    others += capture(draw(5), none, none, version=None) + capture(np.full((5, 3), np.nan), none, none)
    watched = watch_captured(others + records, models_dir, tmp_path)
    traffic = watched.traffic
    assert traffic.order == "as they came"
    np.testing.assert_allclose(traffic.predictions.probabilities, draw(500), atol=1e-6)
    np.testing.assert_allclose(traffic.predictions.p_values, values)
    assert traffic.left_out == {
        "of version 1": 5,
        "of model trees": 5,
        "of version unknown": 5,
        "with a prediction that is no number": 5,
    }
    assert "left out: 5 records of version 1" in caplog.text
    found = watched.verdict.findings[0].alarm_at
    assert found is not None
    assert 400 < found < 430
    strangest = np.argsort(values)[: watch.NUM_STRANGEST]
    assert [strange.image for strange in traffic.strangest] == [b"%d" % number for number in strangest]


def test_traffic_without_images_or_p_values_is_watched_as_far_as_it_goes(models_dir: Path, tmp_path: Path) -> None:
    watched = watch_captured(capture(draw(400), [None] * 400, [None] * 400), models_dir, tmp_path)
    assert watched.verdict.status == TOO_LITTLE
    assert "0 photos have a p-value" in watched.verdict.reason
    assert watched.traffic.strangest == []


def test_other_classes_are_an_error(models_dir: Path, tmp_path: Path) -> None:
    record = capture(draw(1), [0.5], [None])[0]._replace(class_names=("cat", "dog", "tulips"))
    with pytest.raises(ComponentError, match="Received: cat, dog, tulips"):
        watch_captured([record], models_dir, tmp_path)


def test_what_a_server_wrote_is_watched(models_dir: Path, tmp_path: Path) -> None:
    messages = [
        make_message(number, [row], images=[b"photo"], are_known=[True], version=VERSION)
        for number, row in enumerate(draw(30).tolist())
    ]
    write_file(tmp_path, 0, messages)
    watched = watch.watch(
        str(tmp_path), models=open_models(models_dir), model_name="flowers", version=None, options=WatchOptions()
    )
    traffic = watched.traffic
    assert (traffic.order, traffic.left_out) == ("as they came", {})
    np.testing.assert_allclose(traffic.predictions.probabilities, draw(30), atol=1e-6)
    assert traffic.strangest[0].image == b"photo"
