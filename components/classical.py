"""Classical models of scikit-learn, on Canny edges or on a backbone's features, judged on the test split.

Reads edges, or the features of train and test; writes `rows.json` and, as soon as a model has been judged, its row as
`<model>.json`: a killed step goes on with the next one.

The original project compared the same five on Canny edges of 500×500 grey images and found 20 to 30 % on its 50 test
photos. Its settings are not known, so these are scikit-learn's own, but where the options say otherwise.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.artifacts.backbone import read_backbone
from components.artifacts.comparison_rows import Row, make_row, write_rows
from components.artifacts.edges import read_edges, unpack
from components.artifacts.examples import read_examples
from components.artifacts.features import read_features
from components.artifacts.manifest import read_manifest
from components.artifacts.summary import Summary
from components.options import check_at_least, check_seed
from components.progress import Progress
from components.reporting import metrics
from components.storage.files import read_json, write_json

Array = NDArray[np.float32]


@dataclass(frozen=True)
class ClassicalOptions:
    """How the models learn.

    Attributes:
        max_photos: training photos used, the first of their mixed order; 4,000 take 4 GB of edges.
        num_neighbours: of the nearest-neighbour vote.
        num_trees: of the random forest.
        max_tree_inputs: of how many inputs, drawn anew for each split, the decision tree takes the best. All 250,000
            pixels would take it over three minutes.
        seed: of the trees.
        num_jobs: processors used.
    """

    max_photos: int = 4000
    num_neighbours: int = 5
    num_trees: int = 100
    max_tree_inputs: int = 25_000
    seed: int = 0
    num_jobs: int = 2

    def __post_init__(self) -> None:
        check_at_least(self, 1, "max_photos", "num_neighbours", "num_trees", "max_tree_inputs", "num_jobs")
        check_seed(self)


@dataclass(frozen=True)
class _Inputs:
    """What a model learns from and is judged on, `float32 [N, D]` and `[M, D]`, and the seconds it took to make."""

    train: Array
    test: Array
    seconds: float


class _Edges:
    """Edges, a number a pixel; and, for models that only see angles and distances, what keeps exactly those."""

    learns_from = "Canny edges"

    def __init__(self, edges_dir: Path, options: ClassicalOptions) -> None:
        self._seconds = read_manifest(edges_dir)["seconds"]
        (train, labels), (test, self.test_labels) = read_edges(edges_dir, "train"), read_edges(edges_dir, "test")
        self._train, self.labels, self._test = train[: options.max_photos], labels[: options.max_photos], test
        self.num_inputs = 8 * train.shape[1]
        share = float(np.bitwise_count(self._train).sum() / (8 * self._train.size))
        # What scikit-learn's SVC calls "scale", 1 / (inputs × variance), of the pixels themselves.
        self.gamma: float | str = 1 / (self.num_inputs * max(share * (1 - share), 1e-9))

    @cached_property
    def plain(self) -> _Inputs:
        return _Inputs(unpack(self._train), unpack(self._test), self._seconds)

    @cached_property
    def scaled(self) -> _Inputs:
        started = time.monotonic()
        train, test = rotate(self.plain.train, self.plain.test)
        return _Inputs(train, test, self._seconds + time.monotonic() - started)


class _Features:
    """A backbone's pooled features; scaled to mean 0 and variance 1 for models that see angles and distances."""

    def __init__(self, features_dir: Path, test_features_dir: Path, backbone: str, options: ClassicalOptions) -> None:
        train, labels = read_features(features_dir, "train")
        test, self.test_labels = read_features(test_features_dir, "test")
        self.learns_from = f"{backbone} features"
        self.labels = labels[: options.max_photos]
        self.plain = _Inputs(train[: options.max_photos, 0], test[:, 0], read_manifest(features_dir)["seconds"])
        self.num_inputs = self.plain.train.shape[1]
        self.gamma: float | str = "scale"

    @cached_property
    def scaled(self) -> _Inputs:
        from sklearn.preprocessing import StandardScaler

        scaler = StandardScaler().fit(self.plain.train)
        return _Inputs(scaler.transform(self.plain.train), scaler.transform(self.plain.test), self.plain.seconds)


_Data = _Edges | _Features


def compare_on_edges(*, examples_dir: Path, edges_dir: Path, out_dir: Path, options: ClassicalOptions) -> Summary:
    """Fit and judge the five models on Canny edges."""
    return _compare(examples_dir, out_dir, options, lambda: _Edges(edges_dir, options))


def compare_on_features(
    *,
    examples_dir: Path,
    model_dir: Path,
    features_dir: Path,
    test_features_dir: Path,
    out_dir: Path,
    options: ClassicalOptions,
) -> Summary:
    """Fit and judge the five models on the clean view of a frozen backbone's features."""
    backbone = read_backbone(model_dir)["backbone"]
    return _compare(
        examples_dir, out_dir, options, lambda: _Features(features_dir, test_features_dir, backbone, options)
    )


