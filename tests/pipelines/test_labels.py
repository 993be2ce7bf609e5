"""`python -m pipelines labels`: decisions come in from files of other tools, go out to them, and are taken back."""

import csv
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from components.artifacts.labels import Decision, add_decisions, find_current, read_decisions
from components.artifacts.suspects import Suspect, write_suspects
from components.storage.files import write_json
from pipelines import __main__ as command_line
from pipelines.artifact_store import ArtifactStore
from tests.components import hand_made

WHEN = "2026-11-26T20:15:00+00:00"
PHOTOS = ("roses/1.jpg", "roses/a b.jpg", "tulips/1.jpg", "tulips/2.jpg")


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def decide(photo: str, label: str | None, decision: str = "label", **changes: Any) -> Decision:
    made = Decision(
        sha256=sha256(photo), photo=photo, decision=decision, label=label, who="ada", when=WHEN, why="suspect"
    )
    return {**made, **changes}  # type: ignore[typeddict-item]


class Labels:
    """Runs `labels` in a folder of its own; keeps what it printed."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys
        self.path = folder / "labels.jsonl"
        self.out = self.err = ""

    def __call__(self, action: str, *arguments: Any) -> int:
        self._capsys.readouterr()
        shared = ["--runs-dir", self.folder / "runs", "--models-dir", self.folder / "models", "--labels", self.path]
        status = command_line.main(["labels", action, *map(str, [*arguments, *shared])])
        self.out, self.err = self._capsys.readouterr()
        return status

    def write(self, name: str, content: str | Any) -> Path:
        path = self.folder / name
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    def current(self) -> dict[str, str]:
        """Give what counts for each photo: its label, or the decision."""
        return {d["photo"]: d["label"] or d["decision"] for d in find_current(read_decisions(self.path)).values()}

    def add_run(self, photos: Sequence[str] = PHOTOS, suspects: Sequence[Suspect] = ()) -> None:
        """Leave what a run leaves: examples and suspects, of roses and tulips; a photo's content is its name."""
        store = ArtifactStore(self.folder / "runs" / "artifacts")
        rows = [
            hand_made.make_row(filename=photo, label=int(photo.startswith("tulips")), sha256=sha256(photo))
            for photo in photos
        ]
        outputs = {}
        for step in ("examples", "suspects"):
            partial = store.start(step, "0" * 16, keep=False)
            if step == "examples":
                hand_made.write(partial, rows, class_names=["rose", "tulip"])
            else:
                write_suspects(partial, suspects, [])
            output: Any = {"step": step, "key": "0" * 16, "created": WHEN, "summary": {}}
            outputs[step] = store.publish(partial, output).reference
        (self.folder / "runs" / "latest").mkdir()
        write_json(self.folder / "runs" / "latest" / "run.json", {"steps": outputs})


@pytest.fixture
def labels(tmp_path: Path, capsys: pytest.CaptureFixture[str], own_logging: None) -> Labels:
    return Labels(tmp_path, capsys)


@pytest.fixture
def after_run(labels: Labels) -> Labels:
    labels.add_run()
    return labels


# Import


def test_an_imported_label_says_who_when_and_why(after_run):
    file = after_run.write("from_ada.csv", "photo,label\nroses/1.jpg,tulip\n")
    assert after_run("import", file, "--who", "grace") == 0
    (decision,) = read_decisions(after_run.path)
    assert decision["sha256"] == sha256("roses/1.jpg")
    assert (decision["photo"], decision["label"], decision["who"]) == ("roses/1.jpg", "tulip", "grace")
    assert decision["why"] == "imported from from_ada.csv"
    assert decision["when"].endswith("+00:00")
    assert "Imported: 1 decisions" in after_run.out


def test_an_import_signs_with_the_login_name(after_run, monkeypatch):
    monkeypatch.setenv("LOGNAME", "ada")
    assert after_run("import", after_run.write("a.csv", "photo,label\nroses/1.jpg,tulip\n")) == 0
    assert read_decisions(after_run.path)[0]["who"] == "ada"


def test_an_import_again_adds_nothing(after_run):
    file = after_run.write("a.csv", "photo,label\nroses/1.jpg,tulip\ntulips/2.jpg,none of these\n")
    assert after_run("import", file) == 0
    before = after_run.path.read_bytes()
    assert after_run("import", file) == 0
    assert after_run.path.read_bytes() == before
    assert "Imported: 0 decisions" in after_run.out
    assert "As decided before: 2." in after_run.out


