"""What a step is called with, and what it says where a full disk stops it, whichever library found that out."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from components.data import beam
from components.errors import StorageError
from components.examples import ExamplesOptions
from components.features import FeaturesOptions
from pipelines import execution, flowers
from tests.pipelines import toy


class UnknownError(Exception):
    """What TensorFlow raises."""


def execute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, exc: Exception) -> None:
    def fail(*, out_dir: Path) -> Any:
        raise exc

    monkeypatch.setattr(toy, "fail", fail, raising=False)
    step = replace(toy.COUNT, function=f"{toy.MODULE}:fail", inputs={})
    origin: Any = {}
    execution.execute(step, {}, origin, inputs={}, references={}, state={}, cluster=None, out_dir=tmp_path)


def test_a_library_s_error_of_a_full_disk_names_the_folder(monkeypatch, tmp_path):
    exc = UnknownError(f"{tmp_path}/shard; No space left on device [Op:Write]")
    with pytest.raises(StorageError, match=f"^{tmp_path}: No space left on device. Free some space in {tmp_path};"):
        execute(monkeypatch, tmp_path, exc)


def test_an_error_that_no_disk_caused_stays_what_it_is(monkeypatch, tmp_path):
    with pytest.raises(UnknownError, match=r"^a shape$"):
        execute(monkeypatch, tmp_path, UnknownError("a shape"))


@pytest.mark.parametrize(("name", "kind"), [("examples", ExamplesOptions), ("features", FeaturesOptions)])
def test_the_engine_is_not_in_the_key_of_what_it_makes(name, kind):
    step = next(step for step in flowers.STEPS if step.name == name)
    describe = partial(execution.describe_origin, step, source=None, inputs={})
    assert describe({"options": kind(engine="beam", beam_options="--x=1")}) == describe({"options": kind()})


def test_a_step_that_is_spread_is_passed_the_engine_that_its_options_name(monkeypatch, tmp_path):
    engines = []
    monkeypatch.setattr(toy, "spread", lambda *, engine, **_: engines.append(engine) or {}, raising=False)
    step = replace(toy.COUNT, function=f"{toy.MODULE}:spread", inputs={}, options={"options": "x"}, is_spread=True)
    for options in (FeaturesOptions(), FeaturesOptions(beam_options="--x='1 2' --y=3")):
        given = {"options": options.resolve()}
        origin: Any = {}
        execution.execute(step, given, origin, inputs={}, references={}, state={}, cluster=None, out_dir=tmp_path)
    local, spread = engines
    assert local is None
    assert (spread.func, spread.keywords) == (beam.make_files, {"options": ["--x=1 2", "--y=3"]})
