"""What the command imports."""

import subprocess
import sys

from tests.serving.local_server.conftest import ROOT, START_S

SCRIPT = """
import sys
from serving.local_server.__main__ import main
sys.argv = ["server", "--version"]
main()
import serving.local_server.server
assert not {"keras", "sklearn", "matplotlib"} & set(sys.modules)
import tensorflow as tf
assert tf.keras.layers.Layer.__module__.startswith("keras.")
"""


def test_the_server_starts_without_keras_and_an_operation_that_needs_it_still_gets_it() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, timeout=START_S)
    assert done.returncode == 0, done.stderr
