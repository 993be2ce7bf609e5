"""Which edits make `features` and `trainer`, the expensive steps, run again: only those of code that they use."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines import fingerprint, flowers

EXPENSIVE = [step for step in flowers.STEPS if step.name in ("features", "trainer")]
BOTH, TRAINER, NEITHER = {"features", "trainer"}, {"trainer"}, set[str]()


def digests() -> dict[str, str]:
    fingerprint.of_code.cache_clear()
    return {step.name: fingerprint.of_code(step.function.partition(":")[0], *step.programs) for step in EXPENSIVE}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the code, which is what fingerprints are of."""
    folder = tmp_path_factory.mktemp("tree")
    for package in ("components", "export"):
        shutil.copytree(fingerprint.ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fingerprint, "ROOT", folder)
        yield folder
    fingerprint.of_code.cache_clear()


@pytest.fixture(scope="module")
def before(tree: Path) -> dict[str, str]:
    return digests()


@pytest.mark.parametrize(
    ("edited", "but", "changed"),
    [
        ("export/preprocessing.py", "", BOTH),
        ("components/data/transform.py", "", BOTH),
        ("components/data/augmentation.py", "", BOTH),
        ("components/training/backbones.py", "", BOTH),
        ("components/training/networks.py", "", BOTH),
        ("components/training/extraction.py", "", {"features"}),
        ("components/training/batches.py", "", TRAINER),
        ("components/training/head.py", "", TRAINER),
        ("components/training/fitting.py", "", TRAINER),
        ("components/training/rows.py", "", TRAINER),
        ("components/training/teacher.py", "", TRAINER),
        ("components/training/replicas.py", "", TRAINER),
        ("components/artifacts/suspects.py", "", TRAINER),
        ("components/training/label_errors.py", "", NEITHER),
        ("components/training/learning_curve.py", "", NEITHER),
        # Sources, drawn flowers, duplicates, Beam …
        ("components/data/**/*.py", "transform augmentation __init__", NEITHER),
        # … buckets, the cache, pushed models …
        ("components/storage/**/*.py", "files __init__", NEITHER),
        (
            "components/artifacts/*.py",
            "backbone examples features learned_photos summary suspects training __init__",
            NEITHER,
        ),
        ("components/bulk_inference/**/*.py", "", NEITHER),
        ("components/monitoring/*.py", "", NEITHER),
        ("components/reporting/**/*.py", "", NEITHER),
        ("components/monitoring/**/*.py", "", NEITHER),
        ("components/training/cluster.py", "", NEITHER),
        ("components/training/worker.py", "", NEITHER),
        ("components/training/worker_process.py", "", NEITHER),
        ("components/training/weights.py", "", NEITHER),
        # … and all other steps.
        ("components/*.py", "features trainer errors options progress __init__", NEITHER),
    ],
    ids=lambda value: value if "/" in value else "",
)
def test_edit_changes_the_keys_of_the_steps_whose_output_it_may_change(
    tree: Path, before: dict[str, str], edited: str, but: str, changed: set[str]
) -> None:
    originals = {path: path.read_text() for path in tree.glob(edited) if path.stem not in but.split()}
    assert originals
    for path, text in originals.items():
        path.write_text(f"{text}\nEDITED = True\n")
    after = digests()
    for path, text in originals.items():
        path.write_text(text)
    assert {name for name, digest in after.items() if digest != before[name]} == changed
