"""What speaks against pushing a blessed model, and whether it is pushed already: looked at under the store's lock."""

import json
import logging
from pathlib import Path

from components.artifacts.parity import read_parity
from components.pushing.candidate import Candidate
from components.storage.models import WITHDRAWN, ModelStore
from export.spec import SPEC, ModelSpec, read_spec

log = logging.getLogger(__name__)


def find_difference(parity_dir: Path) -> str | None:
    """Return that a form of the model differs from the reference, if one does."""
    passed = all(form["passed"] for form in read_parity(parity_dir)["forms"])
    return None if passed else "the same photo gets different predictions from different forms of the model"


def find_pushed(models: ModelStore, candidate: Candidate) -> int | None:
    """Return the newest version if it is the candidate, has the same LiteRT files and is signed as it shall be."""
    pushed = models.versions(candidate.name)
    newest = models.lineage(candidate.name, pushed[-1]) if pushed else None
    if newest is None or newest["model"]["digest"] != candidate.digest:
        return None
    if newest.get("litert_files", {}) != candidate.litert_digests:
        return None
    signed_by = newest.get("signed_by")
    if candidate.signed_by not in (None, signed_by):
        how = f"signed by another one, {signed_by}" if signed_by else "not signed"
        log.warning("pusher: version %d is the same model, and %s: it is pushed again, signed", pushed[-1], how)
        return None
    return pushed[-1]


def find_reason_against(models: ModelStore, candidate: Candidate, *, push_withdrawn: bool) -> str | None:
    """Return why a blessed candidate may not become the newest version, if it may not."""
    withdrawn = _find_withdrawn(models, candidate)
    if withdrawn and not push_withdrawn:
        return f"withdrawn by a rollback as version {withdrawn}; pusher.push_withdrawn=true pushes it again"
    newest = models.newest_other(candidate.name, candidate.digest)
    if newest != candidate.baseline:
        if newest is None or newest < (candidate.baseline or 0):
            meanwhile = f"version {candidate.baseline}, with which it was compared, was withdrawn meanwhile"
        else:
            meanwhile = f"version {newest} was pushed meanwhile"
        newest_name = "what is the newest now" if newest is None else f"version {newest}"
        return f"{meanwhile}; run again, without --from, to compare it with {newest_name}"
    return _find_fallback(models, candidate, newest)


def _find_fallback(models: ModelStore, candidate: Candidate, newest: int | None) -> str | None:
    """Return on which fallback a candidate stands that the newest version does not stand on."""
    spec = read_spec(candidate.export_dir)
    content = None if newest is None else models.read(candidate.name, newest, SPEC)
    pushed: ModelSpec | None = None if content is None else json.loads(content)
    for part, option, origin, pushed_origin in (
        ("photos", "examples.source", spec["data"], pushed and pushed.get("data")),
        ("weights", "model.weights", spec["weights"], pushed and pushed.get("weights")),
    ):
        if not origin["fallback"]:
            continue
        # What is not known of a pushed model may be real.
        if newest is not None and not (pushed_origin and pushed_origin["fallback"]):
            return (
                f"its {part} are a fallback ({origin['fallback'].rstrip('.')}), and those of version {newest} are not; "
                f"run again when they can be had, or name others with {option}"
            )
        log.warning("pusher: the model stands on a fallback: its %s: %s", part, origin["fallback"])
    return None


def _find_withdrawn(models: ModelStore, candidate: Candidate) -> int | None:
    """Return the last version as which a rollback took the candidate back."""
    name = f"{WITHDRAWN}/{candidate.name}"
    return next((v for v in reversed(models.versions(name)) if models.digest(name, v) == candidate.digest), None)
