"""Which LiteRT file is meant where a folder of models is named: one of the newest version, and of no other.

What is pushed as <models>/<name>/<version> has its LiteRT files in <models>/tflite/<version>, which all names share:
each number belongs to one name. Only files that passed their evaluation are there. The folder may be at a URL.
"""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from components.errors import InferenceError
from components.storage.bucket import Bucket, is_url
from components.storage.models import LITERT, LITERT_MARKER, MARKER
from components.storage.store import open_store

log = logging.getLogger(__name__)

SERVERS = ("rest://", "grpc://")
"""How the address of a server begins."""

_DEFAULT_NAME = "flowers"
_KINDS = ("int8", "dynamic", "float32", "float16")
"""The kinds of LiteRT files, the fastest on a CPU first."""
_SUFFIX = ".tflite"


def find_model(model: str, models_dir: str | Path) -> str:
    """Return the fastest LiteRT file of a model's newest version, with a warning where that is no int8 file.

    Args:
        model: a file, its URL or a server, which is itself; or a folder or URL of models (of several names `flowers`
            is taken), of one model (`models/flowers`), of a version (`models/flowers/2`) or of LiteRT files
            (`models/tflite/2`).
        models_dir: where pushed models are, a folder or a URL, to name those that there are.

    Raises:
        InferenceError: there is none, the newest version has no LiteRT file, or there are several models.
        StorageError: the URL cannot be read.
    """
    if model.startswith(SERVERS) or (is_url(model) and model.endswith(_SUFFIX)) or Path(model).is_file():
        return model
    place = model.rstrip("/") if is_url(model) else str(Path(model))
    if files := [f"{place}/{name}" for name in open_store(place).names() if name.endswith(_SUFFIX)]:
        return _choose_kind(_only_name(place, {_name_of(file): file for file in files}), files)
    above, name = _split(place)
    if is_url(place) and above and Bucket(above).find(name):
        return model
    models = _Models(above if above and name == LITERT else place)
    if names := models.names():
        name = _only_name(place, {name: f"{models.root}/{name}" for name in names})
        return _choose(name, models.newest(name), models, models_dir)
    if above:
        models = _Models(above)
        if newest := models.newest(name):
            return _choose(name, newest, models, models_dir)
        root, name_above = _split(above)
        if root and name.isdecimal() and int(name) in (models := _Models(root)).versions(name_above):
            return _choose(name_above, int(name), models, models_dir)
    raise InferenceError(
        "--model is a LiteRT file, a folder of models with one, the URL of either, rest://host:port or "
        f"grpc://host:port. Nothing is there: {model}. {_there(models_dir)}"
    )


class _Models:
    """The models in a folder or at a URL.

    Attributes:
        root: its path or URL.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self._store = open_store(root)
        self._files: dict[str, dict[int, list[str]]] = defaultdict(dict)
        files = self._store.files(LITERT)
        for file in files:
            version, _, name = file.partition("/")
            # In a bucket a version is complete, and not withdrawn, as long as it has its marker.
            is_there = not is_url(root) or f"{version}/{LITERT_MARKER}" in files
            if version.isdecimal() and name.endswith(_SUFFIX) and "/" not in name and is_there:
                self._files[_name_of(name)].setdefault(int(version), []).append(f"{root}/{LITERT}/{file}")

    def names(self) -> list[str]:
        """Return the names that have a version, as a SavedModel or as LiteRT files."""
        saved = {name for name in self._store.names() if not name.startswith(".") and name != LITERT}
        return sorted(name for name in saved | self._files.keys() if self.newest(name))

    def newest(self, name: str) -> int:
        """Return the newest version of a name, which need not have a LiteRT file; 0 where there is none."""
        return max(self.versions(name), default=0)

    def versions(self, name: str) -> list[int]:
        saved = [version for version in self._store.names(name) if version.isdecimal()] if name != LITERT else []
        published = [int(v) for v in saved if MARKER in self._store.names(f"{name}/{v}")]
        return [*published, *self._files.get(name, ())]

    def files(self, name: str, version: int) -> list[str]:
        """Return the LiteRT files of a version."""
        return self._files.get(name, {}).get(version, [])


def _only_name(place: str, names: Mapping[str, str]) -> str:
    """Return the name that is meant, of names and what to give for each of them."""
    if _DEFAULT_NAME in names:
        return _DEFAULT_NAME
    if len(names) == 1:
        return next(iter(names))
    raise InferenceError(
        f"One model classifies. {place} holds several: {', '.join(sorted(names))}. Choose one with --model, as in "
        f"--model {names[min(names)]}."
    )


def _choose(name: str, version: int, models: _Models, models_dir: str | Path) -> str:
    if files := models.files(name, version):
        return _choose_kind(name, files)
    raise InferenceError(
        f"No version is taken for another. Version {version} of {name} has no LiteRT file that passed its evaluation. "
        f"{_there(models_dir)} Choose one of them with --model, or a server with rest://host:port."
    )


def _choose_kind(name: str, files: Sequence[str]) -> str:
    file = min((file for file in files if _name_of(file) == name), key=_rank)
    if _rank(file):
        folder, _, chosen = file.rpartition("/")
        log.warning("infer: %s holds no int8 file of %s: %s is taken, which may be slower", folder, name, chosen)
    return file


def _name_of(file: str) -> str:
    stem = PurePosixPath(file).stem
    name, _, kind = stem.rpartition("_")
    return name if kind in _KINDS else stem


def _rank(file: str) -> int:
    kind = PurePosixPath(file).stem.rpartition("_")[2]
    return _KINDS.index(kind) if kind in _KINDS else len(_KINDS)


def _split(place: str) -> tuple[str, str]:
    """Return what is above a path or URL, and its name there; nothing is above the root of a bucket."""
    if not is_url(place):
        return str(Path(place).parent), Path(place).name
    above, _, name = place.rpartition("/")
    return ("", name) if above.endswith("/") or "://" not in above else (above, name)


def _there(models_dir: str | Path) -> str:
    found = [file for file in open_store(models_dir).files(LITERT) if file.endswith(_SUFFIX)]
    there = [f"{models_dir}/{LITERT}/{file}" for file in found] or ["none; train one with `make train`"]
    return f"LiteRT files in {models_dir}: {', '.join(there)}."
