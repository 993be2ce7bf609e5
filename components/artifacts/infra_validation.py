"""What the server predicted when it was tried: `responses.json`, and its log; the verdict is a `blessing`.

`responses.json` holds probabilities `[N, C]` of the first `N` test photos, by protocol and signature
(`rest_serving_default`, `grpc_images`, …).
"""

from pathlib import Path

from components.storage.files import read_json, write_json

SERVER_LOG = Path("logs") / "server.log"
Responses = dict[str, list[list[float]]]


def read_responses(infra_validation_dir: Path) -> Responses:
    """Read `responses.json`."""
    return read_json(infra_validation_dir / "responses.json")


def write_responses(out_dir: Path, responses: Responses) -> None:
    """Write `responses.json`."""
    write_json(out_dir / "responses.json", responses)
