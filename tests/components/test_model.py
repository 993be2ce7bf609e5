"""Getting hold of a backbone's weights, and the parts of the network."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from components import model
from components.errors import StorageError, WeightsError
from components.model import ModelOptions

REAL_WEIGHTS = Path(__file__).parents[3] / "shared" / "weights" / "resnet50_notop.weights.h5"
NUM_FEATURES = {"small_cnn": 48, "resnet50": 2048, "mobilenet_v2": 1280, "efficientnet_v2_b0": 1280}
EACH = pytest.mark.parametrize("name", NUM_FEATURES)
BOTH = pytest.mark.parametrize("name", ["small_cnn", "resnet50"])


@pytest.fixture(scope="module")
def extractors() -> dict[str, keras.Model]:
    """Each backbone with random weights at 32 px."""
    keras.utils.set_random_seed(0)
    return {name: model.build_extractor(name, image_size_px=32) for name in NUM_FEATURES}


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Keras find no published weights."""
    build = keras.applications.ResNet50

    def refuse(*, weights: str | None = None, **options: Any) -> keras.Model:
        if weights:
            raise Exception("URL fetch failure on https://storage.googleapis.com/…: no network")
        return build(weights=None, **options)

    monkeypatch.setattr(keras.applications, "ResNet50", refuse)


def fetch(out_dir: Path, **options: Any) -> dict[str, Any]:
    return model.fetch(
        out_dir=out_dir, options=ModelOptions(**{"backbone": "small_cnn", "image_size_px": 32} | options)
    )


def read_weights(folder: Path, name: str = "small_cnn") -> list[np.ndarray[Any, Any]]:
    backbone = model.build_backbone(name, image_size_px=32)
    backbone.load_weights(folder / "backbone.weights.h5")
    return backbone.get_weights()


# --- weights


