"""The runner runs what has to be run, once, with the reason; a run that ends badly can be started again."""

import dataclasses
import errno
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

import pytest

from components.errors import ComponentError, DataError, StorageError
from components.storage.files import read_json
from pipelines import fingerprint
from pipelines.artifact_store import ArtifactStore
from pipelines.declaration import Step
from pipelines.folders import Folders
from pipelines.runs import list_runs
from tests.pipelines import toy


def result_of(artifacts) -> int:
    return read_json(artifacts["multiply"].path / "result.json")


def reasons(record) -> dict[str, str]:
    return {name: step["reason"] for name, step in record["steps"].items() if "reason" in step}


# What is run again, and what is not.


def test_a_run_runs_every_step_in_order_and_a_second_one_none(toy_pipeline, caplog):
    first = toy_pipeline.run()
    assert result_of(first) == 10
    assert toy_pipeline.executed() == ["read", "count", "multiply"]
    assert set(reasons(toy_pipeline.record()).values()) == {"never run before"}
    with caplog.at_level(logging.INFO):
        second = toy_pipeline.run()
    assert second == first
    assert toy_pipeline.executed() == []
    assert reasons(toy_pipeline.record()) == {"read": "cached", "count": "cached", "multiply": "cached"}
    created = first["count"].manifest["created"]
    assert f"count: cached (same code, options and inputs as on {created})" in caplog.messages


def test_a_changed_option_reruns_its_step_and_what_was_run_with_the_earlier_one_is_still_cached(toy_pipeline, caplog):
    toy_pipeline.run()
    toy_pipeline.executed()
    toy_pipeline.set("multiply", factor=3)
    with caplog.at_level(logging.INFO):
        assert result_of(toy_pipeline.run()) == 15
    assert toy_pipeline.executed() == ["multiply"]
    assert "multiply: started (changed: factor 2 → 3)" in caplog.messages
    toy_pipeline.set("multiply", factor=2)
    assert result_of(toy_pipeline.run()) == 10
    assert toy_pipeline.executed() == []


def test_followers_are_cached_when_a_step_makes_the_same_content_again(toy_pipeline, caplog):
    toy_pipeline.run()
    toy_pipeline.executed()
    toy_pipeline.set("read", shout=True)
    with caplog.at_level(logging.INFO):
        toy_pipeline.run()
    # The text is another one and has as many words.
    assert toy_pipeline.executed() == ["read", "count"]
    assert "read: started (changed: shout False → True)" in caplog.messages
    assert "count: started (changed: inputs)" in caplog.messages
    assert reasons(toy_pipeline.record())["multiply"] == "cached"


def test_a_changed_source_reruns_the_step_that_reads_it(toy_pipeline, caplog):
    toy_pipeline.run()
    toy_pipeline.executed()
    toy_pipeline.text.write_text("a rose")
    with caplog.at_level(logging.INFO):
        assert result_of(toy_pipeline.run()) == 4
    assert toy_pipeline.executed() == ["read", "count", "multiply"]
    assert "read: started (changed: source)" in caplog.messages


