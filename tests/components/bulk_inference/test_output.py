"""The folder of predictions: who finishes what is missing leaves one row for each image, and nothing else is harmed."""

import hashlib
import json
import tracemalloc
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from client.classifier_client import ImageError
from components.bulk_inference import output as output_module
from components.bulk_inference.images import ListedImage
from components.bulk_inference.output import Part, PredictionFolder
from components.bulk_inference.rows import Counts
from components.errors import InferenceError
from components.storage.folder import Folder
from components.storage.store import open_store

IMAGES = [ListedImage(f"{number}.jpg", version=f"100 {number}") for number in range(5)]
MODEL = {"sha256": "1"}


@pytest.fixture(params=["folder", "bucket"])
def output(request: Any, tmp_path: Path) -> str:
    return str(tmp_path / "out") if request.param == "folder" else f"memory://{uuid.uuid4()}"


def plan(output: str, images: list[ListedImage] = IMAGES, **options: Any) -> list[Part]:
    return PredictionFolder(output).plan(images, **{"model": MODEL, "part_size": 2, **options})


def write(output: str, *parts: Part) -> None:
    """Write the rows of parts, as of images that cannot be read."""
    folder = PredictionFolder(output)
    for part in parts:
        images = folder.images(part)
        folder.write_rows(part, images, [ImageError(image.path, "bad") for image in images])


def write_foreign(output: str, name: str, num_rows: int) -> None:
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table({"error": pa.array([None] * num_rows, pa.string())}), sink)
    open_store(output).write(name, sink.getvalue().to_pybytes())


def changed(*positions: int) -> list[ListedImage]:
    return [ListedImage(image.path, "new") if n in positions else image for n, image in enumerate(IMAGES)]


def test_every_image_is_in_one_part(output):
    images = [*IMAGES[:3], ListedImage("new\nline", "1"), ListedImage("\udcff", error="bad")]
    parts = plan(output, images)
    assert [part.name for part in parts] == [f"part-0000{number}-of-00003.parquet" for number in range(3)]
    assert [PredictionFolder(output).images(part) for part in parts] == [images[:2], images[2:4], images[4:]]


def test_list_manifest_and_keys_are_byte_for_byte_those_of_earlier_versions(output):
    """Otherwise what is half done would be made again. The digests were taken when the list was still in memory."""
    images = [ListedImage(f"photos/{n:03d}.jpg", version=f"{n} {n * n}") for n in range(7)]
    images += [ListedImage("photos/new\nline\u2028.png", "1"), ListedImage("photos/ü.jpg", error="cannot be read")]
    images += [ListedImage("photos/\udcff.jpg", "5 5")]
    assert plan(output, images, part_size=4) == [
        Part("part-00000-of-00003.parquet", 0, 180, "164b084cbc5c4b0329d535c7f8a76524e64ba8c65860cf0d5fdea4c7e489e61e"),
        Part(
            "part-00001-of-00003.parquet", 180, 193, "510d4b0404c99b96c5bdb389ac79d8561fd70729fc5cff5cdd90b2ab8573d6fb"
        ),
        Part(
            "part-00002-of-00003.parquet", 373, 105, "97b73970d218df7cb95f2e093322b421d71658e2bc60eded7d5248fc4d9aa488"
        ),
    ]
    digests = {
        name: hashlib.sha256(open_store(output).read(name) or b"").hexdigest()
        for name in ("_images.jsonl", "_manifest.json")
    }
    assert digests == {
        "_images.jsonl": "37b5ff809eede004b7a676776fcee4f48ecadd44895f3685265fd580d4883569",
        "_manifest.json": "fb11c6e512d46f09e2418bc13a0bb4fc3c305076718bee542196fc02b725abbc",
    }


def test_a_plan_holds_less_in_memory_than_the_list(tmp_path, monkeypatch):
    """Neither when it is new, nor when another list is there that it is compared with."""
    monkeypatch.setattr(output_module, "_PIECE_BYTES", 50_000)
    for version in "12":
        images = (ListedImage(f"{number:06d}.jpg", version) for number in range(20_000))
        tracemalloc.start()
        parts = plan(str(tmp_path / "out"), images, part_size=1000, overwrite=True)
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        list_bytes = (tmp_path / "out" / "_images.jsonl").stat().st_size
        assert sum(part.num_bytes for part in parts) == list_bytes > 750_000
        assert peak_bytes < list_bytes


def test_parts_that_are_there_are_not_planned_again(output):
    first, second, third = plan(output)
    write(output, second)
    assert plan(output) == [first, third]
    assert PredictionFolder(output).num_parts() == 1


