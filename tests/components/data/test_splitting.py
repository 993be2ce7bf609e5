"""Splits and duplicates, on candidates that stand for files."""

import hashlib
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from components.artifacts.examples import SPLITS, Exclusion
from components.data import splitting
from components.data.candidates import Candidates
from components.data.examination import Candidate, examine
from components.data.sources.source import Photo
from tests.components.data.blobs import Encode, draw

FRACTIONS = {"test": 0.1, "validation": 0.1}


def candidate(name: str, *, content: str = "", label: int = 0) -> Candidate:
    """Make the candidate of a file whose content is its name, unless another is given."""
    sha256 = hashlib.sha256((content or name).encode()).hexdigest()
    return Candidate(name, label, name.split("/")[0], sha256, "jpeg", 8, 8, 0.5, 0.2, hash=b"")


@contextmanager
def table(candidates: Sequence[Candidate], added: Sequence[str] = ()) -> Iterator[Candidates]:
    with tempfile.TemporaryDirectory() as folder, Candidates(Path(folder) / "pool") as found:
        for each in candidates:
            found.add(each, is_added=each.name in added)
        yield found


def read(candidates: Candidates, rows: Sequence[int]) -> list[Candidate]:
    return [replace(candidates.read(row), length=0) for row in rows]


def carve_splits(
    candidates: Sequence[Candidate], fractions: dict[str, float], added: Sequence[str] = ()
) -> list[Candidate]:
    with table(candidates, added) as found:
        splitting.carve_splits(found, np.arange(len(found)), fractions)
        return read(found, range(len(found)))


def drop_exact_duplicates(
    candidates: Sequence[Candidate], added: Sequence[str] = ()
) -> tuple[list[Candidate], list[Exclusion]]:
    with table(candidates, added) as found:
        rows, excluded = splitting.drop_exact_duplicates(found, np.arange(len(found)))
        return read(found, rows.tolist()), excluded


def drop_near_duplicates(
    candidates: Sequence[Candidate], *, max_bits: int
) -> tuple[list[Candidate], list[Exclusion], list[Exclusion]]:
    with table(candidates) as found:
        rows, excluded, conflicts = splitting.drop_near_duplicates(found, np.arange(len(found)), max_bits=max_bits)
        return read(found, rows.tolist()), excluded, conflicts


def make_class(label: int, count: int) -> list[Candidate]:
    return [candidate(f"train/{label}/{number}", label=label) for number in range(count)]


def splits(candidates: list[Candidate]) -> dict[str, str]:
    return {c.sha256: c.split for c in candidates}


def test_splits_depend_on_content_alone() -> None:
    candidates = make_class(0, 30) + make_class(1, 30)
    expected = carve_splits(candidates, FRACTIONS)
    renamed = [replace(c, name=f"elsewhere/{number}") for number, c in enumerate(reversed(candidates))]
    assert splits(carve_splits(renamed, FRACTIONS)) == splits(expected)
    assert [c.name for c in expected] == [c.name for c in candidates]
    assert {(c.label, c.split) for c in expected} == {
        (label, split) for label in (0, 1) for split in ("train", "validation", "test")
    }


def test_photo_keeps_its_split_when_others_are_added() -> None:
    before = splits(carve_splits(make_class(0, 30) + make_class(1, 30), FRACTIONS))
    after = splits(carve_splits(make_class(0, 50) + make_class(1, 50), FRACTIONS))
    assert len(after) == len(before) + 40
    assert {sha256: after[sha256] for sha256 in before} == before


def test_fractions_set_the_size_of_the_splits() -> None:
    counts = Counter(c.split for c in carve_splits(make_class(0, 600), {"test": 0.4, "validation": 0.3}))
    # A draw of 600: three standard deviations around 240 and 180.
    assert counts["test"] == pytest.approx(240, abs=36)
    assert counts["validation"] == pytest.approx(180, abs=34)


def test_every_class_gives_a_photo_to_every_split() -> None:
    carved = carve_splits(make_class(0, 3) + make_class(1, 4) + make_class(2, 5), FRACTIONS)
    assert len({(c.label, c.split) for c in carved}) == 3 * 3


