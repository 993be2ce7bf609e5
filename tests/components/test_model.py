"""Fetching a backbone's weights."""

import socket
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from components import model
from components.artifacts.backbone import WEIGHTS_FILE, read_backbone
from components.artifacts.manifest import MISSING, read_missing
from components.errors import StorageError, WeightsError
from components.model import ModelOptions
from components.training.backbones import build_backbone

REAL_WEIGHTS = Path(__file__).parents[3] / "shared" / "weights" / "resnet50_notop.weights.h5"


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ResNet50 of one layer, whose published weights Keras does not find."""

    def build(*, weights: str | None, input_shape: tuple[int, ...], **_: Any) -> keras.Model:
        if weights:
            raise Exception("URL fetch failure on https://storage.googleapis.com/…: no network")
        images = keras.Input(input_shape)
        return keras.Model(images, keras.layers.Conv2D(4, 3)(images))

    monkeypatch.setattr(keras.applications, "ResNet50", build)
    monkeypatch.setattr(model, "is_reachable", lambda url: False)


def fetch(out_dir: Path, **options: Any) -> dict[str, Any]:
    settings = {"backbone": "small_cnn", "image_size_px": 32} | options
    return model.fetch(out_dir=out_dir, options=ModelOptions(**settings))


def read_weights(folder: Path) -> NDArray[np.float32]:
    """Read all weights of a `small_cnn` in one row."""
    backbone = build_backbone("small_cnn", image_size_px=32)
    backbone.load_weights(folder / WEIGHTS_FILE)
    return np.concatenate([weights.ravel() for weights in backbone.get_weights()])


def test_random_weights_depend_on_the_seed_alone(tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        (tmp_path / name).mkdir()
        fetch(tmp_path / name, weights="none", seed=seed)
    assert (tmp_path / "one" / WEIGHTS_FILE).read_bytes() == (tmp_path / "again" / WEIGHTS_FILE).read_bytes()
    assert (read_weights(tmp_path / "one") != read_weights(tmp_path / "other")).any()


def test_description_holds_the_backbone_and_its_sizes(tmp_path: Path) -> None:
    summary = fetch(tmp_path, weights="none")
    assert read_backbone(tmp_path) == {
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
    file = tmp_path / "first" / WEIGHTS_FILE
    summary = fetch(tmp_path / "second", weights=str(file), seed=6)
    assert summary["weights"] == str(file)
    np.testing.assert_array_equal(read_weights(tmp_path / "first"), read_weights(tmp_path / "second"))


@pytest.mark.parametrize("kind", ["another architecture", "text", "no HDF5"])
def test_weights_that_do_not_fit_are_an_error_that_names_the_file(tmp_path: Path, kind: str) -> None:
    file = tmp_path / ("weights.txt" if kind == "text" else "some.weights.h5")
    if kind == "another architecture":
        keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Dense(2)]).save_weights(file)
    else:
        file.write_text("not weights at all")
    with pytest.raises(WeightsError, match=rf"The weights do not fit small_cnn without its top: .*{file.name}.*Give"):
        fetch(tmp_path, weights=str(file))
    assert not (tmp_path / WEIGHTS_FILE).exists()


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
    here, there = f"{tmp_path}/here.weights.h5", f"{s3.url}/there.weights.h5"
    assert model.describe_source(ModelOptions(weights=there)) == model.describe_source(ModelOptions(weights=here))
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
    assert [path.name for path in tmp_path.iterdir()] == [MISSING]
    missing = read_missing(tmp_path)
    assert missing is not None
    assert missing["what"] == "resnet50"
    assert "no network" in missing["reason"]


def test_auto_takes_random_weights_offline_and_says_why(
    unreachable: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    summary = fetch(tmp_path, backbone="resnet50", weights="auto")
    assert summary["weights"] == "none"
    assert summary["fallback"] == read_backbone(tmp_path)["weights"]["fallback"]
    origin = read_backbone(tmp_path)["weights"]
    assert origin["source"] == "none"
    assert origin["fallback"] is not None
    assert "no network" in origin["fallback"]
    assert "Random weights instead" in origin["fallback"]
    assert "WEIGHTS FELL BACK TO RANDOM ONES" in caplog.text


@pytest.mark.parametrize(("is_online", "timeout_s"), [(True, 60), (False, 1)])
def test_auto_does_not_wait_long_for_a_host_that_does_not_respond(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_online: bool, timeout_s: int
) -> None:
    timeouts = []
    monkeypatch.setattr(model, "is_reachable", lambda url: is_online)
    monkeypatch.setattr(model, "load_weights", lambda *_: timeouts.append(socket.getdefaulttimeout()))
    fetch(tmp_path, weights="auto")
    assert timeouts == [timeout_s]
    assert socket.getdefaulttimeout() is None


def test_a_fallback_is_foreseen_only_where_it_is_sure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(model, "is_reachable", lambda url: False)
    assert model.find_fallback(ModelOptions(weights="none")) is None
    assert model.find_fallback(ModelOptions(backbone="small_cnn")) == "No ImageNet weights are published for small_cnn."
    assert model.find_fallback(ModelOptions()) == "https://storage.googleapis.com does not respond."
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "resnet50.h5").touch()
    assert model.find_fallback(ModelOptions()) is None
    (tmp_path / "models" / "resnet50.h5").unlink()
    monkeypatch.setattr(model, "is_reachable", lambda url: True)
    assert model.find_fallback(ModelOptions()) is None


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_no_generator_takes_is_refused(seed: int) -> None:
    with pytest.raises(ValueError, match=f"seed must be 0 to 2147483647. Received: {seed}"):
        ModelOptions(seed=seed)


def test_real_resnet50_weights_fit(tmp_path: Path) -> None:
    if not REAL_WEIGHTS.exists():
        pytest.skip(f"no real weights here: {REAL_WEIGHTS} does not exist")
    fetch(tmp_path, backbone="resnet50", weights=str(REAL_WEIGHTS))
    assert read_backbone(tmp_path)["num_features"] == 2048


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
