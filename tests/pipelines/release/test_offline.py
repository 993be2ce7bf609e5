"""Releases without a server: both versions on photos of a folder, or on captured ones."""

import json
from pathlib import Path

import pytest

from components.artifacts.release import read_evidence, read_releases, releases_dir
from components.storage.files import sha256
from pipelines.__main__ import main
from tests.pipelines.release.versions import CRASHING, NAME, OTHER, SAME, write_version
from tests.serving.shared.capture.records import make_message, write_file

NUM_PHOTOS = 120


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for kind in (1, SAME, CRASHING, OTHER):
        write_version(folder / NAME / str(kind), kind)
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(NUM_PHOTOS):
        (folder / f"{number}.jpg").write_bytes(b"%d" % number)
    return folder


@pytest.fixture(autouse=True)
def _forget(models_dir: Path) -> None:
    for path in releases_dir(models_dir, NAME).glob("*"):
        path.unlink()


def release(models_dir: Path, folder: Path, candidate: int, *arguments: str) -> int:
    options = ["--mode", "offline", "--input", str(folder), "--stable", "1", "--candidate", str(candidate)]
    limits = ["--min-requests", "50", "--max-accuracy-drop", "0.1"]
    return main(["release", "--models-dir", str(models_dir), *options, *limits, *arguments])


@pytest.mark.parametrize(("candidate", "status"), [(SAME, 0), (CRASHING, 3), (OTHER, 3)])
def test_both_versions_see_the_photos_of_a_folder(models_dir: Path, photos: Path, candidate: int, status: int) -> None:
    assert release(models_dir, photos, candidate) == status
    lines = read_evidence(releases_dir(models_dir, NAME), 1)
    names = {sha256(path) for path in photos.iterdir()}
    assert len({line["photo"] for line in lines} & names) == len(lines) > 5


def test_captured_photos_are_compared_once_each_in_the_order_in_which_they_came(
    models_dir: Path, tmp_path: Path
) -> None:
    images = [b"%d" % number for number in range(70)]
    (tmp_path / "captured").mkdir()
    for start in (0, 40, 20):
        some = images[start : start + 30]
        rows = [(0.9, 0.05, 0.05)] * len(some)
        write_file(
            tmp_path / "captured", 1_800_000_000 + start, [make_message(1_800_000_000 + start, rows, images=some)]
        )
    assert release(models_dir, tmp_path / "captured", SAME, "--min-requests", "70") == 0
    lines = read_evidence(releases_dir(models_dir, NAME), 1)
    assert len(lines) == len({line["photo"] for line in lines}) == 70


def test_killed_release_asks_for_no_photo_twice(
    models_dir: Path, photos: Path, capsys: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture
) -> None:
    assert release(models_dir, photos, SAME, "--min-requests", "1000") == 4  # it cannot tell
    folder = releases_dir(models_dir, NAME)
    record = read_releases(folder)[0]
    lines = (folder / "1.jsonl").read_text().splitlines(keepends=True)
    (folder / "1.jsonl").write_text("".join(lines[:100]) + lines[100][:9])
    (folder / "1.json").write_text(json.dumps({**record, "status": "running", "decided": None}))
    assert release(models_dir, photos, SAME) == 4
    photos_seen = [line["photo"] for line in read_evidence(folder, 1)]
    assert len(photos_seen) == len({*photos_seen}) == NUM_PHOTOS


def test_version_that_cannot_be_loaded_is_named(models_dir: Path, photos: Path, capsys: pytest.CaptureFixture) -> None:
    broken = models_dir / NAME / "9"
    broken.mkdir()
    (broken / "saved_model.pb").write_bytes(b"")
    assert release(models_dir, photos, 9) == 1
    assert f"A version must load and have serving_default. {broken} does not" in capsys.readouterr().err


def test_offline_without_photos_begins_nothing(models_dir: Path) -> None:
    assert main(["release", "--models-dir", str(models_dir), "--mode", "offline"]) == 2
    assert read_releases(releases_dir(models_dir, NAME)) == []


def test_photos_that_no_version_reads_are_not_passed_over_in_silence(
    models_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "empty").mkdir()
    assert release(models_dir, tmp_path / "empty", SAME) == 1
    assert "--input must hold photos that the versions can read" in capsys.readouterr().err
