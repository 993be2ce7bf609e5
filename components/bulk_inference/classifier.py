"""Classify any number of images, a part at a time, through the thin client.

Reads images and a model, each by path or URL; writes the rows of a part to a `PredictionFolder`. An image that cannot
be read becomes a row with the reason. It exists apart from what runs it, so that one process, several, or a Beam
pipeline on other machines do the very same.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from client.classifier_client import Client, ConnectionOptions, ImageError, Prediction, Transport
from client.classifier_client.transports.connection import TOKEN_VARIABLE
from client.classifier_client.transports.litert_metadata import SPEC
from components.bulk_inference.images import ListedImage, fetch_image
from components.bulk_inference.models import SERVERS
from components.bulk_inference.output import Part, PredictionFolder
from components.errors import InferenceError, StorageError
from components.storage.bucket import Bucket, is_url
from components.storage.cache import fetch_file
from components.storage.files import sha256

if TYPE_CHECKING:
    from client.classifier_client.signing import VerifyKey

_NUM_FETCHED = 32
"""Images that are fetched from a bucket at once: one after the other would take longer than classifying them."""


@dataclass(frozen=True)
class Trust:
    """What makes a server and a model trust each other's side; each process reads it from files and its environment.

    Attributes:
        tls: speak TLS with a server, and check its certificate.
        ca_file: PEM certificates that vouch for the server instead of the system's; implies `tls`.
        token_file: holds the token that the server gets; `None` takes it from the environment, if it is there.
        verify_key: PEM public key or root certificate that the folder of a LiteRT file must be signed with.
    """

    tls: bool = False
    ca_file: Path | None = None
    token_file: Path | None = None
    verify_key: Path | None = None

    def check(self, model: str) -> None:
        """Check that all of it is for this kind of model.

        Raises:
            InferenceError: it is not.
        """
        if model.startswith(SERVERS):
            if self.verify_key:
                raise InferenceError(
                    f"--verify-key is for LiteRT files. What a server serves is verified by the server. Received: "
                    f"{model}."
                )
        elif self.tls or self.ca_file or self.token_file:
            raise InferenceError(f"--tls, --ca-file and --token-file are for a server. Received: {model}.")

    def connection(self) -> ConnectionOptions:
        """Return how a server is called.

        Raises:
            InferenceError: a file cannot be read, or holds something else.
        """
        try:
            token = (
                self.token_file.read_text(encoding="utf-8").strip()
                if self.token_file
                else os.environ.get(TOKEN_VARIABLE)
            )
        except (OSError, UnicodeError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else "it is no text"
            raise InferenceError(f"--token-file must be readable. {self.token_file}: {reason}.") from exc
        try:
            return ConnectionOptions(
                tls=self.tls or self.ca_file is not None, ca_file=self.ca_file, token=token or None
            )
        except ValueError as exc:
            raise InferenceError(str(exc)) from exc

    def read_verify_key(self) -> "VerifyKey | None":
        """Return the key that a file is verified with, if any.

        Raises:
            InferenceError: the file is no such PEM file.
            ClassifierError: a library is missing.
        """
        if self.verify_key is None:
            return None
        from client.classifier_client.signing import read_verify_key

        try:
            return read_verify_key(self.verify_key)
        except ValueError as exc:
            raise InferenceError(str(exc)) from exc


@dataclass(frozen=True)
class Classifier:
    """How each process opens a client of its own.

    Attributes:
        model: a LiteRT file, its URL, or a server as `rest://host:port/name` or `grpc://host:port/name`.
        num_threads: that a LiteRT file may take for one image; `None` is as many as there are cores.
        trust: for the server or the file.
    """

    model: str
    num_threads: int | None = None
    trust: Trust = Trust()

    def open(self) -> Client:
        """Open a client, and make sure that it reaches the model.

        Raises:
            ClassifierError: it does not, or the file is not as it was signed.
            InferenceError: the file cannot be fetched, or what is to be trusted cannot be read.
        """
        self.trust.check(self.model)
        transport = self._open_transport()
        transport.image_size_px()
        return Client(transport)

    def identify(self) -> dict[str, str]:
        """Return what the predictions of two runs must have in common: the model's content, or the server's address."""
        if self.model.startswith(SERVERS):
            return {"server": self.model}
        return {"sha256": sha256(self._fetch_model())}

    def _open_transport(self) -> Transport:
        if self.model.startswith(SERVERS):
            from client.classifier_client import GrpcTransport, RestTransport

            kind, _, address = self.model.partition("://")
            target, _, name = address.partition("/")
            transport = GrpcTransport if kind == "grpc" else RestTransport
            return transport(target, name or "flowers", options=self.trust.connection())
        from client.classifier_client import LiteRTTransport

        verify_key = self.trust.read_verify_key()
        return LiteRTTransport(self._fetch_model(), num_threads=self.num_threads, verify_key=verify_key)

    def _fetch_model(self) -> Path:
        """Return the path of the file, here with what it is checked by: its digest in the spec, or the signature."""
        beside = [SPEC]
        try:
            if self.trust.verify_key and is_url(self.model):
                beside = [*Bucket(self.model.rpartition("/")[0]).files()]
            return fetch_file(self.model, beside=beside)
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
