"""Mutated responses of servers: the command ends with a documented status and at most one line, and soon."""

import collections
import io
import json
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from client.classifier_client import command
from client.classifier_client.command import NO_RESPONSE, OK, UNUSABLE
from client.classifier_client.transports import connection
from client.classifier_client.transports import prediction_pb2 as pb
from tests.client.fakes import PHOTO, SIZE_PX
from tests.client.mutated_files import mutate
from tests.client.raw_fakes import (
    GOOD_METADATA,
    GOOD_OUTPUTS,
    METADATA,
    OUTPUTS,
    RawGrpc,
    RawHttp,
    good_messages,
    to_http,
    to_shape,
)

TIMEOUT_S = 2.0
LONGEST_S = 4 * TIMEOUT_S
"""Metadata, a prediction, and both again where the version is gone."""
FEW, MANY = 200, 22_500
"""Examples of a test. The many, of which messages have twice as many, are 100,000 with the mutated files."""

quick = settings(
    max_examples=FEW, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate, Phase.shrink]
)
long = settings(quick, max_examples=MANY, database=None)

Status = Callable[[], int]


@pytest.fixture(scope="module", autouse=True)
def no_waits() -> Iterator[None]:
    """Let the waits between attempts pass at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection.time, "sleep", lambda _: None)
        yield


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fuzz") / "photo.png"
    PHOTO.save(path)
    return path


@pytest.fixture(scope="module")
def http() -> Iterator[RawHttp]:
    with RawHttp() as server:
        yield server


@pytest.fixture(scope="module")
def grpc() -> Iterator[RawGrpc]:
    with RawGrpc() as server:
        yield server


@pytest.fixture(scope="module")
def seen() -> Iterator["collections.Counter[int]"]:
    """How often each status came."""
    counter: collections.Counter[int] = collections.Counter()
    yield counter
    print(dict(counter))  # noqa: T201


def check(photo: Path, seen: "collections.Counter[int]", *words: str) -> None:
    """Run the command, and check how it ends."""
    out, err, start_s = io.StringIO(), io.StringIO(), time.monotonic()
    with redirect_stdout(out), redirect_stderr(err):
        status = command.main([*words, f"--timeout={TIMEOUT_S}", "--json", str(photo)], samples_dir=photo.parent)
    assert time.monotonic() - start_s < LONGEST_S
    assert status in (OK, NO_RESPONSE, UNUSABLE), (status, err.getvalue())
    assert len(out.getvalue().splitlines()) == (1 if status == OK else 0)
    assert len(err.getvalue().splitlines()) == (0 if status == OK else 1)
    assert "Traceback" not in err.getvalue()
    if status == OK:
        assert -0.01 <= json.loads(out.getvalue())["probability"] <= 1.01
    seen[status] += 1


# --- strategies

numbers = st.integers() | st.floats() | st.sampled_from([10**400, -1, 0, 1, 1 << 63, True])
leaves = st.none() | st.booleans() | numbers | st.text() | st.sampled_from(["", "1", "-1", "x" * 500, "\ud800", "1\n"])
documents = st.recursive(leaves, lambda part: st.lists(part, max_size=4) | st.dictionaries(st.text(), part, max_size=4))


@st.composite
def changed_documents(draw: Any, good: Any) -> bytes:
    """A good document, with one to three of its parts replaced, taken away or repeated."""
    document = json.loads(json.dumps(good))
    for _ in range(draw(st.integers(1, 3))):
        paths = list(_paths(document))
        if not paths:
            break
        parent, key = draw(st.sampled_from(paths))
        kind = draw(st.sampled_from(["replace", "replace", "remove", "repeat"]))
        if kind == "replace":
            parent[key] = draw(documents)
        elif kind == "remove":
            del parent[key]
        elif isinstance(parent, list):
            parent.insert(key, parent[key])
    return json.dumps(document).encode()


def _paths(part: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(part) if isinstance(part, dict) else range(len(part)) if isinstance(part, list) else ()
    for key in keys:
        yield part, key
        yield from _paths(part[key])


statuses = st.sampled_from(["200 OK"] * 7 + ["400 Bad", "404 No", "429 Many", "500 Oh", "503 Busy", "302 Found"])
headers = st.sampled_from(
    [""] * 4 + [f"{line}\r\n" for line in ("Retry-After: 1", "Content-Encoding: gzip", "\xff: \0")]
)
seeds = st.integers(0, 1 << 62)

sizes = st.sampled_from([1, 2, 2, 2, 0, -1, 32, 32, 3, 3, 1 << 62, -(1 << 63)])
shapes = st.just([1, 2]) | st.lists(sizes, max_size=5)
values = st.just([0.25, 0.75]) | st.lists(st.floats(width=32), max_size=5)
names = st.just([b"daisy", b"tulip"]) | st.lists(
    st.binary(max_size=8) | st.text(max_size=8).map(str.encode), max_size=5
)
dtypes = st.sampled_from([None, None, None, 0, 1, 4, 7, 10, 99, -1])
truths = st.just([False, True]) | st.lists(st.booleans(), max_size=5)


@st.composite
def changed_messages(draw: Any) -> tuple[bytes, bytes]:
    """The messages of metadata and of a prediction, with other fields here and there."""
    sides = draw(st.just([-1, SIZE_PX, SIZE_PX, 3]) | st.lists(sizes, max_size=5))
    info = pb.TensorInfo(dtype=draw(dtypes) or pb.DT_UINT8, tensor_shape=to_shape(*sides))
    signatures = pb.Signatures(signature_def={"images": pb.Signature(inputs={"images": info})})
    packed = draw(st.just(signatures.SerializeToString()) | st.binary(max_size=20))
    metadata = pb.ModelMetadataResponse(metadata={"signature_def": pb.ModelMetadataResponse.Any(value=packed)})
    outputs = {
        "probabilities": pb.Tensor(
            dtype=draw(dtypes) or pb.DT_FLOAT, tensor_shape=to_shape(*draw(shapes)), float_val=draw(values)
        ),
        "classes": pb.Tensor(
            dtype=draw(dtypes) or pb.DT_STRING, tensor_shape=to_shape(*draw(shapes)), string_val=draw(names)
        ),
    }
    if draw(st.booleans()):
        known, ones = [draw(st.booleans())], st.just([1]) | shapes
        fields = {
            "p_value": {"dtype": pb.DT_FLOAT, "tensor_shape": draw(ones), "float_val": [draw(st.floats(width=32))]},
            "is_known": {"dtype": pb.DT_BOOL, "tensor_shape": draw(ones), "bool_val": known},
            "prediction_set": {"dtype": pb.DT_BOOL, "tensor_shape": draw(shapes), "bool_val": draw(truths)},
        }
        for name, changed in fields.items():
            shape = to_shape(*changed.pop("tensor_shape"))
            changed["dtype"] = draw(dtypes) or changed["dtype"]
            outputs[name] = pb.Tensor(tensor_shape=shape, **changed)
    if draw(st.integers(0, 9)) == 0:
        del outputs[draw(st.sampled_from(sorted(outputs)))]
    version = draw(st.sampled_from([1, 0, -1, (1 << 63) - 1]))
    response = pb.PredictResponse(outputs=outputs, model_spec=pb.ModelSpec(version=pb.Version(value=version)))
    return metadata.SerializeToString(), response.SerializeToString()


# --- the tests: few by default, many where the slow ones run


def document_test(data: Any, http: RawHttp, photo: Path, seen: Any) -> None:
    http.closes = False
    http.metadata, http.outputs = GOOD_METADATA, GOOD_OUTPUTS
    content = data.draw(st.sampled_from([METADATA, OUTPUTS]).flatmap(changed_documents) | documents.map(_to_json))
    response = to_http(content, status=data.draw(statuses), headers=data.draw(headers))
    if data.draw(st.booleans()):
        http.metadata = response
    else:
        http.outputs = response
    check(photo, seen, "--rest", "--target", http.target)


def _to_json(document: Any) -> bytes:
    return json.dumps(document).encode()


def byte_test(seed: int, http: RawHttp, photo: Path, seen: Any) -> None:
    http.metadata, http.outputs = GOOD_METADATA, GOOD_OUTPUTS
    if seed % 2:
        _, body = GOOD_OUTPUTS.split(b"\r\n\r\n")
        http.closes, http.outputs = False, to_http(mutate(body, seed))
    else:
        http.closes, http.outputs = True, mutate(GOOD_OUTPUTS, seed)
    check(photo, seen, "--rest", "--target", http.target)


def message_test(data: Any, grpc: RawGrpc, photo: Path, seen: Any) -> None:
    if data.draw(st.booleans()):
        grpc.metadata, grpc.outputs = data.draw(changed_messages())
    else:
        metadata, outputs, seed = *good_messages(), data.draw(seeds)
        grpc.metadata, grpc.outputs = (
            (mutate(metadata, seed), outputs) if seed % 4 == 0 else (metadata, mutate(outputs, seed))
        )
    check(photo, seen, "--grpc", "--target", grpc.target)


@quick
@given(data=st.data())
def test_changed_document(data: Any, http: RawHttp, photo: Path, seen: Any) -> None:
    document_test(data, http, photo, seen)


@quick
@given(seed=seeds)
def test_mutated_http_response(seed: int, http: RawHttp, photo: Path, seen: Any) -> None:
    byte_test(seed, http, photo, seen)


@quick
@given(data=st.data())
def test_mutated_message(data: Any, grpc: RawGrpc, photo: Path, seen: Any) -> None:
    message_test(data, grpc, photo, seen)


@pytest.mark.slow
@long
@given(data=st.data())
def test_many_changed_documents(data: Any, http: RawHttp, photo: Path, seen: Any) -> None:
    document_test(data, http, photo, seen)


@pytest.mark.slow
@long
@given(seed=seeds)
def test_many_mutated_http_responses(seed: int, http: RawHttp, photo: Path, seen: Any) -> None:
    byte_test(seed, http, photo, seen)


@pytest.mark.slow
@settings(long, max_examples=2 * MANY)
@given(data=st.data())
def test_many_mutated_messages(data: Any, grpc: RawGrpc, photo: Path, seen: Any) -> None:
    message_test(data, grpc, photo, seen)
