"""An artifact is complete and intact, or it is not found."""

import hashlib
import json
from pathlib import Path

import pytest

from components.artifacts.manifest import trace
from components.storage.files import read_json
from pipelines import artifact_store
from pipelines.artifact_store import Artifact, ArtifactStore


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "artifacts")


def publish(store: ArtifactStore, *, content: str = "text", key: str = "abc", created: str = "2026-01-01") -> Artifact:
    partial = store.start("read", key, keep=False)
    (partial / "sub").mkdir()
    (partial / "sub" / "text.txt").write_text(content)
    (partial / "logs").mkdir()
    (partial / "logs" / "clock.txt").write_text(created)
    return store.publish(partial, {"step": "read", "key": key, "created": created, "inputs": {}})


def test_an_artifact_appears_complete_by_a_rename(store, monkeypatch):
    seen = []
    rename = Path.rename

    def look_then_rename(path: Path, target: Path) -> Path:
        seen.append((sorted(p.name for p in path.iterdir()), target.exists(), store.find("read", "abc")))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", look_then_rename)
    artifact = publish(store)
    assert seen == [(["logs", "manifest.json", "sub"], False, None)]
    assert store.find("read", "abc") == artifact
    assert not list(store.root.glob("*/*.partial"))


def test_the_manifest_has_the_size_and_hash_of_every_file(store):
    artifact = publish(store, content="a rose")
    assert artifact.manifest["files"]["sub/text.txt"] == {
        "size": 6,
        "sha256": hashlib.sha256(b"a rose").hexdigest(),
    }
    assert set(artifact.manifest["files"]) == {"sub/text.txt", "logs/clock.txt"}
    assert artifact.manifest == read_json(artifact.path / "manifest.json")
    assert artifact.reference == {"step": "read", "key": "abc", "digest": artifact.digest}
    assert store.get(artifact.reference) == artifact


def test_logs_are_kept_but_are_not_content(store):
    first = publish(store, created="2026-01-01")
    second = publish(store, key="def", created="2026-01-02")
    other = publish(store, key="ghi", content="other")
    assert (second.path / "logs" / "clock.txt").read_text() == "2026-01-02"
    assert first.digest == second.digest != other.digest


def test_the_name_of_a_file_is_content(store):
    partial = store.start("read", "def", keep=False)
    (partial / "renamed.txt").write_text("text")
    renamed = store.publish(partial, {"step": "read", "key": "def", "created": ""})
    assert renamed.digest != publish(store).digest


@pytest.mark.parametrize("damage", ["missing", "shorter", "longer"])
def test_a_damaged_artifact_is_not_found(store, damage):
    artifact = publish(store)
    file = artifact.path / "sub" / "text.txt"
    file.unlink() if damage == "missing" else file.write_text({"shorter": "t", "longer": "text text"}[damage])
    assert store.find("read", "abc") is None
    assert store.get(artifact.reference) is None


@pytest.mark.parametrize("manifest", [None, "", '{"step": "read"', "{}", "[]", "null"])
def test_a_folder_without_a_readable_manifest_is_no_artifact(store, manifest):
    artifact = publish(store)
    path = artifact.path / "manifest.json"
    path.unlink() if manifest is None else path.write_text(manifest)
    assert store.find("read", "abc") is None
    assert store.newest("read") is None
    assert store.get(artifact.reference) is None


def test_what_is_damaged_is_made_again_beside_it(store):
    damaged = publish(store)
    (damaged.path / "sub" / "text.txt").unlink()
    healed = publish(store)
    assert healed.path != damaged.path
    assert store.find("read", "abc") == healed
    assert not (damaged.path / "sub" / "text.txt").exists()


def test_other_content_under_the_same_key_is_added_and_nothing_replaced(store):
    first = publish(store, content="first")
    second = publish(store, content="second", created="2026-01-02")
    third = publish(store, content="third", created="2026-01-03")
    assert [a.path.name for a in (first, second, third)] == ["abc", "abc-2", "abc-3"]
    assert (first.path / "sub" / "text.txt").read_text() == "first"
    assert store.find("read", "abc") == third
    assert store.get(second.reference) == second


