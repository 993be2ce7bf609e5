"""What a person wants to know afterwards: where a pushed model comes from, and which runs there were."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from components.artifacts.labels import AppliedDecision, read_applied
from components.artifacts.manifest import Lineage, Reference, read_fallback
from components.artifacts.push import PushedOrigin
from components.errors import PushError
from components.storage.files import read_json
from components.storage.models import LINEAGE, ModelStore
from pipelines.artifact_store import ArtifactStore
from pipelines.runs import RunRecord


def read_lineage(models: ModelStore, model_name: str, version: int | None = None) -> PushedOrigin:
    """Read the lineage of a pushed model, the newest by default.

    Raises:
        PushError: there is no such version, or it was not pushed by this pipeline.
    """
    pushed = models.versions(model_name)
    if not pushed or version not in (None, *pushed):
        found = ", ".join(map(str, pushed)) or "none"
        raise PushError(
            f"No pushed model {model_name}{f' version {version}' if version is not None else ''} in {models}; "
            f"versions there: {found}. Train one with `make train`."
        )
    shown = version or pushed[-1]
    origin = models.lineage(model_name, shown)
    if origin is None:
        path = models.path(model_name, shown)
        raise PushError(f"The model was not pushed by this pipeline: it has no {path}/{LINEAGE.as_posix()}.")
    return origin


def as_tree(model_name: str, origin: PushedOrigin) -> str:
    """Draw a pushed model's lineage, each artifact once, its inputs below it; above it the fallbacks it stands on."""
    title = f"{model_name} version {origin['version']}, pushed {origin['pushed']}"
    lines: list[str] = []
    fallbacks: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()

    def draw(node: Lineage, indent: str, is_last: bool) -> None:
        branch, below = ("└─ ", "   ") if is_last else ("├─ ", "│  ")
        identity = (node["step"], node["key"])
        if fallback := read_fallback(node):
            fallbacks[node["step"]] = fallback
        summary = {name: value for name, value in (node.get("summary") or {}).items() if name != "fallback"}
        numbers = ", ".join(f"{name} {value}" for name, value in summary.items())
        again = " (above)" if identity in seen and node.get("inputs") else ""
        line = f"{indent}{branch}{node['step']} {node['key'][:8]}{again}{'' if again else f'  {numbers}'}"
        lines.append(line.rstrip())
        if identity in seen:
            return
        seen.add(identity)
        inputs = list(node.get("inputs", {}).values())
        for number, child in enumerate(inputs):
            draw(child, indent + below, number == len(inputs) - 1)

    parts = [origin[name] for name in ("model", "evaluation", "infra_validation", "litert") if name in origin]
    for number, part in enumerate(parts):
        draw(part, "", number == len(parts) - 1)
    return "\n".join([title, *(f"FALLBACK: {step}: {reason}" for step, reason in fallbacks.items()), *lines])


def read_model_decisions(origin: PushedOrigin, store: ArtifactStore) -> list[AppliedDecision]:
    """Read which decisions of people a pushed model has learned from.

    Raises:
        PushError: the examples that it has learned from are no longer there.
    """
    examples = _find(origin["model"], "examples")
    reference: Reference = {name: examples[name] for name in Reference.__annotations__}  # type: ignore[literal-required, assignment, misc]
    artifact = store.get(reference)
    if artifact is None:
        raise PushError(
            f"The decisions lie with the examples of the model, and {store.root}/examples/{examples['key']} is not "
            "there. Give the folder of its runs: --runs-dir"
        )
    return read_applied(store.fetch(artifact).path)


def as_lines(decisions: Iterable[AppliedDecision]) -> str:
    """List decisions, a line each: the photo, the label of its source, the decided one, by whom, when and why."""
    rows = [
        (
            decision["photo"],
            f"{decision['given_label'] or 'no label'} → {decision['label'] or 'none of the classes'}",
            decision["who"],
            decision["when"],
            decision["why"],
        )
        for decision in decisions
    ]
    return _align(rows) if rows else "It has learned from no decision."


def _find(node: Lineage, step: str) -> Lineage:
    """Return the artifact of a step in the lineage of another; its own where it has none."""
    if node["step"] == step:
        return node
    found = [_find(child, step) for child in node.get("inputs", {}).values()]
    return next((child for child in found if child["step"] == step), node)


def _accuracy(run_dir: Path) -> str:
    try:
        return f"{read_json(run_dir / 'metrics.json')['accuracy']:.4f}"
    except FileNotFoundError:
        return "–"
    except (OSError, ValueError, KeyError, TypeError):
        return "damaged"


def as_table(records: Iterable[RunRecord], runs_dir: Path) -> str:
    """List runs, a line each: when, how they ended, how long they took, how accurate, on which data or fallback."""
    rows = [("run", "status", "seconds", "accuracy", "data")]
    for record in records:
        seconds = f"{record['seconds']:.0f}" if "seconds" in record else "–"
        data = record.get("config", {}).get("examples", {}).get("source", "–")
        fallbacks = f" (fallback: {', '.join(record['fallbacks'])})" if record.get("fallbacks") else ""
        rows.append((record["run"], record["status"], seconds, _accuracy(runs_dir / record["run"]), data + fallbacks))
    return _align(rows)


def _align(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
