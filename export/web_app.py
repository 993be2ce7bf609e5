"""Write a classifier as static files that run in a browser: `python -m export.web_app OUT`.

Reads a LiteRT file and the `model_spec.json` beside it, or else inside it, by default of the newest pushed version.
Writes a page, `index.html`, and `classifier.js`, a module that other pages import, with all that they need; docs/web.md
has both.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from client.browser.files import (
    MANIFEST,
    MODEL_JSON,
    describe_file,
    describe_model,
    make_manifest,
    read_scripts,
)
from client.browser.runtime import FOLDER, RuntimeMissingError, download, read_runtime
from client.classifier_client import ModelFileError
from client.classifier_client.transports.litert_metadata import read_metadata

log = logging.getLogger(__name__)

KINDS = ("int8", "dynamic", "float16", "float32")
"""A pushed version's files, the fastest first."""

_THRESHOLD = 0.5
_PAGE = {"page.html": "index.html"}


def write_web_app(
    out_dir: Path, file: Path, *, runtime_dir: Path = FOLDER, threshold: float = _THRESHOLD
) -> dict[str, int]:
    """Write the files.

    Args:
        out_dir: a folder, new or with an older version of them, whose files are overwritten.
        file: a LiteRT file with metadata.
        runtime_dir: where the LiteRT runtime for browsers is kept, see `client.browser.runtime.download`.
        threshold: the page says of a less probable prediction that it is not sure, 0–1.

    Returns:
        The size in bytes of each file.

    Raises:
        ModelFileError: the file cannot be used.
        RuntimeMissingError: the runtime is not there.
        ValueError: `threshold` is out of range.
        OSError: the folder cannot be written.
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be 0 to 1. Received: {threshold}")
    metadata = read_metadata(file)
    model = file.read_bytes()
    name = metadata.spec.get("model_name") or file.stem
    runtime = read_runtime(runtime_dir)
    description = describe_model(
        metadata,
        spec=metadata.spec,
        name=name,
        threshold=threshold,
        model=describe_file(file.name, model),
        runtime=runtime,
    )
    manifest = make_manifest(name, start_url="./", icon_url="icon.svg")
    contents = {_PAGE.get(key, key): content for key, content in read_scripts().items()} | runtime
    contents[file.name] = model
    contents[MANIFEST] = manifest.encode()
    contents[MODEL_JSON] = description.encode()  # Last: it names the others.
    out_dir.mkdir(parents=True, exist_ok=True)
    for key, content in contents.items():
        (out_dir / key).write_bytes(content)
    return {key: len(content) for key, content in contents.items()}


def find_newest_file(models_dir: Path, kinds: Sequence[str] = KINDS) -> Path:
    """Return the LiteRT file of the newest pushed version: of the first kind that it has.

    Raises:
        ModelFileError: there is none.
    """
    versions = [path for path in (models_dir / "tflite").glob("*") if path.name.isdecimal()]
    if versions:
        newest = max(versions, key=lambda path: int(path.name))
        found = (file for kind in kinds for file in sorted(newest.glob(f"*_{kind}.tflite")))
        if file := next(found, None):
            return file
    raise ModelFileError(
        f"A web app needs a pushed LiteRT file, and {models_dir / 'tflite'} has none of {', '.join(kinds)} in its "
        "newest version. Run `make train` first, or name a file with --tflite."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Write a web app; return the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    parser = argparse.ArgumentParser(prog="python -m export.web_app", description=__doc__)
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write to")
    parser.add_argument("--tflite", metavar="FILE", type=Path, help="the model (default: the newest pushed version's)")
    parser.add_argument("--kind", choices=KINDS, help="of the newest version's files (default: int8, if it has one)")
    parser.add_argument("--models-dir", type=Path, default=Path("models"), help="pushed models (default: models)")
    parser.add_argument("--runtime-dir", type=Path, default=FOLDER, help=f"downloaded runtime (default: {FOLDER})")
    parser.add_argument("--threshold", type=float, default=_THRESHOLD, help="sure from here on (default: 0.5)")
    options = parser.parse_args(arguments)
    if not 0 <= options.threshold <= 1:
        parser.error(f"--threshold must be 0 to 1. Received: {options.threshold}")
    try:
        file = options.tflite or find_newest_file(options.models_dir, [options.kind] if options.kind else KINDS)
        download(options.runtime_dir)
        sizes = write_web_app(options.out, file, runtime_dir=options.runtime_dir, threshold=options.threshold)
    except (ModelFileError, RuntimeMissingError, OSError) as exc:
        log.error("error: %s", exc)
        return 1
    log.info("%s: %d files, %.1f MB, of %s", options.out, len(sizes), sum(sizes.values()) / 1e6, file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
