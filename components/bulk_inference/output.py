"""The output of bulk inference: a folder, here or in a bucket, that pandas, pyarrow and BigQuery read as one table.

    <output>/part-00003-of-00079.parquet   a row for each image of one slice of the list
    <output>/_images.jsonl                 the list: every image once, sorted, a JSON string a line
    <output>/_manifest.json                what the rows are made from
    <output>/_SUCCESS                      every part is there

A part is written whole or not at all and always holds the same slice, so whoever finishes the missing ones, however
often it takes, leaves exactly one row for each image. Readers skip names that begin with an underscore or a dot.
"""

import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import InferenceError
from components.storage.bucket import is_url, open_filesystem
from components.storage.files import TEMPORARY_FILES, atomic_write, file_lock

_IMAGES, _MANIFEST, _SUCCESS, _LOCK = "_images.jsonl", "_manifest.json", "_SUCCESS", ".lock"


@dataclass(frozen=True)
class Part:
    """A slice of the list of images: where its lines lie in `_images.jsonl`, and the file that its rows go to."""

    name: str
    offset: int
    num_bytes: int


@contextmanager
def reaching(place: str) -> Iterator[None]:
    """Turn what a store raises into an error of ours.

    Raises:
        InferenceError: the store cannot be used.
        FileNotFoundError: it can, and there is no such file.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as exc:  # each store raises what its own libraries raise
        raise InferenceError(
            f"{place} cannot be used: {exc}. Check the address, what you may do there and the network; what is done is "
            "kept: the same command goes on."
        ) from exc


class PredictionFolder:
    """The folder. It can be pickled: each process that works on it has its own.

    Args:
        place: a path or a URL.
    """

    def __init__(self, place: str) -> None:
        self.place = place
        self._files, self._root = open_filesystem(place)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder against other runs on this machine; a bucket has no locks.

        Raises:
            InferenceError: the folder holds something else.
        """
        self._check(self._names())
        with nullcontext() if is_url(self.place) else file_lock(Path(self.place) / _LOCK):
            yield

    def plan(
        self, images: Sequence[str], *, model: Mapping[str, str], part_size: int, overwrite: bool = False
    ) -> list[Part]:
        """Write down what is to be done, or find it written down by an earlier run; give the parts that are missing.

        Args:
            images: sorted, each once.
            model: what identifies the model.
            part_size: images in a part.
            overwrite: begin anew where the folder holds predictions of something else.

        Raises:
            InferenceError: the folder holds something else.
        """
        lines = [(json.dumps(image) + "\n").encode() for image in images]
        listing = b"".join(lines)
        manifest = {
            "model": dict(model),
            "list_of_images": {"num_images": len(images), "sha256": hashlib.sha256(listing).hexdigest()},
            "part_size": part_size,
        }
        names = self._names()
        if _MANIFEST in names and (before := json.loads(self.read(_MANIFEST))) != manifest:
            if not overwrite:
                changed = " and ".join(key.replace("_", " ") for key in manifest if before.get(key) != manifest[key])
                raise InferenceError(
                    "An output goes on with the model, list of images and part size that it was begun with. "
                    f"{self.place} was begun with another {changed}. Choose another --output, or --overwrite."
                )
            # The manifest last: a folder without one is none of ours.
            for name in (*sorted(names - {_LOCK, _MANIFEST}), _MANIFEST):
                self._files.rm(self._path(name))
            names = set()
        self._check(names)
        if not {_IMAGES, _MANIFEST} <= names:
            self.write(_IMAGES, listing)
            self.write(_MANIFEST, json.dumps(manifest, indent=2).encode())
        if not is_url(self.place):
            for leftover in Path(self.place).glob(TEMPORARY_FILES):
                leftover.unlink()
        return [part for part in _slice(lines, part_size) if part.name not in names]

    def images(self, part: Part) -> list[str]:
        """Read a part's slice of the list."""
        lines = self.read(_IMAGES, part.offset, part.offset + part.num_bytes)
        return [json.loads(line) for line in lines.splitlines()]

    def num_parts(self) -> int:
        """Count the parts that are there."""
        return sum(name.startswith("part-") for name in self._names())

    def complete(self) -> dict[str, int]:
        """Count the rows and mark the folder as finished.

        Raises:
            InferenceError: there are more or fewer rows than images.
        """
        from pyarrow import parquet

        num_rows = num_errors = 0
        with ThreadPoolExecutor() as threads:
            contents = list(threads.map(self.read, [name for name in self._names() if name.startswith("part-")]))
        for content in contents:
            footer = parquet.read_metadata(io.BytesIO(content))
            groups = [footer.row_group(i) for i in range(footer.num_row_groups)]
            errors = [
                g.column(c) for g in groups for c in range(g.num_columns) if g.column(c).path_in_schema == "error"
            ]
            num_rows += footer.num_rows
            num_errors += sum(column.num_values - column.statistics.null_count for column in errors)
        num_images = json.loads(self.read(_MANIFEST))["list_of_images"]["num_images"]
        if num_rows != num_images:
            raise InferenceError(
                f"Every image has one row. {self.place} has {num_rows} rows for {num_images} images: something else "
                "wrote there. Choose another --output."
            )
        self.write(_SUCCESS, b"")
        return {"num_images": num_rows, "num_errors": num_errors}

    def read(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        with reaching(self.place):
            content: bytes = self._files.cat_file(self._path(name), start=start, end=end)
        return content

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole: here by a rename; an object in a bucket is never seen in halves."""
        if is_url(self.place):
            with reaching(self.place):
                self._files.pipe_file(self._path(name), content)
        else:
            with atomic_write(Path(self.place) / name) as temporary:
                temporary.write_bytes(content)

    def _check(self, names: set[str]) -> None:
        if _MANIFEST not in names and (foreign := sorted(names - {_IMAGES, _LOCK})):
            raise InferenceError(
                f"The output must be a new folder, or one with predictions. {self.place} holds {foreign[0]}. "
                "Choose another --output."
            )

    def _names(self) -> set[str]:
        self._files.invalidate_cache()
        try:
            with reaching(self.place):
                found: list[Any] = self._files.ls(self._root, detail=False)
        except FileNotFoundError:
            return set()
        return {str(path).rstrip("/").rpartition("/")[2] for path in found}

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"


def _slice(lines: Sequence[bytes], part_size: int) -> Iterator[Part]:
    num_parts = -(-len(lines) // part_size)
    offset = 0
    for number in range(num_parts):
        num_bytes = sum(map(len, lines[number * part_size : (number + 1) * part_size]))
        yield Part(f"part-{number:05d}-of-{num_parts:05d}.parquet", offset, num_bytes)
        offset += num_bytes
