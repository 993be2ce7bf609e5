"""Photos are chosen that stand for many others, later where the classifier is unsure, and never two look-alikes."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from components.training import selection
from components.training.selection import Choice, Labelled, choose

WIDTH = 16
NOTHING = Labelled(np.empty((0, WIDTH), np.float32), np.empty(0, np.int64))


def crowd(sizes: Sequence[int], *, spread: float = 0.25, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Return embeddings of groups of these sizes, and the group of each."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    centres = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0][: len(sizes)]
    rows = centres[groups] + spread * rng.normal(size=(len(groups), WIDTH))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), groups


def rows_of(
    embeddings: NDArray[np.float32],
    count: int,
    *,
    labelled: Labelled = NOTHING,
    decided: NDArray[np.float32] = NOTHING.embeddings,
) -> list[Choice]:
    return choose(embeddings, count, labelled=labelled, decided=decided, looks_like=lambda row, others: False)


def test_without_labels_each_large_group_comes_before_any_twice() -> None:
    embeddings, groups = crowd([60, 50, 40, 30])
    choices = rows_of(embeddings, 4)
    assert [groups[choice.row] for choice in choices] == [0, 1, 2, 3]
    assert not any(choice.is_uncertain for choice in choices)


def test_what_is_decided_is_not_asked_again() -> None:
    embeddings, groups = crowd([60, 50, 40, 30])
    few = Labelled(embeddings[:2], np.array([0, 0]))
    choices = rows_of(embeddings[4:], 2, labelled=few, decided=embeddings[60:63])
    assert [groups[4:][choice.row] for choice in choices] == [2, 3]


def test_copies_and_look_alikes_are_shown_once() -> None:
    embeddings, _ = crowd([20, 20])
    twice = np.concatenate([embeddings, embeddings, embeddings[:5]])
    rows = [choice.row for choice in rows_of(twice, 100, decided=embeddings[:3])]
    assert sorted(row % 40 for row in rows) == list(range(3, 40))
    alike = choose(
        embeddings, 100, labelled=NOTHING, decided=NOTHING.embeddings, looks_like=lambda row, others: len(others) > 6
    )
    assert len(alike) == 7


def test_with_labels_the_classifier_is_asked() -> None:
    embeddings, groups = crowd([200, 200], spread=0.05)
    between = embeddings[:40] + embeddings[200:240]
    between /= np.linalg.norm(between, axis=1, keepdims=True)
    labelled = Labelled(embeddings[::2], groups[::2].astype(np.int64))
    pool = np.concatenate([embeddings[1::2], between])
    choices = rows_of(pool, 10, labelled=labelled)
    assert sum(choice.row >= 200 for choice in choices) >= 8
    assert all(choice.is_uncertain for choice in choices if choice.row >= 200)
    assert not any(choice.is_uncertain for choice in rows_of(embeddings[1::2], 10, labelled=labelled))


def test_order_is_the_same_whichever_way_it_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings, _ = crowd([40, 30, 20])
    once = rows_of(embeddings, 30, decided=embeddings[:9])
    monkeypatch.setattr(selection, "_BLOCK", 7)
    assert rows_of(embeddings, 30, decided=embeddings[:9]) == once
    # The greedy choice by its definition.
    distances = np.sum((embeddings[:, np.newaxis] - embeddings) ** 2, axis=-1)
    similar = np.exp(-distances / distances.mean() / selection._TYPICAL_WIDTH)
    open_rows = np.flatnonzero(distances[:, :9].min(axis=1) > selection._ALIKE * distances.mean())
    covered = similar[:, :9].max(axis=1)
    for choice in once:
        gains = np.maximum(similar[open_rows] - covered, 0)[:, open_rows].sum(axis=1)
        assert gains[list(open_rows).index(choice.row)] == pytest.approx(gains.max(), rel=1e-4)
        covered = np.maximum(covered, similar[:, choice.row])


def test_large_folder_is_seen_through_some_of_its_photos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "_MAX_TARGETS", 50)
    embeddings, groups = crowd([200, 200, 200, 200])
    assert {groups[choice.row] for choice in rows_of(embeddings, 4)} == {0, 1, 2, 3}


@pytest.mark.parametrize("num_classes", [1, 2, 40])
def test_odd_labels_are_no_error(num_classes: int) -> None:
    embeddings, _ = crowd([60, 60])
    same = Labelled(np.repeat(embeddings[:1], 100, axis=0), np.arange(100) % num_classes)
    assert len(rows_of(embeddings[1:], 5, labelled=same)) == 5
    assert rows_of(embeddings[:0], 5, labelled=same) == []
