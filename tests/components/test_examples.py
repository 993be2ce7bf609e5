"""Examples from folders of small pictures: what is kept, what is left out and why, and where each photo goes."""

import functools
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from components import examples
from components.data import transform
from components.errors import DataError
from components.examples import ExamplesOptions
from export import preprocessing

Encode = Callable[..., bytes]
PHOTOS = Path(__file__).parents[3] / "shared" / "data" / "photos_fullsize"


def blobs(seed: int, size: tuple[int, int] = (48, 40)) -> Image.Image:
    """Draw smooth noise: pictures of different seeds are far apart, rescaled copies near."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def fill(folder: Path, counts: dict[str, int], encode: Encode, *, first_seed: int = 0) -> Path:
    """Write JPEGs: {folder of a class: how many}."""
    seed = first_seed
    for place, count in counts.items():
        (folder / place).mkdir(parents=True, exist_ok=True)
        for _ in range(count):
            (folder / place / f"{seed:04d}.jpg").write_bytes(encode(blobs(seed), "JPEG"))
            seed += 1
    return folder


class Built:
    """The output of `examples.build`."""

    def __init__(self, folder: Path, summary: dict[str, Any]) -> None:
        self.folder, self.summary = folder, summary
        self.description = examples.describe(folder)
        self.index = [json.loads(line) for line in (folder / "index.jsonl").read_text().splitlines()]
        self.excluded = {e["file"]: e for e in self.description["excluded"]}

    def splits(self) -> dict[str, str]:
        """Give the split of each photo by its content."""
        return {row["sha256"]: row["split"] for row in self.index}

    def names(self, split: str) -> set[str]:
        return {row["filename"] for row in self.index if row["split"] == split}

    def parse(self, split: str) -> list[dict[str, Any]]:
        features = {
            "image/encoded": tf.io.FixedLenFeature([], tf.string),
            "image/format": tf.io.FixedLenFeature([], tf.string),
            "image/filename": tf.io.FixedLenFeature([], tf.string),
            "image/key/sha256": tf.io.FixedLenFeature([], tf.string),
            "image/height": tf.io.FixedLenFeature([], tf.int64),
            "image/width": tf.io.FixedLenFeature([], tf.int64),
            "image/class/label": tf.io.FixedLenFeature([], tf.int64),
            "image/class/text": tf.io.FixedLenFeature([], tf.string),
        }
        records = transform.records(examples.shards(self.folder, split)).as_numpy_iterator()
        parsed = (tf.io.parse_single_example(record, features) for record in records)
        return [{name: value.numpy() for name, value in example.items()} for example in parsed]


make_examiner = functools.cache(examples.make_examiner)


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Built]:
    # The check of a photo keeps no state, and its graph takes a second to trace: once is enough.
    monkeypatch.setattr(examples, "make_examiner", make_examiner)

    def build(source: Path | str, **options: Any) -> Built:
        out_dir = tmp_path / f"examples-{len(list(tmp_path.glob('examples-*')))}"
        out_dir.mkdir()
        summary = examples.build(out_dir=out_dir, options=ExamplesOptions(source=str(source), **options))
        return Built(out_dir, summary)

    return build


# --- what is written


@pytest.fixture(scope="module")
def folder_of_60(tmp_path_factory: pytest.TempPathFactory, encode: Encode) -> Path:
    return fill(tmp_path_factory.mktemp("flowers"), {"aster": 30, "rose": 30}, encode)


def test_records_hold_the_photo_and_what_is_known_of_it(folder_of_60: Path, build: Callable[..., Built]) -> None:
    built = build(folder_of_60)
    for example in built.parse("test"):
        name = example["image/filename"].decode()
        assert example["image/encoded"] == (folder_of_60 / name).read_bytes()
        assert example["image/key/sha256"].decode() == hashlib.sha256(example["image/encoded"]).hexdigest()
        assert (example["image/width"], example["image/height"]) == (48, 40)
        assert example["image/format"] == b"jpeg"
        assert example["image/class/text"].decode() == name.split("/")[0]
        assert ["aster", "rose"][example["image/class/label"]] == name.split("/")[0]


def test_examples_stand_in_the_order_of_their_hash_and_the_index_follows_them(
    folder_of_60: Path, build: Callable[..., Built]
) -> None:
    built = build(folder_of_60)
    for split in ("train", "validation", "test"):
        rows = [row for row in built.index if row["split"] == split]
        assert [row["sha256"] for row in rows] == sorted(row["sha256"] for row in rows)
        stored = [
            (e["image/key/sha256"].decode(), e["image/filename"].decode(), e["image/class/label"])
            for e in built.parse(split)
        ]
        assert [(row["sha256"], row["filename"], row["label"]) for row in rows] == stored
        counted = built.description["splits"][split]
        assert counted["num_examples"] == len(rows) == built.summary[f"num_{split}"] > 0
        assert counted["per_class"] == {n: sum(r["label"] == k for r in rows) for k, n in enumerate(("aster", "rose"))}


def test_index_knows_brightness_and_contrast(tmp_path: Path, build: Callable[..., Built], encode: Encode) -> None:
    fill(tmp_path / "in", {"a": 3}, encode)
    half = Image.new("L", (64, 64))
    half.paste(255, (0, 0, 32, 64))
    (tmp_path / "in/a/half.png").write_bytes(encode(half, "PNG"))
    (row,) = [r for r in build(tmp_path / "in").index if r["filename"] == "a/half.png"]
    # Half black and half white, softened along one edge: mean and standard deviation are a half.
    assert row["brightness"] == pytest.approx(0.5, abs=0.01)
    assert row["contrast"] == pytest.approx(0.5, abs=0.02)


def test_two_builds_are_byte_identical_and_leave_nothing_else_behind(
    folder_of_60: Path, build: Callable[..., Built]
) -> None:
    contents = [{path.name: path.read_bytes() for path in build(folder_of_60).folder.iterdir()} for _ in range(2)]
    assert contents[0] == contents[1]
    assert set(contents[0]) == {
        "examples.json",
        "index.jsonl",
        *(f"{split}-00000-of-00001.tfrecord" for split in ("train", "validation", "test")),
    }


def test_many_examples_go_into_several_shards(
    folder_of_60: Path, build: Callable[..., Built], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = build(folder_of_60)
    monkeypatch.setattr(examples, "EXAMPLES_PER_SHARD", 16)
    parted = build(folder_of_60)
    num_train = whole.summary["num_train"]
    num_shards = -(-num_train // 16)
    assert num_shards > 1
    assert [path.name for path in examples.shards(parted.folder, "train")] == [
        f"train-{n:05d}-of-{num_shards:05d}.tfrecord" for n in range(num_shards)
    ]
    lengths = [sum(1 for _ in transform.records([path])) for path in examples.shards(parted.folder, "train")]
    assert lengths == [16] * (num_train // 16) + [num_train % 16] * (num_train % 16 > 0)
    assert parted.parse("train") == whole.parse("train")
    assert parted.index == whole.index


# --- splits


def test_splits_depend_on_content_alone(folder_of_60: Path, tmp_path: Path, build: Callable[..., Built]) -> None:
    renamed = tmp_path / "elsewhere"
    for number, path in enumerate(sorted(folder_of_60.rglob("*.jpg"), reverse=True)):
        (renamed / path.parent.name / "deep").mkdir(parents=True, exist_ok=True)
        shutil.copy(path, renamed / path.parent.name / "deep" / f"{number}.jpg")
    built = build(folder_of_60)
    assert build(renamed).splits() == built.splits()
    assert {(row["label"], row["split"]) for row in built.index} == {
        (label, split) for label in (0, 1) for split in ("train", "validation", "test")
    }


def test_photo_keeps_its_split_when_others_are_added(
    folder_of_60: Path, tmp_path: Path, build: Callable[..., Built], encode: Encode
) -> None:
    before = build(folder_of_60).splits()
    shutil.copytree(folder_of_60, tmp_path / "more")
    after = build(fill(tmp_path / "more", {"aster": 20, "rose": 20}, encode, first_seed=500)).splits()
    assert len(after) == len(before) + 40
    assert {sha256: after[sha256] for sha256 in before} == before


def test_fractions_set_the_size_of_the_splits(folder_of_60: Path, build: Callable[..., Built]) -> None:
    built = build(folder_of_60, validation_fraction=0.3, test_fraction=0.4)
    counts = Counter(built.splits().values())
    # A draw of 60: three standard deviations around 18 and 24.
    assert 18 - 11 <= counts["validation"] <= 18 + 11
    assert 24 - 12 <= counts["test"] <= 24 + 12


def test_every_class_gives_a_photo_to_every_split(tmp_path: Path, build: Callable[..., Built], encode: Encode) -> None:
    built = build(fill(tmp_path / "in", {"a": 3, "b": 4, "c": 5}, encode))
    for split in ("train", "validation", "test"):
        assert min(built.description["splits"][split]["per_class"].values()) >= 1


def test_one_class_is_enough_to_write_examples(tmp_path: Path, build: Callable[..., Built], encode: Encode) -> None:
    assert build(fill(tmp_path / "in", {"only": 5}, encode)).summary["num_classes"] == 1


def test_splits_of_the_source_are_kept_and_missing_ones_carved_out_of_train(
    tmp_path: Path, build: Callable[..., Built], encode: Encode
) -> None:
    folder = fill(tmp_path / "in", {"train/a": 12, "train/b": 12, "test/a": 4, "test/b": 4}, encode)
    built = build(folder)
    assert built.names("test") == {f"test/{n}/{s:04d}.jpg" for n, s in zip("aaaabbbb", range(24, 32), strict=True)}
    assert built.summary["num_validation"] >= 2
    assert all(name.startswith("train/") for name in built.names("train") | built.names("validation"))
    fill(folder, {"validation/a": 1, "validation/b": 1}, encode, first_seed=90)
    built = build(folder)
    assert (built.summary["num_train"], built.summary["num_validation"], built.summary["num_test"]) == (24, 2, 8)


# --- what is left out


def test_unreadable_files_are_listed_with_their_reason_and_the_rest_is_kept(
    tmp_path: Path, build: Callable[..., Built], encode: Encode
) -> None:
    folder = fill(tmp_path / "in", {"a": 5}, encode)
    good = encode(blobs(70, (200, 150)), "JPEG")
    for name, content in {
        "text.jpg": b"I am no photo",
        "empty.jpg": b"",
        "cut.jpg": good[: len(good) // 2],
        "cut.png": encode(blobs(71), "PNG")[:600],
        "cut.webp": encode(blobs(72), "WEBP")[:80],
        "huge.png": encode(Image.new("1", (12000, 12000)), "PNG"),
        "large.png": encode(Image.new("1", (5001, 5000)), "PNG"),
    }.items():
        (folder / "a" / name).write_bytes(content)
    built = build(folder)
    found = {name.removeprefix("a/"): (e["rule"], e["reason"]) for name, e in built.excluded.items()}
    assert found["text.jpg"] == ("unreadable", "not an image")
    assert found["empty.jpg"] == ("unreadable", "empty")
    assert found["large.png"] == ("too_large", "5001×5000 is over 25,000,000 pixels")
    assert {name: rule for name, (rule, _) in found.items()} == {
        "text.jpg": "unreadable",
        "empty.jpg": "unreadable",
        "cut.jpg": "unreadable",
        "cut.png": "unreadable",
        "cut.webp": "unreadable",
        "huge.png": "too_large",
        "large.png": "too_large",
    }
    assert "Invalid JPEG data" in found["cut.jpg"][1]
    assert "Invalid PNG data" in found["cut.png"][1]
    assert len(built.index) == 5
    assert built.summary["num_excluded"] == 7


def test_unusual_files_are_kept_and_foreign_formats_become_png(
    tmp_path: Path, build: Callable[..., Built], encode: Encode
) -> None:
    folder = fill(tmp_path / "in", {"a": 5}, encode)
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = [blobs(s).quantize(32) for s in (80, 81)]
    deep = Image.fromarray(np.random.default_rng(0).integers(0, 2**16, (20, 30), dtype=np.uint16))
    translucent = blobs(83).convert("RGBA")
    translucent.putalpha(120)
    files = {
        "cmyk.jpg": (encode(blobs(82).convert("CMYK"), "JPEG"), "jpeg"),
        "deep.png": (encode(deep, "PNG"), "png"),
        "turned.jpg": (encode(blobs(84), "JPEG", exif=exif), "jpeg"),
        "moving.gif": (encode(frames[0], "GIF", save_all=True, append_images=frames[1:]), "gif"),
        "plain.bmp": (encode(blobs(85), "BMP"), "bmp"),
        "misnamed.jpg": (encode(blobs(86), "PNG"), "png"),
        "web.webp": (encode(blobs(87), "WEBP", lossless=True), "png"),
        "turned.webp": (encode(blobs(88), "WEBP", lossless=True, exif=exif), "png"),
        "translucent.webp": (encode(translucent, "WEBP", lossless=True, exact=True), "png"),
        "scan.tiff": (encode(blobs(89), "TIFF"), "png"),
    }
    for name, (content, _) in files.items():
        (folder / "a" / name).write_bytes(content)
    built = build(folder)
    assert not built.excluded
    found = {
        e["image/filename"].decode()[2:]: e for split in ("train", "validation", "test") for e in built.parse(split)
    }
    for name, (content, kind) in files.items():
        assert found[name]["image/format"].decode() == kind, name
        if not name.endswith(("webp", "tiff")):
            assert found[name]["image/encoded"] == content, name
    pixels = {n: preprocessing.decode(tf.constant(found[n]["image/encoded"])).numpy() for n in files}
    np.testing.assert_array_equal(pixels["web.webp"], np.asarray(blobs(87)))
    np.testing.assert_array_equal(pixels["scan.tiff"], np.asarray(blobs(89)))
    upright = np.asarray(blobs(88).transpose(Image.Transpose.ROTATE_270))
    np.testing.assert_array_equal(pixels["turned.webp"], upright)
    over_white = np.asarray(blobs(83)) * (120 / 255) + 255 * (135 / 255)
    np.testing.assert_allclose(pixels["translucent.webp"], over_white, atol=0.51)
    for name in ("turned.jpg", "turned.webp"):  # sizes are those of the upright picture
        assert (found[name]["image/width"], found[name]["image/height"]) == (40, 48)


def test_nothing_readable_is_an_error_that_names_the_first_file(tmp_path: Path, build: Callable[..., Built]) -> None:
    for name in ("a/1.jpg", "b/2.jpg"):
        (tmp_path / "in" / name).parent.mkdir(parents=True)
        (tmp_path / "in" / name).write_text("no photo")
    with pytest.raises(DataError, match=r"None of the 2 files of .* The first: a/1\.jpg: not an image"):
        build(tmp_path / "in")


# --- duplicates


def test_copies_within_a_split_and_across_are_kept_once_where_they_judge_most(
    tmp_path: Path, build: Callable[..., Built], encode: Encode
) -> None:
    folder = fill(tmp_path / "in", {"train/a": 4, "validation/a": 3, "test/a": 2}, encode)
    shutil.copy(folder / "train/a/0000.jpg", folder / "train/a/copy.jpg")
    shutil.copy(folder / "test/a/0007.jpg", folder / "train/a/leak.jpg")
    shutil.copy(folder / "test/a/0007.jpg", folder / "validation/a/leak.jpg")
    shutil.copy(folder / "validation/a/0004.jpg", folder / "train/a/hint.jpg")
    built = build(folder)
    assert {name: (e["rule"], e["split"], e["reason"]) for name, e in built.excluded.items()} == {
        "train/a/copy.jpg": ("duplicate", "train", "the same file as train/a/0000.jpg"),
        "train/a/leak.jpg": ("duplicate", "train", "the same file as test/a/0007.jpg"),
        "validation/a/leak.jpg": ("duplicate", "validation", "the same file as test/a/0007.jpg"),
        "train/a/hint.jpg": ("duplicate", "train", "the same file as validation/a/0004.jpg"),
    }
    assert (built.summary["num_train"], built.summary["num_validation"], built.summary["num_test"]) == (4, 3, 2)


def test_file_under_two_labels_is_left_out_wherever_it_stands(
    tmp_path: Path, build: Callable[..., Built], encode: Encode
) -> None:
    folder = fill(tmp_path / "in", {"a": 5, "b": 5}, encode)
    shutil.copy(folder / "a/0000.jpg", folder / "b/same.jpg")
    built = build(folder)
    assert {name: e["rule"] for name, e in built.excluded.items()} == {
        "a/0000.jpg": "conflicting_label",
        "b/same.jpg": "conflicting_label",
    }
    assert "a/0000.jpg, b/same.jpg" in built.excluded["b/same.jpg"]["reason"]
    assert len(built.index) == 9


def test_rescaled_or_recompressed_copies_are_kept_out_of_the_split_that_judges_less(
    tmp_path: Path, build: Callable[..., Built], encode: Encode
) -> None:
    folder = fill(tmp_path / "in", {"train/a": 4, "validation/a": 3, "test/a": 3}, encode)
    (folder / "train/a/rescaled.jpg").write_bytes(encode(blobs(7).resize((96, 80)), "JPEG"))
    (folder / "train/a/recompressed.jpg").write_bytes(encode(blobs(5), "JPEG", quality=60))
    (folder / "validation/a/of_test.jpg").write_bytes(encode(blobs(8), "PNG"))
    (folder / "test/a/within.jpg").write_bytes(encode(blobs(9), "PNG"))
    built = build(folder, near_duplicate_bits=3)
    assert {name: (e["rule"], e["reason"]) for name, e in built.excluded.items()} == {
        "train/a/rescaled.jpg": ("near_duplicate", "looks the same as test/a/0007.jpg in test"),
        "train/a/recompressed.jpg": ("near_duplicate", "looks the same as validation/a/0005.jpg in validation"),
        "validation/a/of_test.jpg": ("near_duplicate", "looks the same as test/a/0008.jpg in test"),
    }
    assert "test/a/within.jpg" in built.names("test"), "within a split likeness does no harm"


def test_pictures_without_any_detail_are_not_taken_for_copies_of_each_other_within_a_split(
    tmp_path: Path, build: Callable[..., Built], encode: Encode
) -> None:
    folder = fill(tmp_path / "in", {"train/a": 2, "validation/a": 1, "test/a": 1}, encode)
    for grey in (10, 200):
        (folder / f"train/a/{grey}.png").write_bytes(encode(Image.new("RGB", (30, 30), (grey,) * 3), "PNG"))
    assert build(folder).summary["num_train"] == 4


# --- options, and real photos


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        ({"validation_fraction": 0.0}, "must be above 0"),
        ({"test_fraction": -0.1}, "must be above 0"),
        ({"validation_fraction": 0.5, "test_fraction": 0.5}, "must leave a tenth to train on"),
        ({"near_duplicate_bits": 4}, "near_duplicate_bits must be 0 to 3. Received: 4"),
        ({"num_synthetic_per_class": 9}, "num_synthetic_per_class must be at least 10. Received: 9"),
        ({"seed": -1}, "seed must be at least 0. Received: -1"),
    ],
    ids=str,
)
def test_options_out_of_range_are_errors(wrong: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        ExamplesOptions(**wrong)


def test_real_photos_are_all_read_and_none_is_taken_for_another(build: Callable[..., Built]) -> None:
    if not PHOTOS.is_dir():
        pytest.skip(f"no real photos here: {PHOTOS} does not exist")
    built = build(PHOTOS)
    assert len(built.index) == len(list(PHOTOS.rglob("*.jpg")))
    assert not built.excluded
    assert all(0.05 < row["brightness"] < 0.95 and row["contrast"] > 0.03 for row in built.index)
