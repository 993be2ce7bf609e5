"""What REST and gRPC share: the options of a call, retries, and the checks of a response."""

import random
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from ..errors import AnswerError, UnavailableError
from . import Answer

T = TypeVar("T")

SIGNATURE = "images"
"""The model's signature that takes pixels, and the name of its one input: uint8 `[N, size, size, 3]`, RGB."""

_FIRST_WAIT_S = 0.2
_LONGEST_WAIT_S = 5.0
_ADDRESS = re.compile(r"(?P<host>[^\s/:@?#]+|\[[0-9A-Fa-f:.]+\]):(?P<port>\d{1,5})")
_THIS_MACHINE = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True)
class ConnectionOptions:
    """How a server is called.

    Attributes:
        timeout_s: for each attempt of each call; over REST, from the last byte that arrived.
        num_retries: further attempts, only where the server cannot be reached or reports that it is overloaded.
        tls: encrypt, and check the server's certificate.
        ca_file: PEM certificates that vouch for the server instead of the system's; with `tls`.
        token: a bearer token, sent along with every call.
    """

    timeout_s: float = 10.0
    num_retries: int = 3
    tls: bool = False
    ca_file: Path | None = None
    token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not self.timeout_s > 0:
            raise ValueError(f"timeout_s must be above 0. Received: {self.timeout_s}")
        if self.num_retries < 0:
            raise ValueError(f"num_retries must be at least 0. Received: {self.num_retries}")
        if self.ca_file and not self.tls:
            raise ValueError(f"A ca_file is for TLS, and tls is off. Received: {self.ca_file}. Turn tls on.")
        if self.ca_file and not self.ca_file.is_file():
            raise ValueError(f"ca_file must be a file of PEM certificates. There is none at {self.ca_file}.")
        if self.token is not None and not (self.token.isascii() and self.token.isprintable() and self.token.strip()):
            raise ValueError(
                "A token must be printable ASCII without line ends. The one received is not; it is not shown."
            )


def check_target(target: str) -> str:
    """Return a target that is `host:port`.

    Raises:
        ValueError: it is something else.
    """
    match = _ADDRESS.fullmatch(target)
    if not match or int(match["port"]) >= 1 << 16:
        raise ValueError(f"A server's address is HOST:PORT, such as localhost:8501. Received: {target!r}")
    return target


def is_this_machine(target: str) -> bool:
    """Return whether a target is on this machine, which no proxy of the environment leads to."""
    return target.startswith(tuple(f"{host}:" for host in _THIS_MACHINE))


def retry(call: Callable[[], T], num_retries: int) -> T:
    """Call until the server is available: each wait is about twice the one before, and partly random.

    The random part keeps many clients from coming back at the same moment.
    """
    for attempt in range(num_retries):
        try:
            return call()
        except UnavailableError:
            longest = min(_FIRST_WAIT_S * 2**attempt, _LONGEST_WAIT_S)
            time.sleep(random.uniform(longest / 2, longest))
    return call()


def check_image_size(shape: Sequence[int], *, model: str) -> int:
    """Return the side of the images that a signature takes.

    Raises:
        AnswerError: it takes no square RGB images.
    """
    if len(shape) != 4 or shape[1] != shape[2] or shape[1] < 1 or shape[3] != 3:
        raise AnswerError(
            f"The signature {SIGNATURE!r} of a model must take square RGB images, [-1, size, size, 3]. "
            f"Received: {list(shape)} from {model}. Export the model with this project."
        )
    return shape[1]


def to_answers(
    probabilities: Sequence[Sequence[float]],
    classes: Sequence[Sequence[str]],
    *,
    num_images: int,
    model_version: str,
    start_s: float,
) -> list[Answer]:
    """Return a server's outputs as one result for each image.

    Args:
        probabilities: of each image.
        classes: the labels, again for each image.
        num_images: in the request.
        model_version: of the model that made the predictions.
        start_s: when the request was sent, of `time.perf_counter`.

    Raises:
        AnswerError: there are more predictions than images, or fewer.
    """
    if not len(probabilities) == len(classes) == num_images:
        raise AnswerError(
            "A server must return one prediction for each image. "
            f"Received: {len(probabilities)} predictions for {num_images} images. Check which server is there."
        )
    latency_ms = (time.perf_counter() - start_s) * 1000
    return [Answer(*pair, model_version, latency_ms) for pair in zip(classes, probabilities, strict=True)]
