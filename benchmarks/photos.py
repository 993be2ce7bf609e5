"""The photos that both sides of a benchmark read: a partitioned folder, drawn where none is given."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from components.data.sources.factory import open_source
from components.data.sources.source import SYNTHETIC

NUM_SYNTHETIC_PER_CLASS = 100


@contextmanager
def folder(data: str) -> Iterator[Path]:
    """Yield a folder of `{train,validation,test}/<class>/*.jpg`."""
    if data != SYNTHETIC:
        yield Path(data)
        return
    with tempfile.TemporaryDirectory() as temporary:
        drawn = open_source(data, num_synthetic_per_class=NUM_SYNTHETIC_PER_CLASS, seed=0)
        for photo in drawn.photos:
            path = Path(temporary) / photo.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(photo.encoded)
        yield Path(temporary)
