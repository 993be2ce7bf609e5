"""The command in odd surroundings: streams that are closed or full, names and folders that cannot be read or shown."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from client.classifier_client import command
from client.classifier_client.command import OK, SOME_UNREADABLE, UNUSABLE, WRONG_USE
from client.classifier_client.printing import to_text
from tests.client.fakes import PHOTO, FakeRest

PREDICT = Path(command.__file__).parents[1] / "predict.py"


def shell(redirections: str, *words: object, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run the command in a shell, with redirections."""
    line = f"{shlex.join([sys.executable, str(PREDICT), *map(str, words)])} {redirections}"
    environment = {name: text for name, text in os.environ.items() if "CA_BUNDLE" not in name} | environment
    return subprocess.run(line, shell=True, capture_output=True, text=True, timeout=60, check=False, env=environment)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    PHOTO.save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def mortal() -> Iterator[None]:
    """Be a user to whom permissions apply."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_full_disk_is_one_line(fake_rest: FakeRest, photo: Path, options: list[str]) -> None:
    done = shell(">/dev/full", "--target", fake_rest.target, *options, photo)
    assert done.returncode == UNUSABLE
    assert done.stderr == "predict.py: the results cannot be written (No space left on device)\n"
    assert shell(">/dev/full 2>/dev/full", "--target", fake_rest.target, photo).returncode == UNUSABLE


def test_closed_streams_end_with_a_status(fake_rest: FakeRest, photo: Path) -> None:
    done = shell(">&-", "--target", fake_rest.target, photo)
    assert done.returncode == WRONG_USE
    assert done.stderr.startswith("predict.py: Standard output must be open.")
    done = shell("<&-", "--target", fake_rest.target, "-")
    assert done.returncode == WRONG_USE
    assert done.stderr.startswith("predict.py: Standard input must be open")
    done = shell("2>&-", "--target", fake_rest.target, "--json", *[photo] * 20)
    assert done.returncode == OK
    assert len(done.stdout.splitlines()) == 20
    done = shell("2>&-", "--target", "nonsense")
    assert (done.returncode, done.stdout) == (WRONG_USE, "")


def test_folder_that_is_gone_does_not_matter(fake_rest: FakeRest, tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    line = f"cd {tmp_path}/gone && rmdir {tmp_path}/gone && {sys.executable} {PREDICT} --target {fake_rest.target}"
    done = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (OK, "")


@pytest.mark.parametrize("name", ["n" * 300, "n" * 300 + ".jpg", "a/" * 3000 + "b.jpg", "nul\0nul"])
def test_name_that_no_file_can_have_is_an_unreadable_image(
    name: str, fake_rest: FakeRest, capsys: pytest.CaptureFixture[str]
) -> None:
    status = command.main(["--target", fake_rest.target, "--json", "--", name], samples_dir=Path())
    captured = capsys.readouterr()
    assert (status, captured.err) == (SOME_UNREADABLE, "")
    assert json.loads(captured.out)["image"] == name


def test_pattern_that_no_file_can_match_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["n" * 300 + "*"], samples_dir=Path()) == WRONG_USE
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_folder_that_cannot_be_read_is_an_error_at_its_position(
    fake_rest: FakeRest, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str], mortal: None
) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as made:  # pytest's own are for their owner alone.
        folder = Path(made)
        for name in ("locked", "open", "searchless"):
            (folder / name).mkdir()
            PHOTO.save(folder / name / "photo.png")
        (folder / "locked").chmod(0)
        (folder / "searchless").chmod(0o400)
        try:
            status = command.main(["--target", fake_rest.target, "--json", str(folder)], samples_dir=Path())
        finally:
            for name in ("locked", "searchless"):
                (folder / name).chmod(0o700)
    found = {
        Path(line["image"]).relative_to(folder): line for line in map(json.loads, capsys.readouterr().out.splitlines())
    }
    assert status == SOME_UNREADABLE
    assert list(map(str, found)) == ["locked", "open/photo.png", "searchless/photo.png"]
    errors = [line.get("error") for line in found.values()]
    assert errors[1] is None
    assert "Permission denied" in errors[0]
    assert "Permission denied" in errors[2]


def test_pipes_and_devices_of_a_folder_are_left_out(tmp_path: Path, photo: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    (tmp_path / "broken.jpg").symlink_to("nowhere")
    assert list(command.expand(str(tmp_path))) == [str(tmp_path / "broken.jpg"), str(photo)]


def test_table_shows_control_characters_and_marks_of_direction_as_escapes(
    fake_rest: FakeRest, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = tmp_path / "\x1b\u202egpj.png"
    PHOTO.save(evil)
    monkeypatch.setattr("tests.client.fakes.CLASS_NAMES", ("daisy\r\n", "\u2066tulip\x07"))
    command.main(["--target", fake_rest.target, str(evil), f"{evil}.missing"], samples_dir=Path())
    out = capsys.readouterr().out
    assert r"\x1b\u202egpj.png" in out
    assert r"\u2066tulip\x07" in out
    assert all(line.isprintable() for line in out.splitlines())
    assert len(out.splitlines()) == 3


def test_printable_names_are_shown_as_they_are() -> None:
    assert to_text("Gänseblümchen ひまわり 🌻.jpg") == "Gänseblümchen ひまわり 🌻.jpg"
    assert to_text("a\nb\udcff") == r"a\nb\udcff"


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_environment_without_certificates_is_one_line(variable: str, photo: Path) -> None:
    for path in ("/nope", str(photo)):
        done = shell("", "--target", "server.invalid:1", "--tls", photo, **{variable: path})
        assert done.returncode == WRONG_USE
        assert done.stderr.startswith(f"predict.py: {variable} must be a file of PEM certificates.")
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("seconds", ["inf", "nan", "1e400", "-1", "0", "1e300"])
def test_time_without_sense_is_one_line(seconds: str, capsys: pytest.CaptureFixture[str], photo: Path) -> None:
    assert command.main([f"--timeout={seconds}", str(photo)], samples_dir=Path()) == WRONG_USE
    [line] = capsys.readouterr().err.splitlines()
    assert "timeout_s must be above 0 and at most a day" in line


@pytest.mark.parametrize("number", ["9" * 30, "9" * 6000])
def test_number_of_classes_may_be_any(number: str, fake_rest: FakeRest, photo: Path) -> None:
    done = shell("", "--target", fake_rest.target, f"--top-k={number}", photo)
    assert (done.returncode, "Traceback" in done.stderr) == (OK if len(number) < 4300 else WRONG_USE, False)
