"""Files of labels as people get them: from spreadsheets, from Label Studio and from FiftyOne."""

import json
from pathlib import Path
from typing import Any

import pytest

from components.errors import DataError
from pipelines.labels.entries import Entry
from pipelines.labels.exchange import read_file

SHA = "ab" * 32
FLAT = {"image": "/data/upload/7/0225a044-rose%201.jpg", "id": 3, "annotator": 1, "annotation_id": 9, "lead_time": 2.5}


def read(tmp_path: Path, content: bytes | str | Any, name: str, format_: str | None = None) -> tuple[list[Entry], int]:
    """Return the entries of a file, and the number of photos without a label."""
    path = tmp_path / name
    content = content if isinstance(content, bytes | str) else json.dumps(content)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    found = read_file(path, format_)
    return found.entries, found.num_undecided


def pairs(entries: list[Entry]) -> list[tuple[str, str | None]]:
    return [(entry.photo, entry.label or entry.decision) for entry in entries]


def annotate(*labels: str, **more: Any) -> dict[str, Any]:
    return {"result": [{"type": "choices", "from_name": "x", "value": {"choices": list(labels)}}], **more}


# CSV


@pytest.mark.parametrize(
    "content",
    [
        b"photo,label\na b.jpg,rose\nb.jpg,\xc3\xa9pine\n",
        b"\xef\xbb\xbfPhoto;Label\r\na b.jpg;rose\r\nb.jpg;\xc3\xa9pine\r\n",
        b"label\tphoto\nrose\ta b.jpg\n\n\xc3\xa9pine\tb.jpg",
        b'photo,label,mood\n"a b.jpg", rose ,"good,\nbad"\nb.jpg,\xc3\xa9pine,\n',
    ],
    ids=["plain", "excel", "tabs", "quoted"],
)
def test_a_csv_is_read_as_spreadsheets_write_it(tmp_path, content):
    entries, _ = read(tmp_path, content, "labels.csv")
    assert pairs(entries) == [("a b.jpg", "rose"), ("b.jpg", "épine")]


def test_a_csv_says_who_decided_what_and_when(tmp_path):
    lines = ["photo,sha256,decision,label,who,when,why"]
    lines += [f"a.jpg,{SHA.upper()},label,rose,ada,2026-11-26T20:15:00+00:00,suspect", "b.jpg,,none,,,,", "c.jpg,,,,,,"]
    entries, num_undecided = read(tmp_path, "\n".join([*lines, "d.jpg,,,None of these,,,"]), "x.csv")
    when = "2026-11-26T20:15:00+00:00"
    assert entries[0] == Entry("line 2", "a.jpg", "label", "rose", SHA, "ada", when, "suspect")
    assert pairs(entries[1:]) == [("b.jpg", "none"), ("d.jpg", "none")]
    assert num_undecided == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "Received: an empty file"),
        ("name,class\na.jpg,rose\n", "names its columns"),
        ("photo,label\na.jpg,rose,red\n", "Received: 3 in line 2"),
        ("photo,label\na.jpg,rose\n,rose\n", "neither in line 3"),
        ("sha256,label\n12,rose\n", "64 hexadecimal digits. Received: '12' in line 2"),
        ("photo,decision,label\na.jpg,perhaps,rose\n", "'perhaps' in line 2"),
        ("photo,decision,label\na.jpg,none,rose\n", "label must be empty where decision is none"),
        ("photo,decision,label\na.jpg,label,\n", "the name of a class"),
        ('photo,label\na.jpg,"ro\nse"\n', "in line 3"),
        ('photo,label\na.jpg,"rose\n', "Received: line 2"),
        (b"photo,label\na.jpg,\xe9pine\n", "Save it as UTF-8"),
    ],
)
def test_a_csv_that_is_not_understood_names_the_line(tmp_path, content, message):
    with pytest.raises(DataError, match=r"labels\.csv") as caught:
        read(tmp_path, content, "labels.csv")
    assert message in str(caught.value)


# Label Studio


def test_label_studio_json_is_read(tmp_path):
    tasks = [
        {
            "id": 7,
            "data": {"image": "/data/local-files/?d=roses/a%20b.jpg", "sha256": SHA},
            "annotations": [
                annotate("rose", completed_by={"email": "ada@example.org"}, created_at="2021-03-09T22:16:08.728378Z")
            ],
            "predictions": [annotate("tulip")],
        },
        {"data": {"photo": "s3://bucket/b.jpg", "note": "wet"}, "annotations": [annotate("tulip", completed_by=4)]},
        {"data": {"image": "c.jpg"}, "annotations": [{"was_cancelled": True, "result": []}]},
        {"data": {"image": "d.jpg"}, "annotations": []},
        {"data": {"image": "e.jpg"}, "annotations": [{"result": [{"type": "rectanglelabels", "value": {}}]}]},
        {"data": {"image": "f.jpg"}, "annotations": [annotate("rose"), annotate("tulip", ground_truth=True)]},
    ]
    entries, num_undecided = read(tmp_path, tasks, "project-1.json")
    assert entries[0] == Entry(
        "task 1 (id 7)",
        "/data/local-files/?d=roses/a%20b.jpg",
        "label",
        "rose",
        SHA,
        "ada@example.org",
        "2021-03-09T22:16:08+00:00",
    )
    assert pairs(entries[1:]) == [("s3://bucket/b.jpg", "tulip"), ("c.jpg", "skip"), ("f.jpg", "tulip")]
    assert entries[1].who == "Label Studio user 4"
    assert num_undecided == 2


