"""Beam on Dask, in processes of their own on loopback: the bytes of the local engine."""

import shlex
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from benchmarks import engines
from components import examples, features
from components.data import beam
from components.data.transform import TransformOptions
from components.examples import ExamplesOptions
from components.features import FeaturesOptions
from pipelines import __main__ as command_line

pytestmark = pytest.mark.slow


@pytest.fixture
def dask(tmp_path: Path) -> Iterator[str]:
    """Start a scheduler and two workers, and return Beam's options that name them."""
    pytest.importorskip("distributed", reason="Dask is not installed: make scale")
    cluster = engines.Cluster(tmp_path)
    try:
        cluster.start(2)
        yield f"{engines.RUNNER} --dask_client_address={cluster.address}"
    finally:
        cluster.end()


def read(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def test_examples_features_and_predictions_are_those_of_the_local_engine(
    dask: str, model_dir: Path, colour_models: Path, tmp_path: Path, own_logging: None
) -> None:
    engines.draw(tmp_path / "photos")
    found = []
    for name, options in (("local", ""), ("dask", dask)):
        out_dir = {step: tmp_path / name / step for step in ("examples", "features", "predictions")}
        for step in ("examples", "features"):
            out_dir[step].mkdir(parents=True)
        examples.build(
            out_dir=out_dir["examples"],
            options=ExamplesOptions(
                source=str(tmp_path / "photos"), engine="beam" if options else "local", beam_options=options
            ),
        )
        features.extract(
            examples_dir=out_dir["examples"],
            validation_dir=tmp_path,
            model_dir=model_dir,
            out_dir=out_dir["features"],
            options=FeaturesOptions(precision="float32"),
            transform=TransformOptions(),
            engine=partial(beam.make_files, options=shlex.split(options)) if options else None,
        )
        infer = ["infer", "--input", str(tmp_path / "photos"), "--output", str(out_dir["predictions"])]
        infer += ["--models-dir", str(colour_models), "--part-size", "8"]
        infer += ["--engine", "beam", "--", *shlex.split(options)] if options else ["--workers", "1"]
        assert command_line.main(infer) == 0
        found.append({step: read(folder) for step, folder in out_dir.items()})
    assert found[0] == found[1]
