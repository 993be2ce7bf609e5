"""The output of bulk inference: a folder on a disk or in a bucket that pandas, pyarrow and BigQuery read as one table.

    <output>/part-00003-of-00079.parquet   a row for each image of one slice of the list
    <output>/_images.jsonl                 the list: every image once, sorted, a JSON string a line
    <output>/_manifest.json                what the rows are made from
    <output>/_SUCCESS                      every part is there

A part is written atomically and always holds the same slice, so whoever finishes the missing ones, however often it
takes, leaves exactly one row for each image. Readers skip names that begin with an underscore or a dot.
"""

import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypedDict

from client.classifier_client import ImageError, Prediction
from components.errors import InferenceError
from components.storage.store import open_store

_IMAGES, _MANIFEST, _SUCCESS = "_images.jsonl", "_manifest.json", "_SUCCESS"


class _ImageList(TypedDict):
    num_images: int
    sha256: str


class _Manifest(TypedDict):
    """`_manifest.json`: what the rows are made from."""

    model: dict[str, str]
    list_of_images: _ImageList
    part_size: int


@dataclass(frozen=True)
class Part:
    """A slice of the list of images: where its lines lie in `_images.jsonl`, and the file that its rows go to."""

    name: str
    offset: int
    num_bytes: int


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
        self._check(set(self._store.names()))
        try:
            self._store.check_writable()
        except OSError as exc:
            raise InferenceError(
                f"The output must be a new folder, or one with predictions. {self._store} cannot be used: "
                f"{exc.strerror}. Choose another --output."
            ) from exc
        with self._store.lock():
            yield

    def plan(
        self, images: Sequence[str], *, model: Mapping[str, str], part_size: int, overwrite: bool = False
    ) -> list[Part]:
        """Return the parts that are missing, by the plan of an earlier run or by a new one that is written.

        Args:
            images: sorted, each once.
            model: what identifies the model.
            part_size: images in a part.
            overwrite: start again where the folder holds predictions of something else.

        Raises:
            InferenceError: the folder holds something else.
        """
        lines = [(json.dumps(image) + "\n").encode() for image in images]
        listing = b"".join(lines)
        manifest = _Manifest(
            model=dict(model),
            list_of_images=_ImageList(num_images=len(images), sha256=hashlib.sha256(listing).hexdigest()),
            part_size=part_size,
        )
        names = set(self._store.names())
        if _MANIFEST in names and (before := self._read_manifest()) != manifest:
            if not overwrite:
                changed = " and ".join(
                    key.replace("_", " ") for key, value in manifest.items() if before.get(key) != value
                )
                raise InferenceError(
                    "An output goes on with the model, list of images and part size that it was begun with. "
                    f"{self._store} was begun with another {changed}. Choose another --output, or --overwrite."
                )
            # The manifest last: a folder without one is none of ours.
            for name in (*sorted(names - {_MANIFEST}), _MANIFEST):
                self._store.remove_file(name)
            names = set()
        self._check(names)
        if not {_IMAGES, _MANIFEST} <= names:
            self._store.write(_IMAGES, listing)
            self._store.write(_MANIFEST, json.dumps(manifest, indent=2).encode())
        return [part for part in _slice(lines, part_size) if part.name not in names]

    def images(self, part: Part) -> list[str]:
        """Read a part's slice of the list."""
        lines = self._read(_IMAGES, part.offset, part.offset + part.num_bytes)
        return [json.loads(line) for line in lines.splitlines()]

    def write_rows(self, part: Part, images: Sequence[str], results: Sequence[Prediction | ImageError]) -> None:
        """Write the row of each image of a part: where it could not be read, `error` alone."""
        import pyarrow as pa
        from pyarrow import parquet

        schema = pa.schema(
            {
                "image": pa.string(),
                "label": pa.string(),
                "probability": pa.float32(),
                "probabilities": pa.map_(pa.string(), pa.float32()),
                "model_version": pa.string(),
                "error": pa.string(),
            }
        )
        rows = [_to_row(image, result) for image, result in zip(images, results, strict=True)]
        buffer = io.BytesIO()
        parquet.write_table(pa.Table.from_pylist(rows, schema), buffer)
        self._store.write(part.name, buffer.getvalue())

    def num_parts(self) -> int:
        """Return how many parts are there."""
        return len(self._part_names())

    def complete(self) -> dict[str, int]:
        """Mark the folder as finished and return how many images and errors it holds.

        Raises:
            InferenceError: there are more or fewer rows than images.
        """
        from pyarrow import parquet

        num_rows = num_errors = 0
        for content in self._store.read_each(self._part_names()):
            footer = parquet.read_metadata(io.BytesIO(content or b""))
            groups = [footer.row_group(i) for i in range(footer.num_row_groups)]
            errors = [
                g.column(c) for g in groups for c in range(g.num_columns) if g.column(c).path_in_schema == "error"
            ]
            num_rows += footer.num_rows
            num_errors += sum(column.num_values - column.statistics.null_count for column in errors)
        num_images = self._read_manifest()["list_of_images"]["num_images"]
        if num_rows != num_images:
            raise InferenceError(
                f"Every image has one row. {self._store} has {num_rows} rows for {num_images} images: something else "
                "wrote there. Choose another --output."
            )
        self._store.write(_SUCCESS, b"")
        return {"num_images": num_rows, "num_errors": num_errors}

    def _check(self, names: set[str]) -> None:
        if _MANIFEST not in names and (foreign := sorted(names - {_IMAGES})):
            raise InferenceError(
                f"The output must be a new folder, or one with predictions. {self._store} holds {foreign[0]}. "
                "Choose another --output."
            )

    def _part_names(self) -> list[str]:
        return [name for name in self._store.names() if name.startswith("part-")]

    def _read_manifest(self) -> _Manifest:
        return json.loads(self._read(_MANIFEST))

    def _read(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        content = self._store.read(name, start, end)
        if content is None:
            raise InferenceError(f"The output must keep its files until it is finished. {self._store} has lost {name}.")
        return content


def _slice(lines: Sequence[bytes], part_size: int) -> Iterator[Part]:
    num_parts = -(-len(lines) // part_size)
    offset = 0
    for number in range(num_parts):
        num_bytes = sum(map(len, lines[number * part_size : (number + 1) * part_size]))
        yield Part(f"part-{number:05d}-of-{num_parts:05d}.parquet", offset, num_bytes)
        offset += num_bytes


def _to_row(image: str, result: Prediction | ImageError) -> dict[str, Any]:
    if isinstance(result, ImageError):
        return {"image": _to_text(image), "error": _to_text(result.reason)}
    return {
        "image": _to_text(image),
        "label": result.label,
        "probability": result.probability,
        "probabilities": list(result.probabilities.items()),
        "model_version": result.model_version,
    }


def _to_text(name: str) -> str:
    """Return a file's name as text, which it need not be."""
    return name.encode(errors="backslashreplace").decode()
