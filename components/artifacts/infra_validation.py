"""What the server predicted when it was tried: `responses.json`, and its log; the verdict is a `blessing`."""

from pathlib import Path
from typing import TypedDict

from components.storage.files import read_json, write_json

SERVER_LOG = Path("logs") / "server.log"


class Served(TypedDict):
    """What an interface responds to the first N test photos.

    Attributes:
        probabilities: `[N, C]`.
        p_values: `[N]`; null where the model does not know its limits.
    """

    probabilities: list[list[float]]
    p_values: list[float | None]


Responses = dict[str, Served]
"""By protocol and signature: `rest_serving_default`, `grpc_images`, …"""


def read_responses(infra_validation_dir: Path) -> Responses:
    """Read `responses.json`."""
    return read_json(infra_validation_dir / "responses.json")


def write_responses(out_dir: Path, responses: Responses) -> None:
    """Write `responses.json`."""
    write_json(out_dir / "responses.json", responses)
