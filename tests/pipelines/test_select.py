"""`select` prints the photos to label next, from zero labels on, and never one that looks like what is decided."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

from components.artifacts.labels import add_decisions
from components.errors import DataError
from components.training import selection
from pipelines import __main__ as command_line
from pipelines import flowers, local_runner
from pipelines.config import Config, override
from pipelines.folders import Folders
from pipelines.local_runner import Selection
from pipelines.select import Selected, select
from tests.components.artifacts.test_labels import decide
from tests.components.data.blobs import Encode, draw, fill

NUM_PHOTOS = 24
SETTINGS = ["model.backbone=small_cnn", "model.weights=none", "model.image_size_px=32", "features.precision=float32"]

Choose = Callable[..., list[Selected]]


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory, encode: Encode) -> Path:
    """Photos in any depth; one of them twice, another once more as a smaller file, and what is no photo."""
    folder = fill(tmp_path_factory.mktemp("pool"), {"": 12, "a/b": 12}, encode)
    (folder / "copy.jpg").write_bytes((folder / "0003.jpg").read_bytes())
    (folder / "a" / "smaller.jpg").write_bytes(encode(draw(5), "JPEG", quality=60))
    (folder / "broken.jpg").write_bytes(b"broken")
    return folder


@pytest.fixture(scope="module")
def made(pool: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs in which the pool was looked at once, so that its embeddings are cached."""
    runs = tmp_path_factory.mktemp("made") / "runs"
    config = override(Config(), [*SETTINGS, "examples.labels="])
    select(str(pool), 1, config=config, folders=Folders(runs=runs, models=runs))
    return runs


@pytest.fixture
def folders(made: Path, tmp_path: Path) -> Folders:
    shutil.copytree(made, tmp_path / "runs", symlinks=True)
    return Folders(runs=tmp_path / "runs", models=tmp_path / "models")


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.jsonl"
    path.touch()
    return path


@pytest.fixture
def choose(folders: Folders, labels: Path) -> Choose:
    def choose_(folder: Path | str, count: int = 100, *settings: str) -> list[Selected]:
        config = override(Config(), [*SETTINGS, f"examples.labels={labels}", *settings])
        return select(str(folder), count, config=config, folders=folders)

    return choose_


def decide_on(labels: Path, content: bytes, **changes: Any) -> None:
    add_decisions(labels, [decide(sha256=hashlib.sha256(content).hexdigest(), **changes)])


def names(selected: list[Selected], folder: Path) -> list[str]:
    return [each.path.removeprefix(f"{folder}/") for each in selected]


def train(source: Path, folders: Folders, *settings: str) -> None:
    """Run the pipeline up to the features."""
    config = override(
        Config(), [*SETTINGS, "validator.min_examples_per_class=1", f"examples.source={source}", *settings]
    )
    local_runner.run(flowers.STEPS, config, folders=folders, selection=Selection(last="features"))


def test_command_prints_a_path_a_line_and_a_second_one_computes_nothing(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], own_logging: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where labels.jsonl would be
    command = ["select", "--input", str(pool), "--count", "6", "--set", *SETTINGS]
    assert command_line.main(command) == 0
    printed = capsys.readouterr()
    paths = printed.out.splitlines()
    assert len(set(paths)) == 6
    assert all(Path(path).is_file() for path in paths)
    assert "1 files cannot be read; the first: " in printed.err
    assert "broken.jpg" in printed.err
    assert command_line.main(command) == 0
    again = capsys.readouterr()
    assert again.out.splitlines() == paths
    assert again.err.count(": cached") == 3
    assert "broken.jpg" in again.err


def test_copies_and_look_alikes_are_shown_once_and_all_that_is_left_is_said(
    pool: Path, choose: Choose, caplog: pytest.LogCaptureFixture
) -> None:
    selected = choose(pool, 100)
    found = names(selected, pool)
    assert len(found) == NUM_PHOTOS
    assert len({"0003.jpg", "copy.jpg"} & set(found)) == 1
    assert len({"0005.jpg", "a/smaller.jpg"} & set(found)) == 1
    assert "only 24 photos are left to label; 100 were wanted" in caplog.text
    assert {each.reason for each in selected} == {"typical"}
    assert all(each.sha256 == hashlib.sha256(Path(each.path).read_bytes()).hexdigest() for each in selected)
    assert choose(pool, 5) == selected[:5]


@pytest.mark.parametrize("decision", [{"label": "rose"}, {"label": None}, {"decision": "skip", "label": None}])
def test_decided_photos_and_what_looks_like_them_are_not_shown(
    pool: Path, choose: Choose, labels: Path, decision: dict[str, Any]
) -> None:
    decide_on(labels, (pool / "0005.jpg").read_bytes(), **decision)
    assert not {"0005.jpg", "a/smaller.jpg"} & set(names(choose(pool), pool))
    decide_on(labels, (pool / "0005.jpg").read_bytes(), decision="undo", label=None)
    assert {"0005.jpg", "a/smaller.jpg"} & set(names(choose(pool), pool))


