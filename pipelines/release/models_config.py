"""`models.config`, a `ModelServerConfig` in text, changed for one model: the versions that are loaded, and its labels.

What else is in the file stays, but for comments: those at its beginning stay, others are lost with the format's parser.
"""

from collections.abc import Iterable, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from components.errors import ReleaseError
from components.storage.files import atomic_write, file_lock
from serving.local_server import protos
from serving.local_server.errors import StartError


def read_labels(path: Path, model_name: str) -> dict[str, int]:
    """Return the labels of a model.

    Raises:
        ReleaseError: the file is not such a configuration, or has no such model.
    """
    return dict(_find(_read(path), path, model_name).version_labels)


def change(path: Path, model_name: str, *, versions: Iterable[int] = (), labels: Mapping[str, int]) -> None:
    """Name the versions to load and set labels, atomically; a label's version stays loaded, whoever set it.

    Args:
        path: of the file.
        model_name: the model.
        versions: to load; none leaves them as they are.
        labels: to set; others stay as they are.

    Raises:
        ReleaseError: see `read_labels`.
    """
    read_labels(path, model_name)  # what cannot be changed is told before a lock file lies beside it
    with file_lock(path.with_name(f".{path.name}.lock")):  # releases of other models change it, too
        text = path.read_text(encoding="utf-8")
        config = _read(path)
        model = _find(config, path, model_name)
        for label, version in labels.items():
            model.version_labels[label] = version
        if wanted := {*versions}:
            model.model_version_policy.specific.versions[:] = sorted(wanted | {*model.version_labels.values()})
        comments = "".join(
            takewhile(lambda line: line.startswith("#") or not line.strip(), text.splitlines(keepends=True))
        )
        written = comments + text_format.MessageToString(config, as_utf8=True)
        if written != text:
            with atomic_write(path) as temporary:
                temporary.write_text(written, encoding="utf-8")
                temporary.chmod(path.stat().st_mode)


def _read(path: Path) -> Any:
    try:
        return protos.read(path, protos.ModelServerConfig)
    except StartError as exc:
        raise ReleaseError(str(exc)) from exc


def _find(config: Any, path: Path, model_name: str) -> Any:
    found = [model for model in config.model_config_list.config if model.name == model_name]
    if len(found) != 1:
        names = ", ".join(model.name for model in config.model_config_list.config) or "none"
        raise ReleaseError(
            f"The configuration must list the model {model_name} once. {path} lists: {names}. Give another file with "
            "--config, or another model with --model-name."
        )
    return found[0]
