"""The command: what it prints, which images its arguments mean, and one line and an exit status for any failure."""

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from client.classifier_client import Client, command
from client.classifier_client.command import INTERRUPTED, NO_RESPONSE, OK, SOME_UNREADABLE, UNUSABLE, WRONG_USE
from components.data import drawn_flowers
from tests.client.conftest import VERSION, RealServer
from tests.client.fakes import DIE, HANG, FakeRest, free_port
from tests.client.fakes import OK as RESPONSE
from tests.signing_keys import write_key

ROOT = Path(__file__).resolve().parents[2]
PREDICT = ROOT / "client" / "predict.py"
SAMPLES = ROOT / "client" / "samples"

KEYS = [
    "image", "label", "probability", "probabilities", "model_version", "latency_ms", "p_value", "is_known",
    "prediction_set",
]  # fmt: skip

Run = Callable[..., tuple[int, list[str], list[str]]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command in this process; return its exit status and the lines of both streams."""

    def run(*words: object) -> tuple[int, list[str], list[str]]:
        status = command.main([str(word) for word in words], samples_dir=SAMPLES)
        captured = capsys.readouterr()
        return status, captured.out.splitlines(), captured.err.splitlines()

    return run


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    Image.fromarray(drawn_flowers.draw("roses", seed=1, size_px=64)).save(path)
    return path


def predict(*words: object, **options: Any) -> "subprocess.CompletedProcess[str]":
    """Run the command in a process of its own."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.run(
        [sys.executable, str(PREDICT), *map(str, words)], text=True, timeout=60, check=False, **options
    )


# --- what it prints


