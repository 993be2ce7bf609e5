"""`python -m serving.local_server --model_name=flowers --model_base_path=models/flowers --rest_api_port=8501`."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from serving.local_server import settings
from serving.local_server.errors import StartError
from serving.local_server.flags import parse


def main() -> int:
    """Run the server; exit status 0 after a signal to end, 1 when it cannot start, 2 for a wrong command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    try:
        flags = parse(sys.argv[1:])
        logging.getLogger().setLevel(flags.log_level.upper())
        # TensorFlow's warnings quote the beginning of an image that it cannot read.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        # TensorFlow's loader calls itself deprecated, and is the only one that reads every SavedModel.
        logging.getLogger("tensorflow").setLevel(logging.ERROR)
        if flags.version:
            with _without_keras():
                import tensorflow as tf

            print(f"local server: speaks TensorFlow Serving's protocol, with TensorFlow {tf.__version__}")
            return 0
        chosen = settings.read(flags)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _end_at_once)
        # TensorFlow takes seconds to import: not before the command line is known to be good.
        with _without_keras():
            from serving.local_server.server import serve

        asyncio.run(serve(chosen, on_ready=lambda line: print(line, flush=True)))
    except StartError as exc:
        print(exc, file=sys.stderr)
        return 1
    return 0


@contextmanager
def _without_keras() -> Iterator[None]:
    """Let TensorFlow be imported without Keras, and so without scikit-learn and matplotlib: a graph needs none of them.

    It passes over the Keras that it is told to use where that is not installed. A library of operations that needs
    Keras still gets the usual one, later.
    """
    name = "TF_USE_LEGACY_KERAS"
    if name in os.environ:
        yield
        return
    os.environ[name] = "1"
    try:
        yield
    finally:
        del os.environ[name]


def _end_at_once(number: int, frame: FrameType | None) -> None:
    """End while TensorFlow is imported: nothing is at work yet."""
    os._exit(0)


if __name__ == "__main__":
    status = main()
    logging.shutdown()
    # Every accepted request has its response by now. A model that is still being loaded, or runs for nobody, may stop.
    os._exit(status)
