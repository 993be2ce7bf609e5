"""The command behind `make serve`: `python -m serving` serves a pushed model in the foreground.

Exit status: 1 when there is nothing to serve or no engine, 2 for a wrong command, else the server's own.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from serving import docker, launcher
from serving.errors import ServerError
from serving.shared.folders import local_folder

_ENGINES = {"docker": f"{docker.IMAGE} in Docker", "local": "the local server"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print which engine serves, and become the server; return an exit status only where that fails."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    end = words.index("--") if "--" in words else len(words)
    options = _parser().parse_args(words[:end])
    base_path = options.models_dir / options.model_name
    if not any(path.name.isdecimal() for path in base_path.glob("*")):
        return _fail(
            f"A server needs a pushed model, and {base_path} holds no version. Run `make train` first, "
            "or name another with --model-name or --models-dir."
        )
    try:
        engine = launcher.find_engine(options.engine)
        if engine.name == "docker" and any(flag.startswith("--verify_key") for flag in words[end + 1 :]):
            return _fail(
                "--verify_key is for the local server: TensorFlow Serving does not verify signatures. Received: "
                "--verify_key with Docker. Verify before it starts, python -m pipelines verify --verify-key FILE, and "
                "leave the flag out; or choose --engine local."
            )
        command = launcher.command(
            engine=engine.name,
            model_name=options.model_name,
            base_path=base_path,
            grpc_port=options.port,
            rest_port=options.rest_api_port,
            flags=words[end + 1 :],
        )
    except ServerError as exc:
        return _fail(str(exc))
    print(
        f"Serving {base_path} with {_ENGINES[engine.name]} ({engine.reason}): "
        f"REST http://localhost:{options.rest_api_port}/v1/models/{options.model_name}, gRPC localhost:{options.port}",
        flush=True,
    )
    return docker.become(command) if engine.name == "docker" else os.execvp(command[0], command)


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serving",
        description="Serve a pushed model with TensorFlow Serving in Docker, or with the local server.",
        epilog="Whatever follows -- is handed to the server: -- --file_system_poll_wait_seconds=10",
    )
    parser.add_argument("--model-name", default="flowers", help="default: flowers")
    parser.add_argument(
        "--models-dir", type=local_folder, default=Path("models"), help="pushed models (default: models)"
    )
    parser.add_argument(
        "--engine", choices=launcher.ENGINES, default="auto", help="auto (default): Docker where an engine answers"
    )
    parser.add_argument("--port", type=int, default=8500, help="gRPC (default: 8500)")
    parser.add_argument("--rest-api-port", type=int, default=8501, help="REST (default: 8501)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
