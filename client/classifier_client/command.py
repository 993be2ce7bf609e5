"""The command: images named on the command line in, a table or JSON lines out, and one line for any failure."""

import argparse
import glob
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TextIO

from .client import Client
from .decoding import READABLE, SUFFIXES
from .errors import ClassifierError, DeadlineError, UnavailableError
from .printing import REFUSED, print_json, print_table, show_progress, to_text
from .transports import Transport
from .transports.connection import TOKEN_VARIABLE, ConnectionOptions

if TYPE_CHECKING:
    from .signing import VerifyKey

OK, SOME_UNREADABLE, WRONG_USE, NO_RESPONSE, UNUSABLE, INTERRUPTED = 0, 1, 2, 3, 4, 130

_DESCRIPTION = f"""\
Classify images with a model that is served, or with one in a LiteRT file.

A model that knows its limits also tells how strange an image is: of the photos
that it knows, a share of p looks so unlike the others. Where that is small,
"{REFUSED}" stands before the most probable class. Where it takes more than
one class to hold the truth with 95 %, they are the set at the end of the row.
"""
_EPILOG = f"""\
{TOKEN_VARIABLE} in the environment is sent along as a bearer token.

exit status:
  0    every image was classified, also where it looks like none of the classes
  1    some images cannot be read; all others were classified
  2    the command line, or the environment, is wrong
  3    the server cannot be reached, or does not respond in time
  4    the server refuses, has no such model, or is none; the model's file or a library cannot be used; a full disk
  130  interrupted
"""


def main(arguments: Sequence[str] | None = None, *, samples_dir: Path) -> int:
    """Run the command.

    Args:
        arguments: the command line, without the command.
        samples_dir: the images to classify where none is named.

    Returns:
        The exit status.

    Raises:
        SystemExit: the command line is wrong, or has `--help`.
    """
    # gRPC would log a failed connection, which our own line reports.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    if sys.stderr is None:  # Whoever called closed it.
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # A file's name may be no text.
    parser = _make_parser()
    options = parser.parse_args(arguments)
    try:
        if sys.stdout is None:
            raise ValueError("Standard output must be open. It is closed. Send it to a file, or to /dev/null.")
        images = [image for name in options.images or [str(samples_dir)] for image in expand(name)]
        with Client(_open_transport(options)) as client:
            results = show_progress(client.classify(images), len(images), sys.stderr)
            if options.json:
                is_readable = print_json(results, options.top_k)
            else:
                image_chars = max((len(to_text(image)) for image in images if isinstance(image, str)), default=0)
                is_readable = print_table(results, options.top_k, image_chars)
        sys.stdout.flush()
    except ValueError as exc:
        return _complain(parser.prog, exc, WRONG_USE)
    except ClassifierError as exc:
        return _complain(
            parser.prog, exc, NO_RESPONSE if isinstance(exc, UnavailableError | DeadlineError) else UNUSABLE
        )
    except KeyboardInterrupt:
        return _complain(parser.prog, "interrupted", INTERRUPTED)
    except BrokenPipeError:
        _discard(sys.stdout)  # The reader has closed the pipe.
        return OK
    except OSError as exc:
        _discard(sys.stdout)
        return _complain(parser.prog, f"the results cannot be written ({exc.strerror or exc})", UNUSABLE)
    return OK if is_readable else SOME_UNREADABLE


def _complain(program: str, reason: object, status: int) -> int:
    """Print one line, if that is possible; return the status."""
    try:
        print(f"{program}: {to_text(str(reason))}", file=sys.stderr, flush=True)
    except OSError:
        _discard(sys.stderr)
    return status


