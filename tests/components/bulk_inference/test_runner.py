"""`python -m pipelines infer`: one row for each image, whichever engine runs it and however often it is stopped."""

import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pyarrow import parquet

from components.bulk_inference import runner as infer
from components.bulk_inference.images import ListedImage
from components.bulk_inference.output import PredictionFolder
from components.errors import BeamError
from pipelines import __main__ as command_line

ROOT = Path(__file__).resolve().parents[3]
NUM_IMAGES, NUM_LARGE = 11, 8
TIMEOUT_S = 120
IN_MEMORY = ("--", "--direct_running_mode=in_memory", "--direct_num_workers=1")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Eleven images, one of which is none."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(NUM_IMAGES):
        Image.new("RGB", (20, 20), ("red", "lime", "blue")[number % 3]).save(folder / f"{number:02d}.png")
    (folder / "05.png").write_bytes(b"no image")
    return folder


@pytest.fixture
def run(images: Path, tmp_path: Path, colour_models: Path, own_logging: None) -> Callable[..., int]:
    """Return the function that runs the command, with an output for each engine."""

    def run(*arguments: str, output: str = "out") -> int:
        given = ["--input", str(images), "--output", str(tmp_path / output), "--models-dir", str(colour_models)]
        return command_line.main(["infer", *given, *arguments])

    return run


def rows(output: Path) -> list[dict[str, Any]]:
    return parquet.read_table(output).to_pylist()


def test_the_command_writes_one_row_for_each_image(run, images, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)  # Few images do without it.
    assert run() == 0
    out, err = capsys.readouterr()
    assert out == f"Predictions: {tmp_path}/out ({NUM_IMAGES} images, 1 errors, 10 without a p-value)\n"
    assert f"infer: {NUM_IMAGES} images in {images}, {NUM_IMAGES} to do\n" in err
    found = rows(tmp_path / "out")
    assert [row["image"] for row in found] == [f"{images}/{number:02d}.png" for number in range(NUM_IMAGES)]
    labels = [("red", "green", "blue")[number % 3] for number in range(NUM_IMAGES)]
    labels[5] = None
    assert [row["label"] for row in found] == labels
    assert (tmp_path / "out" / "_SUCCESS").exists()


def test_a_second_time_nothing_is_done(run, tmp_path, capsys):
    run("--part-size", "4", "--workers", "1")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("part-*")}
    assert len(before) == 3
    assert run("--part-size", "4") == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert f"{NUM_IMAGES} images in" in (err := capsys.readouterr().err)
    assert ", 0 to do\n" in err


def test_processes_and_a_beam_pipeline_write_the_same_rows(run, tmp_path):
    assert run("--part-size", "4", "--workers", "1", output="one") == 0
    assert run("--part-size", "4", "--workers", "2", output="two") == 0
    assert run("--part-size", "4", *IN_MEMORY, output="beam") == 0
    assert rows(tmp_path / "one") == rows(tmp_path / "two") == rows(tmp_path / "beam")
    names = [sorted(path.name for path in (tmp_path / output).iterdir()) for output in ("one", "two", "beam")]
    assert names[0] == names[1] == names[2]


# Killed.


def kill_and_start_again(tmp_path: Path, models: Path, *arguments: str) -> None:
    """Kill the command as soon as there is a part, start it again, and look at the rows."""
    images, output = tmp_path / "large", tmp_path / "out"
    images.mkdir()
    Image.new("RGB", (6000, 4000), "red").save(images / "00.png")  # takes long, so that the kill is in the middle
    for number in range(1, NUM_LARGE):
        (images / f"{number:02d}.png").hardlink_to(images / "00.png")
    command = [sys.executable, "-m", "pipelines", "infer", "--input", str(images), "--output", str(output)]
    command += ["--models-dir", str(models), "--part-size", "1", *arguments]
    with (tmp_path / "log.txt").open("w+") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        try:
            end = time.monotonic() + TIMEOUT_S
            while not list(output.glob("part-*")) and process.poll() is None and time.monotonic() < end:
                time.sleep(0.002)
        finally:
            process.kill()
            process.wait()
        done = {path: path.stat().st_mtime_ns for path in output.glob("part-*")}
        log.seek(0)
        assert 0 < len(done) < NUM_LARGE, log.read()
    assert not (output / "_SUCCESS").exists()
    again = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert f", {NUM_LARGE} to do\n" not in again.stderr
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert sorted(row["image"] for row in rows(output)) == [f"{images}/{number:02d}.png" for number in range(NUM_LARGE)]
    assert {row["label"] for row in rows(output)} == {"red"}
    assert (output / "_SUCCESS").exists()


