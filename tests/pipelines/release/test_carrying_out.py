"""What a release lets the server do, in an order that TensorFlow Serving follows."""

from pathlib import Path
from typing import Any

import pytest

from components.artifacts import release as records
from pipelines.release.models_config import change
from pipelines.release.session import Session
from serving.local_server import protos
from tests.pipelines.release.test_session import record

NEWEST = 2
CONFIG = 'model_config_list {{ config {{ name: "flowers" base_path: "/m" model_platform: "tensorflow" {} }} }}'


class PollingServer:
    """Has what `models.config` names; without a policy the newest version, and no label of what it does not have."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def poll(self) -> tuple[list[int], dict[str, int]]:
        (model,) = protos.read(self._path, protos.ModelServerConfig).model_config_list.config
        loaded = list(model.model_version_policy.specific.versions) or [NEWEST]
        labels = dict(model.version_labels)
        assert {*labels.values()} <= {*loaded}, "TensorFlow Serving refuses the file"
        return loaded, labels

    def wait_for_version(self, version: int) -> str:
        assert version in self.poll()[0]
        return ""

    def wait_for_label(self, label: str, version: int) -> None:
        assert self.poll()[1][label] == version


@pytest.mark.parametrize("policy", ["", "model_version_policy { specific { versions: 1 } }"])
@pytest.mark.parametrize(
    ("decision", "is_installed", "expected"),
    [("promote", True, [1, 2]), ("promote", False, [1, 2]), ("roll back", True, [1]), ("roll back", False, [1])],
)
def test_server_follows_from_any_policy(
    tmp_path: Path, policy: str, decision: str, is_installed: bool, expected: list[int]
) -> None:
    config = tmp_path / "models.config"
    config.write_text(CONFIG.format(policy))
    folder = records.releases_dir(tmp_path, "flowers")
    server: Any = PollingServer(config)
    held = Session(folder, record(folder), config_path=config, server=server)
    if is_installed:
        held.install()
        assert server.poll() == ([1, 2], {"stable": 1, "canary": 2})
    held.decide(decision, who="me", reason="")
    held.carry_out()
    serving = 2 if decision == "promote" else 1
    assert server.poll() == (expected, {"stable": serving, "canary": serving})


@pytest.mark.parametrize("decision", ["promote", "roll back"])
def test_version_that_somebody_else_let_serve_stays(tmp_path: Path, decision: str) -> None:
    config = tmp_path / "models.config"
    config.write_text(CONFIG.format(""))
    folder = records.releases_dir(tmp_path, "flowers")
    server: Any = PollingServer(config)
    held = Session(folder, record(folder), config_path=config, server=server)
    held.install()
    change(config, "flowers", versions=[1, 2, 3], labels={"stable": 3})
    before = config.read_text()
    held.decide(decision, who="tests", reason="some")
    held.carry_out()
    assert config.read_text() == before
    found = records.read_releases(folder)[0]
    assert (found["status"], "version 3" in found["reason"]) == (records.STOPPED, True)
