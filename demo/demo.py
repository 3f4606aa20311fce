"""Plays the story of the README on this machine: two hosts, a tunnel between them, a third host behind it.

The hosts are network namespaces of this script's own (without root: inside a user namespace), joined by
virtual cables. Every command it runs is printed with the host it runs on; nothing stays behind.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time

INSIDE = "PYWG_DEMO_INSIDE"
BIN = pathlib.Path(sys.executable).parent
COMMAND_LIMIT = 30
"""Seconds that no single command of the story needs."""

HELLO_SERVER = """\
import http.server, sys
class Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        text = f"hello from {sys.argv[1]}\\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
    def log_message(self, *args): pass
http.server.HTTPServer(("", int(sys.argv[2])), Hello).serve_forever()
"""


class DemoError(Exception):
    """The story can't go on; the message says why and what to do."""


def colored(code: str, text: str) -> str:
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\033[{code}m{text}\033[0m"


def say(text: str) -> None:
    print()
    for line in textwrap.wrap(text, 78):
        print(colored("36", f"# {line}"))


def have(program: str) -> bool:
    return shutil.which(program) is not None


class Host:
    """A machine of its own: network, host name, and its own /run, for as long as its holder lives."""

    def __init__(self, name: str, folder: pathlib.Path) -> None:
        self.name = name
        self.home = folder / name
        self.home.mkdir()
        set_up = f"hostname {name} && mount -t tmpfs tmpfs /run && ip link set lo up && echo ready"
        self.holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "--uts", "sh", "-c", f"{set_up} && exec sleep 300"],
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # a terminal's interrupt is for the story, which still needs this then
        )
        self.background: list[subprocess.Popen[str]] = []
        assert self.holder.stdout is not None
        try:
            if self.holder.stdout.readline() != "ready\n":
                raise DemoError(f"could not make the host {name}; see the message above")
        except BaseException:
            self.holder.kill()
            self.holder.wait()
            raise
        self.network = os.open(f"/proc/{self.holder.pid}/ns/net", os.O_RDONLY)
        assert not os.path.samestat(os.fstat(self.network), pathlib.Path("/proc/self/ns/net").stat())

    def _inside(self, line: str) -> list[str]:
        pid = str(self.holder.pid)
        return [
            "nsenter",
            "--net",
            "--mount",
            "--uts",
            "--target",
            pid,
            f"--wd={self.home}",
            "bash",
            "-c",
            line,
        ]

    def quietly(self, line: str) -> str:
        """Run a line that is not part of the story."""
        done = subprocess.run(self._inside(line), capture_output=True, text=True, timeout=COMMAND_LIMIT)
        if done.returncode:
            raise DemoError(f"{self.name}: {line}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def shows(self, line: str) -> None:
        print(colored("1", f"{self.name}$ {line}"), flush=True)

    def run(self, line: str) -> None:
        """Show a line and run it; what it prints is printed."""
        self.shows(line)
        status = subprocess.run(
            self._inside(line), stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT, timeout=COMMAND_LIMIT
        ).returncode
        if status:
            raise DemoError(f"'{line}' on {self.name} ended with status {status}")

    def start(self, line: str) -> subprocess.Popen[str]:
        """Show a line and run it in the background."""
        self.shows(f"{line} &")
        started = subprocess.Popen(
            self._inside(f"exec {line}"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.background.append(started)
        return started

    def wait_for_port(self, port: int) -> None:
        deadline = time.monotonic() + 5
        while f":{port} " not in self.quietly("ss -Hltn"):
            if time.monotonic() > deadline:
                raise DemoError(f"nothing listens on port {port} of {self.name}")
            time.sleep(0.05)

    def processes(self) -> list[pathlib.Path]:
        """What runs on this host, as folders of /proc."""
        found = []
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.path.samestat((process / "ns/net").stat(), os.fstat(self.network)):
                    found.append(process)
        return found

    def daemons(self) -> list[int]:
        """Process numbers of daemons that run on this host."""
        found = []
        for process in self.processes():
            with contextlib.suppress(OSError):
                if b"pywgd" in (process / "cmdline").read_bytes():
                    found.append(int(process.name))
        return found

    def write(self, name: str, text: str) -> None:
        path = self.home / name
        path.touch(0o600)
        path.write_text(text)

    def close(self) -> None:
        """Kill what runs here, daemons of an interrupted story among it; last who holds the namespaces."""
        while others := {int(process.name) for process in self.processes()} - {self.holder.pid}:
            for number in others:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
            time.sleep(0.01)
        for process in [*self.background, self.holder]:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        os.close(self.network)


def join(
    one: Host, its_interface: str, its_address: str, other: Host, other_interface: str, other_address: str
) -> None:
    """Lay a cable between two hosts."""
    one.quietly(f"ip link add {its_interface} type veth peer name {other_interface} netns {other.holder.pid}")
    for host, interface, address in (
        (one, its_interface, its_address),
        (other, other_interface, other_address),
    ):
        host.quietly(f"ip addr add {address} dev {interface} && ip link set {interface} up")


def story(folder: pathlib.Path) -> None:
    with contextlib.ExitStack() as stack:
        hosts = []
        for name in ("alice", "bob", "carol"):
            hosts.append(Host(name, folder))
            stack.callback(hosts[-1].close)
        stack.callback(signal.signal, signal.SIGINT, signal.SIG_IGN)  # it runs first: the rest is done
        alice, bob, carol = hosts
        join(alice, "eth0", "192.0.2.1/24", bob, "eth0", "192.0.2.2/24")
        join(bob, "eth1", "192.168.50.1/24", carol, "eth0", "192.168.50.2/24")

        say("Two hosts that reach each other: alice is 192.0.2.1, bob is 192.0.2.2. Each makes its keys.")
        for host in (alice, bob):
            host.run("umask 077; pywg genkey | tee privatekey | pywg pubkey > publickey")
        alice.run("cat publickey")
        bob.run("cat publickey")
        write_first_files(alice, bob)
        say("They tell each other their public keys. One file on each is all there is to configure.")
        for host in (alice, bob):
            host.run("sed -E 's/^(PrivateKey = ).*/\\1(hidden)/' wg0.conf")

        say("Up.")
        alice.run("pywg up ./wg0.conf")
        bob.run("pywg up ./wg0.conf")
        say("Packets flow.")
        alice.run("ping -c 3 -i 0.2 10.0.0.2")
        curl_through_the_tunnel(alice, bob)
        say("What the tunnel knows of itself.")
        alice.run("pywg show")

        say(
            "Now a third host: carol, 192.168.50.2, is only on bob's LAN and does not know of the "
            "tunnel. alice adds the LAN to bob's AllowedIPs; bob forwards, and hides the tunnel "
            "behind his own address."
        )
        for host in (alice, bob):
            host.run("pywg down ./wg0.conf")
        write_second_files(alice, bob)
        alice.run("grep AllowedIPs wg0.conf")
        bob.run("grep Post wg0.conf")
        for host in (bob, alice):
            host.run("pywg up ./wg0.conf")
        serve_hello(carol, 80)
        alice.run("ping -c 2 -i 0.2 192.168.50.2")
        if have("curl"):
            alice.run("curl -sS --max-time 5 http://192.168.50.2")

        throughput(alice, bob)
        say("Down, and nothing is left.")
        for host in (alice, bob):
            host.run("pywg down ./wg0.conf")
        alice.run("ip -brief link; ls -A /run/wireguard")
        for host in (alice, bob):
            left = [line for line in host.quietly("ip -oneline link").splitlines() if "wg0" in line]
            if left or host.daemons():
                raise DemoError(f"something was left behind on {host.name}: {left or host.daemons()}")


def write_first_files(alice: Host, bob: Host) -> None:
    write_files(alice, bob, alice_reaches="10.0.0.2/32", bob_adds="")


def write_second_files(alice: Host, bob: Host) -> None:
    if have("nft"):
        masquerade = (
            "PostUp = nft add table ip pywg_%i\n"
            "PostUp = nft add chain ip pywg_%i nat '{ type nat hook postrouting priority srcnat; }'\n"
            "PostUp = nft add rule ip pywg_%i nat ip saddr 10.0.0.0/24 oifname eth1 masquerade\n"
            "PostDown = nft delete table ip pywg_%i\n"
        )
    elif have("iptables"):
        masquerade = (
            "PostUp = iptables -t nat -A POSTROUTING -s 10.0.0.0/24 -o eth1 -j MASQUERADE\n"
            "PostDown = iptables -t nat -D POSTROUTING -s 10.0.0.0/24 -o eth1 -j MASQUERADE\n"
        )
    else:
        print("(neither nft nor iptables is here: carol gets a route back instead)")
        masquerade = ""
    write_files(
        alice,
        bob,
        alice_reaches="10.0.0.2/32, 192.168.50.0/24",
        bob_adds="PostUp = sysctl -q -w net.ipv4.ip_forward=1\n" + masquerade,
    )


def write_files(alice: Host, bob: Host, *, alice_reaches: str, bob_adds: str) -> None:
    keys = {host.name: (host.home / "publickey").read_text().strip() for host in (alice, bob)}
    alice.write(
        "wg0.conf",
        "[Interface]\n"
        f"PrivateKey = {(alice.home / 'privatekey').read_text().strip()}\n"
        "Address = 10.0.0.1/24\n"
        "\n"
        "[Peer]\n"
        f"PublicKey = {keys['bob']}\n"
        "Endpoint = 192.0.2.2:51820\n"
        f"AllowedIPs = {alice_reaches}\n",
    )
    bob.write(
        "wg0.conf",
        "[Interface]\n"
        f"PrivateKey = {(bob.home / 'privatekey').read_text().strip()}\n"
        "Address = 10.0.0.2/24\n"
        "ListenPort = 51820\n"
        f"{bob_adds}"
        "\n"
        "[Peer]\n"
        f"PublicKey = {keys['alice']}\n"
        "AllowedIPs = 10.0.0.1/32\n",
    )


def serve_hello(host: Host, port: int) -> None:
    host.write("hello.py", HELLO_SERVER)
    host.start(f"python3 hello.py {host.name} {port}")
    host.wait_for_port(port)


def curl_through_the_tunnel(alice: Host, bob: Host) -> None:
    serve_hello(bob, 9090)
    if not have("curl"):
        print("(curl is not here; it would print the hello of http://10.0.0.2:9090)")
        return
    if not have("tcpdump"):
        alice.run("curl -sS --max-time 5 http://10.0.0.2:9090")
        print("(tcpdump is not here; it would show the packets of that on wg0)")
        return
    say("The same seen on the tunnel device: what goes through it is plain IP.")
    sniffer = bob.start("tcpdump -l -n -i wg0 -c 6 tcp port 9090")
    bob_sees_wg0 = time.monotonic() + 1.0
    while "promiscuity 1" not in bob.quietly("ip -d link show wg0") and time.monotonic() < bob_sees_wg0:
        time.sleep(0.05)
    alice.run("curl -sS --max-time 5 http://10.0.0.2:9090")
    print(colored("2", f"({bob.name}'s tcpdump)"))
    try:
        seen, _ = sniffer.communicate(timeout=5)
    except subprocess.TimeoutExpired:
        raise DemoError("tcpdump saw nothing on wg0") from None
    print(textwrap.indent(seen, "  "), end="")


def throughput(alice: Host, bob: Host) -> None:
    if have("ethr"):
        say("How fast: ethr beside the tunnel, then through it.")
        bob.start("ethr -s")
        bob.wait_for_port(8888)
        line = "ethr -c {} -d 3s"
    elif have("iperf3"):
        say("How fast: iperf3 beside the tunnel, then through it.")
        bob.start("iperf3 -s")
        bob.wait_for_port(5201)
        line = "iperf3 -c {} -t 3 -f m | grep receiver"
    else:
        print("(neither ethr nor iperf3 is here, so no throughput)")
        return
    alice.run(line.format("192.0.2.2"))
    alice.run(line.format("10.0.0.2"))


def enter_namespaces() -> None:
    """Without root, run again as root of a user namespace; raises DemoError where that is forbidden."""
    if os.environ.get(INSIDE) or os.geteuid() == 0:
        return
    if not have("unshare"):
        raise DemoError("without root the demo needs unshare (package util-linux); or run it as root")
    probe = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--net", "--mount", "true"], capture_output=True, text=True
    )
    if probe.returncode:
        raise DemoError(
            "this system forbids user namespaces to ordinary users "
            f"({probe.stderr.strip()}); look at sysctl kernel.unprivileged_userns_clone, "
            "kernel.apparmor_restrict_unprivileged_userns and user.max_user_namespaces, or be root"
        )
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        raise DemoError(
            "ordinary users may not open /dev/net/tun here; run the demo as root, or let them: "
            "chmod 0666 /dev/net/tun (that is what most distributions do)"
        )
    os.environ[INSIDE] = "1"
    os.execvp(
        "unshare", ["unshare", "--user", "--map-root-user", "--net", "--mount", sys.executable, __file__]
    )


def main() -> int:
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    os.environ["PATH"] = f"{BIN}:{os.environ['PATH']}:/usr/sbin:/sbin"
    started = time.monotonic()
    try:
        enter_namespaces()
        for program in ("ip", "ss", "unshare", "nsenter", "ping", "bash"):
            if not have(program):
                packages = "iproute2 iputils-ping util-linux bash"
                raise DemoError(f"the demo needs '{program}'; on Debian: apt-get install {packages}")
        if not pathlib.Path("/dev/net/tun").exists():
            raise DemoError(
                "there is no /dev/net/tun; load the module (modprobe tun) or give it to this container"
            )
        with tempfile.TemporaryDirectory(prefix="pywg-demo-") as folder:
            story(pathlib.Path(folder))
    except DemoError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except subprocess.TimeoutExpired as error:
        print(f"demo: '{shlex.join(error.cmd[-1:])}' did not end in {COMMAND_LIMIT} s", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted; nothing is left behind", file=sys.stderr)
        return 130
    print()
    print(colored("32", f"The story was played in {time.monotonic() - started:.0f} s."))
    return 0


if __name__ == "__main__":
    sys.exit(main())
