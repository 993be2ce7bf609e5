"""Classify images: `python client/predict.py [--rest | --grpc | --tflite FILE] [IMAGE…]`; see `--help`.

Runs without installation. Of other packages it needs Pillow, and requests, grpcio with protobuf, or ai-edge-litert.
"""

import os
import sys
from contextlib import suppress
from pathlib import Path

if __name__ == "__main__":
    try:
        from classifier_client import command
    except ModuleNotFoundError as exc:
        print(
            f"predict.py: the library {exc.name} is not installed. Run: pip install {Path(__file__).parent}",
            file=sys.stderr,
        )
        sys.exit(4)
    samples_dir = Path(__file__).parent / "samples"
    with suppress(OSError):  # The working directory may be gone.
        samples_dir = Path(os.path.relpath(samples_dir))
    sys.exit(command.main(samples_dir=samples_dir))
