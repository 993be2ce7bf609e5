"""The notebooks run from the first cell to the last, on little data, and are committed with their output."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import nbformat
import pytest

from tests import tiny_pipeline

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
COMPARE = ROOT / "notebooks" / "3_compare.ipynb"
SETTINGS = tiny_pipeline.assignments()
COMPARE_SETTINGS = (
    *SETTINGS,
    "edges.image_size_px=64",
    "depthwise.image_size_px=32",
    "depthwise.epochs=1",
    "fine_tuning.fine_tune_epochs=1",
    "judging.min_accuracy=1",
)


def run(folder: Path, notebooks: list[Path], settings: Sequence[str]) -> None:
    """Run notebooks one after the other in a project that is empty but for them."""
    (folder / "notebooks").mkdir()
    (folder / "client").symlink_to(ROOT / "client")
    copies = [folder / "notebooks" / path.name for path in notebooks]
    for path, copy in zip(notebooks, copies, strict=True):
        copy.write_bytes(path.read_bytes())
    done = subprocess.run(
        [sys.executable, "-m", "jupyter", "execute", "--inplace", *copies],
        env={**os.environ, "PYTHONPATH": str(ROOT), "SET": " ".join(settings)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for copy in copies:
        for cell in nbformat.read(copy, as_version=4).cells:
            assert cell.cell_type != "code" or cell.execution_count


def test_notebooks_run(tmp_path: Path) -> None:
    """What one of them makes is what the next one takes."""
    run(tmp_path, [path for path in NOTEBOOKS if path != COMPARE], SETTINGS)


@pytest.mark.slow
def test_the_comparison_runs(tmp_path: Path) -> None:
    run(tmp_path, [COMPARE], COMPARE_SETTINGS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_opens_on_what_the_reader_learns_and_shows_its_output(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    first = cells[0]
    assert (first.cell_type, "You will learn" in first.source) == ("markdown", True)
    outputs = [output for cell in cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not any(output.output_type == "error" for output in outputs)
    # Nothing of the machine they were run on.
    assert not re.search(r"/(home|Users|root|tmp|work)/", path.read_text(encoding="utf-8"))
