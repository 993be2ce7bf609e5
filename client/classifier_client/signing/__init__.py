"""Signed versions: `model.sig` in a folder says which files were published, and by whom.

The format is OpenSSF Model Signing 1.0 (https://github.com/ossf/model-signing-spec): what is signed here verifies with
its own tool, `model_signing`, and the other way round. Reading is here, in the client, because all that load a model
need it; signing is `export/signing.py`. Needs one library: the extra `verify`.
"""

from ..errors import MissingLibraryError

try:
    import cryptography  # noqa: F401
except ModuleNotFoundError as exc:
    raise MissingLibraryError(
        "Signatures need the library cryptography, which is not installed. Run: "
        "pip install 'classifier-client[verify]'",
        name=exc.name,
    ) from exc

from .folder import SignedFolder as SignedFolder
from .verify_key import VerifyKey as VerifyKey
from .verify_key import read_verify_key as read_verify_key
