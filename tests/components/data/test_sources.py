"""Sources: folders on disk, a TensorFlow data set made on the spot, and what `auto` does offline."""

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import tensorflow_datasets as tfds

from components.data import drawn_flowers as synthetic
from components.data import sources
from components.data.sources import Photo, Source
from components.errors import DataError, StorageError
from tests.s3 import S3


def fill(folder: Path, *names: str) -> Path:
    """Make files whose content is their name."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def open_source(source: Any, *, num_synthetic_per_class: int = 10, seed: int = 0) -> Source:
    return sources.open_source(str(source), num_synthetic_per_class=num_synthetic_per_class, seed=seed)


# --- folders


def test_folder_of_classes_gives_its_photos_in_order(tmp_path: Path) -> None:
    source = open_source(fill(tmp_path, "tulip/b.jpg", "tulip/a.jpg", "rose/z.png"))
    assert source.class_names == ("rose", "tulip")
    assert source.splits == ("train",)
    assert source.num_photos == 3
    assert (source.resolved, source.fallback) == (str(tmp_path), None)
    assert list(source.photos) == [
        Photo("rose/z.png", 0, "train", b"rose/z.png"),
        Photo("tulip/a.jpg", 1, "train", b"tulip/a.jpg"),
        Photo("tulip/b.jpg", 1, "train", b"tulip/b.jpg"),
    ]


@pytest.mark.parametrize("validation", ["validation", "val", "valid"])
def test_partitioned_folder_keeps_its_splits(tmp_path: Path, validation: str) -> None:
    fill(tmp_path, "train/a/1", "train/b/2", f"{validation}/a/3", "test/b/4", "test/c/5")
    source = open_source(tmp_path)
    assert source.class_names == ("a", "b", "c"), "a class may be missing from a split"
    assert source.splits == ("train", "validation", "test")
    assert {p.name: p.split for p in source.photos} == {
        "train/a/1": "train",
        "train/b/2": "train",
        f"{validation}/a/3": "validation",
        "test/b/4": "test",
        "test/c/5": "test",
    }


def test_folder_with_train_and_test_brings_these_two(tmp_path: Path) -> None:
    assert open_source(fill(tmp_path, "train/a/1", "test/a/2")).splits == ("train", "test")


def test_two_folders_for_one_split_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Each split has one folder. Found train, val, validation"):
        open_source(fill(tmp_path, "train/a/1", "val/a/2", "validation/a/3"))


def test_class_called_test_is_a_class_where_there_is_no_train(tmp_path: Path) -> None:
    assert open_source(fill(tmp_path, "test/1", "exam/2")).class_names == ("exam", "test")


def test_nested_files_belong_to_their_class_and_hidden_ones_to_none(tmp_path: Path) -> None:
    fill(tmp_path, "a/2019/may/1.jpg", "a/.hidden.jpg", "a/.cache/2.jpg", ".git/x", "readme.txt", "b/1.jpg")
    source = open_source(tmp_path)
    assert source.class_names == ("a", "b")
    assert [p.name for p in source.photos] == ["a/2019/may/1.jpg", "b/1.jpg"]


def test_file_that_cannot_be_read_is_given_empty(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads every file, whatever its permissions")
    fill(tmp_path, "a/1.jpg", "a/2.jpg")
    (tmp_path / "a/1.jpg").chmod(0)
    assert [p.encoded for p in open_source(tmp_path).photos] == [b"", b"a/2.jpg"]


def test_file_that_vanishes_while_reading_is_given_empty(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = open_source(fill(tmp_path, "a/1.jpg", "a/2.jpg"))
    (tmp_path / "a/1.jpg").unlink()
    assert [p.encoded for p in source.photos] == [b"", b"a/2.jpg"]
    assert "1.jpg cannot be read" in caplog.text


@pytest.mark.parametrize("look", [sources.describe, open_source])
def test_folder_without_classes_or_without_files_is_an_error(tmp_path: Path, look: Any) -> None:
    with pytest.raises(DataError, match=r"needs one subfolder for each class.*Found none in"):
        look(str(tmp_path))
    with pytest.raises(DataError, match="needs one subfolder for each class"):
        look(str(fill(tmp_path, "loose.jpg")))
    (tmp_path / "rose").mkdir()
    with pytest.raises(DataError, match=r"The class folders hold no files.*Put photos into rose"):
        look(str(tmp_path))


def test_missing_folder_and_file_instead_of_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"The folder does not exist: .*/flowerz .*TensorFlow Datasets name"):
        sources.describe(str(tmp_path / "flowerz"))
    (tmp_path / "photos.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"Received a file: .*photos\.zip. Unpack an archive first"):
        sources.describe(str(tmp_path / "photos.zip"))


def test_description_of_a_folder_changes_with_its_files(tmp_path: Path) -> None:
    first = sources.describe(str(fill(tmp_path, "a/1", "b/2")))
    assert first == sources.describe(str(tmp_path))
    assert (first["kind"], first["num_files"]) == ("folder", 2)
    os.utime(tmp_path / "a/1", (1, 1))
    touched = sources.describe(str(tmp_path))
    (tmp_path / "a/1").rename(tmp_path / "a/3")
    renamed = sources.describe(str(tmp_path))
    assert len({d["digest"] for d in (first, touched, renamed)}) == 3


@pytest.mark.parametrize("name", ["tf_flowers", "mnist", "caltech_birds2011", "imagenet_resized/32x32:0.1.0"])
def test_data_set_name_is_described_without_being_fetched(name: str) -> None:
    assert sources.describe(name) == {"kind": "tfds", "name": name}


# --- folders at a URL


def upload(s3: S3, folder: Path) -> str:
    for path in folder.rglob("*"):
        if path.is_file():
            s3.put(f"photos/{path.relative_to(folder).as_posix()}", path.read_bytes())
    return f"{s3.url}/photos"


@pytest.mark.parametrize(
    "names",
    [
        ("tulip/b.jpg", "tulip/a.jpg", "rose/z.png", "rose/a-b/1.jpg", "rose/a/2.jpg"),
        ("train/a/1", "train/b/2", "val/a/3", "test/b/4", "test/c/5"),
        ("a/2019/may/1.jpg", "a/.hidden.jpg", "a/.cache/2.jpg", ".git/x", "readme.txt", "b/1.jpg"),
        ("test/1", "exam/2"),
    ],
)
def test_folder_at_a_url_gives_what_the_same_folder_here_gives(s3: S3, tmp_path: Path, names: tuple[str, ...]) -> None:
    folder = fill(tmp_path / "photos", *names)
    here, there = open_source(folder), open_source(upload(s3, folder))
    assert there.resolved == f"{s3.url}/photos"
    assert replace(there, resolved="", photos=()) == replace(here, resolved="", photos=())
    assert list(there.photos) == list(here.photos)


def test_description_of_a_url_changes_with_a_files_content(s3: S3, tmp_path: Path) -> None:
    url = upload(s3, fill(tmp_path, "a/1.jpg", "a/2.jpg"))
    before = sources.describe(url)
    assert before["kind"] == "folder"
    assert before["num_files"] == 2
    assert sources.describe(url) == before
    s3.put("photos/a/2.jpg", b"a/3.jpg")  # as long as before
    assert sources.describe(url)["digest"] != before["digest"]


def test_a_photo_that_is_gone_meanwhile_is_an_empty_one(
    s3: S3, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = upload(s3, fill(tmp_path, "a/1.jpg", "a/2.jpg"))
    source = open_source(url)
    s3.client.delete_object(Bucket=s3.name, Key="photos/a/1.jpg")
    assert [photo.encoded for photo in source.photos] == [b"", b"a/2.jpg"]
    assert f"{url}/a/1.jpg is not there any more" in caplog.text


def test_a_store_that_fails_while_photos_are_read_is_an_error(s3: S3, tmp_path: Path) -> None:
    url = upload(s3, fill(tmp_path, "a/1.jpg", "a/2.jpg"))
    s3.forbid("s3:GetObject")
    with pytest.raises(StorageError, match=rf"{url} cannot be used"):
        list(open_source(url).photos)


def test_url_without_photos_or_without_a_server_is_an_error(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        DataError, match=rf"A data folder needs one subfolder for each class.*Found none in {s3.url}/no"
    ):
        sources.describe(f"{s3.url}/no")
    s3.unplug(monkeypatch)
    with pytest.raises(StorageError, match="Could not connect"):
        sources.describe(f"{s3.url}/photos")


# --- drawn flowers


def test_drawn_flowers_are_the_same_for_a_seed_and_fill_every_split() -> None:
    photos = list(open_source("synthetic").photos)
    assert photos == list(open_source("synthetic").photos)
    assert len(photos) == 10 * len(synthetic.CLASS_NAMES) == open_source("synthetic").num_photos
    assert len({p.encoded for p in photos}) == len(photos)
    for label in range(len(synthetic.CLASS_NAMES)):
        assert sorted(p.split for p in photos if p.label == label) == ["test"] * 2 + ["train"] * 7 + ["validation"]


def test_drawn_flowers_of_another_seed_are_others() -> None:
    first, other = ({p.encoded for p in open_source("synthetic", seed=seed).photos} for seed in (0, 1))
    assert first.isdisjoint(other)


# --- TensorFlow Datasets


def squares(seed: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (12, 10, 3), dtype=np.uint8)


class TinySquares(tfds.core.GeneratorBasedBuilder):
    """Noise of two kinds, in train and, where the configuration says so, test."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="whole"), tfds.core.BuilderConfig(name="parted")]  # noqa: RUF012

    def _info(self) -> Any:
        features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(names=["odd", "even"])}
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features), supervised_keys=("image", "label")
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        splits = {"train": self._generate_examples(0, 8)}
        return splits if self.builder_config.name == "whole" else {**splits, "test": self._generate_examples(8, 11)}

    def _generate_examples(self, first: int, last: int) -> Iterator[tuple[int, dict[str, Any]]]:
        for number in range(first, last):
            yield number, {"image": squares(number), "label": ("even", "odd")[number % 2]}