def _discard(stream: TextIO) -> None:
    """Send what a stream still holds to nowhere: writing it at the end of the process must not fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def expand(name: str) -> Iterator[str | BinaryIO]:
    """Yield the images that an argument means: a file, those in a folder or of a pattern, or stdin.

    A folder that cannot be read is yielded too: it becomes an error at its position. Devices and pipes are left out.

    Raises:
        ValueError: the folder holds no image, nothing matches the pattern, or stdin is closed.
    """
    # Those of os.path take a name of any length.
    if name == "-":
        if sys.stdin is None:
            raise ValueError("Standard input must be open for the image -. It is closed. Send an image to it.")
        yield sys.stdin.buffer
    elif os.path.isdir(name):  # noqa: PTH112
        found = _find_images(name)
        if not found:
            raise ValueError(f"A folder must hold images ({READABLE}). There are none in {name}.")
        yield from found
    elif glob.has_magic(name) and not os.path.exists(name):  # noqa: PTH110
        found = sorted(glob.glob(name, recursive=True))  # noqa: PTH207 (Path's takes no absolute patterns)
        if not found:
            raise ValueError(f"A pattern must match something. Nothing is there that matches {name}.")
        for match in found:
            yield from expand(match)
    else:
        yield name


def _find_images(folder: str) -> list[str]:
    """Return the paths of the images in a folder and below, and of the folders that cannot be read, sorted."""
    unreadable: list[str] = []
    found = [
        str(Path(parent, name))
        for parent, _, names in os.walk(folder, onerror=lambda exc: unreadable.append(str(exc.filename)))
        for name in names
        if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".") and not _is_special(Path(parent, name))
    ]
    return sorted(found + unreadable)


def _is_special(path: Path) -> bool:
    """Return whether a path is a device, a pipe or a socket: to open one may wait for ever."""
    try:
        mode = path.stat().st_mode
    except OSError:  # Whoever reads it says why.
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="predict.py",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    transport = parser.add_mutually_exclusive_group()
    transport.add_argument("--rest", action="store_true", help="call a server over REST (the default)")
    transport.add_argument("--grpc", action="store_true", help="call a server over gRPC")
    transport.add_argument("--tflite", metavar="FILE", help="run a LiteRT file here")
    parser.add_argument(
        "--target", metavar="HOST:PORT", help="the server (default: localhost:8501 for REST, :8500 for gRPC)"
    )
    parser.add_argument("--model", metavar="NAME", help="the model's name on the server (default: flowers)")
    parser.add_argument("--top-k", metavar="N", type=_positive, help="show the N most probable classes")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    parser.add_argument(
        "--timeout", metavar="S", type=float, help="seconds for each attempt of a request (default: 10)"
    )
    parser.add_argument("--tls", action="store_true", help="speak TLS")
    parser.add_argument(
        "--ca-file", metavar="FILE", type=Path, help="PEM certificates that vouch for the server; implies --tls"
    )
    parser.add_argument(
        "--verify-key",
        metavar="FILE",
        type=Path,
        help="PEM public key or root certificate: refuse a LiteRT file that is not signed with it",
    )
    parser.add_argument(
        "images", metavar="IMAGE", nargs="*", help="a file, a folder, a pattern, or - for stdin (default: the samples)"
    )
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a number from 1. Received: {text!r}")
    return min(int(text), sys.maxsize)


def _open_transport(options: argparse.Namespace) -> Transport:
    given = {name: getattr(options, name) for name in ("target", "model") if getattr(options, name)}
    connection = {"timeout_s": options.timeout, "ca_file": options.ca_file, "token": os.environ.get(TOKEN_VARIABLE)}
    connection = {name: value for name, value in connection.items() if value is not None}
    if options.tflite:
        if given or options.tls or options.ca_file or options.timeout is not None:
            raise ValueError(
                "--target, --model, --timeout, --tls and --ca-file are for a server, --tflite is without one."
            )
        from . import LiteRTTransport

        return LiteRTTransport(options.tflite, verify_key=_read_verify_key(options.verify_key))
    if options.verify_key:
        raise ValueError("--verify-key is for --tflite: what a server serves is verified by the server.")
    server = ConnectionOptions(**connection, tls=options.tls or options.ca_file is not None)
    if options.grpc:
        from . import GrpcTransport

        return GrpcTransport(**given, options=server)
    from . import RestTransport

    return RestTransport(**given, options=server)


def _read_verify_key(path: Path | None) -> "VerifyKey | None":
    if path is None:
        return None
    from .signing import read_verify_key

    return read_verify_key(path)
