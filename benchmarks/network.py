"""Machines on a network with faults: Linux network namespaces, joined by a wire that delays, loses and cuts.

Each machine is a namespace with a TUN device; the kernel's own TCP runs in it. Packets pass through one thread of this
process, which does what `tc netem` does where a kernel has it. Needs root, `ip`, `nsenter` and `/dev/net/tun`.
"""

import fcntl
import heapq
import ipaddress
import os
import random
import select
import shutil
import struct
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

_TUN = Path("/dev/net/tun")
# From linux/if_tun.h.
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_PACKET_BYTES = 65536
_SUBNET = ipaddress.ip_network("10.203.0.0/24")
_DESTINATION = slice(16, 20)  # of an IPv4 header


def why_not() -> str | None:
    """Return why this machine can have no such network; `None` where it can."""
    if os.name != "posix" or os.geteuid() != 0:
        return "network namespaces need root"
    if missing := [name for name in ("ip", "nsenter") if shutil.which(name) is None]:
        return f"{' and '.join(missing)} not found (Debian: iproute2, util-linux)"
    if not _TUN.exists():
        return f"no {_TUN}"
    found = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True, check=False)
    return f"no network namespaces: {found.stderr.strip()}" if found.returncode else None


class Network:
    """So many machines, which reach each other at `hosts`; a context manager that leaves nothing behind.

    Attributes:
        hosts: their addresses.
        delay_s: how long each packet takes.
        loss: the share of packets that are lost, 0 to 1.
        cut: machines whose packets, sent or received, are all lost.
    """

    def __init__(self, num_machines: int, *, seed: int = 0) -> None:
        self.hosts = [str(_SUBNET[number + 1]) for number in range(num_machines)]
        self.delay_s = 0.0
        self.loss = 0.0
        self.cut: frozenset[int] = frozenset()
        self._random = random.Random(seed)
        self._names = [f"flowers-{os.getpid()}-{number}" for number in range(num_machines)]
        self._devices: list[int] = []
        self._stack = ExitStack()

    def __enter__(self) -> "Network":
        with ExitStack() as stack:
            for number, (host, name) in enumerate(zip(self.hosts, self._names, strict=True)):
                _ip("netns", "add", name)
                stack.callback(_ip, "netns", "del", name)
                device = os.open(_TUN, os.O_RDWR | os.O_NONBLOCK)
                stack.callback(os.close, device)
                link = f"wire{os.getpid() % 10**6}_{number}"
                fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH14x", link.encode(), _IFF_TUN | _IFF_NO_PI))
                _ip("link", "set", link, "netns", name)
                _ip("-n", name, "address", "add", f"{host}/{_SUBNET.prefixlen}", "dev", link)
                for each in ("lo", link):
                    _ip("-n", name, "link", "set", each, "up")
                self._devices.append(device)
            read, write = os.pipe()
            stack.callback(os.close, read)
            thread = threading.Thread(target=self._carry, args=(read,), name="wire")
            thread.start()
            stack.callback(thread.join)
            stack.callback(os.close, write)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def on(self, number: int, command: Sequence[str]) -> list[str]:
        """Return the command that runs a command on a machine, as the same process."""
        return ["nsenter", f"--net=/run/netns/{self._names[number]}", *command]

    def _carry(self, end: int) -> None:
        """Carry packets between the devices until the other side of `end` is closed."""
        numbers = {ipaddress.ip_address(host).packed: number for number, host in enumerate(self.hosts)}
        on_the_way: list[tuple[float, int, int, bytes]] = []
        num_packets = 0
        while True:
            timeout_s = max(0.0, on_the_way[0][0] - time.monotonic()) if on_the_way else None
            ready = select.select([end, *self._devices], [], [], timeout_s)[0]
            if end in ready:
                return
            for device in ready:
                packet = os.read(device, _PACKET_BYTES)
                target = numbers.get(packet[_DESTINATION])
                # What is not IPv4, or for nobody here, is the kernel's own: neighbours and multicast.
                if target is None or packet[0] >> 4 != 4 or self._random.random() < self.loss:
                    continue
                if self.cut.isdisjoint((target, self._devices.index(device))):
                    num_packets += 1
                    heapq.heappush(on_the_way, (time.monotonic() + self.delay_s, num_packets, target, packet))
            while on_the_way and on_the_way[0][0] <= time.monotonic():
                _, _, target, packet = heapq.heappop(on_the_way)
                os.write(self._devices[target], packet)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
