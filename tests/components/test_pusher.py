"""Only complete, blessed models are ever pushed, each once, and a version number is never used twice."""

import hashlib
import json
import os
import resource
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from components import pusher
from components.artifacts.blessing import Check
from components.artifacts.push import read_push
from components.errors import PushError
from components.pushing import publication
from components.storage import folder as folder_module
from components.storage.files import write_json
from components.storage.models import LINEAGE
from tests.components.candidates import PASSED_CHECK, VALIDATORS, Candidates

FAILED_CHECK = Check(name="min_accuracy", passed=False, message="accuracy 0.5 is below evaluator.min_accuracy (0.6)")
FAILED_LOAD = Check(name="load", passed=False, message="the server ended with status 1")


@pytest.fixture(params=["folder", "bucket"])
def candidates(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Candidates]:
    yield Candidates(tmp_path, f"memory:/{tmp_path}/models" if request.param == "bucket" else None)
    fsspec.filesystem("memory").store.clear()


on_disk = pytest.mark.parametrize("candidates", ["folder"], indirect=True)


def refusal(reason: str) -> dict[str, Any]:
    return {
        "pushed": False,
        "version": None,
        "path": None,
        "litert_path": None,
        "litert_files": [],
        "reason": reason,
    }


def test_pusher_pushes_a_blessed_model_as_version_1(candidates):
    candidates.add("a")
    push = candidates.push("a")
    assert push == {
        "pushed": True,
        "version": 1,
        "path": f"{candidates.store}/flowers/1",
        "litert_path": None,
        "litert_files": [],
        "reason": "blessed",
    }
    candidates.assert_complete(1, "a")
    assert candidates.store.files(".staging") == {}


def test_pusher_refuses_an_unblessed_model_and_says_why(candidates, caplog):
    candidates.add("a", evaluator=[PASSED_CHECK, FAILED_CHECK], infra_validator=[FAILED_LOAD])
    reason = "not blessed: accuracy 0.5 is below evaluator.min_accuracy (0.6)"
    assert candidates.push("a") == refusal(reason)
    assert candidates.store.names() == []
    assert f"pusher: NOT PUSHED: {reason}" in caplog.text


def test_pusher_refuses_a_model_that_its_server_does_not_serve(candidates):
    candidates.add("a", infra_validator=[FAILED_LOAD])
    assert candidates.push("a") == refusal("not blessed: the server ended with status 1")
    assert candidates.versions() == []


@pytest.mark.parametrize("validator", VALIDATORS)
def test_pusher_needs_the_blessing_of_both_validators(candidates, validator):
    candidates.add("a")
    blessing = candidates.folder(validator, "a") / "blessing.json"
    blessing.unlink()
    assert candidates.push("a") == refusal(f"not blessed: there is no {blessing}")
    write_json(blessing, {"blessed": False, "checks": []})
    assert candidates.push("a") == refusal(f"not blessed: {blessing} says so")
    assert candidates.versions() == []


def test_pusher_refuses_a_model_whose_forms_predict_differently(candidates):
    candidates.add("a")
    candidates.compare("a", passed=False)
    reason = "not blessed: the same photo gets different predictions from different forms of the model"
    assert candidates.push("a") == refusal(reason)
    assert candidates.versions() == []


@pytest.mark.parametrize("missing", ["saved_model.pb", "variables"])
def test_an_incomplete_candidate_is_refused(candidates, missing):
    candidates.add("a")
    path = candidates.folder("export", "a") / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(PushError, match=rf"A SavedModel must hold .*{missing}.*export/a"):
        candidates.push("a")
    assert candidates.store.names() == []


def test_a_model_is_pushed_once(candidates):
    candidates.add("a", int8=True)
    first = candidates.push("a")
    assert candidates.push("a") == first
    assert candidates.versions() == [1]


def test_versions_grow_by_one_and_count_in_numbers(candidates):
    for number in range(11):
        candidates.add(f"c{number}")
        assert candidates.push(f"c{number}")["version"] == number + 1
    assert candidates.versions() == list(range(1, 12))


def test_an_earlier_model_that_is_trained_again_is_a_new_version(candidates):
    candidates.add("a", "b")
    assert [candidates.push(key)["version"] for key in ("a", "b", "a")] == [1, 2, 3]