class TinyNumbers(tfds.core.GeneratorBasedBuilder):
    """A data set without images."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> Any:
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict({"x": np.float32}))

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {}

    def _generate_examples(self) -> Iterator[Any]:
        return iter(())


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place for prepared data sets."""
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path / "tfds"))
    return tmp_path / "tfds"


@pytest.mark.parametrize(("config", "splits"), [("whole", {"train": 8}), ("parted", {"train": 8, "test": 3})])
def test_data_set_is_prepared_and_read_by_its_name(data_dir: Path, config: str, splits: dict[str, int]) -> None:
    source = open_source(f"tiny_squares/{config}")
    assert source.resolved == f"tiny_squares/{config}/1.0.0"
    assert source.fallback is None
    assert source.class_names == ("odd", "even"), "the data set's own names, in its own order"
    assert source.splits == tuple(splits)
    photos = list(source.photos)
    assert source.num_photos == len(photos) == sum(splits.values())
    assert [p.name for p in photos] == [f"{split}/{n}" for split, count in splits.items() for n in range(count)]
    assert all(p.encoded.startswith(b"\x89PNG") for p in photos)
    assert sorted(p.label for p in photos if p.split == "train") == [0] * 4 + [1] * 4
    assert photos == list(open_source(f"tiny_squares/{config}").photos), "read again from disk, in the same order"
    assert (data_dir / "tiny_squares" / config / "1.0.0").is_dir()


