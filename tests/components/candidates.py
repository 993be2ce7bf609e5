"""Candidates as the steps before the pusher leave them, without TensorFlow: what the tests of pushing share."""

import hashlib
import multiprocessing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from components import baseline, pusher
from components.artifacts.baseline import Baseline, read_baseline
from components.artifacts.blessing import Check, write_blessing
from components.artifacts.litert_evaluation import LiteRTEvaluation, LiteRTFile, write_litert_evaluation
from components.artifacts.manifest import MANIFEST, Manifest, write_manifest
from components.artifacts.parity import Parity, write_parity
from components.artifacts.push import Push, read_push
from components.pusher import PusherOptions
from components.storage.files import sha256, write_json
from components.storage.models import ModelStore
from components.storage.store import open_store

PASSED_CHECK = Check(name="finite", passed=True, message="every probability is a finite number")
VALIDATORS = ("evaluator", "infra_validator")
STEPS = {
    "export": "export_dir",
    "evaluator": "evaluation_dir",
    "infra_validator": "infra_validation_dir",
    "litert": "litert_dir",
    "litert_evaluator": "litert_evaluation_dir",
    "parity": "parity_dir",
}
"""What the pusher reads: parameter by step."""
FILES = {
    "saved_model.pb",
    "variables/variables.index",
    "variables/variables.data-00000-of-00001",
    "assets.extra/model_spec.json",
}


class Candidates:
    """Candidates in a folder, and the folder or the URL they are pushed to."""

    def __init__(self, folder: Path, models: str | None = None) -> None:
        self.artifacts = folder / "artifacts"
        self.store = open_store(models or folder / "models")
        self.models = ModelStore(self.store)

    def add(
        self,
        *keys: str,
        name: str = "flowers",
        evaluator: Sequence[Check] = (PASSED_CHECK,),
        infra_validator: Sequence[Check] = (PASSED_CHECK,),
        data_fallback: str | None = None,
        weights_fallback: str | None = None,
        **litert: bool,
    ) -> None:
        """Add candidates of these digests, blessed when all checks are passed; see `convert` for their LiteRT files."""
        for key in keys:
            export = self.folder("export", key)
            for file, content in {
                "saved_model.pb": f"graph of {key}",
                "variables/variables.index": "index",
                "variables/variables.data-00000-of-00001": f"weights of {key}",
            }.items():
                (export / file).parent.mkdir(parents=True, exist_ok=True)
                (export / file).write_text(content)
            spec = {
                "model_name": name,
                "data": {"source": "photos", "resolved": "photos", "fallback": data_fallback},
                "weights": {"source": "imagenet", "fallback": weights_fallback},
            }
            write_json(export / "assets.extra" / "model_spec.json", spec)
            self.describe("trainer", key, {})
            self.describe("export", key, {"training_dir": "trainer"})
            for validator, checks in zip(VALIDATORS, (evaluator, infra_validator), strict=True):
                write_blessing(self.folder(validator, key), checks, validator=validator)
                self.describe(validator, key, {"export_dir": "export"})
            self.convert(key, name=name, **litert)
            self.compare(key, passed=True)

    def convert(self, key: str, *, name: str = "flowers", **passed: bool) -> None:
        """Give a candidate a LiteRT file of each kind that is named, which passes its evaluation or does not."""
        files = {}
        for kind, is_good in passed.items():
            file = self.folder("litert", key) / f"{name}_{kind}.tflite"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{kind} of {key}")
            files[kind] = LiteRTFile(
                name=file.name,
                sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
                size_bytes=file.stat().st_size,
                accuracy=0.5,
                accuracy_interval=[0.4, 0.6],
                num_examples=100,
                latency_ms=1.0,
                peak_memory_bytes=1,
                agreement=1.0,
                refusal_agreement=None,
                passed=is_good,
                objections=[],
                notes=[],
            )
        write_litert_evaluation(self.folder("litert_evaluator", key), LiteRTEvaluation(files=files))
        self.describe("litert_evaluator", key, {})

    def compare(self, key: str, *, passed: bool) -> None:
        """Let the forms of a candidate predict the same, or not."""
        form: Any = {
            "form": "saved_model",
            "num_images": 8,
            "max_difference": 0.0,
            "max_p_value_difference": 0.0,
            "agreement": 1.0,
            "tolerance": 0.1,
            "p_value_tolerance": 0.1,
            "passed": passed,
        }
        write_parity(self.folder("parity", key), Parity(reference="keras", forms=[form]))

    def folder(self, step: str, key: str) -> Path:
        return self.artifacts / step / key

    def evaluate(self, key: str) -> None:
        """Compare a candidate with the baseline of this moment."""
        version = self.baseline(key)["version"]
        compared = None if version is None else {"version": version, "accuracy": 0.5, "num_examples": 100}
        write_json(self.folder("evaluator", key) / "metrics.json", {"baseline": compared})

    def push(self, key: str, *, is_evaluated: bool = False, **options: Any) -> Push:
        """Push a candidate, compared with the baseline of this moment unless it has been evaluated before."""
        if not is_evaluated:
            self.evaluate(key)
        folders = {parameter: self.folder(step, key) for step, parameter in STEPS.items()}
        out_dir = self.folder("pusher", key)
        out_dir.mkdir(parents=True, exist_ok=True)
        pusher.push(**folders, models_dir=self.store, out_dir=out_dir, options=PusherOptions(**options))
        return read_push(out_dir)

    def baseline(self, key: str) -> Baseline:
        out_dir = self.folder("baseline", key)
        baseline.find(export_dir=self.folder("export", key), models_dir=self.store, out_dir=out_dir)
        return read_baseline(out_dir)

    def versions(self, name: str = "flowers") -> list[int]:
        return self.models.versions(name)

    def start(self, key: str, prepare: Callable[[], None]) -> Any:
        """Push a candidate in a process of its own, after the given preparation."""

        def call() -> None:
            prepare()
            self.push(key)

        process = multiprocessing.get_context("fork").Process(target=call)
        process.start()
        return process

    def assert_complete(self, version: int, key: str, *, name: str = "flowers") -> None:
        """A pushed model is every file of its candidate, and its lineage."""
        pushed = f"{name}/{version}"
        assert set(self.store.files(pushed)) == FILES | {"assets.extra/lineage.json"}
        for file in FILES:
            assert self.store.read(f"{pushed}/{file}") == (self.folder("export", key) / file).read_bytes()

    def describe(self, step: str, key: str, inputs: dict[str, str]) -> None:
        """Write the manifest of what a step has left of a candidate."""
        manifest = Manifest(
            step=step,
            key=key,
            digest=key,
            code="code",
            options={},
            source=None,
            inputs={p: {"step": s, "key": key, "digest": key} for p, s in inputs.items()},
            versions={},
            created="2026-01-01T00:00:00+0000",
            seconds=0.0,
            summary={},
            files={
                path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": sha256(path)}
                for folder in [self.folder(step, key)]
                for path in folder.rglob("*")
                if path.is_file() and path.name != MANIFEST
            },
        )
        write_manifest(self.folder(step, key), manifest)
