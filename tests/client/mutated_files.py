"""Classify with mutated LiteRT files: `python -m tests.client.mutated_files FILE FIRST COUNT` prints outcomes.

A process of its own, because a damaged model may end the one that runs it: the seed that did is the one after the last
line.
"""

import random
import resource
import sys
import warnings
from pathlib import Path

from PIL import Image

from client.classifier_client import Client, LiteRTTransport, ModelFileError

_MEMORY_BYTES = 8 << 30
_NASTY = (0, 1, 0x7F, 0x80, 0xFF)


def mutate(content: bytes, seed: int) -> bytes:
    """Return a content with a few bytes changed, parts copied, cut out or put in; the seed decides.

    Half of the contents have one change alone, and most of those in a bit: what is parsed at last is reached too.
    """
    rng = random.Random(seed)
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 8))):
        if not changed:
            break
        start, kind = rng.randrange(len(changed)), rng.random()
        stop = min(start + rng.randint(1, 16), len(changed))
        if kind < 0.4:
            changed[start] ^= 1 << rng.randrange(7)
        elif kind < 0.7:
            changed[start] = rng.choice(_NASTY) if rng.random() < 0.5 else rng.randrange(256)
        elif kind < 0.85:
            changed[start:stop] = rng.randbytes(stop - start)
        elif kind < 0.92:
            del changed[start:stop]
        elif kind < 0.98:
            changed[start:start] = changed[start:stop] * rng.randint(1, 4)
        else:
            del changed[start:]
    return bytes(changed)


def main(file: Path, first: int, count: int) -> None:
    """Try each seed; any other error than the documented one is the outcome too."""
    warnings.simplefilter("error")
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    content, path = file.read_bytes(), file.with_name(f"mutated_{first}.tflite")
    photo = Image.new("RGB", (20, 10), "red")
    for seed in range(first, first + count):
        path.write_bytes(mutate(content, seed))
        try:
            with Client(LiteRTTransport(path, num_threads=1)) as client:
                list(client.classify(photo))
            outcome = "classified"
        except ModelFileError:
            outcome = "refused"
        except Exception as exc:
            outcome = f"{type(exc).__name__}: {exc}".splitlines()[0]
        sys.stdout.write(f"{seed} {outcome}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
