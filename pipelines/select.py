"""What to label next: the photos of a folder that are most worth it, by what is labelled already.

Their embeddings are made by steps, which are cached: a second look at the same folder takes seconds. What is labelled
is what the newest run has learned from, or the source that is named, under the decisions made since.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from components.artifacts.examples import IndexRow, read_examples, read_index
from components.artifacts.features import read_clean
from components.artifacts.labels import LABEL, NONE, Decision
from components.data.corrections import read_current
from components.data.duplicates import Looks, find_shadowed
from components.data.examination import Candidate, describe_looks
from components.data.sources.factory import AUTO
from components.data.sources.source import NOTHING
from components.examples import UnlabelledOptions
from components.storage.files import read_json
from components.training.novelty import check_finite
from components.training.selection import Labelled, choose
from pipelines import flowers, local_runner
from pipelines.artifact_store import Artifact
from pipelines.config import Config
from pipelines.declaration import Step
from pipelines.execution import resolve_options
from pipelines.folders import Folders

log = logging.getLogger(__name__)

LATEST = "latest_selection"
TYPICAL, UNCERTAIN = "typical", "uncertain"
_TRAIN = "train"
_FLOWERS = {step.name: step for step in flowers.STEPS}


class Selected(NamedTuple):
    """A photo: its path or URL, the SHA-256 of its file, and `typical` of others or `uncertain` to the classifier."""

    path: str
    sha256: str
    reason: str


@dataclass(frozen=True)
class SelectConfig(Config):
    """The options of the flowers pipeline, and the folder to select from."""

    unlabelled: UnlabelledOptions = field(default_factory=UnlabelledOptions)


def _features(name: str, examples: str) -> Step:
    return Step(
        name=name,
        function="components.features:extract_clean",
        inputs={"examples_dir": examples, "model_dir": "model"},
        options={"options": "features"},
        unkeyed=("options.engine", "options.beam_options"),
        incremental=("examples_dir",),
        resumable=True,
        is_spread=True,
        kind="Dataset",
    )


STEPS = (
    Step(
        name="unlabelled",
        function="components.examples:build_unlabelled",
        options={"options": "unlabelled"},
        source="components.examples:describe_unlabelled_source",
        incremental=("source", "options"),
        kind="Dataset",
    ),
    _FLOWERS["model"],
    _features("unlabelled_features", "unlabelled"),
)
SOURCE_STEPS = (_FLOWERS["examples"], _FLOWERS["model"], _features("source_features", "examples"))
"""For a source that the newest run has not learned from."""


def select(folder: str, count: int, *, config: Config, folders: Folders, model_name: str = "flowers") -> list[Selected]:
    """Select the photos of a folder to label next, the one most worth it first; no two of them look the same.

    Args:
        folder: or its URL, with photos in any depth.
        count: of photos; where fewer are left all of them are returned, and the log says so.
        config: the backbone, the source and the decisions on photos.
        folders: of the newest run, and of what is made here.
        model_name: a newest run that made a model of another name does not count.

    Raises:
        ValueError: `count` is below 1.
        ComponentError: the folder, the source or the backbone cannot be had, or no photo can be read.
        OSError: a folder cannot be written.
    """
    if count < 1:
        raise ValueError(f"count must be 1 or more. Received: {count}")
    decisions = read_current(config.examples.labels)
    config = SelectConfig(**vars(config), unlabelled=UnlabelledOptions(folder))
    with folders.in_use():
        _, made = local_runner.run(STEPS, config, folders=replace(folders, latest=LATEST))
        pool = _Photos.read(folders, made["unlabelled"], made["unlabelled_features"])
        _log_excluded(made["unlabelled"].path)
        found = _find_source(config, folders, made["model"], model_name)
        source = _Photos.read(folders, *found) if found else _Photos.none(like=pool)
    return _select(pool, source, decisions, count, max_bits=config.examples.near_duplicate_bits)


@dataclass(frozen=True)
class _Photos:
    """Examples: all rows and what they look like, and the embeddings `[N, E]` of those in the train split."""

    rows: Sequence[IndexRow]
    looks: Looks
    embeddings: NDArray[np.float32]
    class_names: Sequence[str]

    @classmethod
    def read(cls, folders: Folders, examples: Artifact, features: Artifact) -> "_Photos":
        examples_dir, features_dir = (folders.store.fetch(artifact).path for artifact in (examples, features))
        parts = [embeddings for _, embeddings, _ in read_clean(features_dir, _TRAIN)]
        embeddings = np.concatenate(parts)
        check_finite(embeddings, _TRAIN)
        embeddings /= np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-6)  # they were rounded
        rows = list(read_index(examples_dir))
        names = read_examples(examples_dir)["class_names"]
        return cls(rows, describe_looks([Candidate.from_row(row) for row in rows]), embeddings, names)

    @classmethod
    def none(cls, *, like: "_Photos") -> "_Photos":
        return cls((), describe_looks([]), like.embeddings[:0], ())


def _select(
    pool: _Photos, source: _Photos, decisions: Mapping[str, Decision], count: int, *, max_bits: int
) -> list[Selected]:
    known = {row["sha256"] for row in source.rows}
    labels: list[str | None] = []  # of each photo that is decided, by the source or by people; None for none
    for row in source.rows:
        if row["split"] == _TRAIN:
            decision = decisions.get(row["sha256"])
            is_decided = decision is not None and decision["decision"] in (LABEL, NONE)
            labels.append(decision["label"] if decision and is_decided else source.class_names[row["label"]])
    are_decided = np.array([row["sha256"] in decisions or row["sha256"] in known for row in pool.rows], bool)
    added = [i for i, row in enumerate(pool.rows) if are_decided[i] and row["sha256"] not in known]
    labels += [decisions[pool.rows[i]["sha256"]]["label"] for i in added]
    embeddings = np.concatenate([source.embeddings, pool.embeddings[added]])

    are_labelled = np.array([label is not None for label in labels], bool)
    _, targets = np.unique([label for label in labels if label is not None], return_inverse=True)
    are_shadowed = _find_look_alikes(pool, source, are_decided, max_bits)
    open_rows = np.flatnonzero(~are_decided & ~are_shadowed)
    looks = pool.looks.take(open_rows)

    def looks_like(row: int, others: Sequence[int]) -> bool:
        return bool(others) and bool(looks.are_near(np.array([[row, other] for other in others]), max_bits).any())

    choices = choose(
        pool.embeddings[open_rows],
        count,
        labelled=Labelled(embeddings[are_labelled], targets.astype(np.int64)),
        decided=embeddings[~are_labelled],
        looks_like=looks_like if max_bits else None,
    )
    log.info(
        "select: %d of %d photos, by %d labels; %d are labelled or decided, %d look like those",
        *(len(choices), len(pool.rows), are_labelled.sum(), are_decided.sum(), (are_shadowed & ~are_decided).sum()),
    )
    if len(choices) < count:
        log.warning("select: only %d photos are left to label; %d were wanted", len(choices), count)
    rows = [(pool.rows[open_rows[choice.row]], UNCERTAIN if choice.is_uncertain else TYPICAL) for choice in choices]
    return [Selected(row["filename"], row["sha256"], reason) for row, reason in rows]


def _find_look_alikes(
    pool: _Photos, source: _Photos, are_decided: NDArray[np.bool_], max_bits: int
) -> NDArray[np.bool_]:
    """Return which photos of the pool look like one that is labelled or decided: `bool [N]`."""
    are_shadowed = np.zeros(len(pool.rows), bool)
    if not max_bits:
        return are_shadowed
    looks = Looks(
        *(np.concatenate([vars(each)[name] for each in (pool.looks, source.looks)]) for name in vars(pool.looks))
    )
    ranks = np.ones(len(looks.hashes), np.intp)
    ranks[: len(pool.rows)] = are_decided
    are_shadowed[[row for row in find_shadowed(looks, ranks, max_bits=max_bits) if row < len(pool.rows)]] = True
    return are_shadowed


def _find_source(
    config: Config, folders: Folders, model: Artifact, model_name: str
) -> tuple[Artifact, Artifact] | None:
    """Return examples and features of what is labelled: the newest run's, or those of a source that is named."""
    problem, found = _find_run(config, folders, model, model_name)
    if found:
        return found
    source = config.examples.source
    if source in (AUTO, NOTHING):
        log.warning("select: %s; decisions on the photos of this folder count alone", problem)
        return None
    log.info("select: %s; labels are read from %s", problem, source)
    # Decisions lie over its labels here, so that new ones cost no new features.
    config = replace(config, examples=replace(config.examples, labels="", unlabelled=""))
    _, made = local_runner.run(SOURCE_STEPS, config, folders=replace(folders, latest=LATEST))
    return made["examples"], made["source_features"]


