"""Load the candidate in the server that will serve it, and call it through every interface that clients have.

Reads the test examples and the SavedModel. Starts the server, calls it over REST and gRPC, on both signatures, and
compares each response with what the SavedModel predicts in this process, as the evaluator sees it. Writes
`blessing.json`, `responses.json`, with the p-values for the parity, and `logs/server.log`. It exists because a model
that is good in this process may still not load in the server, or predict otherwise there.
"""

import base64
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import requests
from numpy.typing import NDArray

from components.artifacts.blessing import Check, write_blessing
from components.artifacts.examples import read_encoded
from components.artifacts.infra_validation import SERVER_LOG, Responses, Served, write_responses
from components.artifacts.summary import Summary
from components.errors import InfraValidationError
from components.evaluation.served_model import ServedModel
from components.options import check_above, check_at_least, check_choice
from export.spec import read_spec
from serving import docker, launcher
from serving.errors import ServerError, read_tail
from serving.launcher import Server

log = logging.getLogger(__name__)

_TIMEOUT_S = 30
# A proxy of the environment is not for this machine.
_CHANNEL_OPTIONS = [("grpc.enable_http_proxy", 0)]

Response = tuple[NDArray[np.float64], list[str], float | None]
"""Probabilities `float64 [C]`, class names and p-value of one photo; `None` of a model that does not tell."""


@dataclass(frozen=True)
class InfraValidatorOptions:
    """How the candidate is tried.

    Attributes:
        engine: "auto" (Docker where an engine responds that has TensorFlow Serving's image or can pull it, else the
            local server), "docker" or "local".
        num_examples: test photos sent, each to both signatures over both protocols.
        tolerance: how far a probability may be from what the SavedModel predicts in this process. The server sums in
            another order, in other builds and other batches, which moves a ResNet50's probabilities by some 1e-6; a
            wrong photo, colour or model moves them by far more.
        timeout_s: how long the server may take to load the model.
    """

    engine: str = "auto"
    num_examples: int = 8
    tolerance: float = 1e-3
    timeout_s: float = 120.0

    def __post_init__(self) -> None:
        check_choice(self, launcher.ENGINES, "engine")
        check_at_least(self, 1, "num_examples")
        check_above(self, 0, "timeout_s")
        if not 1e-6 <= self.tolerance < 1:
            raise ValueError(f"tolerance must be 1e-6 (of float32) to 1. Received: {self.tolerance}")


@dataclass(frozen=True)
class _Photo:
    """A test photo in both forms that the model takes, and the probabilities that the SavedModel predicts here."""

    filename: str
    encoded: bytes
    pixels: NDArray[np.uint8]
    expected: NDArray[np.float64]


@dataclass(frozen=True)
class _Interface:
    """A way to call the server; `call` sends it one photo, and raises `_ResponseError`."""

    protocol: str
    signature: str
    call: Callable[[_Photo], Response]

    @property
    def name(self) -> str:
        return f"{self.protocol.lower()}_{self.signature}"

    def __str__(self) -> str:
        return f"over {self.protocol} on {self.signature}"


class _ResponseError(Exception):
    """The server refuses a request, does not respond in time, or responds with something else than probabilities."""


def describe_engine(options: InfraValidatorOptions) -> dict[str, str]:
    """Return which server validates, before anything runs: with another one, the candidate is validated again.

    An image that is missing is pulled now, so that this cannot fail after the training.

    Raises:
        InfraValidationError: the engine is Docker, and none is running here, or its image cannot be had.
    """
    try:
        engine = launcher.find_engine(options.engine).name
    except ServerError as exc:
        raise InfraValidationError(f"{exc.reason} The option is infra_validator.engine.") from exc
    return {"engine": engine, **({"image": docker.IMAGE} if engine == "docker" else {})}


def validate(*, examples_dir: Path, export_dir: Path, out_dir: Path, options: InfraValidatorOptions) -> Summary:
    """Decide whether a server serves the candidate as it is evaluated, whether it will be blessed for that or not.

    Whatever the server does is a result, with its reason; the server is always stopped.

    Raises:
        EvaluationError: a server loads the candidate, and this process does not.
    """
    server_log = out_dir / SERVER_LOG
    server_log.parent.mkdir(exist_ok=True)
    checks, responses = _try(examples_dir, export_dir, server_log, options)
    write_responses(out_dir, responses)
    blessed = write_blessing(out_dir, checks, validator="infra_validator")
    if not blessed and server_log.exists():
        log.warning("infra_validator: the server's log ends with:\n%s", read_tail(server_log))
    return {"num_checks": len(checks), "blessed": blessed}


def _try(
    examples_dir: Path, export_dir: Path, log_path: Path, options: InfraValidatorOptions
) -> tuple[list[Check], Responses]:
    """Start a server on the candidate, send it every photo through every interface, and stop it."""
    spec = read_spec(export_dir)
    checks: list[Check] = []
    responses: Responses = {}
    try:
        with (
            launcher.serve(
                model_name=spec["model_name"],
                base_path=export_dir,
                version=1,
                log_path=log_path,
                engine=options.engine,
                timeout_s=options.timeout_s,
            ) as server,
            grpc.insecure_channel(server.grpc_target, _CHANNEL_OPTIONS) as channel,
        ):
            checks.append(
                _check("load", True, f"the server ({server.engine}, {server.reason}) has the model AVAILABLE")
            )
            photos = _read_photos(examples_dir, export_dir, options.num_examples)
            for interface in _list_interfaces(server, channel, spec["model_name"]):
                check, responses[interface.name] = _compare(interface, photos, spec["class_names"], options.tolerance)
                checks.append(check)
    except ServerError as exc:
        return [_check("load", False, f"{exc.reason} To try again: --force infra_validator")], {}
    return checks, responses


