"""The benchmarks run on tiny data; their numbers are not judged here."""

import re
import shutil
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks import (
    augmentation,
    bulk_inference,
    capture,
    growth,
    json,
    load,
    machine,
    million,
    on_device,
    peak,
    photos,
    serving,
    training,
    watch,
)
from components.model import ModelOptions

SHARES, NO_SHARES = r"share of peak [\d.e-]+, [\d.e-]+", "share of peak –"


@pytest.fixture(autouse=True)
def few_photos_and_a_known_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photos, "NUM_SYNTHETIC_PER_CLASS", 10)
    monkeypatch.setattr(peak, "_measure_peaks", lambda num_cores: {"float32": 60.0, "bfloat16": 120.0, "int8": 240.0})


def test_augmentation_sets_ours_beside_the_peer(capsys: pytest.CaptureFixture[str]) -> None:
    augmentation.measure("synthetic")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all(re.search(r"ours \d+, ImageDataGenerator \d+: \d+\.\d\d times as many$", line) for line in lines)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Your `PyDataset`:UserWarning")
def test_training_sets_ours_beside_the_original_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    options = ModelOptions(backbone="small_cnn", weights="none", image_size_px=32)
    training.measure("synthetic", options, epochs=1)
    last = capsys.readouterr().out.splitlines()[-1]
    assert re.search(
        r"ours \d+ s to test accuracy 0\.\d{4}, original recipe \d+ s \(1 epochs\).*ratio \d+\.\d{3}.*; " + SHARES, last
    )


@pytest.mark.slow
def test_serving_sets_the_server_beside_a_direct_call(
    export_dir: Path, litert_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "NUM_STARTS": 1,
        "NUM_ROUNDS": 1,
        "CALLS_A_ROUND": 3,
        "ROUND_S": 0.2,
        "BATCH_SIZES": (1, 2),
    }.items():
        monkeypatch.setattr(serving, name, value)
    serving.measure("synthetic", export_dir, litert_dir / "flowers_int8.tflite")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7
    row = r"serving, .*: ours \S+, .* \S+: ratio \d+\.\d\d\d; "
    starting, network = lines[:2], lines[2:]
    assert all(re.fullmatch(row + NO_SHARES, line) for line in starting)
    assert all(re.fullmatch(row + SHARES, line) for line in network)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_load_sets_the_server_beside_one_written_by_hand(
    export_dir: Path, litert_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"NUM_CLIENTS": (1, 4), "NUM_ROUNDS": 1, "ROUND_S": 1.0}.items():
        monkeypatch.setattr(load, name, value)
    load.measure("synthetic", export_dir, litert_dir / "flowers_int8.tflite")
    lines = capsys.readouterr().out.splitlines()
    seen = r"\S+ a second, p50 \S+ ms, p99 \S+ ms, 0 refused, \S+ ms of processor time each"
    compared = [rf"load, \d clients? on \w+, {side}: {seen}" for side in ("ours", "by hand")]
    ratio = r"load, \d clients? on \w+: requests a second: ratio \d+\.\d\d\d; "
    small, classifier = ([*compared, ratio + shares] * 2 for shares in (NO_SHARES, SHARES))
    stuck = ("beside 2 endless requests", "beside 2 endless requests, again and again")
    beside = [rf"load, 1 client {what}: {seen}" for what in ("alone", *stuck)]
    beside += [rf"load, p99 {what} \(ms\): ours \S+, alone \S+: ratio \d+\.\d\d\d; {NO_SHARES}" for what in stuck]
    for line, pattern in zip(lines, [*small, *classifier, *beside], strict=True):
        assert re.fullmatch(pattern, line), line


def test_the_machine_is_named_with_its_peak() -> None:
    assert re.search(r", \d+ cores: [1-9]\d* GFLOP/s in a float32 matrix product; one core, ", machine.describe())


def test_on_device_sets_the_file_beside_the_saved_model(
    export_dir: Path, litert_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"NUM_ROUNDS": 1, "CALLS_A_ROUND": 3, "NUM_STARTS": 1}.items():
        monkeypatch.setattr(on_device, name, value)
    on_device.measure("synthetic", export_dir, litert_dir / "flowers_int8.tflite")
    lines = capsys.readouterr().out.splitlines()
    model, size, accuracy, *_, start = lines
    row = r"on_device, .*: ours \S+, .* \S+: ratio \d+\.\d\d\d; "
    assert re.fullmatch(row + SHARES, model)
    assert all(re.fullmatch(row + NO_SHARES, line) for line in (size, accuracy, start))
    assert "accuracy on 10 photos" in accuracy


def test_on_device_says_how_to_install_a_runtime_that_is_missing(
    litert_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_device, "find_spec", lambda name: None)
    on_device._measure_openvino(litert_dir / "flowers_int8.tflite", [])
    assert re.fullmatch(r"on_device, in OpenVINO: left out, .*pip install openvino==\S+\n", capsys.readouterr().out)


