"""The models that predict: the newest pushed LiteRT file, one LiteRT file, or a server. All are thread-safe."""

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

from PIL import Image

from client.classifier_client import (
    Client,
    ImageError,
    LiteRTTransport,
    ModelFileError,
    Prediction,
    Transport,
    preprocessing,
)
from client.classifier_client.transports.litert_metadata import Metadata, read_metadata
from serving.web.errors import StartError
from serving.web.model_info import SPEC, ModelInfo, Spec, read_spec, read_spec_of

if TYPE_CHECKING:
    from client.classifier_client.signing import VerifyKey

log = logging.getLogger(__name__)

MARKER = "saved_model.pb"
KINDS = ("int8", "dynamic", "float16", "float32")
"""A pushed version's files, the fastest first."""

Load: TypeAlias = Callable[..., Image.Image]
"""Reads, decodes and resizes an image, as `preprocessing.load` does."""


class Model(Protocol):
    """A model that predicts."""

    @property
    def info(self) -> ModelInfo: ...

    def classify(self, image: bytes | Image.Image) -> Prediction | ImageError:
        """Classify one image.

        Raises:
            ClassifierError: there is no prediction.
        """

    def refresh(self) -> None:
        """Look for a newer version, and check that the model responds.

        Raises:
            ClassifierError: it does not.
        """

    def close(self) -> None:
        """Close the connections."""


@runtime_checkable
class ModelWithFile(Protocol):
    """A model in a LiteRT file."""

    def read_file(self) -> tuple[ModelInfo, Metadata, bytes]:
        """Return what is known of the model in use, its file's metadata and its file's content.

        Raises:
            ModelFileError: the file is gone, or another one.
        """


class FileModel:
    """A LiteRT file.

    Args:
        path: the file.
        load: reads an image.
        verify_key: what its folder must be signed with; `None` takes any file.

    Raises:
        ModelFileError: it cannot be used.
    """

    def __init__(self, path: Path, *, load: Load = preprocessing.load, verify_key: "VerifyKey | None" = None) -> None:
        self._path = path
        self._verify_key = verify_key
        self._client = Client(LiteRTTransport(path, verify_key=verify_key), load=load)
        spec = _read_signed_spec(path, verify_key) if verify_key else read_spec_of(path)
        warm = self.classify(_blank())
        if not isinstance(warm, Prediction):
            raise ModelFileError(f"A model must classify any image, and {path} does not ({warm}). Export it again.")
        # In the spec's order where there is one: a prediction has the most probable class first.
        class_names = tuple(spec.get("class_names") or warm.probabilities)
        name = spec.get("model_name") or path.stem
        self.info = ModelInfo(name, str(path), warm.model_version, class_names, spec)

    def classify(self, image: bytes | Image.Image) -> Prediction | ImageError:
        """Classify one image; see `Model`."""
        return _classify(self._client, image)

    def read_file(self) -> tuple[ModelInfo, Metadata, bytes]:
        """Read the file again; see `ModelWithFile`."""
        if self._verify_key:
            from client.classifier_client.signing import SignedFolder

            signed = SignedFolder(self._path.parent, self._verify_key)
            contents = {name: signed.read(name) for name in (self._path.name, SPEC) if name in signed}
            return self.info, read_metadata(self._path, contents), contents[self._path.name]
        metadata = read_metadata(self._path)
        try:
            return self.info, metadata, self._path.read_bytes()
        except OSError as exc:
            raise ModelFileError(f"{self._path} cannot be read ({exc.strerror or exc}). Check the path.") from exc

    def refresh(self) -> None:
        """Do nothing: a file is read once."""

    def close(self) -> None:
        """Do nothing: memory is freed after the last prediction that needs it."""


class PushedModel:
    """The newest version of a model below `<models_dir>/tflite/`: a newer one takes over as soon as it is there.

    An older version is never taken instead. While the page is shown, a newer version that has no file, or one that
    cannot be used, is logged once, and the version in use goes on.

    Args:
        models_dir: the folder that models are pushed to.
        name: of the model.
        load: reads an image.
        verify_key: what a version must be signed with; `None` takes any.

    Raises:
        StartError: no version was pushed, or the newest has no LiteRT file or one that cannot be used.
    """

    def __init__(
        self,
        models_dir: Path,
        name: str,
        *,
        load: Load = preprocessing.load,
        verify_key: "VerifyKey | None" = None,
    ) -> None:
        self._models_dir = models_dir
        self._verify_key = verify_key
        self._name = name
        self._load = load
        file = find_newest_file(models_dir, name)
        self._seen: tuple[Path, int] | str = _identify(file)
        try:
            self._model = FileModel(file, load=self._load, verify_key=self._verify_key)
        except ModelFileError as exc:
            raise StartError(
                f"The web page takes the newest version, and its file cannot be used: {exc} "
                f"{_name_files(find_files(models_dir / 'tflite', name)[1:])}"
            ) from exc

    @property
    def info(self) -> ModelInfo:
        """Return what is known of the version in use."""
        return self._model.info

    def classify(self, image: bytes | Image.Image) -> Prediction | ImageError:
        """Classify one image; see `Model`."""
        return self._model.classify(image)

    def read_file(self) -> tuple[ModelInfo, Metadata, bytes]:
        """Read the file of the version in use again; see `ModelWithFile`."""
        return self._model.read_file()

    def refresh(self) -> None:
        """Load the newest version, if it changed."""
        try:
            file = find_newest_file(self._models_dir, self._name)
            seen = _identify(file)
        except (StartError, OSError) as exc:
            # The LiteRT files of a version come a moment after its SavedModel.
            if self._seen != str(exc):
                log.warning("version %s goes on: %s", self.info.version, exc)
            self._seen = str(exc)
            return
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._model = FileModel(file, load=self._load, verify_key=self._verify_key)
        except (ModelFileError, OSError) as exc:
            log.error("version %s goes on: %s", self.info.version, exc)
        except Exception:
            # A file may be wrong in ways that nobody thought of, and the next version may be sound.
            log.exception("version %s goes on: %s cannot be used", self.info.version, file)
        else:
            log.info("version %s of %s takes over", self.info.version, self._name)

    def close(self) -> None:
        """Do nothing: memory is freed after the last prediction that needs it."""


