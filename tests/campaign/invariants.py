"""What is true of every outcome, whatever the situation. Each check raises `AssertionError` with what it found.

No check knows what a situation should lead to: it compares what was printed, what lies on the disk and what the photos
are with each other.
"""

import json
import re
from collections import defaultdict
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from components.artifacts.evaluation import read_metrics
from components.artifacts.examples import read_examples, read_index
from components.artifacts.push import read_push
from components.storage.files import TEMPORARY_FILES, read_json
from components.storage.models import LINEAGE
from pipelines import fingerprint
from pipelines.flowers import STEPS
from tests.campaign.session import Outcome, Session
from tests.campaign.situations import photos

ALIKE = 6.0
"""Mean difference of 8 × 8 thumbnails, 0–255, below which two photos are alike: recompression moves it by 1 to 3, and
no two of the photos that the campaign draws are nearer than 15."""
DIFFERENT = 25.0
"""The same, above which no one takes two photos for one."""


def check_outcome(session: Session, outcome: Outcome) -> None:
    """Exit status and message agree, and an error is one that a person can act on."""
    assert "Traceback" not in outcome.err, "no traceback, ever"
    assert outcome.status in (0, 1, 2, 3), f"an exit status that is not documented: {outcome.status}"
    errors = [line for line in outcome.err.splitlines() if line.startswith(("error:", "python -m pipelines: error:"))]
    errors += [line for line in outcome.err.splitlines() if re.match(r"python -m pipelines \w+: error:", line)]
    assert len(errors) == (outcome.status in (1, 2)), f"one error, with status 1 and 2 alone; received {errors}"
    if outcome.is_whole_run:
        assert ("\nPushed: " in f"\n{outcome.out}") == (outcome.status == 0), "0 is a model that is pushed"
        assert ("\nNot pushed: " in f"\n{outcome.out}") == (outcome.status == 3), "3 is a model that is not pushed"
    if outcome.status == 1:
        assert len(outcome.error) > 40, f"an error says the rule and what to do next: {outcome.error}"
        inner = re.search(r"\b[A-Z]\w+Error\b|\{\{|\[Op:|Errno", outcome.error)
        assert not inner, f"an error in the words of a library: {outcome.error}"
        says_full = re.search("free some space", outcome.error, re.IGNORECASE)
        assert session.is_disk_full or not says_full, f"no disk is full: {outcome.error}"


def check_photos(session: Session) -> None:
    """No photo disappears without a line that says why."""
    examples = session.artifact("examples")
    known = {row["filename"] for row in read_index(examples)} | {e["file"] for e in read_examples(examples)["excluded"]}
    log = session.log()
    silent = []
    for path in photos(session.data):
        name = path.relative_to(session.data).as_posix()
        is_said = name in known or any(
            part and part in log for part in (name, str(path.parent.relative_to(session.data)))
        )
        if not is_said:
            silent.append(name)
    assert not silent, f"photos that are no examples and are not left out with a reason: {silent[:5]}"
    unnamed = [e for e in read_examples(examples)["excluded"] if not (e["rule"] and e["reason"])]
    assert not unnamed, f"left out without a reason: {unnamed}"


def check_classes(session: Session) -> None:
    """The classes are the situation's, and no split is one."""
    found = set(read_examples(session.artifact("examples"))["class_names"])
    known = {*session.situation.class_names, "nothing"}  # the name of an empty class
    if session.situation.layout == "train as a class":
        known.add("train")
    assert found <= known, f"classes that are none: {sorted(found - known)}"


