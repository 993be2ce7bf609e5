"""The client and a real server: the same predictions over every transport, with batching, and while versions change."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from client.classifier_client import (
    Client,
    GrpcTransport,
    ImageError,
    LiteRTTransport,
    ModelNotFoundError,
    Prediction,
    RestTransport,
)
from components.data import drawn_flowers
from export.spec import read_spec
from serving import launcher
from serving.launcher import Server
from tests.client.conftest import VERSION, RealServer

PHOTOS = [
    Image.fromarray(drawn_flowers.draw(name, seed=seed, size_px=90))
    for seed in range(4)
    for name in drawn_flowers.CLASS_NAMES
]
DEADLINE_S = 30
# The server sums a batch in another order than a single image: float32 rounding.
TOLERANCE = 1e-5


def resize_all(size_px: int) -> NDArray[np.uint8]:
    return np.stack([photo.resize((size_px, size_px), Image.Resampling.BILINEAR) for photo in PHOTOS])


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
    rows = model.signatures["images"](images=tf.constant(resize_all(size_px)))["probabilities"].numpy()
    return [dict(zip(spec["class_names"], row.tolist(), strict=True)) for row in rows]


def test_predictions_of_several_batches_are_the_models_own(connect: Any, expected: list[dict[str, float]]) -> None:
    with connect() as client:
        predictions = list(client.classify(PHOTOS))
    assert len(predictions) == len(PHOTOS) == 20
    for prediction, probabilities in zip(predictions, expected, strict=True):
        assert prediction.probabilities == pytest.approx(probabilities, abs=TOLERANCE)
        assert prediction.label == max(probabilities, key=lambda label: probabilities[label])
        assert prediction.model_version == str(VERSION)


@dataclass(frozen=True)
class Refusing:
    """A model that refuses some of the photos, in a server and as files, and its own outputs for them."""

    server: Server
    files: dict[str, Path]
    outputs: dict[str, Any]
    rank: float


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory, training_dir: Path, export_dir: Path) -> Iterator[Refusing]:
    import tensorflow as tf

    from components.artifacts.training import read_classifier
    from export import litert, saved_model
    from tests.export import fitted_limits

    spec, classifier, folder = read_spec(export_dir), read_classifier(training_dir), tmp_path_factory.mktemp("refusing")
    pixels = resize_all(spec["image_size_px"])
    limits = fitted_limits.fit(classifier, pixels)
    model_dir = folder / "flowers" / str(VERSION)
    model_dir.mkdir(parents=True)
    saved_model.save(classifier, limits=limits, spec=spec, warmup_images=[], out_dir=model_dir)
    outputs = tf.saved_model.load(str(model_dir)).signatures["images"](images=tf.constant(pixels))
    files = litert.convert(classifier, limits=limits, calibration_images=pixels, spec=spec, out_dir=folder)
    with launcher.serve(
        model_name="flowers", base_path=model_dir.parent, log_path=folder / "server.log", engine="local"
    ) as server:
        values = {name: value.numpy() for name, value in outputs.items()}
        yield Refusing(server, files, values, rank=1 / (len(limits.scores) + 1))


def test_every_way_to_a_model_says_the_same_of_its_limits(refusing: Refusing) -> None:
    server, outputs = refusing.server, refusing.outputs
    transports = {
        "REST": RestTransport(f"{server.host}:{server.rest_port}", "flowers"),
        "gRPC": GrpcTransport(server.grpc_target, "flowers"),
        "LiteRT": LiteRTTransport(refusing.files["float32"]),
    }
    class_names = [name.decode() for name in outputs["classes"][0]]
    expected_sets = [set(compress(class_names, held)) for held in outputs["prediction_set"]]
    assert 0 < outputs["is_known"].sum() < len(PHOTOS)
    assert 1 < sum(map(len, expected_sets)) / len(PHOTOS) < len(class_names), "sets must differ for this to be a test"
    for name, transport in transports.items():
        with Client(transport) as client:
            found = list(client.classify(PHOTOS))
        p_values = [prediction.p_value for prediction in found]
        # A float32 sum in another order may let a photo change places with the next.
        assert p_values == pytest.approx(outputs["p_value"].tolist(), abs=refusing.rank + TOLERANCE), name
        assert p_values != [p_values[0]] * len(PHOTOS)
        for prediction, expected, known, p_value in zip(
            found, expected_sets, outputs["is_known"].tolist(), outputs["p_value"].tolist(), strict=True
        ):
            assert prediction.is_known == known or prediction.p_value != pytest.approx(p_value), name
            assert set(prediction.prediction_set) == expected, name
            ranked = [label for label in prediction.probabilities if label in expected]
            assert list(prediction.prediction_set) == ranked, name


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
