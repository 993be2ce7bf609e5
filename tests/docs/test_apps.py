"""What the pages for app developers (`docs/apps`) say of a file is so, and the program of the C++ page runs."""

import io
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray
from PIL import Image

from client.browser.runtime import Package, RuntimeMissingError, download
from client.classifier_client import Client, LiteRTTransport, Prediction
from client.classifier_client.transports.litert_metadata import read_metadata
from components.artifacts.litert import find_litert_files
from components.data.drawn_flowers import draw
from export import litert
from export.metadata import unpack
from tests.client import litert_files

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs" / "apps"
CLASS_NAMES = ["daisy", "dandelion", "roses", "sunflowers", "tulips"]
LIMITS = {"p_value": (np.float32, [1]), "is_known": (np.bool_, [1]), "prediction_set": (np.bool_, [1, 5])}

Classify = Callable[[Path, Path], dict[str, float]]

# TensorFlow Lite's C library, 2.9.0, with its headers.
TFLITE = Package(
    "tfjs-tflite-node",
    "https://registry.npmjs.org/tfjs-tflite-node/-/tfjs-tflite-node-0.0.2.tgz",
    "sha512-Zed9biOz9lkWsekvPwdEmxXnsjXJnZO8iOV0s2Y20QU15cwiPedzFEBYiGbK7smYpkJpQNNY9SukoKmUi9bk9w==",
)
# The function that it lacks: tensors lie in one array.
GET_TENSOR = """
#include <tensorflow/lite/c/c_api.h>
#include <tensorflow/lite/c/common.h>
#include <cstdlib>
extern "C" int TfLiteInterpreterGetInputTensorIndex(const TfLiteInterpreter*, int);
inline const TfLiteTensor* TfLiteInterpreterGetTensor(const TfLiteInterpreter* interpreter, int index) {
  if (index >= std::atoi(std::getenv("NUM_TENSORS"))) return nullptr;
  return TfLiteInterpreterGetInputTensor(interpreter, 0) - TfLiteInterpreterGetInputTensorIndex(interpreter, 0) + index;
}
"""
# A probability or p-value of older kernels and of an image that may differ by a level.
TOLERANCES = {"float32": 0.01, "float16": 0.01, "dynamic": 0.03, "int8": 0.03}


@pytest.fixture(scope="module")
def files(litert_dir: Path) -> dict[str, Path]:
    return find_litert_files(litert_dir, "flowers")


# --- what the pages say of a file


@pytest.mark.parametrize("kind", litert.KINDS)
def test_metadata_is_what_the_pages_say(files: dict[str, Path], kind: str) -> None:
    metadata = read_metadata(files[kind])
    assert (metadata.mean, metadata.std) == ((0.0,), (1.0,))
    assert list(metadata.class_names) == CLASS_NAMES
    with zipfile.ZipFile(files[kind]) as archive:
        assert archive.namelist() == ["labels.txt", "model_spec.json"]
        assert archive.read("labels.txt").decode() == "".join(f"{name}\n" for name in CLASS_NAMES)
    page = (PAGES / "README.md").read_text()
    assert all(word in page for word in ("`labels.txt`", "`model_spec.json`", "mean 0, deviation 1"))