def check_splits(session: Session) -> None:
    """No two splits share a file or a look-alike, and nothing is left out as a look-alike that is not one."""
    examples = session.artifact("examples")
    rows = [row for row in read_index(examples) if _is_readable(session.data / row["filename"])]
    by_digest = defaultdict(set)
    for row in rows:
        by_digest[row["sha256"]].add(row["split"])
    shared = [digest for digest, splits in by_digest.items() if len(splits) > 1]
    assert not shared, f"the same file in two splits: {shared}"
    thumbnails = {row["filename"]: _thumbnail(session.data / row["filename"]) for row in rows}
    for one, other in combinations(rows, 2):
        if one["split"] != other["split"]:
            difference = _difference(thumbnails[one["filename"]], thumbnails[other["filename"]])
            assert difference >= ALIKE, (
                f"{one['filename']} in {one['split']} looks like {other['filename']} in {other['split']}: "
                f"{difference:.1f} of 255"
            )
    wrong = []
    for entry in read_examples(examples)["excluded"]:
        if entry["rule"] == "near_duplicate" and _is_readable(session.data / entry["file"]):
            thumbnail = _thumbnail(session.data / entry["file"])
            nearest = min((_difference(thumbnail, other) for other in thumbnails.values()), default=0)
            if nearest > DIFFERENT:
                wrong.append(f"{entry['file']} ({nearest:.0f} of 255 from the nearest, {entry['reason']})")
    assert not wrong, f"left out as look-alikes, and like none that is kept: {wrong[:5]}"


def check_record(session: Session) -> None:
    """`run.json` says with which options each step's output was made."""
    record = session.record()
    for name, step in record["steps"].items():
        manifest = read_json(session.runs / "artifacts" / name / step["key"] / "manifest.json")
        for parameter, options in manifest["options"].items():
            section = next(s.options[parameter] for s in STEPS if s.name == name)
            said = {option: record["config"][section][option] for option in options}
            unlike = {o: (said[o], v) for o, v in options.items() if json.loads(json.dumps(said[o])) != v}
            unlike.pop("precision", None)  # `auto` is what this machine is best at
            assert not unlike, f"run.json and the manifest of {name} differ in {section}: {unlike}"


def check_fallback(session: Session, outcome: Outcome) -> None:
    """A run that stands on a fallback says so, and replaces no model of real photos."""
    record = session.record()
    if record["status"] != "finished" or "evaluator" not in record["steps"]:
        return
    metrics = read_metrics(session.artifact("evaluator", record))
    fallbacks = [origin["fallback"] for origin in (metrics["data"], metrics["weights"]) if origin["fallback"]]
    for fallback in fallbacks:
        assert fallback in outcome.err or "fallback" in outcome.err.lower(), (
            f"a run in silence on a fallback: {fallback}"
        )
    versions = sorted(int(path.name) for path in session.models.glob("flowers/*"))
    if fallbacks and outcome.status == 0 and len(versions) > 1:
        before = read_json(session.models / "flowers" / str(versions[-2]) / "assets.extra" / "model_spec.json")
        assert before["data"]["fallback"], f"a fallback replaced version {versions[-2]}, of real photos"


def check_nothing_half_written_is_visible(
    runs: Path, models: Path, damaged: frozenset[Path] | set[Path] = frozenset()
) -> None:
    """Whatever is to be seen is complete, and has the digests that its manifest says.

    Args:
        runs: the folder of runs.
        models: the folder of models.
        damaged: artifacts that are not looked at.
    """
    for pushed in models.glob("flowers/*"):
        assert pushed.name.isdecimal()
        assert read_json(pushed / LINEAGE)["version"] == int(pushed.name)
        candidate = read_json(pushed / LINEAGE)["model"]
        manifests = map(read_json, runs.glob("artifacts/export/*/manifest.json"))
        manifest = next(m for m in manifests if (m["key"], m["digest"]) == (candidate["key"], candidate["digest"]))
        assert _files(pushed) == {Path(name) for name in manifest["files"]} | {LINEAGE}
        assert {Path("saved_model.pb"), Path("variables/variables.index")} < _files(pushed)
        for name, file in manifest["files"].items():
            assert fingerprint.of_file(pushed / name) == file["sha256"], f"pushed damaged: {pushed / name}"
    for folder in runs.glob("artifacts/*/*"):
        if folder.is_dir() and folder.suffix != ".partial" and folder not in damaged:
            files = read_json(folder / "manifest.json")["files"]
            assert _files(folder) == {Path(name) for name in files} | {Path("manifest.json")}
            for name, file in files.items():
                assert fingerprint.of_file(folder / name) == file["sha256"]
    for record in runs.glob("*-*/run.json"):
        assert read_json(record)["status"] in ("running", "finished", "failed")