@pytest.mark.parametrize("choice", [{"choice": "rose"}, {"flower": "rose"}, {"flower": {"choices": ["rose"]}}])
def test_label_studio_json_min_is_read(tmp_path, choice):
    entries, num_undecided = read(tmp_path, [{**FLAT, **choice}, FLAT], "project-1.json")
    assert pairs(entries) == [(FLAT["image"], "rose")]
    assert num_undecided == 1


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ("[{", "must be JSON"),
        ([3], "as task 1"),
        ([{"data": {"image": "a.jpg"}, "annotations": [annotate("rose", "tulip")]}], "['rose', 'tulip'] in task 1"),
        ([{"data": {"image": "a.jpg"}, "annotations": [annotate("")]}], "Received: '' in task 1"),
        ([{"data": {"a": "a.jpg", "b": "b.jpg"}, "annotations": [annotate("rose")]}], "the keys a, b in task 1"),
        ([{"data": {"image": "a.jpg"}, "annotations": {}}], "Received: neither in task 1"),
        ([{"data": {"image": "a.jpg"}, "annotations": [3]}], "as task 1"),
        ([{"data": {"image": "a.jpg"}, "annotations": [{"result": [{"type": "choices", "value": 3}]}]}], "as task 1"),
        ([{"data": {"image": "a.jpg"}, "annotations": [{"result": 3}]}], "as task 1"),
        ([{**FLAT, "flower": "rose", "mood": "good"}], "Received: flower, mood in task 1 (id 3)"),
    ],
)
def test_label_studio_json_that_is_not_understood_names_the_task(tmp_path, tasks, message):
    with pytest.raises(DataError) as caught:
        read(tmp_path, tasks, "tasks.json")
    assert message in str(caught.value)


# FiftyOne


@pytest.mark.parametrize(
    "targets",
    [
        {"classes": ["rose", "tulip"], "labels": {"roses/a": 0, "b": 1, "c": None}},
        {"classes": None, "labels": {"roses/a": "rose", "b": "tulip", "c": None}},
        {"labels": {"roses/a": {"label": "rose", "confidence": 0.9}, "b": [{"label": "tulip"}], "c": []}},
    ],
    ids=["classes", "names", "confidences"],
)
def test_fiftyone_labels_are_read(tmp_path, targets):
    entries, num_undecided = read(tmp_path, targets, "labels.json")
    assert pairs(entries) == [("roses/a", "rose"), ("b", "tulip")]
    assert num_undecided == 1


def test_fiftyone_samples_are_read(tmp_path):
    rose, tulip = ({"_cls": "Classification", "label": label} for label in ("rose", "tulip"))
    samples = [
        {"filepath": "data/a.jpg", "ground_truth": rose, "prediction": tulip, "metadata": {"_cls": "ImageMetadata"}},
        {"filepath": "/home/ada/b.jpg", "label": tulip},
        {"filepath": "c.jpg", "ground_truth": None},
    ]
    entries, num_undecided = read(tmp_path, {"name": "flowers", "samples": samples}, "samples.json")
    assert pairs(entries) == [("a.jpg", "rose"), ("/home/ada/b.jpg", "tulip")]
    assert num_undecided == 1


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"classes": ["rose"], "labels": {"a": 1}}, "an index of the 1 classes. Received: 1 in entry 1 (a)"),
        ({"classes": ["rose"], "labels": {"a": -1}}, "Received: -1"),
        ({"classes": ["rose"], "labels": {"a": True}}, "Received: True"),
        ({"classes": None, "labels": {"a": 1}}, "the name of a class"),
        ({"classes": "rose", "labels": {}}, "a list or null"),
        ({"labels": {"a": ["rose", "tulip"]}}, "one label"),
        ({"samples": {}}, "are a list"),
        ({"samples": [{"path": "a.jpg"}]}, "as sample 1"),
        (
            {"samples": [{"filepath": "a.jpg", **{k: {"_cls": "Classification", "label": "x"} for k in "ab"}}]},
            "Received: a, b in sample 1",
        ),
    ],
)
def test_fiftyone_json_that_is_not_understood_names_the_entry(tmp_path, value, message):
    with pytest.raises(DataError) as caught:
        read(tmp_path, value, "labels.json")
    assert message in str(caught.value)


# The format


def test_a_format_that_is_named_counts_more_than_the_looks(tmp_path):
    assert pairs(read(tmp_path, "photo,label\na.jpg,rose\n", "labels.json", "csv")[0]) == [("a.jpg", "rose")]
    assert pairs(read(tmp_path, [{**FLAT, "choice": "rose"}], "tasks.txt", "label-studio")[0]) == [
        (FLAT["image"], "rose")
    ]
    with pytest.raises(DataError, match="an object with labels or samples"):
        read(tmp_path, [], "tasks.json", "fiftyone")
    with pytest.raises(DataError, match="looks like none of them"):
        read(tmp_path, {"images": [], "categories": []}, "coco.json")
