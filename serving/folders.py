"""What a person names as a folder of models: servers here read local folders only."""

import argparse
from pathlib import Path


def local_folder(text: str) -> Path:
    """Read a command's option.

    Raises:
        argparse.ArgumentTypeError: it is a URL.
    """
    if "://" in text:
        raise argparse.ArgumentTypeError(url_complaint(text))
    return Path(text)


def url_complaint(url: str) -> str:
    """Say why a URL does not do, and what does."""
    return (
        f"A server here reads a folder of this machine. Received: {url}. Bring the newest model to one first: "
        "python -m pipelines fetch --models-dir URL --to FOLDER"
    )