def test_copies_within_a_split_and_across_are_kept_once_where_they_judge_most() -> None:
    kept, excluded = drop_exact_duplicates(
        [
            candidate("train/a/0"),
            candidate("train/a/copy", content="train/a/0"),
            candidate("train/a/leak", content="test/a/7"),
            candidate("train/a/hint", content="validation/a/4"),
            candidate("validation/a/4"),
            candidate("validation/a/leak", content="test/a/7"),
            candidate("test/a/7"),
        ]
    )
    assert {e["file"]: (e["rule"], e["split"], e["reason"]) for e in excluded} == {
        "train/a/copy": ("duplicate", "train", "the same file as train/a/0"),
        "train/a/leak": ("duplicate", "train", "the same file as test/a/7"),
        "validation/a/leak": ("duplicate", "validation", "the same file as test/a/7"),
        "train/a/hint": ("duplicate", "train", "the same file as validation/a/4"),
    }
    assert sorted(c.name for c in kept) == ["test/a/7", "train/a/0", "validation/a/4"]


def test_file_under_two_labels_is_left_out_wherever_it_is() -> None:
    one, same = candidate("train/a/0"), candidate("test/b/same", content="train/a/0", label=1)
    other = candidate("train/b/1", label=1)
    kept, excluded = drop_exact_duplicates([one, other, same])
    assert kept == [other]
    assert {e["file"]: (e["split"], e["rule"], e["reason"]) for e in excluded} == {
        c.name: (c.split, "conflicting_label", "the same file under two labels: train/a/0, test/b/same")
        for c in (one, same)
    }


def test_rescaled_or_recompressed_copies_are_kept_out_of_the_split_that_judges_less(encode: Encode) -> None:
    def photo(name: str, image: Image.Image, kind: str = "JPEG", **options: Any) -> Photo:
        return Photo(name, 0, name.split("/")[0], encode(image, kind, **options))

    photos = [
        *(photo(f"{s}/{n}", draw(n)) for s, n in [("train", 0), ("validation", 5), ("test", 7), ("test", 8)]),
        photo("train/rescaled", draw(7).resize((96, 80))),
        photo("train/recompressed", draw(5), quality=60),
        photo("validation/of_test", draw(8), "PNG"),
        photo("test/within", draw(8), "BMP"),
    ]
    candidates = [found for found, _ in examine(photos) if isinstance(found, Candidate)]
    kept, excluded, conflicts = drop_near_duplicates(candidates, max_bits=3)
    assert conflicts == []
    assert drop_near_duplicates(candidates, max_bits=0) == (candidates, [], [])
    assert {e["file"]: (e["rule"], e["split"], e["reason"]) for e in excluded} == {
        "train/rescaled": ("near_duplicate", "train", "looks the same as test/7 in test"),
        "train/recompressed": ("near_duplicate", "train", "looks the same as validation/5 in validation"),
        "validation/of_test": ("near_duplicate", "validation", "looks the same as test/8 in test"),
    }
    assert "test/within" in {c.name for c in kept}, "within a split likeness does no harm"


def test_images_without_any_detail_are_not_taken_for_copies_of_each_other_within_a_split(encode: Encode) -> None:
    plain = [encode(Image.new("RGB", (30, 30), (grey,) * 3), "PNG") for grey in (10, 200)]
    photos = (Photo("1.png", 0, "train", content) for content in plain)
    candidates = [found for found, _ in examine(photos) if isinstance(found, Candidate)]
    assert drop_near_duplicates(candidates, max_bits=2) == (candidates, [], [])


