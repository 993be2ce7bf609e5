"""The models that predict: the newest pushed LiteRT file, one LiteRT file, or a server. All are thread-safe."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from PIL import Image

from client.classifier_client import Client, ImageError, LiteRTTransport, ModelFileError, Prediction, Transport
from serving.web.errors import StartError
from serving.web.model_info import SPEC, ModelInfo, read_spec, read_spec_of

log = logging.getLogger(__name__)

KINDS = ("int8", "dynamic", "float16", "float32")
"""A pushed version's files, the fastest first."""


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


class FileModel:
    """A LiteRT file.

    Args:
        path: the file.

    Raises:
        ModelFileError: it cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._client = Client(LiteRTTransport(path))
        spec = read_spec_of(path)
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

    def refresh(self) -> None:
        """Do nothing: a file is read once."""

    def close(self) -> None:
        """Do nothing: memory is freed after the last prediction that needs it."""


class PushedModel:
    """The newest version of a model below `<models_dir>/tflite/`: a newer one takes over as soon as it is there.

    A version that cannot be used is logged once, and the one before goes on, or is taken at the start.

    Args:
        models_dir: the folder that models are pushed to.
        name: of the model.

    Raises:
        StartError: no version was pushed.
        ModelFileError: none can be used.
    """

    def __init__(self, models_dir: Path, name: str) -> None:
        self._folder = models_dir / "tflite"
        self._name = name
        files = find_files(self._folder, name)
        if not files:
            raise StartError(
                f"The web page needs a model, and {self._folder} holds no version with a file {name}_int8.tflite or "
                f"{name}_float32.tflite. Run `make train` first, name another model with --model-name or --models-dir, "
                "or query a running server with --rest localhost:8501."
            )
        self._seen = _identify(files[0])
        self._model = _open_first(files)

    @property
    def info(self) -> ModelInfo:
        """Return what is known of the version in use."""
        return self._model.info

    def classify(self, image: bytes | Image.Image) -> Prediction | ImageError:
        """Classify one image; see `Model`."""
        return self._model.classify(image)

    def refresh(self) -> None:
        """Load the newest version, if it changed."""
        try:
            files = find_files(self._folder, self._name)
            if not files or (seen := _identify(files[0])) == self._seen:
                return
            self._seen = seen
            self._model = FileModel(files[0])
        except (ModelFileError, OSError) as exc:
            log.error("version %s goes on: %s", self.info.version, exc)
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
    """

    def __init__(self, transport: Transport, *, name: str, origin: str, models_dir: Path) -> None:
        self._client = Client(transport)
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


def find_files(folder: Path, name: str) -> list[Path]:
    """Return the preferred file of each version of a model, the newest first."""
    versions = sorted((path for path in folder.glob("*") if path.name.isdecimal()), key=lambda path: -int(path.name))
    choices = ([version / f"{name}_{kind}.tflite" for kind in KINDS] for version in versions)
    return [file for files in choices if (file := next(filter(Path.is_file, files), None))]


def _open_first(files: Sequence[Path]) -> FileModel:
    """Open the first file that can be used.

    Raises:
        ModelFileError: none can.
    """
    for file in files[:-1]:
        try:
            return FileModel(file)
        except ModelFileError as exc:
            log.error("an older version is taken: %s", exc)
    return FileModel(files[-1])


def _identify(path: Path) -> tuple[Path, int]:
    """Return what changes with a file: a version that was withdrawn may come again, with other content."""
    return path, path.stat().st_mtime_ns


def _classify(client: Client, image: bytes | Image.Image) -> Prediction | ImageError:
    return next(client.classify(image))


def _blank() -> Image.Image:
    return Image.new("RGB", (1, 1))
