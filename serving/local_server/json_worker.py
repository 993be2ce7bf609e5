"""The process that reads large JSON bodies: `python -m serving.local_server.json_worker SOCKET`.

A thread that parses megabytes lets no other thread of Python run, so the server leaves them to this process. From a
socket that it inherits it reads the bytes of a body, then what is wanted of it; it writes the parts of a reply and
`END`, or an error. It ends with the server, whichever way that ends: then the socket has no other end.
"""

import gc
import logging
import sys
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from serving.local_server import json_requests
from serving.local_server.errors import Code, StatusError

log = logging.getLogger(__name__)

PART, END, ERROR = "part", "end", "error"
SIGNATURE_NAME, INPUTS, EXAMPLES, DONE = "signature_name", "inputs", "examples", "done"
# The server takes one part after the other, and other work in between.
_MAX_VALUES_AT_ONCE, _MAX_NUMBERS_AT_ONCE, _MAX_BYTES_AT_ONCE = 10_000, 500_000, 1 << 20


class Info(NamedTuple):
    """What an input must be: the number of its type in types.proto."""

    dtype: int


def main() -> None:
    # What a document consists of is freed with it, and walking through millions of lists takes seconds.
    gc.disable()
    connection = Connection(int(sys.argv[1]))
    try:
        while True:
            _read(connection)
    except (EOFError, OSError):
        pass  # the server has ended


def _read(connection: Any) -> None:
    """Read one body."""
    body = connection.recv_bytes()
    document: dict[str, Any] = {}
    while True:
        wanted, argument = connection.recv()
        if wanted == DONE:
            return
        try:
            if wanted == SIGNATURE_NAME:
                document, body = json_requests.parse(body), b""
                connection.send((PART, json_requests.read_signature_name(document)))
            else:
                for part in _inputs(document, argument) if wanted == INPUTS else _examples(document):
                    connection.send((PART, part))
            connection.send((END, None))
        except StatusError as exc:
            connection.send((ERROR, (exc.code, exc.message)))
        except (EOFError, OSError):
            raise
        except Exception:
            # It is for the server's log, and the next body may be a better one.
            log.exception("a body cannot be read")
            connection.send((ERROR, (Code.INTERNAL, "the server failed; its log says more")))


def _inputs(document: Mapping[str, Any], dtypes: Mapping[str, int]) -> Iterator[Any]:
    """Yield whether the request came in rows, then of each array its alias, type and shape, and its values in parts."""
    arrays, rows = json_requests.read_inputs(document, {name: Info(dtype) for name, dtype in dtypes.items()})
    yield rows
    for name, array in arrays.items():
        yield name, array.dtype, array.shape
        values = array.ravel()
        if array.dtype == object:
            yield from _strings(values.tolist())
            continue
        for start in range(0, len(values), _MAX_NUMBERS_AT_ONCE):
            yield values[start : start + _MAX_NUMBERS_AT_ONCE]


def _strings(values: list[bytes]) -> Iterator[Any]:
    """Yield the lengths of the next strings, then their bytes in parts, and so on; a long string comes alone."""
    start = 0
    while start < len(values):
        end, num_bytes = start + 1, len(values[start])
        while end < min(len(values), start + _MAX_VALUES_AT_ONCE):
            num_bytes += len(values[end])
            if num_bytes > _MAX_BYTES_AT_ONCE:
                break
            end += 1
        strings, start = values[start:end], end
        yield list(map(len, strings))
        joined = b"".join(strings)
        for first in range(0, len(joined), _MAX_BYTES_AT_ONCE):
            yield joined[first : first + _MAX_BYTES_AT_ONCE]


def _examples(document: Mapping[str, Any]) -> Iterator[list[json_requests.Example]]:
    """Yield the examples in parts of some thousand values."""
    part: list[json_requests.Example] = []
    num_values = 0
    for target, features in json_requests.read_examples(document):
        part.append((target, features))
        num_values += 1 + sum(1 + len(values) for _, values in features.values())
        if num_values >= _MAX_VALUES_AT_ONCE:
            yield part
            part, num_values = [], 0
    yield part


if __name__ == "__main__":
    main()