def test_plain_images_of_many_shades_are_no_copies(encode: Encode) -> None:
    shades = [(255 - 3 * n, 0, 0) for n in range(40)] + [(0, 255 - 3 * n, 0) for n in range(40)]
    photos = [
        Photo(f"{n}", n // 40, "train", encode(Image.new("RGB", (30, 30), c), "PNG")) for n, c in enumerate(shades)
    ]
    candidates = carve_splits([found for found, _ in examine(photos) if isinstance(found, Candidate)], FRACTIONS)
    assert drop_near_duplicates(candidates, max_bits=2) == (candidates, [], [])


def test_look_alikes_of_two_classes_judge_nothing_and_are_reported(encode: Encode) -> None:
    def photo(name: str, label: int, seed: int, kind: str = "PNG") -> Photo:
        return Photo(name, label, name.split("/")[0], encode(draw(seed), kind))

    photos = [
        photo("train/a", 0, 1),
        photo("test/b", 1, 1, "BMP"),
        photo("train/c", 0, 2),
        photo("train/d", 1, 2, "BMP"),
        photo("test/e", 0, 3),
        photo("validation/f", 1, 3, "BMP"),
        photo("test/g", 0, 4),
    ]
    candidates = [found for found, _ in examine(photos) if isinstance(found, Candidate)]
    kept, excluded, conflicts = drop_near_duplicates(candidates, max_bits=2)
    assert [c.name for c in kept] == ["train/a", "train/c", "train/d", "test/g"]
    assert {e["file"]: (e["rule"], e["reason"]) for e in excluded} == {
        "test/b": ("conflicting_label", "looks the same as train/a, of another class"),
        "test/e": ("conflicting_label", "looks the same as validation/f, of another class"),
        "validation/f": ("conflicting_label", "looks the same as test/e, of another class"),
    }
    assert [c["file"] for c in conflicts] == ["train/a", "train/c", "train/d"]


@given(st.sets(st.integers(0, 10**6), min_size=3, max_size=30), st.sets(st.integers(0, 10**6), max_size=10))
def test_no_photo_that_was_trained_on_comes_to_judge_when_others_are_added(before: set[int], added: set[int]) -> None:
    def ranks(numbers: set[int]) -> dict[str, int]:
        carved = carve_splits([candidate(f"train/{number}") for number in numbers], FRACTIONS)
        return {c.name: SPLITS.index(c.split) for c in carved}

    first, then = ranks(before), ranks(before | added)
    assert all(then[name] <= rank for name, rank in first.items())


CANDIDATES = st.lists(
    st.builds(
        lambda number, content, label, split: candidate(f"{split}/{number}", content=str(content), label=label),
        *(st.integers(0, 99), st.integers(0, 30), st.integers(0, 2), st.sampled_from(SPLITS)),
    ),
    max_size=40,
    unique_by=lambda each: each.name,
)


@given(CANDIDATES, st.sets(st.integers(0, 99)))
def test_a_table_gives_what_plain_lists_give(candidates: list[Candidate], numbers: set[int]) -> None:
    added = [f"train/{number}" for number in numbers]
    kept, excluded = drop_exact_duplicates(candidates, added)
    expected, others = _drop_exact_duplicates(candidates, added)
    assert (kept, excluded) == (expected, others)
    assert carve_splits(kept, FRACTIONS, added) == _carve_splits(kept, FRACTIONS, added)


def _drop_exact_duplicates(
    candidates: Sequence[Candidate], added: Sequence[str]
) -> tuple[list[Candidate], list[Exclusion]]:
    groups: dict[str, list[Candidate]] = defaultdict(list)
    for each in candidates:
        groups[each.sha256].append(each)
    kept, excluded = [], []
    for group in groups.values():
        if len({c.label for c in group}) > 1:
            reason = f"the same file under two labels: {', '.join(c.name for c in group)}"
            excluded += [Exclusion(file=c.name, split=c.split, rule="conflicting_label", reason=reason) for c in group]
            continue
        first, *copies = sorted(group, key=lambda c: (-SPLITS.index(c.split), c.name in added, c.name))
        kept.append(first)
        reason = f"the same file as {first.name}"
        excluded += [Exclusion(file=c.name, split=c.split, rule="duplicate", reason=reason) for c in copies]
    return kept, excluded


def _carve_splits(
    candidates: Sequence[Candidate], fractions: dict[str, float], added: Sequence[str]
) -> list[Candidate]:
    moved: dict[str, str] = {}
    for label in {c.label for c in candidates}:
        group = sorted(c.sha256 for c in candidates if c.label == label and c.split == "train" and c.name not in added)
        limit = 0.0
        for split, fraction in fractions.items():
            limit += fraction
            rest = [sha256 for sha256 in group if sha256 not in moved]
            below = [sha256 for sha256 in rest if int(sha256[:13], 16) / 16**13 < limit]
            moved |= dict.fromkeys(below or rest[:1], split)
    return [replace(c, split=moved.get(c.sha256, c.split)) for c in candidates]
