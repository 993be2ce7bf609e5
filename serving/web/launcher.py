"""Start the service beside this process, and stop it again: for screenshots and benchmarks."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from serving.web.errors import StartError


@contextmanager
def start_page(*arguments: str) -> Iterator[str]:
    """Run the service on a free port for as long as the block lasts; yield its URL.

    Raises:
        StartError: it does not start; its own output says why.
    """
    command = [sys.executable, "-m", "serving.web", "--port", "0", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            ready = process.stdout.readline().split() if process.stdout else []
            if not ready:
                raise StartError(f"The web page must start with {' '.join(arguments)}, and does not.")
            yield ready[1]
        finally:
            process.terminate()
