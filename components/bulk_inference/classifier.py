"""Classify any number of images, a part at a time, through the thin client.

Reads images and a model, each here or behind a URL; writes the rows of a part to a `PredictionFolder`. An image that
cannot be read becomes a row that says why. It exists apart from what runs it, so that one process, several, or a Beam
pipeline on other machines do the very same.
"""

import hashlib
import io
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from client.classifier_client import Client, ImageError, Prediction, Transport
from client.classifier_client.command import SUFFIXES, expand
from components.bulk_inference.output import Part, PredictionFolder, reaching
from components.errors import InferenceError
from components.storage.bucket import is_url, open_filesystem
from components.storage.models import LITERT

_SERVERS = ("rest://", "grpc://")
_INT8 = "_int8.tflite"
_NUM_FETCHED = 32
"""Images that are fetched from a bucket at a time: waiting for one after the other would take longer than classifying
them."""


@dataclass(frozen=True)
class Classifier:
    """How a process comes to a client of its own.

    Attributes:
        model: a LiteRT file, its URL, or a server as `rest://host:port/name` or `grpc://host:port/name`.
        num_threads: that a LiteRT file may take for one image; `None` is as many as there are cores.
    """

    model: str
    num_threads: int | None = None

    def open(self) -> Client:
        """Open the way to the model, and make sure that it leads there.

        Raises:
            ClassifierError: it does not.
            InferenceError: the file cannot be fetched.
        """
        transport = self._open_transport()
        transport.image_size_px()
        return Client(transport)

    def identify(self) -> dict[str, str]:
        """Say what the predictions of two runs must have in common: the model's content, or the server's address."""
        if self.model.startswith(_SERVERS):
            return {"server": self.model}
        return {"sha256": hashlib.sha256(self._read()).hexdigest()}

    def _open_transport(self) -> Transport:
        if self.model.startswith(_SERVERS):
            from client.classifier_client import GrpcTransport, RestTransport

            kind, _, address = self.model.partition("://")
            target, _, name = address.partition("/")
            return (GrpcTransport if kind == "grpc" else RestTransport)(target, name or "flowers")
        from client.classifier_client import LiteRTTransport

        if not is_url(self.model):
            return LiteRTTransport(self.model, num_threads=self.num_threads)
        with tempfile.TemporaryDirectory() as folder:
            # The file's folder may be named for the model's version.
            copy = Path(folder).joinpath(*self.model.split("/")[-2:])
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(self._read())
            return LiteRTTransport(copy, num_threads=self.num_threads)

    def _read(self) -> bytes:
        try:
            return _read(self.model)
        except FileNotFoundError as exc:
            raise InferenceError(f"--model must be a file that is there. Received: {self.model} ({exc}).") from exc


def list_images(place: str) -> list[str]:
    """List the images of a folder, a pattern or a file, here or behind a URL: sorted, each once.

    Raises:
        InferenceError: there are none.
    """
    if is_url(place):
        found: list[str] = []
        files, path = open_filesystem(place)
        with suppress(FileNotFoundError), reaching(place):
            if files.isdir(path):
                found = [name for name in files.find(path) if Path(name).suffix.lower() in SUFFIXES]
            else:
                found = files.glob(path)
        images = [files.unstrip_protocol(name) for name in found if not Path(name).name.startswith(".")]
    else:
        try:
            images = [image for image in expand(place) if isinstance(image, str) and Path(image).is_file()]
        except ValueError as exc:
            raise InferenceError(f"{exc} Choose another --input.") from exc
    if not images:
        raise InferenceError(
            f"--input is a folder with images ({', '.join(SUFFIXES)}), a pattern or a file. Nothing is there that "
            f"matches {place}."
        )
    return sorted(set(images))


def find_model(model: str, models_dir: Path) -> str:
    """Find the int8 LiteRT file, the fast one on a CPU, of the newest version in a folder; a file or a URL is itself.

    Args:
        model: besides these, a folder of models, of one model (`models/flowers`), or of a version (`models/flowers/2`).
        models_dir: where pushed models are, to name those that there are.

    Raises:
        InferenceError: there is none.
    """
    path = Path(model)
    if is_url(model) or path.is_file():
        return model
    # What is pushed as <models>/<name>/<version> has its LiteRT files in <models>/tflite/<version>.
    places = (
        path.glob(f"*{_INT8}"),
        path.glob(f"*/*{_INT8}"),
        path.glob(f"{LITERT}/*/*{_INT8}"),
        path.parent.glob(f"{LITERT}/*/{path.name}{_INT8}"),
        path.parent.parent.glob(f"{LITERT}/{path.name}/{path.parent.name}{_INT8}"),
    )
    for files in map(list, places):
        if files:
            return str(max(files, key=lambda file: (_version(file), file.name)))
    there = sorted(map(str, models_dir.glob(f"{LITERT}/*/*.tflite"))) or ["none; train one with `make train`"]
    raise InferenceError(
        "--model is a LiteRT file, a folder of models with an int8 one, rest://host:port or grpc://host:port. Nothing "
        f"is there: {model}. LiteRT files in {models_dir}: {', '.join(there)}."
    )


def _version(file: Path) -> int:
    return int(file.parent.name) if file.parent.name.isdecimal() else 0


def classify_part(client: Client, folder: PredictionFolder, part: Part) -> None:
    """Classify the images of a part and write their rows.

    Raises:
        ClassifierError: the model, or the server, does not answer as it must.
        OSError: an image's bucket cannot be reached, or the rows cannot be written.
    """
    images = folder.images(part)
    folder.write(part.name, _to_parquet(images, list(_classify(client, images))))


def _classify(client: Client, images: Sequence[str]) -> Iterator[Prediction | ImageError]:
    rest = iter(images)
    with ThreadPoolExecutor(_NUM_FETCHED) as threads:
        while batch := list(islice(rest, _NUM_FETCHED)):
            # A path is read by the client; waiting for it is not worth a thread.
            sources = list(threads.map(_fetch, batch) if is_url(batch[0]) else batch)
            results = client.classify([source for source in sources if not isinstance(source, ImageError)])
            for source in sources:
                yield source if isinstance(source, ImageError) else next(results)


def _fetch(url: str) -> bytes | ImageError:
    try:
        return _read(url)
    except FileNotFoundError as exc:
        return ImageError(url, f"cannot be read ({exc}); check the URL")


def _read(place: str) -> bytes:
    files, path = open_filesystem(place)
    with reaching(place):
        content: bytes = files.cat_file(path)
    return content


def _to_parquet(images: Sequence[str], results: Iterable[Prediction | ImageError]) -> bytes:
    """Write a row for each image: `error` says why it could not be read, and then everything else is null."""
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
    return buffer.getvalue()


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
    """A file's name may be no text."""
    return name.encode(errors="backslashreplace").decode()
