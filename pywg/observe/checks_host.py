"""Checks of this host: is the interface there, up and routed; where names and routes of endpoints lead.

A probe is one datagram of one byte to each endpoint, which WireGuard passes over: it tells by ICMP, and by
the system's refusal, what the daemon's own datagrams meet.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import select
import socket
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from pywg.config.model import EndpointName
from pywg.config.positions import value_of
from pywg.errors import PywgError
from pywg.host import control
from pywg.host.resolve import addresses_of
from pywg.host.rtnetlink import Rtnetlink
from pywg.host.running import RunningInterface
from pywg.host.state import index_of
from pywg.observe.checks import Subject
from pywg.observe.findings import Finding, Severity
from pywg.observe.watching import address_in, has_session
from pywg.wire.endpoint import Endpoint
from pywg.wire.network import Network

PROBE_SECONDS = 3.3
"""Within which the system gives up finding a neighbour's hardware address."""

_EVERY = 0.1

ENDPOINTS_AT_MOST = 50
NETWORKS_AT_MOST = 200

_RECVERR = {socket.AF_INET: (socket.IPPROTO_IP, 11), socket.AF_INET6: (socket.IPPROTO_IPV6, 25)}
_ERROR_QUEUE = 0x2000
_LOCAL = 2
_SHARED = [
    ipaddress.ip_network(n) for n in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")
]
_ICMP = {
    errno.ECONNREFUSED: "nobody listens on that port",
    errno.EHOSTUNREACH: "that host is not reached",
    errno.ENETUNREACH: "that network is not reached",
    errno.EACCES: "a firewall on the way forbids it",
}
_PROHIBITED = {socket.AF_INET: (3, (9, 10, 13)), socket.AF_INET6: (1, (1, 5, 6))}


def interface_is_there(subject: Subject) -> Iterator[Finding]:
    """The device, and whoever runs it."""
    if subject.unreadable is not None:
        yield subject.finding("not-readable", f"{subject.unreadable}.", f"ip link show {subject.interface}")
    elif subject.device is None and subject.state is not None:
        what = "the daemon" if subject.state.backend == "userspace" else "the interface"
        yield subject.finding(
            "daemon-gone",
            f"`pywg up` brought {subject.interface} up, and {what} is gone: it was killed, or removed by "
            "hand.",
            f"pywg down {subject.interface}",
            subject.up_command,
            "journalctl -t pywgd -n 50  # what it said last; also: dmesg, for the kernel's want of memory",
        )
    elif subject.device is None:
        yield subject.finding(
            "not-up",
            f"There is no WireGuard interface {subject.interface} here.",
            subject.up_command,
            severity=Severity.NOTE if subject.given_file else None,
        )
    elif subject.is_elsewhere:
        yield subject.finding(
            "other-namespace",
            f"The daemon of {subject.interface} answers, and the interface is in another network namespace: "
            "its addresses, routes and packets cannot be looked at from here.",
            f"ip netns exec NAME pywg doctor {subject.interface}  # in that one",
            f"nsenter --net --target PID pywg doctor {subject.interface}  # or: in that of a process",
        )


def interface_is_usable(subject: Subject) -> Iterator[Finding]:
    """Up, with a key and an address."""
    device = subject.device
    if device is None:
        return
    if device.private_key is None:
        yield subject.finding(
            "no-private-key",
            f"{subject.interface} has no private key, so it can begin and answer nothing.",
            f"pywg set {subject.interface} private-key FILE",
        )
    if not sys.platform.startswith("linux"):
        return
    flags = Path(f"/sys/class/net/{subject.interface}/flags")
    is_up = True
    with contextlib.suppress(OSError, ValueError):
        is_up = bool(int(flags.read_text(encoding="ascii"), 16) & 1)
    if not is_up:
        yield subject.finding(
            "interface-down",
            f"{subject.interface} is down: nothing is sent and nothing is heard.",
            f"ip link set {subject.interface} up",
        )
        return
    with RunningInterface(subject.interface) as running:
        addresses = [address for address in running.addresses() if not address.ip.is_link_local]
    if not addresses:
        wanted = [str(a.value) for a in subject.config.interface.addresses] if subject.config else []
        yield subject.finding(
            "no-address",
            f"{subject.interface} has no address, so nothing can be sent from it.",
            f"ip address add {wanted[0] if wanted else 'ADDRESS/LENGTH'} dev {subject.interface}",
        )


