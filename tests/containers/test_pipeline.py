"""The pipeline's image: every step of the compiled pipeline and bulk inference run in it, read-only and as nobody."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from components.artifacts.manifest import read_manifest
from components.storage.files import read_json
from pipelines import kubeflow
from pipelines.config import Config, override
from pipelines.flowers import STEPS
from pipelines.kubeflow import KubeflowOptions
from tests import tiny_pipeline
from tests.containers.docker import RESTRICTED, ROOT, docker

NOBODY = 65534
USER = f"{os.getuid() or NOBODY}:{os.getgid() or NOBODY}"
RIGHTS = {"user": USER, "read_only": True, "cap_drop": ["ALL"], "security_opt": ["no-new-privileges"]}
INFER_S = 300

pytestmark = [
    pytest.mark.containers,
    pytest.mark.filterwarnings("ignore:Task .* have no effect in the current local runner:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*base_image.*python:UserWarning"),
]


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder that whoever runs in a container may write to."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


@pytest.mark.slow
def test_every_step_of_the_compiled_pipeline_runs_in_the_image(images: dict[str, str], shared: Path) -> None:
    """KFP's own runner for Docker, a container a task, none with a network: from drawn flowers to a pushed model."""
    from kfp import components, local

    file = shared / "flowers.yaml"
    state = {name: str(shared / "state" / name) for name in ("models", "schemas")}
    options = KubeflowOptions(image=images["pipeline"], state=state)
    kubeflow.compile_pipeline(STEPS, override(Config(), tiny_pipeline.assignments()), options, file)
    runner = local.DockerRunner(**RIGHTS, tmpfs={"/tmp": ""}, network_mode="none")
    local.init(runner, pipeline_root=str(shared))
    components.load_component_from_file(str(file))()

    outputs = next(shared.glob("flowers-*"))
    for step in STEPS:
        assert not read_manifest(outputs / step.name.replace("_", "-") / "output").get("missing")
    validation = read_json(outputs / "infra-validator" / "output" / "blessing.json")
    assert validation["blessed"]
    assert len(validation["checks"]) == 5
    pushed = shared / "state" / "models"
    assert (pushed / "flowers" / "1" / "saved_model.pb").is_file()
    assert (pushed / "tflite" / "1" / "flowers_int8.tflite").is_file()
    assert (outputs / "report" / "page").read_text().startswith("<!")


@pytest.mark.parametrize("runner", ["local", "beam"])
def test_bulk_inference_runs_in_the_image(
    images: dict[str, str], artifact: Callable[[str], Path], shared: Path, runner: str
) -> None:
    import pyarrow.parquet

    model = next(artifact("litert").rglob("*int8.tflite")).parent
    mounts = {ROOT / "client" / "samples": "/photos:ro", model: "/model:ro", shared: "/out"}
    docker(
        *("run", "--rm", "--network", "none", "--user", USER, *RESTRICTED),
        *(word for outer, inner in mounts.items() for word in ("--volume", f"{outer}:{inner}")),
        *(images["pipeline"], "python", "-m", "pipelines", "infer", "--engine", runner, "--workers", "2"),
        *("--input", "/photos", "--model", "/model/flowers_int8.tflite", "--output", "/out/predictions.parquet"),
        timeout_s=INFER_S,
    )
    assert (shared / "predictions.parquet" / "_SUCCESS").exists()
    rows = pyarrow.parquet.read_table(shared / "predictions.parquet").to_pylist()
    assert len(rows) == 5
    assert all(row["label"] and not row["error"] for row in rows)
