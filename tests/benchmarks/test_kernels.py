"""Shares of the peak: multiply-adds are counted right, every layer of a file is timed, and the machine is named."""

import doctest
import re
from pathlib import Path

import keras
import numpy as np
import pytest

from benchmarks import kernels, machine, peak


def test_multiply_adds_are_those_of_convolutions_and_matrix_products() -> None:
    import tensorflow as tf

    network = keras.Sequential(
        [
            keras.Input((8, 8, 3), batch_size=1),
            keras.layers.Conv2D(4, 3, padding="same"),
            keras.layers.DepthwiseConv2D(3, padding="same"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(5),
        ]
    )
    content = tf.lite.TFLiteConverter.from_keras_model(network).convert()
    layers = peak.find_layers(peak.unpack(content))
    assert [layer.num_macs for layer in layers] == [8 * 8 * 4 * 27, 8 * 8 * 4 * 9, 4 * 5]
    assert layers[0].name == "CONV_2D to 8×8×4"
    assert peak.count_multiply_adds(content) == {"float32": 8 * 8 * 4 * 36 + 20}


def test_multiply_adds_are_told_apart_by_the_type_of_the_weights(litert_dir: Path) -> None:
    found = {kind: peak.read_multiply_adds(litert_dir / f"flowers_{kind}.tflite") for kind in kernels.KINDS}
    totals = {kind: sum(of_file.values()) for kind, (of_file, _) in found.items()}
    assert set(totals.values()) == {totals["int8"]}
    assert set(found["float32"][0]) == set(found["float16"][0]) == {"float32"}
    for kind in ("dynamic", "int8"):  # The limits, and of int8 the last layer, are in float32.
        assert found[kind][0]["int8"] > 10 * found[kind][0]["float32"]
        assert found[kind][1] == {"float32": totals["int8"]}


def test_share_is_that_of_the_images_a_second_at_the_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "_measure_peaks", lambda num_cores: {"float32": 50.0 * num_cores, "int8": 200.0})
    assert peak.share_of_peak({"float32": 10**9, "int8": 2 * 10**9}, 10, num_threads=1) == pytest.approx(0.3)
    assert peak.share_of_peak({"float32": 10**9}, 10, num_threads=2) == pytest.approx(0.1)
    assert peak.share_of_peak({"bfloat16": 10**9}, 10) is None
    assert peak.share_of_peak({}, 10) is None


def test_each_kind_of_file_and_each_layer_has_its_share(
    litert_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "NUM_CALLS", 2)
    monkeypatch.setattr(kernels, "measure_peaks", lambda: {"float32": 50.0, "int8": 200.0})
    kernels.measure(litert_dir / "flowers_int8.tflite")
    lines = capsys.readouterr().out.splitlines()
    share = r"\d+\.\d·10\^9 multiply-adds a second: \d+\.\d\d of one core's peak$"
    assert all(re.search(share, line) for line in lines)
    assert [line.split(":")[0] for line in lines[:4]] == [f"kernels, {kind}" for kind in kernels.KINDS]
    assert len(lines) > 5


def test_machine_without_a_compiler_says_that_nothing_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    assert machine.measure_peaks() == {}
    assert machine.describe().endswith("not measured, without a C compiler")


@pytest.mark.parametrize("num_cores", [1, 2])
def test_peaks_are_of_the_types_that_the_processor_has(num_cores: int) -> None:
    peaks = machine.measure_peaks(num_cores)
    assert set(peaks) <= set(machine._TYPES)
    assert all(np.isfinite(value) and value > 1 for value in peaks.values())


def test_examples_in_the_documentation_run() -> None:
    result = doctest.testmod(peak)
    assert result.attempted
    assert not result.failed
