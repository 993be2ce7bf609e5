"""Classes and splits from names: the same for names alone, a folder on a disk and a folder at a URL."""

from pathlib import Path

import pytest

from components.artifacts.examples import SPLITS
from components.data.sources.factory import describe_source, open_source
from components.data.sources.layout import LabelledFile, read_layout
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
    "splits in any case, by their other names": (
        ["Train/a/1", "Testing/a/2", "DEV/a/3"],
        {"validation": {"a": ["DEV/a/3"]}, "test": {"a": ["Testing/a/2"]}, "train": {"a": ["Train/a/1"]}},
    ),
    "a class called train": (
        ["car/1", "plane/2", "train/3"],
        {"train": {"car": ["car/1"], "plane": ["plane/2"], "train": ["train/3"]}},
    ),
    "names in other scripts": (["玫瑰/1", "ромашка/2"], {"train": {"ромашка": ["ромашка/2"], "玫瑰": ["玫瑰/1"]}}),
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
    layout = read_layout(names, origin="here")
    assert (layout.class_names, layout.splits, list(layout.files)) == (class_names, splits, files)
    assert layout.unlabelled == ()

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
            r"Each split has one folder\. Found train, val, validation in .*/photos: put val and validation together\.",
        ),
        (
            ["train/a/1", "train/b/2", "c/3"],
            r"can be read as classes c, train; or as splits train, and c would be left out\. .* move c out of there",
        ),
        (["car/x/1", "train/x/2"], r"can be read as classes car, train; or as splits train, and car would be left out"),
        (
            ["val/a/1", "test/a/2"],
            r"can be read as splits test, val without it, or as classes test, val\. .* add the folder",
        ),
        (
            ["train/1", "test/2"],
            r"can be read as classes test, train, or as splits test, train whose photos have no class",
        ),
        (
            ["train/a/1", "test/2"],
            r"can be read as classes test, train; or as splits train, and test would be left out",
        ),
        (["a\nb/1", "c/2"], r"named by its folder: printable text.*Received: 'a\\nb' in .*Rename the folder"),
        ([" a/1", "c/2"], r"Received: ' a' in .*Rename the folder"),
        (["ros\udce9/1", "c/2"], r"Received: 'ros\\udce9' in .*Rename the folder"),
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


def test_photos_that_lie_in_no_class_are_named(s3: S3, tmp_path: Path) -> None:
    names = ["a/1.jpg", "b/2.jpg", "loose.JPG", "LICENSE.txt", ".hidden.jpg"]
    for source in (str(fill(tmp_path / "classes", *names)), fill_bucket(s3, *names).url):
        assert open_source(source, num_synthetic_per_class=10, seed=0).unlabelled == ("loose.JPG",)
    source = str(fill(tmp_path / "splits", "train/a/1.jpg", "train/loose.png", "test/a/2.jpg", "top.webp"))
    assert open_source(source, num_synthetic_per_class=10, seed=0).unlabelled == ("top.webp", "train/loose.png")
