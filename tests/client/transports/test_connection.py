"""Calls of a server, the same over both protocols: retries, deadlines, TLS and errors."""

import time
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from client.classifier_client import (
    AnswerError,
    Client,
    ConnectionOptions,
    DeadlineError,
    ModelNotFoundError,
    Prediction,
    RefusedError,
    UnavailableError,
)
from client.classifier_client.transports import answers, connection
from tests.client import fakes
from tests.client.fakes import (
    CLASS_NAMES,
    DIE,
    HANG,
    OK,
    PHOTO,
    FakeGrpc,
    FakeRest,
    FakeServer,
    free_port,
    open_transport,
)


def classify(server: FakeServer, images: Any = PHOTO, **options: Any) -> list[Any]:
    return fakes.classify(server.connect(**options), images)


# --- all is well


def test_prediction_has_label_probabilities_version_and_latency(fake: FakeServer) -> None:
    fake.version = 1234567890123
    [prediction] = classify(fake)
    assert prediction.label == "tulip"
    assert prediction.probabilities == {"tulip": 0.75, "daisy": 0.25}
    assert prediction.model_version == "1234567890123"
    assert 0 < prediction.latency_ms < 5000


def test_images_of_a_batch_go_in_one_call_after_one_query(fake: FakeServer) -> None:
    assert len(classify(fake, [PHOTO] * 16)) == 16
    assert len(fake.calls) == 3


def test_bearer_token_goes_with_every_call(fake: FakeServer) -> None:
    classify(fake, token="s3cret")
    assert fake.tokens == ["Bearer s3cret"] * 2
    classify(fake)
    assert fake.tokens[2:] == [None] * 2


