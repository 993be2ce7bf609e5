"""What a model says of its limits, over every transport: all of it or nothing, and nothing malformed."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from client.classifier_client import AnswerError, Client, LiteRTTransport, ModelFileError
from client.classifier_client.transports import prediction_pb2 as pb
from tests.client import fakes, litert_files
from tests.client.fakes import LIMITS, PHOTO, REFUSED, FakeGrpc, FakeServer
from tests.client.litert_files import CLASS_NAMES, P_VALUE_OF_GREY, with_metadata
from tests.client.raw_fakes import GOOD_OUTPUTS, OUTPUTS, RawGrpc, RawHttp, good_messages, to_http, to_shape

SHAPE = (16, 16, 3)
GREY, RED, YELLOW = (Image.new("RGB", (20, 20), color) for color in ("grey", "red", "yellow"))


# --- servers


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, (None, None, None)),
        (LIMITS, (0.5, True, ("tulip",))),
        (REFUSED, (1 / 128, False, ("tulip", "daisy"))),
    ],
    ids=["unknown", "known", "refused"],
)
def test_prediction_has_the_limits_of_the_model(limits: Any, expected: Any, fake: FakeServer) -> None:
    fake.limits = limits
    for prediction in fakes.classify(fake.connect(), [PHOTO] * 3):
        assert (prediction.p_value, prediction.is_known, prediction.prediction_set) == expected
        assert (prediction.label, prediction.probability) == ("tulip", 0.75), "also where the image is refused"


def test_tensors_may_be_bytes(fake_grpc: FakeGrpc) -> None:
    fake_grpc.limits, fake_grpc.as_content = REFUSED, True
    for prediction in fakes.classify(fake_grpc.connect(), [PHOTO] * 3):
        assert (prediction.p_value, prediction.is_known) == (1 / 128, False)
        assert prediction.prediction_set == ("tulip", "daisy")
        assert prediction.probabilities == {"tulip": 0.75, "daisy": 0.25}


@pytest.fixture
def send() -> Iterator[Callable[[Any], list[Any]]]:
    """Let a server send JSON, or a message of gRPC; return the predictions."""
    with RawHttp() as http, RawGrpc() as grpc:

        def send(response: Any) -> list[Any]:
            if isinstance(response, pb.PredictResponse):
                grpc.outputs = response.SerializeToString()
                return fakes.classify(fakes.open_transport("gRPC", grpc.target))
            http.outputs = to_http(json.dumps(response).encode())
            return fakes.classify(fakes.open_transport("REST", http.target))

        yield send


def to_document(**changed: Any) -> Any:
    """Return the good prediction with other values of some outputs."""
    return {"outputs": {**OUTPUTS["outputs"], **changed}}


def to_message(**changed: dict[str, Any]) -> pb.PredictResponse:
    """Return the good prediction with other fields of some outputs."""
    response = pb.PredictResponse.FromString(good_messages()[1])
    for name, fields in changed.items():
        tensor = response.outputs[name]
        for field, value in fields.items():
            tensor.ClearField(field)  # type: ignore[arg-type]
            tensor.MergeFrom(pb.Tensor(**{field: value}))
    return response


@pytest.mark.parametrize("missing", [["p_value"], ["is_known"], ["prediction_set"], ["p_value", "is_known"]], ids=repr)
def test_limits_come_all_or_none(missing: list[str], send: Any) -> None:
    document, message = to_document(), to_message()
    assert [send(good)[0].p_value for good in (document, message)] == [0.5, 0.5]
    for name in missing:
        del document["outputs"][name]
        del message.outputs[name]
    for response in (document, message):
        with pytest.raises(AnswerError, match="one of p_value, is_known and prediction_set must return all three"):
            send(response)


@pytest.mark.parametrize(
    "changed",
    [
        *[{name: value} for name in LIMITS for value in (None, 5, [], [None], ["a"], [[[True]]], {}, [{}])],
        *[{"p_value": [value]} for value in (True, "0.5", -0.5, 1.5, float("nan"), float("inf"), 10**400, [0.5])],
        *[{"p_value": [0.5, 0.5]}, {"is_known": [True, True]}, {"prediction_set": [[False, True]] * 2}],
        *[{"is_known": value} for value in ([1], [0.5], ["true"], [[True]], True)],
        *[
            {"prediction_set": [row]}
            for row in (True, [], [True], [True] * 3, [False] * 2, [True, False], [0, 1], "ab")
        ],
    ],
    ids=repr,
)
def test_limits_of_another_form_are_an_error(changed: Any, send: Any) -> None:
    with pytest.raises(AnswerError) as failure:
        send(to_document(**changed))
    assert len(str(failure.value)) < 600


@pytest.mark.parametrize(
    "changed",
    [
        *[{name: {"dtype": dtype}} for name in LIMITS for dtype in (0, 4, 7, 99)],
        *[{name: {"tensor_shape": shape}} for name in LIMITS for shape in (to_shape(), to_shape(1, 1), to_shape(0))],
        *[{"p_value": {"float_val": values}} for values in ([], [0.5, 0.5], [-1], [2], [float("nan")])],
        *[{"p_value": {"dtype": pb.DT_BOOL, "bool_val": [True]}}, {"is_known": {"dtype": pb.DT_FLOAT}}],
        *[{"prediction_set": {"bool_val": values}} for values in ([], [True], [False] * 2, [True, False], [True] * 3)],
        *[{name: {"tensor_content": b"\1" * size}} for name in LIMITS for size in (3, 5, 400)],
        {"prediction_set": {"tensor_shape": to_shape(2, 2), "bool_val": [False, True] * 2}},
    ],
    ids=repr,
)
def test_limits_in_another_message_are_an_error(changed: Any, send: Any) -> None:
    with pytest.raises(AnswerError) as failure:
        send(to_message(**changed))
    assert len(str(failure.value)) < 600


def test_one_of_several_most_probable_labels_is_enough(send: Any) -> None:
    [prediction] = send(to_document(probabilities=[[0.5, 0.5]]))
    assert prediction.prediction_set == ("tulip",)
    assert GOOD_OUTPUTS.endswith(json.dumps(OUTPUTS).encode()), "the good response is left as it was"


# --- LiteRT files


@pytest.fixture(scope="module")
def model() -> bytes:
    return litert_files.convert_with_limits(SHAPE)


@pytest.fixture
def save(tmp_path: Path) -> Callable[[bytes], Path]:
    def save(content: bytes) -> Path:
        path = tmp_path / "colours.tflite"
        path.write_bytes(with_metadata(content))
        return path

    return save


def test_file_with_the_tensors_has_limits(model: bytes, save: Any) -> None:
    with Client(LiteRTTransport(save(model))) as client:
        grey, red, yellow = client.classify([GREY, RED, YELLOW])
    assert grey.p_value == pytest.approx(P_VALUE_OF_GREY)
    assert (grey.is_known, set(grey.prediction_set)) == (False, set(CLASS_NAMES))
    assert (red.is_known, red.label, red.prediction_set) == (True, "red", ("red",))
    assert red.p_value > 0.9
    assert (yellow.is_known, set(yellow.prediction_set)) == (True, {"red", "green"})


def test_file_without_them_has_none(save: Any) -> None:
    with Client(LiteRTTransport(save(litert_files.convert(SHAPE)))) as client:
        [prediction] = client.classify(RED)
    assert (prediction.p_value, prediction.is_known, prediction.prediction_set) == (None, None, None)


@pytest.mark.parametrize(
    ("name", "make", "received"),
    [
        (
            "p_value",
            None,
            "Received: {'is_known': 'bool [1]', 'prediction_set': 'bool [1, 3]'}",
        ),
        ("p_value", lambda values: values, "'p_value': 'float32 [1, 3]'"),
        ("is_known", lambda values: values[:, 0], "'is_known': 'float32 [1]'"),
        ("prediction_set", lambda values: values[:, :2] > 0, "'prediction_set': 'bool [1, 2]'"),
    ],
)
def test_file_whose_limits_are_of_another_form_is_refused(name: str, make: Any, received: str, save: Any) -> None:
    with pytest.raises(ModelFileError) as failure:
        LiteRTTransport(save(litert_files.convert_with_limits(SHAPE, **{name: make})))
    assert "A LiteRT file that knows its limits must have the tensors" in str(failure.value)
    assert received in str(failure.value)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("p_value", lambda values: values[:, 0] + 2),
        ("p_value", lambda values: values[:, 0] * float("nan")),
        ("prediction_set", lambda values: values > 1),
        ("prediction_set", lambda values: values < 0.1),
    ],
)
def test_limits_that_are_none_are_refused(name: str, make: Any, save: Any) -> None:
    path = save(litert_files.convert_with_limits(SHAPE, **{name: make}))
    with (
        Client(LiteRTTransport(path)) as client,
        pytest.raises(ModelFileError, match="A LiteRT file that knows its limits must return"),
    ):
        list(client.classify(RED))
