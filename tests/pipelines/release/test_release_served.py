"""Releases in front of a real server: nothing that clients send is lost, whatever the canary does."""

import threading
from collections.abc import Iterator

import pytest

from components.artifacts.release import read_evidence, read_releases, releases_dir
from pipelines.release.models_config import read_labels
from tests.pipelines.release.site import Site, clients, open_site
from tests.pipelines.release.versions import BROKEN, CRASHING, NAME, OTHER, SAME, SLOW, write_version
from tests.serving.local_server.conftest import start_server


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    models_dir = folder / "models"
    for kind in (1, SAME, CRASHING, SLOW, OTHER):
        write_version(models_dir / NAME / str(kind), kind)
    (models_dir / NAME / str(BROKEN)).mkdir()
    (models_dir / NAME / str(BROKEN) / "saved_model.pb").write_bytes(b"none")
    config = folder / "models.config"
    config.write_text(
        f'# Ours.\nmodel_config_list {{ config {{ name: "{NAME}" base_path: "{models_dir / NAME}" '
        'model_platform: "tensorflow" model_version_policy { specific { versions: 1 } } } }'
    )
    flags = {"model_config_file": config, "model_config_file_poll_wait_seconds": 1, "max_num_load_retries": 0}
    with (
        start_server(folder / "server.log", **flags) as server,
        open_site(server.port, server.rest_port, models_dir=models_dir, config=config) as made,
    ):
        yield made


@pytest.mark.parametrize(
    ("candidate", "mode", "status", "reason"),
    [
        (CRASHING, "shadow", 3, "errors"),
        (CRASHING, "split", 3, "errors"),
        (SLOW, "shadow", 3, "latency"),
        (OTHER, "shadow", 3, "disagreement"),
        (BROKEN, "shadow", 3, "cannot load"),
        (SAME, "shadow", 0, "no test speaks against it"),
    ],
)
def test_eight_clients_lose_no_request(site: Site, candidate: int, mode: str, status: int, reason: str) -> None:
    with clients(site) as seen:
        assert site.release("--candidate", str(candidate), "--mode", mode, "--share", "0.5") == status
        after = seen.num_requests + 50
        while seen.num_requests < after and not seen.failures:
            threading.Event().wait(0.01)
    assert seen.failures == []
    folder = releases_dir(site.models_dir, NAME)
    record = read_releases(folder)[-1]
    assert reason in record["reason"]
    serving = candidate if status == 0 else 1
    assert read_labels(site.config, NAME) == {"stable": serving, "canary": serving}
    assert site.config.read_text().startswith("# Ours.\n")
    if reason in ("errors", "latency"):
        lines = read_evidence(folder, record["number"])
        assert sum(line["canary"] is not None for line in lines) <= 20
