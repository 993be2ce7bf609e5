"""Drawn flowers as a source."""

from itertools import islice

from components.data.drawn_flowers import CLASS_NAMES
from components.data.sources.drawn import open_drawn


def test_drawn_flowers_are_the_same_for_a_seed_and_fill_every_split() -> None:
    source = open_drawn(num_per_class=10, seed=0)
    photos = list(source.photos)
    assert (source.resolved, source.class_names) == ("synthetic", CLASS_NAMES)
    assert source.num_photos == len(photos) == 10 * len(CLASS_NAMES)
    assert len({p.encoded for p in photos}) == len(photos)
    for label in range(len(CLASS_NAMES)):
        assert sorted(p.split for p in photos if p.label == label) == ["test"] * 2 + ["train"] * 7 + ["validation"]
    assert list(islice(open_drawn(num_per_class=10, seed=0).photos, 20)) == photos[:20]


def test_drawn_flowers_of_two_seeds_have_nothing_in_common() -> None:
    first, other = ({p.encoded for p in open_drawn(num_per_class=2, seed=seed).photos} for seed in (0, 1))
    assert first.isdisjoint(other)
