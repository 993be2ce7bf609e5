"""Load the candidate in the server that will serve it, and ask it over every way that clients have.

Reads the test examples, the SavedModel, and the evaluator's `blessing.json` and `predictions.jsonl`. Starts the server,
asks it over REST and gRPC, on both signatures, and holds each answer against what the evaluator saw. Writes
`blessing.json`, in the evaluator's form, `answers.json` and `logs/server.log`. It exists because a model that is good
in this process may still not load in the server, or answer otherwise there.
"""

import base64
import json
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

from components import examples
from components.data import transform
from components.errors import InfraValidationError
from components.storage.files import read_json, write_json
from export.spec import ModelSpec, read_spec
from serving import launcher
from serving.errors import ServerError, read_tail
from serving.launcher import Server

log = logging.getLogger(__name__)

LOG = Path("logs") / "server.log"
ANSWERS = "answers.json"
"""Probabilities `[N, C]` of the first `N` test photos, by the way in which the server was asked."""
_CALL_S = 30
# A proxy of the environment is not for this machine.
_CHANNEL_OPTIONS = [("grpc.enable_http_proxy", 0)]

Answer = tuple[NDArray[np.float64], list[str]]
"""Probabilities `float64 [C]` and class names of one photo."""

_Answers = dict[str, list[list[float]]]


@dataclass(frozen=True)
class InfraValidatorOptions:
    """How the candidate is tried.

    Attributes:
        engine: "auto" (Docker where an engine answers, else the local server), "docker" or "local".
        num_examples: test photos asked about, each in four ways.
        tolerance: how far a probability may be from the evaluator's. The server sums in another order, in other builds
            and other batches, which moves a ResNet50's probabilities by some 1e-6; a wrong photo, colour or model moves
            them by far more.
        timeout_s: how long the server may take to load the model.
    """

    engine: str = "auto"
    num_examples: int = 8
    tolerance: float = 1e-3
    timeout_s: float = 120.0

    def __post_init__(self) -> None:
        if self.engine not in launcher.ENGINES:
            raise ValueError(f"engine must be one of {', '.join(launcher.ENGINES)}. Received: {self.engine!r}")
        if self.num_examples < 1:
            raise ValueError(f"num_examples must be at least 1. Received: {self.num_examples}")
        if not 1e-6 <= self.tolerance < 1:
            raise ValueError(f"tolerance must be 1e-6 (the evaluator rounds to it) to 1. Received: {self.tolerance}")
        if not self.timeout_s > 0:
            raise ValueError(f"timeout_s must be above 0. Received: {self.timeout_s}")


@dataclass(frozen=True)
class _Photo:
    """A test photo in both forms that the model takes, and what the evaluator saw of it."""

    filename: str
    encoded: bytes
    pixels: NDArray[np.uint8]
    expected: NDArray[np.float64]


class _AnswerError(Exception):
    """The server refuses a request, does not answer in time, or answers something else than probabilities."""


def describe_engine(options: InfraValidatorOptions) -> dict[str, str]:
    """Say which server validates, before anything runs: with another one, the candidate is validated anew.

    Raises:
        InfraValidationError: Docker is asked for and no engine answers.
    """
    try:
        engine = launcher.find_engine(options.engine)
    except ServerError as exc:
        raise InfraValidationError(f"{exc.reason} The option is infra_validator.engine.") from exc
    return {"engine": engine, **({"image": launcher.IMAGE} if engine == "docker" else {})}


def validate(
    *, examples_dir: Path, export_dir: Path, evaluation_dir: Path, out_dir: Path, options: InfraValidatorOptions
) -> dict[str, Any]:
    """Decide whether a server serves the candidate as it was evaluated.

    A candidate that the evaluator did not bless is not tried. Whatever the server does is a result, with its reason;
    the server is always stopped.
    """
    (out_dir / LOG).parent.mkdir(exist_ok=True)
    answers: _Answers = {}
    if read_json(evaluation_dir / "blessing.json")["blessed"]:
        checks, answers = _try(examples_dir, export_dir, evaluation_dir, out_dir / LOG, options)
    else:
        checks = [_result("evaluator", False, "the evaluator did not bless the model, so no server was started")]
    blessed = all(check["passed"] for check in checks)
    write_json(out_dir / "blessing.json", {"blessed": blessed, "checks": checks})
    write_json(out_dir / ANSWERS, answers)
    for check in checks:
        if not check["passed"]:
            log.warning("infra_validator: not blessed: %s", check["message"])
    if not blessed and (out_dir / LOG).exists():
        log.warning("infra_validator: the server's log ends with:\n%s", read_tail(out_dir / LOG))
    return {"num_checks": len(checks), "blessed": blessed}


