"""The benchmark of `select` runs on tiny data; its numbers are not judged here."""

import re
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from benchmarks import photos, selection
from components.model import ModelOptions
from components.trainer import TrainerOptions


@pytest.mark.slow
def test_selection_sets_ours_beside_random_choice(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photos, "NUM_SYNTHETIC_PER_CLASS", 10)
    monkeypatch.setattr(selection, "SHARES", (0.5,))
    monkeypatch.setattr(selection, "TrainerOptions", partial(TrainerOptions, epochs=1, num_heads=1))
    options = ModelOptions(backbone="small_cnn", weights="none", image_size_px=32)
    selection.measure("synthetic", options, seeds=range(1, 2))
    (line,) = capsys.readouterr().out.splitlines()
    assert re.search(
        r"\d+ labels \(50%\): accuracy 0\.\d{4}, at random 0\.\d{4} .* of 1 seeds.*all labels 0\.\d{4} .*: ratio of",
        line,
    )


def test_a_seed_deals_every_photo_to_one_split_and_keeps_their_sizes(tmp_path: Path) -> None:
    sizes = {("train", "roses"): 8, ("test", "roses"): 2, ("train", "tulips"): 5, ("validation", "tulips"): 3}
    for (split, name), count in sizes.items():
        (tmp_path / "before" / split / name).mkdir(parents=True)
        for index in range(count):
            (tmp_path / "before" / split / name / f"{index}.jpg").write_text(f"{split} {name} {index}")
    dealt = []
    for seed in (1, 2):
        after = tmp_path / str(seed)
        selection._deal(tmp_path / "before", after, seed)
        links = sorted(after.glob("*/*/*"))
        assert Counter((path.parent.parent.name, path.parent.name) for path in links) == sizes
        assert {path.read_text() for path in links} == {
            path.read_text() for path in (tmp_path / "before").glob("*/*/*")
        }
        dealt.append({path.relative_to(after).as_posix() for path in links})
    assert dealt[0] != dealt[1]
