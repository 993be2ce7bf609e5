"""LiteRT files: `<model name>_<kind>.tflite`, none for a model that was not blessed."""

from pathlib import Path


def find_litert_files(litert_dir: Path, model_name: str) -> dict[str, Path]:
    """Return the files by their kind (`int8`, …)."""
    return {path.stem.removeprefix(f"{model_name}_"): path for path in sorted(litert_dir.glob("*.tflite"))}