def _list_interfaces(server: Server, channel: grpc.Channel, model_name: str) -> list[_Interface]:
    """Return every interface that clients have."""
    calls = {"REST": partial(_call_rest, server), "gRPC": partial(_call_grpc, channel)}
    return [
        _Interface(protocol, signature, partial(call, model_name, signature))
        for protocol, call in calls.items()
        for signature in ("serving_default", "images")
    ]


def _read_photos(examples_dir: Path, export_dir: Path, num_examples: int) -> list[_Photo]:
    """Read the first test photos, which are in a mixed order, with what the SavedModel predicts for each."""
    import tensorflow as tf

    from export import preprocessing

    size_px = read_spec(export_dir)["image_size_px"]
    found = list(islice(read_encoded(examples_dir, "test"), num_examples))
    images = tf.data.Dataset.from_tensor_slices([encoded for _, encoded in found])
    expected = ServedModel(export_dir, batch_size=num_examples).classify(images).probabilities
    return [
        _Photo(name, encoded, preprocessing.load(tf.constant(encoded), size_px).numpy(), row.astype(np.float64))
        for (name, encoded), row in zip(found, expected, strict=True)
    ]


def _compare(
    interface: _Interface, photos: Sequence[_Photo], class_names: Sequence[str], tolerance: float
) -> tuple[Check, Served]:
    """Send every photo, up to the first wrong response, and compare the responses with the SavedModel's predictions.

    Returns:
        Whether all are right, and what was served.
    """
    served: Served = {"probabilities": [], "p_values": []}
    largest = 0.0
    for photo in photos:
        try:
            probabilities, classes, p_value = interface.call(photo)
        except _ResponseError as exc:
            return _check(interface.name, False, f"no prediction for {photo.filename} {interface}: {exc}"), served
        if classes != class_names:
            message = f"the classes {interface} must be {class_names}. Received: {classes}"
            return _check(interface.name, False, message), served
        served["probabilities"].append(probabilities.tolist())
        served["p_values"].append(p_value)
        difference = float(np.abs(probabilities - photo.expected).max())
        if not difference <= tolerance:  # A NaN is a failure.
            message = (
                f"a probability of {photo.filename} {interface} differs by {difference:.1g} from the SavedModel's, "
                f"more than infra_validator.tolerance ({tolerance:g})"
            )
            return _check(interface.name, False, message), served
        largest = max(largest, difference)
    message = f"{len(photos)} photos predicted as by the SavedModel in this process, to {largest:.0e}"
    return _check(interface.name, True, message), served


def _call_rest(server: Server, model_name: str, signature: str, photo: _Photo) -> Response:
    if signature == "images":
        instance: Any = photo.pixels.tolist()
    else:
        instance = {"b64": base64.b64encode(photo.encoded).decode("ascii")}
    with requests.Session() as session:
        session.trust_env = False  # Proxies, again.
        try:
            response = session.post(
                f"{server.rest_url}/v1/models/{model_name}:predict",
                json={"signature_name": signature, "instances": [instance]},
                timeout=_TIMEOUT_S,
            )
            if not response.ok:
                raise _ResponseError(f"{response.status_code} {response.text[:500]}")
            (row,) = response.json()["predictions"]
            return _parse(row["probabilities"], row["classes"], row.get("p_value"))
        except requests.RequestException as exc:
            raise _ResponseError(str(exc)) from exc
        except (KeyError, TypeError, ValueError) as exc:
            raise _ResponseError(f"not a prediction: {response.text[:500]}") from exc


def _call_grpc(channel: grpc.Channel, model_name: str, signature: str, photo: _Photo) -> Response:
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    request = predict_pb2.PredictRequest()
    request.model_spec.name = model_name
    request.model_spec.signature_name = signature
    if signature == "images":
        request.inputs["images"].CopyFrom(tf.make_tensor_proto(photo.pixels[np.newaxis]))
    else:
        request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto([photo.encoded]))
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    try:
        outputs = stub.Predict(request, timeout=_TIMEOUT_S).outputs
        (probabilities,), (classes,) = (tf.make_ndarray(outputs[name]) for name in ("probabilities", "classes"))
        p_value = tf.make_ndarray(outputs["p_value"]).item() if "p_value" in outputs else None
        return _parse(probabilities, [name.decode() for name in classes], p_value)
    except grpc.RpcError as exc:
        raise _ResponseError(f"{exc.code().name} {exc.details()}") from exc
    except (TypeError, ValueError) as exc:
        raise _ResponseError(f"not a prediction: {exc}") from exc


def _parse(probabilities: Any, classes: list[str], p_value: Any) -> Response:
    row = np.array(probabilities, np.float64)
    if row.shape != (len(classes),):
        raise ValueError(f"{len(classes)} classes need as many probabilities. Received: {row.shape}")
    return row, list(classes), None if p_value is None else float(p_value)


def _check(name: str, passed: bool, message: str) -> Check:
    return {"name": name, "passed": passed, "message": message}
