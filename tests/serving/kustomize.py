"""As much of `kubectl kustomize` as the manifests use, so that they can be tested without it."""

from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]


def build(folder: Path) -> list[Manifest]:
    """Return the manifests of a folder with a `kustomization.yaml`; names of generated ConfigMaps have no hash."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    known = {"apiVersion", "kind", "namespace", "resources", "patches", "configMapGenerator"}
    assert set(kustomization) <= known, "this reader knows no more"
    manifests = [manifest for name in kustomization.get("resources", ()) for manifest in _read(folder / name)]
    manifests += [_generate(folder, entry) for entry in kustomization.get("configMapGenerator", ())]
    for entry in kustomization.get("patches", ()):
        (patch,) = _read(folder / entry["path"])
        (target,) = (manifest for manifest in manifests if identify(manifest) == identify(patch))
        manifests[manifests.index(target)] = _merge(target, patch)
    if "namespace" in kustomization:
        for manifest in manifests:
            if manifest["kind"] != "Namespace":
                manifest["metadata"]["namespace"] = kustomization["namespace"]
    return manifests


def identify(manifest: Manifest) -> tuple[str, str]:
    return manifest["kind"], manifest["metadata"]["name"]


def _read(path: Path) -> list[Manifest]:
    return build(path) if path.is_dir() else list(yaml.safe_load_all(path.read_text()))


def _generate(folder: Path, entry: dict[str, Any]) -> Manifest:
    files = (name.rpartition("=") for name in entry.get("files", ()))
    data = {key or name: (folder / name).read_text() for key, _, name in files}
    data |= dict(literal.split("=", 1) for literal in entry.get("literals", ()))
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": entry["name"]}, "data": data}


def _merge(base: Any, patch: Any) -> Any:
    """Lay a patch over a manifest: objects by key, lists of named objects by name, anything else replaces."""
    if isinstance(base, dict) and isinstance(patch, dict):
        return base | {key: _merge(base.get(key), value) for key, value in patch.items()}
    if isinstance(base, list) and all("name" in each for each in patch):
        named = {each["name"]: each for each in base}
        merged = {each["name"]: _merge(named.get(each["name"]), each) for each in patch}
        return list((merged | {name: each for name, each in named.items() if name not in merged}).values())
    return patch
