"""Classes and splits, from the names of folders: `<class>/…`, or `{train,validation,test}/<class>/…`."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from components.artifacts.examples import SPLITS
from components.errors import DataError

_SPLIT_FOLDERS = {**{s: s for s in SPLITS}, "val": "validation", "valid": "validation"}


class LabelledFile(NamedTuple):
    """A file: its path below the source, its label, and its split."""

    name: str
    label: int
    split: str


@dataclass(frozen=True)
class Layout:
    """The classes and splits of a folder, sorted, and its files by split, class and name."""

    class_names: tuple[str, ...]
    splits: tuple[str, ...]
    files: tuple[LabelledFile, ...]


def is_partitioned(folders: Iterable[str]) -> bool:
    """Return whether the folders at the top are splits, and not classes."""
    return "train" in folders


def read_layout(names: Iterable[str], *, origin: str) -> Layout:
    """Return the classes and splits of files by their names; hidden files belong to none.

    Args:
        names: paths below the source; one with a slash at its end is a folder, which may be a class without files.
        origin: the source's path or URL, for messages.

    Raises:
        DataError: there are no classes or no files, or two folders are the same split.

    >>> layout = read_layout(["train/rose/1.jpg", "train/tulip/2.jpg", "val/rose/3.jpg"], origin="flowers")
    >>> layout.class_names, layout.splits
    (('rose', 'tulip'), ('train', 'validation'))
    >>> layout.files[-1]
    LabelledFile(name='val/rose/3.jpg', label=0, split='validation')
    """
    subfolders: dict[str, set[str]] = defaultdict(set)
    files: dict[str, list[str]] = defaultdict(list)
    for path in sorted(name.split("/") for name in names):
        if not any(part.startswith(".") for part in path):
            for depth in range(min(len(path) - 1, 2)):
                subfolders["/".join(path[:depth])].add(path[depth])
                if path[-1]:
                    files["/".join(path[: depth + 1])].append("/".join(path))

    roots = _find_splits(subfolders[""], origin)
    class_names = tuple(sorted({name for root in roots.values() for name in subfolders[root]}))
    if not class_names:
        raise DataError(
            f"A data folder needs one subfolder for each class, or train, validation and test with those inside. "
            f"Found none in {origin}."
        )
    found = tuple(
        LabelledFile(file, label, split)
        for split, root in roots.items()
        for label, class_name in enumerate(class_names)
        for file in files[f"{root}/{class_name}".removeprefix("/")]
    )
    if not found:
        raise DataError(f"The class folders hold no files: {origin}. Put photos into {', '.join(class_names)}.")
    return Layout(class_names, tuple(s for s in SPLITS if s in roots), found)


def _find_splits(folders: Iterable[str], origin: str) -> dict[str, str]:
    """Return the folder of each split, in the order of their names; `train` is everything where there are no splits."""
    split_folders = sorted(name for name in folders if name in _SPLIT_FOLDERS)
    if not is_partitioned(split_folders):
        return {"train": ""}
    roots = {_SPLIT_FOLDERS[name]: name for name in split_folders}
    if len(roots) < len(split_folders):
        names = ", ".join(split_folders)
        raise DataError(f"Each split has one folder. Found {names} in {origin}: put val and valid together.")
    return roots
