"""Shares of the peak: multiply-adds are counted right, every layer of a file is timed, and the machine is named."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest

from benchmarks import kernels, machine


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
    layers = kernels.find_layers(kernels._unpack(content))
    assert [layer.num_macs for layer in layers] == [8 * 8 * 4 * 27, 8 * 8 * 4 * 9, 4 * 5]
    assert layers[0].name == "CONV_2D to 8×8×4"


def test_each_kind_of_file_and_each_layer_has_its_share(
    litert_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "NUM_CALLS", 2)
    monkeypatch.setattr(kernels, "measure_peaks", lambda: {"float32": 50.0, "int8": 200.0})
    kernels.measure(litert_dir / "flowers_int8.tflite")
    lines = capsys.readouterr().out.splitlines()
    share = r"\d+\.\d·10\^9 multiply-adds a second: \d+\.\d\d of one core's peak in (float32|int8), (50|200)$"
    assert all(re.search(share, line) for line in lines)
    assert [line.split(":")[0] for line in lines[:4]] == [f"kernels, {kind}" for kind in kernels._COMPUTES_IN]
    assert len(lines) > 5


def test_machine_without_a_compiler_says_that_nothing_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    assert machine.measure_peaks() == {}
    assert machine.describe().endswith("not measured, without a C compiler")


def test_peaks_are_of_the_types_that_the_processor_has() -> None:
    peaks = machine.measure_peaks()
    assert set(peaks) <= set(machine._TYPES)
    assert all(np.isfinite(peak) and peak > 1 for peak in peaks.values())
