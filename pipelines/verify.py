"""Verify a pushed version by hand: before a server starts that does not, such as TensorFlow Serving."""

from pathlib import Path

from client.classifier_client import MissingLibraryError, SignatureError
from components.errors import ComponentError, PushError
from components.storage.models import LITERT, open_models


def verify(models_dir: Path, name: str, version: int | None, verify_key: Path) -> dict[Path, bool]:
    """Check that the SavedModel of a version and its LiteRT files are what was signed.

    Args:
        models_dir: a folder of pushed models.
        name: of the model.
        version: `None` is the newest.
        verify_key: a PEM file of public keys or root certificates.

    Returns:
        Both folders of the version, and whether each is there; what is there verifies.

    Raises:
        ComponentError: there is no such version, one of its folders does not verify, or a library is missing.
        ValueError: the file is no such PEM file.
    """
    try:
        from client.classifier_client.signing import SignedFolder, read_verify_key
    except MissingLibraryError as exc:
        raise ComponentError(str(exc)) from exc
    key, models = read_verify_key(verify_key), open_models(models_dir)
    pushed = models.versions(name)
    if version is None:
        version = max(pushed, default=0)
    if version not in pushed:
        there = f"There is {', '.join(map(str, pushed))}." if pushed else "There is none."
        raise PushError(
            f"What is verified must be a version of {name} in {models_dir}. Received: {version or 'the newest'}. "
            f"{there} Name another one, or another --models-dir."
        )
    folders = {models_dir / each / str(version): version in models.versions(each) for each in (name, LITERT)}
    try:
        for folder in (folder for folder, is_there in folders.items() if is_there):
            SignedFolder(folder, key).check()
    except SignatureError as exc:
        raise ComponentError(str(exc)) from exc
    return folders
