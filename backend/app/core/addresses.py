"""Which IP addresses are on the Internet: `ipaddress.is_global` says so of multicast, 6to4 and translated ones too."""

from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address

_NOT_PUBLIC_V4 = tuple(
    map(
        IPv4Network,
        (
            *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
            *("192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16"),
            *("192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
            "168.63.129.16/32",  # in Azure, the host of the virtual machine
        ),
    )
)
"""IANA's special purposes, multicast and what is reserved."""

_UNICAST_V6 = IPv6Network("2000::/3")
_NOT_PUBLIC_V6 = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # protocols, of which Teredo (2001::/32) leads to the IPv4 address within
            "2001:db8::/32",
            "2002::/16",  # 6to4: leads to the IPv4 address within
            *("2620:4f:8000::/48", "3ffe::/16", "3fff::/20"),
        ),
    )
)
_LOW = 0xFFFF_FFFF
_TRANSLATED = IPv6Network("64:ff9b::/96")
_ISATAP = {0x0000_5EFE, 0x0200_5EFE}
"""The third quarter of an address that leads to the IPv4 address in the fourth."""


def is_public(text: str) -> bool:
    """Whether it is an IP address of the Internet. One that leads to another address within it is, where that other is
    and every machine takes it so (mapped and translated IPv4); not so for tunnels (6to4, Teredo, ISATAP).
    """
    try:
        address = ip_address(text)
    except ValueError:
        return False
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_V4)
    if address.scope_id is not None:
        return False
    within = IPv4Address(int(address) & _LOW) if address in _TRANSLATED else address.ipv4_mapped
    if within is not None:
        return is_public(str(within))
    is_special = any(address in network for network in _NOT_PUBLIC_V6) or int(address) >> 32 & _LOW in _ISATAP
    return address in _UNICAST_V6 and not is_special
