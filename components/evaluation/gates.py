"""The gates that hold a candidate against the pushed model.

Each refuses what is shown to be worse, at `evaluator.confidence`; its message has the figures, whatever it decides.
"""

import logging
from typing import TYPE_CHECKING

from components.artifacts.blessing import Check
from components.artifacts.evaluation import BaselineMetrics, Metrics, PairedShare
from components.evaluation.baseline import OTHER_CLASSES

if TYPE_CHECKING:
    from components.evaluator import EvaluatorOptions

log = logging.getLogger(__name__)

_NONE_PUSHED = "no other model has been pushed: nothing to compare with"


def check_baseline(baseline: BaselineMetrics | None, options: "EvaluatorOptions") -> Check:
    """Hold the accuracy against that of the pushed model."""
    if baseline is None:
        return {"name": "baseline", "passed": True, "message": _NONE_PUSHED}
    pushed = f"the pushed version {baseline['version']}"
    if baseline["reason"] == OTHER_CLASSES:
        message = f"{pushed} has other classes: push this model under a name of its own, export.model_name"
        return {"name": "baseline", "passed": False, "message": message}
    if baseline["p_value"] is None:
        message = (
            f"it cannot be compared with {pushed}: {baseline['reason']}. The other checks decide; "
            f"evaluator.require_baseline is {str(options.require_baseline).lower()}"
        )
        log.warning("evaluator: %s", message)
        return {"name": "baseline", "passed": not options.require_baseline, "message": message}
    num_lost, num_won = baseline["num_only_baseline_right"], baseline["num_only_candidate_right"]
    passed = baseline["p_value"] >= 1 - options.confidence
    message = (
        f"accuracy {baseline['candidate_accuracy']:.4f} {_verdict(passed)} below that of {pushed} "
        f"({baseline['accuracy']:.4f}), less evaluator.max_accuracy_drop ({options.max_accuracy_drop}): of "
        f"{baseline['num_examples']} photos that neither has learned from {num_lost} are right with the pushed one "
        f"alone and {num_won} with this one alone, p = {baseline['p_value']:.3f}"
    )
    is_worse = num_lost - num_won > options.max_accuracy_drop * baseline["num_examples"] + 1e-9
    return _decide("baseline", passed, message, is_worse)


def check_calibration(measured: Metrics, options: "EvaluatorOptions") -> Check:
    """Hold the cross-entropy against that of the pushed model: it is worse where probabilities come true less."""
    baseline = measured["baseline"]
    loss = "–" if measured["loss"] is None else f"{measured['loss']:.4f}"
    figure = f"cross-entropy {loss}, calibration error {measured['calibration']['ece']:.4f}"
    if not baseline or not baseline["loss"]:
        reason = "the losses are not finite numbers"
        return {"name": "calibration", "passed": True, "message": f"{figure}; {_excuse(baseline, reason)}"}
    pair = baseline["loss"]
    passed = pair["p_value"] >= 1 - options.confidence
    message = (
        f"{figure}; on {baseline['num_examples']} photos that neither has learned from its cross-entropy "
        f"{pair['candidate']:.4f} {_verdict(passed)} above that of the pushed version {baseline['version']} "
        f"({pair['baseline']:.4f}) by more than evaluator.max_loss_rise ({options.max_loss_rise}), "
        f"p = {pair['p_value']:.3f}"
    )
    return _decide("calibration", passed, message, pair["candidate"] - pair["baseline"] > options.max_loss_rise + 1e-9)


def check_refusal(measured: Metrics, options: "EvaluatorOptions") -> Check:
    """Hold the share of test photos that is refused against that of the pushed model."""
    limits, baseline = measured["limits"], measured["baseline"]
    share = limits["refused"] if limits else None
    figure = f"{share['share']:.4f} of {share['num_examples']} test photos are refused" if share else None
    pair = baseline["refused"] if baseline else None
    what = "test photos that neither has learned from it refuses"
    return _check_share("refusal", figure, pair, baseline, what, "max_refused_rise", options)


def check_foreign(measured: Metrics, options: "EvaluatorOptions") -> Check:
    """Hold the share of foreign photos that is let through against that of the pushed model."""
    limits, baseline = measured["limits"], measured["baseline"]
    foreign = limits["foreign"] if limits else None
    share = foreign["refused"] if foreign else None
    figure = f"{1 - share['share']:.4f} of {share['num_examples']} foreign photos are let through" if share else None
    pair = baseline["let_through"] if baseline else None
    what = "foreign photos it lets through"
    return _check_share("foreign", figure, pair, baseline, what, "max_foreign_rise", options)


def _check_share(
    name: str,
    figure: str | None,
    pair: PairedShare | None,
    baseline: BaselineMetrics | None,
    what: str,
    option: str,
    options: "EvaluatorOptions",
) -> Check:
    """Hold a share that should be small against that of the pushed model.

    Args:
        name: of the check.
        figure: the candidate's share in words; `None` where it has no limits.
        pair: both shares; `None` where they cannot be compared.
        baseline: what is known of the pushed model, if there is one.
        what: of which photos it is the share, and what the candidate does with them.
        option: the name of the margin.
        options: with the margin, and how sure it must be that the share is above it.
    """
    if pair is None or baseline is None:
        reason = "the pushed model knows no limits" if figure else "nothing to compare with"
        message = f"{figure or 'this model refuses nothing: it knows no limits'}; {_excuse(baseline, reason)}"
        return {"name": name, "passed": True, "message": message}
    passed, max_rise = pair["p_value"] >= 1 - options.confidence, getattr(options, option)
    message = (
        f"{figure}; of {pair['num_examples']} {what} {pair['candidate']:.4f}, which {_verdict(passed)} above the "
        f"{pair['baseline']:.4f} of the pushed version {baseline['version']} by more than evaluator.{option} "
        f"({max_rise}): "
        f"{pair['num_only_candidate']} with this one alone and {pair['num_only_baseline']} with the pushed one alone, "
        f"p = {pair['p_value']:.3f}"
    )
    rise = pair["num_only_candidate"] - pair["num_only_baseline"]
    return _decide(name, passed, message, rise > max_rise * pair["num_examples"] + 1e-9)


def _excuse(baseline: BaselineMetrics | None, reason: str) -> str:
    """Say why nothing is compared; the reason is for a pushed model that can be compared otherwise."""
    if baseline is None:
        return _NONE_PUSHED
    return f"it cannot be compared with the pushed version {baseline['version']}: {baseline['reason'] or reason}"


def _verdict(passed: bool) -> str:
    return "is not shown to be" if passed else "is"


def _decide(name: str, passed: bool, message: str, is_worse: bool) -> Check:
    """Return the result of a comparison; worse, and not shown to be, is said to be so."""
    if passed and is_worse:
        message += "; too few to tell"
        log.warning("evaluator: %s", message)
    return {"name": name, "passed": passed, "message": message}
