"""Only complete, blessed models are ever pushed, each once, and a version number is never used twice."""

import hashlib
import os
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from components import pusher
from components.errors import PushError
from components.storage.files import read_json, write_json
from tests.components.candidates import PASSED_CHECK, VALIDATORS, Candidates, assert_complete

ROOT = Path(__file__).resolve().parents[2]
FAILED_CHECK = {
    "name": "min_accuracy",
    "passed": False,
    "message": "accuracy 0.5 is below evaluator.min_accuracy (0.6)",
}
FAILED_LOAD = {"name": "load", "passed": False, "message": "the server ended with status 1"}


@pytest.fixture
def candidates(tmp_path: Path) -> Candidates:
    return Candidates(tmp_path)


def wait_for(condition: Callable[[], bool], *, deadline_s: float = 30) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, f"nothing happened in {deadline_s} s"
        time.sleep(0.005)


def test_pusher_pushes_a_blessed_model_as_version_1(candidates):
    export = candidates.add("a")
    push = candidates.push("a")
    assert push == {
        "pushed": True,
        "version": 1,
        "path": str(candidates.models / "flowers" / "1"),
        "litert_path": None,
        "litert_files": [],
        "reason": "blessed",
    }
    assert_complete(candidates.models / "flowers" / "1", export)


def test_pusher_refuses_an_unblessed_model_and_says_why(candidates, caplog):
    candidates.add("a", evaluator=[PASSED_CHECK, FAILED_CHECK], infra_validator=[FAILED_LOAD])
    push = candidates.push("a")
    assert push == {
        "pushed": False,
        "version": None,
        "path": None,
        "litert_path": None,
        "litert_files": [],
        "reason": "not blessed: accuracy 0.5 is below evaluator.min_accuracy (0.6)",
    }
    assert list(candidates.models.iterdir()) == []
    assert "pusher: NOT PUSHED: not blessed: accuracy 0.5" in caplog.text


def test_pusher_refuses_a_model_that_its_server_does_not_serve(candidates):
    candidates.add("a", infra_validator=[FAILED_LOAD])
    push = candidates.push("a")
    assert not push["pushed"]
    assert push["reason"] == "not blessed: the server ended with status 1"
    assert candidates.versions() == []


@pytest.mark.parametrize("validator", VALIDATORS)
def test_pusher_needs_the_blessing_of_both_validators(candidates, validator):
    candidates.add("a")
    blessing = candidates.blessing(validator, "a")
    blessing.unlink()
    push = candidates.push("a")
    assert not push["pushed"]
    assert push["reason"] == f"not blessed: there is no {blessing}"
    write_json(blessing, {"blessed": False, "checks": []})
    assert candidates.push("a")["reason"] == f"not blessed: {blessing} says so"
    assert candidates.versions() == []


def test_a_model_is_pushed_once(candidates):
    candidates.add("a")
    first = candidates.push("a")
    assert candidates.push("a") == first
    assert candidates.versions() == [1]


def test_versions_grow_by_one_and_count_in_numbers(candidates):
    for number in range(11):
        candidates.add(f"c{number}")
        assert candidates.push(f"c{number}")["version"] == number + 1
    assert candidates.versions() == list(range(1, 12))


def test_an_earlier_model_that_is_trained_again_is_a_new_version(candidates):
    for key in ("a", "b"):
        candidates.add(key)
        candidates.push(key)
    assert candidates.push("a")["version"] == 3


def test_a_number_is_used_once_whatever_the_model_is_called(candidates):
    candidates.add("a")
    candidates.add("b", name="birds")
    assert candidates.push("a")["version"] == 1
    assert candidates.push("b")["version"] == 2
    assert (candidates.versions(), candidates.versions("birds")) == ([1], [2])


def test_pusher_refuses_a_model_that_answers_differently_in_different_ways(candidates):
    candidates.add("a")
    candidates.compare("a", passed=False)
    assert candidates.push("a")["reason"] == "not blessed: the same photo gets different answers in different ways"
    assert candidates.versions() == []


# LiteRT files.