def test_a_number_is_used_once_whatever_the_model_is_called(candidates):
    candidates.add("a")
    candidates.add("b", name="birds")
    assert candidates.push("a")["version"] == 1
    assert candidates.push("b")["version"] == 2
    assert (candidates.versions(), candidates.versions("birds")) == ([1], [2])


def test_the_lineage_travels_with_the_model(candidates):
    candidates.add("a")
    candidates.push("a")
    origin = json.loads(candidates.store.read(f"flowers/1/{LINEAGE.as_posix()}"))
    assert origin == candidates.models.lineage("flowers", 1)
    assert origin["version"] == 1
    assert time.strptime(origin["pushed"], "%Y-%m-%dT%H:%M:%S%z")
    assert origin["model"]["inputs"]["training_dir"]["step"] == "trainer"
    for validation, validator in zip(("evaluation", "infra_validation"), VALIDATORS, strict=True):
        assert origin[validation]["step"] == validator
        assert origin[validation]["inputs"]["export_dir"]["digest"] == "a"


# LiteRT files.


def test_files_that_passed_are_pushed_with_the_model_and_described(candidates):
    candidates.add("a", float32=True, dynamic=False, int8=True)
    push = candidates.push("a")
    assert push["litert_path"] == f"{candidates.store}/tflite/1"
    assert push["litert_files"] == ["flowers_float32.tflite", "flowers_int8.tflite"]
    assert set(candidates.store.names("tflite/1")) == {*push["litert_files"], "model_spec.json"}
    assert candidates.store.read("tflite/1/flowers_int8.tflite") == b"int8 of a"
    spec = json.loads(candidates.store.read("tflite/1/model_spec.json"))
    assert (spec["model_name"], spec["model_version"]) == ("flowers", "1")
    assert spec["files"]["int8"] == {
        "name": "flowers_int8.tflite",
        "size_bytes": 9,
        "sha256": hashlib.sha256(b"int8 of a").hexdigest(),
        "input": "uint8",
    }
    assert spec["files"]["float32"]["input"] == "float32"
    assert candidates.push("a") == push


def test_other_files_of_the_same_model_are_a_new_version(candidates):
    candidates.add("a", int8=True)
    candidates.push("a")
    candidates.convert("a", float32=True, int8=True)
    assert candidates.push("a")["version"] == 2
    assert candidates.versions("tflite") == candidates.versions() == [1, 2]


@pytest.mark.parametrize("file", ["variables/variables.data-00000-of-00001", "saved_model.pb"])
def test_a_model_damaged_at_equal_size_is_not_pushed(candidates, file):
    candidates.add("a", int8=True)
    path = candidates.folder("export", "a") / file
    intact = path.read_bytes()
    path.write_bytes(bytes([intact[0] ^ 1]) + intact[1:])
    with pytest.raises(PushError, match=rf"{path} is not as the step export wrote it.* --force export"):
        candidates.push("a")
    assert candidates.versions() == candidates.versions("tflite") == []
    assert candidates.store.files(".staging") == {}
    path.write_bytes(intact)
    assert candidates.push("a")["version"] == 1


def test_a_model_that_lost_a_file_is_not_pushed(candidates):
    candidates.add("a")
    path = candidates.folder("export", "a") / "variables" / "variables.data-00000-of-00001"
    path.unlink()
    with pytest.raises(PushError, match=f"{path} is not as"):
        candidates.push("a")
    assert candidates.versions() == []


def test_a_litert_file_damaged_at_equal_size_is_not_pushed(candidates):
    candidates.add("a", int8=True)
    path = candidates.folder("litert", "a") / "flowers_int8.tflite"
    path.write_text("int8 of b")
    with pytest.raises(PushError, match=rf"{path} is not as the step litert wrote it.* --force litert"):
        candidates.push("a")
    assert candidates.versions("tflite") == candidates.versions() == []
    path.write_text("int8 of a")
    candidates.push("a")
    assert candidates.versions("tflite") == candidates.versions() == [1]


# Fallbacks.


@pytest.mark.parametrize(("fallback", "part"), [("data_fallback", "photos"), ("weights_fallback", "weights")])
def test_a_model_on_a_fallback_never_replaces_a_real_one(candidates, fallback, part):
    candidates.add("real")
    candidates.push("real")
    candidates.add("drawn", **{fallback: "no network."})
    push = candidates.push("drawn")
    assert not push["pushed"]
    assert push["reason"].startswith(
        f"its {part} are a fallback (no network), and those of version 1 are not; run again"
    )
    assert candidates.versions() == [1]


