"""The folder of predictions: who finishes what is missing leaves one row for each image, and nothing else is harmed."""

import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from components.bulk_inference.output import Part, PredictionFolder
from components.errors import InferenceError
from components.storage.store import open_store

IMAGES = [f"{number}.jpg" for number in range(5)]
MODEL = {"sha256": "1"}


@pytest.fixture(params=["folder", "bucket"])
def output(request: Any, tmp_path: Path) -> str:
    return str(tmp_path / "out") if request.param == "folder" else f"memory://{uuid.uuid4()}"


def plan(output: str, images: list[str] = IMAGES, **options: Any) -> list[Part]:
    return PredictionFolder(output).plan(images, **{"model": MODEL, "part_size": 2, **options})


def write(output: str, part: Part, errors: list[str | None]) -> None:
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table({"error": pa.array(errors, pa.string())}), sink)
    open_store(output).write(part.name, sink.getvalue().to_pybytes())


def test_every_image_is_in_one_part(output):
    images = [*IMAGES[:3], "new\nline", "\udcff"]
    parts = plan(output, images)
    assert [part.name for part in parts] == [f"part-0000{number}-of-00003.parquet" for number in range(3)]
    assert [PredictionFolder(output).images(part) for part in parts] == [images[:2], images[2:4], images[4:]]


def test_parts_that_are_there_are_not_planned_again(output):
    first, second, third = plan(output)
    write(output, second, [None, None])
    assert plan(output) == [first, third]
    assert PredictionFolder(output).num_parts() == 1


def test_a_finished_folder_is_marked_and_counted(output):
    for part, errors in zip(plan(output), (["bad", None], [None, None], ["bad"]), strict=True):
        write(output, part, errors)
    assert PredictionFolder(output).complete() == {"num_images": 5, "num_errors": 2}
    assert open_store(output).read("_SUCCESS") == b""
    assert plan(output) == []


def test_rows_that_others_wrote_are_not_taken_for_a_finished_folder(output):
    for part in plan(output):
        write(output, part, [None, None])
    with pytest.raises(InferenceError, match="has 6 rows for 5 images"):
        PredictionFolder(output).complete()


@pytest.mark.parametrize(
    ("images", "options", "changed"),
    [
        (IMAGES[1:], {}, "list of images"),
        (IMAGES, {"model": {"sha256": "2"}}, "model"),
        (IMAGES[1:], {"part_size": 3}, "list of images and part size"),
    ],
)
def test_an_output_of_something_else_is_kept_without_overwrite(output, images, options, changed):
    first, *_ = plan(output)
    write(output, first, [None, None])
    with pytest.raises(
        InferenceError, match=f"was begun with another {changed}\\. Choose another --output, or --overwrite"
    ):
        plan(output, images, **options)
    assert PredictionFolder(output).num_parts() == 1
    assert len(plan(output, images, overwrite=True, **options)) in (2, 3)
    assert PredictionFolder(output).num_parts() == 0
    assert plan(output, images, **options)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_other_things_is_never_touched(output, overwrite):
    open_store(output).write("thesis.txt", b"years of work")
    with pytest.raises(InferenceError, match=r"holds thesis\.txt"):
        plan(output, overwrite=overwrite)
    assert open_store(output).read("thesis.txt") == b"years of work"


def test_not_even_a_lock_is_left_in_a_folder_of_other_things(tmp_path):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(InferenceError, match="Choose another"), PredictionFolder(str(tmp_path)).lock():
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_what_a_killed_writer_left_is_removed(tmp_path):
    plan(str(tmp_path))
    (tmp_path / ".part-00000-of-00003.parquet.77.tmp").touch()
    with PredictionFolder(str(tmp_path)).lock():
        assert len(plan(str(tmp_path))) == 3
    assert not list(tmp_path.glob("*.tmp")) + list(tmp_path.glob(".*.tmp"))


def test_a_lost_list_of_images_is_an_error(output):
    first, *_ = plan(output)
    open_store(output).remove_file("_images.jsonl")
    with pytest.raises(InferenceError, match=r"has lost _images\.jsonl"):
        PredictionFolder(output).images(first)
