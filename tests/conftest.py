"""What many tests share: encoded pictures, and small artifacts made once a session with the real steps."""

import io
import logging
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.s3 import S3

IMAGE_SIZE_PX = 32


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    """Give the function that encodes a Pillow image, or an array, as a file of a format."""

    def encode(image: Any, kind: str, **options: Any) -> bytes:
        buffer = io.BytesIO()
        image = image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image))
        image.save(buffer, kind, **options)
        return buffer.getvalue()

    return encode


@pytest.fixture(scope="session")
def examples_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn flowers, 7 to train on, 1 to validate and 2 to test with of each of the five kinds."""
    from components import examples

    folder = tmp_path_factory.mktemp("examples")
    examples.build(
        out_dir=folder, options=examples.ExamplesOptions(source="synthetic", num_synthetic_per_class=10, seed=1)
    )
    return folder


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `small_cnn` with random weights."""
    from components import model

    folder = tmp_path_factory.mktemp("model")
    options = model.ModelOptions(backbone="small_cnn", weights="none", image_size_px=IMAGE_SIZE_PX, seed=7)
    model.fetch(out_dir=folder, options=options)
    return folder


@pytest.fixture(scope="session")
def features_dir(tmp_path_factory: pytest.TempPathFactory, examples_dir: Path, model_dir: Path) -> Path:
    """Features of `examples_dir`, one clean and one augmented view."""
    from components import features
    from components.data.transform import TransformOptions

    folder = tmp_path_factory.mktemp("features")
    features.extract(
        examples_dir=examples_dir,
        validation_dir=folder,
        model_dir=model_dir,
        out_dir=folder,
        options=features.FeaturesOptions(num_augmented_views=1, batch_size=8, precision="float32"),
        transform=TransformOptions(),
    )
    return folder


@pytest.fixture(scope="session")
def training_dir(
    tmp_path_factory: pytest.TempPathFactory, examples_dir: Path, features_dir: Path, model_dir: Path
) -> Path:
    """A classifier trained for two epochs."""
    from components import trainer
    from components.data.transform import TransformOptions

    folder = tmp_path_factory.mktemp("training")
    trainer.train(
        examples_dir=examples_dir,
        features_dir=features_dir,
        model_dir=model_dir,
        out_dir=folder,
        options=trainer.TrainerOptions(hidden_units=(8,), num_heads=1, epochs=2, batch_size=16, precision="float32"),
        transform=TransformOptions(),
    )
    return folder


@pytest.fixture(scope="session")
def export_dir(tmp_path_factory: pytest.TempPathFactory, examples_dir: Path, training_dir: Path) -> Path:
    """The SavedModel of `training_dir`."""
    from components import exporter

    folder = tmp_path_factory.mktemp("export")
    exporter.export(
        examples_dir=examples_dir, training_dir=training_dir, out_dir=folder, options=exporter.ExportOptions()
    )
    return folder


@pytest.fixture(scope="session")
def evaluation_dir(tmp_path_factory: pytest.TempPathFactory, examples_dir: Path, export_dir: Path) -> Path:
    """What the evaluator says of `export_dir`, blessed whatever its accuracy."""
    from components import evaluator
    from components.storage.files import write_json

    folder = tmp_path_factory.mktemp("evaluation")
    write_json(folder / "baseline.json", {"version": None, "path": None})
    evaluator.evaluate(
        examples_dir=examples_dir,
        export_dir=export_dir,
        baseline_dir=folder,
        out_dir=folder,
        options=evaluator.EvaluatorOptions(min_accuracy=0.0),
    )
    return folder


@pytest.fixture(scope="session")
def litert_dir(
    tmp_path_factory: pytest.TempPathFactory,
    examples_dir: Path,
    training_dir: Path,
    export_dir: Path,
    evaluation_dir: Path,
) -> Path:
    """The LiteRT files of `training_dir`."""
    from components import litert_exporter

    folder = tmp_path_factory.mktemp("litert")
    litert_exporter.convert(
        examples_dir=examples_dir,
        training_dir=training_dir,
        export_dir=export_dir,
        evaluation_dir=evaluation_dir,
        out_dir=folder,
        options=litert_exporter.LiteRTOptions(num_calibration_images=10),
    )
    return folder


@pytest.fixture(scope="session")
def colour_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models with one version, an int8 LiteRT file that tells red, green and blue apart."""
    import itertools

    from tests.client import litert_files

    shape = (16, 16, 3)
    corners = [np.broadcast_to(np.float32(corner), (1, *shape)) for corner in itertools.product((-1, 1), repeat=3)]
    content = litert_files.convert(shape, representative=corners)
    folder = tmp_path_factory.mktemp("models")
    file = folder / "tflite" / "3" / "colours_int8.tflite"
    file.parent.mkdir(parents=True)
    file.write_bytes(litert_files.with_metadata(content, normalization=None))
    return folder


@pytest.fixture(scope="session")
def s3_client() -> Iterator[Any]:
    """Give a client of a server that speaks S3."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it logs every request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    yield boto3.client("s3", endpoint_url=f"http://{host}:{port}", **keys)
    server.stop()


@pytest.fixture
def s3(s3_client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """An empty bucket, which `s3://` leads to, and a cache of its own."""
    import s3fs

    settings = {
        "AWS_ENDPOINT_URL": s3_client.meta.endpoint_url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "PIPELINE_CACHE": str(tmp_path / "cache"),
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    yield S3(s3_client, f"bucket-{secrets.token_hex(4)}")
    if os.environ["AWS_ENDPOINT_URL"] != s3_client.meta.endpoint_url:
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def own_logging() -> Iterator[None]:
    """Restore logging afterwards: the command line configures it."""
    root, absl = logging.getLogger(), logging.getLogger("absl")
    handlers, level, absl_level = root.handlers[:], root.level, absl.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    absl.setLevel(absl_level)
