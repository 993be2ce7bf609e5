"""A fingerprint changes when the meaning of what it covers changes, and only then."""

import importlib.metadata
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines import fingerprint, flowers

STEP = '''"""What the step is for."""

from steps import helper


def build(size):
    """Build it."""
    return helper.double(size) + 1
'''
HELPER = """from steps.deep import base


def double(value):
    return base.SCALE * value
"""


@pytest.fixture
def change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], str]:
    """Return the function that writes a file of a small code base and digests the step in it."""
    monkeypatch.setattr(fingerprint, "ROOT", tmp_path)
    for name, content in {
        "steps/__init__.py": "",
        "steps/step.py": STEP,
        "steps/helper.py": HELPER,
        "steps/deep/__init__.py": "",
        "steps/deep/base.py": "SCALE = 2\n",
        "steps/other.py": "LIMIT = 1\n",
        "steps/step.page.html.j2": "<p>{{ title }}</p>",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)

    def write(name: str, content: str) -> str:
        (tmp_path / name).write_text(content)
        fingerprint.of_code.cache_clear()
        return fingerprint.of_code("steps.step")

    yield write
    fingerprint.of_code.cache_clear()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("def build", "# A comment.\ndef build"),
        ('"""What the step is for."""', '"""Another text."""'),
        ('    """Build it."""\n', ""),
        ("helper.double(size) + 1", "(\n        helper.double( size )\n        + 1  # one more\n    )"),
    ],
    ids=["comment", "module docstring", "docstring of a function", "layout"],
)
def test_what_does_not_change_the_meaning_does_not_change_the_fingerprint(change, old, new):
    assert old in STEP
    assert change("steps/step.py", STEP.replace(old, new)) == change("steps/step.py", STEP)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("steps/step.py", STEP.replace("+ 1", "+ 2")),
        ("steps/step.py", STEP.replace("helper.double(size)", '"size"')),
        ("steps/helper.py", HELPER.replace("base.SCALE * value", "value * base.SCALE")),
        ("steps/deep/base.py", "SCALE = 3\n"),
        ("steps/deep/__init__.py", "import warnings\n"),
        ("steps/__init__.py", "VERSION = 2\n"),
        ("steps/step.page.html.j2", "<h1>{{ title }}</h1>"),
        ("steps/step.json", "{}"),
    ],
    ids=[
        "code",
        "a string that is no docstring",
        "direct import",
        "indirect import",
        "package of an import",
        "package",
        "template",
        "new companion",
    ],
)
def test_a_change_of_the_code_or_of_what_it_uses_changes_the_fingerprint(change, name, content):
    before = change("steps/step.py", STEP)
    assert change(name, content) != before


@pytest.mark.parametrize("imported", ["", "if TYPE_CHECKING:\n    from steps.other import LIMIT\n"])
def test_a_module_that_the_step_does_not_import_when_it_runs_does_not_count(change, imported):
    before = change("steps/step.py", STEP + imported)
    assert change("steps/other.py", "LIMIT = 2\n") == before


def test_a_program_that_the_step_runs_counts(change):
    change("steps/step.py", STEP)
    before = fingerprint.of_code("steps.step", "steps.other")
    assert before != fingerprint.of_code("steps.step")
    change("steps/other.py", "LIMIT = 2\n")
    assert fingerprint.of_code("steps.step", "steps.other") != before


def test_an_import_inside_a_function_counts(change):
    lazy = STEP.replace("    return", "    from steps import other\n\n    return")
    before = change("steps/step.py", lazy)
    assert change("steps/other.py", "LIMIT = 2\n") != before


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("steps/step.py", "from .other import LIMIT\n"),
        ("steps/step.py", "from . import other\n"),
        ("steps/deep/base.py", "from ..other import LIMIT\n\nSCALE = 2\n"),
        ("steps/deep/__init__.py", "from ..other import LIMIT\n"),
    ],
)
def test_a_relative_import_counts(change, name, text):
    before = change(name, text + (STEP if name == "steps/step.py" else ""))
    assert change("steps/other.py", "LIMIT = 2\n") != before


def test_modules_that_import_each_other_are_digested(change):
    assert change("steps/deep/base.py", "from steps import step\n\nSCALE = 2\n")


def test_equal_values_have_equal_digests_whatever_the_order_of_their_keys():
    assert fingerprint.of_value({"a": 1, "b": [2, 3]}) == fingerprint.of_value({"b": [2, 3], "a": 1})
    assert fingerprint.of_value({"a": 1}) != fingerprint.of_value({"a": 1.5})
    assert fingerprint.of_value([2, 3]) != fingerprint.of_value([3, 2])


def test_a_file_is_digested_by_its_content(tmp_path):
    # The digest of "abc" in FIPS 180-2, appendix B.1.
    (tmp_path / "abc").write_text("abc")
    assert fingerprint.of_file(tmp_path / "abc") == ("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")


def test_the_versions_are_those_installed():
    found = fingerprint.versions()
    assert found["keras"] == importlib.metadata.version("keras")
    assert set(found) == {"python", *fingerprint.LIBRARIES}
    assert fingerprint.versions("scikit-learn") == {**found, "scikit-learn": importlib.metadata.version("scikit-learn")}
    json.dumps(found)


def test_every_step_of_the_flowers_pipeline_has_code_to_digest():
    nothing = fingerprint.of_value({})
    digests = {s.name: fingerprint.of_code(s.function.partition(":")[0]) for s in flowers.STEPS}
    assert nothing not in digests.values()
    assert len(set(digests.values())) == len(digests)
    programs = [program for step in flowers.STEPS for program in step.programs]
    assert nothing not in map(fingerprint.of_code, programs)


@pytest.mark.parametrize(("step", "name"), [("components.report", "report"), ("components.comparison", "comparison")])
def test_the_template_of_a_page_counts(step, name, tmp_path, monkeypatch, request):
    request.addfinalizer(fingerprint.of_code.cache_clear)
    before = fingerprint.of_code(step)
    shutil.copytree(fingerprint.ROOT / "components", tmp_path / "components")
    shutil.copytree(fingerprint.ROOT / "serving", tmp_path / "serving", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(fingerprint, "ROOT", tmp_path)
    fingerprint.of_code.cache_clear()
    assert fingerprint.of_code(step) == before
    (tmp_path / "components" / "reporting" / f"page.{name}.html.j2").write_text("edited")
    fingerprint.of_code.cache_clear()
    assert fingerprint.of_code(step) != before
