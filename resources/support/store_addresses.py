"""Which machines a URL may lead to: the name is looked up once, every address is checked, and one of them connected to.

So a name that answers otherwise the next time changes nothing. The certificate is still checked against the name.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import httpcore

from databrokkr_assets.core.errors import AccessError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], Iterable[str]]

_ONCE_IPV4 = ipaddress.ip_network("64:ff9b::/96")
_OWN_SERVICES = {ipaddress.ip_address("168.63.129.16")}
"""Public addresses behind which a cloud answers its own machines: Azure's."""


class NotAllowed(AccessError):
    """The URL leads to an address that its connection does not allow."""


class GuardedNetwork(httpcore.NetworkBackend):
    """Opens connections to public addresses, and to others only where `allowed` says so: all, or those of networks."""

    def __init__(self, connection: str, allowed: bool | Sequence[Network], resolve: Resolve) -> None:
        self._connection, self._allowed, self._resolve = connection, allowed, resolve
        self._network = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first address that answers. Raises NotAllowed when any address is not allowed."""
        try:
            addresses = list(dict.fromkeys(self._resolve(host, port)))
        except OSError as error:
            raise httpcore.ConnectError(f"the name {host} is not known") from error
        for address in addresses:
            self._require(host, address)
        failure: Exception = httpcore.ConnectError(f"the name {host} is not known")
        for address in addresses:
            try:
                return self._network.connect_tcp(address, port, timeout, local_address, socket_options)
            except httpcore.TimeoutException as error:
                failure = error
            except httpcore.NetworkError as error:
                failure = error
        raise failure

    def connect_unix_socket(self, *args: Any, **kwargs: Any) -> httpcore.NetworkStream:
        """Never."""
        raise httpcore.UnsupportedProtocol("no sockets of this machine")

    def sleep(self, seconds: float) -> None:
        """Wait."""
        self._network.sleep(seconds)

    def _require(self, host: str, text: str) -> None:
        address = _meant(ipaddress.ip_address(text.partition("%")[0]))
        if self._allowed is True or is_public(address):
            return
        if self._allowed and any(address in network for network in self._allowed):
            return
        shown = f"{host}, which is {address}," if host != str(address) else host
        raise NotAllowed(
            f'the connection "{self._connection}" does not go to {shown} because that is no public address',
            mend="if it is meant, say `allow_private: true`, or the network, e.g. `allow_private: [10.1.0.0/16]`",
        )


def is_public(address: Address) -> bool:
    """Whether an address is neither private, loopback, link-local, multicast, reserved nor a cloud's own."""
    return address.is_global and not address.is_multicast and not address.is_reserved and address not in _OWN_SERVICES


def looked_up(host: str, port: int) -> list[str]:
    """Every address of a name."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def _meant(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for, where it does."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _ONCE_IPV4:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else address)