def test_killed_and_started_again_every_image_has_one_row(tmp_path, colour_models):
    kill_and_start_again(tmp_path, colour_models, "--workers", "2")


@pytest.mark.slow
def test_a_killed_beam_pipeline_started_again_leaves_one_row_for_every_image(tmp_path, colour_models):
    kill_and_start_again(tmp_path, colour_models, "--engine", "beam", "--workers", "2")


@pytest.mark.slow
def test_killed_at_random_moments_and_started_again_the_rows_are_those_of_an_undisturbed_run(
    images, tmp_path, colour_models, run
):
    assert run("--part-size", "2", output="undisturbed") == 0
    moments = random.Random(5)
    command = [sys.executable, "-m", "pipelines", "infer", "--input", str(images), "--models-dir", str(colour_models)]
    command += ["--part-size", "2", "--workers", "1"]
    started = time.monotonic()
    subprocess.run([*command, "--output", str(tmp_path / "timed")], cwd=ROOT, check=True, capture_output=True)
    seconds = time.monotonic() - started
    for number in range(10):
        output = tmp_path / f"killed {number}"
        for _ in range(2):
            process = subprocess.Popen(
                [*command, "--output", str(output)], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            try:
                process.wait(seconds * moments.uniform(0.5, 1))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        assert run("--part-size", "2", output=output.name) == 0
        assert rows(output) == rows(tmp_path / "undisturbed")


# The disk is full.


def limit_files(num_bytes: int) -> int:
    """Let no file of this process grow beyond a size, and return the limit before."""
    before, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, most))
    return before


@pytest.mark.parametrize("num_bytes", [100, 2000])
def test_where_nothing_more_can_be_written_the_same_command_goes_on_later(run, tmp_path, capsys, num_bytes):
    before = limit_files(num_bytes)  # the list of images does not fit, or no part does
    try:
        assert run("--workers", "1") == 1
    finally:
        limit_files(before)
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith(f"error: {tmp_path}/out")
    assert "File too large. The size of files is limited: raise the limit, ulimit -f. What is done is kept" in last
    assert run("--workers", "1") == 0
    assert len(rows(tmp_path / "out")) == NUM_IMAGES


@pytest.mark.parametrize("engine", [(), IN_MEMORY])
def test_on_a_full_disk_the_error_names_the_folder_and_the_same_command_goes_on_later(
    run, tmp_path, capsys, small_disk, engine
):
    small_disk("out", size="16k")  # of pages of 4 KB: the lock is none, the list and the manifest are one each
    arguments = ("--workers", "1", "--part-size", "3", *engine)
    assert run(*arguments) == 1
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith("error: ")
    assert f"{tmp_path}/out/part-" in last
    assert "No space left on device. Free some space in " in last
    subprocess.run(["mount", "-o", "remount,size=1m", str(tmp_path / "out")], check=True)
    assert run(*arguments) == 0
    assert len(rows(tmp_path / "out")) == NUM_IMAGES


# The photos are others.


def test_the_rows_of_changed_photos_are_never_kept(run, images, tmp_path, capsys):
    assert run("--part-size", "4", "--workers", "1") == 0
    Image.new("RGB", (20, 20), "blue").save(images / "00.png")
    Image.new("RGB", (20, 20), "blue").save(images / "05.png")
    assert run("--part-size", "4", "--workers", "1") == 1
    assert f"(2 changed: {images}/00.png, {images}/05.png). Choose another --output" in capsys.readouterr().err
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("part-*")}
    assert run("--part-size", "4", "--workers", "1", "--overwrite") == 0
    assert f"infer: {NUM_IMAGES} images in {images}, 8 to do\n" in capsys.readouterr().err
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("part-*")}
    assert [name for name in sorted(after) if after[name] == before[name]] == ["part-00002-of-00003.parquet"]
    found = rows(tmp_path / "out")
    assert [found[0]["label"], found[5]["label"]] == ["blue", "blue"]
    assert [row["error"] for row in found] == [None] * NUM_IMAGES