def one_key_for_two_interfaces(subject: Subject) -> Iterator[Finding]:
    """Two interfaces of this host with one key look like one host in two places."""
    if subject.device is None or subject.device.private_key is None:
        return
    for other in control.list_interfaces():
        with contextlib.suppress(PywgError):
            if other != subject.interface and control.get(other).private_key == subject.device.private_key:
                yield subject.finding(
                    "same-key",
                    f"{subject.interface} and {other} have the same private key: "
                    "peers of both see one host move.",
                    "pywg genkey  # a key of its own for each",
                )


def names_of_endpoints(subject: Subject) -> Iterator[Finding]:
    """What they resolve to now."""
    running = {str(peer.public_key): peer.endpoint for peer in subject.device.peers} if subject.device else {}
    for peer in subject.peers_of_file()[:ENDPOINTS_AT_MOST]:
        key = peer.public_key.value.base64
        names = [name.value for name in (peer.endpoint, *peer.more_endpoints) if name is not None]
        if not names or all(map(_is_numeric, names)):
            continue
        found: list[Endpoint] = []
        for name in names:
            try:
                found += addresses_of(name)
            except PywgError as error:
                yield subject.finding(
                    "name-not-resolved",
                    f"The endpoint of {subject.called(key)}: {error}.",
                    f"getent ahosts {name.host}",
                    "# is the name right, and does the name server answer? resolvectl status",
                    key=key,
                )
        used = running.get(key)
        if found and used is not None and used not in found and not has_session(subject, key):
            yield subject.finding(
                "name-moved",
                f"{subject.called(key)} is called at {used}, but {names[0].host} is {found[0].host} by now.",
                f"pywg set {subject.interface} peer {key} endpoint {names[0]}",
                f"pywg monitor {subject.interface}  # follows the name",
                key=key,
            )


def ways_to_endpoints(subject: Subject) -> Iterator[Finding]:
    """The route that the daemon's datagrams take."""
    if subject.device is None or not sys.platform.startswith("linux"):
        return
    own = index_of(subject.interface)
    with Rtnetlink() as netlink:
        for key, endpoint in _endpoints(subject):
            try:
                route = netlink.route_to(endpoint.host, subject.device.fwmark)
            except OSError as error:
                yield subject.finding(
                    "no-route",
                    f"There is no route to {endpoint.host}, where {subject.called(key)} is: "
                    f"{os.strerror(error.errno or 0)}.",
                    f"ip route get {endpoint.host}{_marked(subject)}",
                    "ip route show default  # is this host on a network?",
                    key=key,
                )
                continue
            if own is not None and route.interface == own and not endpoint.scope_id:
                yield subject.finding(
                    "route-loop",
                    f"The route to {endpoint.host}, where {subject.called(key)} is, leads into "
                    f"{subject.interface} itself: what is sealed would be sealed again.",
                    f"ip route get {endpoint.host}{_marked(subject)}",
                    f"# take {endpoint.host} out of the AllowedIPs: #pywg DisallowedIPs = {endpoint.host}",
                    f"ip route add {endpoint.host} via GATEWAY  # or a route beside the tunnel",
                    key=key,
                )
                continue
            source = route.source
            has_keepalive = any(
                str(peer.public_key) == key and peer.persistent_keepalive_interval
                for peer in subject.device.peers
            )
            is_outside = ipaddress.ip_address(endpoint.host).is_global
            if source and _is_shared(source) and is_outside and not has_keepalive:
                yield subject.finding(
                    "keepalive-off",
                    f"This host has the private address {source}, so a router translates it, and "
                    f"{subject.called(key)} can reach it only for a while after this host has sent.",
                    f"pywg set {subject.interface} peer {key} persistent-keepalive 25",
                    key=key,
                )


