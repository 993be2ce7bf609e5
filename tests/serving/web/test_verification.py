"""With a verify key the page takes signed LiteRT files alone; a version that is not leaves the one before in use."""

from pathlib import Path

import pytest

from client.classifier_client import ModelFileError, SignatureError
from client.classifier_client.signing import read_verify_key
from export.signing import read_signer
from serving.web import __main__ as command_line
from serving.web.errors import StartError
from serving.web.models import FileModel, PushedModel
from tests.serving.web.conftest import push
from tests.signing_keys import Pair, write_key


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return write_key(tmp_path)


def push_signed(models_dir: Path, model: bytes, version: int, pair: Pair) -> Path:
    push(models_dir, model, version)
    folder = models_dir / "tflite" / str(version)
    read_signer(pair.private).sign(folder, f"tflite/{version}")
    return folder / "flowers_int8.tflite"


def change(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_version_that_does_not_verify_leaves_the_one_before(
    tmp_path: Path, model: bytes, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    push_signed(tmp_path, model, 1, pair)
    pushed = PushedModel(tmp_path, "flowers", verify_key=read_verify_key(pair.public))
    assert pushed.info.spec["backbone"] == "tiny"
    push(tmp_path, model, 2)
    for _ in range(3):
        pushed.refresh()
    assert pushed.info.version == "1"
    assert caplog.text.count("version 1 goes on: A version must be as it was signed") == 1
    assert "2 has no model.sig" in caplog.text
    read_signer(pair.private).sign(tmp_path / "tflite" / "2", "tflite/2")
    pushed.refresh()
    assert pushed.info.version == "2"


def test_what_visitors_download_is_verified_too(tmp_path: Path, model: bytes, pair: Pair) -> None:
    path = push_signed(tmp_path, model, 1, pair)
    file_model = FileModel(path, verify_key=read_verify_key(pair.public))
    info, metadata, content = file_model.read_file()
    assert (info.version, metadata.class_names) == ("1", info.class_names)
    assert content == path.read_bytes()
    change(path)
    with pytest.raises(SignatureError):
        file_model.read_file()


@pytest.mark.parametrize("file", ["flowers_int8.tflite", "model_spec.json", "model.sig"])
def test_a_changed_byte_is_refused(tmp_path: Path, model: bytes, pair: Pair, file: str) -> None:
    path = push_signed(tmp_path, model, 1, pair)
    key = read_verify_key(pair.public)
    assert FileModel(path, verify_key=key).info.version == "1"
    change(path.with_name(file))
    with pytest.raises(SignatureError) as caught:
        FileModel(path, verify_key=key)
    assert isinstance(caught.value, ModelFileError)
    with pytest.raises(StartError, match="must be as it was signed"):
        PushedModel(tmp_path, "flowers", verify_key=key)


def test_the_command_refuses_to_start_with_what_does_not_verify(
    tmp_path: Path, model: bytes, pair: Pair, capsys: pytest.CaptureFixture[str]
) -> None:
    push(tmp_path, model, 1)
    words = ["--models-dir", str(tmp_path), "--workers", "1", "--verify-key"]
    assert command_line.main([*words, str(pair.public)]) == 1
    assert "1 has no model.sig" in capsys.readouterr().err
    for more, reason in (([str(pair.private)], "must be public"), ([str(pair.public), "--rest", "x:1"], "for LiteRT")):
        with pytest.raises(SystemExit) as ended:
            command_line.main([*words, *more])
        assert ended.value.code == 2
        assert reason in capsys.readouterr().err
