"""Examples from folders of small images, written with their index and their description."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from components import examples
from components.artifacts.examples import SPLITS, read_encoded, read_examples, read_image, read_index, shards
from components.data import transform
from components.errors import DataError
from components.examples import ExamplesOptions, UnlabelledOptions
from tests.components.data.blobs import Encode, draw, fill

PHOTOS = Path(__file__).parents[3] / "shared" / "data" / "photos_fullsize"


class Built:
    """The output of `examples.build`."""

    def __init__(self, folder: Path, summary: dict[str, Any]) -> None:
        self.folder, self.summary = folder, summary
        self.description = read_examples(folder)
        self.index = list(read_index(folder))
        self.excluded = {e["file"]: e["rule"] for e in self.description["excluded"]}

    def counts(self) -> list[int]:
        return [self.summary[f"num_{split}"] for split in SPLITS]

    def names(self, split: str) -> set[str]:
        return {row["filename"] for row in self.index if row["split"] == split}

    def read_features(self, split: str) -> list[dict[str, Any]]:
        records = transform.records(shards(self.folder, split)).as_numpy_iterator()
        parsed = [tf.train.Example.FromString(record).features.feature for record in records]
        return [{name: [*f.bytes_list.value, *f.int64_list.value][0] for name, f in e.items()} for e in parsed]


def build(source: Path, out_dir: Path, **options: Any) -> Built:
    out_dir.mkdir()
    summary = examples.build(out_dir=out_dir, options=ExamplesOptions(source=str(source), **options))
    return Built(out_dir, summary)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, encode: Encode) -> Path:
    return fill(tmp_path_factory.mktemp("flowers"), {"aster": 30, "rose": 30}, encode)


@pytest.fixture(scope="module")
def built(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(folder, tmp_path_factory.mktemp("built") / "examples")


# --- what is written


def test_records_hold_the_photo_and_what_is_known_of_it(folder: Path, built: Built) -> None:
    for example in built.read_features("test"):
        name = example["image/filename"].decode()
        assert example["image/encoded"] == (folder / name).read_bytes()
        assert example["image/key/sha256"].decode() == hashlib.sha256(example["image/encoded"]).hexdigest()
        assert (example["image/width"], example["image/height"]) == (48, 40)
        assert example["image/format"] == b"jpeg"
        assert example["image/class/text"].decode() == name.split("/")[0]
        assert ["aster", "rose"][example["image/class/label"]] == name.split("/")[0]


def test_examples_are_in_the_order_of_their_hash_and_the_index_follows_them(folder: Path, built: Built) -> None:
    assert [row["split"] for row in built.index] == [
        s for s, n in zip(SPLITS, built.counts(), strict=True) for _ in range(n)
    ]
    for split in SPLITS:
        rows = [row for row in built.index if row["split"] == split]
        assert [row["sha256"] for row in rows] == sorted(row["sha256"] for row in rows)
        stored = [
            (e["image/key/sha256"].decode(), e["image/filename"].decode(), e["image/class/label"])
            for e in built.read_features(split)
        ]
        assert [(row["sha256"], row["filename"], row["label"]) for row in rows] == stored
        names = [row["filename"] for row in rows]
        assert list(read_encoded(built.folder, split)) == [(name, (folder / name).read_bytes()) for name in names]
        counted = built.description["splits"][split]
        assert counted["num_examples"] == len(rows) == built.summary[f"num_{split}"] > 0
        assert counted["per_class"] == {n: sum(r["label"] == k for r in rows) for k, n in enumerate(("aster", "rose"))}


def test_two_builds_are_byte_identical_and_leave_nothing_else_behind(
    folder: Path, built: Built, tmp_path: Path
) -> None:
    again = build(folder, tmp_path / "again")
    first, second = ({p.name: p.read_bytes() for p in b.folder.iterdir()} for b in (built, again))
    assert first == second
    tables = {"examples.json", "index.jsonl", "decisions.jsonl"}
    assert set(first) == tables | {f"{split}-00000-of-00001.tfrecord" for split in SPLITS}


def test_many_examples_go_into_several_shards(
    folder: Path, built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.artifacts.examples.EXAMPLES_PER_SHARD", 16)
    parted = build(folder, tmp_path / "parted")
    num_train = built.summary["num_train"]
    num_shards = -(-num_train // 16)
    assert num_shards > 1
    paths = shards(parted.folder, "train")
    assert [path.name for path in paths] == [f"train-{n:05d}-of-{num_shards:05d}.tfrecord" for n in range(num_shards)]
    lengths = [sum(1 for _ in transform.records([path])) for path in paths]
    assert lengths == [16] * (num_train // 16) + [num_train % 16] * (num_train % 16 > 0)
    assert parted.read_features("train") == built.read_features("train")
    for row, before in zip(parted.index, built.index, strict=True):
        assert (
            read_image(parted.folder, row)
            == read_image(built.folder, before)
            == (folder / row["filename"]).read_bytes()
        )
        assert {**row, "shard": before["shard"], "offset": before["offset"]} == before


def test_one_class_is_enough_to_write_examples(tmp_path: Path, encode: Encode) -> None:
    assert build(fill(tmp_path / "in", {"only": 5}, encode), tmp_path / "out").summary["num_classes"] == 1


def test_splits_of_the_source_are_kept_and_missing_ones_carved_out_of_train(tmp_path: Path, encode: Encode) -> None:
    folder = fill(tmp_path / "in", {"train/a": 12, "train/b": 12, "test/a": 4, "test/b": 4}, encode)
    built = build(folder, tmp_path / "carved")
    assert built.names("test") == {f"test/{n}/{s:04d}.jpg" for n, s in zip("aaaabbbb", range(24, 32), strict=True)}
    assert built.summary["num_validation"] >= 2
    assert all(name.startswith("train/") for name in built.names("train") | built.names("validation"))
    fill(folder, {"validation/a": 1, "validation/b": 1}, encode, first_seed=90)
    assert build(folder, tmp_path / "kept").counts() == [24, 2, 8]


# --- what is left out


def test_what_is_left_out_is_listed_in_order_and_the_rest_is_kept(tmp_path: Path, encode: Encode) -> None:
    folder = fill(tmp_path / "in", {"train/a": 4, "validation/a": 3, "test/a": 2, "train/b": 1}, encode)
    (folder / "train/b/text.jpg").write_bytes(b"no photo")
    shutil.copy(folder / "train/a/0000.jpg", folder / "train/a/copy.jpg")
    shutil.copy(folder / "train/a/0001.jpg", folder / "train/b/same.jpg")
    (folder / "train/a/near.jpg").write_bytes(encode(draw(7), "PNG"))
    built = build(folder, tmp_path / "out", near_duplicate_bits=3)
    assert list(built.excluded.items()) == [
        ("train/a/0001.jpg", "conflicting_label"),
        ("train/a/copy.jpg", "duplicate"),
        ("train/a/near.jpg", "near_duplicate"),
        ("train/b/same.jpg", "conflicting_label"),
        ("train/b/text.jpg", "unreadable"),
    ]
    assert built.summary["num_excluded"] == 5
    assert built.counts() == [4, 3, 2]


def test_nothing_readable_is_an_error_that_names_the_first_file(tmp_path: Path) -> None:
    for name in ("a/1.jpg", "b/2.jpg"):
        (tmp_path / "in" / name).parent.mkdir(parents=True)
        (tmp_path / "in" / name).write_text("no photo")
    with pytest.raises(DataError, match=r"None of the 2 files of .* The first: a/1\.jpg: not an image"):
        build(tmp_path / "in", tmp_path / "out")


def test_real_photos_are_all_read_and_none_is_taken_for_another(tmp_path: Path) -> None:
    if not PHOTOS.is_dir():
        pytest.skip(f"no real photos here: {PHOTOS} does not exist")
    built = build(PHOTOS, tmp_path / "out")
    assert len(built.index) == len(list(PHOTOS.rglob("*.jpg")))
    assert not built.excluded
    assert all(0.05 < row["brightness"] < 0.95 and row["contrast"] > 0.03 for row in built.index)


# --- options


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        ({"engine": "spark"}, "engine must be one of local, beam. Received: 'spark'"),
        ({"validation_fraction": 0.0}, "validation_fraction must be above 0. Received: 0.0"),
        ({"test_fraction": -0.1}, "test_fraction must be above 0. Received: -0.1"),
        ({"validation_fraction": 0.5, "test_fraction": 0.5}, "must leave a tenth to train on"),
        ({"near_duplicate_bits": 4}, "near_duplicate_bits must be 0 to 3. Received: 4"),
        ({"num_synthetic_per_class": 9}, "num_synthetic_per_class must be at least 10. Received: 9"),
        ({"seed": -1}, "seed must be 0 to 2147483647. Received: -1"),
    ],
    ids=str,
)
def test_options_out_of_range_are_errors(wrong: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        ExamplesOptions(**wrong)


def test_photos_without_labels_are_written_once_each_whatever_their_folder(tmp_path: Path, encode: Encode) -> None:
    folder = fill(tmp_path / "photos", {"": 3, "deep/er": 3}, encode)
    (folder / "copy.jpg").write_bytes((folder / "0001.jpg").read_bytes())
    (folder / "broken.jpg").write_bytes(b"broken")
    out_dir = tmp_path / "out"
    out_dir.mkdir()
    summary = examples.build_unlabelled(out_dir=out_dir, options=UnlabelledOptions(folder=str(folder)))
    assert summary == {"data": str(folder), "num_photos": 6, "num_excluded": 2}
    rows = list(read_index(out_dir))
    assert {row["filename"] for row in rows} == {str(path) for path in folder.rglob("0*.jpg")}
    assert [row["sha256"] for row in rows] == sorted(row["sha256"] for row in rows)
    assert {row["split"] for row in rows} == {"train"}
    assert read_image(out_dir, rows[0]) == Path(rows[0]["filename"]).read_bytes()