def test_changed_code_reruns_the_step_and_a_comment_does_not(toy_pipeline, tmp_path, monkeypatch, caplog):
    code = tmp_path / "toy_greeting.py"
    source = "def greet(*, out_dir):\n    (out_dir / 'greeting').write_text('hello')\n    return {}\n"
    step = Step(name="greet", function="toy_greeting:greet")
    monkeypatch.setattr(fingerprint, "ROOT", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def run_with(text: str) -> tuple[str, str]:
        code.write_text(text)
        sys.modules.pop("toy_greeting", None)
        fingerprint.of_code.cache_clear()
        with caplog.at_level(logging.INFO):
            artifact = toy_pipeline.run((step,))["greet"]
        return (artifact.path / "greeting").read_text(), toy_pipeline.record()["steps"]["greet"]["reason"]

    try:
        assert run_with(source) == ("hello", "never run before")
        assert run_with(f"# A comment.\n{source}") == ("hello", "cached")
        assert run_with(source.replace("hello", "good day")) == ("good day", "changed: code")
    finally:
        fingerprint.of_code.cache_clear()
        sys.modules.pop("toy_greeting", None)


def test_another_version_of_a_library_reruns_everything(toy_pipeline, monkeypatch):
    toy_pipeline.run()
    toy_pipeline.executed()
    now = fingerprint.versions()
    monkeypatch.setattr(fingerprint, "versions", lambda: {**now, "keras": "99.0"})
    toy_pipeline.run()
    assert reasons(toy_pipeline.record())["read"] == "changed: versions"
    assert toy_pipeline.executed() == ["read", "count", "multiply"]


def test_a_damaged_output_is_made_again(toy_pipeline, caplog):
    damaged = toy_pipeline.run()["count"]
    toy_pipeline.executed()
    (damaged.path / "count.json").unlink()
    with caplog.at_level(logging.INFO):
        assert result_of(toy_pipeline.run()) == 10
    assert toy_pipeline.executed() == ["count"]
    assert "count: started (the earlier output is damaged)" in caplog.messages


def test_a_step_with_state_runs_every_time(toy_pipeline):
    steps = (toy.READ, toy.COUNT, toy.VISIT)
    first = toy_pipeline.run(steps)
    second = toy_pipeline.run(steps)
    assert toy_pipeline.executed() == ["read", "count", "visit", "visit"]
    assert toy_pipeline.folders.state("models").names() == ["1", "2"]
    # It found nothing new, so nothing that reads its output would run.
    assert second["visit"] == first["visit"]
    assert reasons(toy_pipeline.record())["visit"] == "looks at what is there"


# Parts of a pipeline.


def test_from_begins_with_what_the_newest_run_made_and_says_what_has_changed_since(toy_pipeline, caplog):
    toy_pipeline.run()
    toy_pipeline.executed()
    toy_pipeline.text.write_text("a rose")
    toy_pipeline.set("multiply", factor=3)
    assert result_of(toy_pipeline.run(first="count")) == 15
    assert "read: reused, though changed since: source. Run without --from to follow." in caplog.messages
    assert toy_pipeline.executed() == ["multiply"]
    record = toy_pipeline.record()
    assert record["steps"]["read"]["reused"]
    assert set(record["steps"]) == {"read", "count", "multiply"}
    assert "read" not in record["sources"]


def test_from_refuses_other_options_than_those_of_what_it_reuses(toy_pipeline):
    toy_pipeline.run()
    toy_pipeline.executed()
    toy_pipeline.set("read", shout=True)
    with pytest.raises(ComponentError) as refused:
        toy_pipeline.run(first="count")
    assert str(refused.value) == (
        "--from count reuses what the newest run made with read.shout=False. Received: read.shout=True. "
        "Run without --from, or with the options of that run."
    )
    assert toy_pipeline.executed() == []
    assert len(toy_pipeline.records()) == 1


def test_from_goes_on_even_where_the_earlier_source_is_gone(toy_pipeline, caplog):
    toy_pipeline.run()
    toy_pipeline.text.unlink()
    assert result_of(toy_pipeline.run(first="count")) == 10
    assert "read: reused, and its source is not there now: The text does not exist" in caplog.text


def test_to_leaves_the_latest_run_alone_and_from_sees_its_output(toy_pipeline):
    toy_pipeline.run()
    whole = (toy_pipeline.folders.runs / "latest").readlink()
    toy_pipeline.set("read", shout=True)
    shouted = toy_pipeline.run(last="count")
    assert (toy_pipeline.folders.runs / "latest").readlink() == whole
    assert toy_pipeline.run(first="multiply")["read"] == shouted["read"]
    assert (toy_pipeline.folders.runs / "latest").readlink() != whole


def test_from_after_a_damaged_record_says_what_to_do(toy_pipeline):
    toy_pipeline.run()
    (toy_pipeline.folders.runs / "latest" / "run.json").write_text('{"steps": ')
    with pytest.raises(ComponentError, match=r"no output of 'read' in .*run\.json\. Run once without --from\."):
        toy_pipeline.run(first="count")


def test_to_ends_after_a_step(toy_pipeline):
    assert set(toy_pipeline.run(last="count")) == {"read", "count"}
    assert toy_pipeline.executed() == ["read", "count"]
    assert result_of(toy_pipeline.run()) == 10
    assert toy_pipeline.executed() == ["multiply"]


def test_force_runs_a_cached_step_and_its_followers_stay_cached(toy_pipeline):
    first = toy_pipeline.run()
    toy_pipeline.executed()
    assert toy_pipeline.run(forced=["count"]) == first
    assert toy_pipeline.executed() == ["count"]
    assert reasons(toy_pipeline.record())["count"] == "forced"


@pytest.mark.parametrize("selection", [{"first": "cuont"}, {"last": "cuont"}, {"forced": ["read", "cuont"]}])
def test_an_unknown_step_is_named_before_anything_runs(toy_pipeline, selection):
    with pytest.raises(ValueError, match=r"no step 'cuont'. Its steps: read, count, multiply\."):
        toy_pipeline.run(**selection)
    assert not toy_pipeline.folders.runs.exists()


def test_from_must_not_come_after_to(toy_pipeline):
    with pytest.raises(ValueError, match=r"--from must not come after --to\. Received: --from multiply --to read"):
        toy_pipeline.run(first="multiply", last="read")


def test_from_needs_the_outputs_of_an_earlier_run_undamaged(toy_pipeline):
    with pytest.raises(ComponentError, match=r"--from count .* no output of 'read' .* Run once without --from\."):
        toy_pipeline.run(first="count")
    read = toy_pipeline.run(last="read")["read"]
    with pytest.raises(ComponentError, match=r"no output of 'count'"):
        toy_pipeline.run(first="multiply")
    (read.path / "text.txt").unlink()
    with pytest.raises(ComponentError, match="no output of 'read'"):
        toy_pipeline.run(first="count")
    assert toy_pipeline.executed() == ["read"]


# Failures.


def test_sources_are_checked_before_any_step_runs(toy_pipeline):
    toy_pipeline.text.unlink()
    with pytest.raises(DataError, match=r"The text does not exist: .*text\.txt"):
        toy_pipeline.run((toy.COUNT, toy.READ))
    assert toy_pipeline.executed() == []
    assert not toy_pipeline.folders.runs.exists()


@pytest.mark.parametrize("name", ["runs", "models"])
def test_folders_that_cannot_be_written_are_found_before_any_step_runs(toy_pipeline, monkeypatch, name):
    # The tests may run as root, whom no permission stops.
    def refuse(*, dir: Path) -> None:
        if dir == getattr(toy_pipeline.folders, name):
            raise PermissionError(errno.EACCES, "Permission denied", f"{dir}/tmp123")
        return nullcontext()

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(PermissionError, match="Permission denied") as refused:
        toy_pipeline.run((toy.READ, toy.COUNT, toy.VISIT))
    assert refused.value.filename == str(getattr(toy_pipeline.folders, name))
    assert toy_pipeline.executed() == []


def test_folders_of_state_are_made_before_any_step_runs(toy_pipeline):
    toy_pipeline.folders = dataclasses.replace(toy_pipeline.folders, models=toy_pipeline.text / "models")
    with pytest.raises(OSError, match=r"text\.txt/models"):
        toy_pipeline.run((toy.READ, toy.COUNT, toy.VISIT))
    assert toy_pipeline.executed() == []


def test_a_failing_step_leaves_a_failed_run_and_the_next_one_goes_on(toy_pipeline):
    toy_pipeline.set("multiply", fail=True)
    with pytest.raises(DataError):
        toy_pipeline.run()
    (failed,) = toy_pipeline.records()
    assert failed["status"] == "failed"
    assert failed["error"] == "DataError: The factor must be a lucky one. Choose another: multiply.factor"
    assert set(failed["steps"]) == {"read", "count"}
    assert failed["seconds"] >= 0
    assert not (toy_pipeline.folders.runs / "latest").exists()
    toy_pipeline.executed()
    toy_pipeline.set("multiply", fail=False)
    assert result_of(toy_pipeline.run()) == 10
    assert toy_pipeline.executed() == ["multiply"]
    assert [r["status"] for r in toy_pipeline.records()].count("finished") == 1


def test_an_interrupted_run_is_recorded_and_the_next_one_goes_on(toy_pipeline, monkeypatch):
    def interrupt(**arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(toy, "count", interrupt)
        with pytest.raises(KeyboardInterrupt):
            toy_pipeline.run()
    (record,) = toy_pipeline.records()
    assert (record["status"], record["error"]) == ("failed", "KeyboardInterrupt: ")
    assert result_of(toy_pipeline.run()) == 10
    assert toy_pipeline.executed() == ["read", "count", "multiply"]


@pytest.mark.parametrize(
    ("step", "forced", "found"),
    [(toy.GO_ON, [], "first found.txt"), (toy.STUMBLE, [], ""), (toy.GO_ON, ["stumble"], "")],
    ids=["resumable", "not resumable", "forced"],
)
def test_a_step_finds_what_its_killed_attempt_left_if_it_is_resumable(toy_pipeline, monkeypatch, step, forced, found):
    steps = (toy.READ, toy.COUNT, step)
    with monkeypatch.context() as patch:
        patch.setenv("TOY_KILL", "yes")
        killed = toy_pipeline.start(lambda: toy_pipeline.run(steps))
    killed.join(toy.DEADLINE_S)
    assert killed.exitcode == -signal.SIGKILL
    assert toy_pipeline.executed() == ["read", "count", "stumble"]
    assert ArtifactStore(toy_pipeline.folders.artifacts).newest("stumble") is None
    artifact = toy_pipeline.run(steps, forced=forced)["stumble"]
    assert toy_pipeline.executed() == ["stumble"]
    assert (artifact.path / "found.txt").read_text() == found
    assert set(artifact.manifest["files"]) == {"found.txt", "first", "second"}


# Two at a time.


def test_two_runs_at_once_share_the_work_of_a_slow_step(toy_pipeline):
    def run() -> None:
        toy.announce_the_lock(toy_pipeline.text.parent)
        toy_pipeline.run((toy.READ, toy.COUNT, toy.LINGER))

    both = [toy_pipeline.start(run), toy_pipeline.start(run)]
    try:
        for process in both:
            process.join(2 * toy.DEADLINE_S)
    finally:
        for process in both:
            process.kill()
            process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert sorted(toy_pipeline.executed()) == ["count", "linger", "read"]
    first, second = toy_pipeline.records()
    assert (first["status"], second["status"]) == ("finished", "finished")
    assert sorted(reasons(r)["linger"] for r in (first, second)) == ["cached", "never run before"]
    assert first["steps"]["linger"]["digest"] == second["steps"]["linger"]["digest"]
    assert not list(toy_pipeline.folders.artifacts.glob("*/*.partial"))
    assert toy_pipeline.record() in (first, second)


# What a run leaves behind.


def test_the_record_and_the_manifests_hold_what_a_run_and_its_artifacts_were_made_from(toy_pipeline):
    artifacts = toy_pipeline.run()
    record = toy_pipeline.record()
    assert record["status"] == "finished"
    assert record["config"] == json.loads(json.dumps(dataclasses.asdict(toy_pipeline.config)))
    assert record["seeds"] == {"multiply.seed": 7}
    assert record["versions"] == fingerprint.versions()
    assert record["sources"] == {"read": {"text": "a rose is a rose"}}
    assert record["seconds"] >= 0
    for name, step in record["steps"].items():
        assert step["seconds"] >= 0
        assert step["code"] == fingerprint.of_code(toy.MODULE)
        assert step["digest"] == artifacts[name].digest
        assert (toy_pipeline.folders.runs / "latest" / "steps" / name).resolve() == artifacts[name].path.resolve()
    manifest = artifacts["multiply"].manifest
    assert manifest["step"] == "multiply"
    assert manifest["options"] == {"options": {"factor": 2, "fail": False, "seed": 7}}
    assert manifest["inputs"] == {"count_dir": artifacts["count"].reference}
    assert manifest["versions"] == fingerprint.versions()
    assert artifacts["read"].manifest["source"] == {"text": "a rose is a rose"}
    assert artifacts["read"].manifest["summary"] == {"num_characters": 16}


def test_latest_points_to_the_newest_run(toy_pipeline):
    runs = toy_pipeline.folders.runs
    toy_pipeline.run()
    first = (runs / "latest").readlink()
    toy_pipeline.run()
    second = (runs / "latest").readlink()
    assert first != second
    assert {first.name, second.name} == {r["run"] for r in toy_pipeline.records()}
    assert not second.is_absolute()
    toy_pipeline.set("multiply", fail=True)
    with pytest.raises(DataError):
        toy_pipeline.run()
    assert (runs / "latest").readlink() == second


def test_a_finished_step_logs_its_seconds_and_numbers(toy_pipeline, caplog):
    with caplog.at_level(logging.INFO):
        toy_pipeline.run()
    finished = [m for m in caplog.messages if "finished" in m]
    assert [m.partition(" in ")[0] for m in finished] == ["read: finished", "count: finished", "multiply: finished"]
    assert finished[1].endswith("s (num_words 5)")


def test_runs_and_models_can_be_moved(toy_pipeline):
    first = toy_pipeline.run()
    moved = toy_pipeline.folders.runs.with_name("moved")
    toy_pipeline.folders.runs.rename(moved)
    toy_pipeline.folders = Folders(runs=moved)
    toy_pipeline.executed()
    again = toy_pipeline.run()
    assert toy_pipeline.executed() == []
    assert again["multiply"].digest == first["multiply"].digest
    assert (moved / "latest" / "steps" / "read" / "text.txt").exists()


def test_runs_are_listed_from_the_oldest_to_the_newest(tmp_path: Path):
    for name in ("20260102-000000-aaaa", "20260101-000000-ffff"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(json.dumps({"run": name, "status": "finished"}))
    (tmp_path / "20260103-000000-bbbb").mkdir()
    assert [r["run"] for r in list_runs(tmp_path)] == ["20260101-000000-ffff", "20260102-000000-aaaa"]
    assert list(list_runs(tmp_path / "nowhere")) == []


def test_a_run_whose_process_is_gone_is_listed_as_killed(tmp_path: Path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for name, process in (("20260101-000000-aaaa", gone.pid), ("20260102-000000-bbbb", os.getpid())):
        (tmp_path / name).mkdir()
        record = {"run": name, "status": "running", "process": process}
        (tmp_path / name / "run.json").write_text(json.dumps(record))
    assert [r["status"] for r in list_runs(tmp_path)] == ["killed", "running"]


# What is not available.


LENDING = (*toy.STEPS, toy.BORROW, toy.MULTIPLY_BORROWED, toy.GATHER)


@pytest.fixture
def lent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "lent.txt"
    monkeypatch.setenv("TOY_LENT", str(path))
    return path


def test_what_needs_a_missing_input_is_skipped_and_the_rest_runs(toy_pipeline, lent):
    artifacts = toy_pipeline.run(LENDING)
    assert toy_pipeline.executed() == ["read", "count", "multiply", "borrow", "gather"]
    reason = {"what": "the lent", "reason": "lent.txt is not there"}
    assert read_json(artifacts["gather"].path / "gathered.json") == [10, reason]
    record = toy_pipeline.record()
    assert record["status"] == "finished"
    assert reasons(record)["multiply_borrowed"] == "passed over: borrow could not be had"


def test_what_was_missing_is_looked_for_again_and_made_once_it_is_there(toy_pipeline, lent):
    toy_pipeline.run(LENDING)
    toy_pipeline.executed()
    toy_pipeline.run(LENDING)
    assert toy_pipeline.executed() == ["borrow"]
    assert reasons(toy_pipeline.record())["borrow"] == "could not be had before"
    lent.touch()
    artifacts = toy_pipeline.run(LENDING)
    assert toy_pipeline.executed() == ["borrow", "multiply", "gather"]
    assert read_json(artifacts["gather"].path / "gathered.json") == [10, 10]


# What stands on a fallback.

WISHING = (toy.WISH, toy.MULTIPLY_WISH)


def test_a_fallback_is_tried_again_in_every_run_and_what_follows_stays_cached(toy_pipeline, lent, caplog):
    first = toy_pipeline.run(WISHING)
    toy_pipeline.executed()
    caplog.clear()
    again = toy_pipeline.run(WISHING)
    assert toy_pipeline.executed() == ["wish"]
    assert again == first
    record = toy_pipeline.record()
    assert reasons(record) == {"wish": "stood on a fallback before", "multiply": "cached"}
    reason = first["wish"].fallback
    assert record["fallbacks"] == {"wish": reason}
    (warning,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert warning == (f"wish: FALLBACK, tried again in every run: {reason} To choose it instead: model.weights=none.")
    assert not list(toy_pipeline.folders.artifacts.glob("*/*.partial"))


def test_a_fallback_gives_way_to_what_was_wanted_as_soon_as_that_is_there(toy_pipeline, lent):
    toy_pipeline.run(WISHING)
    lent.touch()
    assert result_of(toy_pipeline.run(WISHING)) == 10
    assert toy_pipeline.record()["fallbacks"] == {}
    toy_pipeline.executed()
    lent.unlink()
    # What was had once is no fallback, so it is reused as ever.
    assert result_of(toy_pipeline.run(WISHING)) == 10
    assert toy_pipeline.executed() == []


def test_a_probe_spares_the_step_as_long_as_the_fallback_stands(toy_pipeline, lent, caplog):
    steps = (toy.WISH_PROBED, toy.MULTIPLY_WISH)
    first = toy_pipeline.run(steps)
    assert toy_pipeline.executed() == ["wish", "multiply"]
    assert toy_pipeline.run(steps) == first
    assert toy_pipeline.executed() == ["probe"]
    assert reasons(toy_pipeline.record())["wish"] == "cached: the fallback still stands"
    assert caplog.text.count("wish: FALLBACK, tried again in every run") == 2
    lent.touch()
    assert result_of(toy_pipeline.run(steps)) == 10
    assert toy_pipeline.executed() == ["probe", "wish", "multiply"]
    toy_pipeline.run(steps)
    assert toy_pipeline.executed() == []


def test_a_run_from_a_later_step_says_what_fallback_it_stands_on(toy_pipeline, lent, caplog):
    reason = toy_pipeline.run(WISHING)["wish"].fallback
    caplog.clear()
    toy_pipeline.run(WISHING, first="multiply")
    assert toy_pipeline.record()["fallbacks"] == {"wish": reason}
    assert f"wish: FALLBACK, tried again in every run: {reason}" in caplog.text
    toy_pipeline.run(WISHING, last="wish")
    assert toy_pipeline.records()[-1]["fallbacks"].keys() == {"wish"}


# What is damaged.


def damage(path: Path) -> None:
    """Change a byte of a file, but not its size."""
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)


def test_a_damaged_input_of_the_same_size_is_made_again_before_a_step_reads_it(toy_pipeline, caplog):
    first = toy_pipeline.run()
    toy_pipeline.executed()
    damaged = first["count"].path / "count.json"
    damage(damaged)
    toy_pipeline.set("multiply", factor=3)
    again = toy_pipeline.run()
    assert result_of(again) == 15
    assert toy_pipeline.executed() == ["count", "multiply"]
    assert again["count"].digest == first["count"].digest
    assert again["count"].path != first["count"].path
    assert f"count: its output is damaged: {damaged}" in caplog.messages
    record = toy_pipeline.record()
    assert record["steps"]["count"]["reason"] == "the earlier output is damaged"
    assert record["steps"]["count"]["key"] == again["count"].path.name
    toy_pipeline.run()
    assert toy_pipeline.executed() == []


def test_damage_further_up_is_mended_as_well(toy_pipeline):
    first = toy_pipeline.run()
    toy_pipeline.executed()
    damage(first["read"].path / "text.txt")
    damage(first["count"].path / "count.json")
    toy_pipeline.set("multiply", factor=3)
    assert result_of(toy_pipeline.run()) == 15
    assert toy_pipeline.executed() == ["read", "count", "multiply"]


def test_damage_that_nobody_reads_costs_nothing(toy_pipeline):
    first = toy_pipeline.run()
    damage(first["read"].path / "text.txt")
    toy_pipeline.executed()
    toy_pipeline.run()
    assert toy_pipeline.executed() == []


@pytest.mark.parametrize("content", [b"", b'{"step": "cou', b"{}", b"[1]", b"\xff\xfe"])
def test_a_damaged_manifest_is_made_again(toy_pipeline, content):
    first = toy_pipeline.run()
    toy_pipeline.executed()
    (first["count"].path / "manifest.json").write_bytes(content)
    assert result_of(toy_pipeline.run()) == 10
    assert toy_pipeline.executed() == ["count"]


def test_forcing_a_step_replaces_its_damaged_output(toy_pipeline):
    first = toy_pipeline.run()
    damage(first["multiply"].path / "result.json")
    assert result_of(toy_pipeline.run(forced=["multiply"])) == 10


def test_from_refuses_a_damaged_input_and_a_run_without_it_mends_that(toy_pipeline):
    first = toy_pipeline.run()
    damage(first["count"].path / "count.json")
    toy_pipeline.set("multiply", factor=3)
    with pytest.raises(
        ComponentError, match=r"takes the output of 'count' as it is, and it is damaged: .* Run without"
    ):
        toy_pipeline.run(first="multiply")
    assert result_of(toy_pipeline.run()) == 15


def test_an_output_that_is_damaged_at_once_again_ends_the_run(toy_pipeline, monkeypatch):
    first = toy_pipeline.run()
    monkeypatch.setattr(ArtifactStore, "verify", lambda store, artifact: artifact.manifest["step"] != "count")
    (first["multiply"].path / "result.json").unlink()
    with pytest.raises(StorageError, match=r"The output of 'count' is damaged just after it was made: .* --runs-dir\."):
        toy_pipeline.run()


def test_a_missing_output_that_is_damaged_is_looked_for_again(toy_pipeline, lent):
    first = toy_pipeline.run(LENDING)
    toy_pipeline.executed()
    damage(first["borrow"].path / "missing.json")
    toy_pipeline.run(LENDING, forced=["gather"])
    assert toy_pipeline.executed() == ["borrow", "gather"]


def test_a_damaged_record_is_listed_as_damaged(toy_pipeline):
    toy_pipeline.run()
    toy_pipeline.run(last="read")
    (toy_pipeline.folders.runs / "latest" / "run.json").write_bytes(b"\xff{")
    assert sorted(record["status"] for record in toy_pipeline.records()) == ["damaged", "finished"]


# Steps in the background, and steps that go on from an earlier output.


def test_the_next_steps_run_beside_one_in_the_background_and_wait_where_they_need_it(toy_pipeline):
    steps = (toy.READ, toy.COUNT, toy.ACCOMPANY, toy.MULTIPLY, toy.MULTIPLY_LATER)
    artifacts = toy_pipeline.run(steps)
    assert result_of(artifacts) == read_json(artifacts["multiply_later"].path / "result.json") == 10
    ran = toy_pipeline.executed()
    assert ran.index("multiply") < ran.index("accompanied") < len(ran) - 1
    first, second, *both, last = toy_pipeline.record()["steps"]  # as they end
    assert (first, second, {*both}, last) == ("read", "count", {"accompany", "multiply"}, "multiply_later")
    toy_pipeline.run(steps)
    assert toy_pipeline.executed() == []


def test_nothing_runs_in_the_background_of_a_step_that_is_timed(toy_pipeline):
    timed = dataclasses.replace(toy.MULTIPLY_WISH, name="timed", inputs={"count_dir": "count"}, is_timed=True)
    toy_pipeline.run((toy.READ, toy.COUNT, toy.ACCOMPANY, toy.MULTIPLY, timed))
    assert toy_pipeline.executed()[-2:] == ["accompanied", "multiply"]


def test_what_changes_a_state_and_all_it_needs_comes_before_what_only_describes(toy_pipeline):
    toy_pipeline.run((toy.READ, toy.COUNT, toy.MULTIPLY, toy.VISIT))
    assert toy_pipeline.executed() == ["read", "count", "visit", "multiply"]


@pytest.mark.parametrize("is_last", [True, False])
def test_a_failure_in_the_background_is_a_failure_of_the_run(toy_pipeline, monkeypatch, is_last):
    monkeypatch.setenv("TOY_FAIL", "1")
    with pytest.raises(DataError, match="The company was bad"):
        toy_pipeline.run((toy.READ, toy.COUNT, toy.ACCOMPANY, toy.MULTIPLY, *(() if is_last else [toy.MULTIPLY_LATER])))
    assert toy_pipeline.records()[-1]["status"] == "failed"
    monkeypatch.delenv("TOY_FAIL")
    toy_pipeline.executed()
    toy_pipeline.journal.write_text("multiply\n")
    toy_pipeline.run((toy.READ, toy.COUNT, toy.ACCOMPANY, toy.MULTIPLY, toy.MULTIPLY_LATER))
    assert toy_pipeline.executed()[1:] == ["accompany", "accompanied", "multiply"]


def test_a_failure_beside_the_background_waits_for_what_runs_there(toy_pipeline, caplog):
    toy_pipeline.set("multiply", fail=True)
    with caplog.at_level(logging.INFO), pytest.raises(DataError, match="must be a lucky one"):
        toy_pipeline.run((toy.READ, toy.COUNT, toy.ACCOMPANY, toy.MULTIPLY))
    assert "accompanied" in toy_pipeline.executed()
    assert toy_pipeline.records()[-1]["status"] == "failed"


def test_a_step_goes_on_from_its_newest_output_that_differs_in_what_may_vary(toy_pipeline):
    def before() -> int | None:
        artifacts = toy_pipeline.run((toy.READ, toy.ADD_UP, toy.MULTIPLY))
        return artifacts["count"].manifest["summary"]["before"]

    assert before() is None
    toy_pipeline.text.write_text("a rose")
    assert before() == 5
    newest = toy_pipeline.folders.store.newest("count")
    (newest.path / "count.json").write_text("7")  # damaged
    toy_pipeline.text.write_text("rose")
    assert before() in (5, 2), "7 is not what was written"


def test_an_output_of_other_code_or_options_is_not_gone_on_from(toy_pipeline, monkeypatch):
    toy_pipeline.run((toy.READ, toy.ADD_UP))
    toy_pipeline.text.write_text("a rose")
    monkeypatch.setattr(fingerprint, "of_code", lambda *modules: "other")
    artifacts = toy_pipeline.run((toy.READ, toy.ADD_UP))
    assert artifacts["count"].manifest["summary"]["before"] is None


def test_an_input_that_the_options_do_not_ask_for_is_neither_passed_nor_waited_for(toy_pipeline):
    steps = (toy.READ, toy.COUNT, toy.ACCOMPANY, toy.MULTIPLY_PERHAPS, toy.MULTIPLY)
    artifacts = toy_pipeline.run(steps)  # the step in the background ends when MULTIPLY has begun
    assert artifacts["perhaps"].manifest["summary"] == {"is_other": False}
    assert artifacts["perhaps"].manifest["inputs"].keys() == {"count_dir"}
    toy_pipeline.set("multiply", fail=True)
    artifacts = toy_pipeline.run(steps[:-1])
    assert artifacts["perhaps"].manifest["summary"] == {"is_other": True}
