"""Load the model in a version folder: its SavedModel, or its LiteRT file where that is preferred."""

from pathlib import Path

from serving.local_server.errors import failed_precondition, not_found
from serving.local_server.saved_model import SavedModelServable
from serving.local_server.servable import LoadOptions, Servable

_SAVED_MODEL_NAMES = ("saved_model.pb", "saved_model.pbtxt")
_LITERT_NAME = "model.tflite"


def load(version_dir: Path, options: LoadOptions) -> Servable:
    """Load the model in a version folder.

    Raises:
        StatusError: there is no model, or it is not a valid one.
    """
    litert_path = version_dir / _LITERT_NAME
    has_litert = litert_path.is_file()
    if options.prefer_litert and has_litert:
        from serving.local_server.litert import LiteRTServable  # its interpreter is rarely needed

        return LiteRTServable(litert_path)
    if not any((version_dir / name).is_file() for name in _SAVED_MODEL_NAMES):
        hint = "; start with --prefer_tflite_model to serve its model.tflite" if has_litert else ""
        raise not_found(
            f"Could not find SavedModel .pb or .pbtxt at supplied export directory path: {version_dir}{hint}"
        )
    servable = SavedModelServable(version_dir, options)
    if all(name.startswith("__") for name in servable.signatures):
        servable.close()
        raise failed_precondition(f"A model is served by its signatures. {version_dir} has none: export it with some.")
    return servable
