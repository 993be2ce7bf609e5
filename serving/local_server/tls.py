"""TLS for gRPC and REST from one `SSLConfig`, whose fields hold the PEM texts themselves."""

import os
import ssl
import tempfile
from typing import Any

import grpc

from serving.local_server.errors import StartError


def grpc_credentials(config: Any) -> grpc.ServerCredentials:
    """Make gRPC's credentials; with `client_verify` a client must show a certificate that `custom_ca` signed."""
    return grpc.ssl_server_credentials(
        [(config.server_key.encode(), config.server_cert.encode())],
        root_certificates=config.custom_ca.encode() or None,
        require_client_auth=config.client_verify,
    )


def ssl_context(config: Any) -> ssl.SSLContext:
    """Make the context of the REST server.

    Raises:
        StartError: key and certificate are not PEM or do not belong together, or clients are to show a certificate and
            no authority is named to trust.
    """
    if config.client_verify and not config.custom_ca:
        raise StartError("An SSLConfig with client_verify needs a custom_ca, which signs the clients' certificates.")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # The ssl module reads keys from files alone; this one is the owner's only, and gone at once.
    descriptor, path = tempfile.mkstemp()
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(f"{config.server_key}\n{config.server_cert}\n")
        # Nobody is there to type the password of an encrypted key: an empty one makes it an error.
        context.load_cert_chain(path, password="")
        if config.custom_ca:
            context.load_verify_locations(cadata=config.custom_ca)
    except (ssl.SSLError, TypeError) as exc:
        raise StartError(
            f"An SSLConfig needs a key without a password and its certificate, in PEM format. Received: {exc}"
        ) from exc
    finally:
        os.unlink(path)  # noqa: PTH108
    if config.client_verify:
        context.verify_mode = ssl.CERT_REQUIRED
    return context
