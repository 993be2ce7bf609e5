"""Test accuracy with few labels: photos that `select` asks for against photos drawn at random, as many of both.

Both begin without labels. `select` is asked for 50 photos at a time, and learns their labels before the next ones.
Each seed deals the photos of all splits to new ones, draws other photos at random, and trains the pipeline's own head
from other weights: a single split of a few hundred test photos says more of these photos than of `select`.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import photos
from components import examples, features, model
from components.artifacts.features import read_clean, read_features
from components.data.transform import TransformOptions
from components.examples import ExamplesOptions
from components.features import FeaturesOptions
from components.model import ModelOptions
from components.trainer import TrainerOptions
from components.training.hardware import local_replicas
from components.training.head import train_head
from components.training.selection import Labelled, choose

BATCH = 50
SHARES = (0.02, 0.08, 0.3)
"""Of the training photos that have labels."""


def measure(data: str, options: ModelOptions, *, seeds: range) -> None:
    """Print the mean test accuracy of both at each share, and in how many seeds which is better; a seed to stderr."""
    rows = []
    with photos.folder(data) as folder:
        for seed in seeds:
            with tempfile.TemporaryDirectory() as temporary:
                _deal(folder, Path(temporary) / "photos", seed)
                row, counts = _measure(Path(temporary), options, seed)
            rows.append(row)
            print(f"selection: seed {seed}: {np.round(row, 4).tolist()}", file=sys.stderr, flush=True)
    accuracies = np.array(rows)
    everything = accuracies[:, -1, 0]
    for column, count in enumerate(counts):
        ours, peer = accuracies[:, column].T
        print(
            f"selection: some {count} labels ({SHARES[column]:.0%}): accuracy {ours.mean():.4f}, at random "
            f"{_beside(ours, peer)}, better in {(ours > peer).sum()} of {len(seeds)} seeds, the same in "
            f"{(ours == peer).sum()}; with all labels {_beside(ours, everything)}: "
            f"ratio of errors {(1 - ours.mean()) / max(1 - peer.mean(), 1e-9):.3f}",
            flush=True,
        )


def _beside(ours: NDArray[np.float64], peer: NDArray[np.float64]) -> str:
    """Return the mean of the peer, and in brackets how much more ours is, with half its 95 % interval."""
    gain = ours - peer
    error = 1.96 * gain.std(ddof=min(1, len(gain) - 1)) / len(gain) ** 0.5
    return f"{peer.mean():.4f} ({gain.mean():+.4f} ± {error:.4f})"


def _deal(folder: Path, out_dir: Path, seed: int) -> None:
    """Link the photos of a split folder to splits that are drawn anew, of each class as many as before."""
    rng = np.random.default_rng(seed)
    for name in sorted({path.name for path in folder.glob("train/*")}):
        files = sorted(folder.glob(f"*/{name}/*"))
        splits = sorted((path.parent.parent.name for path in files), key=("test", "validation", "train").index)
        for index, split in zip(rng.permutation(len(files)), splits, strict=True):
            link = out_dir / split / name / f"{files[index].parent.parent.name}_{files[index].name}"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(files[index].resolve())


def _measure(work: Path, options: ModelOptions, seed: int) -> tuple[list[list[float]], list[int]]:
    """Return accuracies `[shares and all labels][ours, at random]`, and how many labels a share is."""
    for name in ("examples", "model", "features", "test_features"):
        (work / name).mkdir()
    model.fetch(out_dir=work / "model", options=options)
    examples.build(out_dir=work / "examples", options=ExamplesOptions(source=str(work / "photos"), labels=""))
    inputs: dict[str, Any] = {"examples_dir": work / "examples", "model_dir": work / "model"}
    features.extract(
        **inputs,
        validation_dir=work,
        out_dir=work / "features",
        options=FeaturesOptions(),
        transform=TransformOptions(),
    )
    features.extract_test(**inputs, out_dir=work / "test_features", options=FeaturesOptions())
    _, embeddings, labels = map(np.concatenate, zip(*read_clean(work / "features", "train"), strict=True))
    test, test_labels = read_features(work / "test_features", "test")
    num_classes = int(labels.max()) + 1

    def judge(rows: NDArray[np.intp]) -> float:
        are_kept = np.zeros(len(labels), bool)
        are_kept[rows] = True
        with tempfile.TemporaryDirectory() as out_dir:
            head, _ = train_head(
                work / "features",
                num_classes,
                TrainerOptions(seed=seed),
                local_replicas(),
                Path(out_dir),
                are_kept=are_kept,
            )
        return float((np.asarray(head(test[:, 0])).argmax(axis=1) == test_labels).mean())

    counts = [max(2 * num_classes, round(share * len(labels))) for share in SHARES]
    ours = _select(embeddings, labels, counts[-1])
    order = np.random.default_rng(seed).permutation(len(labels))
    accuracies = [[judge(ours[:count]), judge(order[:count])] for count in counts]
    return [*accuracies, [judge(order)] * 2], counts


def _select(embeddings: NDArray[np.float32], labels: NDArray[np.int64], count: int) -> NDArray[np.intp]:
    """Return the rows that `select` asks for, in its order."""
    known = np.empty(0, np.intp)
    while len(known) < count:
        rest = np.setdiff1d(np.arange(len(labels)), known)
        choices = choose(
            embeddings[rest],
            min(BATCH, count - len(known)),
            labelled=Labelled(embeddings[known], labels[known]),
            decided=embeddings[:0],
            looks_like=lambda row, others: False,
        )
        if not choices:
            break
        known = np.concatenate([known, rest[[choice.row for choice in choices]]])
    return known
