"""The command line: what it prints, and an exit status that scripts can rely on."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from components.artifacts.baseline import read_baseline
from components.artifacts.blessing import Check, write_blessing
from components.artifacts.litert_evaluation import LiteRTEvaluation, write_litert_evaluation
from components.artifacts.parity import Parity, write_parity
from components.storage.files import read_json, write_json
from components.storage.models import LINEAGE, open_models
from pipelines import __main__ as command_line
from pipelines import commands, fingerprint
from pipelines.declaration import Step
from pipelines.runs import RunRecord, list_runs
from tests.s3 import S3
from tests.signing_keys import write_key

MODULE = __name__
MODEL_BYTES = 100


# A toy pipeline with the real pusher. Its options are those of the real configuration.


def export(*, out_dir: Path, options) -> dict:
    (out_dir / "variables").mkdir()
    (out_dir / "assets.extra").mkdir()
    (out_dir / "saved_model.pb").write_text(f"graph {options.num_warmup_images}")
    (out_dir / "variables" / "variables.index").write_bytes(b"w" * MODEL_BYTES)
    spec = {
        "model_name": options.model_name,
        "data": {"source": "photos", "resolved": "photos", "fallback": None},
        "weights": {"source": "none", "fallback": None},
    }
    write_json(out_dir / "assets.extra" / "model_spec.json", spec)
    return {"size_mb": 0.1}


def evaluate(*, export_dir: Path, baseline_dir: Path, out_dir: Path, options) -> dict:
    version = read_baseline(baseline_dir)["version"]
    baseline = None if version is None else {"version": version, "accuracy": 0.75, "num_examples": 4}
    write_json(out_dir / "metrics.json", {"accuracy": 0.75, "baseline": baseline})
    check = Check(name="min_accuracy", passed=options.min_accuracy <= 0.75, message="accuracy 0.75 is too low")
    write_blessing(out_dir, [check], validator="evaluator")
    return {"accuracy": 0.75}


def serve(*, export_dir: Path, out_dir: Path) -> dict:
    write_blessing(out_dir, [], validator="infra_validator")
    return {}


def convert(*, export_dir: Path, out_dir: Path) -> dict:
    write_litert_evaluation(out_dir, LiteRTEvaluation(saved_model=None, files={}))
    write_parity(out_dir, Parity(reference="keras", forms=[]))
    return {}


def report(*, push_dir: Path, out_dir: Path) -> dict:
    (out_dir / "plots").mkdir()
    (out_dir / "plots" / "accuracy.png").touch()
    (out_dir / "report.html").write_text("<title>Report</title>")
    return {}


def interrupt(*, push_dir: Path, out_dir: Path) -> dict:
    raise KeyboardInterrupt


STEPS = (
    Step(name="export", function=f"{MODULE}:export", options={"options": "export"}),
    Step(
        name="baseline",
        function="components.baseline:find",
        inputs={"export_dir": "export"},
        state={"models_dir": "models"},
    ),
    Step(
        name="evaluator",
        function=f"{MODULE}:evaluate",
        inputs={"export_dir": "export", "baseline_dir": "baseline"},
        options={"options": "evaluator"},
    ),
    Step(name="infra_validator", function=f"{MODULE}:serve", inputs={"export_dir": "export"}),
    Step(name="litert", function=f"{MODULE}:convert", inputs={"export_dir": "export"}),
    Step(
        name="pusher",
        function="components.pusher:push",
        inputs={
            "export_dir": "export",
            "evaluation_dir": "evaluator",
            "infra_validation_dir": "infra_validator",
            "litert_dir": "litert",
            "litert_evaluation_dir": "litert",
            "parity_dir": "litert",
        },
        options={"options": "pusher"},
        state={"models_dir": "models"},
    ),
    Step(name="report", function=f"{MODULE}:report", inputs={"push_dir": "pusher"}),
)
export_alone = export
INTERRUPTED = (*STEPS[:-1], Step(name="report", function=f"{MODULE}:interrupt", inputs={"push_dir": "pusher"}))


class Terminal:
    """Runs commands in folders of their own; keeps what they printed."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.runs = folder / "runs"
        self.models = folder / "models"
        self.out = self.err = ""
        self._capsys = capsys

    def __call__(self, command: str, *arguments: str) -> int:
        folders = ["--runs-dir", str(self.runs), "--models-dir", str(self.models)]
        self._capsys.readouterr()
        status = command_line.main([command, *arguments, *folders])
        self.out, self.err = self._capsys.readouterr()
        return status

    def versions(self) -> list[int]:
        return open_models(self.models).versions("flowers")

    def records(self) -> list[RunRecord]:
        return list(list_runs(self.runs))


