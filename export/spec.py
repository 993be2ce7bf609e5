"""`model_spec.json`: what a client has to know of a model, kept inside the SavedModel. Readable without TensorFlow."""

import json
from pathlib import Path
from typing import Any

SPEC = Path("assets.extra") / "model_spec.json"


def read_spec(model_dir: Path) -> dict[str, Any]:
    """Read the `model_spec.json` inside a SavedModel."""
    return json.loads((model_dir / SPEC).read_text(encoding="utf-8"))