def _find_run(
    config: Config, folders: Folders, model: Artifact, model_name: str
) -> tuple[str, tuple[Artifact, Artifact] | None]:
    """Return the examples and the features of the newest run, or why they do not fit."""
    try:
        record = read_json(folders.fetch_newest())
        references = [record["steps"][name] for name in ("examples", "features")]
        name, source = record["config"]["export"]["model_name"], record["config"]["examples"]["source"]
    except (OSError, ValueError, KeyError, TypeError):
        return f"there is no run with features in {folders.runs}", None
    examples, features = map(folders.store.get, references)
    if not examples or not features or features.is_missing:
        return "the newest run's features are not there", None
    if name != model_name:
        return f"the newest run made {name}, not {model_name}", None
    if config.examples.source not in (AUTO, source):
        return f"the newest run learned from {source}", None
    precision = resolve_options(_FLOWERS["features"], config)["options"].precision
    is_same = features.manifest["inputs"]["model_dir"]["digest"] == model.digest
    if not (is_same and features.manifest["options"]["options"]["precision"] == precision):
        options = ("backbone", "weights", "image_size_px")
        then = " ".join(f"model.{option}={record['config']['model'][option]}" for option in options)
        return f"the newest run has another backbone or precision (--set {then})", None
    return "", (examples, features)


def _log_excluded(examples_dir: Path) -> None:
    unusable = [each for each in read_examples(examples_dir)["excluded"] if each["rule"] != "duplicate"]
    if unusable:
        first = unusable[0]
        log.warning("select: %d files cannot be read; the first: %s: %s", len(unusable), first["file"], first["reason"])
