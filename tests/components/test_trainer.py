"""Training a small classifier on drawn flowers: what is kept, what changes, and going on after a kill."""

import contextlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from components import trainer
from components.artifacts.backbone import WEIGHTS_FILE
from components.artifacts.examples import read_index, shards
from components.artifacts.features import features_path, read_features, write_features
from components.artifacts.suspects import Suspect, write_suspects
from components.artifacts.training import (
    CHECKPOINTS_DIR,
    LOGS_DIR,
    MODEL_FILE,
    read_classifier,
    read_history,
    read_training,
)
from components.data import transform
from components.data.transform import TransformOptions
from components.errors import ComponentError
from components.trainer import TrainerOptions
from components.training import fitting, hardware, head, losses
from components.training.backbones import build_backbone
from components.training.calibration import fit_temperature, temper
from components.training.checkpoint import Checkpoint
from tests.tiny_pipeline import IMAGE_SIZE_PX

ROOT = Path(__file__).resolve().parents[2]
Train = Callable[..., dict[str, Any]]
# Too fast a rate to do well: the validation loss goes up and down, so that the callbacks have something to count.
WILD = {"epochs": 4, "learning_rate": 0.5, "reduce_lr_patience": 1, "early_stopping_patience": 4}


class Killed(BaseException):
    """Stands for a signal: nothing catches it."""


@pytest.fixture(scope="module")
def train(examples_dir: Path, features_dir: Path, model_dir: Path) -> Train:
    def train(out_dir: Path, suspects_dir: Path | None = None, **options: Any) -> dict[str, Any]:
        settings = {
            "hidden_units": (8,),
            "num_heads": 3,
            "learning_rate": 3e-2,
            "epochs": 2,
            "batch_size": 16,
            "precision": "float32",
        } | options
        out_dir.mkdir(exist_ok=True)
        return trainer.train(
            examples_dir=examples_dir,
            features_dir=features_dir,
            model_dir=model_dir,
            out_dir=out_dir,
            options=TrainerOptions(**settings),
            transform=TransformOptions(),
            suspects_dir=suspects_dir,
        )

    return train