@pytest.mark.parametrize("kind", litert.KINDS)
def test_tensors_are_what_the_pages_say(files: dict[str, Path], kind: str) -> None:
    interpreter = Interpreter(str(files[kind]))
    (image,), (probabilities,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert image["dtype"] is (np.uint8 if kind == "int8" else np.float32)
    assert image["quantization"] == ((1.0, 0) if kind == "int8" else (0.0, 0)), "a pixel is fed as it is"
    assert (probabilities["dtype"], probabilities["shape"].tolist()) == (np.float32, [1, len(CLASS_NAMES)])
    details = {tensor["name"]: tensor for tensor in interpreter.get_tensor_details()}
    found = {name: (details[name]["dtype"], details[name]["shape"].tolist()) for name in LIMITS}
    assert found == LIMITS
    assert all(f"`{name}`" in (PAGES / "README.md").read_text() for name in LIMITS)


# --- the program of the C++ page


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of the page, compiled against TensorFlow Lite's C library."""
    compiler = shutil.which("g++")
    if sys.platform != "linux" or platform.machine() != "x86_64" or not compiler:
        pytest.skip("needs g++, and Linux on x86-64, for which there is a library")
    packages = ROOT / ".cache" / "tflite_c"
    try:
        download(packages, packages=[TFLITE])
    except RuntimeMissingError as exc:
        pytest.skip(f"needs TensorFlow Lite's C library: {exc}")
    folder = tmp_path_factory.mktemp("cpp")
    with tarfile.open(fileobj=io.BytesIO((packages / TFLITE.file_name).read_bytes())) as archive:
        archive.extractall(folder, filter="data")
    page = (PAGES / "cpp.md").read_text()
    (source,) = re.findall(r"^```cpp\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (folder / "classify.cpp").write_text(source)
    (folder / "get_tensor.h").write_text(GET_TENSOR)
    tflite = folder / "package" / "cc_deps"
    words = [compiler, "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-include", "get_tensor.h"]
    words += ["-I", tflite / "include", "classify.cpp", "-o", "classify", f"-Wl,-rpath,{tflite / 'linux_amd64'}"]
    words += [tflite / "linux_amd64" / "libtensorflowlite_c.so"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert not done.returncode, done.stderr
    return folder / "classify"


@pytest.fixture
def classify(program: Path, tmp_path: Path) -> Classify:
    """Return the function that runs the program on a file and a photo: what it prints, by name."""

    def classify(file: Path, photo: Path) -> dict[str, float]:
        with zipfile.ZipFile(file) as archive:
            archive.extract("labels.txt", tmp_path)
        (graph,) = unpack(file.read_bytes()).subgraphs
        environment = {"NUM_TENSORS": str(len(graph.tensors))}
        words = [program, file, tmp_path / "labels.txt", photo]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert not done.returncode, done.stderr
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in done.stdout.splitlines())}

    return classify


@pytest.mark.parametrize("kind", litert.KINDS)
def test_cpp_program_predicts_as_the_client(
    files: dict[str, Path], kind: str, classify: Classify, tmp_path: Path
) -> None:
    images = [draw(name, seed=5, size_px=240)[:, :180] for name in CLASS_NAMES]
    images += [np.random.default_rng(0).integers(0, 256, (97, 33, 3), np.uint8)]
    results = list(predict(files[kind], images, classify, tmp_path))
    spread = np.ptp([[found[name] for name in CLASS_NAMES] for _, found in results], axis=0).max()
    assert spread > 3 * TOLERANCES[kind], "the predictions must depend on the photo"
    for expected, found in results:
        assert list(found) == [*CLASS_NAMES, "p_value", "is_known"]
        numbers = expected.probabilities | {"p_value": expected.p_value}
        assert {name: found[name] for name in numbers} == pytest.approx(numbers, abs=TOLERANCES[kind])


def test_cpp_program_refuses_what_the_client_refuses(classify: Classify, tmp_path: Path) -> None:
    file = tmp_path / "colours.tflite"
    content = litert_files.convert_with_limits((16, 16, 3))
    file.write_bytes(litert_files.with_metadata(content, normalization=((0.0,), (1.0,))))
    images = [np.full((40, 30, 3), colour, np.uint8) for colour in ((255, 0, 0), (128, 128, 128))]
    results = list(predict(file, images, classify, tmp_path))
    assert [bool(found["is_known"]) for _, found in results] == [True, False]
    for expected, found in results:
        assert found["is_known"] == expected.is_known
        assert found["p_value"] == pytest.approx(expected.p_value, abs=1e-5)


def predict(
    file: Path, images: list[NDArray[np.uint8]], classify: Classify, folder: Path
) -> Iterator[tuple[Prediction, dict[str, float]]]:
    """Yield the client's prediction of each image, and what the program prints for it."""
    with Client(LiteRTTransport(file, num_threads=1)) as client:
        for number, image in enumerate(images):
            photo = folder / f"{number}.ppm"
            Image.fromarray(image).save(photo)
            (expected,) = client.classify(photo)
            assert isinstance(expected, Prediction)
            yield expected, classify(file, photo)
