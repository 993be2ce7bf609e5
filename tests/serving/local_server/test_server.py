"""What the flags make of the sessions' configuration."""

from pathlib import Path

import pytest

from serving.local_server.flags import parse
from serving.local_server.server import read_session_config

MODEL = ["--model_name=m", "--model_base_path=/m"]


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ({}, (5, 6)),
        ({"session": 2}, (2, 2)),
        ({"intra_op": 3}, (3, 6)),
        ({"inter_op": 4}, (5, 4)),
        ({"intra_op": 3, "inter_op": 4}, (3, 4)),
        # As TensorFlow Serving does: the flag for both counts only alone.
        ({"session": 2, "intra_op": 3}, (3, 6)),
        ({"session": 2, "inter_op": 4}, (5, 4)),
    ],
)
def test_flags_choose_the_threads_of_a_session(
    tmp_path: Path, numbers: dict[str, int], expected: tuple[int, int]
) -> None:
    path = tmp_path / "session.config"
    path.write_text("intra_op_parallelism_threads: 5 inter_op_parallelism_threads: 6 allow_soft_placement: true")
    flags = [f"--tensorflow_{name}_parallelism={number}" for name, number in numbers.items()]
    config = read_session_config(parse([*MODEL, f"--tensorflow_session_config_file={path}", *flags]))
    assert (config.intra_op_parallelism_threads, config.inter_op_parallelism_threads) == expected
    assert config.allow_soft_placement
