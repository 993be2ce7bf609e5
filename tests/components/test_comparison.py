"""Rows become a table, a plot and a page; what is missing is there with its reason."""

import re
from pathlib import Path
from typing import Any

import pytest

from components import comparison
from components.artifacts.comparison_rows import make_row, write_rows
from components.artifacts.manifest import write_missing
from components.storage.files import read_json, write_json
from serving.web.screenshots import Screen, open_browser, set_screen
from tests.serving.web.browser import needs_browser

MEASURED = {
    "accuracy": 0.25,
    "accuracy_interval": [0.2, 0.3],
    "num_examples": 274,
    "macro": {"precision": 0.26, "recall": 0.24, "f1": 0.23},
}
BETTER = {**MEASURED, "accuracy": 0.94, "accuracy_interval": [0.91, 0.96]}
INT8 = {"accuracy": 0.93, "size_bytes": 24_800_000, "latency_ms": 7.24}
TREE = make_row(
    model="decision tree", learns_from="Canny edges", measured=MEASURED, fit_s=20.04, inputs_s=40, num_parameters=900
)
RESNET50 = make_row(
    model="resnet50",
    learns_from="photos, fine-tuned",
    measured=BETTER,
    fit_s=5000,
    inputs_s=5000,
    num_parameters=24_113_541,
    int8=INT8,
    elsewhere=0.873,
)
REASON = "The ImageNet weights of mobilenet_v2 cannot be downloaded (no <network>)."


@pytest.fixture
def build(tmp_path: Path) -> Any:
    def build(*, fallback: str | None = None) -> Path:
        data = {"source": "auto", "resolved": "photos/", "fallback": fallback}
        write_json(tmp_path / "examples" / "examples.json", data)
        write_rows(tmp_path / "trees", [TREE])
        write_rows(tmp_path / "resnet50", [RESNET50])
        write_missing(tmp_path / "mobilenet_v2", what="mobilenet_v2", reason=REASON)
        out_dir = tmp_path / "out"
        out_dir.mkdir(exist_ok=True)
        folders = {name: tmp_path / name for name in ("trees", "resnet50", "mobilenet_v2")}
        comparison.build(examples_dir=tmp_path / "examples", out_dir=out_dir, **folders)
        return out_dir

    return build


def test_rows_stand_in_the_order_of_the_steps(build: Any) -> None:
    found = read_json(build() / "comparison.json")
    assert found["rows"] == [TREE, RESNET50, {"model": "mobilenet_v2", "missing": REASON}]
    assert found["data"]["resolved"] == "photos/"


def test_page_shows_every_row_and_needs_nothing_but_itself(build: Any) -> None:
    out_dir = build()
    page = (out_dir / "comparison.html").read_text(encoding="utf-8")
    assert "<h1>94.0\u00a0%: resnet50 (photos, fine-tuned)</h1>" in page
    assert "decision tree" in page
    assert "no &lt;network&gt;" in page
    assert page.count("<br>elsewhere") == page.count("<br>elsewhere 87.3\u00a0%</td>") == 1
    assert not re.search(r"(src|href)=\"(?!data:)|@import|<script", page)
    assert "max-width: 62rem" in page, "the report's look"
    assert (out_dir / "plots" / "comparison.png").read_bytes().startswith(b"\x89PNG")


@needs_browser
def test_table_fits_a_screen_of_1300_pixels(build: Any) -> None:
    path = build() / "comparison.html"
    with open_browser() as browser:
        set_screen(browser, Screen(1300, 900))
        browser.get(path.as_uri())
        table, shown = browser.execute_script(
            "const table = document.querySelector('.scroll'); return [table.scrollWidth, table.clientWidth]"
        )
    assert table <= shown


def test_same_rows_give_the_same_bytes(build: Any) -> None:
    first = (build() / "comparison.html").read_bytes()
    assert (build() / "comparison.html").read_bytes() == first


@pytest.mark.parametrize("fallback", [None, "No network."])
def test_page_is_loud_about_stand_in_data(build: Any, fallback: str | None) -> None:
    page = (build(fallback=fallback) / "comparison.html").read_text(encoding="utf-8")
    assert ("Stand-in data" in page) == bool(fallback)


def test_table_has_a_line_for_each_row_and_the_reasons_below() -> None:
    lines = comparison.as_table([TREE, RESNET50, {"model": "mobilenet_v2", "missing": REASON}]).splitlines()
    assert len({len(line) for line in lines[:5]}) == 1, "columns are aligned"
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:5]]
    assert cells[0][:3] == ["model", "learns from", "accuracy"]
    assert cells[2][:4] == ["decision tree", "Canny edges", "0.250", "0.200–0.300"]
    assert cells[2][4:] == ["0.260", "0.240", "0.230", "–", "20.0", "40.0", "900", "–", "–"]
    assert cells[3][-3:] == ["24,113,541", "24.8", "7.2"]
    assert cells[4][:2] == ["mobilenet_v2", "missing, see below"]
    assert lines[5] == f"mobilenet_v2: {REASON}"
