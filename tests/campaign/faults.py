"""What goes wrong or changes before the command is run for the last time: one function for each kind of fault.

A fault does its worst with the commands of a session, whose outcomes are checked as any other, and undoes what keeps
the command from a good end. A new one is a function here, with `@fault`.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.campaign.session import ORDER, Moment, Outcome, Session
from tests.campaign.situations import draw_photo, photos

FAULTS: dict[str, Callable[[Session], None]] = {"none": lambda _session: None}


def fault(function: Callable[[Session], None]) -> Callable[[Session], None]:
    """Register a fault under the name of its function."""
    FAULTS[function.__name__] = function
    return function


@fault
def killed(session: Session) -> None:
    """The run is killed, at one moment or at three."""
    for _ in range(session.random.choice((1, 3))):
        moment = Moment(session.random.choice(ORDER), delay_s=session.random.uniform(0, 2))
        session.command(*session.run_arguments(), kill_at=moment)


@fault
def two_at_once(session: Session) -> None:
    """The same command, or one with other options, runs beside it."""
    other = session.run_arguments(options=session.random.choice(((), ("trainer.seed=5",))))
    session.commands(session.run_arguments(), other)


@fault
def disk_full(session: Session) -> None:
    """One folder is on a disk that is full; then there is space again."""
    random = session.random
    step = random.choice(ORDER)
    folder = random.choice((session.runs, session.models, session.runs / "artifacts" / step, session.runs / "schemas"))
    with _small_disk(folder, random.choice(("4k", "16k", "64k", "128k", "256k")), session.folder / "kept") as enlarge:
        session.is_disk_full = True
        session.run()
        session.is_disk_full = False
        enlarge()
        session.run()


@fault
def damaged_artifact(session: Session) -> None:
    """A file of an artifact is cut, changed at the same size, or gone."""
    session.run()
    random = session.random
    artifact = session.artifact(random.choice(list(session.record()["steps"])))
    session.damaged.add(artifact)
    damage(session, random.choice([path for path in sorted(artifact.rglob("*")) if path.is_file()]))
    session.run(options=random.choice(((), ("trainer.seed=5",))))


@fault
def withdrawn(session: Session) -> None:
    """The newest version is taken back."""
    session.run()
    session.run(options=["trainer.seed=5", "evaluator.max_accuracy_drop=1.0"])
    session.command("rollback")


@fault
def other_options(session: Session) -> None:
    """Options are tried, and then the old ones again."""
    session.run()
    tried = (
        "trainer.epochs=2",
        "examples.near_duplicate_bits=0",
        "model.image_size_px=48",
        "examples.test_fraction=0.3",
    )
    session.run(options=session.random.sample(tried, 2))


@fault
def part_of_the_steps(session: Session) -> None:
    """Only some steps run, with options that are not those of the steps before."""
    first, last = sorted(session.random.sample(range(len(ORDER)), 2))
    session.run("--to", ORDER[last])
    session.run("--from", ORDER[first])
    session.run("--from", ORDER[last], options=["examples.test_fraction=0.3"])


@fault
def photos_change(session: Session) -> None:
    """A photo is broken and repaired, one is new, and one is gone."""
    files = photos(session.data)
    broken, gone = session.random.sample(files, 2)
    content = broken.read_bytes()
    broken.write_bytes(content[: len(content) // 3])
    session.run()
    broken.write_bytes(content)
    gone.unlink()
    draw_photo(session.random, 0, 40, 40).save(files[0].with_name("new.png"))


@fault
def wrong_options(session: Session) -> None:
    """The command is wrong in one way or another."""
    wrong = ("trainer.epoch=2", "trainer.epochs=many", "nonsense", "evaluator.min_accuracy=7", "trainer.epochs=-1")
    outcome = session.run(options=[session.random.choice(wrong)])
    assert outcome.status == 2, f"a wrong option must end with status 2\n{outcome}"
    assert not session.runs.exists(), "a wrong option must be found before anything is written"


@fault
def no_network(session: Session) -> None:
    """The run of real photos is followed by one that has to fall back to drawn flowers."""
    session.run()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFDS_DATA_DIR", str(session.folder / "datasets"))
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            patch.setenv(name, "http://127.0.0.1:9")
        for _ in range(2):
            session.run(options=["examples.source=auto", "examples.num_synthetic_per_class=10"])


@fault
def inference(session: Session) -> None:
    """Many photos are classified, then again when one has changed; both tables are as if made at once."""
    import pyarrow.parquet as parquet

    if session.run().status != 0 or not (session.models / "tflite").exists():
        return

    def infer(name: str, *arguments: str) -> Outcome:
        output = str(session.folder / name)
        return session.command("infer", "--input", str(session.data), "--output", output, "--workers", "1", *arguments)

    def table(name: str, *arguments: str) -> dict[str, object]:
        outcome = infer(name, *arguments)
        assert outcome.status == 0, str(outcome)
        rows = parquet.read_table(session.folder / name).to_pylist()
        return {row["image"]: (row["label"], row["is_known"], row.get("error")) for row in rows}

    table("predictions")
    changed, other = session.random.sample(photos(session.data), 2)
    content = changed.read_bytes()
    changed.write_bytes(other.read_bytes())
    outcome = infer("predictions")
    assert (outcome.status, "1 changed" in outcome.err) == (1, True), f"a changed photo must be said\n{outcome}"
    again, anew = table("predictions", "--overwrite"), table("anew")
    assert again == anew, f"infer must not reuse rows of photos that changed: {changed}"
    missing = {str(path.relative_to(session.data)) for path in photos(session.data)} - {
        os.path.relpath(name, session.data) if Path(name).is_absolute() else name for name in again
    }
    assert not missing, f"every photo has a row: {sorted(missing)} have none"
    changed.write_bytes(content)


def damage(session: Session, path: Path) -> None:
    """Cut a file, change its bytes, or remove it."""
    content = path.read_bytes()
    kind = session.random.choice(("cut", "changed", "removed"))
    if kind == "removed":
        path.unlink()
    elif kind == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        middle = len(content) // 2
        path.write_bytes(
            content[:middle] + bytes(b ^ 0xFF for b in content[middle : middle + 16]) + content[middle + 16 :]
        )


@contextmanager
def _small_disk(folder: Path, size: str, kept: Path) -> Iterator[Callable[[], object]]:
    """Mount a disk of a size over a folder, and yield the function that enlarges it; what it holds is kept in the end.

    Whoever may not mount skips the test.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "campaign", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a full disk needs the right to mount one")
    try:
        yield lambda: subprocess.run(["mount", "-o", "remount,size=200m", str(folder)], check=True)
        shutil.copytree(folder, kept, symlinks=True)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
    shutil.copytree(kept, folder, symlinks=True, dirs_exist_ok=True)
