"""Hosts of their own on this machine: network namespaces, whose cables a test pulls out.

Each has a cable to the switch of the clients and one to that of the stores. What is sent into a
cable that is pulled out is lost without a word, as on a real network: connections stay open until
somebody gives up, and new ones get no answer at all. Needs root.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from typing import Literal

import pytest

from tests.live.kit.still_network import addresses_change
from tests.live.kit.tools import tool

Switch = Literal["clients", "stores"]
SWITCHES: tuple[Switch, Switch] = ("clients", "stores")


class Network:
    """Two switches, to which this machine is connected too.

    The addresses are from the block reserved for measuring network devices: no machine's own.

    Attributes:
        here: this machine's address among the clients.
        store: its address among the stores.
    """

    def __init__(self) -> None:
        self.program = tool("ip")
        self.number = os.getpid()
        self.here, self.store = self.address("clients", 1), self.address("stores", 1)

    def address(self, switch: Switch, host: int) -> str:
        return f"198.{18 + (switch == 'stores')}.{self.number % 250}.{host}"

    def bridge(self, switch: Switch) -> str:
        """What the kernel calls a switch; it allows 15 characters."""
        return f"{switch[:1]}{self.number}"

    def ip(self, *words: str) -> None:
        done = subprocess.run([self.program, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"

    def make(self, switch: Switch) -> None:
        bridge = self.bridge(switch)
        self.ip("link", "add", bridge, "type", "bridge")
        self.take_no_address(bridge)
        self.ip("address", "add", f"{self.address(switch, 1)}/24", "dev", bridge)
        self.ip("link", "set", bridge, "up")

    def take_no_address(self, device: str) -> None:
        """Keep an end on this machine from an IPv6 address of its own.

        It would come some seconds after the device, when browsers load again.
        """
        self.ip("link", "set", device, "addrgenmode", "none")

    def remove(self, switch: Switch) -> None:
        self.ip("link", "del", self.bridge(switch))


class Host:
    """A network namespace with a cable to each switch.

    Args:
        network: where it is.
        number: from 2; the last of its addresses.
    """

    def __init__(self, network: Network, number: int) -> None:
        self.network = network
        self._number = number
        self.name = f"sseflask-{network.number}-{number}"
        #: The address at which clients reach it.
        self.address = network.address("clients", number)
        #: What runs a command there.
        self.prefix = [network.program, "netns", "exec", self.name]

    def _cable(self, switch: Switch) -> str:
        return f"{self.network.bridge(switch)}-{self._number}"

    def make(self) -> None:
        ip = self.network.ip
        ip("-n", self.name, "link", "set", "lo", "up")
        for switch in SWITCHES:
            ends = (self._cable(switch), "type", "veth", "peer", "name", switch)
            ip("link", "add", *ends, "netns", self.name)
            self.network.take_no_address(self._cable(switch))
            address = f"{self.network.address(switch, self._number)}/24"
            ip("-n", self.name, "address", "add", address, "dev", switch)
            ip("-n", self.name, "link", "set", switch, "up")
            ip("link", "set", self._cable(switch), "up")
            self.plug_in(switch)

    def pull_out(self, switch: Switch) -> None:
        """Pull one of its cables out of the switch."""
        self.network.ip("link", "set", self._cable(switch), "nomaster")

    def plug_in(self, switch: Switch) -> None:
        """Plug it in again."""
        bridge = self.network.bridge(switch)
        self.network.ip("link", "set", self._cable(switch), "master", bridge)

    def unmake(self) -> None:
        # The kernel removes what is in a namespace some time after the namespace.
        for switch in SWITCHES:
            self.network.ip("link", "del", self._cable(switch))


@contextlib.contextmanager
def network_of(count: int) -> Iterator[tuple[Network, list[Host]]]:
    """Hosts on a network; the test is skipped if this user may make none."""
    network = Network()
    if os.geteuid() != 0:
        pytest.skip("only root can make a network")
    hosts = [Host(network, number) for number in range(2, count + 2)]
    with contextlib.ExitStack() as stack:
        _make(network, hosts, stack)
        yield network, hosts


def _make(network: Network, hosts: list[Host], stack: contextlib.ExitStack) -> None:
    with addresses_change(), contextlib.ExitStack() as made_here:
        for host in hosts:
            command = [network.program, "netns", "add", host.name]
            made = subprocess.run(command, capture_output=True, text=True, check=False)
            if made.returncode:
                pytest.skip(f"no network namespaces here: {made.stderr.strip()}")
            made_here.callback(network.ip, "netns", "del", host.name)
        for switch in SWITCHES:
            network.make(switch)
            made_here.callback(network.remove, switch)
        for host in hosts:
            host.make()
            made_here.callback(host.unmake)
        stack.callback(_unmake, made_here.pop_all())


def _unmake(made: contextlib.ExitStack) -> None:
    with addresses_change():
        made.close()
