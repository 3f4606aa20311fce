"""Holds one network and mount namespace: sets them up, then waits until its standard input closes.

On end of file every process that is still in the namespaces is killed, so nothing outlives whoever holds the
other end of the pipe, however that one ended. Started as `unshare --net --mount python hold_namespaces.py`.
"""

import os
import pathlib
import signal
import subprocess
import sys

SYSCTLS = {
    "net/ipv6/conf/all/accept_dad": "0",
    "net/ipv6/conf/default/accept_dad": "0",
    "net/ipv4/conf/all/promote_secondaries": "1",
    "net/ipv4/conf/default/promote_secondaries": "1",
    "net/ipv4/ping_group_range": "0 0",
}


def private_files() -> None:
    """Give the namespace its own /run and /etc/wireguard, and a /sys that shows its own interfaces."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"], check=True)
    for name in ("wireguard", "lock"):
        pathlib.Path("/run", name).mkdir()
    if pathlib.Path("/etc/wireguard").is_dir():
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=700", "tmpfs", "/etc/wireguard"], check=True)
    # Refused inside some containers; then /sys keeps showing the interfaces from outside.
    subprocess.run(["mount", "-t", "sysfs", "sysfs", "/sys"], check=False, stderr=subprocess.DEVNULL)


def namespace(pid: str, kind: str) -> int:
    """The inode that stands for a process's namespace of this kind."""
    return pathlib.Path("/proc", pid, "ns", kind).stat().st_ino


def inhabitants() -> list[int]:
    """The other processes whose network or mount namespace is this one."""
    own = {kind: namespace("self", kind) for kind in ("net", "mnt")}
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if any(namespace(entry.name, kind) == inode for kind, inode in own.items()):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def main() -> None:
    private_files()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for name, value in SYSCTLS.items():
        path = pathlib.Path("/proc/sys", name)
        if path.exists():
            path.write_text(value)
    print("ready", flush=True)
    sys.stdin.read()
    for _ in range(10):
        remaining = inhabitants()
        if not remaining:
            return
        for pid in remaining:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


main()
