"""Packets between machines of their own are delayed, lost and cut; nothing is left of the machines."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from benchmarks.network import Network, why_not

ECHO = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
    server.bind(("", 2222))
    print("ready", flush=True)
    while True:
        data, sender = server.recvfrom(2048)
        server.sendto(data, sender)
"""
CALL = """
import socket, sys, time
host, timeout_s, count = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
    client.settimeout(timeout_s)
    began = time.monotonic()
    for number in range(count):
        client.sendto(bytes([number]), (host, 2222))
    num_received = 0
    try:
        while num_received < count:
            client.recv(2048)
            num_received += 1
    except TimeoutError:
        pass
    print(num_received, time.monotonic() - began)
"""


@pytest.fixture
def network() -> Iterator[Network]:
    if reason := why_not():
        pytest.skip(reason)
    with (
        Network(2) as made,
        subprocess.Popen(made.on(1, [sys.executable, "-c", ECHO]), stdout=subprocess.PIPE) as server,
    ):
        server.stdout.readline()
        yield made
        server.kill()


def call(network: Network, *, timeout_s: float, count: int = 1) -> tuple[int, float]:
    """Send packets to the other machine, which sends each back; return how many came, and after how long the last."""
    command = network.on(0, [sys.executable, "-c", CALL, network.hosts[1], str(timeout_s), str(count)])
    num_received, time_s = subprocess.run(command, capture_output=True, check=True).stdout.split()
    return int(num_received), float(time_s)


def test_network_delays_loses_and_cuts(network: Network) -> None:
    assert call(network, timeout_s=10) == (1, pytest.approx(0, abs=5))
    network.delay_s = 0.1
    num_received, time_s = call(network, timeout_s=10)
    assert num_received == 1
    assert time_s >= 0.2, "both ways"
    network.delay_s, network.loss = 0.0, 0.5
    num_received, _ = call(network, timeout_s=0.5, count=100)
    assert 5 <= num_received <= 50, "a quarter, both ways"
    network.loss, network.cut = 0.0, frozenset({1})
    assert call(network, timeout_s=0.1)[0] == 0
    network.cut = frozenset()
    assert call(network, timeout_s=10)[0] == 1


def test_nothing_is_left_of_a_network() -> None:
    if reason := why_not():
        pytest.skip(reason)

    def names() -> str:
        listed = [["ip", "netns"], ["ip", "-brief", "link"]]
        return "".join(subprocess.run(each, capture_output=True, check=True, text=True).stdout for each in listed)

    network = Network(2)
    name = network.on(0, [])[1].rpartition("/")[2]
    with network:
        assert name in names()
    assert name not in names()
