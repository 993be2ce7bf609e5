"""`looks.npz`: what each example looks like, in the order of the index, to find those that look the same.

Holds the arrays of `components.data.duplicates.Looks`: `hashes` `uint32 [N, 4]`, `colours` `int16 [N, 3]` and
`contrasts` `float64 [N]`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LOOKS_FILE = "looks.npz"


def write_looks(out_dir: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write the arrays by their names."""
    np.savez(out_dir / _LOOKS_FILE, **arrays)  # type: ignore[arg-type]


def read_looks(examples_dir: Path) -> dict[str, NDArray[Any]] | None:
    """Read the arrays by their names; `None` of examples that were made before there was such a file."""
    path = examples_dir / _LOOKS_FILE
    if not path.exists():
        return None
    with np.load(path) as file:
        return {name: file[name] for name in file}