def test_the_same_content_is_the_artifact_that_is_there(store):
    first = publish(store)
    again = publish(store, created="2026-01-02")
    assert again == first
    assert [p.name for p in store.root.glob("read/*")] == ["abc"]


def test_a_new_attempt_begins_in_an_empty_folder_unless_the_killed_one_is_kept(store):
    (store.start("read", "abc", keep=False) / "half").touch()
    assert [p.name for p in store.start("read", "abc", keep=True).iterdir()] == ["half"]
    assert not list(store.start("read", "abc", keep=False).iterdir())


def test_an_incomplete_write_of_the_killed_attempt_is_not_kept(store):
    partial = store.start("read", "abc", keep=False)
    (partial / "sub").mkdir()
    (partial / "sub" / ".text.json.4711.tmp").write_text('{"half":')
    (partial / "text.txt").write_text("text")
    partial = store.start("read", "abc", keep=True)
    assert set(store.publish(partial, {"step": "read", "key": "abc", "created": ""}).manifest["files"]) == {"text.txt"}


@pytest.mark.parametrize("moment", ["of_file", "write_manifest", "rename"])
def test_nothing_incomplete_is_ever_found(store, monkeypatch, moment):
    class KilledError(BaseException):
        pass

    def kill(*arguments: object) -> None:
        raise KilledError

    owner = {"of_file": artifact_store.fingerprint, "write_manifest": artifact_store, "rename": Path}[moment]
    with monkeypatch.context() as patch:
        patch.setattr(owner, moment, kill)
        with pytest.raises(KilledError):
            publish(store)
    assert store.find("read", "abc") is None
    assert store.newest("read") is None
    assert [p.name for p in store.root.glob("read/*")] == ["abc.partial"]
    # The manifest that an attempt killed before the rename wrote is not content of the next.
    again = store.publish(
        store.start("read", "abc", keep=True), {"step": "read", "key": "abc", "created": "2026-01-01"}
    )
    assert again.digest == publish(store, key="def").digest


def test_the_newest_artifact_of_a_step_is_the_last_made_of_any_key(store):
    publish(store, key="fff", created="2026-01-01T10:00:00+0000")
    last = publish(store, key="aaa", created="2026-01-01T10:00:01+0000")
    assert store.newest("read") == last
    assert store.newest("count") is None


def test_a_manifest_is_json_that_people_can_read(store):
    text = (publish(store).path / "manifest.json").read_text()
    assert text == json.dumps(json.loads(text), indent=2) + "\n"


def damage(path: Path) -> None:
    path.write_bytes(b"X" + path.read_bytes()[1:])


def test_damage_of_equal_size_is_found_by_the_digest_and_is_damage_for_all_from_then_on(store):
    artifact = publish(store)
    assert store.verify(artifact)
    damage(artifact.path / "sub" / "text.txt")
    assert store.find("read", "abc") == artifact
    assert not store.verify(artifact)
    assert store.find("read", "abc") is None
    assert store.get(artifact.reference) is None


def test_the_same_content_replaces_a_damaged_artifact(store):
    damaged = publish(store)
    damage(damaged.path / "sub" / "text.txt")
    again = publish(store)
    assert again.digest == damaged.digest
    assert store.find("read", "abc") == again != damaged


def test_a_file_is_digested_once_in_a_process_as_long_as_it_does_not_change(store, monkeypatch):
    artifact = publish(store)
    assert store.verify(artifact)
    with monkeypatch.context() as patch:
        patch.setattr(artifact_store.fingerprint, "of_file", lambda path: pytest.fail("digested again"))
        assert store.verify(artifact)
    (artifact.path / "sub" / "text.txt").write_text("TEXT")
    assert not store.verify(artifact)


def test_the_lineage_goes_on_through_what_was_made_again(store):
    first = publish(store)
    partial = store.start("count", "fed", keep=False)
    inputs = {"text_dir": first.reference}
    counted = store.publish(partial, {"step": "count", "key": "fed", "created": "", "inputs": inputs})
    (first.path / "manifest.json").write_text('{"step": ')
    assert trace(counted.path)["inputs"] == {"text_dir": first.reference}
    again = publish(store)
    assert again.path != first.path
    assert trace(counted.path)["inputs"]["text_dir"]["created"] == again.manifest["created"]
