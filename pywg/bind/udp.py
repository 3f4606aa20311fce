"""UDP sockets of the system: IPv4 and IPv6 on one port, with segmentation offload where the kernel has it.

Follows the kernel's WireGuard where that differs from a plain socket: IPv4 datagrams leave without "don't
fragment", so that a path with a smaller MTU fragments them and data still flows; IPv6 is fragmented here,
to what ICMPv6 told of the path. Numbers of options are Linux's; elsewhere those that are not in `socket` are
left out, and on Windows datagrams leave from where routing has it, with TOS 0.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeAlias

from pywg.bind.base import BindOffload, Received
from pywg.errors import PywgError, remedy
from pywg.tun import netlink, utun
from pywg.wire.endpoint import Endpoint, LocalAddress

BUFFER_SIZE = 7 << 20
"""What is asked for as receive and as send buffer, in bytes; wireguard-go asks for the same."""

MAX_SEGMENTS = 64
"""Datagrams in one UDP_SEGMENT send: UDP_MAX_SEGMENTS of Linux up to 6.8 (later: 128)."""

MAX_PAYLOAD = {socket.AF_INET: 65535 - 20 - 8, socket.AF_INET6: 65535 - 8}
"""Bytes of UDP payload in one send, by family."""

_PORT_ATTEMPTS = 100
_CACHED_ENDPOINTS = 4096
_REMEMBERED_REFUSALS = 1024
_REFUSAL_LASTS = 1024  # sends until UDP_SEGMENT is tried again: routes and drivers change
_READS_IN_A_ROW = 16
_RECEIVE_SIZE = 65536
_PAUSE = 0.001  # seconds after an error that may stay
_CONTROL_SIZE = 256

_LINUX = sys.platform == "linux"
_DARWIN = sys.platform == "darwin"
_HAS_CONTROL = hasattr(socket.socket, "recvmsg_into")
"""Whether Python tells and sets more than addresses here (local address, TOS); on Windows it does not."""
_SOL_UDP = 17
_UDP_SEGMENT = 103
_UDP_GRO = 104
_SO_RCVBUFFORCE = 33
_SO_SNDBUFFORCE = 32
_IP_MTU_DISCOVER = 10
_IP_PMTUDISC_DONT = 0
_IP_TOS = socket.IP_TOS
_IP_RECVTOS: int | None = getattr(socket, "IP_RECVTOS", 13 if _LINUX else None)
_IP_PKTINFO: int | None = getattr(socket, "IP_PKTINFO", 8 if _LINUX else None)
_IPV6_RECVPKTINFO: int | None = getattr(socket, "IPV6_RECVPKTINFO", None)
_IPV6_PKTINFO: int | None = getattr(socket, "IPV6_PKTINFO", None)
_IPV6_RECVTCLASS: int | None = getattr(socket, "IPV6_RECVTCLASS", None)
_IPV6_TCLASS: int | None = getattr(socket, "IPV6_TCLASS", None)

_IN_PKTINFO = struct.Struct("=I4s4s")
_IN6_PKTINFO = struct.Struct("=16sI")
_INT = struct.Struct("=i")
_U16 = struct.Struct("=H")

_Control: TypeAlias = tuple[int, int, bytes]

_FAMILY_MISSING = frozenset(
    {errno.EAFNOSUPPORT, errno.EPFNOSUPPORT, errno.EPROTONOSUPPORT, errno.EADDRNOTAVAIL}
)
_SUPER_PACKET_REFUSED = frozenset({errno.EIO, errno.EINVAL, errno.EMSGSIZE})
_LOCAL_REFUSED = frozenset(
    {errno.EINVAL, errno.EADDRNOTAVAIL, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENODEV, errno.ENXIO}
)
_OF_THE_NETWORK = frozenset(
    {errno.ECONNREFUSED, errno.ECONNRESET, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EMSGSIZE, errno.EINTR}
)
"""What a socket tells once of a datagram that it sent; the next call succeeds."""
_WOULD_BLOCK = frozenset({errno.EAGAIN, errno.EWOULDBLOCK})
_IPV4_ANY = "0.0.0.0"  # noqa: S104  a WireGuard port is open to everybody; the protocol is what keeps strangers out


class UdpBind:
    """The sockets of one device. Make one with `open`.

    Sending never waits: what a full queue below the socket refuses (ENOBUFS) is lost, as in the kernel,
    because nothing tells when there is room again. A full socket buffer does tell, and stops the burst.
    """

    def __init__(
        self, sockets: dict[socket.AddressFamily, socket.socket], port: int, offload: BindOffload
    ) -> None:
        self._sockets = sockets
        self._order = list(sockets.values())
        self._offload = offload
        self._port = port
        self._changes: socket.socket | None = None
        with contextlib.suppress(OSError):
            if _LINUX:
                self._changes = netlink.open_route_events()
            elif _DARWIN:
                self._changes = utun.open_route_events(utun.Darwin())
        self._turn = 0
        self._reads = 0
        self._buffer = bytearray(_RECEIVE_SIZE)
        self._view = memoryview(self._buffer)
        self._receivers = [_receiver(sock, self._view) for sock in self._order]
        self._endpoints: dict[tuple[object, bytes], Endpoint] = {}
        self._refused: dict[str, list[int]] = {}
        self.errors: Counter[int] = Counter()
        """Errors that were swallowed (ICMP's on receiving, ENOBUFS on sending), by errno."""
        self._lost = 0

    @classmethod
    def open(cls, port: int = 0, mark: int = 0, *, gso: bool = True, gro: bool = True) -> UdpBind:
        """Open both families on `port`, or on a free one if that is 0; one family may be missing on the host.

        mark: as in `set_mark`. gso, gro: false leaves the offload out although the kernel has it.
        Raises PywgError with a sentence when the port is taken or the system has no UDP at all.
        """
        if not 0 <= port <= 65535:
            raise PywgError(f"{port} is not a port number from 0 to 65535")
        sockets, port = _open_pair(port)
        try:
            can_send = [_has_gso(sock) for sock in sockets.values()] if gso else [False]
            can_receive = [_enable_gro(sock) for sock in sockets.values()] if gro else [False]
            bind = cls(sockets, port, BindOffload(gso=all(can_send), gro=all(can_receive)))
            if mark:
                bind.set_mark(mark)
        except BaseException:
            _close_all(sockets)
            raise
        return bind

    @property
    def port(self) -> int:
        """The UDP port that all sockets share."""
        return self._port

    @property
    def offload(self) -> BindOffload:
        """What the sockets were opened with."""
        return self._offload

    def filenos(self) -> Sequence[int]:
        """The sockets' descriptors; none after `close`."""
        return [s.fileno() for s in self._order]

    def changes_fileno(self) -> int:
        """See `Bind.changes_fileno`."""
        return -1 if self._changes is None else self._changes.fileno()

    def take_changes(self) -> None:
        """See `Bind.take_changes`."""
        if self._changes is not None:
            netlink.drain(self._changes)

    def receive(self) -> Received | None:
        """See `Bind.receive`."""
        receivers = self._receivers
        for _ in range(len(receivers)):
            if self._reads >= _READS_IN_A_ROW:
                self._next_turn()
            try:
                size, control, _flags, address = receivers[self._turn]()
            except BlockingIOError:
                self._next_turn()
                continue
            except OSError as error:
                self.errors[error.errno or 0] += 1
                self._next_turn()
                if error.errno not in _OF_THE_NETWORK:
                    time.sleep(_PAUSE)  # it waits still, and is tried again
                continue
            self._reads += 1
            return self._received(size, control, address)
        return None

    def _next_turn(self) -> None:
        self._turn = (self._turn + 1) % len(self._order)
        self._reads = 0

    def _received(self, size: int, control: list[_Control], address: object) -> Received:
        segment_size = size
        tos = 0
        info = b""
        for level, kind, data in control:
            if level == _SOL_UDP:
                if kind == _UDP_GRO and len(data) >= 4:
                    told = _INT.unpack_from(data)[0]
                    segment_size = told if 0 < told < size else size
            elif level == socket.IPPROTO_IP:
                if kind == _IP_PKTINFO:
                    info = data
                elif kind in {_IP_TOS, _IP_RECVTOS} and data:
                    tos = data[0]
            elif level == socket.IPPROTO_IPV6:
                if kind == _IPV6_PKTINFO:
                    info = data
                elif kind == _IPV6_TCLASS and len(data) >= 4:
                    tos = _INT.unpack_from(data)[0] & 0xFF
        key = (address, info)
        endpoint = self._endpoints.get(key)
        if endpoint is None:
            if len(self._endpoints) >= _CACHED_ENDPOINTS:
                self._endpoints.clear()
            endpoint = Endpoint.from_sockaddr(address, _local_address(info))  # type: ignore[arg-type]
            self._endpoints[key] = endpoint
        return Received(self._view[:size], segment_size, endpoint, tos)

    def send(self, datagrams: Sequence[bytes | bytearray | memoryview], endpoint: Endpoint, tos: int) -> int:
        """See `Bind.send`. An error after the first datagram is left for the next call to meet again."""
        family = endpoint.family
        sock = self._sockets.get(family)
        if sock is None:
            raise OSError(errno.EAFNOSUPPORT, f"no {family.name} socket for {endpoint}")
        address = endpoint.sockaddr
        control = _send_control(endpoint, tos)
        sent = 0
        total = len(datagrams)
        while sent < total:
            run = self._run(datagrams, sent, endpoint.host, MAX_PAYLOAD[family]) if total - sent > 1 else 1
            try:
                if run == 1:
                    if _HAS_CONTROL:
                        sock.sendmsg((datagrams[sent],), control, 0, address)
                    else:
                        sock.sendto(datagrams[sent], address)
                else:
                    size = len(datagrams[sent])
                    segments = (_SOL_UDP, _UDP_SEGMENT, _U16.pack(size))
                    sock.sendmsg(datagrams[sent : sent + run], [*control, segments], 0, address)
            except OSError as error:
                code = error.errno or 0
                if code in _WOULD_BLOCK:
                    return sent
                if code == errno.ENOBUFS:
                    self.errors[code] += 1
                    self._lost += run
                elif run > 1 and code in _SUPER_PACKET_REFUSED:
                    # The size or the local address may be what is refused: datagram by datagram tells.
                    self._refuse(endpoint.host, 0 if code == errno.EIO else len(datagrams[sent]))
                    continue
                elif endpoint.local is not None and code in _LOCAL_REFUSED:
                    endpoint = Endpoint(endpoint.host, endpoint.port, endpoint.scope_id)
                    control = _send_control(endpoint, tos)
                    self._refused.pop(endpoint.host, None)
                    continue
                elif sent:
                    return sent
                else:
                    raise
            sent += run
        return sent

    def _run(
        self, datagrams: Sequence[bytes | bytearray | memoryview], first: int, host: str, room: int
    ) -> int:
        """How many datagrams from `first` on go out as one: of one size, the last of them may be shorter."""
        if not self._offload.gso:
            return 1
        size = len(datagrams[first])
        if size == 0 or (host in self._refused and self._still_refused(host, size)):
            return 1
        last = min(len(datagrams), first + MAX_SEGMENTS, first + room // size)
        end = first + 1
        while end < last:
            following = len(datagrams[end])
            if following != size:
                if 0 < following < size:
                    end += 1
                break
            end += 1
        return end - first

    def _still_refused(self, host: str, size: int) -> bool:
        entry = self._refused[host]
        if size < entry[0]:
            return False
        entry[1] -= 1
        if entry[1] <= 0:
            del self._refused[host]
        return True

    def _refuse(self, host: str, size: int) -> None:
        """Remember that super-packets with segments of `size` or more do not reach `host`."""
        if len(self._refused) >= _REMEMBERED_REFUSALS:
            self._refused.clear()
        self._refused[host] = [size, _REFUSAL_LASTS]

    def take_lost(self) -> int:
        """See `Bind.take_lost`."""
        lost, self._lost = self._lost, 0
        return lost

    def set_mark(self, mark: int) -> None:
        """Mark all that is sent (SO_MARK); 0 removes the mark. Raises PywgError where that cannot be."""
        option = getattr(socket, "SO_MARK", None)
        if option is None:
            if mark:
                raise PywgError("this system has no firewall marks; leave FwMark out")
            return
        try:
            for sock in self._order:
                sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("=I", mark))
        except OSError as error:
            if error.errno == errno.EPERM:
                reason = "a firewall mark can be set only as root or with CAP_NET_ADMIN"
            else:
                reason = f"the firewall mark cannot be set: {error.strerror}{remedy(error.errno)}"
            raise PywgError(reason) from error

    def close(self) -> None:
        """Close the sockets. Closing twice is harmless."""
        _close_all(self._sockets)
        self._sockets = {}
        self._order = []
        self._receivers = []
        self._turn = 0
        if self._changes is not None:
            self._changes.close()
            self._changes = None


def _open_pair(port: int) -> tuple[dict[socket.AddressFamily, socket.socket], int]:
    """Both families' sockets, bound to one port, and that port; without those that the host has not."""
    taken: OSError | None = None
    for _ in range(1 if port else _PORT_ATTEMPTS):
        sockets: dict[socket.AddressFamily, socket.socket] = {}
        chosen = port
        try:
            for family in (socket.AF_INET, socket.AF_INET6):
                try:
                    sockets[family] = _open_one(family, chosen)
                except OSError as error:
                    if error.errno not in _FAMILY_MISSING:
                        raise
                else:
                    chosen = sockets[family].getsockname()[1]
        except OSError as error:
            _close_all(sockets)
            if error.errno != errno.EADDRINUSE:
                raise _explained(port, error) from error
            taken = error
            continue
        if not sockets:
            raise PywgError("this system has neither IPv4 nor IPv6")
        return sockets, chosen
    if port:
        finder = f"ss -ulpn sport = :{port}" if _LINUX else f"lsof -nP -iUDP:{port}"
        raise PywgError(f"UDP port {port} is in use by another program; '{finder}' shows which") from taken
    raise PywgError("no UDP port is free for both IPv4 and IPv6") from taken


def _explained(port: int, error: OSError) -> PywgError:
    """Why that port, or with 0 any, cannot be opened, and what to do about it."""
    hint = remedy(error.errno)
    if error.errno in {errno.EACCES, errno.EPERM}:
        hint = "; a port below 1024 needs root or CAP_NET_BIND_SERVICE" if 0 < port < 1024 else ""
        hint = hint or "; what confines this program (seccomp, SELinux, AppArmor) may forbid it"
    what = f"UDP port {port} cannot be opened" if port else "no UDP port can be opened"
    return PywgError(f"{what}: {error.strerror}{hint}")


def _open_one(family: socket.AddressFamily, port: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        for plain, forced in (
            (socket.SO_RCVBUF, _SO_RCVBUFFORCE),
            (socket.SO_SNDBUF, _SO_SNDBUFFORCE),
        ):
            _enlarge(sock, plain, forced)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            _try_option(sock, socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
            _try_option(sock, socket.IPPROTO_IPV6, _IPV6_RECVTCLASS, 1)
            sock.bind(("::", port))
        else:
            _try_option(sock, socket.IPPROTO_IP, _IP_PKTINFO, 1)
            _try_option(sock, socket.IPPROTO_IP, _IP_RECVTOS, 1)
            if _LINUX:
                _try_option(sock, socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DONT)
            sock.bind((_IPV4_ANY, port))
    except BaseException:
        sock.close()
        raise
    return sock


def _enlarge(sock: socket.socket, plain: int, forced: int) -> None:
    """Ask for a buffer past the system's limit if we may, for as much as it gives otherwise."""
    if _LINUX and _try_option(sock, socket.SOL_SOCKET, forced, BUFFER_SIZE):
        return
    size = BUFFER_SIZE
    while not _try_option(sock, socket.SOL_SOCKET, plain, size) and size > 1 << 16:  # BSDs refuse, Linux cuts
        size //= 2


def _try_option(sock: socket.socket, level: int, option: int | None, value: int) -> bool:
    if option is None:
        return False
    try:
        sock.setsockopt(level, option, value)
    except OSError:
        return False
    return True


def _enable_gro(sock: socket.socket) -> bool:
    return _LINUX and _try_option(sock, _SOL_UDP, _UDP_GRO, 1)


def _has_gso(sock: socket.socket) -> bool:
    if not _LINUX:
        return False
    try:
        sock.getsockopt(_SOL_UDP, _UDP_SEGMENT)
    except OSError:
        return False
    return True


def _receiver(sock: socket.socket, view: memoryview) -> Callable[[], tuple[int, list[_Control], int, object]]:
    """Receives one read of a socket into `view`: its size, control messages, flags and source."""
    if _HAS_CONTROL:
        into = [view]
        return lambda: sock.recvmsg_into(into, _CONTROL_SIZE)

    def receive() -> tuple[int, list[_Control], int, object]:
        size, address = sock.recvfrom_into(view)
        return size, [], 0, address

    return receive


def _local_address(info: bytes) -> LocalAddress | None:
    """The local address in a PKTINFO control message of either family."""
    if len(info) == _IN_PKTINFO.size:
        interface, local, _header_destination = _IN_PKTINFO.unpack(info)
        return LocalAddress(socket.inet_ntop(socket.AF_INET, local), interface)
    if len(info) == _IN6_PKTINFO.size:
        local, interface = _IN6_PKTINFO.unpack(info)
        return LocalAddress(socket.inet_ntop(socket.AF_INET6, local), interface)
    return None


def _send_control(endpoint: Endpoint, tos: int) -> list[_Control]:
    """Control messages for a datagram: from `endpoint.local`, wherever routing sends it, with `tos`."""
    control: list[_Control] = []
    local = endpoint.local
    if endpoint.family == socket.AF_INET:
        if local is not None and _IP_PKTINFO is not None and ":" not in local.host:
            data = _IN_PKTINFO.pack(0, socket.inet_aton(local.host), bytes(4))
            control.append((socket.IPPROTO_IP, _IP_PKTINFO, data))
        if tos and _LINUX:  # others may refuse a datagram for it
            control.append((socket.IPPROTO_IP, _IP_TOS, _INT.pack(tos)))
    else:
        if local is not None and _IPV6_PKTINFO is not None and ":" in local.host:
            data = _IN6_PKTINFO.pack(socket.inet_pton(socket.AF_INET6, local.host), endpoint.scope_id)
            control.append((socket.IPPROTO_IPV6, _IPV6_PKTINFO, data))
        if tos and _IPV6_TCLASS is not None:
            control.append((socket.IPPROTO_IPV6, _IPV6_TCLASS, _INT.pack(tos)))
    return control


def _close_all(sockets: dict[socket.AddressFamily, socket.socket]) -> None:
    for sock in sockets.values():
        with contextlib.suppress(OSError):
            sock.close()
