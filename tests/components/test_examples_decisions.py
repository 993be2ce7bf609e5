"""Decisions of people, laid over the labels of a source."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components import examples
from components.artifacts.examples import read_examples, read_index
from components.artifacts.labels import add_decisions, read_applied
from components.data.examination import make_examiner
from components.errors import DataError
from components.examples import ExamplesOptions
from tests.components.artifacts.test_labels import decide
from tests.components.data.blobs import Encode, fill

Decide = Callable[..., None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, encode: Encode) -> Path:
    return fill(tmp_path_factory.mktemp("flowers"), {"aster": 30, "rose": 30}, encode)


@pytest.fixture(scope="module")
def more(tmp_path_factory: pytest.TempPathFactory, encode: Encode) -> Path:
    """Photos without labels; the names of the folders mean nothing."""
    return fill(tmp_path_factory.mktemp("more"), {"monday": 12, "tuesday": 12}, encode, first_seed=500)


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    return tmp_path / "labels.jsonl"


@pytest.fixture
def decide_on(labels: Path) -> Decide:
    def decide_(path: Path, label: str | None, **changes: Any) -> None:
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        add_decisions(labels, [decide(label=label, sha256=sha256, photo=path.name, **changes)])

    return decide_


def build(
    source: Path | str, out_dir: Path, *, earlier_dir: Path | None = None, **options: Any
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return the label of each photo, the exclusions by file, and the summary."""
    out_dir.mkdir()
    options = {name: str(value) for name, value in options.items()}
    summary = examples.build(
        out_dir=out_dir, options=ExamplesOptions(source=str(source), **options), earlier_dir=earlier_dir
    )
    description = read_examples(out_dir)
    names = description["class_names"]
    found = {row["filename"]: (names[row["label"]], row["split"]) for row in read_index(out_dir)}
    return found, {e["file"]: e for e in description["excluded"]}, summary


