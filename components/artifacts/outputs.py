"""`outputs.npz`: what a model returned for each test photo: `photos`, their SHA-256 `uint8 [N, 32]`, and its outputs.

The next evaluation compares with it, without calling the model again.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_FILE, _PHOTOS = "outputs.npz", "photos"


def write_outputs(evaluation_dir: Path, photos: Sequence[str], outputs: Mapping[str, NDArray[np.generic]]) -> None:
    """Write arrays `[N, …]`, by name, of photos with these SHA-256."""
    digests = np.frombuffer(b"".join(map(bytes.fromhex, photos)), np.uint8).reshape(len(photos), -1)
    np.savez(evaluation_dir / _FILE, **{_PHOTOS: digests}, **outputs)  # type: ignore[arg-type]


def read_outputs(evaluation_dir: Path, photos: Sequence[str]) -> dict[str, NDArray[np.generic]] | None:
    """Read the rows of photos, by their SHA-256; `None` where one of them is not there."""
    with np.load(evaluation_dir / _FILE) as file:
        rows = {digest.tobytes().hex(): row for row, digest in enumerate(file[_PHOTOS])}
        if not rows.keys() >= set(photos):
            return None
        wanted = [rows[photo] for photo in photos]
        return {name: file[name][wanted] for name in file if name != _PHOTOS}
