"""The compiled pipeline: what its file holds, and that KFP's own runner runs it as the local runner does.

The tasks run in a copy of the folders that the image holds, as the Dockerfile names them.
"""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.artifacts.manifest import read_manifest
from components.storage.files import read_json
from pipelines import __main__ as command_line
from pipelines import fingerprint, kubeflow, local_runner
from pipelines.config import Config, override
from pipelines.flowers import STEPS
from pipelines.folders import Folders
from pipelines.kubeflow import KubeflowOptions

ROOT = Path(__file__).resolve().parents[2]
TINY = ("model.backbone=small_cnn", "model.weights=none", "model.image_size_px=32")
DRAWN = ("examples.source=synthetic", "examples.num_synthetic_per_class=10", "examples.seed=1")
IMAGE = "registry.example/flowers-python:7"
"""KFP's runner warns of an image without Python in its name."""
FLAGS = (
    *("--image", IMAGE, "--gpu", "trainer=2", "--volume", "claim=/mnt/f", "--state", "models=/mnt/f/models"),
    *("--set", "trainer.epochs=3", "trainer.hidden_units=8,4"),
)

pytestmark = [
    pytest.mark.usefixtures("own_logging"),
    pytest.mark.filterwarnings("ignore:Task .* have no effect in the current local runner:UserWarning"),
]


def parse(file: Path) -> dict[str, Any]:
    """Return a compiled file as KFP's schema reads it: an unknown field fails."""
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2

    first, *_ = yaml.safe_load_all(file.read_text())
    spec = json_format.ParseDict(first, pipeline_spec_pb2.PipelineSpec())
    return json_format.MessageToDict(spec)


def by_task(spec: dict[str, Any]) -> dict[str, Any]:
    return {task["taskInfo"]["name"]: task for task in spec["root"]["dag"]["tasks"].values()}


def containers(spec: dict[str, Any]) -> dict[str, Any]:
    executors = spec["deploymentSpec"]["executors"]
    return {step.name: executors[f"exec-{step.name.replace('_', '-')}"]["container"] for step in STEPS}


def run_locally(file: Path, root: Path) -> Path:
    """Run a compiled pipeline with KFP's own runner, a process a task; return the folder that holds the outputs."""
    from kfp import components, local

    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(root))
    components.load_component_from_file(str(file))()
    return next(root.iterdir())


@dataclass(frozen=True)
class Compiled:
    """What the command line wrote, what it printed, and which engines it had loaded before and after."""

    file: Path
    printed: str
    loaded: list[list[str]]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    file = tmp_path_factory.mktemp("compiled") / "flowers.yaml"
    script = (
        "import json, sys\n"
        "from pipelines.__main__ import main\n"
        "loaded = lambda: [name for name in ('kfp', 'tensorflow') if name in sys.modules]\n"
        "before = loaded()\n"
        "status = main(sys.argv[1:])\n"
        "print(json.dumps([before, loaded()]))\n"
        "sys.exit(status)\n"
    )
    command = [sys.executable, "-c", script, "compile", "--output", str(file), *FLAGS]
    printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    return Compiled(file, printed[0], json.loads(printed[1]))


@pytest.fixture(scope="module")
def spec(compiled: Compiled) -> dict[str, Any]:
    return parse(compiled.file)


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


def test_compile_prints_what_it_wrote_and_loads_kfp_alone(compiled, spec):
    num_parameters = len(spec["root"]["inputDefinitions"]["parameters"])
    assert compiled.printed == f"Compiled: {compiled.file} ({len(STEPS)} steps, {num_parameters} parameters)"
    assert compiled.loaded == [[], ["kfp"]]


def test_every_step_is_a_container_that_waits_for_its_inputs(spec):
    tasks = by_task(spec)
    assert sorted(tasks) == sorted(["sources", *(step.name for step in STEPS)])
    for step in STEPS:
        container = containers(spec)[step.name]
        assert container["image"] == IMAGE
        assert "pip install" not in " ".join(container["command"])
        found = tasks[step.name].get("inputs", {}).get("artifacts", {})
        producers = {name: wired["taskOutputArtifact"]["producerTask"] for name, wired in found.items()}
        assert producers == {parameter: name.replace("_", "-") for parameter, name in step.inputs.items()}


def test_a_step_that_reads_from_outside_takes_the_description_of_its_source(spec):
    """Kubeflow's cache goes by a task's parameters: with other photos in the same folder, it has another one."""
    tasks = by_task(spec)
    assert not tasks["sources"].get("dependentTasks")
    wired = {name: task.get("inputs", {}).get("parameters", {}) for name, task in tasks.items()}
    described = {name: p[f"source_of_{name}"] for name, p in wired.items() if f"source_of_{name}" in p}
    assert set(described) == {step.name for step in STEPS if step.source}
    assert described["examples"]["taskOutputParameter"] == {
        "producerTask": "sources",
        "outputParameterKey": "source_of_examples",
    }


