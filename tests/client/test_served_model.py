"""The client and a real server: the same predictions over every transport, with batching, and while versions change."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from client.classifier_client import (
    Client,
    GrpcTransport,
    ImageError,
    ModelNotFoundError,
    Prediction,
    RestTransport,
)
from components.data import drawn_flowers
from export.spec import read_spec
from tests.client.conftest import VERSION, RealServer

PHOTOS = [
    Image.fromarray(drawn_flowers.draw(name, seed=seed, size_px=90))
    for seed in range(4)
    for name in drawn_flowers.CLASS_NAMES
]
DEADLINE_S = 30
# The server sums a batch in another order than a single image: float32 rounding.
TOLERANCE = 1e-5


@pytest.fixture(params=["REST", "gRPC", "gRPC over a Unix socket"])
def connect(request: Any, server: RealServer) -> Callable[..., Client]:
    def connect(model: str = "flowers") -> Client:
        if request.param == "REST":
            return Client(RestTransport(server.rest_target, model))
        is_socket = "Unix" in request.param
        return Client(GrpcTransport(f"unix:{server.socket_path}" if is_socket else server.grpc_target, model))

    return connect


@pytest.fixture(scope="module")
def expected(server: RealServer) -> list[dict[str, float]]:
    """The exported model's own probabilities of the photos."""
    import tensorflow as tf

    model = tf.saved_model.load(str(server.model_dir))
    spec = read_spec(server.model_dir)
    size_px = spec["image_size_px"]
    pixels = np.stack([photo.resize((size_px, size_px), Image.Resampling.BILINEAR) for photo in PHOTOS])
    rows = model.signatures["images"](images=tf.constant(pixels))["probabilities"].numpy()
    return [dict(zip(spec["class_names"], row.tolist(), strict=True)) for row in rows]


def test_predictions_of_several_batches_are_the_models_own(connect: Any, expected: list[dict[str, float]]) -> None:
    with connect() as client:
        predictions = list(client.classify(PHOTOS))
    assert len(predictions) == len(PHOTOS) == 20
    for prediction, probabilities in zip(predictions, expected, strict=True):
        assert prediction.probabilities == pytest.approx(probabilities, abs=TOLERANCE)
        assert prediction.label == max(probabilities, key=lambda label: probabilities[label])
        assert prediction.model_version == str(VERSION)


def test_bad_image_among_good_ones_is_an_error_at_its_position(connect: Any, tmp_path: Path) -> None:
    PHOTOS[0].save(tmp_path / "good.jpg")
    (tmp_path / "bad.jpg").write_bytes((tmp_path / "good.jpg").read_bytes()[:700])
    with connect() as client:
        results = list(client.classify([tmp_path / "good.jpg", tmp_path / "bad.jpg", tmp_path / "good.jpg"]))
    assert [type(result) for result in results] == [Prediction, ImageError, Prediction]


def test_unknown_model_is_an_error(connect: Any) -> None:
    with (
        connect("rosen") as client,
        pytest.raises(ModelNotFoundError, match=r"'rosen' \(Servable not found for request: Latest\(rosen\)\)"),
    ):
        list(client.classify(PHOTOS[0]))


def test_reload_fails_no_request_and_each_prediction_names_its_version(connect: Any, server: RealServer) -> None:
    newer = server.base_path / str(VERSION + 1)
    end = time.monotonic() + DEADLINE_S
    with connect() as client:

        def classify_until(version: int) -> set[str]:
            seen = set()
            while str(version) not in seen:
                assert time.monotonic() < end, f"version {version} does not respond"
                [prediction] = client.classify(PHOTOS[0])
                seen.add(prediction.model_version)
            return seen

        newer.symlink_to(server.model_dir)
        try:
            assert classify_until(VERSION + 1) <= {str(VERSION), str(VERSION + 1)}
        finally:
            newer.unlink()
        assert classify_until(VERSION) <= {str(VERSION), str(VERSION + 1)}