@pytest.mark.skipif(find_spec("openvino") is None, reason=f"needs {on_device.OPENVINO}")
def test_on_device_sets_each_file_beside_openvino(
    litert_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"NUM_ROUNDS": 1, "CALLS_A_ROUND": 3}.items():
        monkeypatch.setattr(on_device, name, value)
    with photos.folder("synthetic") as folder:
        on_device._measure_openvino(litert_dir / "flowers_int8.tflite", sorted(folder.glob("test/*/*.jpg")))
    lines = capsys.readouterr().out.splitlines()
    same = r"[01]\.\d{4} in agreement, probabilities 0\.0[01]\d\d apart"
    row = rf"on_device, flowers_(\w+)\.tflite, {same}, shortest call \(ms\): .*; {SHARES}"
    found = [re.fullmatch(row, line) for line in lines]
    assert [match and match[1] for match in found] == ["dynamic", "float16", "float32", "int8"]


@pytest.mark.slow
def test_bulk_inference_sets_the_command_beside_a_plain_loop(
    litert_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"NUM_IMAGES": 40, "NUM_FEW": 10, "PEER_SHARE": 10, "_NUM_DRAWN": 1}.items():
        monkeypatch.setattr(bulk_inference, name, value)
    bulk_inference.measure(litert_dir / "flowers_int8.tflite")
    speed, memory = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        rf"bulk_inference, images a second of 40: ours \S+, a plain loop \S+: ratio \d+\.\d\d\d; {SHARES}", speed
    )
    assert re.fullmatch(
        rf"bulk_inference, peak memory for 40 \(MB\): ours \d+, for 10 \d+: ratio \d+\.\d\d\d; {NO_SHARES}", memory
    )


@pytest.mark.slow
def test_million_sets_many_photos_beside_few(capsys: pytest.CaptureFixture[str]) -> None:
    million.measure((300, 600))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [f"million, {step}" for step in million.STEPS]
    assert all(re.search(r"ratio \d+\.\d\d in time a photo, \d+\.\d{3} in memory", line) for line in lines)


@pytest.mark.slow
def test_growth_sets_many_photos_beside_few(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"NUM_PHOTOS": 60, "FACTOR": 2, "NUM_ROUNDS": 1}.items():
        monkeypatch.setattr(growth, name, value)
    growth.measure(ModelOptions(backbone="small_cnn", weights="none", image_size_px=32))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["growth, examples", "growth, statistics", "growth, features"]
    assert all(re.search(r"ratio \d+\.\d\d in time, \d+\.\d{3} in memory", line) for line in lines)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_capture_sets_a_server_that_captures_beside_one_that_does_not(
    export_dir: Path, litert_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "ROUND_S", 0.5)
    monkeypatch.setattr(capture, "NUM_PAIRS", 2)
    capture.measure("synthetic", export_dir, litert_dir / "flowers_int8.tflite")
    *compared, captured = capsys.readouterr().out.splitlines()
    assert [bool(re.search(r": ours \S+, without \S+: ratio .*; " + SHARES, line)) for line in compared] == [
        True,
        False,
    ] * 2
    assert float(captured.rpartition(" ")[2]) > 0


def test_json_sets_ours_beside_orjson(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json, "NUM_PAIRS", 3)
    json.measure()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all(re.fullmatch(r"json, .*: ours \S+, orjson.* \S+: ratio \d+\.\d\d", line) for line in lines)


def test_watch_replays_traffic_whose_truth_is_known(
    artifact: Callable[[str], Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in {"NUM_UNCHANGED": 2, "NUM_CHANGED": 2, "LENGTH": 20, "SOON": 20}.items():
        monkeypatch.setattr(watch, name, value)
    elsewhere, others = tmp_path / "elsewhere", tmp_path / "others"
    with photos.folder("synthetic") as folder:
        shutil.copytree(folder / "validation", elsewhere)
        shutil.copytree(next((folder / "test").iterdir()), others)
    file = artifact("litert") / "flowers_int8.tflite"
    watch.measure("synthetic", artifact("export"), file, elsewhere=elsewhere, others=others)
    unchanged, *changed = capsys.readouterr().out.splitlines()
    assert re.match(
        r"watch, unchanged traffic: alarms in [0-2] of 2 replays of 20 photos; accuracy told in 0", unchanged
    )
    assert [line.split(":")[0] for line in changed] == [
        "watch, blurred",
        "watch, darkened",
        "watch, cropped",
        "watch, 30% other things",
    ]
    assert all(
        re.search(r"in [0-2] of 2 replays, after (\d+|inf) in the median; accuracy told in 0$", each)
        for each in changed
    )
