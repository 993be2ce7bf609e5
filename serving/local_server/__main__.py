"""`python -m serving.local_server --model_name=flowers --model_base_path=models/flowers --rest_api_port=8501`."""

import asyncio
import logging
import os
import sys

from serving.local_server.errors import StartError
from serving.local_server.flags import parse


def main() -> int:
    """Run the server; exit status 0 when it was told to end, 1 when it cannot start, 2 for a wrong command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    try:
        flags = parse(sys.argv[1:])
        logging.getLogger().setLevel(flags.log_level.upper())
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
        if flags.version:
            import tensorflow as tf

            print(f"local server: speaks TensorFlow Serving's protocol, with TensorFlow {tf.__version__}")
            return 0
        # TensorFlow takes seconds to import: not before the command line is known to be good.
        from serving.local_server.server import serve

        asyncio.run(serve(flags, on_ready=lambda line: print(line, flush=True)))
    except StartError as exc:
        print(exc, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