@pytest.fixture
def terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str], own_logging: None) -> Terminal:
    return Terminal(tmp_path, capsys)


@pytest.fixture
def toy_terminal(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setattr(commands, "STEPS", STEPS)
    return terminal


# Running.


def test_run_prints_where_the_model_and_the_report_are(toy_terminal):
    assert toy_terminal("run") == 0
    (record,) = toy_terminal.records()
    run_dir = toy_terminal.runs / record["run"]
    assert toy_terminal.out == f"Report: {run_dir}/report.html\nPushed: {toy_terminal.models}/flowers/1\n"
    assert read_json(run_dir / "metrics.json") == {"accuracy": 0.75, "baseline": None}
    assert (run_dir / "plots" / "accuracy.png").exists()
    assert "export: finished in" in toy_terminal.err
    # A second run does nothing and ends well.
    assert toy_terminal("run") == 0
    assert f"Pushed: {toy_terminal.models}/flowers/1\n" in toy_terminal.out
    assert "report: cached" in toy_terminal.err
    assert toy_terminal.versions() == [1]


def test_a_signing_key_stays_where_it_is(toy_terminal, tmp_path):
    key = write_key(tmp_path).private
    assert toy_terminal("run", "--set", f"pusher.signing_key={key}") == 0
    secret = key.read_text().splitlines()[1].encode()
    assert secret in key.read_bytes()
    written = [path for folder in (toy_terminal.runs, toy_terminal.models) for path in folder.rglob("*")]
    assert toy_terminal.models / "flowers" / "1" / "model.sig" in written
    assert [path for path in written if path.is_file() and secret in path.read_bytes()] == []
    assert secret.decode() not in toy_terminal.out + toy_terminal.err


def test_a_model_that_is_not_pushed_ends_with_3(toy_terminal):
    assert toy_terminal("run", "--set", "evaluator.min_accuracy=0.9") == commands.NOT_PUSHED == 3
    assert toy_terminal.out.endswith("Not pushed: not blessed: accuracy 0.75 is too low\n")
    (record,) = toy_terminal.records()
    assert record["status"] == "finished"


def test_a_run_that_ends_before_the_pusher_ends_well(toy_terminal):
    assert toy_terminal("run", "--to", "litert") == 0
    assert toy_terminal.out == ""
    assert toy_terminal("run", "--from", "pusher") == 0


def test_an_interrupted_run_ends_with_130_and_names_the_command_that_goes_on(terminal, monkeypatch):
    monkeypatch.setattr(commands, "STEPS", INTERRUPTED)
    assert terminal("run") == 130
    assert terminal.err.endswith("error: interrupted; the same command goes on where this run was\n")
    (record,) = terminal.records()
    assert record["status"] == "failed"


# Wrong commands.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "trainer.epohcs=2"], "Unknown option 'trainer.epohcs'. Did you mean 'trainer.epochs'?"),
        (["--set", "trainer.epochs=two"], "trainer.epochs takes a value of type int. Received: 'two'"),
        (["--set", "trainer.epochs=0"], "trainer: epochs must be at least 1. Received: 0"),
        (
            ["--set", "trainer.epochs"],
            "--set takes section.option=value. Received: 'trainer.epochs'. Example: trainer.epochs=2",
        ),
        (["--set", "classical.num_trees=2"], "Unknown option 'classical.num_trees'."),
        (["--from", "trianer"], "The pipeline has no step 'trianer'. Its steps: examples, statistics, "),
        (["--to", "trianer"], "The pipeline has no step 'trianer'. Its steps: examples, statistics, "),
        (["--force", "trianer"], "The pipeline has no step 'trianer'. Its steps: examples, statistics, "),
        (["--from", "export", "--to", "trainer"], "--from must not come after --to. Received: --from export"),
    ],
)
def test_a_wrong_command_ends_with_2_before_anything_is_written(terminal, arguments, message):
    assert terminal("run", *arguments) == 2
    assert terminal.err.startswith(f"error: {message}")
    assert not terminal.runs.exists()


@pytest.mark.parametrize("arguments", [[], ["train"], ["run", "--what"], ["show", "one"], ["run", "--set"]])
def test_a_command_that_does_not_exist_ends_with_2_and_the_usage(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        command_line.main(arguments)
    assert ended.value.code == 2
    assert "usage: python -m pipelines" in capsys.readouterr().err


# Failures.


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("examples.source=/nowhere/photos", r"/nowhere/photos"),
        ("model.weights=/nowhere/weights.h5", r"The weights file does not exist: /nowhere/weights\.h5"),
        ("pusher.signing_key=/nowhere/key.pem", r"What signs must be readable\. /nowhere/key\.pem"),
    ],
)
def test_a_missing_source_ends_with_1_before_anything_is_written(terminal, assignment, message):
    assert terminal("run", "--set", "examples.source=synthetic", assignment) == 1
    assert re.match(f"error: .*{message}", terminal.err)
    assert terminal.err.count("\n") == 1
    assert not terminal.runs.exists()


