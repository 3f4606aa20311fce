"""Two stations, each with one program, and a tunnel between them: every interoperability case begins so."""

from __future__ import annotations

import base64
import dataclasses
import secrets

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tests.system.net import Lab, Link, Machine, Task, add_address
from tests.system.programs import Program

WG = "wg0"
PORT = 51820


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    """A private key and its public key, base64 as `wg` writes them."""

    private: str
    public: str

    @classmethod
    def generate(cls) -> Key:
        key = X25519PrivateKey.generate()
        private, public = key.private_bytes_raw(), key.public_key().public_bytes_raw()
        return cls(base64.b64encode(private).decode(), base64.b64encode(public).decode())


def generate_psk() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


def hostport(address: str, port: int = PORT) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


@dataclasses.dataclass
class Station:
    """A machine at one end of the wire, and the program that runs there.

    outer: its addresses on the wire, inner: those in the tunnel; each an IPv4 and an IPv6 address.
    """

    program: Program
    machine: Machine
    outer: tuple[str, str]
    inner: tuple[str, str]
    uplink: str = ""
    key: Key = dataclasses.field(default_factory=Key.generate)
    task: Task | None = None
    is_up: bool = False
    settings: str = ""  # the last one given to `wg setconf`

    @property
    def name(self) -> str:
        return f"{self.machine.name} ({self.program.name})"

    def start(self) -> None:
        """Start the program; its interface goes up once it is configured, as with wg-quick."""
        self.task = self.program.bring_up(self.machine, WG)
        self.is_up = False

    def stop(self) -> None:
        self.program.take_down(self.machine, WG, self.task)

    def restart(self) -> None:
        """End the program, start it anew, and give it the same configuration."""
        self.stop()
        self.start()
        self.setconf(self.settings)

    def wg(self, *arguments: str, input: str | None = None) -> str:
        return self.machine.run("wg", *arguments, input=input)

    def setconf(self, settings: str) -> None:
        self.settings = settings
        self.machine.write("/run/wg.conf", settings)
        self.wg("setconf", WG, "/run/wg.conf")
        if not self.is_up:
            add_address(self.machine, WG, f"{self.inner[0]}/24")
            add_address(self.machine, WG, f"{self.inner[1]}/64")
            self.machine.run("ip", "link", "set", WG, "mtu", "1420", "up")
            self.is_up = True

    def configure(
        self, other: Station, *, endpoint: str | None = None, psk: str | None = None, keepalive: int = 0
    ) -> None:
        """Replace the whole configuration: our key and port, and `other` as the only peer."""
        lines = ["[Interface]", f"PrivateKey = {self.key.private}", f"ListenPort = {PORT}"]
        lines += ["[Peer]", f"PublicKey = {other.key.public}"]
        lines.append(f"AllowedIPs = {other.inner[0]}/32, {other.inner[1]}/128")
        if psk:
            lines.append(f"PresharedKey = {psk}")
        if endpoint:
            lines.append(f"Endpoint = {endpoint}")
        if keepalive:
            lines.append(f"PersistentKeepalive = {keepalive}")
        self.setconf("\n".join(lines) + "\n")

    def latest_handshake(self) -> int:
        """The time of its only peer's last handshake in seconds of the wall clock; 0: there was none."""
        return int(self.wg("show", WG, "latest-handshakes").split()[1])

    def peer_endpoint(self) -> str:
        """Where its only peer is, as it believes."""
        return self.wg("show", WG, "endpoints").split()[1]


@dataclasses.dataclass
class Tunnel:
    """Two stations on one wire, their programs running."""

    lab: Lab
    left: Station
    right: Station
    link: Link

    def configure(
        self, *, initiator: Station, psk: str | None = None, outer: int = 4, keepalive: int = 0
    ) -> None:
        """Configure both; only `initiator` knows where the other is, so only it can start a handshake."""
        responder = self.other(initiator)
        responder.configure(initiator, psk=psk)
        initiator.configure(
            responder, endpoint=hostport(responder.outer[outer == 6]), psk=psk, keepalive=keepalive
        )

    def other(self, station: Station) -> Station:
        return self.right if station is self.left else self.left


def make_station(lab: Lab, program: Program, name: str, number: int) -> Station:
    """A station that is not on a wire yet, with the program not started yet."""
    machine = program.machine(lab, lab.host(name))
    return Station(
        program,
        machine,
        outer=(f"192.0.2.{number}", f"2001:db8::{number}"),
        inner=(f"10.77.0.{number}", f"fd77::{number}"),
    )


def make_tunnel(lab: Lab, left: Program, right: Program) -> Tunnel:
    """Two stations joined by a wire, programs started, nothing configured yet."""
    one, two = make_station(lab, left, "left", 1), make_station(lab, right, "right", 2)
    link = lab.join(
        one.machine,
        two.machine,
        [f"{one.outer[0]}/24", f"{one.outer[1]}/64"],
        [f"{two.outer[0]}/24", f"{two.outer[1]}/64"],
    )
    one.uplink, two.uplink = link.left_interface, link.right_interface
    for station in (one, two):
        start_station(lab, station)
    return Tunnel(lab, one, two, link)


def start_station(lab: Lab, station: Station) -> None:
    """Start the program of a station that is on its wire."""
    station.start()
    lab.witnesses.append((f"wg show on {station.name}", lambda: station.wg("show", WG)))