class ServerModel:
    """A model behind a server, which may come and go.

    Args:
        transport: the connection to it.
        name: of the model.
        origin: the server's name for people, such as `REST localhost:8501`.
        models_dir: the folder that models are pushed to; a version's spec is read there, if there is one.
        load: reads an image.
    """

    def __init__(
        self, transport: Transport, *, name: str, origin: str, models_dir: Path, load: Load = preprocessing.load
    ) -> None:
        self._client = Client(transport, load=load)
        self._models_dir = models_dir
        self.info = ModelInfo(name, origin)

    def classify(self, image: bytes | Image.Image) -> Prediction | ImageError:
        """Classify one image; see `Model`."""
        result = _classify(self._client, image)
        if isinstance(result, Prediction) and result.model_version != self.info.version:
            self.info = self._describe(result)
        return result

    def refresh(self) -> None:
        """Classify a black image."""
        self.classify(_blank())

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _describe(self, prediction: Prediction) -> ModelInfo:
        name, version = self.info.name, prediction.model_version
        pushed = self._models_dir / name / version / "assets.extra" / SPEC
        beside = self._models_dir / "tflite" / version / SPEC
        spec = read_spec(pushed) or read_spec(beside)
        if spec.get("model_name") != name:
            spec = {}
        class_names = tuple(spec.get("class_names") or sorted(prediction.probabilities))
        return ModelInfo(name, self.info.origin, version, class_names, spec)


def find_newest_file(models_dir: Path, name: str) -> Path:
    """Return the preferred LiteRT file of the newest pushed version of a model.

    Raises:
        StartError: no version was pushed, or the newest has no LiteRT file.
    """
    folder = models_dir / "tflite"
    if os.access(folder, os.F_OK) and not os.access(folder, os.R_OK | os.X_OK):
        raise StartError(
            f"The web page must be able to read its models, and user {os.getuid()} may not read {folder}. "
            f"Let everybody read it: chmod -R a+rX {models_dir}"
        )
    files = find_files(folder, name)
    newest = max(
        (int(path.parent.name) for path in (models_dir / name).glob(f"*/{MARKER}") if _is_version(path)), default=0
    )
    if not files and not newest:
        raise StartError(
            f"The web page needs a model, and {folder} holds no version with a file {name}_int8.tflite or "
            f"{name}_float32.tflite. Run `make train` first, name another model with --model-name or --models-dir, "
            "or query a running server with --rest localhost:8501."
        )
    if not files or int(files[0].parent.name) < newest:
        raise StartError(
            f"The web page takes the newest version, and version {newest} of {name} has no LiteRT file in {folder}. "
            f"{_name_files(files)}"
        )
    return files[0]


def find_files(folder: Path, name: str) -> list[Path]:
    """Return the preferred file of each version of a model, the newest first; whether it is one, its reader says."""
    versions = sorted((path for path in folder.glob("*") if path.name.isdecimal()), key=lambda path: -int(path.name))
    choices = ([version / f"{name}_{kind}.tflite" for kind in KINDS] for version in versions)
    return [file for files in choices if (file := next(filter(Path.exists, files), None))]


def _is_version(marker: Path) -> bool:
    return marker.parent.name.isdecimal()


def _name_files(older: Sequence[Path]) -> str:
    """Return how to choose what is there instead."""
    choice = f"Choose an older one yourself, --tflite {older[0]}, or query" if older else "Query"
    return f"{choice} a server of the newest with --rest localhost:8501."


def _read_signed_spec(path: Path, verify_key: "VerifyKey") -> Spec:
    from client.classifier_client.signing import SignedFolder

    return read_spec_of(path, SignedFolder(path.parent, verify_key))


def _identify(path: Path) -> tuple[Path, int]:
    """Return what changes with a version: one that was withdrawn, or refused, may come again with other content."""
    return path, max(each.stat().st_mtime_ns for each in (path.parent, *path.parent.iterdir()))


def _classify(client: Client, image: bytes | Image.Image) -> Prediction | ImageError:
    return next(client.classify(image))


def _blank() -> Image.Image:
    return Image.new("RGB", (1, 1))
