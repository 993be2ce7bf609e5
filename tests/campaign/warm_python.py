"""A Python that has imported TensorFlow already: a process in milliseconds where a fresh one takes twelve seconds.

`WarmPython` keeps one process that has imported the modules and has run nothing. Each command is a fork of it, a true
process with its own working folder, output and exit status: it can be killed, and nothing of it is left for the next
one. `sys.executable` in a fork is a small program (the end of this file) that starts `-m module` in the same way, so
that the programs that the pipeline starts are warm, too.

Only for Linux. A fork of a process with threads is safe here because the kept process never runs what it imports.
"""

import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODULES = (
    "ai_edge_litert.interpreter",
    "components.bulk_inference.runner",
    "components.reporting.plots",
    "components.training.head",
    "export.litert",
    "keras",
    "pipelines.compare",
    "pipelines.kubeflow",
    "pipelines.local_runner",
    "serving.local_server.server",
    "tensorflow_serving.apis.prediction_service_pb2_grpc",
)
"""What takes long to import, beside the steps; not what is run as `__main__`."""
START_S = 120


class WarmProcess:
    """A process that was started warm, with the methods of `subprocess.Popen` that are needed."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.pid = int(_read_line(connection))
        self.returncode: int | None = None

    def wait(self) -> int:
        """Return the exit status, or the negative number of the signal that ended the process."""
        if self.returncode is None:
            self.returncode = int(_read_line(self._connection))
            self._connection.close()
        return self.returncode

    def poll(self) -> int | None:
        """Return the exit status if the process has ended."""
        if self.returncode is None and select.select([self._connection], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it has ended meanwhile
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class WarmPython:
    """Starts processes that have imported the modules; stop it in the end.

    Args:
        folder: for its socket and its program, with a short path.
    """

    def __init__(self, folder: Path) -> None:
        self._address = folder / "socket"
        self.executable = folder / "python"
        self.executable.write_text(f'#!/bin/sh\nexec "{sys.executable}" -IS "{__file__}" "{self._address}" "$@"\n')
        self.executable.chmod(0o755)
        command = [sys.executable, __file__, "--keep", str(self._address), str(self.executable)]
        self._log = folder / "log.txt"
        with self._log.open("w") as log:
            environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2"}
            self._keeper = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=environment)
        end = time.monotonic() + START_S
        while not self._address.exists():
            if self._keeper.poll() is not None or time.monotonic() > end:
                self.stop()
                raise RuntimeError(f"the modules cannot be imported: {self._log.read_text()}")
            time.sleep(0.05)

    def start(self, *arguments: str, cwd: Path = ROOT, stdout: int = 1, stderr: int = 2) -> WarmProcess:
        """Start `python -m …` with these arguments after `-m`; `stdout` and `stderr` are file descriptors."""
        with Path(os.devnull).open() as nothing:
            return _request(str(self._address), ["-m", *arguments], str(cwd), (nothing.fileno(), stdout, stderr))

    def stop(self) -> None:
        self._keeper.kill()
        self._keeper.wait()


def _request(address: str, arguments: Sequence[str], cwd: str, files: Sequence[int]) -> WarmProcess:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)
    socket.send_fds(connection, [b"!"], list(files))
    connection.sendall(json.dumps({"arguments": list(arguments), "cwd": cwd, "env": dict(os.environ)}).encode() + b"\n")
    return WarmProcess(connection)


def _keep(address: str, executable: str) -> None:
    """Import the modules, then fork for every request, for ever."""
    from pipelines.flowers import STEPS

    for module in (*MODULES, *(step.function.partition(":")[0] for step in STEPS)):
        importlib.import_module(module)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # forks are not waited for
    server = socket.socket(socket.AF_UNIX)
    server.bind(address + ".new")
    server.listen(32)
    Path(address + ".new").rename(address)
    parent = os.getpid()
    while True:
        connection, _ = server.accept()
        if os.fork():
            connection.close()
            continue
        server.close()
        _end_with(parent)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _, files, _, _ = socket.recv_fds(connection, 1, 3)
        request = json.loads(_read_line(connection))
        guard = os.getpid()
        process = os.fork()
        if process:
            for file in files:
                os.close(file)
            _guard(connection, process)
        else:
            connection.close()
            _end_with(guard)
            _become(request["arguments"], request["cwd"], request["env"], files, executable)


def _guard(connection: socket.socket, process: int) -> None:
    """Report the pid and the exit status of a process; end it when nobody waits for it any more."""
    connection.sendall(f"{process}\n".encode())
    handle = os.pidfd_open(process)
    ready, _, _ = select.select([handle, connection], [], [])
    if handle not in ready:
        os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    with suppress(BrokenPipeError):
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _become(arguments: list[str], cwd: str, env: dict[str, str], files: Sequence[int], executable: str) -> None:
    """Be the requested process: `-m module` and its arguments."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.executable = executable
    sys.argv = [arguments[1], *arguments[2:]]
    status = 1
    try:
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as exc:
        status = exc.code if isinstance(exc.code, int) else int(exc.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        import atexit

        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _end_with(parent: int) -> None:
    """End this process when its parent ends, however that ends."""
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)


def _read_line(connection: socket.socket) -> str:
    line = bytearray()
    while not line.endswith(b"\n"):
        received = connection.recv(1 << 16, socket.MSG_PEEK)  # the next line may be there already
        if not received:
            raise ConnectionError("the process is gone")
        line += connection.recv(received.find(b"\n") + 1 or len(received))
    return line.decode()


def _run(address: str, arguments: Sequence[str]) -> int:
    """Be the program at `sys.executable` of a warm process: start the same, wait for it, pass on signals."""
    process = _request(address, arguments, str(Path.cwd()), (0, 1, 2))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: process.send_signal(received))
    return process.wait()


if __name__ == "__main__":
    if sys.argv[1] == "--keep":
        _keep(sys.argv[2], sys.argv[3])
    else:
        status = _run(sys.argv[1], sys.argv[2:])
        if status < 0:
            signal.signal(-status, signal.SIG_DFL)
            os.kill(os.getpid(), -status)
        sys.exit(status)