def test_from_without_an_earlier_run_ends_with_1_and_says_what_to_do(terminal):
    assert terminal("run", "--from", "trainer") == 1
    assert "--from trainer takes what the newest run made before it" in terminal.err
    assert terminal.err.endswith("Run once without --from.\n")


def test_of_two_interleaved_runs_the_later_one_is_compared_with_what_the_other_pushed(toy_terminal):
    runs = toy_terminal.runs
    mine = ["--set", "export.num_warmup_images=2"]
    assert toy_terminal("run", *mine, "--to", "litert") == 0
    toy_terminal.runs = runs.with_name("others")
    assert toy_terminal("run") == 0
    toy_terminal.runs = runs
    assert toy_terminal("run", *mine, "--from", "pusher") == 3
    assert "Not pushed: version 1 was pushed meanwhile; run again, without --from, to compare" in toy_terminal.out
    assert toy_terminal.versions() == [1]
    assert toy_terminal("run", *mine) == 0
    assert "evaluator: started (changed: inputs)" in toy_terminal.err
    assert read_json(runs / "latest" / "metrics.json")["baseline"]["version"] == 1
    assert toy_terminal.versions() == [1, 2]


@pytest.mark.parametrize("folder", ["runs", "models"])
def test_an_output_folder_that_cannot_be_written_is_named_before_anything_runs(toy_terminal, folder):
    file = toy_terminal.runs.with_name("file")
    file.touch()
    setattr(toy_terminal, folder, file / folder)
    assert toy_terminal("run") == 1
    assert toy_terminal.err.startswith(f"error: {file / folder}")
    assert toy_terminal.err.endswith(
        ": Not a directory. A file is where a folder must be: move it away, or choose another folder.\n"
    )
    assert toy_terminal.err.count("\n") == 1


def test_a_full_disk_for_models_leaves_no_version_and_a_clear_error(toy_terminal, small_disk, monkeypatch):
    monkeypatch.setattr(sys.modules[MODULE], "MODEL_BYTES", 400_000)
    small_disk("models")
    assert toy_terminal("run") == 1
    (error,) = [line for line in toy_terminal.err.splitlines() if line.startswith("error: ")]
    assert "A model is pushed whole or not at all" in error
    assert "No space left on device" in error
    assert f"Free some space in {toy_terminal.models}" in error
    assert error.endswith("; the same command goes on from here.")
    assert toy_terminal.versions() == []
    assert not (toy_terminal.models / ".staging").exists()
    subprocess.run(["mount", "-o", "remount,size=2m", str(toy_terminal.models)], check=True)
    assert toy_terminal("run") == 0
    assert "evaluator: cached" in toy_terminal.err
    assert toy_terminal.versions() == [1]


def test_a_full_disk_for_runs_ends_with_a_clear_error_and_goes_on_later(toy_terminal, small_disk, monkeypatch):
    monkeypatch.setattr(sys.modules[MODULE], "MODEL_BYTES", 400_000)
    small_disk("runs")
    assert toy_terminal("run") == 1
    assert f"No space left on device. Free some space in {toy_terminal.runs}" in toy_terminal.err
    subprocess.run(["mount", "-o", "remount,size=2m", str(toy_terminal.runs)], check=True)
    assert toy_terminal("run") == 0
    assert (toy_terminal.models / "flowers" / "1" / "variables" / "variables.index").stat().st_size == 400_000


# Afterwards.


def test_list_shows_every_run(toy_terminal):
    toy_terminal("run", "--to", "export", "--set", "examples.source=synthetic")
    toy_terminal("run")
    assert toy_terminal("list") == 0
    header, *lines = toy_terminal.out.splitlines()
    assert header.split() == ["run", "status", "seconds", "accuracy", "data"]
    rows = {line.split()[0]: line.split()[1:] for line in lines}
    assert len(rows) == 2
    for record in toy_terminal.records():
        accuracy, data = ("0.7500", "auto") if "pusher" in record["steps"] else ("–", "synthetic")
        assert rows[record["run"]] == ["finished", f"{record['seconds']:.0f}", accuracy, data]