def test_a_model_on_a_fallback_is_pushed_first_or_over_another_and_said(candidates, caplog):
    candidates.add("a", "b", data_fallback="no network")
    for version, key in enumerate("ab", 1):
        caplog.clear()
        assert candidates.push(key)["version"] == version
        assert "pusher: the model stands on a fallback: its photos: no network" in caplog.text
    candidates.add("c", data_fallback="no network", weights_fallback="no network")
    assert "its weights are a fallback" in candidates.push("c")["reason"]
    candidates.add("real")
    assert candidates.push("real")["version"] == 3


def test_a_model_on_a_fallback_does_not_replace_one_of_unknown_origin(candidates):
    candidates.store.write("flowers/7/saved_model.pb", b"graph")
    candidates.add("a", data_fallback="no network")
    assert "those of version 7 are not" in candidates.push("a")["reason"]


# Other runs, between the evaluation and the push.


def test_a_model_is_not_pushed_over_one_that_it_was_not_compared_with(candidates):
    candidates.add("a", "b")
    candidates.evaluate("a")
    candidates.push("b")
    reason = "version 1 was pushed meanwhile; run again, without --from, to compare it with version 1"
    assert candidates.push("a", is_evaluated=True) == refusal(reason)
    assert candidates.versions() == [1]
    assert candidates.push("a")["version"] == 2
    assert candidates.push("a", is_evaluated=True)["version"] == 2


def test_a_model_is_not_pushed_when_its_baseline_was_withdrawn(candidates):
    candidates.add("a", "b", "c")
    candidates.push("a")
    candidates.push("b")
    candidates.evaluate("c")
    candidates.models.rollback("flowers")
    reason = (
        "version 2, with which it was compared, was withdrawn meanwhile; run again, without --from, to compare it "
        "with version 1"
    )
    assert candidates.push("c", is_evaluated=True) == refusal(reason)
    assert candidates.push("c")["version"] == 3


# Taking a model back.


def test_a_rollback_withdraws_the_newest_version_and_its_files(candidates):
    candidates.add("a", "b", int8=True)
    candidates.push("a")
    candidates.push("b")
    assert candidates.models.rollback("flowers") == (2, 1)
    assert candidates.versions("tflite") == candidates.versions() == [1]
    assert candidates.versions(".withdrawn/tflite") == [2]
    candidates.assert_complete(2, "b", name=".withdrawn/flowers")
    assert candidates.store.files("flowers/2") == candidates.store.files("tflite/2") == {}


def test_a_rollback_needs_an_earlier_version(candidates):
    path = f"{candidates.store}/flowers"
    with pytest.raises(PushError, match=rf"needs an earlier version to go back to\. {path} holds no version\."):
        candidates.models.rollback("flowers")
    candidates.add("a")
    candidates.push("a")
    with pytest.raises(PushError, match=f"{path} holds version 1 alone"):
        candidates.models.rollback("flowers")
    assert candidates.versions() == [1]


def test_a_withdrawn_model_is_pushed_again_only_on_demand_and_its_number_never(candidates):
    candidates.add("a", "b", "c")
    candidates.push("a")
    candidates.push("b")
    candidates.models.rollback("flowers")
    reason = "withdrawn by a rollback as version 2; pusher.push_withdrawn=true pushes it again"
    assert candidates.push("b") == refusal(reason)
    assert candidates.versions() == [1]
    assert candidates.push("c")["version"] == 3
    assert candidates.push("b", push_withdrawn=True)["version"] == 4
    assert candidates.versions() == [1, 3, 4]


# The model a candidate is compared with.


def test_the_baseline_is_the_newest_pushed_model_that_is_not_the_candidate(candidates):
    candidates.add("a", "b", "c")
    assert candidates.baseline("a") == {"version": None, "path": None}
    candidates.push("a")
    assert candidates.baseline("a") == {"version": None, "path": None}
    candidates.push("b")
    assert candidates.baseline("c") == {"version": 2, "path": f"{candidates.store}/flowers/2"}
    assert candidates.baseline("b")["version"] == 1


def test_a_model_that_others_put_there_is_a_baseline(candidates):
    candidates.store.write("flowers/7/saved_model.pb", b"graph")
    candidates.add("a")
    assert candidates.baseline("a")["version"] == 7
    assert candidates.push("a")["version"] == 8


