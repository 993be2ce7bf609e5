"""Names of sources, and names that mean none; `open_source` is tested with each kind of source."""

from pathlib import Path

import pytest

from components.data.sources.factory import describe_source
from components.errors import DataError


@pytest.mark.parametrize("name", ["tf_flowers", "mnist", "caltech_birds2011", "imagenet_resized/32x32:0.1.0"])
def test_data_set_is_described_without_being_downloaded(name: str) -> None:
    assert describe_source(name) == {"kind": "tfds", "name": name}


@pytest.mark.parametrize("name", ["auto", "synthetic"])
def test_built_in_names_are_described_by_themselves(name: str) -> None:
    assert describe_source(name) == {"kind": name}


def test_missing_folder_and_file_instead_of_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"The folder does not exist: .*/flowerz .*TensorFlow Datasets name"):
        describe_source(str(tmp_path / "flowerz"))
    (tmp_path / "photos.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"Received a file: .*photos\.zip. Unpack an archive first"):
        describe_source(str(tmp_path / "photos.zip"))
