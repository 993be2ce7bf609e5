"""A pipeline without TensorFlow: a text is read, its words counted, the count multiplied; it runs in milliseconds.

Each step notes its name in the file that the environment variable `TOY_JOURNAL` names, so that a test sees what really
ran, in whichever process. The real configuration is not needed: the runner takes any dataclass of sections.
"""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from components.artifacts.manifest import MISSING
from components.errors import DataError
from components.storage.files import read_json, write_json
from components.storage.store import Store
from pipelines.artifact_store import ArtifactStore
from pipelines.declaration import Step

MODULE = "tests.pipelines.toy"
DEADLINE_S = 30


@dataclass(frozen=True)
class ReadOptions:
    path: str
    shout: bool = False


@dataclass(frozen=True)
class MultiplyOptions:
    factor: int = 2
    fail: bool = False
    seed: int = 7


@dataclass(frozen=True)
class ToyConfig:
    read: ReadOptions
    multiply: MultiplyOptions = field(default_factory=MultiplyOptions)


def describe(options: ReadOptions) -> dict[str, str]:
    path = Path(options.path)
    if not path.is_file():
        raise DataError(f"The text does not exist: {path}. Give a file: read.path")
    return {"text": path.read_text()}


def read(*, out_dir: Path, options: ReadOptions) -> dict[str, Any]:
    note("read")
    text = Path(options.path).read_text()
    (out_dir / "text.txt").write_text(text.upper() if options.shout else text)
    return {"num_characters": len(text)}


def count(*, text_dir: Path, out_dir: Path) -> dict[str, Any]:
    note("count")
    num_words = len((text_dir / "text.txt").read_text().split())
    write_json(out_dir / "count.json", num_words)
    return {"num_words": num_words}


def multiply(*, count_dir: Path, out_dir: Path, options: MultiplyOptions) -> dict[str, Any]:
    note("multiply")
    if options.fail:
        raise DataError("The factor must be a lucky one. Choose another: multiply.factor")
    write_json(out_dir / "result.json", read_json(count_dir / "count.json") * options.factor)
    return {}


def visit(*, count_dir: Path, models_dir: Store, out_dir: Path) -> dict[str, Any]:
    """A step with state: counts its visits in a store that is kept between runs."""
    note("visit")
    seen = models_dir.names()
    models_dir.write(str(len(seen) + 1), b"")
    write_json(out_dir / "visit.json", {"words": read_json(count_dir / "count.json")})
    return {}


def borrow(*, count_dir: Path, out_dir: Path) -> dict[str, Any]:
    """Return the number of words, as long as `TOY_LENT` names a file that exists."""
    note("borrow")
    lent = Path(os.environ["TOY_LENT"])
    if not lent.exists():
        write_json(out_dir / MISSING, {"what": "the lent", "reason": f"{lent.name} is not there"})
    else:
        write_json(out_dir / "count.json", read_json(count_dir / "count.json"))
    return {}


def wish(*, out_dir: Path) -> dict[str, Any]:
    """Write what `TOY_LENT` names, or a fallback for a reason that is worded differently each time."""
    note("wish")
    lent = Path(os.environ["TOY_LENT"])
    fallback = None if lent.exists() else f"{lent.name} is not there ({time.monotonic_ns()})"
    write_json(out_dir / "count.json", 3 if fallback else 5)
    write_json(out_dir / "reason.json", fallback)
    return {"num_words": 3, "fallback": fallback} if fallback else {"num_words": 5}


def find_fallback() -> str | None:
    note("probe")
    return None if Path(os.environ["TOY_LENT"]).exists() else "still not there"


def gather(*, mine: Path, lent: Path, out_dir: Path) -> dict[str, Any]:
    """Take two results, or the reason why one is missing."""
    note("gather")
    kept = lent / MISSING if (lent / MISSING).exists() else lent / "result.json"
    write_json(out_dir / "gathered.json", [read_json(mine / "result.json"), read_json(kept)])
    return {}


def stumble(*, count_dir: Path, out_dir: Path) -> dict[str, Any]:
    """Write a part, be killed as long as `TOY_KILL` is set, write the rest; return which parts were there before."""
    note("stumble")
    found = sorted(p.name for p in out_dir.iterdir())
    (out_dir / "found.txt").write_text(" ".join(found))
    (out_dir / "first").touch()
    if os.environ.get("TOY_KILL"):
        os.kill(os.getpid(), signal.SIGKILL)
    (out_dir / "second").touch()
    return {}


