"""`models.config` is changed for one model, and for nothing else."""

import threading
from pathlib import Path

import pytest

from components.errors import ReleaseError
from components.storage.files import file_lock
from pipelines.release.models_config import change, read_labels

TEXT = """# Kept.
model_config_list {
  config { name: "other" base_path: "/o" model_platform: "tensorflow" version_labels { key: "x" value: 9 } }
  config { name: "flowers" base_path: "/f" model_platform: "tensorflow"
    model_version_policy { latest { num_versions: 2 } }
    version_labels { key: "mine" value: 7 } logging_config { sampling_config { sampling_rate: 0.1 } } }
}
"""


def test_what_else_is_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "models.config"
    path.write_text(TEXT)
    change(path, "flowers", versions=[1, 2], labels={"stable": 1})
    text = path.read_text()
    assert text.startswith("# Kept.\n")
    assert read_labels(path, "other") == {"x": 9}
    assert read_labels(path, "flowers") == {"mine": 7, "stable": 1}
    assert "sampling_rate: 0.1" in text
    assert [f"versions: {version}" in text for version in (1, 2, 7)] == [True] * 3  # a label's version stays loaded
    assert {entry.name for entry in tmp_path.iterdir()} == {"models.config", ".models.config.lock"}


def test_changes_of_two_releases_at_once_both_stay(tmp_path: Path) -> None:
    path = tmp_path / "models.config"
    path.write_text(TEXT)
    changing = threading.Thread(target=change, args=(path, "flowers"), kwargs={"labels": {"stable": 7}})
    with file_lock(tmp_path / ".models.config.lock"):
        changing.start()
        changing.join(0.3)  # without a lock it would be done by then, and lost
        path.write_text(TEXT.replace('key: "x" value: 9', 'key: "x" value: 8'))
    changing.join()
    assert read_labels(path, "other") == {"x": 8}
    assert read_labels(path, "flowers") == {"mine": 7, "stable": 7}


@pytest.mark.parametrize("text", ["model_config_list { config { name: 3 } }", "model_config_list { }"])
def test_what_cannot_be_changed_is_left(tmp_path: Path, text: str) -> None:
    path = tmp_path / "models.config"
    path.write_text(text)
    with pytest.raises(ReleaseError):
        change(path, "flowers", versions=[1], labels={})
    assert path.read_text() == text