def test_artifacts_are_typed(spec):
    definitions = {name.removeprefix("comp-"): c["outputDefinitions"] for name, c in spec["components"].items()}
    outputs = {
        name: {output: a["artifactType"]["schemaTitle"] for output, a in d.get("artifacts", {}).items()}
        for name, d in definitions.items()
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
        "description": "width of each Dense (ReLU) layer of a head; each is followed by dropout.",
    }
    assert parameters["examples_source"]["defaultValue"] == "auto"
    assert parameters["transform_horizontal_flip"]["defaultValue"] is True
    assert parameters["models_dir"]["defaultValue"] == "/mnt/f/models"
    # No folder for the schemas was named, so every run must name it.
    assert not parameters["schemas_dir"].get("isOptional")
    config = Config()
    used = {section for step in STEPS for section in step.options.values()}
    options = {f"{section}_{name}" for section in used for name in vars(getattr(config, section))}
    assert set(parameters) == options | {"models_dir", "schemas_dir"}


def test_caching_retries_and_resources_are_those_of_each_step(spec):
    tasks = by_task(spec)
    cached = {name for name, task in tasks.items() if task["cachingOptions"].get("enableCache")}
    assert cached == {step.name for step in STEPS} - {"sources", "validator", "baseline", "pusher"}
    assert {task["retryPolicy"]["maxRetryCount"] for task in tasks.values()} == {2}
    resources = {name: container["resources"] for name, container in containers(spec).items()}
    accelerators = {name: r["accelerator"] for name, r in resources.items() if "accelerator" in r}
    assert {name: (a["resourceType"], a["resourceCount"]) for name, a in accelerators.items()} == {
        "trainer": ("nvidia.com/gpu", "2")
    }
    assert resources["trainer"]["memoryRequest"] > resources["statistics"]["memoryRequest"]


def test_a_volume_is_mounted_in_every_container(compiled):
    _, platform = yaml.safe_load_all(compiled.file.read_text())
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert {name.removeprefix("exec-").replace("-", "_") for name in executors} == {"sources", *(s.name for s in STEPS)}
    # What kfp-kubernetes 2.17 writes.
    name = {"runtimeValue": {"constant": "claim"}}
    mount = {"mountPath": "/mnt/f", "constant": "claim", "pvcNameParameter": name}
    assert all(executor == {"pvcMount": [mount]} for executor in executors.values())


def test_a_step_that_changes_is_another_to_the_cache(spec, tmp_path, monkeypatch):
    of_code = fingerprint.of_code
    monkeypatch.setattr(
        fingerprint, "of_code", lambda *names: "new" if "components.model" in names else of_code(*names)
    )
    output = tmp_path / "flowers.yaml"
    kubeflow.compile_pipeline(STEPS, Config(), KubeflowOptions(), output)
    before, after = containers(spec), containers(parse(output))
    assert [name for name in after if after[name]["command"] != before[name]["command"]] == ["model"]


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


def test_the_image_is_locked_and_without_root():
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    bases = {line.split()[1] for line in lines if line.startswith("FROM")}
    assert re.fullmatch(r"python:3\.\d+-slim", ", ".join(bases)), "packages are built where they run"
    user = next(line.split()[1] for line in lines if line.startswith("USER"))
    assert all(part.isdecimal() and int(part) > 0 for part in user.split(":"))
    installs = [line for line in lines if "pip install" in line]
    assert installs
    # setuptools.txt is an excerpt of the other.
    assert all(re.search(r"--require-hashes .*-r (requirements-scale|setuptools)\.txt", line) for line in installs)


def test_the_first_tasks_make_what_the_steps_make(image, tmp_path, examples_dir):
    config = override(Config(), DRAWN)
    file = tmp_path / "first.yaml"
    kubeflow.compile_pipeline(STEPS[:2], config, KubeflowOptions(image=IMAGE), file)
    outputs = run_locally(file, tmp_path / "root")
    examples = outputs / "examples" / "output"
    manifest = read_manifest(examples)
    assert manifest["files"] == read_manifest(examples_dir)["files"]
    unkeyed = ("engine", "beam_options")
    assert manifest["options"]["options"] == {n: v for n, v in vars(config.examples).items() if n not in unkeyed}
    assert manifest["source"]["kind"] == "synthetic"
    statistics = read_manifest(outputs / "statistics" / "output")
    # A task sees no other folder than its inputs, so its manifest holds what made these.
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
    config = override(Config(), assignments)
    state = {name: str(tmp_path / name) for name in ("models", "schemas")}
    kubeflow.compile_pipeline(STEPS, config, KubeflowOptions(image=IMAGE, state=state), file)
    outputs = run_locally(file, tmp_path / "root")
    folders = Folders(runs=tmp_path / "runs", models=tmp_path / "local_models")
    run_dir, artifacts = local_runner.run(STEPS, config, folders=folders)

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
