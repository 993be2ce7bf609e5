"""The service from outside: how it starts, follows new versions, survives a server that goes, and checks a token."""

import socket
from pathlib import Path
from typing import Any

import pytest

from serving.web import __main__ as command_line
from serving.web.models import FileModel
from tests.client.fakes import DIE, FakeGrpc, FakeRest, free_port
from tests.serving.web.conftest import RED, PageProcess, open_page, push, start_page, wait_until

TOKEN = "a-long-secret"


def test_it_prints_its_url_and_the_model(page: PageProcess, model_path: Path) -> None:
    assert page.ready_line == f"ready: {page.url}  (flowers version 1, {model_path})"


def test_one_file_is_enough_and_a_token_is_not_logged(tmp_path: Path, model_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    arguments = ("--tflite", model_path, "--token-file", tmp_path / "token")
    with start_page(tmp_path / "page.log", *arguments) as page:
        for token, status in ((TOKEN, 200), ("other", 401)):
            response = page.classify(("a.jpg", RED), headers={"Authorization": f"Bearer {token}"})
            assert response.status_code == status
        assert page.stop() == 0
        assert TOKEN not in page.log()


def test_a_version_that_is_pushed_while_it_runs_takes_over(tmp_path: Path, model: bytes) -> None:
    banner = "Trained on drawn flowers"
    push(tmp_path, model, 1)
    with start_page(tmp_path / "page.log", "--models-dir", tmp_path, "--poll-s", 0.2) as page:
        assert page.get("/readyz").json()["version"] == "1"
        assert [banner in page.get(path).text for path in ("/", "/model")] == [False, False]
        push(tmp_path, model, 2, data="synthetic")
        wait_until(lambda: page.get("/readyz").json()["version"] == "2")
        assert page.classify(("a.jpg", RED)).json()["results"][0]["model_version"] == "2"
        assert [banner in page.get(path).text for path in ("/", "/model")] == [True, True]


@pytest.mark.parametrize(("option", "fake"), [("--rest", FakeRest), ("--grpc", FakeGrpc)])
def test_a_server_that_goes_is_reported_and_found_again(tmp_path: Path, option: str, fake: Any) -> None:
    port = free_port()
    arguments = (option, f"127.0.0.1:{port}", "--models-dir", tmp_path, "--poll-s", 0.2)
    with start_page(tmp_path / "page.log", *arguments) as page:
        for _ in range(2):
            gone = page.classify(("a.jpg", RED))
            assert (gone.status_code, gone.headers["Retry-After"]) == (503, "5")
            assert gone.json()["error"].startswith("The model does not answer at the moment.")
            assert page.get("/healthz").status_code == 200
            assert "The model does not answer at the moment." in page.post("/", files={"photo": RED}).text
            with fake(port) as server:
                wait_until(lambda: page.get("/readyz").status_code == 200)
                (result,) = page.classify(("a.jpg", RED)).json()["results"]
                assert (result["label"], result["model_version"]) == ("tulip", "1")
                server.script.append(DIE)
                wait_until(lambda: page.get("/readyz").status_code == 503)
        assert page.log().count("the model responds again") == 2
        assert "Traceback" not in page.log()


def test_a_token_opens_the_api_and_the_form(file_model: FileModel) -> None:
    with open_page(file_model, token=TOKEN) as page:
        files = [("photo", ("a.jpg", RED))]
        right, wrong = {"Authorization": f"Bearer {TOKEN}"}, {"Authorization": "Bearer other"}
        for headers in ({}, wrong):
            refused = page.post("/api/classify", data=RED, headers=headers)
            assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
            assert page.get("/metrics", headers=headers).status_code == 401
            assert page.post("/", files=files, headers=headers).status_code == 401
        assert page.post("/api/classify", data=RED, headers=right).status_code == 200
        assert page.get("/metrics", headers=right).status_code == 200
        assert 'type="password"' in page.get("/").text
        for token, status in ((TOKEN, 200), ("other", 401)):
            assert page.post("/", data={"token": token}, files=files).status_code == status
            assert page.post("/", files={"token": (None, token), "sample": (None, "daisy.jpg")}).status_code == status
        assert page.get("/openapi.json").json()["paths"]["/api/classify"]["post"]["security"] == [{"token": []}]
        for path in ("/healthz", "/readyz", "/model"):
            assert page.get(path).status_code == 200


@pytest.mark.parametrize(
    ("path", "header"),
    [
        ("/api/classify", ""),
        ("/api/classify", "Authorization: Bearer other\r\n"),
        ("/", "Authorization: Bearer other\r\n"),
    ],
)
def test_a_wrong_token_is_refused_before_the_body_comes(file_model: FileModel, path: str, header: str) -> None:
    with open_page(file_model, token=TOKEN) as page, socket.create_connection(("127.0.0.1", page.port), 10) as caller:
        caller.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\n{header}Content-Length: 1000\r\n\r\n".encode())
        assert caller.recv(1000).startswith(b"HTTP/1.1 401")


def test_no_model_is_an_error_that_names_make_train(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["--models-dir", str(tmp_path)]) == 1
    message = capsys.readouterr().err
    assert message.startswith(f"error: The web page needs a model, and {tmp_path}/tflite holds no version")
    assert "make train" in message


def test_a_taken_port_is_an_error(page: PageProcess, models_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["--models-dir", str(models_dir), "--port", str(page.port)]) == 1
    assert "Choose another --port" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--workers", "65"],
        ["--requests-per-client", "0"],
        ["--threshold", "2"],
        ["--rest", "nowhere"],
        ["--rest", "localhost:8501", "--tflite", "a.tflite"],
        ["--port", "many"],
        ["--max-at-work", "0"],
    ],
)
def test_a_wrong_command_ends_with_2_and_the_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command_line.main(arguments)
    assert ended.value.code == 2
    assert "usage: python -m serving.web" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--tflite", "nothing.tflite"], ["--token-file", "nothing"]])
def test_a_file_that_is_missing_is_an_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(arguments) == 1
    assert capsys.readouterr().err.startswith("error: ")
