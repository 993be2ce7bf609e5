"""Data sets of TensorFlow Datasets, made on the spot, and what `auto` takes with and without a network."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import tensorflow_datasets as tfds

from components.data.drawn_flowers import CLASS_NAMES
from components.data.sources import factory
from components.data.sources.dataset import open_dataset
from components.errors import DataError


class TinySquares(tfds.core.GeneratorBasedBuilder):
    """Noise of two kinds, in train and, if parted, test; or without labels."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in ("whole", "parted", "unlabelled")]  # noqa: RUF012

    def _info(self) -> Any:
        features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(names=["odd", "even"])}
        keys = None if self.builder_config.name == "unlabelled" else ("image", "label")
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features), supervised_keys=keys)

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        splits = {"train": self._generate_examples(0, 8)}
        return splits if self.builder_config.name == "whole" else {**splits, "test": self._generate_examples(8, 11)}

    def _generate_examples(self, first: int, last: int) -> Iterator[tuple[int, dict[str, Any]]]:
        for number in range(first, last):
            noise = np.random.default_rng(number).integers(0, 256, (12, 10, 3), dtype=np.uint8)
            yield number, {"image": noise, "label": ("even", "odd")[number % 2]}


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of prepared data sets, which does not exist yet."""
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path / "tfds"))
    return tmp_path / "tfds"


@pytest.fixture
def offline(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that refuses every request, none of which waits for longer than 30 seconds."""

    def refuse(url: str, **options: Any) -> None:
        assert options["timeout"] <= 30
        raise requests.ConnectionError(f"no route to {url}")

    monkeypatch.setattr(requests, "head", refuse)


@pytest.mark.parametrize(("config", "splits"), [("whole", {"train": 8}), ("parted", {"train": 8, "test": 3})])
def test_data_set_is_prepared_and_read_by_its_name(data_dir: Path, config: str, splits: dict[str, int]) -> None:
    source = open_dataset(f"tiny_squares/{config}")
    assert source.resolved == f"tiny_squares/{config}/1.0.0"
    assert source.fallback is None
    assert source.class_names == ("odd", "even"), "the data set's own names, in its own order"
    assert source.splits == tuple(splits)
    photos = list(source.photos)
    assert source.num_photos == len(photos) == sum(splits.values())
    assert [p.name for p in photos] == [f"{split}/{n}" for split, count in splits.items() for n in range(count)]
    assert all(p.encoded.startswith(b"\x89PNG") for p in photos)
    assert sorted(p.label for p in photos if p.split == "train") == [0] * 4 + [1] * 4
    assert photos == list(open_dataset(f"tiny_squares/{config}").photos), "read again from disk, in the same order"
    assert (data_dir / "tiny_squares" / config / "1.0.0").is_dir()


@pytest.mark.usefixtures("data_dir")
@pytest.mark.parametrize("name", ["no_such_flowers", "tiny_squares/round", "tiny_squares/whole:9.9.9"])
def test_unknown_data_set_configuration_or_version_is_an_error(name: str) -> None:
    with pytest.raises(DataError, match=f"{name}.* TensorFlow Datasets name.*Give another name, a folder"):
        open_dataset(name)


@pytest.mark.usefixtures("data_dir")
def test_data_set_without_images_and_labels_is_an_error() -> None:
    with pytest.raises(DataError, match="not for image classification"):
        open_dataset("tiny_squares/unlabelled")


@pytest.mark.usefixtures("offline")
def test_data_set_that_cannot_be_downloaded_is_an_error_within_seconds() -> None:
    start = time.monotonic()
    with pytest.raises(DataError, match="'tf_flowers' cannot be downloaded or prepared: no route to http"):
        open_dataset("tf_flowers")
    assert time.monotonic() - start < 20  # 0.2 s here, once TensorFlow Datasets is imported


@pytest.mark.usefixtures("offline")
def test_auto_takes_drawn_flowers_offline_and_logs_why(caplog: pytest.LogCaptureFixture) -> None:
    source = factory.open_source("auto", num_synthetic_per_class=10, seed=0)
    assert source.resolved == "synthetic"
    assert source.fallback is not None
    assert "no route to http" in source.fallback
    assert "drawn flowers instead" in source.fallback
    assert "DATA FELL BACK TO DRAWN FLOWERS" in caplog.text
    assert source.class_names == CLASS_NAMES


@pytest.mark.usefixtures("data_dir")
def test_auto_takes_the_public_flowers_where_they_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factory, "DEFAULT_DATASET", "tiny_squares/whole")
    source = factory.open_source("auto", num_synthetic_per_class=10, seed=0)
    assert (source.resolved, source.fallback) == ("tiny_squares/whole/1.0.0", None)
