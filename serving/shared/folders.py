"""An option that names a folder of models: the servers read local folders only."""

import argparse
from pathlib import Path


def local_folder(text: str) -> Path:
    """Parse the option.

    Raises:
        argparse.ArgumentTypeError: it is a URL.
    """
    if "://" in text:
        raise argparse.ArgumentTypeError(url_complaint(text))
    return Path(text)


def url_complaint(url: str) -> str:
    """Return the message that refuses a URL, and says what to do instead."""
    return (
        f"A server here reads a folder of this machine. Received: {url}. Bring the newest model to one first: "
        "python -m pipelines fetch --models-dir URL --to FOLDER"
    )
