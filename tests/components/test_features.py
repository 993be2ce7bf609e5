"""Features of drawn flowers through a small backbone: their numbers, their views, and a step that was cut short."""

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from components import features
from components.artifacts.backbone import WEIGHTS_FILE
from components.artifacts.examples import IndexRow, read_examples, read_index, shards, write_examples, write_index
from components.artifacts.features import read_features
from components.data import beam, transform
from components.data.transform import TransformOptions
from components.features import FeaturesOptions
from components.training import extraction, networks
from components.training.extraction import Engine

IN_MEMORY = partial(beam.make_files, options=["--direct_running_mode=in_memory", "--direct_num_workers=1"])


def extract(
    examples_dir: Path,
    model_dir: Path,
    out_dir: Path,
    *,
    earlier_dir: Path | None = None,
    engine: Engine | None = None,
    **options: Any,
) -> dict[str, Any]:
    out_dir.mkdir(exist_ok=True)
    settings = {"num_augmented_views": 1, "batch_size": 8, "precision": "float32"} | options
    return features.extract(
        examples_dir=examples_dir,
        validation_dir=out_dir,
        model_dir=model_dir,
        out_dir=out_dir,
        options=FeaturesOptions(**settings),
        transform=TransformOptions(),
        earlier_dir=earlier_dir,
        engine=engine,
    )