def test_photos_are_found_however_another_tool_writes_their_paths(after_run):
    paths = [
        "/data/local-files/?d=srv/roses/1.jpg",
        "/data/upload/3/0225a044-a_b.jpg",
        "C:\\photos\\tulips\\1.jpg",
        "2.jpg",
    ]
    tasks = [{"data": {"image": p}, "annotations": [{"result": [_choose("rose")]}]} for p in paths]
    assert after_run("import", after_run.write("tasks.json", tasks)) == 0
    assert after_run.current() == dict.fromkeys(PHOTOS, "rose")


def _choose(label: str) -> dict[str, Any]:
    return {"from_name": "choice", "to_name": "image", "type": "choices", "value": {"choices": [label]}}


def test_photos_that_are_unknown_or_may_be_several_are_listed_and_the_others_imported(after_run):
    file = after_run.write("a.csv", "photo,label\n1.jpg,rose\nroses/9.jpg,rose\ntulips/2.jpg,rose\n")
    assert after_run("import", file) == 0
    assert after_run.current() == {"tulips/2.jpg": "rose"}
    assert "Left out: line 2: 1.jpg: may be roses/1.jpg, tulips/1.jpg\n" in after_run.out
    assert "Left out: line 3: roses/9.jpg: no such photo\n" in after_run.out
    assert "Left out: 2." in after_run.out


def test_labels_of_a_photo_that_contradict_each_other_are_left_out(after_run):
    file = after_run.write("a.csv", "photo,label\nroses/1.jpg,rose\n/x/roses/1.jpg,tulip\ntulips/2.jpg,rose\n")
    assert after_run("import", file) == 0
    assert after_run.current() == {"tulips/2.jpg": "rose"}
    assert "Left out: roses/1.jpg: contradictory: rose (line 2), tulip (line 3)" in after_run.out


def test_copies_of_a_photo_get_one_decision_and_are_counted(labels):
    labels.add_run(photos=["roses/1.jpg"])
    assert labels("import", labels.write("a.csv", "photo,label\nroses/1.jpg,tulip\n1.jpg,tulip\n")) == 0
    assert len(read_decisions(labels.path)) == 1
    assert "Photos twice in the file: 1." in labels.out


def test_an_import_without_any_known_photo_says_where_to_look(labels):
    assert labels("import", labels.write("a.csv", "photo,label\nroses/1.jpg,rose\n")) == 1
    assert "--input FOLDER|URL" in labels.err
    assert not labels.path.exists()


def test_photos_are_found_in_a_folder(labels, tmp_path):
    folder = tmp_path / "unlabelled"
    (folder / "monday").mkdir(parents=True)
    for name in ("monday/1.jpg", "monday/2.jpg"):
        (folder / name).write_text(name)
    file = labels.write("labels.json", {"classes": ["rose"], "labels": {"monday/1": 0, "2": 0}})
    assert labels("import", file, "--input", folder) == 0
    assert {d["sha256"] for d in read_decisions(labels.path)} == {sha256("monday/1.jpg"), sha256("monday/2.jpg")}
    assert labels.current() == {f"{folder}/monday/1.jpg": "rose", f"{folder}/monday/2.jpg": "rose"}
    assert "New classes: rose" in labels.out


def test_photos_are_found_at_a_url(labels, s3):
    s3.put("photos/monday/1.jpg", b"a photo")
    file = labels.write("a.csv", f"photo,label\n{s3.url}/photos/monday/1.jpg,rose\n")
    assert labels("import", file, "--input", f"{s3.url}/photos") == 0
    assert labels.current() == {f"{s3.url}/photos/monday/1.jpg": "rose"}


def test_a_photo_that_is_named_by_its_content_need_not_be_there(labels):
    assert labels("import", labels.write("a.csv", f"sha256,label\n{sha256('gone')},rose\n")) == 0
    assert read_decisions(labels.path)[0]["sha256"] == sha256("gone")


def test_a_photo_that_is_none_of_the_classes_is_found_though_no_run_has_it(after_run):
    add_decisions(after_run.path, [decide("other/9.jpg", None, "none")])
    assert after_run("import", after_run.write("a.csv", "photo,label\nother/9.jpg,rose\n")) == 0
    assert after_run.current() == {"other/9.jpg": "rose"}


