"""The output of bulk inference: a folder on a disk or in a bucket that pandas, pyarrow and BigQuery read as one table.

    <output>/part-00003-of-00079.parquet   a row for each image of one slice of the list
    <output>/_images.jsonl                 the list: an object a line, every image once, sorted, with its version
    <output>/_manifest.json                what the rows are made from
    <output>/_SUCCESS                      every part is there

A part is written atomically and always holds the same slice, so whoever finishes the missing ones, however often it
takes, leaves exactly one row for each image. It carries a key of the model, of the columns and of its slice: a part
that is damaged, that an older version wrote, or of images that have changed since, is recognized by its own footer,
whatever happened to the other files. The version of an image is that of the listing: one that changes while it is
classified is a changed image in the next run. Readers skip names that begin with an underscore or a dot.
"""

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import islice

from client.classifier_client import ImageError, Prediction
from components.bulk_inference.images import ListedImage
from components.bulk_inference.manifest import Manifest, digest, find_changes, is_manifest, make_manifest
from components.bulk_inference.rows import COLUMNS, Counts, encode_rows, read_footer, to_text
from components.errors import InferenceError
from components.storage.disk import explain
from components.storage.spill import DiskList
from components.storage.store import open_store

log = logging.getLogger(__name__)

_IMAGES, _MANIFEST, _SUCCESS = "_images.jsonl", "_manifest.json", "_SUCCESS"
_PART = re.compile(r"part-\d{5,}-of-\d{5,}\.parquet")
# What a writer that was killed, or that found the disk full, leaves before there is a manifest.
_LEFTOVER = re.compile(rf"{_IMAGES}|\.({_IMAGES}|{_MANIFEST}|{_SUCCESS}|{_PART.pattern})\.\d+\.tmp|\.probe-[0-9a-f]+")

_PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class Part:
    """A slice of the list of images: where its lines lie in `_images.jsonl`, and the file that its rows go to.

    The key is a digest of the model, of the columns and of the slice.
    """

    name: str
    offset: int
    num_bytes: int
    key: str


