"""A `docker` and a local server that are fakes, for the tests of what starts them."""

import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from serving import launcher

FAKE = '''
"""Stands for `docker` and for the local server: records its calls and serves the status of a model."""
import json, os, signal, sys, time
from pathlib import Path

folder, mode, arguments = Path(__file__).parent, os.environ.get("FAKE_MODE", "available"), sys.argv[1:]

def note(**entry):
    with (folder / "journal.jsonl").open("a") as journal:
        journal.write(json.dumps(entry) + "\\n")

note(arguments=arguments, process=os.getpid())
if arguments[0] == "info":
    time.sleep(60 if mode == "silent engine" else 0)
    sys.exit(mode == "no engine")
if arguments[0] == "context":
    print(os.environ.get("FAKE_HOST", "unix:///var/run/docker.sock"))
    sys.exit()
if arguments[0] in ("image", "pull"):
    print("no such image", file=sys.stderr)
    sys.exit(mode == "no image" or mode == "old image" and arguments[0] == "image")
if arguments[0] == "stop":
    os.kill(int((folder / arguments[-1]).read_text()), signal.SIGTERM)
    sys.exit()
if arguments[0] == "run":
    (folder / arguments[arguments.index("--name") + 1]).write_text(str(os.getpid()))
    port = next(a.split(":")[1] for a in arguments if a.endswith(":8501"))
else:
    port = next(a.split("=")[1] for a in arguments if a.startswith("--rest_api_port="))

print("starting", flush=True)
if mode == "ends":
    print("no model there", flush=True)
    sys.exit(3)
if mode == "hangs":
    time.sleep(60)
if mode == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
import http.server

states = ["START", "LOADING", "END" if mode == "fails" else "AVAILABLE"]

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        state = states.pop(0) if len(states) > 1 else states[0]
        error = "no such op: Sing" if state == "END" else ""
        version = {"version": "1", "state": state, "status": {"error_code": "OK", "error_message": error}}
        status = {"model_version_status": [version]} if "flowers" in self.path else {"error": "no such model"}
        content = json.dumps(status).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

http.server.HTTPServer(("127.0.0.1", int(port)), Handler).serve_forever()
'''


class Engines:
    """A `docker` and a local server that are fakes, and their calls."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "fake.py").write_text(FAKE)
        for name in ("docker", "python"):
            (folder / name).write_text(f'#!/bin/sh\nexec {sys.executable} -S {folder}/fake.py "$@"\n')
            (folder / name).chmod(0o755)
        self.models = folder / "models" / "flowers"
        self.models.mkdir(parents=True)
        self.log = folder / "server.log"

    def serve(self, **options: Any) -> Any:
        defaults = {"model_name": "flowers", "base_path": self.models, "log_path": self.log, "engine": "local"}
        return launcher.serve(**{**defaults, **options})

    def calls(self) -> list[list[str]]:
        return [entry["arguments"] for entry in self._journal()]

    def processes(self) -> list[int]:
        """Return every process that was started and still runs."""
        return [entry["process"] for entry in self._journal() if is_alive(entry["process"])]

    def _journal(self) -> list[dict[str, Any]]:
        path = self.folder / "journal.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def is_alive(process: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(process, 0)
        return True
    return False


@pytest.fixture
def engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engines:
    fakes = Engines(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    return fakes


@pytest.fixture
def mode(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    return partial(monkeypatch.setenv, "FAKE_MODE")