def rotate(train: Array, test: Array) -> tuple[Array, Array]:
    """Describe photos with many inputs by as few numbers as there are training photos, at the same distances.

    The N training photos span at most N directions: in these, and one more for how far a test photo lies outside
    them, every distance and product with a training photo is what it was. So nearest neighbours, a kernel of
    distances and a linear model with an L2 penalty (whose weights lie in that span) decide as on all inputs.

    Args:
        train: `float32 [N, D]`.
        test: `float32 [M, D]`.

    Returns:
        `float32 [N, R + 1]` and `[M, R + 1]`, with R ≤ N.
    """
    values, vectors = np.linalg.eigh((train @ train.T).astype(np.float64))
    kept = values > values[-1] * 1e-6  # float32 knows no more
    lengths = np.sqrt(values[kept])
    inside = (test @ train.T) @ vectors[:, kept] / lengths
    squares = np.einsum("md,md->m", test, test) - np.einsum("mr,mr->m", inside, inside)
    outside = np.sqrt(np.maximum(squares, 0))[:, np.newaxis]
    rotated = vectors[:, kept] * lengths
    return (
        np.hstack([rotated, np.zeros((len(train), 1))]).astype(np.float32),
        np.hstack([inside, outside]).astype(np.float32),
    )


def _compare(examples_dir: Path, out_dir: Path, options: ClassicalOptions, read: Callable[[], _Data]) -> Summary:
    class_names = read_examples(examples_dir)["class_names"]
    paths = {name: out_dir / f"{name.replace(' ', '_')}.json" for name in _MODELS}
    waiting = [name for name, path in paths.items() if not path.exists()]
    if waiting:
        data = read()
        for name in Progress(waiting, desc=data.learns_from, unit="model"):
            write_json(paths[name], _fit(name, data, class_names, options))
    found: list[Row] = [read_json(path) for path in paths.values()]
    write_rows(out_dir, found)
    return {row["model"]: round(row["accuracy"], 4) for row in found}


def _fit(name: str, data: _Data, class_names: Sequence[str], options: ClassicalOptions) -> Row:
    kind = _MODELS[name]
    classifier = kind.make(options, data)
    inputs = data.scaled if kind.is_scaled else data.plain
    started = time.monotonic()
    classifier.fit(inputs.train, data.labels)
    fit_s = time.monotonic() - started
    return make_row(
        model=name,
        learns_from=data.learns_from,
        measured=metrics.summarize_classes(classifier.predict(inputs.test), data.test_labels, class_names),
        fit_s=fit_s,
        inputs_s=inputs.seconds,
        num_parameters=kind.count(classifier, data.num_inputs),
    )


def _make_logistic_regression(options: ClassicalOptions, data: _Data) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=1000)


def _make_neighbours(options: ClassicalOptions, data: _Data) -> Any:
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(options.num_neighbours, n_jobs=options.num_jobs)


def _make_support_vectors(options: ClassicalOptions, data: _Data) -> Any:
    from sklearn.svm import SVC

    return SVC(gamma=data.gamma)


def _make_tree(options: ClassicalOptions, data: _Data) -> Any:
    from sklearn.tree import DecisionTreeClassifier

    max_inputs = min(options.max_tree_inputs, data.num_inputs)
    return DecisionTreeClassifier(max_features=max_inputs, random_state=options.seed)


def _make_forest(options: ClassicalOptions, data: _Data) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(options.num_trees, random_state=options.seed, n_jobs=options.num_jobs)


@dataclass(frozen=True)
class _Kind:
    """A kind of model: how one is made, whether it sees scaled inputs, and how many numbers a fitted one keeps."""

    make: Callable[[ClassicalOptions, _Data], Any]
    is_scaled: bool
    count: Callable[[Any, int], int]


_MODELS = {
    "logistic regression": _Kind(_make_logistic_regression, True, lambda m, d: len(m.intercept_) * (d + 1)),
    "k-nearest neighbours": _Kind(_make_neighbours, True, lambda m, d: m.n_samples_fit_ * d),
    "support vector machine": _Kind(
        _make_support_vectors, True, lambda m, d: m.support_.size * d + m.dual_coef_.size + m.intercept_.size
    ),
    # Which input, and a threshold, for each node.
    "decision tree": _Kind(_make_tree, False, lambda m, d: 2 * m.tree_.node_count),
    "random forest": _Kind(_make_forest, False, lambda m, d: 2 * sum(t.tree_.node_count for t in m.estimators_)),
}