def assert_same_bytes(one: Path, other: Path) -> None:
    for name in (MODEL_FILE, "history.json", "training.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def test_training_writes_the_classifier_and_what_is_known_of_it(training_dir: Path, model_dir: Path) -> None:
    description = read_training(training_dir)
    assert description["class_names"] == ["daisy", "dandelion", "roses", "sunflowers", "tulips"]
    assert description["backbone"] == "small_cnn"
    assert description["weights"] == {"source": "none", "fallback": None}
    assert description["epochs"] == {"head": 2}
    assert description["is_frozen"]
    assert description["num_trainable"] < description["num_parameters"]
    classifier = read_classifier(training_dir)
    assert classifier.input.dtype == "uint8"
    assert classifier.output_shape == (None, 5)
    assert 0.05 <= description["temperature"] <= 20
    assert set(read_history(training_dir)["head"]) >= {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert list((training_dir / LOGS_DIR / "head").rglob("events.out.tfevents.*"))
    assert not (training_dir / CHECKPOINTS_DIR).exists()


def test_probabilities_come_true_on_the_validation_photos(
    train: Train, training_dir: Path, examples_dir: Path, tmp_path: Path
) -> None:
    """No other temperature would have a lower cross-entropy there, of a head on features and of a tuned network."""
    train(tmp_path / "tuned", learning_rate=1e-6, fine_tune=1, fine_tune_epochs=2, fine_tune_learning_rate=3e-4)
    assert read_training(tmp_path / "tuned")["best_epoch"] > 0
    photos = transform.read(shards(examples_dir, "validation"), image_size_px=IMAGE_SIZE_PX)
    images, labels = next(photos.batch(100).as_numpy_iterator())
    for folder in (training_dir, tmp_path / "tuned"):
        probabilities = read_classifier(folder).predict_on_batch(images)
        # The features on disk are float16.
        assert fit_temperature(probabilities, labels) == pytest.approx(1, abs=0.01)


def test_same_seed_gives_the_same_bytes_and_another_seed_another_classifier(
    train: Train, training_dir: Path, tmp_path: Path
) -> None:
    for seed in (0, 1):
        train(tmp_path / str(seed), seed=seed)
    assert_same_bytes(tmp_path / "0", training_dir)
    assert read_history(tmp_path / "1") != read_history(training_dir)


def _doubt(photo: str, *, is_suspect: bool = True) -> Suspect:
    return {
        "photo": photo, "label": "roses", "suggested_label": "tulips", "score": 0.99, "is_suspect": is_suspect,
    }  # fmt: skip


@pytest.fixture
def suspects_dir(tmp_path: Path) -> Path:
    (tmp_path / "suspects").mkdir()
    return tmp_path / "suspects"


@pytest.mark.parametrize("fine_tuning", [{}, {"fine_tune": 1, "fine_tune_epochs": 1}], ids=["head", "fine-tuning"])
def test_photos_with_suspect_labels_can_be_left_out(
    train: Train,
    examples_dir: Path,
    suspects_dir: Path,
    tmp_path: Path,
    fine_tuning: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is as if they had never been among the photos."""
    rows = [row for row in read_index(examples_dir) if row["split"] == "train"]
    (fine, *doubted) = [row["filename"] for row in rows if row["label"] == 2]
    write_suspects(suspects_dir, [*map(_doubt, doubted), _doubt(fine, is_suspect=False)], [])
    seen: list[Any] = []
    fit = fitting.fit

    def look(network: Any, batches: Any, **options: Any) -> Any:
        seen.append(np.concatenate([targets for _, targets, *_ in batches.of_epoch(0).as_numpy_iterator()]))
        return fit(network, batches, **options)

    monkeypatch.setattr(fitting, "fit", look)
    found = train(tmp_path / "out", leave_out_suspects=True, suspects_dir=suspects_dir, **fine_tuning)
    assert found["num_left_out"] == len(doubted) == 6
    assert len(seen) == 1 + bool(fine_tuning)
    for targets, num_views in zip(seen, (2, 1), strict=False):
        assert targets.sum(axis=0).tolist() == [num * num_views for num in (7, 7, 1, 7, 7)]


def test_a_class_that_is_all_suspect_ends_the_training(
    train: Train, examples_dir: Path, suspects_dir: Path, tmp_path: Path
) -> None:
    names = [row["filename"] for row in read_index(examples_dir) if (row["split"], row["label"]) == ("train", 2)]
    write_suspects(suspects_dir, map(_doubt, names), [])
    with pytest.raises(ComponentError, match="Received: all of roses have a suspect label"):
        train(tmp_path / "out", leave_out_suspects=True, suspects_dir=suspects_dir)


def test_suspects_are_left_out_where_somebody_looked_for_them(train: Train, tmp_path: Path) -> None:
    with pytest.raises(ComponentError, match="leave_out_suspects needs the step that finds them"):
        train(tmp_path / "out", leave_out_suspects=True)


def test_fine_tuning_that_does_not_help_changes_nothing(
    train: Train, training_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Far too fast: it forgets everything.
    found = train(tmp_path / "wild", fine_tune=1, fine_tune_epochs=2, fine_tune_learning_rate=1.0)
    before = read_history(training_dir)["head"]
    history = read_history(tmp_path / "wild")
    assert history["head"] == before
    assert min(history["fine_tune"]["val_loss"]) > min(before["val_loss"])
    assert found["val_loss"] == round(min(before["val_loss"]), 4)
    training = read_training(tmp_path / "wild")
    assert (training["best_epoch"], training["is_frozen"]) == (0, True)
    head, kept = read_classifier(training_dir).get_weights(), read_classifier(tmp_path / "wild").get_weights()
    assert all(np.array_equal(one, other) for one, other in zip(head, kept, strict=True))
    assert "FINE-TUNING DID NOT HELP, the model before it is kept" in caplog.text

    train(tmp_path / "gentle", learning_rate=1e-6, fine_tune=1, fine_tune_epochs=2, fine_tune_learning_rate=3e-4)
    history = read_history(tmp_path / "gentle")
    assert min(history["fine_tune"]["val_loss"]) < min(history["head"]["val_loss"])
    training = read_training(tmp_path / "gentle")
    assert training["best_epoch"] in (1, 2)
    assert not training["is_frozen"]


def test_a_rare_class_counts_as_much_where_classes_are_balanced(tmp_path: Path, model_dir: Path) -> None:
    rng = np.random.default_rng(0)

    def recall(class_weights: str) -> float:
        labels = np.array([0] * 190 + [1] * 10)
        features = rng.normal(size=(200, 1, 8)).astype(np.float32) + 0.45 * labels[:, None, None]
        options = TrainerOptions(num_heads=2, epochs=15, hidden_units=(8,), batch_size=32)
        weights = losses.balance({"many": 190, "few": 10}) if class_weights == "balanced" else None
        network, _ = head.train_head(
            write(tmp_path / class_weights, features, labels),
            2,
            options,
            hardware.local_replicas(),
            tmp_path / class_weights,
            class_weights=weights,
        )
        predicted = network.predict(features[:, 0], verbose=0).argmax(axis=1)
        return float((predicted[labels == 1] == 1).mean())

    assert recall("none") < 0.5 < recall("balanced")


def write(folder: Path, features: NDArray[np.float32], labels: NDArray[np.int64]) -> Path:
    """Write the same features for training and validation."""
    folder.mkdir()
    for split in ("train", "validation"):
        write_features(features_path(folder, Path(f"{split}-00000-of-00001.tfrecord"), 0), features[:, 0], labels)
    return folder


def test_class_weights_are_for_head_and_fine_tuning(train: Train, training_dir: Path, tmp_path: Path) -> None:
    # Drawn flowers are as many of each kind: every weight is 1.
    train(tmp_path / "balanced", class_weights="balanced")
    balanced, plain = (read_history(folder)["head"] for folder in (tmp_path / "balanced", training_dir))
    np.testing.assert_allclose(balanced["val_loss"], plain["val_loss"], rtol=1e-5)
    train(tmp_path / "tuned", class_weights="balanced", fine_tune=1, fine_tune_epochs=1)
    # Another process reads either without knowing the loss.
    script = (
        "import sys; from pathlib import Path; from components.artifacts.training import read_classifier\n"
        "for folder in sys.argv[1:]: read_classifier(Path(folder))"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "balanced"), str(tmp_path / "tuned")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("fine_tune", [{}, {"fine_tune": 1, "fine_tune_epochs": 2}], ids=["head", "fine-tuning"])
def test_training_killed_after_every_epoch_ends_as_an_undisturbed_one(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fine_tune: dict[str, int]
) -> None:
    options = WILD | fine_tune | ({"epochs": 1} if fine_tune else {})
    expected = train(tmp_path / "undisturbed", **options)
    history = read_history(tmp_path / "undisturbed")

    save, saved = Checkpoint._save, list[int]()

    def save_and_die(self: Checkpoint) -> None:
        save(self)
        saved.append(self.num_epochs)
        (self.folder / "epoch-00099.partial").mkdir()
        (self.folder / "epoch-00099.partial" / "state.json").write_text('{"num_ep')
        raise Killed

    monkeypatch.setattr(Checkpoint, "_save", save_and_die)
    for _ in range(30):
        assert not (tmp_path / "killed" / MODEL_FILE).exists()
        with contextlib.suppress(Killed):
            found = train(tmp_path / "killed", **options)
            break
    assert len(saved) >= sum(len(phase["loss"]) for phase in history.values()), "each epoch was saved, and killed"
    assert found == expected
    assert_same_bytes(tmp_path / "killed", tmp_path / "undisturbed")
    if not fine_tune:
        assert len(set(history["head"]["learning_rate"])) > 1, "the learning rate must have been reduced on the way"


def test_early_stopping_ends_in_time_and_keeps_the_best_epoch(train: Train, tmp_path: Path, examples_dir: Path) -> None:
    summary = train(tmp_path / "out", **WILD | {"epochs": 30, "early_stopping_patience": 2})
    losses = read_history(tmp_path / "out")["head"]["val_loss"]
    best = int(np.argmin(losses))
    assert len(losses) == best + 1 + 2 < 30
    assert read_training(tmp_path / "out")["best_epoch"] == best + 1
    assert summary["val_loss"] == round(losses[best], 4)
    classifier = read_classifier(tmp_path / "out")
    dataset = transform.read(shards(examples_dir, "validation"), image_size_px=32)
    images, labels = (np.stack(column) for column in zip(*dataset.as_numpy_iterator(), strict=True))
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=TrainerOptions().label_smoothing)
    temperature = read_training(tmp_path / "out")["temperature"]
    uncalibrated = temper(classifier.predict(images, verbose=0), 1 / temperature)
    # Training saw the features in float16, which keeps 11 bits.
    assert float(loss(np.eye(5)[labels], uncalibrated)) == pytest.approx(losses[best], rel=0.01)


def test_loss_that_is_no_longer_a_number_is_an_error(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_with_nan(folder: Path, split: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        features, labels = read_features(folder, split)
        return (features * np.float32(np.nan) if split == "train" else features), labels

    monkeypatch.setattr(head, "read_features", read_with_nan)
    with pytest.raises(
        ComponentError, match=r"The loss and the weights must stay finite numbers; head.* lost them by epoch 1"
    ):
        # Without hidden layers, whose ReLU turns NaN into 0.
        train(tmp_path / "out", hidden_units=())
    assert not (tmp_path / "out" / MODEL_FILE).exists()


def test_fine_tuning_changes_the_last_stage_and_leaves_the_others_as_they_were(
    train: Train, tmp_path: Path, model_dir: Path
) -> None:
    train(tmp_path / "out", learning_rate=1e-6, fine_tune=1, fine_tune_epochs=1, fine_tune_learning_rate=3e-4)
    assert read_training(tmp_path / "out")["best_epoch"] == 1
    backbone = build_backbone("small_cnn", image_size_px=32)
    backbone.load_weights(model_dir / WEIGHTS_FILE)
    tuned = read_classifier(tmp_path / "out").get_layer("small_cnn")
    for layer in backbone.layers:
        weights = zip(layer.get_weights(), tuned.get_layer(layer.name).get_weights(), strict=True)
        assert all((a == b).all() for a, b in weights) == (layer.name != "conv4"), layer.name
    assert set(read_history(tmp_path / "out")) == {"head", "fine_tune"}
    assert read_training(tmp_path / "out")["epochs"] == {"head": 2, "fine_tune": 1}


def test_more_stages_than_there_are_is_an_error_before_any_training(train: Train, tmp_path: Path) -> None:
    with pytest.raises(ComponentError, match=r"fine_tune must be 0 to 4 for small_cnn. Received: 5"):
        train(tmp_path / "out", fine_tune=5)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    "wrong",
    [
        {"dropout": 1.0},
        {"dropout": -0.1},
        {"label_smoothing": 1.0},
        {"epochs": 0},
        {"batch_size": 0},
        {"early_stopping_patience": 0},
        {"reduce_lr_patience": 0},
        {"fine_tune_epochs": 0},
        {"learning_rate": 0.0},
        {"learning_rate": 1.5},
        {"fine_tune_learning_rate": -1e-3},
        {"hidden_units": (8, 0)},
        {"fine_tune": -1},
        {"precision": "int8"},
    ],
    ids=str,
)
def test_options_out_of_range_are_errors(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be .*Received: "):
        TrainerOptions(**wrong)