def test_every_image_file_has_a_row_and_all_else_a_line(run, images, tmp_path, capsys):
    (images / "notes.txt").touch()
    (images / "z.heic").write_bytes(b"\0\0\0\x18ftypheic")
    (images / "more").symlink_to(tmp_path / "gone")
    assert run("--workers", "1") == 0
    out, err = capsys.readouterr()
    assert f"({NUM_IMAGES + 2} images, 3 errors, " in out
    assert "infer: 1 other files left out: .txt 1\n" in err
    errors = {Path(row["image"]).name for row in rows(tmp_path / "out") if row["error"]}
    assert errors == {"05.png", "z.heic", "more"}


def test_many_images_take_beam_where_it_is_installed(run, capsys, monkeypatch):
    def refuse(*_: Any, **__: Any) -> None:
        raise BeamError("This is Beam.")

    monkeypatch.setattr(infer, "BEAM_FROM", NUM_IMAGES)
    monkeypatch.setattr("components.bulk_inference.beam_pipeline.run", refuse)
    assert run() == 1
    assert "This is Beam." in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    assert run() == 0


# What is wrong.


def test_beam_that_is_required_and_not_installed_is_named(run, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    assert run("--engine", "beam") == 1
    err = capsys.readouterr().err
    assert err.endswith("error: --engine beam needs apache-beam, which is not installed. Run: make scale\n")
    assert run() == 0


def test_a_part_that_fails_ends_the_pipeline_with_its_reason(run, capsys, monkeypatch):
    monkeypatch.setattr(PredictionFolder, "images", lambda *_: [ListedImage("s3fs://nowhere")])
    for arguments in ((), IN_MEMORY):
        assert run(*arguments) == 1
        *_, last = capsys.readouterr().err.splitlines()
        assert last.startswith("error: ")
        assert "No store is known for s3fs:" in last


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--input", "nowhere"], 1, "Nothing is there that matches nowhere."),
        (["--model", "nowhere"], 1, "Nothing is there: nowhere. LiteRT files in "),
        (["--model", __file__], 1, "A LiteRT file must be a model with metadata"),
        (["--model", "memory://bucket/none.tflite"], 1, "--model must be a file that is there."),
        (["--input", "memory://nowhere/*.jpg"], 1, "Nothing is there that matches memory://nowhere/*.jpg."),
        (
            ["--output", f"{__file__}/out"],
            1,
            "Not a directory. A file is where a folder must be: move it away, or choose another folder.",
        ),
        (["--output", __file__], 1, "Not a directory. A file is where a folder must be"),
        (["--output", str(ROOT)], 1, "The output must be a new folder, or one with predictions."),
        (["--part-size", "0"], 2, "--part-size must be at least 1. Received: 0"),
        (["--workers", "-1"], 2, "--workers must be at least 1, or 0 for one a core. Received: -1"),
        (["--engine", "local", "--", "--runner=X"], 2, "Beam's options need --engine beam. Received: --runner=X"),
    ],
)
def test_an_error_is_one_line(run, capsys, arguments, status, message):
    assert run(*arguments) == status
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith("error: ")
    assert message in last


def test_an_output_of_other_images_is_kept_without_overwrite(run, images, tmp_path, capsys):
    assert run() == 0
    (images / "05.png").unlink()
    assert run() == 1
    assert "was begun with another list of images (1 gone)." in capsys.readouterr().err
    assert len(rows(tmp_path / "out")) == NUM_IMAGES
    assert run("--overwrite") == 0
    assert len(rows(tmp_path / "out")) == NUM_IMAGES - 1
