"""Checks of what passes once there is a session: a ping, then the largest one that comes through, then drops.

The peers that are asked are those with a session and one address of their own among their allowed IPs.
"""

from __future__ import annotations

import ipaddress
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from pywg.config.model import Address
from pywg.device.snapshot import PeerSnapshot
from pywg.errors import PywgError
from pywg.host import control
from pywg.host.running import RunningInterface
from pywg.observe.checks import Subject
from pywg.observe.findings import Finding
from pywg.observe.watching import has_session, kernel_counters

PINGED_AT_MOST = 16
"""Peers."""

SMALLEST_MTU = {4: 576, 6: 1280}
"""Bytes below which nobody looks for what passes."""

PADDING = 16
"""Bytes in whose multiples packets are sealed."""

MULTICASTS = 8
"""Packets that the kernel itself sends into a new interface, looking for routers."""

_HEADERS = {4: 28, 6: 48}
_ANSWER = 0.7
_FIRST_ANSWER = 1.5


def traffic(subject: Subject) -> Iterator[Finding]:
    """Pings through the tunnel, and what the daemon and the kernel dropped meanwhile and before."""
    counters = kernel_counters()
    targets = list(_targets(subject))
    if targets and shutil.which("ping") is None:
        raise PywgError("`ping` is not installed")
    silent: list[Finding] = []
    if targets:
        with RunningInterface(subject.interface) as running:
            mtu = running.mtu()
        with ThreadPoolExecutor(PINGED_AT_MOST) as threads:
            asked = threads.map(lambda target: _ask(subject, target[0], target[1], mtu), targets)
            silent = [finding for finding in asked if finding is not None]
    if subject.watched.before is not None:
        subject.watched.after = control.statistics(subject.interface)
    grown = {name: value - counters.get(name, 0) for name, value in kernel_counters().items()}
    yield from silent
    yield from _dropped(subject)
    some_wait = bool(silent) or any(
        not has_session(subject, str(peer.public_key))
        for peer in (subject.device.peers if subject.device else ())
    )
    filtered = sum(counts.get("TcpExtIPReversePathFilter", 0) for counts in (grown, subject.watched.counters))
    if filtered and some_wait:
        yield subject.finding(
            "reverse-path-filter",
            f"The kernel dropped {filtered} packets whose source address is routed another way than they "
            "came (rp_filter).",
            f"sysctl -w net.ipv4.conf.{subject.interface}.rp_filter=2",
            "sysctl -w net.ipv4.conf.all.rp_filter=2",
            "nstat -az TcpExtIPReversePathFilter  # does it still grow?",
        )
    elsewhere = sum(counts.get("IpInAddrErrors", 0) for counts in (grown, subject.watched.counters))
    if elsewhere:
        yield subject.finding(
            "forwarding-off",
            f"{elsewhere} packets for other hosts arrived in a few seconds, and this host does not forward.",
            "sysctl -w net.ipv4.ip_forward=1",
            "# to stay: net.ipv4.ip_forward = 1 in /etc/sysctl.d/90-forward.conf",
        )


CHECKS = (traffic,)


def _targets(subject: Subject) -> Iterator[tuple[PeerSnapshot, Address]]:
    device = subject.watched.device or subject.device
    given = [ipaddress.ip_address(text) for text in subject.ping]
    found = 0
    for peer in device.peers if device is not None else ():
        if found >= PINGED_AT_MOST or not has_session(subject, str(peer.public_key)):
            continue
        own = [ipaddress.ip_address(n.address) for n in peer.allowed_ips if n.is_one_address]
        asked = [a for a in given if any(network.covers(a.packed) for network in peer.allowed_ips)]
        for address in (asked or own)[:1]:
            found += 1
            yield peer, address