def linger(*, count_dir: Path, out_dir: Path) -> dict[str, Any]:
    """Take until another process has come to the same step, as `announce_the_lock` shows."""
    note("linger")
    journal = Path(os.environ["TOY_JOURNAL"])
    wait_for(lambda: len(list(journal.parent.glob("at-the-lock-*"))) == 2)
    (out_dir / "done").touch()
    return {}


def accompany(*, count_dir: Path, out_dir: Path) -> dict[str, Any]:
    """End when another step has begun; fail if `TOY_FAIL` is set."""
    note("accompany")
    journal = Path(os.environ["TOY_JOURNAL"])
    wait_for(lambda: "multiply" in journal.read_text())
    if os.environ.get("TOY_FAIL"):
        raise DataError("The company was bad.")
    write_json(out_dir / "count.json", read_json(count_dir / "count.json"))
    note("accompanied")
    return {}


def add_up(*, text_dir: Path, out_dir: Path, earlier_dir: Path | None) -> dict[str, Any]:
    """Count words, and write what an earlier output of this step has counted."""
    write_json(out_dir / "count.json", len((text_dir / "text.txt").read_text().split()))
    return {"before": read_json(earlier_dir / "count.json") if earlier_dir else None}


READ = Step(name="read", function=f"{MODULE}:read", options={"options": "read"}, source=f"{MODULE}:describe")
COUNT = Step(name="count", function=f"{MODULE}:count", inputs={"text_dir": "read"})
MULTIPLY = Step(
    name="multiply", function=f"{MODULE}:multiply", inputs={"count_dir": "count"}, options={"options": "multiply"}
)
VISIT = Step(name="visit", function=f"{MODULE}:visit", inputs={"count_dir": "count"}, state={"models_dir": "models"})
STUMBLE = Step(name="stumble", function=f"{MODULE}:stumble", inputs={"count_dir": "count"})
GO_ON = Step(name="stumble", function=f"{MODULE}:stumble", inputs={"count_dir": "count"}, resumable=True)
ACCOMPANY = Step(name="accompany", function=f"{MODULE}:accompany", inputs={"count_dir": "count"}, is_background=True)


def multiply_perhaps(*, count_dir: Path, other_dir: Path | None = None, out_dir: Path, options: MultiplyOptions) -> Any:
    write_json(out_dir / "result.json", read_json((other_dir or count_dir) / "count.json") * options.factor)
    return {"is_other": other_dir is not None}


MULTIPLY_PERHAPS = Step(
    name="perhaps",
    function=f"{MODULE}:multiply_perhaps",
    inputs={"count_dir": "count", "other_dir": "accompany"},
    optional={"other_dir": "options.fail"},
    options={"options": "multiply"},
)
MULTIPLY_LATER = replace(MULTIPLY, name="multiply_later", inputs={"count_dir": "accompany"})
ADD_UP = Step(name="count", function=f"{MODULE}:add_up", inputs={"text_dir": "read"}, incremental=("text_dir",))
LINGER = Step(name="linger", function=f"{MODULE}:linger", inputs={"count_dir": "count"})
BORROW = Step(name="borrow", function=f"{MODULE}:borrow", inputs={"count_dir": "count"})
WISH = Step(name="wish", function=f"{MODULE}:wish", fallback_option="model.weights=none")
WISH_PROBED = replace(WISH, fallback_probe=f"{MODULE}:find_fallback")
MULTIPLY_WISH = replace(MULTIPLY, inputs={"count_dir": "wish"})
MULTIPLY_BORROWED = replace(MULTIPLY, name="multiply_borrowed", inputs={"count_dir": "borrow"})
GATHER = Step(
    name="gather",
    function=f"{MODULE}:gather",
    inputs={"mine": "multiply", "lent": "multiply_borrowed"},
    accepts_missing=True,
)
STEPS = (READ, COUNT, MULTIPLY)


def note(name: str) -> None:
    if journal := os.environ.get("TOY_JOURNAL"):
        with Path(journal).open("a") as file:
            file.write(f"{name}\n")


def wait_for(condition: Callable[[], bool]) -> None:
    """Poll until a condition holds; a test that hangs fails instead."""
    end = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"Nothing happened in {DEADLINE_S} s")
        time.sleep(0.005)


def announce_the_lock(folder: Path) -> None:
    """Make a file in a folder whenever this process comes to the lock of the slow step."""
    lock = ArtifactStore.lock

    def announce(store: ArtifactStore, step: str, key: str) -> Any:
        if step == LINGER.name:
            (folder / f"at-the-lock-{os.getpid()}").touch()
        return lock(store, step, key)

    ArtifactStore.lock = announce
