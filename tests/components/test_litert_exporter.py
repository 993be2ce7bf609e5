"""Only a blessed model is converted, under its own name, with its own spec."""

from pathlib import Path

import pytest

from client.classifier_client.transports.litert_metadata import read_metadata
from components import litert_exporter
from components.litert_exporter import LiteRTOptions
from components.storage.files import write_json
from export.spec import read_spec
from tests.client import litert_files


def test_a_blessed_model_becomes_a_file_of_each_kind(litert_dir: Path, export_dir: Path) -> None:
    spec = read_spec(export_dir)
    assert sorted(path.name for path in litert_dir.iterdir()) == [
        f"flowers_{kind}.tflite" for kind in ("dynamic", "float16", "float32", "int8")
    ]
    for path in litert_dir.iterdir():
        assert litert_files.read_spec(path) == spec
        assert list(read_metadata(path).class_names) == spec["class_names"]


def test_a_model_that_is_not_blessed_is_not_converted(
    examples_dir: Path, training_dir: Path, export_dir: Path, tmp_path: Path
) -> None:
    write_json(tmp_path / "evaluation" / "blessing.json", {"blessed": False, "checks": []})
    (tmp_path / "out").mkdir()
    summary = litert_exporter.convert(
        examples_dir=examples_dir,
        training_dir=training_dir,
        export_dir=export_dir,
        evaluation_dir=tmp_path / "evaluation",
        out_dir=tmp_path / "out",
        options=LiteRTOptions(),
    )
    assert summary == {"num_files": 0, "reason": "the evaluator did not bless the model"}
    assert list((tmp_path / "out").iterdir()) == []


def test_int8_needs_photos_to_calibrate_on() -> None:
    with pytest.raises(ValueError, match=r"num_calibration_images must be at least 1\. Received: 0"):
        LiteRTOptions(num_calibration_images=0)
