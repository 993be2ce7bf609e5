"""A project of serving/compose.yaml that runs: a copy of it, with models, ports and a name of its own."""

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from components.storage.models import ModelStore
from components.storage.store import open_store
from tests.containers.docker import ROOT, docker

# As promised on a machine that is free; where others work, too, it takes as much longer.
UP_S = 60 * max(1, round(os.getloadavg()[0] / (os.cpu_count() or 1)))
DOWN_S = 15
CALL_S = 30
WAIT_S = 60

# Upstream's image has the folder of the volume, and it is nobody's there; in a stand-in it may be missing.
_VOLUME = 'volumes: { prometheus: { driver_opts: { type: tmpfs, device: tmpfs, o: "uid=65534,gid=65534" } } }'


@dataclass
class Project:
    """A project, and how it is reached."""

    name: str
    folder: Path
    ports: dict[str, int]

    @property
    def models_config(self) -> Path:
        return self.folder / "serving" / "config" / "models.config"

    def compose(self, *arguments: str, timeout_s: float = 120) -> str:
        """Run `docker compose` for this project and return what it prints; an error has what it said."""
        files = ("-f", "serving/compose.yaml", "-f", "volume.yaml")
        done = subprocess.run(
            ["docker", "compose", "-p", self.name, *files, *arguments],
            cwd=self.folder,
            env={**os.environ, **{f"{name}_PORT": str(port) for name, port in self.ports.items()}},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0, f"docker compose {' '.join(arguments)}\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    def state(self, service: str) -> Any:
        """Return what the engine knows of the container of a service."""
        return json.loads(docker("container", "inspect", f"{self.name}-{service}-1"))[0]

    def request(self, method: str, port: str, path: str, **options: Any) -> requests.Response:
        """Send a request to a port that is published on this machine, by its name."""
        with requests.Session() as session:
            session.trust_env = False
            return session.request(method, f"http://127.0.0.1:{self.ports[port]}{path}", timeout=CALL_S, **options)

    def classify(self, *, image: bytes, label: str = "") -> tuple[int, Any]:
        """Classify an image with the server, over REST; return the status and the JSON."""
        of_label = f"/labels/{label}" if label else ""
        body = {"instances": [{"b64": base64.b64encode(image).decode()}], "signature_name": "serving_default"}
        response = self.request("POST", "REST", f"/v1/models/flowers{of_label}:predict", json=body)
        return response.status_code, response.json()

    def versions(self) -> dict[int, str]:
        """Return the state of each version that the server knows."""
        response = self.request("GET", "REST", "/v1/models/flowers")
        return {int(each["version"]): each["state"] for each in response.json()["model_version_status"]}

    def query(self, expression: str) -> list[Any]:
        """Return Prometheus' result of an expression.

        Raises:
            AssertionError: it is refused.
        """
        response = self.request("GET", "PROMETHEUS", "/api/v1/query", params={"query": expression})
        assert response.status_code == 200, f"{expression}\n{response.text}"
        return response.json()["data"]["result"]

    def push(self, version: int, content: Path) -> None:
        """Publish a SavedModel by the store's rename, as the pusher does."""
        models = ModelStore(open_store(self.folder / "models"))
        with models.lock(), models.staged("flowers", version) as staging:
            shutil.copytree(content, staging, dirs_exist_ok=True)


def wait_until(condition: Callable[[], bool], *, timeout_s: float = WAIT_S) -> None:
    """Return when a condition holds; fail when it does not in time. A server that is not up yet fulfils none."""
    end = time.monotonic() + timeout_s
    while True:
        try:
            if condition():
                return
        except (requests.RequestException, KeyError):
            pass
        assert time.monotonic() < end, "what is waited for does not happen"
        time.sleep(0.2)


@contextmanager
def project(folder: Path, name: str, ports: dict[str, int], export_dir: Path) -> Iterator[Project]:
    """Lay a project out, with version 1; what it started is gone after the block."""
    shutil.copytree(ROOT / "serving", folder / "serving", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "volume.yaml").write_text(_VOLUME)
    made = Project(name, folder, ports)
    made.push(1, export_dir)
    try:
        yield made
    finally:
        made.compose("down", "--volumes", "--remove-orphans")
