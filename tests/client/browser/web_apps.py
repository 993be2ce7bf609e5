"""What the tests of web apps share: whether the LiteRT runtime for browsers is there, and models that are small."""

from pathlib import Path

import pytest

from client.browser.runtime import FOLDER, RuntimeMissingError, read_packages

ROOT = Path(__file__).resolve().parents[3]
RUNTIME_DIR = ROOT / FOLDER


def _is_missing() -> bool:
    try:
        read_packages(RUNTIME_DIR)
    except RuntimeMissingError:
        return True
    return False


needs_runtime = pytest.mark.skipif(
    _is_missing(), reason="needs the LiteRT runtime for browsers (python -m client.browser.runtime)"
)
