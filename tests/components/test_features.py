"""Features of drawn flowers through a small backbone: their numbers, their views, and a step cut short."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components import examples, features, model
from components.data import transform
from components.data.transform import TransformOptions
from components.features import FeaturesOptions


def extract(examples_dir: Path, model_dir: Path, out_dir: Path, **options: Any) -> dict[str, Any]:
    settings = {"num_augmented_views": 1, "batch_size": 8, "precision": "float32"} | options
    return features.extract(
        examples_dir=examples_dir,
        validation_dir=out_dir,
        model_dir=model_dir,
        out_dir=out_dir,
        options=FeaturesOptions(**settings),
        transform=TransformOptions(),
    )


def read(folder: Path) -> dict[str, dict[str, Any]]:
    return {path.name: dict(np.load(path)) for path in folder.glob("*.npz")}


def assert_same(one: dict[str, dict[str, Any]], other: dict[str, dict[str, Any]]) -> None:
    assert one.keys() == other.keys()
    for name, arrays in one.items():
        for key, values in arrays.items():
            np.testing.assert_array_equal(values, other[name][key])


def test_files_hold_features_and_labels_of_each_shard_and_view(features_dir: Path, examples_dir: Path) -> None:
    found = read(features_dir)
    assert set(found) == {
        f"{split}-00000-of-00001.view{view}.npz" for split, view in (("train", 0), ("train", 1), ("validation", 0))
    }
    for name, arrays in found.items():
        num_examples = examples.describe(examples_dir)["splits"][name.split("-")[0]]["num_examples"]
        assert arrays["features"].shape == (num_examples, 48)
        assert arrays["features"].dtype == np.float16
        assert arrays["labels"].shape == (num_examples,)


def test_clean_view_is_what_the_backbone_predicts(features_dir: Path, examples_dir: Path, model_dir: Path) -> None:
    found, labels = features.load(features_dir, "train")
    assert (found.dtype, found.shape) == (np.float32, (35, 2, 48))
    dataset = transform.read(examples.shards(examples_dir, "train"), image_size_px=32)
    images, expected_labels = (np.stack(column) for column in zip(*dataset.as_numpy_iterator(), strict=True))
    np.testing.assert_array_equal(labels, expected_labels)
    extractor = model.build_extractor("small_cnn", image_size_px=32, weights=model_dir / "backbone.weights.h5")
    # They are stored in float16, which keeps 11 bits: 5e-4 of the value.
    np.testing.assert_allclose(found[:, 0], extractor.predict(images, verbose=0), rtol=1e-3, atol=1e-4)
    assert (found[:, 0] != found[:, 1]).any(axis=1).all(), "the second view is augmented"


def test_validation_photos_have_only_their_clean_view(features_dir: Path) -> None:
    assert features.load(features_dir, "validation")[0].shape == (5, 1, 48)


def test_features_of_the_test_split_are_a_step_of_their_own(
    features_dir: Path, examples_dir: Path, model_dir: Path, tmp_path: Path
) -> None:
    assert not list(features_dir.glob("test-*"))
    features.extract_test(
        examples_dir=examples_dir,
        model_dir=model_dir,
        out_dir=tmp_path,
        options=FeaturesOptions(num_augmented_views=1, batch_size=8, precision="float32"),
    )
    assert [path.name for path in tmp_path.iterdir()] == ["test-00000-of-00001.view0.npz"]
    found, labels = features.load(tmp_path, "test")
    photos = transform.read(examples.shards(examples_dir, "test"), image_size_px=32)
    images, expected_labels = (np.stack(column) for column in zip(*photos.as_numpy_iterator(), strict=True))
    np.testing.assert_array_equal(labels, expected_labels)
    extractor = model.build_extractor("small_cnn", image_size_px=32, weights=model_dir / "backbone.weights.h5")
    # They are stored in float16, which keeps 11 bits: 5e-4 of the value.
    np.testing.assert_allclose(found[:, 0], extractor.predict(images, verbose=0), rtol=1e-3, atol=1e-4)


def test_features_are_the_same_in_every_run_and_a_lost_file_alone_is_made_again(
    features_dir: Path, examples_dir: Path, model_dir: Path, tmp_path: Path
) -> None:
    shutil.copytree(features_dir, tmp_path, dirs_exist_ok=True)
    lost = tmp_path / "train-00000-of-00001.view1.npz"
    lost.unlink()
    (tmp_path / f".{lost.name}.1.tmp").write_bytes(b"half")
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*view?.npz")}
    assert extract(examples_dir, model_dir, tmp_path)["num_images"] == 35
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in before} == before
    assert lost.exists()
    assert_same(read(tmp_path), read(features_dir))
    assert extract(examples_dir, model_dir, tmp_path)["num_images"] == 0


def test_more_views_are_more_files_and_the_first_ones_stay_as_they_were(
    features_dir: Path, examples_dir: Path, model_dir: Path, tmp_path: Path
) -> None:
    assert extract(examples_dir, model_dir, tmp_path, num_augmented_views=2)["num_views"] == 3
    found, _ = features.load(tmp_path, "train")
    assert found.shape[1] == 3
    np.testing.assert_array_equal(found[:, :2], features.load(features_dir, "train")[0])
    assert (found[:, 1] != found[:, 2]).any()


def test_no_views_are_the_clean_ones_alone(examples_dir: Path, model_dir: Path, tmp_path: Path) -> None:
    extract(examples_dir, model_dir, tmp_path, num_augmented_views=0)
    assert features.load(tmp_path, "train")[0].shape[1] == 1


def test_several_shards_are_read_in_their_order(
    examples_dir: Path, model_dir: Path, features_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.artifacts.examples.EXAMPLES_PER_SHARD", 20)
    parted = tmp_path / "examples"
    parted.mkdir()
    examples.build(
        out_dir=parted, options=examples.ExamplesOptions(source="synthetic", num_synthetic_per_class=10, seed=1)
    )
    assert len(examples.shards(parted, "train")) == 2
    (tmp_path / "features").mkdir()
    calls: list[int] = []
    parse = transform.parse
    monkeypatch.setattr(transform, "parse", lambda *args, **options: calls.append(1) or parse(*args, **options))
    extract(parted, model_dir, tmp_path / "features", num_augmented_views=0)
    assert len(calls) == 1, "one pipeline, or each shard would leave its own behind"
    found, labels = features.load(tmp_path / "features", "train")
    whole, whole_labels = features.load(features_dir, "train")
    np.testing.assert_array_equal(labels, whole_labels)
    # Batches are cut elsewhere, so the last bit of a sum may differ.
    np.testing.assert_allclose(found[:, 0], whole[:, 0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_fewer_bits_give_nearly_the_same_features(
    examples_dir: Path, model_dir: Path, features_dir: Path, tmp_path: Path, precision: str
) -> None:
    extract(examples_dir, model_dir, tmp_path, num_augmented_views=0, precision=precision)
    expected = features.load(features_dir, "validation")[0]
    # bfloat16 keeps 8 bits, and four layers add up their errors.
    np.testing.assert_allclose(features.load(tmp_path, "validation")[0], expected, atol=0.03 * expected.max())


@pytest.mark.parametrize("wrong", [{"num_augmented_views": -1}, {"batch_size": 0}, {"precision": "float8"}], ids=str)
def test_options_out_of_range_are_errors(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be .* Received"):
        FeaturesOptions(**wrong)