def probes(subject: Subject) -> Iterator[Finding]:
    """One datagram to each endpoint, and what comes back by ICMP."""
    if subject.device is None or not sys.platform.startswith("linux"):
        return
    waiting: list[tuple[str, Endpoint, socket.socket]] = []
    with contextlib.ExitStack() as stack:
        for key, endpoint in _endpoints(subject):
            if has_session(subject, key) or not _leads_out(subject, endpoint):
                continue
            probe = stack.enter_context(
                socket.socket(endpoint.family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            )
            probe.setsockopt(*_RECVERR[endpoint.family], 1)
            if subject.device.fwmark:
                with contextlib.suppress(OSError):
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, subject.device.fwmark)
            try:
                probe.connect(endpoint.sockaddr)
                probe.send(b"\0")
            except OSError as error:
                yield _refused(subject, key, endpoint, error)
                continue
            waiting.append((key, endpoint, probe))
        until = time.monotonic() + min(PROBE_SECONDS, subject.patience)
        while waiting and (left := until - time.monotonic()) > 0:
            failed = _wait([probe for _, _, probe in waiting], min(left, _EVERY))
            waiting = [entry for entry in waiting if entry[2] in failed or not has_session(subject, entry[0])]
            for entry in [entry for entry in waiting if entry[2] in failed]:
                waiting.remove(entry)
                key, endpoint, probe = entry
                if (said := _read_error(probe, endpoint)) is not None:
                    yield subject.finding(
                        "unreachable",
                        f"{said[1] or 'This host'} answers for {endpoint}, where {subject.called(key)} is: "
                        f"{said[0]}.",
                        f"# is {endpoint} right? On that host: pywg show; its ListenPort, and its firewall",
                        f"traceroute -U -p {endpoint.port} {endpoint.host}",
                        key=key,
                    )


def routes_of_allowed_ips(subject: Subject) -> Iterator[Finding]:
    """What is allowed has to be routed into the tunnel."""
    if subject.device is None or not sys.platform.startswith("linux"):
        return
    if subject.config is not None and value_of(subject.config.interface.table) == "off":
        return
    own = index_of(subject.interface)
    with Rtnetlink() as netlink:
        for peer in subject.device.peers:
            elsewhere = []
            for network in list(peer.allowed_ips)[:NETWORKS_AT_MOST]:
                try:
                    route = netlink.route_to(address_in(network))
                    is_elsewhere = route.interface != own and route.kind != _LOCAL
                except OSError:
                    is_elsewhere = True
                if is_elsewhere:
                    elsewhere.append(network)
            if elsewhere:
                key, some = str(peer.public_key), ", ".join(map(str, elsewhere[:3]))
                more = f" and {len(elsewhere) - 3} more" if len(elsewhere) > 3 else ""
                yield subject.finding(
                    "not-routed",
                    f"{some}{more}, allowed for {subject.called(key)}, has no route through "
                    f"{subject.interface}.",
                    *(f"ip -{n.version} route add {n} dev {subject.interface}" for n in elsewhere[:3]),
                    key=key,
                )


def source_checks(subject: Subject) -> Iterator[Finding]:
    """A strict check of source addresses, with a default route in a table of its own."""
    device = subject.device
    if device is None or not device.fwmark:
        return
    if any(
        network.prefixlen == 0 and network.version == 4 for p in device.peers for network in p.allowed_ips
    ):
        names = [file.name for file in Path("/proc/sys/net/ipv4/conf").glob("*")]
        every, valid = _sysctl("net/ipv4/conf/all/rp_filter"), _sysctl("net/ipv4/conf/all/src_valid_mark")
        strict = [n for n in names if max(every, _sysctl(f"net/ipv4/conf/{n}/rp_filter")) == 1]
        if valid == 0 and [n for n in strict if n not in ("all", "default", "lo")]:
            yield subject.finding(
                "reverse-path-filter",
                "net.ipv4.conf.all.src_valid_mark is 0 with a strict rp_filter: the peer's datagrams seem "
                "to come from the wrong side, as everything is routed into the tunnel.",
                "sysctl -w net.ipv4.conf.all.src_valid_mark=1",
            )


def forwarding(subject: Subject) -> Iterator[Finding]:
    """A hub, or a host before a network, has to forward."""
    if subject.device is None or _sysctl("net/ipv4/ip_forward") != 0:
        return
    if subject.config is not None and subject.other is not None:
        ours = [a.value.ip for a in subject.config.interface.addresses if a.value.version == 4]
        key = value_of(subject.config.interface.private_key)
        beyond = [
            entry.value.network
            for peer in subject.other.peers
            if key is not None and peer.public_key.value == key.public_key
            for entry in peer.allowed_ips
            if entry.value.network.version == 4 and not _holds_only(entry.value.network, ours)
        ]
        if beyond:
            yield subject.finding(
                "forwarding-off",
                f"{subject.other_path} sends {', '.join(map(str, beyond[:3]))} here, and this host does "
                "not forward.",
                "sysctl -w net.ipv4.ip_forward=1",
                "# to stay: net.ipv4.ip_forward = 1 in /etc/sysctl.d/90-forward.conf",
            )
            return
    callers = [p for p in subject.peers_of_file() if p.endpoint is None]
    if len(callers) > 1 and len(callers) == len(subject.peers_of_file()):
        yield subject.finding(
            "forwarding-off",
            f"{len(callers)} peers call this host, which does not forward: they cannot reach each other, "
            "nor networks behind it.",
            "sysctl -w net.ipv4.ip_forward=1",
            severity=Severity.NOTE,
        )