def test_files_that_passed_are_pushed_with_the_model_and_described(candidates):
    candidates.add("a")
    candidates.convert("a", float32=True, dynamic=False, int8=True)
    push = candidates.push("a")
    folder = candidates.models / "tflite" / "1"
    assert push["litert_path"] == str(folder)
    assert push["litert_files"] == ["flowers_float32.tflite", "flowers_int8.tflite"]
    assert {path.name for path in folder.iterdir()} == {*push["litert_files"], "model_spec.json"}
    assert (folder / "flowers_int8.tflite").read_text() == "int8 of a"
    spec = read_json(folder / "model_spec.json")
    assert spec["model_name"] == "flowers"
    assert spec["files"]["int8"] == {
        "name": "flowers_int8.tflite",
        "size_bytes": 9,
        "sha256": hashlib.sha256(b"int8 of a").hexdigest(),
        "input": "uint8",
    }
    assert spec["files"]["float32"]["input"] == "float32"
    assert candidates.push("a") == push


def test_other_files_of_the_same_model_are_a_new_version(candidates):
    candidates.add("a")
    candidates.convert("a", int8=True)
    candidates.push("a")
    candidates.convert("a", float32=True, int8=True)
    assert candidates.push("a")["version"] == 2
    assert candidates.versions("tflite") == candidates.versions() == [1, 2]


def test_files_that_a_killed_push_left_out_come_with_the_next_one(candidates):
    candidates.add("a")
    candidates.convert("a", int8=True)
    process = candidates.start(
        "a", before="pusher._fill_litert = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)"
    )
    process.communicate(timeout=60)
    assert (process.returncode, candidates.versions(), candidates.versions("tflite")) == (-9, [1], [])
    assert candidates.push("a")["version"] == 1
    assert candidates.versions("tflite") == [1]


def test_a_rollback_withdraws_the_files_too(candidates):
    for key in ("a", "b"):
        candidates.add(key)
        candidates.convert(key, int8=True)
        candidates.push(key)
    assert pusher.rollback(candidates.models, "flowers") == (2, 1)
    assert candidates.versions("tflite") == candidates.versions() == [1]
    assert pusher.versions(candidates.models / ".withdrawn", "tflite") == [2]


@pytest.mark.parametrize("missing", ["saved_model.pb", "variables"])
def test_an_incomplete_candidate_is_refused(candidates, missing):
    path = candidates.add("a") / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(PushError, match=rf"A SavedModel must hold .*{missing}.*export/a"):
        candidates.push("a")
    assert not (candidates.models / "flowers").exists()


def test_the_lineage_travels_with_the_model(candidates):
    candidates.add("a")
    candidates.push("a")
    origin = read_json(candidates.models / "flowers" / "1" / pusher.LINEAGE)
    assert origin["version"] == 1
    assert time.strptime(origin["pushed"], "%Y-%m-%dT%H:%M:%S%z")
    assert origin["model"]["inputs"]["training_dir"]["step"] == "trainer"
    for validation, validator in zip(("evaluation", "infra_validation"), VALIDATORS, strict=True):
        assert origin[validation]["step"] == validator
        assert origin[validation]["inputs"]["export_dir"]["digest"] == "a"


def test_a_version_appears_whole_by_a_rename(candidates, monkeypatch):
    export = candidates.add("a")
    seen = []
    rename = Path.rename

    def look_then_rename(path: Path, target: Path) -> Path:
        assert_complete(path, export)
        seen.append((path.parent.name, target, candidates.versions()))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", look_then_rename)
    candidates.push("a")
    assert seen == [(".staging", candidates.models / "flowers" / "1", [])]
    assert not (candidates.models / ".staging").exists()


# Taking a model back.


def test_a_rollback_withdraws_the_newest_version(candidates):
    for key in ("a", "b"):
        candidates.add(key)
        candidates.push(key)
    assert pusher.rollback(candidates.models, "flowers") == (2, 1)
    assert candidates.versions() == [1]
    assert_complete(candidates.models / ".withdrawn" / "flowers" / "2", candidates.artifacts / "export" / "b")


def test_a_rollback_needs_an_earlier_version(candidates):
    with pytest.raises(PushError, match=r"needs an earlier version to go back to\. .*flowers holds no version\."):
        pusher.rollback(candidates.models, "flowers")
    candidates.add("a")
    candidates.push("a")
    with pytest.raises(PushError, match="holds version 1 alone"):
        pusher.rollback(candidates.models, "flowers")
    assert candidates.versions() == [1]


def test_a_withdrawn_version_number_is_not_used_again(candidates):
    for key in ("a", "b", "c"):
        candidates.add(key)
    candidates.push("a")
    candidates.push("b")
    pusher.rollback(candidates.models, "flowers")
    assert candidates.push("c")["version"] == 3