def test_a_name_that_is_nearly_a_class_is_refused_unless_it_is_meant(after_run):
    file = after_run.write("a.csv", "photo,label\ntulips/2.jpg,tulip\nroses/1.jpg,rosse\ntulips/1.jpg,Rose\n")
    assert after_run("import", file) == 1
    assert "rosse (line 3): did you mean rose?" in after_run.err
    assert "Rose (line 4): did you mean rose?" in after_run.err
    assert not after_run.path.exists()
    assert after_run("import", file, "--new-classes") == 0
    assert "New classes: Rose, rosse" in after_run.out


def test_nothing_is_written_unless_the_whole_file_is_understood(after_run):
    assert after_run("import", after_run.write("a.csv", "photo,label\nroses/1.jpg,rose\ntulips/1.jpg\n")) == 1
    assert "line 3" in after_run.err
    assert "Nothing was imported" in after_run.err
    assert not after_run.path.exists()


def test_a_file_that_is_not_there_is_named(labels):
    assert labels("import", labels.folder / "nowhere.csv") == 1
    assert "nowhere.csv" in labels.err


def test_what_is_imported_reaches_the_examples_of_the_next_run(labels, tmp_path, encode, monkeypatch):
    from components.artifacts.examples import read_examples, read_index
    from tests.components.data.blobs import fill

    monkeypatch.chdir(tmp_path)
    source = fill(tmp_path / "flowers", {"aster": 30, "rose": 30}, encode)
    photo = sorted(path.name for path in (source / "aster").iterdir())[0]
    file = labels.write("a.csv", f"photo,label\naster/{photo},rose\n")
    assert labels("import", file, "--input", source) == 0
    run = ["run", "--to", "examples", "--set", f"examples.source={source}", "--runs-dir", str(tmp_path / "runs")]
    assert command_line.main(run) == 0
    (examples_dir,) = (tmp_path / "runs" / ".newest" / "steps").glob("examples")
    names = read_examples(examples_dir)["class_names"]
    assert {names[row["label"]] for row in read_index(examples_dir) if row["filename"].endswith(f"aster/{photo}")} == {
        "rose"
    }


# Export


@pytest.mark.parametrize(
    ("name", "format_"),
    [("x.csv", []), ("x.json", ["--format", "label-studio"]), ("labels.json", ["--format", "fiftyone"])],
)
def test_what_is_exported_comes_back_the_same(after_run, name, format_):
    decisions = [
        decide("roses/1.jpg", "tulip"),
        decide("roses/a b.jpg", None, "none"),
        decide("tulips/1.jpg", "peony"),
        decide("tulips/2.jpg", "rose"),
        decide("tulips/2.jpg", None, "undo"),
        decide("tulips/2.jpg", "tulip"),
    ]
    add_decisions(after_run.path, decisions)
    current = after_run.current()
    file = after_run.folder / name
    assert after_run("export", file, *format_) == 0
    assert after_run.out == f"Exported: {file} (4 photos)\n"
    assert after_run("import", file) == 0
    assert "As decided before: 4." in after_run.out
    after_run.path.unlink()
    assert after_run("import", file) == 0
    assert after_run.current() == current


def test_a_skipped_photo_comes_back_from_label_studio_and_has_no_label_in_fiftyone(after_run):
    add_decisions(after_run.path, [decide("roses/1.jpg", None, "skip"), decide("tulips/1.jpg", "rose")])
    for name, format_ in (("tasks.json", "label-studio"), ("labels.json", "fiftyone")):
        assert after_run("export", after_run.folder / name, "--format", format_) == 0
    assert json.loads((after_run.folder / "labels.json").read_text())["labels"] == {"roses/1": None, "tulips/1": 0}
    after_run.path.unlink()
    assert after_run("import", after_run.folder / "tasks.json") == 0
    assert after_run.current() == {"roses/1.jpg": "skip", "tulips/1.jpg": "rose"}


def test_the_whole_history_is_exported_as_csv_alone_and_comes_back(after_run):
    history = [decide("roses/1.jpg", "tulip"), decide("roses/1.jpg", "rose"), decide("roses/1.jpg", None, "undo")]
    add_decisions(after_run.path, history)
    file = after_run.folder / "all.csv"
    assert after_run("export", file, "--all") == 0
    with file.open(newline="") as lines:
        assert [row["decision"] for row in csv.DictReader(lines)] == ["label", "label", "undo"]
    after_run.path.unlink()
    assert after_run("import", file) == 0
    assert after_run.current() == {"roses/1.jpg": "tulip"}
    assert after_run("export", file, "--all", "--format", "fiftyone") == 1
    assert "Use --format csv" in after_run.err