@pytest.mark.parametrize("name", ["no_such_flowers", "tiny_squares/round", "tiny_squares/whole:9.9.9"])
def test_unknown_data_set_configuration_or_version_is_an_error(data_dir: Path, name: str) -> None:
    with pytest.raises(DataError, match=f"{name}.* TensorFlow Datasets name.*Give another name, a folder"):
        open_source(name)


def test_data_set_without_images_is_an_error(data_dir: Path) -> None:
    with pytest.raises(DataError, match="not for image classification"):
        open_source("tiny_numbers")


@pytest.fixture
def offline(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(url: str, **options: Any) -> None:
        assert options["timeout"] <= 30
        raise requests.ConnectionError(f"no route to {url}")

    monkeypatch.setattr(requests, "head", refuse)


def test_named_data_set_that_cannot_be_downloaded_is_an_error_within_seconds(offline: None) -> None:
    start = time.monotonic()
    with pytest.raises(DataError, match="'tf_flowers' cannot be downloaded or prepared: no route to http"):
        open_source("tf_flowers")
    assert time.monotonic() - start < 20  # 0.2 s here, once TensorFlow Datasets is imported


def test_auto_takes_drawn_flowers_offline_and_says_why(offline: None, caplog: pytest.LogCaptureFixture) -> None:
    source = open_source("auto")
    assert source.resolved == "synthetic"
    assert source.fallback is not None
    assert "no route to http" in source.fallback
    assert "drawn flowers instead" in source.fallback
    assert "DATA FELL BACK TO DRAWN FLOWERS" in caplog.text
    assert source.class_names == synthetic.CLASS_NAMES


def test_auto_takes_the_public_flowers_where_they_can_be_had(monkeypatch: pytest.MonkeyPatch, data_dir: Path) -> None:
    monkeypatch.setattr(sources, "DEFAULT_DATASET", "tiny_squares/whole")
    source = open_source("auto")
    assert (source.resolved, source.fallback) == ("tiny_squares/whole/1.0.0", None)