def test_a_withdrawn_model_is_pushed_again_only_when_asked(candidates):
    for key in ("a", "b"):
        candidates.add(key)
        candidates.push(key)
    pusher.rollback(candidates.models, "flowers")
    push = candidates.push("b")
    assert not push["pushed"]
    assert push["reason"] == "withdrawn by a rollback as version 2; pusher.push_withdrawn=true pushes it again"
    assert candidates.versions() == [1]
    assert candidates.push("b", push_withdrawn=True)["version"] == 3
    assert candidates.versions() == [1, 3]


# The model a candidate is compared with.


def test_the_baseline_is_the_newest_pushed_model(candidates):
    for key in ("a", "b", "c"):
        candidates.add(key)
    assert candidates.baseline("a") == {"version": None, "path": None}
    candidates.push("a")
    candidates.push("b")
    assert candidates.baseline("c") == {"version": 2, "path": str(candidates.models / "flowers" / "2")}


def test_the_baseline_is_not_the_candidate_itself(candidates):
    candidates.add("a")
    candidates.push("a")
    assert candidates.baseline("a")["version"] is None
    candidates.add("b")
    candidates.push("b")
    assert candidates.baseline("b")["version"] == 1


def test_a_model_that_others_put_there_is_a_baseline(candidates):
    (candidates.models / "flowers" / "7").mkdir(parents=True)
    candidates.add("a")
    assert candidates.baseline("a")["version"] == 7
    assert candidates.push("a")["version"] == 8


# Kills, full disks and other processes.


@pytest.mark.parametrize("moment", ["shutil.copytree", "pusher.write_json", "os.fsync", "Path.rename"])
def test_a_killed_push_leaves_no_version_and_the_next_one_cleans_up(candidates, moment):
    export = candidates.add("a")
    owner, name = moment.split(".")
    die_midway = f"""
def die(*arguments, real={moment}, **options):
    if "{name}" == "copytree":
        real(arguments[0] / "variables", arguments[1] / "variables")
    if "{name}" != "write_json" or "lineage" in str(arguments[0]):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments, **options)
{owner}.{name} = die
"""
    process = candidates.start("a", before=die_midway)
    process.communicate(timeout=60)
    assert process.returncode == -9
    assert candidates.versions() == []
    assert [p.name for p in (candidates.models / ".staging").iterdir()] == ["flowers-1"]
    assert candidates.push("a")["version"] == 1
    assert_complete(candidates.models / "flowers" / "1", export)
    assert not (candidates.models / ".staging").exists()


def test_two_pushes_at_once_give_two_complete_versions(candidates):
    exports = {key: candidates.add(key) for key in ("a", "b")}
    folder = candidates.models.parent
    # The first copies until the second has come to the lock.
    first = candidates.start(
        "a",
        before="""
def copy(*arguments, real=shutil.copytree, **options):
    (folder / "copying").touch()
    while not (folder / "waiting").exists():
        time.sleep(0.005)
    return real(*arguments, **options)
shutil.copytree = copy
""",
    )
    second = None
    try:
        wait_for((folder / "copying").exists)
        second = candidates.start(
            "b",
            before="""
def announce(path, real=model_store.file_lock):
    (folder / "waiting").touch()
    return real(path)
model_store.file_lock = announce
""",
        )
        assert [p.communicate(timeout=60)[1] for p in (first, second)] == ["", ""]
    finally:
        for process in filter(None, (first, second)):
            process.kill()
            process.wait()
    assert (first.returncode, second.returncode) == (0, 0)
    assert candidates.versions() == [1, 2]
    assert_complete(candidates.models / "flowers" / "1", exports["a"])
    assert_complete(candidates.models / "flowers" / "2", exports["b"])
    assert not (candidates.models / ".staging").exists()


def test_a_push_that_cannot_write_leaves_no_version(candidates):
    export = candidates.add("a")
    weights = export / "variables" / "variables.data-00000-of-00001"
    weights.write_bytes(os.urandom(300_000))
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))"
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    process = candidates.start("a", before=limit)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "PushError: A model is pushed whole or not at all" in error
    assert "File too large" in error.splitlines()[-1]
    assert candidates.versions() == []
    assert not (candidates.models / ".staging").exists()
    assert candidates.push("a")["version"] == 1
    assert_complete(candidates.models / "flowers" / "1", export)
