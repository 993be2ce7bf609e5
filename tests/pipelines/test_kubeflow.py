"""The compiled pipeline: what its file says, and that KFP's own runner carries it out as the local runner does.

The tasks run in a copy of the folders that the image holds, as the Dockerfile names them.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.files import read_json
from components.lineage import read_manifest
from pipelines import __main__ as command_line
from pipelines import kubeflow, local_runner
from pipelines.config import Config, override
from pipelines.flowers import STEPS
from pipelines.kubeflow import KubeflowOptions
from pipelines.local_runner import Folders

ROOT = Path(__file__).resolve().parents[2]
TINY = ("model.backbone=small_cnn", "model.weights=none", "model.image_size_px=32")
DRAWN = ("examples.source=synthetic", "examples.num_synthetic_per_class=10", "examples.seed=1")
IMAGE = "registry.example/flowers-python:7"
"""KFP's runner warns of an image whose name does not say Python."""

pytestmark = [
    pytest.mark.usefixtures("own_logging"),
    pytest.mark.filterwarnings("ignore:Task .* have no effect in the current local runner:UserWarning"),
]


def compile_with(output: Path, *arguments: str) -> dict[str, Any]:
    """Compile on the command line and give the file as KFP's schema reads it: an unknown field fails."""
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2

    assert command_line.main(["compile", "--output", str(output), "--image", IMAGE, *arguments]) == 0
    spec = json_format.ParseDict(yaml.safe_load(output.read_text()), pipeline_spec_pb2.PipelineSpec())
    return json_format.MessageToDict(spec)


