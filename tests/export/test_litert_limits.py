"""What a LiteRT file says of its limits, and that those who read its signature see none of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.compiled_model import CompiledModel
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from numpy.typing import NDArray

from components.artifacts.examples import shards
from components.artifacts.training import read_classifier
from components.data import transform
from export import litert, saved_model
from export.limits import OUTPUTS, Limits
from export.spec import read_spec
from tests.export import fitted_limits

NUM_PHOTOS = 35
NUM_RANKS = 19  # half of them are known, and then comes what is stranger than all
# How many of them an image may come before, or behind, for float32 sums in another order, or for fewer bits. The table
# of p-values is float16 in one file.
RANKS = {"float32": 1, "float16": 1, "dynamic": 3, "int8": 4}
ROUNDING = 5e-4


@pytest.fixture(scope="module")
def images(examples_dir: Path) -> NDArray[np.uint8]:
    """The train photos, which are known, and then others: test photos, black, white, and noise."""
    photos = (transform.read(shards(examples_dir, split), image_size_px=32) for split in ("train", "test"))
    known, other = (np.stack([image for image, _ in each.as_numpy_iterator()]) for each in photos)
    edges = np.stack([np.full((32, 32, 3), grey, np.uint8) for grey in (0, 255)])
    return np.concatenate([known, other, edges, np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)])


@pytest.fixture(scope="module")
def classifier(training_dir: Path) -> keras.Model:
    return read_classifier(training_dir)


@pytest.fixture(scope="module")
def limits(classifier: keras.Model, images: NDArray[np.uint8]) -> Limits:
    return fitted_limits.fit(classifier, images[:NUM_PHOTOS])


@pytest.fixture(scope="module")
def files(
    tmp_path_factory: pytest.TempPathFactory,
    classifier: keras.Model,
    limits: Limits,
    images: NDArray[np.uint8],
    export_dir: Path,
) -> dict[str, Path]:
    spec, folder = read_spec(export_dir), tmp_path_factory.mktemp("litert")
    return litert.convert(classifier, limits=limits, calibration_images=images[:NUM_PHOTOS], spec=spec, out_dir=folder)


@pytest.fixture(scope="module")
def expected(
    tmp_path_factory: pytest.TempPathFactory,
    classifier: keras.Model,
    limits: Limits,
    images: NDArray[np.uint8],
    export_dir: Path,
) -> dict[str, Any]:
    """What the SavedModel says of the images."""
    folder = tmp_path_factory.mktemp("saved")
    saved_model.save(classifier, limits=limits, spec=read_spec(export_dir), warmup_images=[], out_dir=folder)
    outputs = tf.saved_model.load(str(folder)).signatures["images"](images=tf.constant(images))
    return {name: value.numpy() for name, value in outputs.items()}


Run = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def run(files: dict[str, Path], images: NDArray[np.uint8]) -> Run:
    """Return the function that runs a file on each image."""

    def run(kind: str, **options: Any) -> dict[str, Any]:
        interpreter = Interpreter(str(files[kind]), **options)
        interpreter.allocate_tensors()
        (taken,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
        wanted = {tensor["name"]: tensor for tensor in interpreter.get_tensor_details() if tensor["name"] in OUTPUTS}
        rows = []
        for image in images:
            interpreter.set_tensor(taken["index"], image[np.newaxis].astype(taken["dtype"]))
            interpreter.invoke()
            tensors = {"probabilities": output, **wanted}
            rows.append({name: interpreter.get_tensor(tensor["index"]) for name, tensor in tensors.items()})
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

    return run


@pytest.mark.parametrize("kind", litert.KINDS)
def test_file_says_of_its_limits_what_the_saved_model_says(run: Run, kind: str, expected: dict[str, Any]) -> None:
    found, shapes = (
        run(kind),
        {"p_value": (51,), "is_known": (51,), "prediction_set": (51, 5), "probabilities": (51, 5)},
    )
    assert {name: value.shape for name, value in found.items()} == shapes
    ranks = NUM_RANKS * np.abs(found["p_value"] - expected["p_value"])
    assert ranks.max() <= RANKS[kind] + NUM_RANKS * ROUNDING
    assert (found["is_known"] == expected["is_known"]).mean() >= 0.9
    assert 0 < found["is_known"].sum() < len(found["is_known"])
    near = np.abs(expected["probabilities"] - 0.2) < 0.02
    if kind == "int8":
        near[45:] = True  # calibrated on photos: black, white and noise are beyond its scale
    np.testing.assert_array_equal(found["prediction_set"] | near, expected["prediction_set"] | near)
    assert found["prediction_set"][np.arange(51), found["probabilities"].argmax(axis=1)].all()
    assert len(np.unique(expected["p_value"])) > 10


@pytest.mark.parametrize("kind", litert.KINDS)
@pytest.mark.parametrize(
    "options",
    [{"experimental_op_resolver_type": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES}, {"num_threads": 2}],
    ids=["without XNNPACK", "two threads"],
)
def test_limits_outlast_the_run_whoever_runs_the_operators(run: Run, kind: str, options: dict[str, Any]) -> None:
    """They are no outputs of the subgraph: LiteRT might use their memory again, and a delegate need not write them."""
    found, others = run(kind, **options), run(kind)
    ranks = NUM_RANKS * np.abs(found["p_value"] - others["p_value"])
    assert ranks.max() <= RANKS[kind] + NUM_RANKS * ROUNDING
    np.testing.assert_allclose(found["probabilities"], others["probabilities"], atol=0.02)
    assert (found["is_known"] == others["is_known"]).mean() >= 0.9


@pytest.mark.parametrize("kind", litert.KINDS)
def test_file_is_what_others_take(run: Run, files: dict[str, Path], images: NDArray[np.uint8], kind: str) -> None:
    """`ImageClassifier` of MediaPipe refuses two subgraphs, `CompiledModel` a signature of more than the outputs."""
    model = schema.ModelT.InitFromPackedBuf(files[kind].read_bytes())
    (graph,) = model.subgraphs
    assert (len(graph.inputs), len(graph.outputs)) == (1, 1)
    compiled = CompiledModel.from_file(str(files[kind]))
    assert compiled.get_signature_list() == {"images": {"inputs": ["images"], "outputs": ["probabilities"]}}
    inputs, outputs = compiled.create_input_buffers(0), compiled.create_output_buffers(0)
    inputs[0].write(images[:1].astype(np.uint8 if kind == "int8" else np.float32))
    compiled.run_by_index(0, inputs, outputs)
    np.testing.assert_allclose(outputs[0].read(5, np.float32), run(kind)["probabilities"][0], atol=0.02)


def test_limits_are_stored_in_few_bytes(files: dict[str, Path], classifier: keras.Model, limits: Limits) -> None:
    """Directions and centres in float16, but in the float32 file; of other tables the names are most."""
    sizes = {kind: path.stat().st_size for kind, path in files.items()}
    of_limits = limits.directions.nbytes + limits.centres.nbytes
    assert sizes["float32"] < 4 * classifier.count_params() + 2 * of_limits + 40_000
    assert sizes["int8"] < classifier.count_params() + of_limits + 60_000