def _try(
    examples_dir: Path, export_dir: Path, evaluation_dir: Path, log_path: Path, options: InfraValidatorOptions
) -> tuple[list[dict[str, Any]], _Answers]:
    """Start a server on the candidate, ask it everything, and stop it."""
    spec = read_spec(export_dir)
    photos = _read_photos(examples_dir, evaluation_dir, options.num_examples, spec["image_size_px"])
    try:
        with launcher.serve(
            model_name=spec["model_name"],
            base_path=export_dir,
            version=1,
            log_path=log_path,
            engine=options.engine,
            timeout_s=options.timeout_s,
        ) as server:
            checks = [_result("load", True, f"the server ({server.engine}) has the model AVAILABLE")]
            answers: _Answers = {}
            with grpc.insecure_channel(server.grpc_target, _CHANNEL_OPTIONS) as channel:
                protocols = {"REST": partial(_ask_rest, server), "gRPC": partial(_ask_grpc, channel)}
                for protocol, ask in protocols.items():
                    for signature in ("serving_default", "images"):
                        ask_photo = partial(ask, spec["model_name"], signature)
                        check, rows = _compare(protocol, signature, ask_photo, photos, spec, options)
                        checks.append(check)
                        answers[check["name"]] = rows
            return checks, answers
    except ServerError as exc:
        return [_result("load", False, f"{exc.reason} To try again: --force infra_validator")], {}


def _read_photos(examples_dir: Path, evaluation_dir: Path, num_examples: int, size_px: int) -> list[_Photo]:
    """Read the first test photos, which stand in a mixed order, with what the evaluator saw of each."""
    import tensorflow as tf

    from export import preprocessing

    encoded = islice(transform.encoded(examples.shards(examples_dir, "test")), num_examples)
    with (evaluation_dir / "predictions.jsonl").open() as lines:
        predictions = [json.loads(line) for line in islice(lines, num_examples)]
    photos = []
    for photo, prediction in zip(encoded, predictions, strict=True):
        pixels = preprocessing.load(tf.constant(photo), size_px).numpy()
        photos.append(_Photo(prediction["filename"], photo, pixels, np.array(prediction["probabilities"])))
    return photos


def _compare(
    protocol: str,
    signature: str,
    ask: Callable[[_Photo], Answer],
    photos: Sequence[_Photo],
    spec: ModelSpec,
    options: InfraValidatorOptions,
) -> tuple[dict[str, Any], list[list[float]]]:
    """Ask about every photo, up to the first wrong answer, and hold the answers against the evaluator's."""
    name, way = f"{protocol.lower()}_{signature}", f"over {protocol} on {signature}"
    largest = 0.0
    rows: list[list[float]] = []
    for photo in photos:
        try:
            probabilities, classes = ask(photo)
        except _AnswerError as exc:
            return _result(name, False, f"no answer for {photo.filename} {way}: {exc}"), rows
        if classes != spec["class_names"]:
            return _result(name, False, f"the classes {way} must be {spec['class_names']}. Received: {classes}"), rows
        rows.append(probabilities.tolist())
        difference = float(np.abs(probabilities - photo.expected).max())
        if not difference <= options.tolerance:  # A NaN is a failure.
            message = (
                f"a probability of {photo.filename} {way} differs by {difference:.1g} from the evaluator's, "
                f"more than infra_validator.tolerance ({options.tolerance:g})"
            )
            return _result(name, False, message), rows
        largest = max(largest, difference)
    return _result(name, True, f"{len(photos)} photos answered as in the evaluation, to {largest:.0e}"), rows


def _ask_rest(server: Server, model_name: str, signature: str, photo: _Photo) -> Answer:
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
                timeout=_CALL_S,
            )
            if not response.ok:
                raise _AnswerError(f"{response.status_code} {response.text[:500]}")
            (row,) = response.json()["predictions"]
            return _to_answer(row["probabilities"], row["classes"])
        except requests.RequestException as exc:
            raise _AnswerError(str(exc)) from exc
        except (KeyError, TypeError, ValueError) as exc:
            raise _AnswerError(f"not an answer: {response.text[:500]}") from exc


def _ask_grpc(channel: grpc.Channel, model_name: str, signature: str, photo: _Photo) -> Answer:
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
        outputs = stub.Predict(request, timeout=_CALL_S).outputs
        (probabilities,), (classes,) = (tf.make_ndarray(outputs[name]) for name in ("probabilities", "classes"))
        return _to_answer(probabilities, [name.decode() for name in classes])
    except grpc.RpcError as exc:
        raise _AnswerError(f"{exc.code().name} {exc.details()}") from exc
    except (TypeError, ValueError) as exc:
        raise _AnswerError(f"not an answer: {exc}") from exc


def _to_answer(probabilities: Any, classes: list[str]) -> Answer:
    row = np.array(probabilities, np.float64)
    if row.shape != (len(classes),):
        raise ValueError(f"{len(classes)} classes need as many probabilities. Received: {row.shape}")
    return row, list(classes)


def _result(name: str, passed: bool, message: str) -> dict[str, Any]:
    return {"name": name, "passed": passed, "message": message}
