"""What a model tells of its limits, in the rows: null where it does not tell, and never mixed with rows without it."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from client.classifier_client import ImageError, Prediction
from client.classifier_client.transports.answers import LIMITS
from components.bulk_inference.images import ListedImage
from components.bulk_inference.output import Part, PredictionFolder
from components.bulk_inference.rows import COLUMNS, Counts, encode_rows, read_footer
from components.errors import InferenceError
from components.storage.store import open_store

OLD_COLUMNS = [name for name in COLUMNS if name not in LIMITS]
IMAGES = [ListedImage(f"{number}.jpg", version=f"100 {number}") for number in range(4)]
MODEL = {"sha256": "1"}


def prediction(name: str, *limits: Any) -> Prediction:
    return Prediction(name, "tulip", 0.75, {"tulip": 0.75, "daisy": 0.25}, "3", 1.0, *limits)


KNOWN = prediction("0.jpg", 0.5, True, ("tulip",))
REFUSED = prediction("1.jpg", 1 / 277, False, ("tulip", "daisy"))
UNTOLD = prediction("2.jpg")
BAD = ImageError("3.jpg", "bad")


def encode(*results: Prediction | ImageError) -> bytes:
    return encode_rows([ListedImage(result.image) for result in results], results, key="k")


def read(content: bytes) -> pa.Table:
    return parquet.read_table(pa.BufferReader(content))


def plan(output: Path, **options: Any) -> list[Part]:
    return PredictionFolder(str(output)).plan(IMAGES, **{"model": MODEL, "part_size": 2, **options})


def write(output: Path, parts: Sequence[Part], results: Sequence[Prediction | ImageError]) -> None:
    folder = PredictionFolder(str(output))
    for number, part in enumerate(parts):
        folder.write_rows(part, folder.images(part), results[2 * number : 2 * number + 2])


# The rows.


def test_the_limits_come_after_the_columns_that_were_there_before():
    schema = read(encode(KNOWN)).schema
    assert tuple(schema.names) == COLUMNS
    assert OLD_COLUMNS == ["image", "label", "probability", "probabilities", "model_version", "error"]
    assert [schema.field(name).type for name in ("p_value", "is_known")] == [pa.float32(), pa.bool_()]
    assert schema.field("prediction_set").type.value_type == pa.string()
    assert all(schema.field(name).nullable for name in LIMITS)


def test_a_row_has_what_the_model_tells_of_its_limits():
    known, refused = read(encode(KNOWN, REFUSED)).to_pylist()
    assert [known[name] for name in LIMITS] == [0.5, True, ["tulip"]]
    assert refused["p_value"] == pytest.approx(1 / 277)
    assert (refused["is_known"], refused["prediction_set"]) == (False, ["tulip", "daisy"])
    assert (refused["label"], refused["probability"]) == ("tulip", 0.75)


@pytest.mark.parametrize("result", [UNTOLD, Prediction("2.jpg", "tulip", 1.0, {"tulip": 1.0}, "3", 1.0), BAD])
def test_what_a_model_does_not_tell_is_null(result):
    (row,) = read(encode(result)).to_pylist()
    assert [row[name] for name in LIMITS] == [None] * 3


# How many there are.


def test_the_footer_counts_the_rows_of_each_kind():
    footer = read_footer(encode(KNOWN, REFUSED, UNTOLD, BAD))
    assert footer is not None
    assert footer.counts == Counts(num_images=4, num_errors=1, num_refused=1, num_without_p_value=1)


@pytest.mark.parametrize(
    ("results", "words"),
    [
        ([KNOWN], "1 images, 0 errors, 0 like none of the classes"),
        ([KNOWN, REFUSED, BAD], "3 images, 1 errors, 1 like none of the classes"),
        ([UNTOLD, BAD], "2 images, 1 errors, 1 without a p-value"),
        ([REFUSED, UNTOLD], "2 images, 0 errors, 1 like none of the classes, 1 without a p-value"),
        ([BAD], "1 images, 1 errors"),
    ],
)
def test_what_is_not_known_is_not_counted_as_zero(results, words):
    footer = read_footer(encode(*results))
    assert footer is not None
    assert str(footer.counts) == words


def test_the_folder_counts_the_rows_of_all_parts(tmp_path):
    write(tmp_path, plan(tmp_path), [KNOWN, REFUSED, REFUSED, BAD])
    assert PredictionFolder(str(tmp_path)).complete() == Counts(num_images=4, num_errors=1, num_refused=2)


@pytest.mark.parametrize("count", [b"many", b"-1", b""])
def test_a_count_that_something_else_wrote_is_none(count):
    table = pa.table({"error": pa.array(["bad"])}).replace_schema_metadata({b"num_refused": count})
    sink = pa.BufferOutputStream()
    parquet.write_table(table, sink)
    footer = read_footer(sink.getvalue().to_pybytes())
    assert footer is not None
    assert footer.counts == Counts(num_images=1, num_errors=1)


# Rows of an older version, without these columns.


def write_old(output: Path, *, num_parts: int, has_manifest: bool = True) -> None:
    """Leave what a version without these columns leaves after so many of two parts."""
    plan(output)
    store = open_store(str(output))
    manifest = json.loads(store.read("_manifest.json") or b"")
    del manifest["columns"]
    store.write("_manifest.json", json.dumps(manifest, indent=2).encode() if has_manifest else b"{")
    lines = (store.read("_images.jsonl") or b"").splitlines(keepends=True)
    for number in range(num_parts):
        content = b"".join(lines[2 * number : 2 * number + 2])
        key = hashlib.sha256(json.dumps(MODEL).encode() + b"\n" + content).hexdigest()
        results = [ImageError(image.path, "bad") for image in IMAGES[2 * number : 2 * number + 2]]
        rows = read(encode(*results)).select(OLD_COLUMNS).replace_schema_metadata({b"made_from": key.encode()})
        sink = pa.BufferOutputStream()
        parquet.write_table(rows, sink)
        store.write(f"part-0000{number}-of-00002.parquet", sink.getvalue().to_pybytes())
    if num_parts == 2:
        store.write("_SUCCESS", b"")


@pytest.mark.parametrize("num_parts", [0, 1, 2])
def test_rows_of_an_older_version_are_never_mixed_with_rows_that_have_the_limits(tmp_path, num_parts):
    write_old(tmp_path, num_parts=num_parts)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(
        InferenceError,
        match=r"another set of columns \(without p_value, is_known, prediction_set\)\. Choose another --output, or",
    ):
        plan(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    parts = plan(tmp_path, overwrite=True)
    assert len(parts) == 2
    assert plan(tmp_path) == parts  # as after a kill
    write(tmp_path, parts, [KNOWN, REFUSED, KNOWN, BAD])
    assert PredictionFolder(str(tmp_path)).complete() == Counts(num_images=4, num_errors=1, num_refused=1)
    assert tuple(parquet.read_table(tmp_path).schema.names) == COLUMNS


def test_rows_of_an_older_version_are_known_without_their_manifest(tmp_path):
    write_old(tmp_path, num_parts=1, has_manifest=False)
    with pytest.raises(InferenceError, match="another model, list of images or set of columns"):
        plan(tmp_path)
    assert len(plan(tmp_path, overwrite=True)) == 2


def test_rows_of_a_version_with_more_columns_are_kept(tmp_path):
    plan(tmp_path)
    store = open_store(str(tmp_path))
    manifest = json.loads(store.read("_manifest.json") or b"")
    store.write("_manifest.json", json.dumps({**manifest, "columns": [*COLUMNS, "more"]}).encode())
    with pytest.raises(InferenceError, match=r"another set of columns\. Choose another --output"):
        plan(tmp_path)
