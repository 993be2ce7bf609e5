"""What a task does with what KFP gives it: options checked, folders as the local runner leaves them, one manifest."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl

from components.artifacts.manifest import read_manifest
from components.errors import ComponentError
from components.storage.files import read_json, write_json
from components.storage.store import Store
from components.trainer import TrainerOptions
from pipelines import kubeflow_task, local_runner
from pipelines.config import Config
from pipelines.declaration import Step
from pipelines.folders import Folders
from tests.pipelines import toy

MODULE = __name__
# As KFP carries them: every number a float, a tuple a list.
NUMBERS = {name: float(v) if type(v) is int else v for name, v in asdict(TrainerOptions()).items()}
ARGUMENTS = {f"trainer_{name}": v for name, v in (NUMBERS | {"hidden_units": [64.0]}).items()}


def note(*, out_dir: Path, options: TrainerOptions, models_dir: Store) -> dict[str, Any]:
    """Write down what there was before, and what the step is given."""
    found = sorted(path.name for path in out_dir.iterdir())
    write_json(out_dir / "options.json", asdict(options))
    (out_dir / "found.txt").write_text(" ".join(found))
    (out_dir / "page.html").write_text("<!doctype html>")
    models_dir.write("visited", b"")
    return {"num_epochs": options.epochs}


def read(*, notes_dir: Path, out_dir: Path) -> dict[str, Any]:
    (out_dir / "epochs.txt").write_text(str(read_json(notes_dir / "options.json")["epochs"]))
    return {}


def look(options: TrainerOptions) -> dict[str, Any]:
    if options.seed == 13:
        raise ComponentError("There is nothing to be seen with seed 13.")
    return {"seen": ["with", options.seed]}


def visit(*, out_dir: Path, models_dir: Store, schemas_dir: Path) -> dict[str, Any]:
    path = schemas_dir / "visits.json"
    visits = 1 + (read_json(path) if path.exists() else 0)
    write_json(path, visits)
    return {"models": f"{type(models_dir).__name__} {models_dir}", "visits": visits}


NOTE = Step(
    name="note",
    function=f"{MODULE}:note",
    options={"options": "trainer"},
    source=f"{MODULE}:look",
    state={"models_dir": "models"},
)
VISIT = Step(name="visit", function=f"{MODULE}:visit", state={"models_dir": "models", "schemas_dir": "schemas"})
READ = Step(name="read", function=f"{MODULE}:read", inputs={"notes_dir": "note"})


@pytest.fixture(autouse=True)
def steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubeflow_task, "STEPS", (NOTE, READ))


def artifact(folder: Path) -> dsl.Artifact:
    return dsl.Artifact(uri=str(folder))


def run_note(folder: Path, **changes: Any) -> dsl.Artifact:
    output = artifact(folder / "notes")
    description = folder / "source_of_note"
    kubeflow_task.describe_sources(**{**ARGUMENTS, "source_of_note": str(description), **changes})
    given = {"models_dir": str(folder / "models"), "source_of_note": description.read_text()}
    kubeflow_task.run("note", output=output, **{**ARGUMENTS, **given, **changes})
    return output


def test_a_task_leaves_the_manifest_of_the_local_runner(tmp_path):
    notes, read = run_note(tmp_path), artifact(tmp_path / "read")
    kubeflow_task.run("read", output=read, notes_dir=notes)
    folders = Folders(runs=tmp_path / "runs", models=tmp_path / "local_models")
    _, artifacts = local_runner.run((NOTE, READ), Config(), folders=folders)
    for name, made in (("note", notes), ("read", read)):
        expected = artifacts[name].manifest
        manifest = read_manifest(Path(made.path))
        assert set(manifest) == set(expected)
        for entry in set(expected) - {"created", "seconds", "inputs"}:
            assert manifest[entry] == expected[entry], entry
    # Another task sees no other folder than its inputs: what made these is said in full.
    origin = read_manifest(Path(read.path))["inputs"]["notes_dir"]
    assert {**origin, **artifacts["note"].reference} == origin
    assert origin["options"]["options"]["epochs"] == TrainerOptions().epochs


def test_the_summary_is_the_metadata_that_kubeflow_shows(tmp_path):
    assert run_note(tmp_path).metadata == {"num_epochs": 10}


def test_a_task_says_that_it_stands_on_a_fallback(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(kubeflow_task, "STEPS", (toy.WISH,))
    monkeypatch.setenv("TOY_LENT", str(tmp_path / "lent"))
    output = artifact(tmp_path / "wish")
    kubeflow_task.run("wish", output=output)
    reason = output.metadata["fallback"]
    assert f"wish: FALLBACK: {reason} To choose it instead: model.weights=none." in caplog.messages


def test_the_page_is_copied_to_where_kubeflow_shows_it(tmp_path):
    run_note(tmp_path, page=dsl.HTML(uri=str(tmp_path / "page")))
    assert (tmp_path / "page").read_text() == "<!doctype html>"


def test_an_option_that_the_step_refuses_stops_the_task(tmp_path):
    with pytest.raises(ValueError, match=r"epochs must be at least 1. Received: 0"):
        run_note(tmp_path, trainer_epochs=0.0)
    with pytest.raises(ValueError, match=r"trainer.epochs takes a value of type int. Received: '1.5'"):
        run_note(tmp_path, trainer_epochs=1.5)
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_cannot_be_had_stops_the_pipeline_before_any_step(tmp_path):
    with pytest.raises(ComponentError, match="nothing to be seen"):
        run_note(tmp_path, trainer_seed=13.0)
    assert list(tmp_path.iterdir()) == []


def test_what_is_kept_at_a_url_is_fetched_and_what_changes_is_written_back(tmp_path, monkeypatch):
    monkeypatch.setattr(kubeflow_task, "STEPS", (VISIT,))
    for number in (1, 2):
        monkeypatch.setenv("PIPELINE_CACHE", str(tmp_path / f"container_{number}"))
        output = artifact(tmp_path / f"visit_{number}")
        kubeflow_task.run("visit", output=output, models_dir="memory://models", schemas_dir="memory://schemas")
        assert output.metadata == {"models": "Bucket memory://models", "visits": number}


@pytest.mark.parametrize(("resumable", "found"), [(False, ""), (True, "half")], ids=["anew", "resumed"])
def test_a_retry_goes_on_only_where_the_step_can(tmp_path, monkeypatch, resumable, found):
    monkeypatch.setattr(kubeflow_task, "STEPS", (replace(NOTE, resumable=resumable),))
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "half").touch()
    (tmp_path / "notes" / ".torn.1.tmp").touch()
    run_note(tmp_path)
    assert (tmp_path / "notes" / "found.txt").read_text() == found