def test_named_source_counts_without_a_run(pool: Path, choose: Choose, tmp_path: Path, encode: Encode) -> None:
    source = fill(tmp_path / "source", {"aster": 6, "rose": 6}, encode, first_seed=100)
    (source / "rose" / "same.jpg").write_bytes((pool / "0001.jpg").read_bytes())
    (source / "aster" / "smaller.jpg").write_bytes(encode(draw(2), "JPEG", quality=50))
    found = names(choose(pool, 100, f"examples.source={source}"), pool)
    assert len(found) == NUM_PHOTOS - 2
    assert not {"0001.jpg", "0002.jpg"} & set(found)


def test_features_of_the_newest_run_count_and_later_decisions_too(
    pool: Path, choose: Choose, folders: Folders, labels: Path, tmp_path: Path, encode: Encode
) -> None:
    source = fill(tmp_path / "source", {"aster": 8, "rose": 8}, encode, first_seed=100)
    (source / "rose" / "same.jpg").write_bytes((pool / "0001.jpg").read_bytes())
    train(source, folders)
    decide_on(labels, (pool / "0002.jpg").read_bytes(), label="rose")
    decide_on(labels, (source / "rose" / "0108.jpg").read_bytes(), label="tulip")
    found = names(choose(pool), pool)
    assert set(names(choose(pool, 100, f"examples.source={source}"), pool)) == set(found)
    assert len(found) == NUM_PHOTOS - 2
    assert not {"0001.jpg", "0002.jpg"} & set(found)
    assert not (folders.artifacts / "source_features").exists()


def test_run_that_does_not_fit_is_said(
    pool: Path, choose: Choose, folders: Folders, tmp_path: Path, encode: Encode, caplog: pytest.LogCaptureFixture
) -> None:
    source = fill(tmp_path / "source", {"aster": 8, "rose": 8}, encode, first_seed=100)
    train(source, folders, "model.image_size_px=40")
    assert len(choose(pool)) == NUM_PHOTOS
    assert "another backbone or precision (--set model.backbone=small_cnn model.weights=none" in caplog.text


def test_classifier_is_asked_once_there_are_labels(
    choose: Choose, pool: Path, tmp_path: Path, encode: Encode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "MIN_LABELS_PER_CLASS", 8)
    source = fill(tmp_path / "source", {"aster": 15, "rose": 15}, encode, first_seed=100)
    # Its photos are noise, so every one of the pool's is uncertain, or nearly so.
    assert "uncertain" in {each.reason for each in choose(pool, 5, f"examples.source={source}")}


def test_photos_at_a_url_are_those_of_the_folder(pool: Path, choose: Choose) -> None:
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    for path in pool.rglob("*.jpg"):
        memory.pipe(f"/pool/{path.relative_to(pool)}", path.read_bytes())
    there = choose("memory://pool")
    assert all(each.path.startswith("memory://pool/") for each in there)
    assert {each.sha256 for each in there[:8]} == {each.sha256 for each in choose(pool)[:8]}


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--input", "{pool}", "--count", "0"], 2, "--count takes a number of photos, 1 or more. Received: 0"),
        (["--input", "{pool}", "--count", "3", "--set", "model.backbon=a"], 2, "Did you mean 'model.backbone'"),
        (["--input", "{empty}", "--count", "3"], 1, "must hold some"),
        (["--input", "gone", "--count", "3"], 1, "lie in a folder or at a URL"),
        (["--input", "{broken}", "--count", "3", "--set", *SETTINGS], 1, "None of the 1 files of"),
        (["--input", "{pool}", "--count", "3", "--set", "examples.labels=gone"], 1, "must be a file of decisions"),
    ],
)
def test_wrong_commands_and_folders_are_explained(
    pool: Path,
    tmp_path: Path,
    arguments: list[str],
    status: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
    own_logging: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "1.jpg").write_bytes(b"no photo")
    folders = {"pool": pool, "empty": tmp_path / "empty", "broken": tmp_path / "broken"}
    assert command_line.main(["select", *(argument.format(**folders) for argument in arguments)]) == status
    printed = capsys.readouterr()
    assert message in printed.err
    assert "Traceback" not in printed.err
    assert printed.out == ""


def test_count_is_checked_before_anything_is_read(choose: Choose) -> None:
    with pytest.raises(ValueError, match="count must be 1 or more"):
        choose("gone", 0)
    with pytest.raises(DataError, match="lie in a folder"):
        choose("gone", 1)