CHECKS = (
    interface_is_there,
    interface_is_usable,
    one_key_for_two_interfaces,
    names_of_endpoints,
    ways_to_endpoints,
    probes,
    routes_of_allowed_ips,
    source_checks,
    forwarding,
)

CHECKS_FROM_ELSEWHERE = (interface_is_there, one_key_for_two_interfaces, names_of_endpoints)
"""Those that say something of an interface in another network namespace."""


def _endpoints(subject: Subject) -> Iterator[tuple[str, Endpoint]]:
    peers = subject.device.peers if subject.device is not None else ()
    with_one = [(str(peer.public_key), peer.endpoint) for peer in peers if peer.endpoint is not None]
    yield from with_one[:ENDPOINTS_AT_MOST]


def _leads_out(subject: Subject, endpoint: Endpoint) -> bool:
    """Whether there is a route to an endpoint beside the tunnel; what is wrong is told elsewhere."""
    mark = subject.device.fwmark if subject.device is not None else 0
    try:
        with Rtnetlink() as netlink:
            index = netlink.route_to(endpoint.host, mark).interface
    except OSError:
        return False
    return index is not None and index != index_of(subject.interface)


def _refused(subject: Subject, key: str, endpoint: Endpoint, error: OSError) -> Finding:
    port = subject.device.listen_port if subject.device is not None else 0
    if error.errno in (errno.EPERM, errno.EACCES):
        return subject.finding(
            "not-sent",
            f"The local firewall forbids datagrams to {endpoint}, where {subject.called(key)} is.",
            "nft list ruleset  # or: iptables-save; look for drop and reject",
            f"nft insert rule inet filter output udp sport {port} accept  # as your tables are called",
            key=key,
        )
    return subject.finding(
        "not-sent",
        f"The system sends nothing to {endpoint}, where {subject.called(key)} is: {error.strerror}.",
        f"ip route get {endpoint.host}{_marked(subject)}",
        key=key,
    )


def _wait(sockets: list[socket.socket], seconds: float) -> list[socket.socket]:
    poller = select.poll()
    by_number = {probe.fileno(): probe for probe in sockets}
    for number in by_number:
        poller.register(number, select.POLLERR)
    return [by_number[number] for number, _ in poller.poll(seconds * 1000)]


def _read_error(probe: socket.socket, endpoint: Endpoint) -> tuple[str, str] | None:
    """What an ICMP message said, and who said it; "" is this host."""
    try:
        _, ancillary, _, _ = probe.recvmsg(64, 512, _ERROR_QUEUE)
    except OSError:
        return None
    for _, _, data in ancillary:
        if len(data) < 16:
            continue
        number, origin, kind, code = struct.unpack_from("@IBBB", data)
        text = _ICMP.get(number, os.strerror(number))
        prohibited, codes = _PROHIBITED[endpoint.family]
        if origin > 1 and kind == prohibited and code in codes:
            text = _ICMP[errno.EACCES]
        who = ""
        if origin == 2 and len(data) >= 24:
            who = socket.inet_ntop(socket.AF_INET, data[20:24])
        elif origin == 3 and len(data) >= 40:
            who = socket.inet_ntop(socket.AF_INET6, data[24:40])
        return text, who
    return None


def _is_numeric(name: EndpointName) -> bool:
    try:
        ipaddress.ip_address(name.host.partition("%")[0])
    except ValueError:
        return False
    return True


def _is_shared(host: str) -> bool:
    address = ipaddress.ip_address(host)
    return address.version == 4 and any(address in network for network in _SHARED)


def _holds_only(network: Network, addresses: Sequence[object]) -> bool:
    return network.is_one_address and ipaddress.ip_address(network.address) in addresses


def _marked(subject: Subject) -> str:
    return f" mark {subject.device.fwmark}" if subject.device is not None and subject.device.fwmark else ""


def _sysctl(name: str) -> int:
    """-1 where there is none."""
    try:
        return int(Path("/proc/sys", name).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return -1
