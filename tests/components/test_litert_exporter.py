"""Only a blessed model is converted, under its own name, with its own spec."""

from collections.abc import Callable
from pathlib import Path

import pytest

from client.classifier_client.transports.litert_metadata import read_metadata
from components import litert_exporter
from components.artifacts.blessing import Check, write_blessing
from components.artifacts.litert import find_litert_files
from components.litert_exporter import LiteRTOptions
from export.spec import read_spec
from tests.client import litert_files


def test_a_blessed_model_becomes_a_file_of_each_kind(litert_dir: Path, export_dir: Path) -> None:
    spec = read_spec(export_dir)
    files = find_litert_files(litert_dir, "flowers")
    assert list(files) == ["dynamic", "float16", "float32", "int8"]
    for kind, path in files.items():
        assert path.name == f"flowers_{kind}.tflite"
        assert litert_files.read_spec(path) == spec
        assert list(read_metadata(path).class_names) == spec["class_names"]


def test_a_model_that_is_not_blessed_is_not_converted(inputs: Callable[[str], dict[str, Path]], tmp_path: Path) -> None:
    write_blessing(tmp_path / "evaluation", [Check(name="a", passed=False, message="")], validator="evaluator")
    (tmp_path / "out").mkdir()
    folders = {**inputs("litert"), "evaluation_dir": tmp_path / "evaluation"}
    summary = litert_exporter.convert(**folders, out_dir=tmp_path / "out", options=LiteRTOptions())
    assert summary == {"num_files": 0, "reason": "the evaluator did not bless the model"}
    assert list((tmp_path / "out").iterdir()) == []


def test_int8_needs_photos_to_calibrate_on() -> None:
    with pytest.raises(ValueError, match=r"num_calibration_images must be at least 1\. Received: 0"):
        LiteRTOptions(num_calibration_images=0)
