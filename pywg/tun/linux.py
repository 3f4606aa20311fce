"""Linux's tunnel devices: made through python-pytun or taken over as a descriptor, and followed from then on.

A device may be renamed, reconfigured, taken down, moved to another network namespace or removed by anybody at
any time; all of that is noticed here. See `Documentation/networking/tuntap.rst` of the kernel.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Sequence

from pywg.errors import PywgError, remedy
from pywg.tun import netlink
from pywg.tun.base import TunGoneError, TunOffload, TunState

DEFAULT_MTU = 1420
ALL_OFFLOADS = TunOffload(vnet_hdr=True, tso=True, uso=True)
NO_OFFLOADS = TunOffload()
"""What suits a data path in Python: sums over super-packets cost it more than the system calls they save."""

_DEVICE = "/dev/net/tun"
_VNET_HDR_LEN = 10
_READ_SIZE = 65536 + _VNET_HDR_LEN

_IFF_TUN = 0x0001
_IFF_VNET_HDR = 0x4000
_IFF_UP = 0x0001
_TUNSETOFFLOAD = 0x400454D0
_TUNGETIFF = 0x800454D2
_TUNSETVNETHDRSZ = 0x400454D8
_TUNGETDEVNETNS = 0x54E3
_TUN_F_CSUM = 0x01
_TUN_F_TSO = 0x02 | 0x04
_TUN_F_USO = 0x20 | 0x40
_SIOCGIFFLAGS = 0x8913
_SIOCGIFMTU = 0x8921
_SIOCSIFMTU = 0x8922
_IFREQ = struct.Struct("=16s24s")
_INT = struct.Struct("=i")
_U16 = struct.Struct("=H")


class LinuxTun:
    """An open TUN device. Make one with `create` or `from_fd`."""

    def __init__(self, fd: int, offload: TunOffload) -> None:
        self._fd = fd
        self._offload = offload
        self._name = "?"
        self._state = TunState(DEFAULT_MTU, up=False)
        self._events: socket.socket | None = None
        with contextlib.suppress(OSError):
            self._events = netlink.open_link_events()

    @classmethod
    def create(cls, name: str, mtu: int = DEFAULT_MTU, want: TunOffload = NO_OFFLOADS) -> LinuxTun:
        """Make the interface `name` (`%d` in it: the first free number), down, without addresses.

        It is not persistent: it disappears with this object. want: offloads to ask for; those the kernel does
        not have are left out, see `offload`. Raises PywgError with a sentence.
        """
        _check_name(name)
        vnet_hdr = want.vnet_hdr
        try:
            fd = _attach(name, vnet_hdr=vnet_hdr)
        except OSError as error:
            if error.errno != errno.EINVAL or not vnet_hdr:
                raise _explained(name, error) from error
            vnet_hdr = False
            try:
                fd = _attach(name, vnet_hdr=False)
            except OSError as second:
                raise _explained(name, second) from second
        return cls._adopt(name, fd, want if vnet_hdr else NO_OFFLOADS, mtu)

    @classmethod
    def from_fd(cls, fd: int, mtu: int | None = None, want: TunOffload = NO_OFFLOADS) -> LinuxTun:
        """Take over an open descriptor (`WG_TUN_FD`); it is ours from here on, also when this fails.

        It must be a TUN device with IFF_NO_PI (the kernel does not tell: TUNGETIFF gives that bit another
        meaning). With IFF_VNET_HDR, `offload.vnet_hdr` is true, wanted or not; without, nothing is.
        mtu: None leaves it as it is. Raises PywgError with a sentence.
        """
        try:
            os.set_inheritable(fd, False)
            flags = _U16.unpack_from(fcntl.ioctl(fd, _TUNGETIFF, bytes(40)), 16)[0]
        except OSError as error:
            with contextlib.suppress(OSError):
                os.close(fd)
            raise PywgError(f"descriptor {fd} is no tunnel device: {error.strerror}") from None
        if not flags & _IFF_TUN:
            os.close(fd)
            raise PywgError(f"descriptor {fd} is a TAP device; it must be a TUN device")
        vnet_hdr = bool(flags & _IFF_VNET_HDR)
        return cls._adopt("?", fd, dataclasses.replace(want, vnet_hdr=True) if vnet_hdr else NO_OFFLOADS, mtu)

    @classmethod
    def _adopt(cls, name: str, fd: int, want: TunOffload, mtu: int | None) -> LinuxTun:
        tun = cls(fd, _set_offload(fd, want))
        tun._name = name
        try:
            os.set_blocking(fd, False)
            tun._identify()
            if mtu is not None:
                tun.set_mtu(mtu)
            tun.state()
        except OSError as error:
            tun.close()
            reason = f"{error.strerror}{remedy(error.errno)}"
            raise PywgError(f"the tunnel device {tun._name} cannot be used: {reason}") from error
        except BaseException:
            tun.close()
            raise
        return tun

    @property
    def name(self) -> str:
        """The interface's name now; the last known one when it is gone."""
        with contextlib.suppress(TunGoneError):
            self._name = self._identify()[0]
        return self._name

    @property
    def offload(self) -> TunOffload:
        """What this device was opened with."""
        return self._offload

    def fileno(self) -> int:
        """The device's descriptor; -1 after `close`."""
        return self._fd

    def changes_fileno(self) -> int:
        """Readable when any interface changed; -1 where the system has no rtnetlink."""
        return -1 if self._events is None else self._events.fileno()

    def read(self) -> bytes | None:
        """See `Tun.read`."""
        try:
            return os.read(self._fd, _READ_SIZE)
        except BlockingIOError:
            return None
        except OSError as error:
            raise self._gone_or(error) from None

    def write(self, frame: Sequence[bytes | bytearray | memoryview]) -> None:
        """See `Tun.write`. EIO: the device is down. EINVAL: no IP packet, or a header that does not fit."""
        try:
            os.writev(self._fd, frame)
        except OSError as error:
            raise self._gone_or(error) from None

    def state(self) -> TunState:
        """See `Tun.state`.

        In another namespace, without the right to look there (CAP_NET_ADMIN), the MTU stays as last known.
        """
        if self._events is not None:
            netlink.drain(self._events)
        self._name, _ = self._identify()
        namespace = self._foreign_namespace()
        if namespace is None:
            state = self._ask_here()
        else:
            try:
                state = netlink.link_state_elsewhere(self._name, namespace)
            finally:
                os.close(namespace)
        if state is None:
            self._identify()
            state = TunState(self._state.mtu, self._accepts_writes())
        self._state = state
        return state

    def set_mtu(self, mtu: int) -> None:
        """Set the interface's MTU, in bytes. Raises PywgError with a sentence."""
        namespace = self._foreign_namespace()
        if namespace is not None:
            os.close(namespace)
            raise PywgError(f"the MTU of {self._name} cannot be set: it is in another network namespace")
        try:
            with _any_socket() as sock:
                fcntl.ioctl(sock, _SIOCSIFMTU, _ifreq(self.name, _INT.pack(mtu)))
        except OSError as error:
            reason = f"{error.strerror}{remedy(error.errno)}"
            raise PywgError(f"the MTU of {self._name} cannot be set to {mtu}: {reason}") from None

    def close(self) -> None:
        """See `Tun.close`."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._events is not None:
            self._events.close()
            self._events = None

    def _identify(self) -> tuple[str, int]:
        """Name and flags of the interface behind the descriptor, in whatever namespace it is."""
        try:
            name, rest = _IFREQ.unpack(fcntl.ioctl(self._fd, _TUNGETIFF, bytes(_IFREQ.size)))
        except OSError as error:
            raise self._gone_or(error) from None
        return os.fsdecode(name.partition(b"\0")[0]), _U16.unpack_from(rest)[0]

    def _foreign_namespace(self) -> int | None:
        """A descriptor of the device's network namespace; None if that is ours, or if nobody tells."""
        try:
            namespace = fcntl.ioctl(self._fd, _TUNGETDEVNETNS)
        except OSError:
            return None
        with contextlib.suppress(OSError):
            theirs, ours = os.fstat(namespace), os.stat("/proc/self/ns/net")  # noqa: PTH116
            if (theirs.st_dev, theirs.st_ino) != (ours.st_dev, ours.st_ino):
                return namespace
        os.close(namespace)
        return None

    def _ask_here(self) -> TunState | None:
        try:
            with _any_socket() as sock:
                mtu = fcntl.ioctl(sock, _SIOCGIFMTU, _ifreq(self._name))
                flags = fcntl.ioctl(sock, _SIOCGIFFLAGS, _ifreq(self._name))
        except OSError:
            return None
        return TunState(_INT.unpack_from(mtu, 16)[0], bool(_U16.unpack_from(flags, 16)[0] & _IFF_UP))

    def _accepts_writes(self) -> bool:
        """Old kernels tell that it is down by EIO for an empty write; newer ones say EINVAL in any state."""
        try:
            os.write(self._fd, b"")
        except OSError as error:
            return error.errno != errno.EIO
        return True

    def _gone_or(self, error: OSError) -> OSError | TunGoneError:
        if error.errno == errno.EBADFD or self._fd < 0:
            return TunGoneError(f"the tunnel device {self._name} was removed")
        return error


