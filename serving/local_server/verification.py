"""Load no version but those that are signed (`--verify_key`): between the listing of a version and its loading."""

from collections.abc import Callable
from pathlib import Path

from client.classifier_client import SignatureError
from client.classifier_client.signing import SignedFolder, VerifyKey
from serving.local_server.errors import failed_precondition
from serving.local_server.servable import Servable


def verifying(load: Callable[[str, Path], Servable], verify_key: VerifyKey) -> Callable[[str, Path], Servable]:
    """Return a loader that refuses a version that is not as it was signed.

    TensorFlow reads the files by itself, after they were checked: so it is checked again, after the loading, that
    nobody touched them meanwhile. What remains is a graph whose initialization ran before that was found out.
    """

    def load_signed(model_name: str, version_dir: Path) -> Servable:
        try:
            folder = SignedFolder(version_dir, verify_key)
            folder.check()
            servable = load(model_name, version_dir)
            try:
                folder.check_untouched()
            except SignatureError:
                servable.close()
                raise
        except SignatureError as exc:
            raise failed_precondition(str(exc)) from exc
        return servable

    return load_signed
