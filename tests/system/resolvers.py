"""What sets name servers, on a host with its own /etc: systemd-resolved, openresolv, Debian's resolvconf.

Each runs from Debian's package, as `tests/peers/install resolvers` unpacked it.
"""

from __future__ import annotations

from tests.system.net import Host, eventually
from tests.system.programs import CACHE, INSTALL

RESOLVERS = CACHE / "resolvers"
BEFORE = "nameserver 192.0.2.53\nsearch before.example\n"

_BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/>
<allow own="*"/><allow user="*"/></policy></busconfig>
"""


def missing_resolvers() -> str | None:
    """None when they are unpacked here; else a sentence that says what does it."""
    if all((RESOLVERS / package).is_dir() for package in ("openresolv", "resolvconf", "systemd-resolved")):
        return None
    return f"no resolvconf and systemd-resolved here to test with: {INSTALL} resolvers"


def own_etc(host: Host, resolv_conf: str = BEFORE) -> None:
    """Give the host a copy of /etc that only it sees, and this resolv.conf in it."""
    copied = "mkdir /run/etc; cp -a /etc/. /run/etc 2>/dev/null || true"
    host.run("sh", "-ec", f"{copied}; mount --bind /run/etc /etc")
    host.run("rm", "-f", "/etc/resolv.conf")
    host.run("sh", "-ec", "umask 022; cat > /etc/resolv.conf", input=resolv_conf)


def resolv_conf(host: Host) -> list[str]:
    """What the C library reads of the host's resolv.conf: servers in their order, then domains."""
    lines = host.run("cat", "/etc/resolv.conf").splitlines()
    kinds = ("nameserver ", "search ", "domain ")
    return [line for kind in kinds for line in lines if line.startswith(kind)]


def with_openresolv(host: Host) -> None:
    """The host's `resolvconf` is openresolv's, and knows BEFORE as what eth0 was told."""
    own_etc(host)
    _install(host, "openresolv")
    host.run("resolvconf", "-a", "eth0", input=BEFORE)


def with_debian_resolvconf(host: Host) -> None:
    """The host's `resolvconf` is Debian's, and knows BEFORE as what eth0 was told by DHCP."""
    own_etc(host)
    _install(host, "resolvconf")
    host.run(
        "sh",
        "-ec",
        "mkdir -p /run/resolvconf/interface; ln -sfn ../run/resolvconf/resolv.conf /etc/resolv.conf",
    )
    host.run("resolvconf", "--enable-updates")
    host.run("resolvconf", "-a", "eth0.dhclient", input=BEFORE)


def with_resolved(host: Host, resolv_conf: str = "") -> None:
    """The host has a message bus and systemd-resolved, and asks it, unless `resolv_conf` says otherwise."""
    own_etc(host, resolv_conf or BEFORE)
    _install(host, "systemd-resolved")
    user = "echo systemd-resolve:x:0:0::/:/bin/false >> /etc/passwd; echo systemd-resolve:x:0: >> /etc/group"
    host.run("sh", "-ec", f"{user}; mkdir -p /run/dbus /run/systemd/resolve")
    host.write("/run/bus.conf", _BUS)
    host.start("dbus-daemon", "--config-file=/run/bus.conf", "--nofork", "--nopidfile")
    eventually("the message bus listens", lambda: host.path("/run/dbus/system_bus_socket").exists())
    host.start("/usr/lib/systemd/systemd-resolved")
    eventually("resolved is on the bus", lambda: "Global" in host.run("resolvectl", "status", check=False))
    if not resolv_conf:
        host.run("ln", "-sfn", "/run/systemd/resolve/stub-resolv.conf", "/etc/resolv.conf")


def _install(host: Host, package: str) -> None:
    """Let the host see the package's files where they belong, over what is there."""
    folder = RESOLVERS / package
    for part, target in (("sbin", "/usr/sbin"), ("lib", "/usr/lib"), ("usr/bin", "/usr/bin")):
        if (folder / part).is_dir():
            host.run("mount", "-t", "overlay", "-o", f"lowerdir={folder / part}:{target}", "overlay", target)
    host.run("cp", "-a", "--no-preserve=ownership", f"{folder}/etc/.", "/etc")