def check_no_leftovers(runs: Path, models: Path) -> None:
    """Nothing temporary is left after a run that came to its end."""
    leftovers = [*runs.glob("artifacts/*/*.partial"), *runs.glob(f"artifacts/*/*/**/{TEMPORARY_FILES}")]
    assert not leftovers, f"left behind: {leftovers}"
    assert not (models / ".staging").exists()


def check_pushed(session: Session) -> None:
    """What is pushed loads and scores what `metrics.json` says: the SavedModel, and each LiteRT file."""
    assert session.python
    record = session.record()
    push = read_push(session.artifact("pusher", record))
    if not push["pushed"]:
        return
    examples, evaluation = session.artifact("examples", record), session.artifact("evaluator", record)
    litert = session.artifact("litert_evaluator", record)
    report = session.folder / "pushed.txt"
    arguments = [push["path"], push["litert_path"] or "", examples, evaluation, litert]
    with report.open("w") as output:
        process = session.python.start(
            "tests.campaign.pushed", *map(str, arguments), stdout=output.fileno(), stderr=output.fileno()
        )
        status = process.wait()
    assert status == 0, f"what is pushed does not do what was measured: {report.read_text()[-1500:]}"


def check_rerun(session: Session, before: dict[str, str], first: Outcome, second: Outcome) -> None:
    """The same command again changes nothing: the same outcome, every step cached, the same models."""
    assert (first.status, _without_paths(first.out)) == (second.status, _without_paths(second.out)), (
        f"the same command ended otherwise: {first.status}, then {second.status}\n{second}"
    )
    if first.status in (0, 3):
        stateless = [step.name for step in STEPS if not step.state]
        steps = session.record()["steps"]
        ran = {name: steps[name].get("reason") for name in stateless if name in steps}
        ran = {name: reason for name, reason in ran.items() if reason != "cached"}
        assert not ran, f"steps that ran again: {ran}"
    after = snapshot(session)
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert not changed, f"changed by the same command: {sorted(changed)[:5]}"


def snapshot(session: Session) -> dict[str, str]:
    """Return what a rerun must not change: the models' files, and the digests of the newest run's steps."""
    files = {str(p): fingerprint.of_file(p) for p in sorted(session.models.rglob("*")) if p.is_file()}
    files = {name: digest for name, digest in files.items() if not name.endswith(".lock")}
    if any(session.runs.glob("*-*/run.json")):
        files |= {name: step["digest"] for name, step in session.record()["steps"].items()}
    return files


def broken(*checks: Callable[[], None]) -> list[str]:
    """Return what the checks find, one line each."""
    found = []
    for check in checks:
        try:
            check()
        except AssertionError as exc:
            found.append(str(exc) or repr(exc))
    return found


def _files(folder: Path) -> set[Path]:
    return {p.relative_to(folder) for p in folder.rglob("*") if p.is_file()}


def _without_paths(out: str) -> str:
    return re.sub(r"\d{8}-\d{6}-\w+", "RUN", out)


def _is_readable(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            return image.size[0] * image.size[1] < 1 << 22
    except (OSError, SyntaxError, ValueError):
        return False


def _thumbnail(path: Path) -> NDArray[np.float32]:
    with Image.open(path) as image:
        small = ImageOps.exif_transpose(image).convert("RGB").resize((8, 8), Image.Resampling.BOX)
    return np.asarray(small, np.float32)


def _difference(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    return float(np.abs(one - other).mean())
