"""Find the model that a candidate must not be worse than: the newest pushed one that is not the candidate itself.

Reads the candidate and the pushed models; writes `baseline.json`.
"""

from pathlib import Path
from typing import Any

from components.artifacts import manifest as lineage
from components.artifacts.baseline import Baseline, write_baseline
from components.storage.bucket import Bucket, is_url
from components.storage.models import ModelBucket, ModelFolder, open_models
from export.spec import read_spec


def find(*, export_dir: Path, models_dir: Path | Bucket, out_dir: Path) -> dict[str, Any]:
    """Find the model a candidate must not be worse than: the newest pushed one that is not the candidate itself.

    Writes `baseline.json` with its `version` and `path` (which may be a URL), null where there is none.
    """
    models = open_models(models_dir)
    name, digest = _identify(export_dir)
    newest_first = reversed(models.versions(name))
    version = next((v for v in newest_first if _digest(models, name, v) != digest), None)
    path = None if version is None else models.path(name, version)
    path = path if path is None or is_url(path) else str(Path(path).absolute())
    write_baseline(out_dir, Baseline(version=version, path=path))
    return {"version": "none" if version is None else version}


def _identify(export_dir: Path) -> tuple[str, str]:
    """Give the name under which a candidate is served, and the digest of its content."""
    name = read_spec(export_dir)["model_name"]
    return name, lineage.read_manifest(export_dir)["digest"]


def _digest(models: ModelFolder | ModelBucket, name: str, version: int) -> str | None:
    """Give the digest of the candidate that a pushed model was; `None` for one that we did not push."""
    origin = models.lineage(name, version)
    return origin["model"]["digest"] if origin else None
