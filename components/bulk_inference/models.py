"""Which LiteRT file is meant where a folder of models is named: one of the newest version, and of no other.

What is pushed as <models>/<name>/<version> has its LiteRT files in <models>/tflite/<version>, which all names share:
each number belongs to one name. Only files that passed their evaluation are there.
"""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from components.errors import InferenceError
from components.storage.bucket import is_url
from components.storage.models import LITERT, MARKER

log = logging.getLogger(__name__)

_DEFAULT_NAME = "flowers"
_KINDS = ("int8", "dynamic", "float32", "float16")
"""The kinds of LiteRT files, the fastest on a CPU first."""

_Versions = dict[int, list[Path]]
"""The LiteRT files of each version of a model: none where none passed its evaluation."""


def find_model(model: str, models_dir: Path) -> str:
    """Return the fastest LiteRT file of a model's newest version, with a warning where that is no int8 file.

    Args:
        model: a file, a URL or a server, which is itself; or a folder of models (of several names `flowers` is taken),
            of one model (`models/flowers`), of a version (`models/flowers/2`) or of LiteRT files (`models/tflite/2`).
        models_dir: where pushed models are, to name those that there are.

    Raises:
        InferenceError: there is none, the newest version has no LiteRT file, or there are several models.
    """
    path = Path(model)
    if is_url(model) or path.is_file():
        return model
    if files := sorted(path.glob("*.tflite")):
        return _choose_kind(_only_name(path, {_name_of(file): str(file) for file in files}), files)
    if pushed := _read(path, path / LITERT) or _read(path.parent if path.name == LITERT else None, path):
        root = path.parent if path.name == LITERT else path
        name = _only_name(path, {name: str(root / name) for name in pushed})
        return _choose(name, max(pushed[name]), pushed[name], models_dir)
    if versions := _read(path.parent, path.parent / LITERT).get(path.name):
        return _choose(path.name, max(versions), versions, models_dir)
    root, name = path.parent.parent, path.parent.name
    versions = _read(root, root / LITERT).get(name, {})
    if path.name.isdecimal() and int(path.name) in versions:
        return _choose(name, int(path.name), versions, models_dir)
    raise InferenceError(
        "--model is a LiteRT file, a folder of models with one, rest://host:port or grpc://host:port. Nothing is "
        f"there: {model}. {_there(models_dir)}"
    )


def _read(saved_models: Path | None, litert_files: Path) -> dict[str, _Versions]:
    """Return the versions in a folder of models by their names, as SavedModels and as LiteRT files."""
    found: dict[str, _Versions] = defaultdict(lambda: defaultdict(list))
    for marker in saved_models.glob(f"*/*/{MARKER}") if saved_models else ():
        name, version = marker.parts[-3:-1]
        if version.isdecimal() and not name.startswith("."):
            _ = found[name][int(version)]  # A version need not have a file.
    for file in sorted(litert_files.glob("*/*.tflite")):
        if file.parent.name.isdecimal():
            found[_name_of(file)][int(file.parent.name)].append(file)
    return found


def _only_name(path: Path, names: Mapping[str, str]) -> str:
    """Return the name that is meant, of names and what to give for each of them."""
    if _DEFAULT_NAME in names:
        return _DEFAULT_NAME
    if len(names) == 1:
        return next(iter(names))
    raise InferenceError(
        f"One model classifies. {path} holds several: {', '.join(sorted(names))}. Choose one with --model, as in "
        f"--model {names[min(names)]}."
    )


def _choose(name: str, version: int, versions: _Versions, models_dir: Path) -> str:
    if files := versions[version]:
        return _choose_kind(name, files)
    raise InferenceError(
        f"No version is taken for another. Version {version} of {name} has no LiteRT file that passed its evaluation. "
        f"{_there(models_dir)} Choose one of them with --model, or a server with rest://host:port."
    )


def _choose_kind(name: str, files: Sequence[Path]) -> str:
    file = min((file for file in files if _name_of(file) == name), key=_rank)
    if _rank(file):
        log.warning(
            "infer: %s holds no int8 file of %s: %s is taken, which may be slower", file.parent, name, file.name
        )
    return str(file)


def _name_of(file: Path) -> str:
    name, _, kind = file.stem.rpartition("_")
    return name if kind in _KINDS else file.stem


def _rank(file: Path) -> int:
    kind = file.stem.rpartition("_")[2]
    return _KINDS.index(kind) if kind in _KINDS else len(_KINDS)


def _there(models_dir: Path) -> str:
    there = sorted(map(str, models_dir.glob(f"{LITERT}/*/*.tflite"))) or ["none; train one with `make train`"]
    return f"LiteRT files in {models_dir}: {', '.join(there)}."