def read(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.npz")}


def assert_predicted(features: NDArray[np.float32], labels: NDArray[np.int64], photos: list[Path], model: Path) -> None:
    """Compare clean features and labels with what the backbone predicts for the photos of shards."""
    dataset = transform.read(photos, image_size_px=32)
    images, expected_labels = (np.stack(column) for column in zip(*dataset.as_numpy_iterator(), strict=True))
    extractor = networks.build_extractor("small_cnn", image_size_px=32, weights=model / WEIGHTS_FILE)
    np.testing.assert_array_equal(labels, expected_labels)
    # They are stored in float16, which keeps 11 bits: 5e-4 of the value.
    np.testing.assert_allclose(features, extractor.predict(images, verbose=0), rtol=1e-3, atol=1e-4)


def test_files_hold_features_and_labels_of_each_shard_and_view(features_dir: Path, examples_dir: Path) -> None:
    assert set(read(features_dir)) == {
        f"{split}-00000-of-00001.view{view}.npz" for split, view in (("train", 0), ("train", 1), ("validation", 0))
    }
    for path in features_dir.glob("*.npz"):
        num_examples = read_examples(examples_dir)["splits"][path.name.split("-")[0]]["num_examples"]
        arrays = np.load(path)
        assert arrays["features"].shape == (num_examples, 48)
        assert arrays["features"].dtype == np.float16
        assert arrays["labels"].shape == (num_examples,)
        is_clean = path.name.endswith("view0.npz")
        assert ("embeddings" in arrays) is is_clean
        if is_clean:
            assert (arrays["embeddings"].dtype, arrays["embeddings"].shape) == (np.float16, (num_examples, 32 + 48))


def test_clean_view_is_what_the_backbone_predicts(features_dir: Path, examples_dir: Path, model_dir: Path) -> None:
    found, labels = read_features(features_dir, "train")
    assert (found.dtype, found.shape) == (np.float32, (35, 2, 48))
    assert_predicted(found[:, 0], labels, shards(examples_dir, "train"), model_dir)
    assert (found[:, 0] != found[:, 1]).any(axis=1).all(), "the second view is augmented"
    assert read_features(features_dir, "validation")[0].shape == (5, 1, 48), "validation has its clean view alone"


def test_features_of_the_test_split_are_a_step_of_their_own(
    features_dir: Path, examples_dir: Path, model_dir: Path, tmp_path: Path
) -> None:
    assert not list(features_dir.glob("test-*"))
    options = FeaturesOptions(num_augmented_views=1, batch_size=8, precision="float32")
    features.extract_test(examples_dir=examples_dir, model_dir=model_dir, out_dir=tmp_path, options=options)
    assert [path.name for path in tmp_path.iterdir()] == ["test-00000-of-00001.view0.npz"]
    found, labels = read_features(tmp_path, "test")
    assert_predicted(found[:, 0], labels, shards(examples_dir, "test"), model_dir)


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
    assert read(tmp_path) == read(features_dir)
    assert extract(examples_dir, model_dir, tmp_path)["num_images"] == 0


def test_more_views_are_more_files_and_the_first_ones_stay_as_they_were(
    features_dir: Path, examples_dir: Path, model_dir: Path, tmp_path: Path
) -> None:
    assert extract(examples_dir, model_dir, tmp_path, num_augmented_views=2)["num_views"] == 3
    found, _ = read_features(tmp_path, "train")
    assert found.shape[1] == 3
    np.testing.assert_array_equal(found[:, :2], read_features(features_dir, "train")[0])
    assert (found[:, 1] != found[:, 2]).any()


def test_several_shards_are_read_in_their_order(
    parted: Path, model_dir: Path, features_dir: Path, tmp_path: Path
) -> None:
    extract(parted, model_dir, tmp_path / "features")
    assert len(list((tmp_path / "features").glob("train-*.view0.npz"))) == 2
    found, labels = read_features(tmp_path / "features", "train")
    expected, expected_labels = read_features(features_dir, "train")
    np.testing.assert_array_equal(labels, expected_labels)
    # Batches are cut elsewhere, so the last bit of a sum may differ.
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_known_photos_are_not_computed_again(
    parted: Path, examples_dir: Path, model_dir: Path, features_dir: Path, tmp_path: Path
) -> None:
    rows = list(read_index(examples_dir))
    lost = features_dir_without(features_dir, [rows[3]["sha256"], rows[30]["sha256"]], tmp_path / "earlier")
    changed = list(read_index(parted))
    changed[5]["label"] = (changed[5]["label"] + 1) % 3
    rewrite_index(parted, changed)

    summary = extract(parted, model_dir, tmp_path / "features", earlier_dir=lost)
    assert (summary["num_images"], summary["num_reused"]) == (4, 2 * 35 + 5 - 4)
    found, labels = read_features(tmp_path / "features", "train")
    expected, expected_labels = read_features(features_dir, "train")
    expected_labels[5] = changed[5]["label"]
    np.testing.assert_array_equal(labels, expected_labels)
    computed = [3, 30]
    np.testing.assert_array_equal(np.delete(found, computed, axis=0), np.delete(expected, computed, axis=0))
    np.testing.assert_allclose(found[computed], expected[computed], rtol=1e-3, atol=1e-4)

    again = extract(parted, model_dir, tmp_path / "again", earlier_dir=tmp_path / "features")
    assert again["num_images"] == 0


def test_a_beam_pipeline_makes_the_same_files_and_only_those_that_are_missing(
    parted: Path, model_dir: Path, features_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = [row["sha256"] for row in read_index(parted)]
    earlier = features_dir_without(features_dir, [photos[3], photos[30]], tmp_path / "earlier")
    summary = extract(parted, model_dir, tmp_path / "local", earlier_dir=earlier)
    made, make_runner = [], extraction._make_runner
    monkeypatch.setattr(extraction, "_make_runner", lambda *inputs: made.append(inputs) or make_runner(*inputs))
    assert extract(parted, model_dir, tmp_path / "beam", earlier_dir=earlier, engine=IN_MEMORY) == summary
    assert read(tmp_path / "beam") == read(tmp_path / "local")
    assert len(made) == 1, "a process builds the backbone once"

    lost, *kept = sorted((tmp_path / "beam").glob("*.npz"))
    lost.unlink()
    before = [path.stat().st_mtime_ns for path in kept]
    extract(parted, model_dir, tmp_path / "beam", earlier_dir=earlier, engine=IN_MEMORY)
    assert [path.stat().st_mtime_ns for path in kept] == before
    assert read(tmp_path / "beam") == read(tmp_path / "local")


def test_options_of_beam_choose_it() -> None:
    assert FeaturesOptions().resolve().engine == "local"
    assert FeaturesOptions(beam_options="--runner=X").resolve().engine == "beam"
    with pytest.raises(ValueError, match=r"beam_options need engine=beam\. Received: engine=local and '--runner=X'"):
        FeaturesOptions(engine="local", beam_options="--runner=X")


@pytest.fixture
def parted(examples_dir: Path, tmp_path: Path) -> Path:
    """The same examples, those to train on in two shards."""
    parted = shutil.copytree(examples_dir, tmp_path / "examples")
    (shard,) = shards(parted, "train")
    described = read_examples(parted)
    names = described["splits"]["train"]["shards"] = [f"train-{number:05d}-of-00002.tfrecord" for number in range(2)]
    write_examples(parted, described)
    for name in names:
        shutil.copy(shard, parted / name)
    rows = list(read_index(examples_dir))
    for number, row in enumerate(row for row in rows if row["split"] == "train"):
        row["shard"] = names[number >= 20]
    rewrite_index(parted, rows)
    return parted


def rewrite_index(examples_dir: Path, rows: Sequence[IndexRow]) -> None:
    (examples_dir / "index.jsonl").unlink()
    write_index(examples_dir, rows)


def features_dir_without(features_dir: Path, photos: Sequence[str], out_dir: Path) -> Path:
    """Copy features without those of some photos."""
    out_dir.mkdir()
    for path in features_dir.glob("*.npz"):
        with np.load(path) as file:
            kept = np.array([digest.tobytes().hex() not in photos for digest in file["photos"]])
            np.savez(out_dir / path.name, **{name: array[kept] for name, array in file.items()})
    return out_dir


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_fewer_bits_give_nearly_the_same_features(
    examples_dir: Path, model_dir: Path, features_dir: Path, tmp_path: Path, precision: str
) -> None:
    extract(examples_dir, model_dir, tmp_path, num_augmented_views=0, precision=precision)
    assert read_features(tmp_path, "train")[0].shape[1] == 1, "without augmented views there is the clean one alone"
    expected = read_features(features_dir, "validation")[0]
    # bfloat16 keeps 8 bits, and four layers add up their errors.
    np.testing.assert_allclose(read_features(tmp_path, "validation")[0], expected, atol=0.03 * expected.max())


@pytest.mark.parametrize(
    "wrong", [{"num_augmented_views": -1}, {"batch_size": 0}, {"precision": "float8"}, {"engine": "spark"}], ids=str
)
def test_options_out_of_range_are_errors(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be .* Received"):
        FeaturesOptions(**wrong)
