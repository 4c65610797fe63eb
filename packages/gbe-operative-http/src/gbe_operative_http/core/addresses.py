"""Which addresses may be reached. Asked for each connection, with the address that is then connected to.

Without a word from the owner of the host these are the public ones: what IANA's registries of special-purpose
addresses (RFC 6890) call globally reachable, less the metadata services of cloud providers that lie among them. An
IPv6 address that stands for an IPv4 one (mapped, 6to4, NAT64) is judged as that.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_network = ipaddress.ip_network

NAMED = {
    "loopback": ("127.0.0.0/8", "::1"),
    "private": ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"),
}
"""What may be written for networks."""

METADATA = (
    "169.254.169.254",  # most providers
    "169.254.170.2",  # AWS, containers
    "169.254.170.23",
    "168.63.129.16",  # Azure
    "100.100.100.200",  # Alibaba
    "192.0.0.192",  # Oracle
    "fd00:ec2::254",  # AWS
    "fd00:ec2::23",
    "fd20:ce::254",  # Google
)
"""Services that tell whoever asks from a host what the host may do. Denied unless an entry names exactly them."""

_SPECIAL = {
    _network("0.0.0.0/8"): "this network",
    _network("10.0.0.0/8"): "private",
    _network("100.64.0.0/10"): "a provider's own",
    _network("127.0.0.0/8"): "loopback",
    _network("169.254.0.0/16"): "link-local",
    _network("172.16.0.0/12"): "private",
    _network("192.0.0.0/24"): "reserved",
    _network("192.0.2.0/24"): "for documentation",
    _network("192.88.99.0/24"): "reserved",
    _network("192.168.0.0/16"): "private",
    _network("198.18.0.0/15"): "for benchmarks",
    _network("198.51.100.0/24"): "for documentation",
    _network("203.0.113.0/24"): "for documentation",
    _network("224.0.0.0/4"): "multicast",
    _network("240.0.0.0/4"): "reserved",
    _network("::/128"): "unspecified",
    _network("::1/128"): "loopback",
    _network("2001::/23"): "reserved",
    _network("2001:db8::/32"): "for documentation",
    _network("3fff::/20"): "for documentation",
    _network("fc00::/7"): "private",
    _network("fe80::/10"): "link-local",
    _network("ff00::/8"): "multicast",
}
_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
_MAPPED = IPv6Network("::ffff:0:0/96")
_ENTRY = re.compile(
    r"\[(?P<v6>[^\[\]]+)\](?P<v6_port>:\d{1,5})?|(?P<v4>[^:\[\]]+)(?P<port>:\d{1,5})?|(?P<bare>[^\[\]]+)"
)


@dataclass(frozen=True, slots=True)
class _Rule:
    network: Network
    port: int | None
    allow: bool
    owner: bool

    @property
    def rank(self) -> tuple[int, bool, bool, bool]:
        """The narrower counts, then the owner's, then what denies."""
        return self.network.prefixlen, self.port is not None, self.owner, not self.allow


class AddressPolicy:
    """An allow-list and a deny-list over the default. Raises `ValueError` with the entry that makes no sense.

    An entry is a network (`10.0.0.0/8`, `fd00::/8`), an address, or a name in `NAMED`; `10.1.2.3:8080` and
    `[::1]:8080` are about one port. Of the entries that hold an address the narrowest decides; between equal ones
    that denies.
    """

    def __init__(self, allow: Iterable[str] = (), deny: Iterable[str] = ()) -> None:
        rules = [_Rule(_network(text), None, allow=False, owner=False) for text in METADATA]
        for entries, allowed in ((allow, True), (deny, False)):
            for entry in entries:
                rules += [_Rule(network, port, allowed, owner=True) for network, port in _parse(entry)]
        self._rules = sorted(rules, key=lambda rule: rule.rank, reverse=True)

    def why_not(self, address: Address, port: int) -> str | None:
        """What speaks against it, for people; None where it may be reached."""
        meant = meaning(address)
        decisive = self._decisive(meant, port)
        if decisive is None and meant != address and address not in _MAPPED:
            # Entries for IPv6 are wider than any for the address it stands for. They may close that, never open it.
            decisive = self._decisive(address, port)
            if decisive is not None and decisive.allow:
                decisive = None
        if decisive is None:
            return _special(meant)
        if decisive.allow:
            return None
        return "denied on this host" if decisive.owner else "a metadata service"

    def _decisive(self, address: Address, port: int) -> _Rule | None:
        holding = (rule for rule in self._rules if address in rule.network and rule.port in (None, port))
        return next(holding, None)


def meaning(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, else itself, without a zone."""
    if isinstance(address, IPv4Address):
        return address
    mapped = address.ipv4_mapped or address.sixtofour
    if mapped is not None:
        return mapped
    plain = IPv6Address(int(address))
    return IPv4Address(int(plain) & 0xFFFFFFFF) if plain in _NAT64 else plain


def _special(address: Address) -> str | None:
    for network, what in _SPECIAL.items():
        if address in network:
            return what
    return "reserved" if isinstance(address, IPv6Address) and address not in _UNICAST else None


def _parse(entry: str) -> Iterator[tuple[Network, int | None]]:
    match = _ENTRY.fullmatch(entry.strip())
    if match is None:
        raise ValueError(f"{entry!r} is no network")
    text = match["v6"] or match["v4"] or match["bare"]
    port_text = match["v6_port"] or match["port"]
    port = int(port_text[1:]) if port_text else None
    if port is not None and not 0 < port < 65536:
        raise ValueError(f"{entry!r}: no port {port}")
    for part in NAMED.get(text, (text,)):
        try:
            yield _plain(_network(part)), port
        except ValueError as error:
            names = ", ".join(NAMED)
            raise ValueError(f"{entry!r} is neither a network nor an address nor one of {names}: {error}") from error


def _plain(network: Network) -> Network:
    """IPv4 addresses written as mapped IPv6 ones, as what they are: no other form of them is ever looked for."""
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        first = int(network.network_address) & 0xFFFFFFFF
        return IPv4Network((first, network.prefixlen - _MAPPED.prefixlen))
    return network
