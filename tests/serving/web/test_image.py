"""The page's image, without building it: the page imports nothing but what the Dockerfile copies, and no TensorFlow."""

import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path

import serving.web

ROOT = Path(__file__).resolve().parents[3]
TIMEOUT_S = 60


def test_the_image_holds_every_module_that_the_page_imports_and_needs_nothing_of_tensorflow(tmp_path: Path) -> None:
    lines = re.findall(r"^COPY (?!--from)(.+) (\S+)$", (ROOT / "serving/web/Dockerfile").read_text(), re.MULTILINE)
    for sources, target in lines:
        for source in map(ROOT.joinpath, sources.split()):
            if source.is_dir():
                shutil.copytree(source, tmp_path / target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                (tmp_path / target).mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, tmp_path / target)
    # The tool that takes the screenshots is no part of the page.
    names = {module.name for module in pkgutil.iter_modules(serving.web.__path__)} - {"screenshots"}
    code = (
        f"import sys, {', '.join(f'serving.web.{name}' for name in sorted(names))}, client.classifier_client as c\n"
        "c.LiteRTTransport, c.RestTransport, c.GrpcTransport\n"
        "print(sorted(m for m in sys.modules if m.split('.')[0] in ('tensorflow', 'keras', 'tensorflow_serving')))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert (ended.returncode, ended.stdout) == (0, "[]\n"), ended.stderr