def _ask(subject: Subject, peer: PeerSnapshot, address: Address, mtu: int) -> Finding | None:
    """Ping one peer, small and then large."""
    key = str(peer.public_key)
    if not _ping(subject, address, 84 if address.version == 4 else 104, _FIRST_ANSWER):
        return _silent(subject, peer, address)
    if _ping(subject, address, mtu) or _ping(subject, address, mtu):
        return None
    passes, fails = SMALLEST_MTU[address.version], mtu
    if passes >= fails or not _ping(subject, address, passes):
        return None  # no answer to large pings at all is no matter of the MTU
    while fails - passes > PADDING:
        middle = (passes + fails) // 2 // PADDING * PADDING
        if _ping(subject, address, middle):
            passes = middle
        else:
            fails = middle
    return subject.finding(
        "mtu-too-large",
        f"{address} of {subject.called(key)} answers a ping of {passes} bytes and none of {fails}; "
        f"{subject.interface} "
        f"has an MTU of {mtu}. Something on the way drops large datagrams and does not say so.",
        f"ip link set {subject.interface} mtu {passes}",
        f"# to stay, at both ends: MTU = {passes} in [Interface]",
        key=key,
    )


def _silent(subject: Subject, peer: PeerSnapshot, address: Address) -> Finding:
    key = str(peer.public_key)
    pair = subject.watched.peer(key)
    said = pair[1] if pair is not None else None
    if (
        said is not None
        and subject.config is not None
        and subject.endpoint_of_file(key) is None
        and said["handshakes"]["initiations_received"]
    ):
        latest = control.statistics(subject.interface)
        now = (
            next((p for p in latest["peers"] if p["public_key"] == key), said) if latest is not None else said
        )
        if now["rx_packets"] == said["rx_packets"]:
            age = time.time() - (said["last_handshake"] or 0)
            return subject.finding(
                "nat-mapping-lost",
                f"{subject.called(key)} called from {said['endpoint']} {age:.0f} s ago, and nothing sent "
                "there is answered now: it is off, or a router between forgot the way to it.",
                "# in the file of that peer, in the [Peer] section for this host:",
                "PersistentKeepalive = 25",
                key=key,
            )
    return subject.finding(
        "data-unanswered",
        f"There is a session with {subject.called(key)}, but {address} does not answer a ping: it does not "
        "have that address, its AllowedIPs miss ours, or its firewall drops pings.",
        "pywg doctor  # on the other host: it sees source-not-allowed",
        f"tcpdump -ni {subject.interface}  # on the other host: do packets arrive?",
        key=key,
    )


def _dropped(subject: Subject) -> Iterator[Finding]:
    count = subject.watched.drops("source-not-allowed")
    if count:
        yield subject.finding(
            "source-not-allowed",
            f"{count} packets came out of the tunnel with a source address that is not among their "
            "sender's allowed IPs, and were dropped.",
            f"tcpdump -ni any udp port {subject.device.listen_port if subject.device else 0}  # who sends?",
            f"pywg capture {subject.interface} -w drops.pcapng  # which address?",
            f"pywg set {subject.interface} peer KEY allowed-ips +ADDRESS",
        )
    count = subject.watched.drops("no-route")
    if count > MULTICASTS:
        yield subject.finding(
            "no-allowed-ip",
            f"{count} packets went into {subject.interface} for addresses that no peer has among its "
            "allowed IPs.",
            f"ip route show dev {subject.interface}  # what is routed into it",
            f"pywg show {subject.interface} allowed-ips  # and who takes it",
        )


def _ping(subject: Subject, address: Address, size: int, patience: float = _ANSWER) -> bool:
    """Whether a ping of this many bytes, the IP header too, that may not be cut up is answered."""
    done = subprocess.run(
        [
            *("ping", "-n", "-q", "-c", "1", "-M", "do", "-I", subject.interface, "-W", f"{patience:g}"),
            *("-s", str(size - _HEADERS[address.version]), str(address)),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=30,
        check=False,
    )
    return done.returncode == 0
