"""`python -m pipelines verify` checks both folders of a version, before a server starts that does not."""

from pathlib import Path

import pytest

from pipelines import __main__ as command_line
from tests.components.candidates import Candidates
from tests.signing_keys import Pair, write_key


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return write_key(tmp_path)


@pytest.fixture
def candidates(tmp_path: Path, pair: Pair) -> Candidates:
    """Version 1 with LiteRT files, version 2 without."""
    candidates = Candidates(tmp_path)
    candidates.add("a", int8=True)
    candidates.add("b")
    for key in ("a", "b"):
        candidates.push(key, signing_key=str(pair.private))
    return candidates


@pytest.mark.usefixtures("own_logging")
def test_verify_ends_with_0_for_what_was_signed_and_with_1_for_anything_else(candidates, pair, tmp_path, capsys):
    def call(*words: object) -> tuple[int, str]:
        capsys.readouterr()
        status = command_line.main(["verify", "--models-dir", str(models), *map(str, words)])
        return status, "".join(capsys.readouterr())

    models = candidates.store
    key = "--verify-key", pair.public
    assert call(1, *key) == (0, f"{models}/flowers/1: as it was signed\n{models}/tflite/1: as it was signed\n")
    assert call(*key) == (
        0,
        f"{models}/flowers/2: as it was signed\n{models}/tflite/2: not there, so there is nothing to verify\n",
    )
    file = Path(f"{models}/tflite/1/flowers_int8.tflite")
    file.write_text("other")
    status, printed = call(1, *key)
    assert status == 1
    assert f"{models}/tflite/1 holds another 'flowers_int8.tflite' than the one that was signed" in printed
    assert call(2, *key)[0] == 0
    status, printed = call(3, *key)
    assert (status, "Received: 3. There is 1, 2." in printed) == (1, True)
    status, printed = call("--verify-key", pair.private)
    assert (status, "must be public" in printed) == (2, True)
    models = "s3://bucket/models"
    status, printed = call(*key)
    assert (status, "Bring the newest here first: fetch --models-dir s3://bucket/models" in printed) == (2, True)
