"""Classes and splits, from the names of folders: `<class>/…`, or `{train,validation,test}/<class>/…`.

What lies in the folders decides. A folder named like a split that holds photos itself is a class (trains can be
photographed); one that holds folders is a split. Where both readings are possible, the error shows both.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from components.artifacts.examples import SPLITS
from components.artifacts.labels import is_class_name
from components.errors import DataError
from components.storage.spill import DiskList, sort

_SPLIT_NAMES = {
    # As Hugging Face's `datasets` reads the names of folders; in any case.
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SPLIT_OF = {name: split for split, names in _SPLIT_NAMES.items() for name in names}
_PHOTO = re.compile(r".*\.(jpe?g|jpe|jfif|mpo|png|gif|bmp|webp|tiff?|avif|hei[cf]|jxl|dng)", re.IGNORECASE | re.DOTALL)


class LabelledFile(NamedTuple):
    """A file: its path below the source, its label, and its split."""

    name: str
    label: int
    split: str


@dataclass(frozen=True)
class Layout:
    """The classes and splits of a folder, sorted, and its files by split, class and name.

    `unlabelled` are the photos, by their suffix, that lie in no class.
    """

    class_names: tuple[str, ...]
    splits: tuple[str, ...]
    files: DiskList[LabelledFile]
    unlabelled: tuple[str, ...] = ()


class _Tree:
    """The folders of the first two levels, by the path of the one they are in; `""` is the top."""

    def __init__(self, paths: Iterable[list[str]]) -> None:
        self.folders: dict[str, set[str]] = defaultdict(set)
        self.with_files: set[str] = set()
        """Paths of those that have files below them."""
        for path in paths:
            for depth in range(min(len(path) - 1, 2)):
                self.folders["/".join(path[:depth])].add(path[depth])
                if path[-1]:
                    self.with_files.add("/".join(path[: depth + 1]))


def read_layout(names: Iterable[str], *, origin: str) -> Layout:
    """Return the classes and splits of files by their names; hidden files belong to none.

    Args:
        names: paths below the source; one with a slash at its end is a folder, which may be a class without files.
        origin: the source's path or URL, for messages.

    Raises:
        DataError: there are no classes or no files, two folders are the same split, the folders can be read in two
            ways, or a class has no proper name.

    >>> layout = read_layout(["Train/rose/1.jpg", "Train/tulip/2.jpg", "val/rose/3.jpg"], origin="flowers")
    >>> layout.class_names, layout.splits
    (('rose', 'tulip'), ('train', 'validation'))
    >>> list(layout.files)[-1]
    LabelledFile(name='val/rose/3.jpg', label=0, split='validation')
    """
    every = (name.split("/") for name in names)
    visible = (path for path in every if not any(part.startswith(".") for part in path))
    paths = DiskList(sort(visible, key=lambda path: path))
    tree = _Tree(paths)
    roots = _find_splits(tree, origin)
    class_names = tuple(sorted({name for root in roots.values() for name in tree.folders[root]}))
    if not class_names:
        raise DataError(
            f"A data folder needs one subfolder for each class, or train, validation and test with those inside. "
            f"Found none in {origin}."
        )
    for name in class_names:
        _check_class_name(name, origin)
    found = DiskList(_label(paths, class_names, {root: split for split, root in roots.items()}))
    if not found:
        raise DataError(f"The class folders hold no files: {origin}. Put photos into {', '.join(class_names)}.")
    folders = {"", *roots.values()}
    loose = [path for path in paths if "/".join(path[:-1]) in folders and _PHOTO.fullmatch(path[-1])]
    unlabelled = tuple("/".join(path) for path in sorted(loose, key=lambda path: path[:-1]))
    return Layout(class_names, tuple(s for s in SPLITS if s in roots), found, unlabelled)


def _label(
    paths: Iterable[list[str]], class_names: Sequence[str], split_of: Mapping[str, str]
) -> Iterator[LabelledFile]:
    """Yield the files of classes; in the order of their paths a split's, and a class' in it, are together."""
    labels = {name: label for label, name in enumerate(class_names)}
    for path in paths:
        root, *below = ["", *path] if "" in split_of else path
        if root in split_of and len(below) > 1 and path[-1]:
            yield LabelledFile("/".join(path), labels[below[0]], split_of[root])


def _find_splits(tree: _Tree, origin: str) -> Mapping[str, str]:
    """Return the folder of each split, in the order of their names; `train` is everything where there are no splits."""
    folders = sorted(tree.folders[""])
    named = [name for name in folders if name.casefold() in _SPLIT_OF]
    others = [name for name in folders if name not in named]
    # A split holds folders, a class may hold photos.
    splits = [name for name in named if tree.folders[name]]
    as_classes = f"as classes {', '.join(folders)}"
    if not named or (others and not splits):
        return {"train": ""}
    if not splits:
        if not tree.with_files.intersection(named):
            return {"train": ""}
        raise DataError(
            f"A split holds one folder for each class. {origin} can be read {as_classes}, or as splits "
            f"{', '.join(named)} whose photos have no class. Sort the photos of each split into class folders; if "
            "these are classes, put all of them into a folder train."
        )
    roots = {_SPLIT_OF[name.casefold()]: name for name in splits}
    if len(roots) < len(splits):
        same = [name for name in splits if _is_twice(name, splits)]
        raise DataError(
            f"Each split has one folder. Found {', '.join(splits)} in {origin}: put {' and '.join(same)} together."
        )
    unclear = [name for name in (*others, *(n for n in named if n not in splits)) if name in tree.with_files]
    if unclear:
        raise DataError(
            f"Folders are classes or splits, not both. {origin} can be read {as_classes}; or as splits "
            f"{', '.join(splits)}, and {', '.join(unclear)} would be left out. For classes, put all of them into a "
            f"folder train; for splits, move {', '.join(unclear)} out of there, or into each split."
        )
    if "train" not in roots:
        raise DataError(
            f"Splits need a folder train to learn from. {origin} can be read as splits {', '.join(splits)} without it, "
            f"or {as_classes}. For splits, add the folder train; for classes, put all of them into a folder train."
        )
    return {split: roots[split] for split in sorted(roots, key=roots.__getitem__)}


def _is_twice(name: str, splits: Iterable[str]) -> bool:
    return [_SPLIT_OF[other.casefold()] for other in splits].count(_SPLIT_OF[name.casefold()]) > 1


def _check_class_name(name: str, origin: str) -> None:
    if not is_class_name(name):
        raise DataError(
            "A class is named by its folder: printable text in UTF-8, without a space at either end. "
            f"Received: {name!r} in {origin}. Rename the folder."
        )
