"""A pushed model teaches: its predictions are learned, computed once, and it may not have learned what judges."""

import json
import logging
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from components import trainer
from components.artifacts.examples import read_index
from components.artifacts.learned_photos import LEARNED_PHOTOS, to_id
from components.artifacts.training import CHECKPOINTS_DIR, read_history, read_training
from components.data.transform import TransformOptions
from components.errors import ComponentError
from components.evaluation.served_model import ServedModel
from components.training import batches, teacher
from components.training.batches import Batches
from components.training.hardware import Replicas
from export.spec import SPEC, read_spec, write_spec
from tests.tiny_pipeline import IMAGE_SIZE_PX, TUNED

REPLICAS = Replicas(tf.distribute.get_strategy())
CLASS_NAMES = ["daisy", "dandelion", "roses", "sunflowers", "tulips"]


@pytest.fixture
def copied(export_dir: Path, tmp_path: Path) -> Path:
    """A model like the pipeline's, to be changed."""
    return Path(shutil.copytree(export_dir, tmp_path / "copied"))


@pytest.fixture(scope="module")
def photos(examples_dir: Path) -> Batches:
    return batches.of_photos(
        examples_dir,
        image_size_px=IMAGE_SIZE_PX,
        batch_size=16,
        transform=TransformOptions(),
        seed=1,
        replicas=REPLICAS,
    )


def teach(photos: Batches, model_dir: Path, out_dir: Path) -> Batches:
    return teacher.teach(photos, model_dir, num_epochs=2, precision="float32", replicas=REPLICAS, out_dir=out_dir)


def test_student_learns_the_predictions_for_the_photos_that_it_sees(
    photos: Batches, export_dir: Path, tmp_path: Path
) -> None:
    taught, model = teach(photos, export_dir, tmp_path), ServedModel(export_dir, batch_size=16)
    seen = []
    for epoch in range(2):
        expected = list(photos.of_epoch(epoch).as_numpy_iterator())
        found = list(taught.of_epoch(epoch).as_numpy_iterator())
        assert len(found) == len(expected) == photos.num_steps
        for (images, predicted), (same, labels) in zip(found, expected, strict=True):
            np.testing.assert_array_equal(images, same)
            np.testing.assert_allclose(predicted, model.classify_images(images).probabilities, atol=1e-5)
            assert not np.array_equal(predicted, labels)
        seen.append(found[0][0])
    assert not np.array_equal(*seen), "each epoch has views of its own"
    assert taught.validation is photos.validation


def test_teacher_that_takes_another_size_sees_the_same_photos_resized(
    examples_dir: Path, export_dir: Path, tmp_path: Path
) -> None:
    larger = batches.of_photos(
        examples_dir, image_size_px=48, batch_size=16, transform=TransformOptions(), seed=1, replicas=REPLICAS
    )
    images, predicted = next(teach(larger, export_dir, tmp_path).of_epoch(0).as_numpy_iterator())
    assert images.shape[1:] == (48, 48, 3)
    resized = tf.image.resize(images, [IMAGE_SIZE_PX] * 2, antialias=True)
    expected = ServedModel(export_dir, batch_size=16).classify_images(np.round(resized).astype(np.uint8))
    np.testing.assert_allclose(predicted, expected.probabilities, atol=1e-5)


def test_what_the_teacher_has_predicted_is_not_predicted_again(photos: Batches, copied: Path, tmp_path: Path) -> None:
    before = list(teach(photos, copied, tmp_path).of_epoch(1).as_numpy_iterator())
    (copied / "saved_model.pb").unlink()
    after = list(teach(photos, copied, tmp_path).of_epoch(1).as_numpy_iterator())
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one[1], other[1])
    next((tmp_path / CHECKPOINTS_DIR).rglob("*epoch-0.npz")).unlink()
    with pytest.raises(OSError, match="SavedModel"):
        teach(photos, copied, tmp_path)


def test_pipeline_trains_a_student_and_says_who_taught_it(
    examples_dir: Path, features_dir: Path, model_dir: Path, export_dir: Path, tuned_dir: Path, tmp_path: Path
) -> None:
    trainer.train(
        examples_dir=examples_dir,
        features_dir=features_dir,
        model_dir=model_dir,
        out_dir=tmp_path,
        options=replace(TUNED.trainer, teacher=str(export_dir)),
        transform=TransformOptions(),
    )
    assert read_training(tmp_path)["teacher"] == read_spec(export_dir)["backbone"]
    assert not (tmp_path / CHECKPOINTS_DIR).exists()
    taught, untaught = read_history(tmp_path), read_history(tuned_dir)
    assert taught["head"] == untaught["head"], "the head learns from the labels"
    assert taught["fine_tune"]["loss"] != untaught["fine_tune"]["loss"]
    assert read_training(tuned_dir)["teacher"] is None


def test_teacher_counts_by_its_content(copied: Path, export_dir: Path) -> None:
    options = replace(TUNED.trainer, teacher=str(copied))
    found = trainer.describe_source(options)
    assert found == trainer.describe_source(replace(options, teacher=str(export_dir)))
    (copied / SPEC).write_text(json.dumps({**read_spec(copied), "temperature": 3.0}))
    assert trainer.describe_source(options) != found
    assert trainer.describe_source(TUNED.trainer) == {}


def test_teacher_is_a_model_that_was_pushed(tmp_path: Path) -> None:
    with pytest.raises(ComponentError, match=re.escape("such as models/flowers/3. Received: ")):
        trainer.describe_source(replace(TUNED.trainer, teacher=str(tmp_path)))


def test_teacher_without_fine_tuning_would_teach_nothing(export_dir: Path) -> None:
    with pytest.raises(ValueError, match=re.escape("fine_tune must be at least 1. Received: 0")):
        replace(TUNED.trainer, teacher=str(export_dir), fine_tune=0)


def test_teacher_knows_the_same_classes(copied: Path) -> None:
    write_spec(copied, {**read_spec(copied), "class_names": ["cat", "dog"]})
    with pytest.raises(ComponentError, match=f"{', '.join(CLASS_NAMES)}. Received: cat, dog, of "):
        teacher.check(copied, CLASS_NAMES, [])


def test_teacher_has_not_learned_from_the_photos_that_judge_its_student(
    copied: Path, examples_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = list(read_index(examples_dir))
    assert teacher.check(copied, CLASS_NAMES, rows)["backbone"] == "small_cnn"
    learned = [to_id(row["sha256"]) for row in rows]
    (copied / LEARNED_PHOTOS).write_text(json.dumps(learned))
    with pytest.raises(ComponentError, match="has learned from 10 of the test photos"):
        teacher.check(copied, CLASS_NAMES, rows)
    (copied / LEARNED_PHOTOS).unlink()
    with caplog.at_level(logging.WARNING):
        teacher.check(copied, CLASS_NAMES, rows)
    assert "THE TEACHER HAS NO LIST of what it learned from" in caplog.text
