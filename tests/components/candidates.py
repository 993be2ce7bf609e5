"""Candidates as the steps before the pusher leave them, without TensorFlow: what the tests of pushing share."""

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

from components import baseline, pusher
from components.pusher import PusherOptions
from components.storage.bucket import Bucket
from components.storage.files import read_json, write_json

ROOT = Path(__file__).resolve().parents[2]
PASSED_CHECK = {"name": "finite", "passed": True, "message": "every probability is a finite number"}
VALIDATORS = ("evaluator", "infra_validator")


class Candidates:
    """Candidates as the steps before the pusher leave them, and the folder or the URL they are pushed to."""

    def __init__(self, folder: Path, models: Bucket | None = None) -> None:
        self.artifacts = folder / "artifacts"
        self.models: Any = models or folder / "models"
        self.out = folder / "out"
        self.out.mkdir()
        if models is None:
            self.models.mkdir()

    def add(self, key: str, *, name: str = "flowers", **checks: list[dict[str, Any]]) -> Path:
        """Add a candidate of that digest and what each validator says of it: blessed when all its checks are passed."""
        export = self.artifacts / "export" / key
        for file, content in {
            "saved_model.pb": f"graph of {key}",
            "variables/variables.index": "index",
            "variables/variables.data-00000-of-00001": f"weights of {key}",
        }.items():
            (export / file).parent.mkdir(parents=True, exist_ok=True)
            (export / file).write_text(content)
        (export / "assets.extra").mkdir()
        write_json(export / "assets.extra" / "model_spec.json", {"model_name": name})
        self._describe("trainer", key, {})
        self._describe("export", key, {"training_dir": "trainer"})
        for validator in VALIDATORS:
            made = checks.get(validator, [PASSED_CHECK])
            blessing = {"blessed": all(check["passed"] for check in made), "checks": made}
            write_json(self.blessing(validator, key), blessing)
            self._describe(validator, key, {"export_dir": "export"})
        self.convert(key, name=name)
        self.compare(key, passed=True)
        return export

    def convert(self, key: str, *, name: str = "flowers", **passed: bool) -> None:
        """Give a candidate a LiteRT file of each kind that is named, which passes its evaluation or does not."""
        files = {}
        for kind, good in passed.items():
            file = self.artifacts / "litert" / key / f"{name}_{kind}.tflite"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{kind} of {key}")
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            files[kind] = {
                "name": file.name,
                "sha256": digest,
                "size_bytes": file.stat().st_size,
                "passed": good,
                "accuracy": 0.5,
            }
        write_json(self.artifacts / "litert_evaluator" / key / "evaluation.json", {"files": files})
        self._describe("litert_evaluator", key, {})

    def compare(self, key: str, *, passed: bool) -> None:
        write_json(self.artifacts / "parity" / key / "parity.json", {"ways": [{"passed": passed}]})

    def blessing(self, validator: str, key: str) -> Path:
        return self.artifacts / validator / key / "blessing.json"

    def _describe(self, step: str, key: str, inputs: dict[str, str]) -> None:
        folder = self.artifacts / step / key
        folder.mkdir(parents=True, exist_ok=True)
        references = {p: {"step": s, "key": key, "digest": key} for p, s in inputs.items()}
        write_json(folder / "manifest.json", {"step": step, "key": key, "digest": key, "inputs": references})

    def push(self, key: str, **options: Any) -> dict[str, Any]:
        pusher.push(
            export_dir=self.artifacts / "export" / key,
            evaluation_dir=self.artifacts / "evaluator" / key,
            infra_validation_dir=self.artifacts / "infra_validator" / key,
            litert_dir=self.artifacts / "litert" / key,
            litert_evaluation_dir=self.artifacts / "litert_evaluator" / key,
            parity_dir=self.artifacts / "parity" / key,
            models_dir=self.models,
            out_dir=self.out,
            options=PusherOptions(**options),
        )
        return read_json(self.out / "push.json")

    def baseline(self, key: str) -> dict[str, Any]:
        baseline.find(export_dir=self.artifacts / "export" / key, models_dir=self.models, out_dir=self.out)
        return read_json(self.out / "baseline.json")

    def versions(self, name: str = "flowers") -> list[int]:
        return pusher.versions(self.models, name)

    def start(self, key: str, *, before: str = "") -> subprocess.Popen[str]:
        """Push a candidate in a process of its own, after the given preparation."""
        call = f"""
import os, shutil, signal, time
from pathlib import Path
from components.storage import models as model_store
from components import baseline, pusher
folder = Path({str(self.models.parent)!r})
{before}
(folder / "out-{key}").mkdir()
artifacts = folder / "artifacts"
pusher.push(export_dir=artifacts / "export" / "{key}", evaluation_dir=artifacts / "evaluator" / "{key}",
            infra_validation_dir=artifacts / "infra_validator" / "{key}", litert_dir=artifacts / "litert" / "{key}",
            litert_evaluation_dir=artifacts / "litert_evaluator" / "{key}", parity_dir=artifacts / "parity" / "{key}",
            models_dir=folder / "models", out_dir=folder / "out-{key}", options=pusher.PusherOptions())
"""
        return subprocess.Popen([sys.executable, "-c", call], cwd=ROOT, stderr=subprocess.PIPE, text=True)


def assert_complete(pushed: Path, export: Path) -> None:
    """A pushed model is every file of its candidate, and where it comes from."""
    files = {p.relative_to(pushed).as_posix() for p in pushed.rglob("*") if p.is_file()}
    expected = {p.relative_to(export).as_posix() for p in export.rglob("*") if p.is_file()} - {"manifest.json"}
    assert files == expected | {"assets.extra/lineage.json"}
    for name in expected:
        assert (pushed / name).read_bytes() == (export / name).read_bytes()
