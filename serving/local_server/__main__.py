"""`python -m serving.local_server --model_name=flowers --model_base_path=models/flowers --rest_api_port=8501`."""

import asyncio
import logging
import os
import signal
import sys
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
            import tensorflow as tf

            print(f"local server: speaks TensorFlow Serving's protocol, with TensorFlow {tf.__version__}")
            return 0
        chosen = settings.read(flags)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _end_at_once)
        # TensorFlow takes seconds to import: not before the command line is known to be good.
        from serving.local_server.server import serve

        asyncio.run(serve(chosen, on_ready=lambda line: print(line, flush=True)))
    except StartError as exc:
        print(exc, file=sys.stderr)
        return 1
    return 0


def _end_at_once(number: int, frame: FrameType | None) -> None:
    """End while TensorFlow is imported: nothing is at work yet."""
    os._exit(0)


if __name__ == "__main__":
    status = main()
    logging.shutdown()
    # Every accepted request has its response by now. A model that is still being loaded, or runs for nobody, may stop.
    os._exit(status)
