"""The proxy before a server that speaks TLS: it trusts whom it should, and the client's token reaches the server."""

import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
import trustme
from PIL import Image

from client.classifier_client import Client, ConnectionOptions, UnavailableError
from pipelines.release.servers import ModelServer
from tests.client.fakes import SIZE_PX, FakeGrpc, FakeRest, FakeServer, open_transport
from tests.ready import start_ready
from tests.serving.local_server.conftest import free_ports


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[tuple[FakeServer, FakeServer]]:
    """A server's REST API and its gRPC, both over TLS, whose certificate `ca.pem` vouches for."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    certificate = authority.issue_cert("127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    chain = b"".join(pem.bytes() for pem in certificate.cert_chain_pems)
    credentials = grpc.ssl_server_credentials([(certificate.private_key_pem.bytes(), chain)])
    with FakeRest(ssl_context=context) as rest, FakeGrpc(credentials=credentials) as own_grpc:
        yield rest, own_grpc


@contextmanager
def proxy_before(servers: tuple[FakeServer, FakeServer], ca_file: Path) -> Iterator[dict[str, str]]:
    """Yield the proxy's address for each protocol."""
    ports = free_ports(3)
    rest, own_grpc = servers
    command = [sys.executable, "-m", "serving.proxy", "--server", own_grpc.target, "--rest-server", rest.target]
    for name, port in zip(("--port", "--rest-port", "--control-port"), ports, strict=True):
        command += [name, str(port)]
    with start_ready([*command, "--ca-file", str(ca_file)], ca_file.with_name("proxy.log")):
        yield {"gRPC": f"127.0.0.1:{ports[0]}", "REST": f"127.0.0.1:{ports[1]}"}


def classify(protocol: str, target: str) -> str:
    transport = open_transport(protocol, target, token="s3cret", num_retries=0)
    with Client(transport) as client:
        (prediction,) = client.classify([Image.new("RGB", (SIZE_PX, SIZE_PX))])
    return prediction.label


def test_a_server_over_tls_is_reached_through_the_proxy(servers, tmp_path):
    with proxy_before(servers, tmp_path / "ca.pem") as addresses:
        assert {classify(*each) for each in addresses.items()} == {"tulip"}
    for server in servers:
        assert set(server.tokens) == {"Bearer s3cret"}


def test_a_server_that_nobody_vouches_for_gets_nothing(servers, tmp_path):
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    with proxy_before(servers, tmp_path / "other.pem") as addresses:
        for each in addresses.items():
            with pytest.raises(UnavailableError):
                classify(*each)
    assert [server.tokens for server in servers] == [[], []]


def test_a_release_asks_a_server_over_tls(servers, tmp_path):
    options = ConnectionOptions(tls=True, ca_file=tmp_path / "ca.pem", token="s3cret")
    server = ModelServer(servers[0].target, "flowers", timeout_s=1, options=options)
    assert server.call("GET", "/v1/models/flowers/metadata")[0] == 200
    assert servers[0].tokens == ["Bearer s3cret"]