class PredictionFolder:
    """The folder. It can be pickled: each process that works on it has its own.

    Args:
        path_or_url: of the folder.
    """

    def __init__(self, path_or_url: str) -> None:
        self._store = open_store(path_or_url)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other runs on this machine from the folder; a bucket has no locks.

        Raises:
            InferenceError: the folder holds something else, or cannot be one.
        """
        self._check()
        with ExitStack() as lock:
            with _advice(str(self._store)):
                self._store.check_writable()
                lock.enter_context(self._store.lock())
            yield

    def plan(
        self, images: Iterable[ListedImage], *, model: Mapping[str, str], part_size: int, overwrite: bool = False
    ) -> list[Part]:
        """Return the parts that are missing, and write the list and the manifest where they are not as they must be.

        Args:
            images: sorted, each once.
            model: what identifies the model.
            part_size: images in a part.
            overwrite: make the parts again that were made from something else.

        Raises:
            InferenceError: the folder holds something else, or cannot be written.
            OSError: the folder for temporary files is full.
        """
        lines = DiskList(map(_to_line, images))
        manifest = make_manifest(model, lines, part_size)
        self._check()
        parts = list(_slice(lines, part_size, json.dumps([model, COLUMNS], sort_keys=True).encode()))
        before, found = self._read_manifest(), self._read_keys()
        sha256_before = digest(self._read_list())
        keys = {part.name: part.key for part in parts}
        if before:
            is_intact = sha256_before == before["list_of_images"]["sha256"]
            changes = find_changes(before, manifest, self._read_list() if is_intact else None, lines)
        else:
            is_other = bool({*found.values()} - {*keys.values(), None})  # None is damaged
            changes = ["model, list of images or set of columns"] if is_other else []
        if changes and not overwrite:
            raise InferenceError(
                "An output goes on with the model, list of images, part size and columns that it was begun with. "
                f"{self._store} was begun with another {' and '.join(changes)}. Choose another --output, or "
                "--overwrite, which makes the parts again that this changes."
            )
        missing = [part for part in parts if found.get(part.name) != part.key]
        # Each step leaves a folder that this function goes on from: a part is valid by its own key alone.
        unusable = {name for name, key in found.items() if key != keys.get(name)}
        if before == manifest:
            unusable &= keys.keys()
            for name in sorted(unusable):
                log.warning(
                    "infer: %s in %s is damaged, or was written by something else; made again", name, self._store
                )
        with _advice(str(self._store)):
            if missing or unusable:
                unusable |= {_SUCCESS} & {*self._store.names()}
            for name in sorted(unusable):  # _SUCCESS first
                self._store.remove_file(name)
            if sha256_before != manifest["list_of_images"]["sha256"]:
                self._store.write_pieces(_IMAGES, lines)
            if before != manifest:
                self._store.write(_MANIFEST, json.dumps(manifest, indent=2).encode())
        return missing

    def images(self, part: Part) -> list[ListedImage]:
        """Read a part's slice of the list.

        Raises:
            InferenceError: the list is gone.
        """
        lines = self._store.read(_IMAGES, part.offset, part.offset + part.num_bytes)
        if lines is None:
            raise self._lost(_IMAGES)
        return [ListedImage(**json.loads(line)) for line in lines.splitlines()]

    def write_rows(self, part: Part, images: Sequence[ListedImage], results: Sequence[Prediction | ImageError]) -> None:
        """Write the row of each image of a part: where it could not be read, `error` alone.

        Raises:
            InferenceError: the part cannot be written.
        """
        with _advice(f"{self._store}/{part.name}"):
            self._store.write(part.name, encode_rows(images, results, key=part.key))

    def has(self, part: Part) -> bool:
        """Return whether the rows of a part that was missing are there by now."""
        return self._store.read(part.name, 0, 1) is not None

    def num_parts(self) -> int:
        """Return how many parts are there."""
        return len(self._part_names())

    def complete(self) -> Counts:
        """Mark the folder as finished and count what it holds.

        Raises:
            InferenceError: there are more or fewer rows than images.
        """
        counts = Counts()
        names = self._part_names()
        for name, content in zip(names, self._store.read_each(names), strict=True):
            footer = read_footer(content)
            if footer is None:
                raise InferenceError(
                    f"The output must keep its files until it is finished. {self._store}/{name} is damaged: something "
                    "else wrote there. The same command makes it again."
                )
            counts += footer.counts
        manifest = self._read_manifest()
        if manifest is None:
            raise self._lost(_MANIFEST)
        num_images = manifest["list_of_images"]["num_images"]
        if counts.num_images != num_images:
            raise InferenceError(
                f"Every image has one row. {self._store} has {counts.num_images} rows for {num_images} images: "
                "something else wrote there. Choose another --output."
            )
        with _advice(f"{self._store}/{_SUCCESS}"):
            if _SUCCESS not in self._store.names():
                self._store.write(_SUCCESS, b"")
        return counts

    def _check(self) -> None:
        """Raise if the folder holds what no run wrote. A damaged manifest is ours, where all else is known as well."""
        if self._read_manifest() is not None:
            return
        names = set(self._store.names())
        ours = {name for name in names if _LEFTOVER.fullmatch(name)}
        if _MANIFEST in names:
            ours |= {_MANIFEST, _SUCCESS} | {name for name in names if _PART.fullmatch(name)}
        if foreign := sorted(names - ours):
            raise self._foreign(foreign[0])

    def _part_names(self) -> list[str]:
        return [name for name in self._store.names() if name.startswith("part-")]

    def _read_keys(self) -> dict[str, str | None]:
        """Return the key of each part that is there: `None` for a damaged one, empty for one without."""
        names = [name for name in self._store.names() if _PART.fullmatch(name)]
        footers = map(read_footer, self._store.read_each(names))
        return {name: footer.key if footer else None for name, footer in zip(names, footers, strict=True)}

    def _read_list(self) -> Iterator[bytes]:
        """Yield the list that is there in pieces; nothing where there is none."""
        info = self._store.files().get(_IMAGES)
        for start in range(0, info.size_bytes if info else 0, _PIECE_BYTES):
            yield self._store.read(_IMAGES, start, start + _PIECE_BYTES) or b""

    def _read_manifest(self) -> Manifest | None:
        """Return the manifest; `None` where there is none, or one that is cut short.

        Raises:
            InferenceError: something else wrote it.
        """
        try:
            found = json.loads(self._store.read(_MANIFEST) or b"")
        except ValueError:
            return None
        if is_manifest(found):
            return found
        raise self._foreign(_MANIFEST)

    def _foreign(self, name: str) -> InferenceError:
        return InferenceError(
            f"The output must be a new folder, or one with predictions. {self._store} holds {to_text(name)}. "
            "Choose another --output."
        )

    def _lost(self, name: str) -> InferenceError:
        return InferenceError(
            f"The output must keep its files until it is finished. {self._store} has lost {name}. The same command "
            "goes on."
        )


@contextmanager
def _advice(path: str) -> Iterator[None]:
    """Raise an `InferenceError` with advice that fits for what the system refuses.

    Args:
        path: of what is written, where the system names none.
    """
    try:
        yield
    except OSError as exc:
        raise to_inference_error(exc, path) from exc


def to_inference_error(exc: OSError, path: str) -> InferenceError:
    """Return what the system refuses, what to do, and that nothing is lost."""
    return InferenceError(f"{explain(exc, [path])} What is done is kept: the same command goes on.")


def _to_line(image: ListedImage) -> bytes:
    return (json.dumps({key: value for key, value in asdict(image).items() if value}) + "\n").encode()


def _slice(lines: DiskList[bytes], part_size: int, model: bytes) -> Iterator[Part]:
    num_parts = -(-len(lines) // part_size)
    remaining = iter(lines)
    offset = 0
    for number in range(num_parts):
        content = b"".join(islice(remaining, part_size))
        key = hashlib.sha256(model + b"\n" + content).hexdigest()
        yield Part(f"part-{number:05d}-of-{num_parts:05d}.parquet", offset, len(content), key)
        offset += len(content)