def test_suspects_that_nobody_decided_on_go_to_label_studio_as_predictions(labels):
    def doubt(photo: str, *, is_suspect: bool = True) -> Suspect:
        return Suspect(photo=photo, label="rose", suggested_label="tulip", score=0.99, is_suspect=is_suspect)

    suspects = [doubt("roses/1.jpg"), doubt("roses/a b.jpg"), doubt("tulips/1.jpg", is_suspect=False)]
    labels.add_run(suspects=suspects)
    add_decisions(labels.path, [decide("roses/1.jpg", "rose")])
    file = labels.folder / "tasks.json"
    assert labels("export", file, "--format", "label-studio", "--suspects") == 0
    decided, doubted = json.loads(file.read_text())
    assert decided["data"] == {"image": "/data/local-files/?d=roses/1.jpg", "sha256": sha256("roses/1.jpg")}
    assert "predictions" not in decided
    assert doubted["data"]["image"] == "/data/local-files/?d=roses/a%20b.jpg"
    assert doubted["predictions"] == [{"result": [_choose("tulip")], "score": 0.99}]
    assert labels("import", file) == 0
    assert "Without a label: 1." in labels.out


def test_photos_that_fiftyone_could_not_tell_apart_are_named(labels):
    add_decisions(labels.path, [decide("a.jpg", "rose"), decide("a.png", "rose")])
    assert labels("export", labels.folder / "labels.json", "--format", "fiftyone") == 1
    assert "a.jpg and a.png" in labels.err
    assert not (labels.folder / "labels.json").exists()


def test_a_file_that_is_no_csv_needs_a_format(labels):
    assert labels("export", labels.folder / "labels.json") == 1
    assert "Use --format" in labels.err


@pytest.mark.parametrize(("name", "format_"), [("x.csv", "csv"), ("x.json", "label-studio"), ("x.json", "fiftyone")])
def test_a_name_that_is_no_utf8_goes_out_and_a_label_in_unicode_comes_back(labels, name, format_):
    add_decisions(labels.path, [decide("roses/\udcff.jpg", "rose"), decide("2.jpg", "épine 🌹")])
    assert labels("export", labels.folder / name, "--format", format_) == 0
    assert labels("import", labels.folder / name) == 0
    assert "As decided before: 2." in labels.out


# List and undo


def test_list_counts_by_class_and_by_person(labels):
    add_decisions(
        labels.path,
        [
            decide("1.jpg", "rose"),
            decide("2.jpg", "rose", who="grace"),
            decide("3.jpg", "tulip"),
            decide("4.jpg", None, "none"),
            decide("5.jpg", None, "skip"),
            decide("6.jpg", "tulip"),
            decide("6.jpg", None, "undo"),
        ],
    )
    assert labels("list") == 0
    assert labels.out.splitlines() == [
        f"{labels.path}: 5 photos decided, 7 decisions in all",
        "",
        "label                photos",
        "rose                      2",
        "tulip                     1",
        "none of the classes       1",
        "skipped                   1",
        "undone                    1",
        "",
        "who    photos",
        "ada         4",
        "grace       1",
    ]


def test_list_of_no_decisions_is_empty(labels):
    assert labels("list") == 0
    assert labels.out.startswith(f"{labels.path}: 0 photos decided")


def test_undo_takes_back_the_last_decision_by_path_or_content(labels):
    add_decisions(labels.path, [decide("roses/1.jpg", "tulip"), decide("roses/1.jpg", "rose"), decide("2.jpg", "rose")])
    assert labels("undo", "1.jpg", sha256("2.jpg"), "--who", "grace") == 0
    assert labels.out == "Undone: roses/1.jpg: rose\nUndone: 2.jpg: rose\n"
    assert labels.current() == {"roses/1.jpg": "tulip"}
    assert read_decisions(labels.path)[-1]["who"] == "grace"


@pytest.mark.parametrize(
    ("photo", "message"),
    [("3.jpg", "has no decision"), ("1.jpg", "roses/1.jpg"), ("00" * 32, "has no decision")],
)
def test_undo_of_no_decision_or_of_several_changes_nothing(labels, photo, message):
    add_decisions(labels.path, [decide("roses/1.jpg", "tulip"), decide("tulips/1.jpg", "rose")])
    before = labels.path.read_bytes()
    assert labels("undo", "roses/1.jpg", photo) == 1
    assert message in labels.err
    assert labels.path.read_bytes() == before
