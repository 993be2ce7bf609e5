"""Find the model that a candidate must not be worse than: the newest pushed one that is not the candidate itself.

Reads the candidate and the pushed models; writes `baseline.json`.
"""

from pathlib import Path

from components.artifacts.baseline import Baseline, write_baseline
from components.artifacts.manifest import read_manifest
from components.artifacts.summary import Summary
from components.storage.models import ModelStore
from components.storage.store import Store
from export.spec import read_spec


def find(*, export_dir: Path, models_dir: Store, out_dir: Path) -> Summary:
    """Find the newest pushed model of the candidate's name that is not the candidate itself.

    Writes `baseline.json` with its `version` and `path`, which may be a URL, null where there is none.
    """
    name, digest = read_spec(export_dir)["model_name"], read_manifest(export_dir)["digest"]
    models = ModelStore(models_dir.absolute())
    version = models.newest_other(name, digest)
    write_baseline(out_dir, Baseline(version=version, path=None if version is None else models.path(name, version)))
    return {"version": "none" if version is None else version}