def _attach(name: str, *, vnet_hdr: bool) -> int:
    """A descriptor of a new TUN interface, not inheritable. Raises OSError."""
    import pytun  # noqa: PLC0415  exists on Linux only, while this module can be read anywhere

    flags = pytun.IFF_TUN | pytun.IFF_NO_PI | (pytun.IFF_VNET_HDR if vnet_hdr else 0)
    device = pytun.TunTapDevice(name, flags)
    try:
        return os.dup(device.fileno())
    finally:
        device.close()


def _set_offload(fd: int, want: TunOffload) -> TunOffload:
    """Ask for what is wanted, as much as there is. Without vnet_hdr there is nothing."""
    if not want.vnet_hdr:
        return NO_OFFLOADS
    with contextlib.suppress(
        OSError
    ):  # whoever opened it may have chosen the longer header; 10 is the default
        fcntl.ioctl(fd, _TUNSETVNETHDRSZ, _INT.pack(_VNET_HDR_LEN))
    offers = [(True, True), (True, False), (False, False)]
    for tso, uso in offers:
        if (tso and not want.tso) or (uso and not want.uso):
            continue
        bits = (_TUN_F_CSUM | _TUN_F_TSO if tso else 0) | (_TUN_F_USO if uso else 0)
        try:
            fcntl.ioctl(fd, _TUNSETOFFLOAD, bits)
        except OSError:
            continue
        return TunOffload(vnet_hdr=True, tso=tso, uso=uso)
    return TunOffload(vnet_hdr=True)