def test_list_marks_damaged_records_and_metrics_and_goes_on(toy_terminal):
    for _ in range(3):
        toy_terminal("run")
    first, second, third = toy_terminal.records()
    (toy_terminal.runs / first["run"] / "run.json").write_text('{"run": ')
    (toy_terminal.runs / second["run"] / "metrics.json").write_text("")
    assert toy_terminal("list") == 0
    rows = {line.split()[0]: line.split()[1:] for line in toy_terminal.out.splitlines()[1:]}
    assert rows[first["run"]] == ["damaged", "–", "0.7500", "–"]
    assert rows[second["run"]][2:] == ["damaged", "auto"]
    assert rows[third["run"]][2:] == ["0.7500", "auto"]


def test_a_reader_that_has_seen_enough_ends_the_command_quietly(toy_terminal):
    toy_terminal("run")
    folders = ["--runs-dir", str(toy_terminal.runs), "--models-dir", str(toy_terminal.models)]
    command = [sys.executable, "-m", "pipelines", "show", *folders]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=fingerprint.ROOT)
    assert process.stdout is not None
    process.stdout.close()
    _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (command_line.BROKEN_PIPE, b"")


# What stands on a fallback.


def fetch(*, out_dir: Path) -> dict:
    (out_dir / "weights").touch()
    return {"weights": "none", "fallback": "No network. Random weights instead."}


WITH_FALLBACK = (
    Step(name="model", function=f"{MODULE}:fetch", fallback_option="model.weights=none"),
    *(replace(step, inputs={**step.inputs, "model_dir": "model"}) if step.name == "export" else step for step in STEPS),
)


def test_a_run_on_a_fallback_ends_with_it_every_time(toy_terminal, monkeypatch):
    monkeypatch.setattr(commands, "STEPS", WITH_FALLBACK)
    monkeypatch.setattr(sys.modules[MODULE], "export", lambda model_dir, **arguments: export_alone(**arguments))
    for arguments in ([], [], ["--from", "export"], ["--to", "litert"]):
        assert toy_terminal("run", *arguments) == 0
        lines = toy_terminal.out.splitlines()[1:] if "--to" not in arguments else toy_terminal.out.splitlines()
        assert lines[:2] == [
            "FALLBACK: model: No network. Random weights instead.",
            "  The next run tries again. To choose it instead: WEIGHTS=none or --set model.weights=none",
        ]
        assert toy_terminal.err.count("model: FALLBACK, tried again in every run: No network.") == 1
    assert toy_terminal("list") == 0
    assert all(line.endswith("auto (fallback: model)") for line in toy_terminal.out.splitlines()[1:])
    assert toy_terminal("show") == 0
    assert toy_terminal.out.splitlines()[1] == "FALLBACK: model: No network. Random weights instead."


# What nobody needs.


def test_prune_says_what_it_would_remove_removes_it_and_the_next_run_is_cached(toy_terminal):
    toy_terminal("run", "--set", "export.num_warmup_images=3", "--to", "litert")
    toy_terminal("run")
    files = sorted(toy_terminal.runs.rglob("*"))
    assert toy_terminal("prune", "--keep", "1", "--dry-run") == 0
    dry = toy_terminal.out
    assert "Would remove: 5 artifacts, 0.0 MB. Kept: those of the newest runs (1)" in dry
    assert sorted(toy_terminal.runs.rglob("*")) == sorted({*files, toy_terminal.runs / ".in_use.lock"})
    assert toy_terminal("prune", "--keep", "1") == 0
    assert toy_terminal.out == dry.replace("Would remove", "Removed")
    assert toy_terminal("prune", "--keep", "1") == 0
    assert toy_terminal.out.startswith("Removed: 0 artifacts")
    assert toy_terminal("run") == 0
    assert "report: cached" in toy_terminal.err


@pytest.mark.parametrize(
    ("arguments", "message"), [(["--keep", "-1"], "--keep takes a number of runs, 0 or more. Received: -1")]
)
def test_prune_refuses_a_wrong_number(toy_terminal, arguments, message):
    assert toy_terminal("prune", *arguments) == 2
    assert toy_terminal.err == f"error: {message}\n"


def test_prune_of_runs_at_a_url_ends_with_2(remote_terminal):
    assert remote_terminal("prune") == 2
    assert "prune removes artifacts of this machine" in remote_terminal.err


def test_list_of_no_runs_is_an_empty_table(terminal):
    assert terminal("list") == 0
    assert terminal.out == "run  status  seconds  accuracy  data\n"