def test_decided_labels_count_more_than_folders(
    folder: Path, labels: Path, decide_on: Decide, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    before, _, _ = build(folder, tmp_path / "before", labels="")
    decide_on(folder / "aster/0000.jpg", "rose")
    decide_on(folder / "aster/0001.jpg", "aster")
    decide_on(folder / "aster/0002.jpg", None, who="ben")
    decide_on(folder / "aster/0003.jpg", None, decision="skip")
    decide_on(folder / "aster/0004.jpg", "rose")
    decide_on(folder / "aster/0004.jpg", None, decision="undo")
    add_decisions(labels, [decide("f")])
    after, excluded, summary = build(folder, tmp_path / "after", labels=labels)

    changed = {name for name in before if after.get(name) != before[name]}
    assert changed == {"aster/0000.jpg", "aster/0002.jpg"}
    assert after["aster/0000.jpg"] == ("rose", before["aster/0000.jpg"][1])
    assert excluded["aster/0002.jpg"]["rule"] == "none_of_these"
    assert "ben" in excluded["aster/0002.jpg"]["reason"]
    assert "1 labels changed, 1 confirmed, 0 photos added, 1 none of the classes; 1 are on photos" in caplog.text
    assert summary["num_decisions"] == 3
    applied = read_applied(tmp_path / "after")
    assert [(each["photo"], each["given_label"], each["label"]) for each in applied] == [
        ("aster/0000.jpg", "aster", "rose"),
        ("aster/0001.jpg", "aster", "aster"),
        ("aster/0002.jpg", "aster", None),
    ]


def test_photos_without_labels_are_learned_from_once_they_have_one(
    folder: Path, more: Path, labels: Path, decide_on: Decide, tmp_path: Path
) -> None:
    for name in ("monday/0500.jpg", "monday/0501.jpg", "tuesday/0512.jpg"):
        decide_on(more / name, "tulip" if "tuesday" in name else "rose")
    before, _, _ = build(folder, tmp_path / "before", labels="")
    after, _, summary = build(folder, tmp_path / "after", labels=labels, unlabelled=more)
    added = {f"{more}/{name}" for name in ("monday/0500.jpg", "monday/0501.jpg", "tuesday/0512.jpg")}
    assert after.keys() - before.keys() == added
    assert {after[name] for name in added} == {("rose", "train"), ("tulip", "train")}
    assert summary["num_classes"] == 3


def test_decisions_alone_make_a_source(more: Path, labels: Path, decide_on: Decide, tmp_path: Path) -> None:
    paths = sorted(more.rglob("*.jpg"))
    for number, path in enumerate(paths):
        decide_on(path, ("rose", "tulip")[number % 2])
    found, _, summary = build("none", tmp_path / "out", labels=labels, unlabelled=more)
    assert len(found) == len(paths)
    assert summary["data"] == str(more)
    assert {split for _, split in found.values()} == {"train", "validation", "test"}


def test_without_any_label_there_is_nothing_to_learn(more: Path, labels: Path, tmp_path: Path) -> None:
    add_decisions(labels, [decide("f")])
    with pytest.raises(DataError, match="No photo has a label, and 1 decisions are read"):
        build("none", tmp_path / "out", labels=labels, unlabelled=more)
    with pytest.raises(ValueError, match=r"examples\.unlabelled"):
        ExamplesOptions(source="none")


def test_two_labels_of_one_file_are_settled_by_a_decision(
    folder: Path, labels: Path, decide_on: Decide, tmp_path: Path, encode: Encode
) -> None:
    twice = fill(tmp_path / "twice", {"aster": 10, "rose": 10}, encode)
    (twice / "rose/copy.jpg").write_bytes((twice / "aster/0005.jpg").read_bytes())
    before, excluded, _ = build(twice, tmp_path / "before", labels="")
    assert excluded["rose/copy.jpg"]["rule"] == "conflicting_label"
    assert "aster/0005.jpg" not in before
    decide_on(twice / "rose/copy.jpg", "rose")
    after, excluded, _ = build(twice, tmp_path / "after", labels=labels)
    assert after["aster/0005.jpg"][0] == "rose"
    assert excluded["rose/copy.jpg"]["rule"] == "duplicate"


def test_a_file_of_decisions_that_is_named_must_be_there(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"examples\.labels must be a file"):
        examples.describe_source(ExamplesOptions(source=str(folder), labels=str(tmp_path / "lables.jsonl")))


def test_what_is_decided_makes_the_examples_again_and_who_did_not(
    folder: Path, labels: Path, decide_on: Decide
) -> None:
    def describe(**options: Any) -> Any:
        return examples.describe_source(ExamplesOptions(source=str(folder), **options))

    before = describe(labels="")
    decide_on(folder / "aster/0000.jpg", None, decision="skip")
    assert describe(labels=str(labels)) == before
    decide_on(folder / "aster/0000.jpg", "rose")
    after = describe(labels=str(labels))
    assert after != before
    decide_on(folder / "aster/0000.jpg", "rose", who="ben")
    assert describe(labels=str(labels)) == after
    assert describe(labels=str(labels), unlabelled=str(folder)) != after


def test_photos_that_were_examined_before_are_not_decoded_again(
    folder: Path, more: Path, labels: Path, decide_on: Decide, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, _, _ = build(folder, tmp_path / "before", labels="")
    decide_on(folder / "aster/0000.jpg", "rose")
    decide_on(more / "monday/0500.jpg", "rose")
    expected, _, _ = build(folder, tmp_path / "expected", labels=labels, unlabelled=more)

    examiner, decoded = make_examiner(), []
    monkeypatch.setattr(
        "components.data.examination.make_examiner", lambda: lambda photo: decoded.append(photo.name) or examiner(photo)
    )
    again, _, summary = build(
        folder, tmp_path / "again", labels=labels, unlabelled=more, earlier_dir=tmp_path / "before"
    )
    assert decoded == [f"{more}/monday/0500.jpg"]
    assert summary["num_reused"] == 60
    assert again == expected != found
    for path in (tmp_path / "expected").iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()