def test_a_finished_folder_is_marked_and_counted(output):
    write(output, *plan(output))
    assert PredictionFolder(output).complete() == Counts(num_images=5, num_errors=5)
    assert open_store(output).read("_SUCCESS") == b""
    before = open_store(output).files()
    assert plan(output) == plan(output, overwrite=True) == []
    assert PredictionFolder(output).complete() == Counts(num_images=5, num_errors=5)
    assert open_store(output).files() == before


def test_rows_that_others_wrote_are_not_taken_for_a_finished_folder(output):
    parts = plan(output)
    write(output, *parts)
    write_foreign(output, "part-of-another.parquet", 1)
    with pytest.raises(InferenceError, match="has 6 rows for 5 images"):
        PredictionFolder(output).complete()
    open_store(output).remove_file("part-of-another.parquet")
    write_foreign(output, parts[0].name, 2)
    assert plan(output) == parts[:1]


# What is damaged.


@pytest.mark.parametrize("content", [b"", b"PAR1", b"half"])
def test_a_part_that_is_cut_short_is_made_again(output, content):
    first, second, third = plan(output)
    write(output, first, second, third)
    PredictionFolder(output).complete()
    store = open_store(output)
    whole = store.read(second.name) or b""
    store.write(second.name, whole[: len(whole) // 2] if content == b"half" else content)
    assert plan(output) == [second]
    assert "_SUCCESS" not in store.names()
    write(output, second)
    assert PredictionFolder(output).complete().num_images == 5


def test_a_part_that_is_damaged_meanwhile_is_an_error_that_names_it(output):
    parts = plan(output)
    write(output, *parts)
    open_store(output).write(parts[1].name, b"PAR1")
    with pytest.raises(InferenceError, match=rf"{parts[1].name} is damaged"):
        PredictionFolder(output).complete()


@pytest.mark.parametrize("content", [b"", b'{"model": {"sha'])
def test_a_damaged_manifest_and_list_cost_no_row(output, content):
    first, second, third = plan(output)
    write(output, first)
    for name in ("_manifest.json", "_images.jsonl"):
        open_store(output).write(name, content)
    assert plan(output) == [second, third]
    write(output, second, third)
    assert PredictionFolder(output).complete().num_images == 5


def test_a_damaged_manifest_does_not_give_away_the_rows_of_something_else(output):
    write(output, *plan(output))
    open_store(output).write("_manifest.json", b"{")
    with pytest.raises(InferenceError, match="begun with another model, list of images or set of columns"):
        plan(output, changed(0))
    assert PredictionFolder(output).num_parts() == 3
    assert len(plan(output, changed(0), overwrite=True)) == 1


class Killed(BaseException):
    """No code may catch it, as none sees a kill."""


def finish(output: str, images: list[ListedImage]) -> dict[str, bytes | None]:
    """Do what the command does, and return the files."""
    with PredictionFolder(output).lock():
        write(output, *plan(output, images, overwrite=True))
        PredictionFolder(output).complete()
    store = open_store(output)
    return {name: store.read(name) for name in store.names()}


def finish_killed(output: str, images: list[ListedImage], patch: pytest.MonkeyPatch, *, num_done: int) -> bool:
    """Do the same, be killed in the middle of the change after so many, and return whether there was one."""
    changes = 0

    def killed(real: Any) -> Any:
        def change(folder: Folder, name: str, *content: Iterable[bytes]) -> None:
            nonlocal changes
            changes += 1
            if changes > num_done:
                for pieces in content:
                    whole = pieces if isinstance(pieces, bytes) else b"".join(pieces)
                    (folder.path / f".{name}.12.tmp").write_bytes(whole[: len(whole) // 2])
                raise Killed
            real(folder, name, *content)

        return change

    with patch.context() as during:
        for method in ("write", "write_pieces", "remove_file"):
            during.setattr(Folder, method, killed(getattr(Folder, method)))
        try:
            finish(output, images)
        except Killed:
            return True
    return False


@pytest.mark.parametrize(("is_new", "num_changes"), [(True, 6), (False, 8)])
def test_killed_at_any_change_to_the_folder_the_same_command_goes_on(tmp_path, monkeypatch, is_new, num_changes):
    """A new output: list, manifest, three parts, mark. Or one of which two photos have changed: three removed too."""
    images = changed(0, 3)
    expected = finish(str(tmp_path / "undisturbed"), images)
    assert len(expected) == 6
    for num_done in range(num_changes + 1):
        output = str(tmp_path / str(num_done))
        if not is_new:
            finish(output, IMAGES)
        assert finish_killed(output, images, monkeypatch, num_done=num_done) == (num_done < num_changes)
        assert finish(output, images) == expected


@pytest.mark.parametrize(
    "leftovers",
    [
        ["._images.jsonl.12.tmp"],
        ["_images.jsonl"],
        ["_images.jsonl", "._manifest.json.12.tmp"],
        [".probe-0a1b2c3d"],
    ],
)
def test_what_a_run_left_before_its_first_row_is_no_other_folder(output, leftovers):
    for name in leftovers:
        open_store(output).write(name, b'{"path": "0.j')
    with PredictionFolder(output).lock():
        assert len(plan(output)) == 3
    assert len(PredictionFolder(output).images(plan(output)[0])) == 2


# What is of something else.


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["_manifest.json", ".thesis.txt.12.tmp", "part-00000-of-00001.parquet"])
def test_a_file_that_only_looks_like_ours_is_never_touched(output, overwrite, name):
    open_store(output).write(name, b'{"name": "my web app"}')
    with pytest.raises(InferenceError, match="must be a new folder"), PredictionFolder(output).lock():
        plan(output, overwrite=overwrite)
    assert open_store(output).read(name) == b'{"name": "my web app"}'


def test_only_the_parts_of_changed_photos_are_made_again(output):
    parts = plan(output)
    write(output, *parts)
    PredictionFolder(output).complete()
    with pytest.raises(InferenceError, match=r"another list of images \(1 changed: 2\.jpg\)\."):
        plan(output, changed(2))
    assert open_store(output).read("_SUCCESS") == b""
    missing = plan(output, changed(2), overwrite=True)
    assert [part.name for part in missing] == [parts[1].name]
    assert PredictionFolder(output).images(missing[0]) == changed(2)[2:4]
    assert "_SUCCESS" not in open_store(output).names()
    assert plan(output, changed(2)) == missing  # as after a kill
    write(output, *missing)
    assert PredictionFolder(output).complete().num_images == 5


@pytest.mark.parametrize("piece_bytes", [1, 10, 1 << 20])
def test_a_list_is_compared_with_another_in_whatever_pieces_it_is_read(output, monkeypatch, piece_bytes):
    monkeypatch.setattr(output_module, "_PIECE_BYTES", piece_bytes)
    plan(output)
    others = changed(1, 2, 3, 4)[1:]
    other = [ListedImage("/0.jpg"), *others, ListedImage("5.jpg"), ListedImage("6.jpg")]
    with pytest.raises(
        InferenceError, match=r"list of images \(3 new, 1 gone, 4 changed: 1\.jpg, 2\.jpg, 3\.jpg, …\)\. Choose"
    ):
        plan(output, other)
    assert len(plan(output)) == 3


def test_a_list_of_paths_alone_as_it_was_once_is_another_list(output):
    plan(output)
    store = open_store(output)
    manifest = json.loads(store.read("_manifest.json") or b"")
    manifest["list_of_images"] = {"num_images": 1, "sha256": hashlib.sha256(b'"0.jpg"\n').hexdigest()}
    store.write("_images.jsonl", b'"0.jpg"\n')
    store.write("_manifest.json", json.dumps(manifest).encode())
    with pytest.raises(InferenceError, match=r"begun with another list of images\. Choose"):
        plan(output)


def test_files_of_others_beside_the_rows_are_kept(output):
    write(output, *plan(output))
    open_store(output).write("notes.txt", b"mine")
    assert len(plan(output, changed(0, 2, 4), overwrite=True)) == 3
    assert open_store(output).read("notes.txt") == b"mine"
    assert PredictionFolder(output).num_parts() == 0


@pytest.mark.parametrize(
    ("images", "options", "what"),
    [
        (IMAGES[1:], {}, r"list of images \(1 gone\)"),
        (IMAGES, {"model": {"sha256": "2"}}, "model"),
        (IMAGES[1:], {"part_size": 3}, r"list of images \(1 gone\) and part size"),
    ],
)
def test_an_output_of_something_else_is_kept_without_overwrite(output, images, options, what):
    first, *_ = plan(output)
    write(output, first)
    with pytest.raises(
        InferenceError, match=f"was begun with another {what}\\. Choose another --output, or --overwrite"
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


@pytest.mark.parametrize("error", [28, 13, 30])
def test_the_advice_fits_what_the_system_refuses(tmp_path, monkeypatch, error):
    advice = {28: "Free some space", 13: "Nothing may be written there", 30: "The disk is read-only"}[error]
    first, *_ = plan(str(tmp_path))

    def refuse(*_: Any) -> None:
        raise OSError(error, "refused")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(InferenceError, match=rf"{tmp_path}/{first.name}: refused\. {advice}"):
        write(str(tmp_path), first)


def test_a_lost_list_of_images_is_an_error(output):
    first, *_ = plan(output)
    open_store(output).remove_file("_images.jsonl")
    with pytest.raises(InferenceError, match=r"has lost _images\.jsonl"):
        PredictionFolder(output).images(first)