@pytest.mark.parametrize("protocol", ["--rest", "--grpc"])
def test_samples_are_classified_where_no_image_is_named(protocol: str, server: RealServer, tmp_path: Path) -> None:
    target = server.rest_target if protocol == "--rest" else server.grpc_target
    done = predict(protocol, "--target", target, "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (OK, "")
    documents = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(document["image"]).name for document in documents] == [
        "daisy.jpg", "dandelion.jpg", "rose.jpg", "sunflower.jpg", "tulip.jpg"
    ]  # fmt: skip
    for document in documents:
        assert list(document) == KEYS
        assert set(document["probabilities"]) == set(drawn_flowers.CLASS_NAMES)
        assert document["probabilities"][document["label"]] == document["probability"]
        assert sum(document["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert document["model_version"] == str(VERSION)


def test_both_protocols_print_the_same(server: RealServer, run: Run) -> None:
    _, rest, _ = run("--rest", "--target", server.rest_target)
    _, grpc, _ = run("--grpc", "--target", server.grpc_target)
    assert rest[:-1] == grpc[:-1]


def test_table_has_a_row_for_each_image_and_a_last_line(fake_rest: FakeRest, run: Run, photo: Path) -> None:
    missing = photo.with_name("no.jpg")
    status, out, err = run("--target", fake_rest.target, photo, missing, photo)
    assert (status, err) == (SOME_UNREADABLE, [])
    assert out[0] == out[2] == f"{photo}  tulip  75.0%  daisy  25.0%"
    assert out[1] == f"{missing}     cannot be read (No such file or directory); check the path"
    assert re.fullmatch(r"model version 1, \d+\.\d ms \(median\)", out[3])
    assert run("--target", fake_rest.target, "--top-k", 1, photo)[1][0] == f"{photo}  tulip  75.0%"


def test_json_has_a_line_for_each_image_in_their_order(fake_rest: FakeRest, run: Run, photo: Path) -> None:
    status, out, _ = run("--target", fake_rest.target, "--json", "--top-k", 1, photo.with_name("no.jpg"), photo)
    assert status == SOME_UNREADABLE
    error, prediction = map(json.loads, out)
    assert error == {
        "image": str(photo.with_name("no.jpg")),
        "error": "cannot be read (No such file or directory); check the path",
    }
    assert prediction.pop("latency_ms") > 0
    assert prediction == {
        "image": str(photo),
        "label": "tulip",
        "probability": 0.75,
        "probabilities": {"tulip": 0.75},
        "model_version": "1",
        "p_value": None,
        "is_known": None,
        "prediction_set": None,
    }


def test_name_of_a_file_need_not_be_text(fake_rest: FakeRest, photo: Path) -> None:
    odd = photo.rename(os.fsdecode(os.fsencode(photo.parent) + b"/\xff.jpg"))
    for options in ([], ["--json"]):
        done = predict("--target", fake_rest.target, *options, odd)
        assert (done.returncode, done.stderr) == (OK, "")
        assert "udcff" in done.stdout


# --- which images its arguments mean


def test_folder_means_the_images_in_it_and_below(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "notes.txt", "film.mp4", "deep/er/c.webp", "._a.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    expected = [str(tmp_path / name) for name in ("a.jpg", "b.PNG", "deep/er/c.webp")]
    assert list(command.expand(str(tmp_path))) == expected
    assert list(command.expand(f"{tmp_path}/[ab].*")) == expected[:2]
    assert list(command.expand(f"{tmp_path}/**/*.webp")) == expected[2:]
    assert list(command.expand(f"{tmp_path}/dee*")) == expected[2:]


@pytest.mark.parametrize("suffix", ["tif", "TIFF", "avif", "heic", "jxl", "svg", "dng", "jp2", "pgm", "jfif"])
def test_no_image_of_a_folder_is_passed_over_for_its_format(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"photo.{suffix}").touch()
    assert list(command.expand(str(tmp_path))) == [str(tmp_path / f"photo.{suffix}")]


def test_file_whose_name_looks_like_a_pattern_is_itself(tmp_path: Path) -> None:
    (tmp_path / "photo[1].jpg").touch()
    assert list(command.expand(f"{tmp_path}/photo[1].jpg")) == [f"{tmp_path}/photo[1].jpg"]


def test_dash_means_standard_input(fake_rest: FakeRest, photo: Path) -> None:
    with photo.open("rb") as file:
        done = predict("--target", fake_rest.target, "--json", "-", stdin=file)
    assert json.loads(done.stdout)["label"] == "tulip"
    assert json.loads(done.stdout)["image"] == "<stdin>"


def test_bar_is_drawn_for_many_images_on_a_terminal(fake_rest: FakeRest, photo: Path) -> None:
    ours, theirs = pty.openpty()
    done = predict("--target", fake_rest.target, "--json", *[photo] * 20, stderr=theirs)
    os.close(theirs)
    drawn = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert len(done.stdout.splitlines()) == 20
    assert "[###############               ] 10/20" in drawn
    assert drawn.endswith("\r\x1b[K")
    assert predict("--target", fake_rest.target, "--json", *[photo] * 20).stderr == ""


# --- what fails


def complain(run: Run, *words: object) -> tuple[int, str]:
    """Return the exit status and the one line."""
    status, out, err = run(*words)
    assert out == []
    [line] = err
    assert line.startswith("predict.py: ")
    return status, line


@pytest.mark.parametrize("protocol", ["--rest", "--grpc"])
@pytest.mark.parametrize(
    ("port", "words", "status", "messages"),
    [
        ("free", [], NO_RESPONSE, ["No server is available at {target}", "Start it, or check the address"]),
        ("other", [], NO_RESPONSE, ["port 8500 for gRPC and 8501 for REST"]),
        ("right", ["--model", "rosen"], UNUSABLE, ["serves no model 'rosen'"]),
    ],
    ids=["no server", "wrong port", "unknown model"],
)
def test_failed_call_is_one_line(
    protocol: str,
    port: str,
    words: list[str],
    status: int,
    messages: list[str],
    run: Run,
    waits: list[float],
    server: RealServer,
) -> None:
    targets = [server.rest_target, server.grpc_target]
    if protocol == "--grpc":
        targets.reverse()
    target = {"right": targets[0], "other": targets[1], "free": f"127.0.0.1:{free_port()}"}[port]
    received, line = complain(run, protocol, "--target", target, *words)
    assert received == status
    for message in messages:
        assert message.format(target=target) in line


def test_no_server_is_one_line_in_a_process_too() -> None:
    """gRPC's library must not log beside it."""
    done = predict("--grpc", "--target", f"127.0.0.1:{free_port()}")
    assert done.returncode == NO_RESPONSE
    assert len(done.stderr.splitlines()) == 1


def test_slow_server_is_one_line(fake_rest: FakeRest, run: Run) -> None:
    fake_rest.script.extend([RESPONSE, HANG])
    status, line = complain(run, "--target", fake_rest.target, "--timeout", 0.2)
    assert status == NO_RESPONSE
    assert "must answer within 0.2 s" in line


def test_server_that_dies_leaves_the_predictions_before(
    fake_rest: FakeRest, run: Run, waits: list[float], photo: Path
) -> None:
    fake_rest.script.extend([RESPONSE, RESPONSE, DIE])
    status, out, err = run("--target", fake_rest.target, "--json", *[photo] * 20)
    assert status == NO_RESPONSE
    assert len(out) == 8
    assert len(err) == 1
    assert "No server is available" in err[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--target", "http://localhost:8501"], "A server's address is HOST:PORT"),
        (["--timeout", "0"], "timeout_s must be above 0"),
        (["--ca-file", "missing.pem"], "There is none at missing.pem"),
        (["nothing*.jpg"], "Nothing is there that matches nothing*.jpg"),
        (["--tflite", "a.tflite", "--target", "localhost:8501"], "--tflite is without one"),
        (["--tflite", "a.tflite", "--tls"], "--tflite is without one"),
        (["--verify-key", "signing.pub"], "--verify-key is for --tflite"),
        (["--tflite", "a.tflite", "--verify-key", "missing.pub"], "missing.pub: No such file"),
        (["."], "TIFF, AVIF, JPEG 2000 or PPM). There are none in ."),
    ],
)
def test_wrong_use_is_one_line(
    words: list[str], message: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, line = complain(run, *words)
    assert status == WRONG_USE
    assert message in line


@pytest.mark.parametrize(
    "words", [["--top-k", "0"], ["--top-k", "x"], ["--rest", "--grpc"], ["--unknown"], ["--tflite"]]
)
def test_wrong_options_end_with_the_same_status(words: list[str], run: Run, capsys: Any) -> None:
    with pytest.raises(SystemExit) as end:
        run(*words)
    assert end.value.code == WRONG_USE
    assert "Traceback" not in capsys.readouterr().err


def test_unfit_model_file_is_one_line(run: Run, tmp_path: Path) -> None:
    """`test_litert_metadata.py` has the other unfit files."""
    (tmp_path / "model.tflite").write_bytes(b"plain text")
    status, line = complain(run, "--tflite", tmp_path / "model.tflite")
    assert status == UNUSABLE
    assert "a file that begins with b'plain te'" in line


def test_a_model_file_that_does_not_verify_is_one_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "model.tflite").write_bytes(b"plain text")
    key = write_key(tmp_path).public
    status, line = complain(run, "--tflite", tmp_path / "1" / "model.tflite", "--verify-key", key)
    assert status == UNUSABLE
    assert f"{tmp_path / '1'} has no model.sig" in line


@pytest.mark.parametrize(
    ("library", "words"), [("grpc", ["--grpc"]), ("ai_edge_litert.interpreter", ["--tflite", "a.tflite"])]
)
def test_library_that_is_not_installed_is_one_line(
    library: str, words: list[str], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = words[0].replace("--", "").replace("tflite", "litert")
    monkeypatch.delitem(sys.modules, f"client.classifier_client.transports.{module}", raising=False)
    monkeypatch.setitem(sys.modules, library, None)
    status, line = complain(run, *words)
    assert status == UNUSABLE
    assert f"needs the library {library}" in line
    assert f"pip install 'classifier-client[{module}]'" in line


def test_missing_pillow_is_one_line() -> None:
    done = subprocess.run([sys.executable, "-S", str(PREDICT)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (UNUSABLE, "")
    assert done.stderr == f"predict.py: the library PIL is not installed. Run: pip install {PREDICT.parent}\n"


def test_interruption_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "classify", interrupt)
    assert complain(run) == (INTERRUPTED, "predict.py: interrupted")


def test_reader_that_closes_the_pipe_is_no_failure(fake_rest: FakeRest, photo: Path) -> None:
    words = [sys.executable, str(PREDICT), "--target", fake_rest.target, "--json", *[str(photo)] * 40]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == OK


def test_token_comes_from_the_environment(fake_rest: FakeRest, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLASSIFIER_TOKEN", "s3cret")
    run("--target", fake_rest.target)
    assert set(fake_rest.tokens) == {"Bearer s3cret"}


def test_help_lists_the_exit_statuses(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("--help")
    shown = capsys.readouterr().out
    for status in (OK, SOME_UNREADABLE, WRONG_USE, NO_RESPONSE, UNUSABLE, INTERRUPTED):
        assert re.search(rf"^  {status} ", shown, re.MULTILINE)
