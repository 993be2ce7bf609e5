"""The local server's JSON beside orjson's own time for the same array: float32 `[1, 224, 224, 3]`, out and in.

Both sides work in turns, in pairs, and the median of the pairs' ratios counts. Out, the peer is one call of orjson for
the bare array, ours the whole body of a response. In, the peer is orjson and one call of numpy, without a check of
anything; ours the whole body of a request, with TensorFlow Serving's rules.
"""

import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson

from benchmarks.serving import elapsed_ms

NUM_PAIRS = 51
SHAPE = (1, 224, 224, 3)
_FLOAT = 1  # DT_FLOAT of types.proto


def measure() -> None:
    """Print milliseconds of both sides and their ratio, out and in."""
    from serving.local_server import json_requests, json_responses, json_worker

    array = np.random.default_rng(0).random(SHAPE, np.float32)
    body = b'{"instances":' + orjson.dumps(array, option=orjson.OPT_SERIALIZE_NUMPY) + b"}"

    def write() -> bytes:
        return json_responses.write_predictions({"probabilities": array}, rows=True)

    def read() -> Any:
        return json_requests.read_inputs(json_requests.parse(body), {"pixels": json_worker.Info(_FLOAT)})

    _compare("encode", write, "orjson.dumps", lambda: orjson.dumps(array, option=orjson.OPT_SERIALIZE_NUMPY))
    _compare(
        "decode", read, "orjson.loads and numpy", lambda: np.array(orjson.loads(body)["instances"], dtype=np.float32)
    )


def _compare(what: str, ours: Callable[[], Any], peer_name: str, peer: Callable[[], Any]) -> None:
    for warm_up in (ours, peer):
        warm_up()
    pairs = [(elapsed_ms(ours), elapsed_ms(peer)) for _ in range(NUM_PAIRS)]
    ours_ms, peer_ms = (statistics.median(found) for found in zip(*pairs, strict=True))
    ratio = statistics.median(mine / theirs for mine, theirs in pairs)
    shape = ", ".join(map(str, SHAPE))
    print(
        f"json, {what} float32 [{shape}] (ms): ours {ours_ms:.3g}, {peer_name} {peer_ms:.3g}: ratio {ratio:.2f}",
        flush=True,
    )