def test_the_baseline_in_a_folder_is_found_from_any_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    candidates = Candidates(Path())
    candidates.add("a", "b")
    assert candidates.push("a")["path"] == "models/flowers/1"
    assert candidates.baseline("b")["path"] == str(tmp_path / "models" / "flowers" / "1")


# Kills, full disks and other processes. For buckets see `storage/test_models.py`.


@on_disk
def test_a_version_appears_as_a_whole_by_a_rename(candidates, monkeypatch):
    candidates.add("a")
    seen = []
    rename = Path.rename

    def look_then_rename(path: Path, target: Path) -> Path:
        seen.append((path.parent.name, str(target), candidates.versions()))
        rename(path, target)
        candidates.assert_complete(1, "a")
        return target

    monkeypatch.setattr(Path, "rename", look_then_rename)
    candidates.push("a")
    assert seen == [(".staging", f"{candidates.store}/flowers/1", [])]
    assert candidates.store.names(".staging") == []


def die(*arguments: Any, **options: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def copy_some_and_die(source: Path, target: Path, **options: Any) -> None:
    shutil.copy2(source / "saved_model.pb", target)
    die()


@on_disk
@pytest.mark.parametrize(
    ("owner", "name", "replacement"),
    [
        (shutil, "copytree", copy_some_and_die),
        (publication, "write_json", die),
        (os, "fsync", die),
        (Path, "rename", die),
    ],
    ids=["copytree", "write_json", "fsync", "rename"],
)
def test_a_killed_push_leaves_no_version_and_the_next_one_cleans_up(candidates, owner, name, replacement):
    candidates.add("a")
    process = candidates.start("a", lambda: setattr(owner, name, replacement))
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert candidates.versions() == []
    assert candidates.store.names(".staging") == ["flowers-1"]
    assert candidates.push("a")["version"] == 1
    candidates.assert_complete(1, "a")
    assert candidates.store.names() == [".versions", "flowers"]


@on_disk
def test_files_that_a_killed_push_left_out_come_with_the_next_one(candidates):
    candidates.add("a", int8=True)
    process = candidates.start("a", lambda: setattr(pusher, "publish_litert", die))
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert (candidates.versions(), candidates.versions("tflite")) == ([1], [])
    assert candidates.push("a")["version"] == 1
    assert candidates.versions("tflite") == [1]


def wait_for(path: Path) -> None:
    end = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < end, f"no {path.name} in 30 s"
        time.sleep(0.005)


@on_disk
def test_of_two_pushes_at_once_the_second_is_to_be_compared_with_the_first(candidates, tmp_path):
    candidates.add("a", "b")
    copytree, file_lock = shutil.copytree, folder_module.file_lock

    def copy_when_both_are_there(*arguments: Any, **options: Any) -> Any:
        (tmp_path / "copying").touch()
        wait_for(tmp_path / "waiting")
        return copytree(*arguments, **options)

    def announce(path: Path) -> Any:
        (tmp_path / "waiting").touch()
        return file_lock(path)

    # The first copies until the second has come to the lock.
    processes = [candidates.start("a", lambda: setattr(shutil, "copytree", copy_when_both_are_there))]
    try:
        wait_for(tmp_path / "copying")
        processes.append(candidates.start("b", lambda: setattr(folder_module, "file_lock", announce)))
        for process in processes:
            process.join(60)
    finally:
        for process in processes:
            process.kill()
            process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert candidates.versions() == [1]
    candidates.assert_complete(1, "a")
    assert read_push(candidates.folder("pusher", "b"))["reason"].startswith("version 1 was pushed meanwhile")
    assert candidates.push("b")["version"] == 2
    candidates.assert_complete(2, "b")
    assert candidates.store.names(".staging") == []


@on_disk
def test_a_push_that_cannot_write_leaves_no_version(candidates, capfd):
    candidates.add("a")
    weights = candidates.folder("export", "a") / "variables" / "variables.data-00000-of-00001"
    weights.write_bytes(os.urandom(300_000))
    candidates.describe("export", "a", {"training_dir": "trainer"})
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    limit = (100_000, resource.RLIM_INFINITY)
    process = candidates.start("a", lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
    process.join(60)
    assert process.exitcode == 1
    error = capfd.readouterr().err
    assert "PushError: A model is pushed whole or not at all" in error
    assert "File too large" in error.splitlines()[-1]
    assert candidates.versions() == []
    assert candidates.store.names(".staging") == []
    assert candidates.push("a")["version"] == 1
    candidates.assert_complete(1, "a")
