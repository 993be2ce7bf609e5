"""A model is converted under its own name, with its own spec."""

from pathlib import Path

import pytest

from client.classifier_client.transports.litert_metadata import read_metadata
from components.artifacts.litert import find_litert_files
from components.litert_exporter import LiteRTOptions
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


def test_int8_needs_photos_to_calibrate_on() -> None:
    with pytest.raises(ValueError, match=r"num_calibration_images must be at least 1\. Received: 0"):
        LiteRTOptions(num_calibration_images=0)