def run_locally(file: Path, root: Path) -> Path:
    """Run a compiled pipeline with KFP's own runner, a process a task; give the folder that holds the outputs."""
    from kfp import components, local

    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(root))
    components.load_component_from_file(str(file))()
    return next(root.iterdir())


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    output = tmp_path_factory.mktemp("compiled") / "flowers.yaml"
    return compile_with(
        output, "--gpu", "trainer=2", "--set", "trainer.epochs=3", "trainer.hidden_units=8,4", "--state", "models=/m"
    )


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work where the image would: in a folder with what the Dockerfile copies, less what .dockerignore leaves out."""
    kept = re.findall(r"^!(.*)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    copied = re.findall(r"^COPY (\S+) (\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    app = tmp_path / "app"
    app.mkdir()
    for source, target in copied:
        assert source in kept
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, app / target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / source, app / target)
    monkeypatch.chdir(app)
    return app


def test_every_step_is_a_container_that_waits_for_its_inputs(spec):
    tasks = {task["taskInfo"]["name"]: task for task in spec["root"]["dag"]["tasks"].values()}
    assert sorted(tasks) == sorted(step.name for step in STEPS)
    executors = spec["deploymentSpec"]["executors"]
    for step in STEPS:
        key = step.name.replace("_", "-")
        container = executors[f"exec-{key}"]["container"]
        assert container["image"] == IMAGE
        assert "pip install" not in " ".join(container["command"])
        found = tasks[step.name].get("inputs", {}).get("artifacts", {})
        producers = {name: wired["taskOutputArtifact"]["producerTask"] for name, wired in found.items()}
        assert producers == {parameter: name.replace("_", "-") for parameter, name in step.inputs.items()}


def test_artifacts_are_typed(spec):
    outputs = {
        name.removeprefix("comp-"): {
            o: a["artifactType"]["schemaTitle"] for o, a in c["outputDefinitions"]["artifacts"].items()
        }
        for name, c in spec["components"].items()
    }
    assert outputs["examples"] == {"output": "system.Dataset"}
    assert outputs["export"] == {"output": "system.Model"}
    assert outputs["evaluator"] == {"output": "system.Metrics"}
    assert outputs["report"] == {"output": "system.Artifact", "page": "system.HTML"}


def test_options_are_parameters_with_the_configuration_as_defaults(spec):
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    assert parameters["trainer_epochs"]["defaultValue"] == 3
    assert parameters["trainer_hidden_units"] == {
        "parameterType": "LIST",
        "defaultValue": [8, 4],
        "isOptional": True,
        "description": "width of each Dense (ReLU) layer of the head; each is followed by dropout.",
    }
    assert parameters["examples_source"]["defaultValue"] == "auto"
    assert parameters["transform_horizontal_flip"]["defaultValue"] is True
    assert parameters["models_dir"]["defaultValue"] == "/m"
    # Where the schemas are kept was not said, so every run must say it.
    assert not parameters["schemas_dir"].get("isOptional")
    config = Config()
    used = {section for step in STEPS for section in step.options.values()}
    options = {f"{section}_{name}" for section in used for name in vars(getattr(config, section))}
    assert set(parameters) == options | {"models_dir", "schemas_dir"}


def test_caching_retries_and_resources_are_those_of_each_step(spec):
    tasks = {task["taskInfo"]["name"]: task for task in spec["root"]["dag"]["tasks"].values()}
    cached = {name for name, task in tasks.items() if task["cachingOptions"].get("enableCache")}
    assert cached == {step.name for step in STEPS} - {"validator", "baseline", "pusher"}
    assert {task["retryPolicy"]["maxRetryCount"] for task in tasks.values()} == {2}
    executors = spec["deploymentSpec"]["executors"]
    resources = {name.removeprefix("exec-"): e["container"]["resources"] for name, e in executors.items()}
    accelerated = {name: r["accelerator"] for name, r in resources.items() if "accelerator" in r}
    assert list(accelerated) == ["trainer"]
    assert accelerated["trainer"]["resourceType"] == "nvidia.com/gpu"
    assert accelerated["trainer"]["resourceCount"] == "2"
    assert resources["trainer"]["memoryRequest"] > resources["statistics"]["memoryRequest"]


def test_a_step_that_changes_is_another_to_the_cache(tmp_path, monkeypatch):
    before = compile_with(tmp_path / "before.yaml")["deploymentSpec"]["executors"]
    of_code = kubeflow.fingerprint.of_code
    monkeypatch.setattr(
        kubeflow.fingerprint, "of_code", lambda *modules: "new" if "components.model" in modules else of_code(*modules)
    )
    after = compile_with(tmp_path / "after.yaml")["deploymentSpec"]["executors"]
    assert [name for name in after if after[name] != before[name]] == ["exec-model"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "trainer.epoch=2"], "Did you mean 'trainer.epochs'?"),
        (["--set", "trainer.epochs=0"], "epochs must be at least 1"),
        (["--gpu", "traner=1"], "The pipeline has no step 'traner'. It has: baseline,"),
        (["--gpu", "trainer"], "--gpu takes NAME=VALUE, such as trainer=1. Received: 'trainer'"),
        (["--gpu", "trainer=0"], "--gpu takes a whole number of at least 1 for a step. Received: trainer=0"),
        (["--state", "model=/m"], "The pipeline has no state 'model'. It has: models, schemas."),
        (["--retries", "-1"], "--retries must be at least 0. Received: -1"),
        (["--output", "flowers.json"], "--output must end in .yaml. Received: 'flowers.json'"),
    ],
    ids=str,
)
def test_a_wrong_command_ends_with_2_and_writes_nothing(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command_line.main(["compile", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_without_kfp_the_way_to_install_it_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "kfp", None)
    assert command_line.main(["compile", "--output", str(tmp_path / "flowers.yaml")]) == 1
    assert "compile needs kfp, which is not installed. Run: make scale" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_named(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert command_line.main(["compile", "--output", str(tmp_path / "file" / "flowers.yaml")]) == 1
    assert "Choose another file: --output" in capsys.readouterr().err


def test_kfp_is_loaded_when_needed_and_tensorflow_not_at_all(tmp_path):
    script = (
        "import sys\n"
        "from pipelines.__main__ import main\n"
        "assert 'kfp' not in sys.modules\n"
        f"assert main(['compile', '--output', {str(tmp_path / 'flowers.yaml')!r}]) == 0\n"
        "assert 'kfp' in sys.modules and 'tensorflow' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def test_the_image_is_locked_and_without_root():
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert re.fullmatch(r"FROM python:3\.\d+-slim", next(line for line in lines if line.startswith("FROM")))
    user = next(line.split()[1] for line in lines if line.startswith("USER"))
    assert all(part.isdecimal() and int(part) > 0 for part in user.split(":"))
    installs = [line for line in lines if "pip install" in line]
    assert all("--require-hashes" in line and "requirements-scale.txt" in line for line in installs)
    assert installs


def test_the_first_tasks_make_what_the_steps_make(image, tmp_path, examples_dir):
    config = override(Config(), DRAWN)
    file = tmp_path / "first.yaml"
    kubeflow.compile_pipeline(STEPS[:2], config, KubeflowOptions(image=IMAGE), file)
    outputs = run_locally(file, tmp_path / "root")
    examples = outputs / "examples" / "output"
    made = {p.name: p.read_bytes() for p in examples.iterdir()}
    manifest = read_manifest(examples)
    assert made.pop("manifest.json")
    assert made == {p.name: p.read_bytes() for p in examples_dir.iterdir()}
    assert manifest["options"]["options"] == {**vars(config.examples)}
    assert manifest["source"]["kind"] == "synthetic"
    statistics = read_manifest(outputs / "statistics" / "output")
    # A task sees no other folder than its inputs, so what made these is written down here.
    assert statistics["inputs"]["examples_dir"]["digest"] == manifest["digest"]
    assert statistics["inputs"]["examples_dir"]["source"] == manifest["source"]
    shown = read_json(outputs / "examples" / "executor_output.json")["artifacts"]["output"]["artifacts"][0]
    assert shown["metadata"]["num_classes"] == 5


@pytest.mark.slow
def test_the_whole_pipeline_ends_in_the_metrics_of_the_local_runner(image, tmp_path):
    options = (*DRAWN, *TINY, "trainer.hidden_units=16,", "trainer.epochs=4", "trainer.learning_rate=0.01")
    generous = ("evaluator.min_accuracy=0", "litert_evaluator.min_agreement=0", "litert_evaluator.max_accuracy_drop=1")
    assignments = (*options, *generous, "examples.num_synthetic_per_class=20")
    file = tmp_path / "flowers.yaml"
    state = (f"models={tmp_path / 'models'}", f"schemas={tmp_path / 'schemas'}")
    compile_with(file, "--set", *assignments, "--state", *state)
    outputs = run_locally(file, tmp_path / "root")
    folders = Folders(runs=tmp_path / "runs", models=tmp_path / "local_models")
    run_dir, artifacts = local_runner.run(STEPS, override(Config(), assignments), folders=folders)

    assert read_json(outputs / "evaluator" / "output" / "metrics.json") == read_json(run_dir / "metrics.json")
    for step in STEPS:
        manifest = read_manifest(outputs / step.name.replace("_", "-") / "output")
        assert manifest["options"] == artifacts[step.name].manifest["options"]
    assert (tmp_path / "models" / "flowers" / "1" / "saved_model.pb").is_file()
    assert (outputs / "report" / "page").read_text().startswith("<!")
    # The lineage of the pushed model goes back to the photos.
    lineage = read_json(tmp_path / "models" / "flowers" / "1" / "assets.extra" / "lineage.json")
    trained = lineage["model"]["inputs"]["training_dir"]
    assert trained["inputs"]["features_dir"]["inputs"]["examples_dir"]["source"] == {"kind": "synthetic"}
