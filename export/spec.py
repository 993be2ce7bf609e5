"""`model_spec.json`: what a client has to know of a model, inside the SavedModel and beside the LiteRT files.

Readable without TensorFlow.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NAME = "model_spec.json"
SPEC = Path("assets.extra") / NAME


def read_spec(model_dir: Path) -> dict[str, Any]:
    """Read the `model_spec.json` inside a SavedModel."""
    return json.loads((model_dir / SPEC).read_text(encoding="utf-8"))


def write_litert_spec(folder: Path, *, spec: Mapping[str, Any], files: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the `model_spec.json` beside LiteRT files.

    Args:
        folder: with the files in it.
        spec: the SavedModel's.
        files: of each kind (`int8`, …) `name`, `size_bytes` and `sha256`.
    """
    described = {kind: {**file, "input": "uint8" if kind == "int8" else "float32"} for kind, file in files.items()}
    document = json.dumps({**spec, "files": described}, indent=2, ensure_ascii=False)
    (folder / NAME).write_text(document + "\n", encoding="utf-8")
