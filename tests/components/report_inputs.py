"""What the report reads, of which a test changes values, and what a reader sees of it."""

import html
import re
import shutil
from pathlib import Path
from typing import Any

from components import report
from components.report import ReportOptions
from components.storage.files import read_json, write_json


class Inputs:
    """A copy of what the report reads, of which a test changes single values."""

    def __init__(self, root: Path, folders: dict[str, Path]) -> None:
        self.root = root
        self.folders = {name: Path(shutil.copytree(folder, root / name)) for name, folder in folders.items()}

    def change(self, file: str, **values: Any) -> None:
        write_json(self.root / file, read_json(self.root / file) | values)

    def build(self, **options: int) -> str:
        report.build(**self.folders, out_dir=self.root / "out", options=ReportOptions(**options))
        return (self.root / "out" / "report.html").read_text(encoding="utf-8")


def read_text(page: str) -> str:
    """Return what a reader sees, spaces collapsed."""
    body = re.sub(r"<[^>]*>", " ", page[page.index("<body>") :])
    return re.sub(r"\s+", " ", html.unescape(body))