def test_random_weights_depend_on_the_seed_alone(tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        (tmp_path / name).mkdir()
        fetch(tmp_path / name, weights="none", seed=seed)
    one, again, other = (read_weights(tmp_path / name) for name in ("one", "again", "other"))
    assert all((a == b).all() for a, b in zip(one, again, strict=True))
    assert any((a != b).any() for a, b in zip(one, other, strict=True))


def test_description_says_what_the_backbone_is(tmp_path: Path) -> None:
    summary = fetch(tmp_path, weights="none")
    description = model.describe(tmp_path)
    assert description == {
        "backbone": "small_cnn",
        "image_size_px": 32,
        "weights": {"source": "none", "fallback": None},
        "num_features": 48,
        "num_parameters": summary["num_parameters"],
    }


def test_weights_of_a_file_are_taken(tmp_path: Path) -> None:
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
    fetch(tmp_path / "first", weights="none", seed=5)
    file = tmp_path / "first" / "backbone.weights.h5"
    summary = fetch(tmp_path / "second", weights=str(file), seed=6)
    assert summary["weights"] == str(file)
    for a, b in zip(read_weights(tmp_path / "first"), read_weights(tmp_path / "second"), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", ["another architecture", "text", "no HDF5"])
def test_weights_that_do_not_fit_are_an_error_that_names_the_file(tmp_path: Path, kind: str) -> None:
    file = tmp_path / ("weights.txt" if kind == "text" else "some.weights.h5")
    if kind == "another architecture":
        model.build_backbone("small_cnn", image_size_px=32).save_weights(file)
    else:
        file.write_text("not weights at all")
    with pytest.raises(WeightsError, match=rf"The weights do not fit resnet50 without its top: .*{file.name}.*Give"):
        fetch(tmp_path, backbone="resnet50", weights=str(file))
    assert not (tmp_path / "backbone.weights.h5").exists()


def test_missing_weights_are_reported_before_anything_runs() -> None:
    with pytest.raises(WeightsError, match=r"The weights file does not exist: nowhere\.h5 \(looked for /"):
        model.describe_source(ModelOptions(weights="nowhere.h5"))


@pytest.mark.parametrize("weights", ["auto", "imagenet", "none"])
def test_named_weights_are_described_by_their_name(weights: str) -> None:
    assert model.describe_source(ModelOptions(weights=weights)) == {"kind": weights}


def test_weights_file_counts_by_its_content(tmp_path: Path) -> None:
    for name, content in (("a.h5", b"1"), ("b.h5", b"1"), ("c.h5", b"2")):
        (tmp_path / name).write_bytes(content)
    a, b, c = (model.describe_source(ModelOptions(weights=str(tmp_path / f"{n}.h5"))) for n in "abc")
    assert a == b != c


def test_a_weights_file_at_a_url_counts_by_its_content(tmp_path, s3):
    (tmp_path / "here.weights.h5").write_bytes(b"weights")
    s3.put("there.weights.h5", b"weights")
    here, there = (
        ModelOptions(weights=f"{place}") for place in (tmp_path / "here.weights.h5", f"{s3.url}/there.weights.h5")
    )
    assert model.describe_source(there) == model.describe_source(here)
    with pytest.raises(StorageError, match=rf"There is no file at {s3.url}/none.weights.h5"):
        model.describe_source(ModelOptions(weights=f"{s3.url}/none.weights.h5"))


def test_imagenet_weights_that_cannot_be_had_are_an_error(unreachable: None, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"ImageNet weights of resnet50 cannot be downloaded .*no network"):
        fetch(tmp_path, backbone="resnet50", weights="imagenet")
    with pytest.raises(WeightsError, match="No ImageNet weights are published for small_cnn"):
        fetch(tmp_path, weights="imagenet")


def test_weights_that_cannot_be_had_are_explained_to_who_can_do_without(unreachable: None, tmp_path: Path) -> None:
    options = ModelOptions(backbone="resnet50", image_size_px=32, weights="imagenet")
    model.fetch_or_explain(out_dir=tmp_path, options=options)
    assert [path.name for path in tmp_path.iterdir()] == ["missing.json"]
    missing = json.loads((tmp_path / "missing.json").read_text())
    assert missing["what"] == "resnet50"
    assert "no network" in missing["reason"]


def test_auto_takes_random_weights_offline_and_says_why(
    unreachable: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    summary = fetch(tmp_path, backbone="resnet50", weights="auto")
    assert summary["weights"] == "none"
    found = json.loads((tmp_path / "model.json").read_text())["weights"]
    assert found["source"] == "none"
    assert "no network" in found["fallback"]
    assert "Random weights instead" in found["fallback"]
    assert "WEIGHTS FELL BACK TO RANDOM ONES" in caplog.text


def test_real_resnet50_weights_fit(tmp_path: Path) -> None:
    if not REAL_WEIGHTS.exists():
        pytest.skip(f"no real weights here: {REAL_WEIGHTS} does not exist")
    fetch(tmp_path, backbone="resnet50", weights=str(REAL_WEIGHTS))
    assert model.describe(tmp_path)["num_features"] == 2048


# --- networks


@EACH
def test_extractor_takes_uint8_pixels_and_gives_float32_features(name: str, extractors: dict[str, Any]) -> None:
    extractor = extractors[name]
    assert extractor.input.dtype == "uint8"
    assert extractor.input_shape == (None, 32, 32, 3)
    features = extractor.predict(np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8), verbose=0)
    assert features.dtype == np.float32
    assert features.shape == (2, NUM_FEATURES[name])
    assert np.isfinite(features).all()
    assert (features[0] != features[1]).any()
    assert not extractor.trainable_variables


def test_extractor_normalizes_colours_as_resnet50_was_trained(extractors: dict[str, Any]) -> None:
    extractor = extractors["resnet50"]
    image = np.random.default_rng(1).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    # "caffe": BGR, less the means of ImageNet (keras.applications.imagenet_utils).
    normalized = image[..., ::-1].astype(np.float32) - [103.939, 116.779, 123.68]
    expected = extractor.get_layer("resnet50").predict(normalized, verbose=0).mean(axis=(1, 2))
    np.testing.assert_allclose(extractor.predict(image, verbose=0), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "mean", "scale"),
    [
        ("mobilenet_v2", [127.5, 127.5, 127.5], [127.5, 127.5, 127.5]),
        ("efficientnet_v2_b0", [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]),
    ],
)
def test_extractor_normalizes_colours_as_the_device_backbones_were_trained(
    name: str, mean: list[float], scale: list[float], extractors: dict[str, Any]
) -> None:
    image = np.random.default_rng(1).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    expected = extractors[name].get_layer(name).predict((image - np.array(mean)) / scale, verbose=0).mean(axis=(1, 2))
    np.testing.assert_allclose(extractors[name].predict(image, verbose=0), expected, rtol=1e-3, atol=1e-5)


def test_normalization_of_efficientnet_v2_b0_is_the_one_keras_puts_inside() -> None:
    whole = keras.applications.EfficientNetV2B0(weights=None, include_top=False, input_shape=(32, 32, 3))
    image = np.random.default_rng(1).integers(0, 256, (1, 32, 32, 3)).astype(np.float32)
    inside = keras.Model(whole.input, whole.get_layer("normalization").output).predict(image, verbose=0)
    outside = keras.applications.imagenet_utils.preprocess_input(image.copy(), mode="torch")
    np.testing.assert_allclose(inside, outside, atol=1e-5)


@pytest.fixture
def frozen_again(extractors: dict[str, keras.Model]) -> Iterator[dict[str, keras.Model]]:
    yield extractors
    for name, extractor in extractors.items():
        extractor.get_layer(name).trainable = False


@pytest.mark.parametrize("name", ["mobilenet_v2", "efficientnet_v2_b0"])
def test_every_layer_of_a_device_backbone_belongs_to_a_stage(name: str, frozen_again: dict[str, keras.Model]) -> None:
    extractor = frozen_again[name]
    stages = model.BACKBONES[name].stages
    model.unfreeze(extractor, name, num_stages=len(stages))
    for layer in extractor.get_layer(name).layers:
        is_normalization = isinstance(layer, keras.layers.BatchNormalization)
        assert layer.trainable != is_normalization or not layer.weights, layer.name
    model.unfreeze(extractor, name, num_stages=2)
    learning = [each.name for each in extractor.get_layer(name).layers if each.weights and each.trainable]
    assert learning
    assert all(each.startswith(stages[-2:]) for each in learning)


@BOTH
def test_unfreezing_lets_exactly_the_last_stages_learn(name: str, frozen_again: dict[str, keras.Model]) -> None:
    extractor = frozen_again[name]
    stages = model.BACKBONES[name].stages
    for num_stages in range(1, len(stages) + 1):
        model.unfreeze(extractor, name, num_stages=num_stages)
        learning = [
            layer for layer in extractor.get_layer(name).layers if layer.trainable_variables and layer.trainable
        ]
        assert {layer.name.split("_")[0] for layer in learning} == set(stages[-num_stages:])
        assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in learning)
        assert len(extractor.trainable_variables) == 2 * len(learning), "a kernel and a bias each"


@pytest.mark.parametrize("num_stages", [-1, 0, 5])
def test_unfreezing_stages_that_are_not_there_is_an_error(num_stages: int, extractors: dict[str, keras.Model]) -> None:
    with pytest.raises(ValueError, match=f"fine_tune must be 0 to 4 for small_cnn. Received: {num_stages}"):
        model.unfreeze(extractors["small_cnn"], "small_cnn", num_stages=num_stages)


def test_classifier_joins_extractor_and_head(extractors: dict[str, keras.Model]) -> None:
    head = model.build_head(num_features=48, num_classes=3, hidden_units=(8, 4), dropout=0.5, seed=0)
    classifier = model.build_classifier(extractors["small_cnn"], head)
    images = np.random.default_rng(2).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    probabilities = classifier.predict(images, verbose=0)
    assert probabilities.shape == (2, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        (
            {"backbone": "resnet51"},
            "backbone must be one of resnet50, mobilenet_v2, efficientnet_v2_b0, small_cnn. Received: 'resnet51'",
        ),
        ({"image_size_px": 31}, "image_size_px must be at least 32 for resnet50. Received: 31"),
    ],
    ids=str,
)
def test_options_out_of_range_are_errors(wrong: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        ModelOptions(**wrong)
