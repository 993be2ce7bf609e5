"""The pushed model beside the candidate, photo by photo; `gates` decides what follows."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from components.artifacts.baseline import read_baseline
from components.artifacts.evaluation import BaselineMetrics, PairedLoss, PairedShare
from components.artifacts.examples import IndexRow, shards
from components.artifacts.learned_photos import read_learned_photos, to_id
from components.artifacts.manifest import read_manifest
from components.artifacts.outputs import read_outputs
from components.evaluation.photo_folders import Photos
from components.evaluation.served_model import Outputs, ServedModel, read_encoded
from components.reporting import metrics
from components.storage.cache import fetch_folder
from components.storage.files import read_json
from components.storage.models import LINEAGE, MARKER
from export.spec import read_spec

if TYPE_CHECKING:
    from components.evaluator import EvaluatorOptions

log = logging.getLogger(__name__)

OTHER_CLASSES = "its classes are others"


def measure_baseline(
    baseline_dir: Path | None,
    class_names: Sequence[str],
    examples_dir: Path,
    rows: Sequence[IndexRow],
    outputs: Outputs,
    foreign: tuple[Photos, Outputs] | None,
    options: "EvaluatorOptions",
    *,
    earlier_dir: Path | None = None,
) -> BaselineMetrics | None:
    """Compare with the last pushed model on the photos that neither has learned from; say why where that cannot be.

    Args:
        baseline_dir: what the step `baseline` found.
        class_names: the candidate's.
        examples_dir: the examples.
        rows: the test examples.
        outputs: the candidate's on them.
        foreign: photos of other things, and the candidate's outputs on them.
        options: how much worse the candidate may be.
        earlier_dir: an earlier evaluation, which may have been that of the pushed model.
    """
    baseline = read_baseline(baseline_dir) if baseline_dir else None
    if baseline is None or baseline["version"] is None or baseline["path"] is None:
        return None
    path = fetch_folder(baseline["path"], marker=MARKER)
    learned = read_learned_photos(path)
    unseen = np.array([learned is not None and to_id(row["sha256"]) not in learned for row in rows])
    measured = BaselineMetrics(
        version=baseline["version"],
        accuracy=None,
        candidate_accuracy=None,
        num_examples=int(unseen.sum()),
        num_only_baseline_right=0,
        num_only_candidate_right=0,
        p_value=None,
        reason=None,
        loss=None,
        refused=None,
        let_through=None,
    )
    if read_spec(path)["class_names"] != class_names:
        return {**measured, "reason": OTHER_CLASSES}
    if learned is None:
        return {**measured, "reason": "it carries no list of the photos that it learned from"}
    if not unseen.any():
        return {**measured, "reason": "it has learned from every test photo"}
    labels = np.array([row["label"] for row in rows])[unseen]
    pushed = None if foreign is None else ServedModel(path, batch_size=options.batch_size)
    others = _recall(path, rows, earlier_dir)
    if others is None:
        pushed = pushed or ServedModel(path, batch_size=options.batch_size)
        others = pushed.classify(read_encoded(shards(examples_dir, "test")), desc="evaluating the pushed model")
    theirs, ours = others.probabilities[unseen], outputs.probabilities[unseen]
    their_right, our_right = theirs.argmax(axis=1) == labels, ours.argmax(axis=1) == labels
    num_lost, num_won = int((their_right & ~our_right).sum()), int((our_right & ~their_right).sum())
    measured = {
        **measured,
        "accuracy": float(their_right.mean()),
        "candidate_accuracy": float(our_right.mean()),
        "num_only_baseline_right": num_lost,
        "num_only_candidate_right": num_won,
        "p_value": metrics.drop_p_value(num_lost, num_won, len(labels), max_drop=options.max_accuracy_drop),
        "loss": _pair_losses(theirs, ours, labels, options.max_loss_rise),
    }
    if others.limits is None or outputs.limits is None:
        return measured
    refused = ~others.limits.is_known[unseen], ~outputs.limits.is_known[unseen]
    measured["refused"] = _pair_shares(*refused, options.max_refused_rise)
    if foreign and pushed:
        photos, our_foreign = foreign
        their_foreign = pushed.classify(photos.read(), desc="the pushed model on foreign photos")
        if their_foreign.limits and our_foreign.limits:
            passed = their_foreign.limits.is_known, our_foreign.limits.is_known
            measured["let_through"] = _pair_shares(*passed, options.max_foreign_rise)
    return measured


def _recall(model_dir: Path, rows: Sequence[IndexRow], earlier_dir: Path | None) -> Outputs | None:
    """Return what a pushed model returned for these examples when it was the candidate, if it was."""
    lineage = model_dir / LINEAGE
    if earlier_dir is None or not lineage.exists():
        return None
    if read_json(lineage)["model"]["digest"] != read_manifest(earlier_dir)["inputs"]["export_dir"]["digest"]:
        return None
    arrays = read_outputs(earlier_dir, [row["sha256"] for row in rows])
    if arrays is None:
        return None
    log.info("evaluator: the pushed model is compared as it was evaluated before its push")
    return Outputs.from_arrays(arrays)


def _pair_losses(
    theirs: NDArray[np.float32], ours: NDArray[np.float32], labels: NDArray[np.int64], max_rise: float
) -> PairedLoss | None:
    their_losses, our_losses = (metrics.cross_entropy(each, labels) for each in (theirs, ours))
    if not np.isfinite(their_losses).all() or not np.isfinite(our_losses).all():
        return None
    return {
        "baseline": float(their_losses.mean()),
        "candidate": float(our_losses.mean()),
        "p_value": metrics.rise_p_value(our_losses - their_losses, max_rise=max_rise),
    }


def _pair_shares(theirs: NDArray[np.bool_], ours: NDArray[np.bool_], max_rise: float) -> PairedShare:
    num_theirs, num_ours = int((theirs & ~ours).sum()), int((ours & ~theirs).sum())
    return {
        "baseline": float(theirs.mean()),
        "candidate": float(ours.mean()),
        "num_examples": len(ours),
        "num_only_baseline": num_theirs,
        "num_only_candidate": num_ours,
        # A rise of what is bad is a drop of what is good.
        "p_value": metrics.drop_p_value(num_ours, num_theirs, len(ours), max_drop=max_rise),
    }
