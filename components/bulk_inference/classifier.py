"""Classify any number of images, a part at a time, through the thin client.

Reads images and a model, each by path or URL; writes the rows of a part to a `PredictionFolder`. An image that cannot
be read becomes a row with the reason. It exists apart from what runs it, so that one process, several, or a Beam
pipeline on other machines do the very same.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from client.classifier_client import Client, ImageError, Prediction, Transport
from components.bulk_inference.images import ListedImage, fetch_image
from components.bulk_inference.output import Part, PredictionFolder
from components.errors import InferenceError, StorageError
from components.storage.cache import fetch_file
from components.storage.files import sha256

_SERVERS = ("rest://", "grpc://")
_NUM_FETCHED = 32
"""Images that are fetched from a bucket at once: one after the other would take longer than classifying them."""


@dataclass(frozen=True)
class Classifier:
    """How each process opens a client of its own.

    Attributes:
        model: a LiteRT file, its URL, or a server as `rest://host:port/name` or `grpc://host:port/name`.
        num_threads: that a LiteRT file may take for one image; `None` is as many as there are cores.
    """

    model: str
    num_threads: int | None = None

    def open(self) -> Client:
        """Open a client, and make sure that it reaches the model.

        Raises:
            ClassifierError: it does not.
            InferenceError: the file cannot be fetched.
        """
        transport = self._open_transport()
        transport.image_size_px()
        return Client(transport)

    def identify(self) -> dict[str, str]:
        """Return what the predictions of two runs must have in common: the model's content, or the server's address."""
        if self.model.startswith(_SERVERS):
            return {"server": self.model}
        return {"sha256": sha256(self._fetch_model())}

    def _open_transport(self) -> Transport:
        if self.model.startswith(_SERVERS):
            from client.classifier_client import GrpcTransport, RestTransport

            kind, _, address = self.model.partition("://")
            target, _, name = address.partition("/")
            return (GrpcTransport if kind == "grpc" else RestTransport)(target, name or "flowers")
        from client.classifier_client import LiteRTTransport

        return LiteRTTransport(self._fetch_model(), num_threads=self.num_threads)

    def _fetch_model(self) -> Path:
        try:
            return fetch_file(self.model)
        except StorageError as exc:
            raise InferenceError(f"--model must be a file that is there. {exc}") from exc


def classify_part(client: Client, folder: PredictionFolder, part: Part) -> None:
    """Classify the images of a part and write their rows.

    Raises:
        ClassifierError: the model, or the server, cannot be used.
        StorageError: the bucket of an image, or of the rows, cannot be used.
        InferenceError: the list of images is gone, or the rows cannot be written.
    """
    images = folder.images(part)
    folder.write_rows(part, images, list(_classify(client, images)))


def _classify(client: Client, images: Sequence[ListedImage]) -> Iterator[Prediction | ImageError]:
    rest = iter(images)
    with ThreadPoolExecutor(_NUM_FETCHED) as threads:
        while batch := list(islice(rest, _NUM_FETCHED)):
            sources = list(threads.map(fetch_image, batch))
            results = client.classify([source for source in sources if not isinstance(source, ImageError)])
            for source in sources:
                yield source if isinstance(source, ImageError) else next(results)
