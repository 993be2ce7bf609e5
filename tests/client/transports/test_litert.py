"""A LiteRT file run by the client: float and quantized files predict alike, an unfit file is refused with a reason."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from client.classifier_client import Client, LiteRTTransport, ModelFileError, SignatureError
from client.classifier_client.signing import read_verify_key
from export import metadata
from export.signing import read_signer
from tests.client import litert_files
from tests.client.litert_files import CLASS_NAMES, with_metadata
from tests.signing_keys import write_key

SHAPE = (16, 16, 3)
COLOURS = {"red": "red", "green": "lime", "blue": "blue"}


@pytest.fixture(scope="module")
def float_model() -> bytes:
    return litert_files.convert(SHAPE)


@pytest.fixture(scope="module")
def uint8_model() -> bytes:
    return litert_files.convert(SHAPE, representative=litert_files.corners(SHAPE))


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    def save(content: bytes, name: str = "colours.tflite") -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return save


def classify(path: Path, images: Any) -> list[Any]:
    with Client(LiteRTTransport(path)) as client:
        return list(client.classify(images))


def expected(pixels: tuple[int, int, int]) -> list[float]:
    weights = np.exp(4 * (np.array(pixels) / 127.5 - 1))
    return (weights / weights.sum()).tolist()


@pytest.mark.parametrize("kind", ["float", "uint8"])
def test_file_tells_colours_apart(kind: str, save: Any, float_model: bytes, uint8_model: bytes) -> None:
    content = with_metadata(float_model) if kind == "float" else with_metadata(uint8_model, normalization=None)
    path = save(content)
    predictions = classify(path, [Image.new("RGB", (40, 30), colour) for colour in COLOURS.values()])
    assert [prediction.label for prediction in predictions] == list(COLOURS)
    assert all(prediction.latency_ms > 0 for prediction in predictions)
    [prediction] = classify(path, Image.new("RGB", (40, 30), (150, 100, 125)))
    # Quantized, the values before the softmax, -4 to 4, come in 256 steps.
    tolerance = 1e-5 if kind == "float" else 0.04
    for name, probability in zip(CLASS_NAMES, expected((150, 100, 125)), strict=True):
        assert prediction.probabilities[name] == pytest.approx(probability, abs=tolerance)


def test_normalization_is_the_files_own_and_may_differ_by_channel(save: Any, float_model: bytes) -> None:
    path = save(with_metadata(float_model, normalization=((255.0, 0.0, 0.0), (127.5, 127.5, 255.0))))
    [prediction] = classify(path, Image.new("RGB", (16, 16), (255, 0, 255)))
    weights = np.exp([0.0, 0.0, 4.0])
    assert list(prediction.probabilities.values()) == pytest.approx(sorted(weights / weights.sum(), reverse=True))
    assert prediction.label == "blue"


def test_version_is_that_of_the_spec_the_metadata_or_the_folder(save: Any, tmp_path: Path, float_model: bytes) -> None:
    (tmp_path / "12").mkdir()
    photo = Image.new("RGB", (8, 8))
    for name, options, version in [
        ("a.tflite", {}, ""),
        ("12/a.tflite", {}, "12"),
        ("12/b.tflite", {"version": "9"}, "9"),
        ("12/c.tflite", {"version": "9", "spec": {"model_version": 7}}, "7"),
    ]:
        path = save(with_metadata(float_model, **options), name)
        [prediction] = classify(path, photo)
        assert prediction.model_version == version


def test_one_transport_serves_several_threads(save: Any, float_model: bytes) -> None:
    names = list(COLOURS) * 20
    with Client(LiteRTTransport(save(with_metadata(float_model)))) as client, ThreadPoolExecutor(4) as pool:
        images = [Image.new("RGB", (16, 16), COLOURS[name]) for name in names]
        labels = pool.map(lambda image: next(iter(client.classify(image))).label, images)
        assert list(labels) == names


# --- unfit files


def refuse(path: Path) -> str:
    with pytest.raises(ModelFileError) as failure:
        LiteRTTransport(path)
    assert "\n" not in str(failure.value)
    assert str(path) in str(failure.value)
    return str(failure.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"normalization": None}, "must say how it is normalized"),
        ({"labels": CLASS_NAMES[:2]}, "Received: 2 labels for 3 values"),
        ({"labels": (*CLASS_NAMES, "violet")}, "Received: 4 labels for 3 values"),
    ],
)
def test_metadata_that_does_not_fit_the_model_is_refused(
    changed: Any, message: str, save: Any, float_model: bytes
) -> None:
    assert message in refuse(save(with_metadata(float_model, **changed)))


@pytest.mark.parametrize(
    ("options", "received"),
    [
        ({"shape": (16, 8, 3)}, "float32 [1, 16, 8, 3]"),
        ({"shape": (16, 16, 1)}, "float32 [1, 16, 16, 1]"),
        ({"shape": SHAPE, "num_inputs": 2}, "float32 [1, 16, 16, 3], float32 [1, 16, 16, 3]"),
    ],
    ids=str,
)
def test_file_that_takes_no_square_image_is_refused_with_what_it_takes(
    options: dict[str, Any], received: str, save: Any
) -> None:
    message = refuse(save(with_metadata(litert_files.convert(**options))))
    assert "must take one square RGB image" in message
    assert f"Received: {received}" in message


def test_file_whose_model_is_cut_out_is_refused(save: Any, float_model: bytes) -> None:
    """The metadata is complete, and the interpreter reports the error."""
    model = metadata.unpack(float_model)
    model.subgraphs = []
    assert "LiteRT says" in refuse(save(with_metadata(metadata.pack(model))))


@pytest.mark.parametrize("side", [1, 5000])
def test_file_without_a_size_or_with_a_huge_one_is_refused(side: int, save: Any) -> None:
    assert f"Received: float32 [1, {side}, {side}, 3]" in refuse(
        save(with_metadata(litert_files.convert((side, side, 3))))
    )


def test_output_that_is_no_probability_is_refused(save: Any) -> None:
    content = litert_files.convert(SHAPE, activation=lambda values: 3 * values)
    with pytest.raises(ModelFileError, match=r"a probability of 0 to 1 for each class\. Received: \[1"):
        classify(save(with_metadata(content)), Image.new("RGB", (8, 8), "white"))


def test_closed_file_is_an_error_of_ours_and_closes_again(save: Any, float_model: bytes) -> None:
    transport = LiteRTTransport(save(with_metadata(float_model)))
    for _ in range(2):
        transport.close()
    for use in (transport.image_size_px, lambda: transport.predict([Image.new("RGB", (16, 16))])):
        with pytest.raises(ValueError, match=r"LiteRTTransport must be open to classify\. This one is closed"):
            use()


def test_signed_file_is_run_as_it_was_signed_whatever_becomes_of_it(
    save: Any, float_model: bytes, uint8_model: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    pair = write_key(tmp_path_factory.mktemp("key"))
    path, other = save(with_metadata(float_model, spec={"model_version": "7"})), save(b"other", "other.tflite")
    read_signer(pair.private).sign(path.parent, "tflite/7")
    image = Image.new("RGB", (40, 30), (150, 100, 125))
    [expected] = classify(path, image)
    with Client(LiteRTTransport(path, verify_key=read_verify_key(pair.public))) as client:
        path.write_bytes(bytes(path.stat().st_size))
        [prediction] = client.classify(image)
    assert (prediction.model_version, prediction.probabilities) == ("7", expected.probabilities)
    with pytest.raises(SignatureError, match=r"another 'colours\.tflite'"):
        LiteRTTransport(path, verify_key=read_verify_key(pair.public))
    path.with_name("added").touch()
    with pytest.raises(SignatureError, match="holds 'added'"):
        LiteRTTransport(other, verify_key=read_verify_key(pair.public))
