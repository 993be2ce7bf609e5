"""TensorFlow Serving in a Docker container: whether that can run here, and the command that does.

A container belongs to the engine and not to the client that starts it: killed with SIGKILL, `docker run` leaves it
running. So the container reads the client's standard input, which ends however the client ends, and then stops itself.
"""

import logging
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

from serving.errors import ServerError

log = logging.getLogger(__name__)

IMAGE = "tensorflow/serving:2.21.0"
HOST = "127.0.0.1"

_FIND_ENGINE_S = 5
_INSPECT_S = 60
_PULL_S = 900
_NOBODY = 65534

# The server takes this shell's process; what stays behind reads until the client is gone, then ends the server.
_UNTIL_THE_CLIENT_ENDS = (
    'exec 3<&0; (cat <&3 >/dev/null; kill $$; sleep 15; kill -KILL $$) & exec "$0" "$@" 3<&- </dev/null'
)


def responds() -> bool:
    """Return whether a Docker engine responds."""
    try:
        done = subprocess.run(["docker", "info"], capture_output=True, timeout=_FIND_ENGINE_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def prepare() -> None:
    """Check that the engine is on this machine, and pull the image where it is missing.

    Raises:
        ServerError: the engine is on another machine, or the image is missing and cannot be pulled.
    """
    host = _run("context", "inspect", "--format", "{{.Endpoints.docker.Host}}").stdout.strip()
    if not _is_here(host):
        raise ServerError(
            "The engine docker mounts folders of this machine and opens ports on it, so the Docker engine must run on "
            f"this machine. Received: {host}. Unset DOCKER_HOST or choose another `docker context`, or choose the "
            "engine local."
        )
    if _run("image", "inspect", IMAGE).returncode == 0:
        return
    log.info("pulling the image %s, which is missing here", IMAGE)
    try:
        # Its progress is for whoever waits.
        pull = ["docker", "pull", "--platform", "linux/amd64", IMAGE]
        subprocess.run(pull, stdout=2, stderr=subprocess.PIPE, text=True, timeout=_PULL_S, check=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as exc:
        raise ServerError(
            f"The engine docker needs the image {IMAGE}, and it cannot be pulled "
            f"({str(exc.stderr or exc).strip()}). Connect to the registry, or choose the engine local."
        ) from exc


def run_command(container: str, mounts: Mapping[Path, str], ports: Mapping[int, int]) -> list[str]:
    """Return the command that starts the model server in a container with as few rights as possible.

    The container ends when the command's standard input does.

    Args:
        container: its name.
        mounts: the path inside, by the folder of this machine that is seen there, read-only.
        ports: the port inside, by the port of this machine.

    Raises:
        ServerError: root starts it, and not everybody may read what is mounted.
    """
    for folder in mounts:
        _check_readable(folder)
    return [
        *("docker", "run", "--rm", "--interactive", "--name", container),
        # The image is built for x86-64 only; an ARM machine emulates it.
        *("--platform", "linux/amd64"),
        # TensorFlow Serving handles no signal, so as process 1 it would ignore SIGTERM; a small init passes it on.
        *("--init", "--entrypoint", "sh"),
        # Whoever may read the models outside may read them inside; root becomes nobody.
        *("--user", f"{os.getuid() or _NOBODY}:{os.getgid() or _NOBODY}"),
        *("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
        *(word for outer, inner in ports.items() for word in ("--publish", f"{HOST}:{outer}:{inner}")),
        # With `--volume` the engine would make a folder that it does not find, and mount it empty.
        *(word for outer, inner in mounts.items() for word in ("--mount", _mount(outer, inner))),
        *(IMAGE, "-c", _UNTIL_THE_CLIENT_ENDS, "tensorflow_model_server"),
    ]


def stop(container: str, timeout_s: int) -> None:
    """End a container, if it is there: terminate, wait, kill; give up where the engine does not respond."""
    command = ["docker", "stop", "--time", str(timeout_s), container]
    try:
        subprocess.run(command, capture_output=True, timeout=2 * timeout_s, check=False)
    except subprocess.TimeoutExpired:
        log.warning("the Docker engine does not respond to %s", " ".join(command))


def become(command: list[str]) -> NoReturn:
    """Become the client, with a standard input that ends when this process does, and not before."""
    read_end, write_end = os.pipe()
    os.dup2(read_end, 0)
    os.set_inheritable(write_end, True)
    os.execvp(command[0], command)


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=_INSPECT_S, check=False)
    except subprocess.TimeoutExpired as exc:
        raise ServerError(
            f"The Docker engine must respond within {_INSPECT_S} s. Received: no response to "
            f"`docker {' '.join(arguments)}`. Restart it, or choose the engine local."
        ) from exc


def _is_here(host: str) -> bool:
    """Return whether an address of an engine is of this machine; one that is not known is believed to be."""
    parts = urlsplit(host)
    return parts.scheme in ("", "unix", "npipe", "fd") or parts.hostname in ("localhost", HOST, "::1")


def _check_readable(folder: Path) -> None:
    """Check what the server would only log as missing: that it may read a folder and what is in it."""
    if os.getuid() != 0:
        return
    for path in (folder, *folder.glob("[!.]*")):
        needed = 0o5 if path.is_dir() else 0o4
        if path.exists() and path.stat().st_uid != _NOBODY and path.stat().st_mode & needed != needed:
            raise ServerError(
                f"A server in Docker that root starts runs as nobody, so everybody must be able to read {folder}. "
                f"Received: {path} with mode {path.stat().st_mode & 0o777:o}. Run: chmod -R a+rX {folder}"
            )


def _mount(outer: Path, inner: str) -> str:
    """Return a mount as a row of CSV, which is what `--mount` reads: a path may hold a comma."""
    source = str(outer).replace('"', '""')
    return f'type=bind,"source={source}",target={inner},readonly'
