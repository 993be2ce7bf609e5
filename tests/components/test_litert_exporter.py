"""A model is converted under its own name, with its own spec, and calibrated on photos of every class."""

import doctest
from pathlib import Path

import pytest

from client.classifier_client.transports.litert_metadata import read_metadata
from components import litert_exporter
from components.artifacts.litert import find_litert_files
from components.artifacts.manifest import read_manifest
from components.litert_exporter import LiteRTOptions, choose_stratified
from export.spec import read_spec
from tests.client import litert_files


def test_a_model_becomes_a_file_of_each_kind(litert_dir: Path, export_dir: Path) -> None:
    spec = read_spec(export_dir)
    files = find_litert_files(litert_dir, "flowers")
    assert list(files) == ["dynamic", "float16", "float32", "int8"]
    for kind, path in files.items():
        assert path.name == f"flowers_{kind}.tflite"
        assert litert_files.read_spec(path) == spec
        assert list(read_metadata(path).class_names) == spec["class_names"]
        assert read_metadata(path).model_version == read_manifest(export_dir)["digest"]


def test_int8_needs_photos_to_calibrate_on() -> None:
    with pytest.raises(ValueError, match=r"num_calibration_images must be at least 1\. Received: 0"):
        LiteRTOptions(num_calibration_images=0)


def test_calibration_takes_as_many_photos_of_each_class_as_there_are() -> None:
    labels = [0] * 50 + [1] * 3 + [2] * 50
    chosen = [labels[position] for position in choose_stratified(labels, 21)]
    assert {label: chosen.count(label) for label in (0, 1, 2)} == {0: 9, 1: 3, 2: 9}
    assert choose_stratified([0, 1], 100) == [0, 1]
    assert doctest.testmod(litert_exporter) == (0, 1)