def test_token_is_not_replaced_by_a_netrc(fake_rest: FakeRest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password mine")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setattr(connection, "_THIS_MACHINE", ())
    classify(fake_rest, token="s3cret")
    assert fake_rest.tokens == ["Bearer s3cret"] * 2


def test_no_proxy_of_the_environment_leads_to_this_machine(fake: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert len(classify(fake)) == 1


# --- TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(params=["REST", "gRPC"])
def encrypted(request: Any, authority: trustme.CA) -> Any:
    import ssl

    certificate = authority.issue_cert("127.0.0.1")
    if request.param == "REST":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        server: Any = FakeRest(ssl_context=context)
    else:
        chain = b"".join(pem.bytes() for pem in certificate.cert_chain_pems)
        server = FakeGrpc(credentials=grpc.ssl_server_credentials([(certificate.private_key_pem.bytes(), chain)]))
    with server:
        yield server


def test_server_with_a_certificate_of_the_ca_file_is_trusted(
    encrypted: Any, authority: trustme.CA, tmp_path: Path
) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    assert len(classify(encrypted, tls=True, ca_file=tmp_path / "ca.pem", token="s3cret")) == 1
    assert set(encrypted.tokens) == {"Bearer s3cret"}


def test_server_with_any_other_certificate_is_not_trusted(encrypted: Any, tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    for ca_file in (tmp_path / "other.pem", None):
        with pytest.raises(UnavailableError, match=r"(?i)certificate.verify.failed"):
            classify(encrypted, tls=True, ca_file=ca_file, token="s3cret", num_retries=0)
    assert encrypted.tokens == []


# --- trying again


def test_overloaded_server_is_called_again_and_each_wait_is_longer(fake: FakeServer, waits: list[float]) -> None:
    fake.script.extend([OK, "UNAVAILABLE", "UNAVAILABLE", "UNAVAILABLE"])
    [prediction] = classify(fake)
    assert prediction.label == "tulip"
    assert len(fake.calls) == 5
    assert 0.1 <= waits[0] <= 0.2 <= waits[1] <= 0.4 <= waits[2] <= 0.8


def test_server_that_stays_overloaded_is_given_up(fake: FakeServer, waits: list[float]) -> None:
    fake.script.extend(["UNAVAILABLE"] * 10)
    with pytest.raises(UnavailableError, match=f"No server is available at {fake.target}.*scripted UNAVAILABLE"):
        classify(fake, num_retries=2)
    assert len(fake.calls) == 3
    assert len(waits) == 2


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        ("INTERNAL", RefusedError, r"\(INTERNAL: scripted INTERNAL\)"),
        ("INVALID_ARGUMENT", RefusedError, r"\(INVALID_ARGUMENT: scripted INVALID_ARGUMENT\)"),
        ("UNAUTHENTICATED", RefusedError, r"\(scripted UNAUTHENTICATED\)\. Check the token"),
    ],
)
def test_nothing_else_is_tried_again(
    fake: FakeServer, waits: list[float], code: str, error: type[Exception], message: str
) -> None:
    fake.script.extend([OK, code])
    with pytest.raises(error, match=message):
        classify(fake, token="wrong")
    assert len(fake.calls) == 2
    assert waits == []


def test_waits_do_not_grow_for_ever(waits: list[float]) -> None:
    def call() -> None:
        raise UnavailableError("nobody there")

    with pytest.raises(UnavailableError):
        connection.retry(call, num_retries=12)
    assert len(waits) == 12
    assert max(waits) <= 5


@pytest.mark.parametrize("make", [FakeRest, FakeGrpc])
def test_server_that_comes_up_meanwhile_is_reached(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """gRPC itself would wait a second before it connects anew, longer than all our attempts."""
    port, started, sleep = free_port(), [], time.sleep

    def start_and_sleep(seconds: float) -> None:
        if not started:
            started.append(make(port).__enter__())
        sleep(seconds)

    monkeypatch.setattr(connection.time, "sleep", start_and_sleep)
    try:
        assert len(fakes.classify(open_transport(make.protocol, f"127.0.0.1:{port}"))) == 1
    finally:
        for server in started:
            server.__exit__()


# --- no response


@pytest.mark.parametrize("protocol", ["REST", "gRPC"])
def test_no_server_is_an_error_with_the_address_and_what_to_do(protocol: str, waits: list[float]) -> None:
    target = f"127.0.0.1:{free_port()}"
    with pytest.raises(UnavailableError, match=rf"No server is available at {target} \(.*refused.*\)\. Start it, or"):
        fakes.classify(open_transport(protocol, target))
    assert len(waits) == 3


def test_slow_server_is_given_up_in_time_and_not_tried_again(fake: FakeServer) -> None:
    fake.script.extend([OK, HANG])
    start_s = time.monotonic()
    with pytest.raises(DeadlineError, match=r"must answer within 0\.3 s, and did not\. Allow more time"):
        classify(fake, timeout_s=0.3)
    assert time.monotonic() - start_s < 3
    assert len(fake.calls) == 2


def test_server_that_dies_after_a_batch_is_an_error_and_the_first_predictions_stay(
    fake: FakeServer, waits: list[float]
) -> None:
    fake.script.extend([OK, OK, DIE])
    with Client(fake.connect(timeout_s=5), batch_size=2) as client:
        results = client.classify([PHOTO] * 6)
        assert [type(next(results)) for _ in range(2)] == [Prediction] * 2
        with pytest.raises(UnavailableError, match="No server is available"):
            next(results)
    assert len(waits) == 3


def test_server_of_the_other_protocol_is_an_error(fake: FakeServer, waits: list[float]) -> None:
    other = {"REST": "gRPC", "gRPC": "REST"}[fake.protocol]
    with pytest.raises(UnavailableError, match="8500 for gRPC and 8501 for REST") as failure:
        fakes.classify(open_transport(other, fake.target))
    assert str(failure.value).isprintable()


# --- another response


def test_unknown_model_is_an_error_with_its_name(fake: FakeServer) -> None:
    fake.script.append("NOT_FOUND")
    with pytest.raises(ModelNotFoundError, match=r"serves no model 'flowers' \(scripted NOT_FOUND\)\. Check the name"):
        classify(fake)


@pytest.mark.parametrize("shape", [None, [], [-1], [-1, 32, 16, 3], [-1, 32, 32, 1], [-1, -1, -1, 3]])
def test_model_that_takes_no_square_images_is_an_error(fake: FakeServer, shape: Any) -> None:
    fake.shape = shape
    with pytest.raises(AnswerError, match="The signature 'images' of a model must take square RGB images"):
        classify(fake)


def test_predictions_are_as_many_as_images() -> None:
    outputs = {"probabilities": [[1.0]], "classes": [list(CLASS_NAMES[:1])]}
    with pytest.raises(AnswerError, match="Received: 1 predictions for 2 images"):
        answers.to_answers(outputs, num_images=2, model_version="1", start_s=0)
    [result] = answers.to_answers(outputs, num_images=1, model_version="1", start_s=0)
    assert tuple(result.class_names) == CLASS_NAMES[:1]


# --- options


@pytest.mark.parametrize(
    "target", ["localhost", "http://localhost:8501", "localhost:99999", ":8501", "a b:1", "h:1/x", ""]
)
@pytest.mark.parametrize("protocol", ["REST", "gRPC"])
def test_target_is_host_and_port(protocol: str, target: str) -> None:
    with pytest.raises(ValueError, match=r"A server's address is HOST:PORT, such as localhost:8501\. Received: "):
        open_transport(protocol, target)


@pytest.mark.parametrize("target", ["localhost:8501", "127.0.0.1:1", "[::1]:8501", "my-host.example:65535"])
def test_target_of_any_host_is_taken(target: str) -> None:
    assert connection.check_target(target) == target


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout_s": 0}, r"timeout_s must be above 0 and at most a day\. Received: 0"),
        ({"timeout_s": float("nan")}, r"at most a day\. Received: nan"),
        ({"timeout_s": float("inf")}, r"at most a day\. Received: inf"),
        ({"ca_file": Path(__file__), "tls": True}, r"must be a file of PEM certificates\. .*test_connection\.py"),
        ({"ca_file": Path("n" * 300), "tls": True}, "File name too long"),
        ({"num_retries": -1}, r"num_retries must be at least 0\. Received: -1"),
        ({"ca_file": Path(__file__)}, "tls is off"),
        ({"ca_file": Path("missing.pem"), "tls": True}, "There is none at missing.pem"),
        ({"token": "line\nend"}, "must be printable ASCII"),
        ({"token": ""}, "must be printable ASCII"),
    ],
)
def test_wrong_option_is_an_error_of_the_caller(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ConnectionOptions(**options)


def test_token_is_not_shown() -> None:
    with pytest.raises(ValueError) as failure:  # noqa: PT011
        ConnectionOptions(token="s3cret\n")
    assert "s3cret" not in str(failure.value)
    assert "s3cret" not in repr(ConnectionOptions(token="s3cret"))
