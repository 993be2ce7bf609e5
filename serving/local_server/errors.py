"""The errors of a request: a status code and a message, the same over gRPC and REST."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias

import grpc

Code: TypeAlias = grpc.StatusCode

MAX_STRINGS = 1 << 18
"""Of a tensor that is sent. Each becomes an object, and while TensorFlow takes them, no other thread of Python runs."""

# net_http's table in TensorFlow Serving's http_server.cc.
HTTP_STATUS = {
    Code.OK: 200,
    Code.CANCELLED: 499,
    Code.INVALID_ARGUMENT: 400,
    Code.FAILED_PRECONDITION: 400,
    Code.OUT_OF_RANGE: 400,
    Code.UNAUTHENTICATED: 401,
    Code.PERMISSION_DENIED: 403,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.ABORTED: 409,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.UNKNOWN: 500,
    Code.INTERNAL: 500,
    Code.DATA_LOSS: 500,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.DEADLINE_EXCEEDED: 504,
}
_BY_NUMBER = {code.value[0]: code for code in Code}
# A message may quote what the caller sent, and gRPC clients refuse trailers of more than 8 to 16 KiB.
_MAX_MESSAGE_CHARS = 1000


class StatusError(Exception):
    """A request fails, or a model cannot be loaded."""

    def __init__(self, code: Code, message: str) -> None:
        if len(message) > _MAX_MESSAGE_CHARS:
            message = message[:_MAX_MESSAGE_CHARS] + "…"
        super().__init__(message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code.name}: {self.message}"


class TooManyStringsError(StatusError):
    """A tensor has more strings than a request may send, or a request more examples."""

    def __init__(self, count: int) -> None:
        super().__init__(
            Code.INVALID_ARGUMENT,
            f"A tensor may have {MAX_STRINGS} strings, and a request as many examples. Received: {count}. Send fewer "
            "at once.",
        )


class StartError(Exception):
    """The server cannot start. The message states the rule, what was received and what to do next."""


def check_num_strings(count: int) -> None:
    """Refuse more strings than a tensor may have.

    Raises:
        TooManyStringsError: there are more.
    """
    if count > MAX_STRINGS:
        raise TooManyStringsError(count)


def invalid_argument(message: str) -> StatusError:
    return StatusError(Code.INVALID_ARGUMENT, message)


def not_found(message: str) -> StatusError:
    return StatusError(Code.NOT_FOUND, message)


def failed_precondition(message: str) -> StatusError:
    return StatusError(Code.FAILED_PRECONDITION, message)


def _code_of(number: int) -> Code:
    """Return the code of a number, which is the same in TensorFlow and gRPC."""
    return _BY_NUMBER.get(number, Code.UNKNOWN)


@contextmanager
def from_tensorflow() -> Iterator[None]:
    """Turn what TensorFlow raises into a `StatusError`, without the graph's stack trace."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as exc:
        message = str(exc.message).split("\nOriginal stack trace")[0].split("\nErrors may have originated")[0].strip()
        raise StatusError(_code_of(exc.error_code), message) from exc
    except UnicodeDecodeError as exc:
        # TensorFlow's message quotes bytes of the request that are no text.
        raise invalid_argument(bytes(exc.object).decode("utf-8", "replace")) from exc
    except (TypeError, ValueError) as exc:
        raise invalid_argument(str(exc)) from exc
