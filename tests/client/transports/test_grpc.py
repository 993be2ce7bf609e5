"""gRPC: pixels are sent as bytes, and other servers are recognised."""

from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from PIL import Image

from client.classifier_client import AnswerError, Client, RefusedError, preprocessing
from components.data import drawn_flowers
from tests.client.fakes import OK, SIZE_PX, FakeGrpc, classify, open_transport

PHOTOS = [Image.fromarray(drawn_flowers.draw("roses", seed=seed, size_px=64)) for seed in range(3)]


def test_pixels_are_sent_as_bytes_to_the_signature_that_takes_them(fake_grpc: FakeGrpc) -> None:
    classify(fake_grpc.connect(), PHOTOS)
    [request] = fake_grpc.requests
    assert (request.model_spec.name, request.model_spec.signature_name) == ("flowers", "images")
    assert not request.model_spec.HasField("version")
    tensor = request.inputs["images"]
    assert tensor.dtype == 4  # DT_UINT8
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    assert shape == [3, SIZE_PX, SIZE_PX, 3]
    expected = [np.asarray(preprocessing.load(photo, name="photo", size_px=SIZE_PX)) for photo in PHOTOS]
    np.testing.assert_array_equal(np.frombuffer(tensor.tensor_content, np.uint8).reshape(shape), np.stack(expected))


def test_size_is_queried_again_after_a_refusal(fake_grpc: FakeGrpc) -> None:
    """As after a reload with a model for larger images, in a long-lived process."""
    fake_grpc.script.extend([OK, "INVALID_ARGUMENT"])
    with Client(fake_grpc.connect()) as client:
        with pytest.raises(RefusedError, match="scripted INVALID_ARGUMENT"):
            list(client.classify(PHOTOS))
        fake_grpc.shape = [-1, 48, 48, 3]
        assert len(list(client.classify(PHOTOS))) == 3
    assert fake_grpc.requests[-1].inputs["images"].tensor_shape.dim[1].size == 48


def test_grpc_server_of_another_service_is_an_error() -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with pytest.raises(AnswerError, match=f"The server at 127.0.0.1:{port} is not TensorFlow Serving"):
            classify(open_transport("gRPC", f"127.0.0.1:{port}"))
    finally:
        server.stop(None).wait()
