"""Publish blessed models where a server finds them.

Reads a candidate and its evaluations; writes to the store of models (`storage.models`) and `push.json`. The lineage of
a pushed model travels with it, in `assets.extra/lineage.json`. A version number is used once in a store, whatever the
model's name: `tflite` holds files of all of them.

With a signing key, the last file of a version is its signature (`export/signing.py`), so it is there when the version
becomes visible.

What other runs have pushed meanwhile is looked at under the store's lock. A bucket has no locks: there, two runs that
push within the seconds of an upload may both be published, with the higher number served.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from components.artifacts.blessing import find_objection
from components.artifacts.evaluation import read_metrics
from components.artifacts.litert_evaluation import read_passed_files
from components.artifacts.manifest import read_manifest, trace
from components.artifacts.push import Push, write_push
from components.artifacts.summary import Summary
from components.errors import PushError
from components.pushing.candidate import Candidate
from components.pushing.gates import find_difference, find_pushed, find_reason_against
from components.pushing.publication import check_file, publish, publish_litert
from components.storage.models import LITERT, MARKER, ModelStore
from components.storage.store import Store
from export.spec import read_spec

if TYPE_CHECKING:
    from export.signing import Signer

log = logging.getLogger(__name__)

_NEEDED = (MARKER, "variables/variables.index")


@dataclass(frozen=True)
class PusherOptions:
    """What may be pushed.

    Attributes:
        push_withdrawn: push a model again that a rollback took back.
        signing_key: a PEM file with the private key that signs versions (ECDSA); without one they are not signed. Its
            passphrase is read from the environment: PIPELINE_SIGNING_PASSPHRASE.
        signing_certificates: a PEM file with the key's certificate and those that vouch for it, where versions are
            verified with a root certificate instead of the public key.
    """

    push_withdrawn: bool = False
    signing_key: str = ""
    signing_certificates: str = ""

    def __post_init__(self) -> None:
        if "-----" in self.signing_key:
            raise ValueError("signing_key must be the path of a file. Received: a key itself, which is not repeated.")
        if self.signing_certificates and not self.signing_key:
            raise ValueError("signing_certificates need a signing_key, of which they are. Received: none.")


def describe_source(options: PusherOptions) -> dict[str, str]:
    """Describe who signs, before anything runs: the fingerprint of the key or certificate; nothing where nobody does.

    Raises:
        PushError: the key or its certificates cannot be used.
    """
    signer = _open_signer(options)
    return {"signed_by": signer.fingerprint} if signer else {}


def _open_signer(options: PusherOptions) -> "Signer | None":
    if not options.signing_key:
        return None
    from export.signing import read_signer  # most runs do not sign

    certificates = Path(options.signing_certificates) if options.signing_certificates else None
    try:
        return read_signer(Path(options.signing_key), certificates)
    except ValueError as exc:
        raise PushError(f"{exc} The options are pusher.signing_key and pusher.signing_certificates.") from exc


def push(
    *,
    export_dir: Path,
    evaluation_dir: Path,
    infra_validation_dir: Path,
    litert_dir: Path,
    litert_evaluation_dir: Path,
    parity_dir: Path,
    models_dir: Store,
    out_dir: Path,
    options: PusherOptions,
) -> Summary:
    """Publish a model that both validators bless as the next version, once; writes `push.json`.

    With it go the LiteRT files that passed their evaluation. A model is not pushed, which is a result with its reason,
    where it is not blessed, where a rollback took it back, where the newest version is not the one that it was compared
    with, or where it stands on a fallback and the newest version does not. One that already is the newest version stays
    what it is, unless it shall be signed and is not, or with another key: then it is pushed again.

    Raises:
        PushError: the model is blessed but not complete, is not what was evaluated, or cannot be copied or signed.
    """
    objection = find_objection(evaluation_dir) or find_objection(infra_validation_dir) or find_difference(parity_dir)
    if objection:
        return _refuse(out_dir, f"not blessed: {objection}")
    _check_complete(export_dir)
    candidate = Candidate(
        name=read_spec(export_dir)["model_name"],
        digest=read_manifest(export_dir)["digest"],
        export_dir=export_dir,
        litert_dir=litert_dir,
        litert_files=read_passed_files(litert_evaluation_dir),
        baseline=baseline["version"] if (baseline := read_metrics(evaluation_dir)["baseline"]) else None,
        origin={
            "model": trace(export_dir),
            "evaluation": trace(evaluation_dir),
            "infra_validation": trace(infra_validation_dir),
            "litert": trace(litert_evaluation_dir),
        },
        signer=_open_signer(options),
    )
    models = ModelStore(models_dir)
    with models.lock():
        version = find_pushed(models, candidate)
        if version is None:
            reason = find_reason_against(models, candidate, push_withdrawn=options.push_withdrawn)
            if reason:
                return _refuse(out_dir, reason)
            # Before the SavedModel is visible, which is of no use to a device.
            for name, digest in candidate.litert_digests.items():
                check_file(litert_dir / name, digest, source=litert_dir / name, step="litert")
            version = publish(models, candidate)
        # Also where an earlier push of the same model was killed before its LiteRT files.
        if candidate.litert_files and version not in models.versions(LITERT):
            publish_litert(models, candidate, version)
    path = models.path(candidate.name, version)
    result = Push(
        pushed=True,
        version=version,
        path=path,
        litert_path=models.path(LITERT, version) if candidate.litert_files else None,
        litert_files=list(candidate.litert_digests),
        reason="blessed",
    )
    write_push(out_dir, result)
    return {"pushed": True, "path": path}


def _refuse(out_dir: Path, reason: str) -> Summary:
    log.warning("pusher: NOT PUSHED: %s", reason)
    refusal = Push(pushed=False, version=None, path=None, litert_path=None, litert_files=[], reason=reason)
    write_push(out_dir, refusal)
    return {"pushed": False, "path": "none"}


def _check_complete(export_dir: Path) -> None:
    for file in _NEEDED:
        if not (export_dir / file).is_file():
            raise PushError(f"A SavedModel must hold {file}. There is none in {export_dir}: run with --force export.")
