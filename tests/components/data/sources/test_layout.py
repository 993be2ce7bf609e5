"""Classes and splits from names: the same for names alone, a folder on a disk and a folder at a URL."""

from pathlib import Path

import pytest

from components.artifacts.examples import SPLITS
from components.data.sources.factory import describe_source, open_source
from components.data.sources.layout import LabelledFile, Layout, read_layout
from components.data.sources.source import Photo
from components.errors import DataError
from tests.components.data.sources.files import fill, fill_bucket
from tests.s3 import S3

# Names as they are written, and the files of each split and class in their order.
CASES: dict[str, tuple[list[str], dict[str, dict[str, list[str]]]]] = {
    "classes": (
        ["tulip/b.jpg", "tulip/a.jpg", "rose/z.png", "rose/a-b/1.jpg", "rose/a/2.jpg"],
        {
            "train": {
                "rose": ["rose/a/2.jpg", "rose/a-b/1.jpg", "rose/z.png"],
                "tulip": ["tulip/a.jpg", "tulip/b.jpg"],
            }
        },
    ),
    "train and test": (["train/a/1", "test/a/2"], {"test": {"a": ["test/a/2"]}, "train": {"a": ["train/a/1"]}}),
    "a class called test": (["test/1", "exam/2"], {"train": {"exam": ["exam/2"], "test": ["test/1"]}}),
    "nested files belong to their class, hidden and loose ones to none": (
        ["a/2019/may/1.jpg", "a/.hidden.jpg", "a/.cache/2.jpg", ".git/x", "readme.txt", "b/1.jpg"],
        {"train": {"a": ["a/2019/may/1.jpg"], "b": ["b/1.jpg"]}},
    ),
}
for name in ("validation", "val", "valid"):
    CASES[f"a class that is missing from {name}"] = (
        ["train/a/1", "train/b/2", f"{name}/a/3", "test/b/4", "test/c/5"],
        {
            "test": {"b": ["test/b/4"], "c": ["test/c/5"]},
            "train": {"a": ["train/a/1"], "b": ["train/b/2"]},
            "validation": {"a": [f"{name}/a/3"]},
        },
    )


@pytest.mark.parametrize("case", CASES)
def test_layout_is_that_of_the_folders_names(case: str, s3: S3, tmp_path: Path) -> None:
    names, expected = CASES[case]
    class_names = tuple(sorted({class_name for classes in expected.values() for class_name in classes}))
    splits = tuple(split for split in SPLITS if split in expected)
    files = [
        LabelledFile(file, class_names.index(class_name), split)
        for split, classes in expected.items()
        for class_name, in_class in classes.items()
        for file in in_class
    ]
    assert read_layout(names, origin="here") == Layout(class_names, splits, tuple(files))

    for source in (str(fill(tmp_path, *names)), fill_bucket(s3, *names).url):
        opened = open_source(source, num_synthetic_per_class=10, seed=0)
        assert (opened.class_names, opened.splits, opened.num_photos) == (class_names, splits, len(files))
        assert (opened.resolved, opened.fallback) == (source, None)
        assert list(opened.photos) == [Photo(*file, encoded=file.name.encode()) for file in files]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], r"needs one subfolder for each class.*Found none in .*/photos\."),
        (["loose.jpg"], r"needs one subfolder for each class.*Found none in .*/photos\."),
        (["rose/"], r"The class folders hold no files: .*/photos\. Put photos into rose\."),
        (
            ["train/a/1", "val/a/2", "validation/a/3"],
            r"Each split has one folder\. Found train, val, validation in .*/photos: put val and valid together\.",
        ),
    ],
    ids=str,
)
def test_names_without_a_layout_are_an_error(names: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read_layout(names, origin="s3://bucket/photos")
    (tmp_path / "photos").mkdir()
    folder = str(fill(tmp_path / "photos", *names))
    with pytest.raises(DataError, match=message):
        open_source(folder, num_synthetic_per_class=10, seed=0)
    with pytest.raises(DataError, match=message):
        describe_source(folder)