def test_show_draws_where_a_model_comes_from(toy_terminal):
    toy_terminal("run")
    toy_terminal("run", "--set", "export.num_warmup_images=1")
    assert toy_terminal("show") == 0
    first, model, evaluation, _, _, _, served, above, converted, *_ = toy_terminal.out.splitlines()
    assert re.fullmatch(r"flowers version 2, pushed \S+", first)
    assert re.fullmatch(r"├─ export [0-9a-f]{8}  size_mb 0\.1", model)
    assert re.fullmatch(r"├─ evaluator [0-9a-f]{8}  accuracy 0\.75", evaluation)
    assert re.fullmatch(r"├─ infra_validator [0-9a-f]{8}", served)
    assert re.fullmatch(r"│  └─ export [0-9a-f]{8}  size_mb 0\.1", above)
    assert re.fullmatch(r"└─ litert [0-9a-f]{8}", converted)
    assert toy_terminal("show", "1") == 0
    assert toy_terminal.out.startswith("flowers version 1, pushed ")
    assert toy_terminal("show", "1", "--json") == 0
    origin = json.loads(toy_terminal.out)
    lineage = read_json(toy_terminal.models / "flowers" / "1" / LINEAGE)
    assert origin == {"model_name": "flowers", **lineage, "releases": []}


def test_show_names_the_versions_there_are(toy_terminal):
    assert toy_terminal("show") == 1
    assert toy_terminal.err == (
        f"error: No pushed model flowers in {toy_terminal.models}; versions there: none. Train one with `make train`.\n"
    )
    toy_terminal("run")
    assert toy_terminal("show", "7") == 1
    assert "No pushed model flowers version 7" in toy_terminal.err
    assert "versions there: 1." in toy_terminal.err
    assert toy_terminal("show", "--model-name", "birds") == 1


def test_show_of_a_model_that_others_put_there_says_so(terminal):
    (terminal.models / "flowers" / "3").mkdir(parents=True)
    (terminal.models / "flowers" / "3" / "saved_model.pb").touch()
    assert terminal("show") == 1
    assert "error: The model was not pushed by this pipeline" in terminal.err


def test_rollback_goes_back_to_the_version_before(toy_terminal):
    toy_terminal("run")
    again = ("run", "--set", "export.num_warmup_images=1")
    toy_terminal(*again)
    assert toy_terminal("rollback") == 0
    assert toy_terminal.out == "Withdrew version 2 of flowers; version 1 is the newest now.\n"
    assert toy_terminal.versions() == [1]
    assert toy_terminal(*again) == 3
    assert "Not pushed: withdrawn by a rollback as version 2" in toy_terminal.out
    assert toy_terminal("rollback") == 1
    assert "holds version 1 alone" in toy_terminal.err
    assert toy_terminal(*again, "pusher.push_withdrawn=true") == 0
    assert toy_terminal.versions() == [1, 3]


# Runs and models at URLs.


@pytest.fixture
def remote_terminal(toy_terminal: Terminal, s3: S3) -> Terminal:
    toy_terminal.runs, toy_terminal.models = f"{s3.url}/runs", f"{s3.url}/models"  # type: ignore[assignment]
    return toy_terminal


def test_every_command_takes_urls(remote_terminal, s3, tmp_path):
    assert remote_terminal("run") == 0
    assert f"Pushed: {s3.url}/models/flowers/1\n" in remote_terminal.out
    assert remote_terminal("list") == 0
    assert " finished " in remote_terminal.out
    assert remote_terminal("run", "--set", "export.num_warmup_images=3") == 0
    assert remote_terminal("rollback") == 0
    assert remote_terminal.out == "Withdrew version 2 of flowers; version 1 is the newest now.\n"
    assert remote_terminal("show") == 0
    assert remote_terminal.out.startswith("flowers version 1, pushed ")
    assert remote_terminal("fetch", "--to", str(tmp_path / "here")) == 0
    assert remote_terminal.out == f"Version 1 of flowers is the newest in {tmp_path / 'here'} now.\n"
    assert open_models(tmp_path / "here").versions("flowers") == [1]


def test_a_bucket_that_cannot_be_reached_ends_with_1_before_any_step(remote_terminal, s3, monkeypatch):
    s3.unplug(monkeypatch)
    assert remote_terminal("run") == 1
    assert re.match(r"error: s3://.* cannot be used: .*Could not connect.*; the same command", remote_terminal.err)
    assert "started" not in remote_terminal.err


def test_an_unknown_kind_of_url_ends_with_1(remote_terminal):
    remote_terminal.runs = "s4://bucket/runs"
    assert remote_terminal("run") == 1
    assert remote_terminal.err.startswith("error: No store is known for s4://.")