def _any_socket() -> socket.socket:
    """A socket to ask the kernel of interfaces through: any does, and this one there is without IPv4 too."""
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)


def _ifreq(name: str, value: bytes = b"") -> bytes:
    return _IFREQ.pack(os.fsencode(name), value)


def _check_name(name: str) -> None:
    encoded = os.fsencode(name)
    if not 1 <= len(encoded) <= 15:
        raise PywgError(f"'{name}' is no interface name: it must have 1 to 15 bytes")
    if name in {".", ".."} or any(c in "/:" or c.isspace() for c in name):
        raise PywgError(f"'{name}' is no interface name: no '/', ':' or white space")


def _explained(name: str, error: OSError) -> PywgError:
    """What went wrong with making `name`, and what to do about it."""
    code = error.errno
    if code in {errno.ENOENT, errno.ENODEV, errno.ENXIO}:
        return PywgError(
            f"{_DEVICE} is missing. Load the module with 'modprobe tun'; make the node with 'mknod {_DEVICE} "
            f"c 10 200'; a container gets it when started with '--device {_DEVICE}'"
        )
    if code in {errno.EPERM, errno.EACCES}:
        what = f"the tunnel device {name} may not be made here"
        return PywgError(f"{what}; it needs root or CAP_NET_ADMIN, and the right to open {_DEVICE}")
    if code == errno.EBUSY:
        return PywgError(f"the interface {name} exists already and is in use by another program")
    if code == errno.EINVAL:
        if name in {known for _, known in socket.if_nameindex()}:
            return PywgError(f"the interface {name} exists already and is no TUN device of this kind")
        return PywgError(f"'{name}' is no interface name that the system takes")
    return PywgError(f"the tunnel device {name} cannot be made: {error.strerror or error}{remedy(code)}")
