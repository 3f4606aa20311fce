"""A changed file into the running tunnel: what differs is changed, and nothing else.

`plan` compares and decides, `reload` does it. What the file gave when the tunnel came up, and what cannot be
read off the interface, is in `pywg.host.state`: so what a hook or a person did beside the file stays, and an
endpoint that a peer has roamed to is not taken for a change. Peers are made equal to the file's, as by
`wg syncconf`; hooks do not run.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import shlex
import socket
import sys
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pywg.config.files import Loaded, load
from pywg.config.model import Config, EndpointName, InterfaceAddress, Peer, merge_peers, network_of
from pywg.config.positions import ConfigError, Located, Mistake, Position, value_of
from pywg.device.snapshot import DeviceSnapshot, PeerSnapshot
from pywg.errors import PywgError
from pywg.host import control, state
from pywg.host.dns import choose_dns, recall_dns
from pywg.host.firewall import Firewall, Installed
from pywg.host.linux import LinuxNetwork
from pywg.host.monitor import monitor_runs, start_or_warn, stop_monitor, watched_peers
from pywg.host.names import interface_exists, require_network_rights
from pywg.host.peernames import tell_names
from pywg.host.resolve import resolve_all
from pywg.host.routing import MAIN_TABLE, choose_mtu, routes_to_add, table_number
from pywg.host.running import RunningInterface
from pywg.host.state import State
from pywg.host.steps import Steps, Undo, placed
from pywg.host.tunnel import add_default_routes, require_wireguard, rules_left
from pywg.noise.keys import PresharedKey, PublicKey
from pywg.uapi.client import has_daemon
from pywg.uapi.format import AllowedIpChange, DeviceChange, PeerChange
from pywg.wire.endpoint import Endpoint
from pywg.wire.network import Network

Say = Callable[[str], None]

UNFINISHED = "unfinished"
"""In what is kept of a tunnel: the networks that a reload may have routed, as long as it has not ended."""


@dataclasses.dataclass(frozen=True, slots=True)
class Running:
    """The interface as it is. routes: those in the table that `up` used, as if added by hand; networks: all
    that is routed through it by the main table."""

    device: DeviceSnapshot
    addresses: Sequence[InterfaceAddress] = ()
    mtu: int = 1420
    routes: frozenset[Network] = frozenset()
    networks: frozenset[Network] = frozenset()


@dataclasses.dataclass(slots=True)
class Plan:
    """What to change. device: all but peers. move: the peers whose endpoint is the file's from now on.

    mtu: bytes, 0: as the ways to the endpoints have it; None: as it is. `old_table` and `table` are numbers;
    None: no routes. Default routes that have rules of their own are in the lists of defaults alone.
    """

    device: DeviceChange
    peers: list[PeerSnapshot]
    move: set[PublicKey]
    add_addresses: list[InterfaceAddress]
    delete_addresses: list[InterfaceAddress]
    mtu: int | None
    old_table: int | None
    table: int | None
    add_routes: list[Network]
    delete_routes: list[Network]
    add_defaults: list[Network]
    keep_defaults: list[Network]
    delete_defaults: list[Network]


def plan(
    config: Config, endpoints: Mapping[EndpointName, Endpoint], given: Mapping[str, Any], running: Running
) -> Plan:
    """Compare. endpoints: the resolved ones of all peers of which `peers_to_move` tells.

    given: what `state.given_by` said of the file that is running; empty when nobody knows. Raises ConfigError
    for what a running tunnel cannot be given.
    """
    section, device = config.interface, running.device
    move = peers_to_move(config, given, device)
    peers = [
        _target(peer, endpoints if peer.public_key.value in move else {})
        for peer in merge_peers(config.peers)
    ]
    old_table = _table(given.get("table"), "auto")
    table = _table(value_of(section.table), "auto")
    wanted = {network for peer in peers for network in peer.allowed_ips}
    before = {network for peer in device.peers for network in peer.allowed_ips}
    old_defaults, defaults = _defaults(before, old_table), _defaults(wanted, table)
    if UNFINISHED in given:  # their default routes are taken away before all else
        before |= {Network.parse(network) for network in given[UNFINISHED]}
        old_defaults = set()
    change = _device_change(config, given, device)
    if old_defaults | defaults:
        _refuse_unknown(config, given, change, old_defaults, defaults)
    add_addresses, delete_addresses = _addresses(section.addresses, given, running.addresses)
    delete_routes: set[Network] = set()
    if old_table is not None:
        delete_routes = {network for network in running.routes & before if _in_table(network, old_table)}
        if table == old_table:
            delete_routes -= wanted
    add_routes: list[Network] = []
    if table is not None:
        covered: set[Network] = set(running.routes - delete_routes if table == old_table else ())
        if table == MAIN_TABLE:
            gone = {network_of(address) for address in delete_addresses}
            covered |= (running.networks - delete_routes - gone) | {
                network_of(address) for address in add_addresses
            }
            covered |= {network_of(a) for a in running.addresses if a not in delete_addresses}
        add_routes = routes_to_add({network for network in wanted if _in_table(network, table)}, covered)
    mtu = value_of(section.mtu)
    if mtu == running.mtu or (mtu is None and given.get("mtu") is None):
        mtu = None
    elif mtu is None:
        mtu = 0
    return Plan(
        change,
        peers,
        move,
        add_addresses,
        delete_addresses,
        mtu,
        old_table,
        table,
        add_routes,
        sorted(delete_routes, key=lambda network: (-network.prefixlen, network.version, network)),
        sorted(defaults - old_defaults, key=_version),
        sorted(defaults & old_defaults, key=_version),
        sorted(old_defaults - defaults, key=_version),
    )


def peers_to_move(config: Config, given: Mapping[str, Any], device: DeviceSnapshot) -> set[PublicKey]:
    """The peers that get the file's endpoint: new ones, and those for which the file says another one.

    Where nobody knows what the file said before, those with a numeric endpoint that is not the peer's now.
    """
    present = {peer.public_key: peer for peer in device.peers}
    found = set()
    for peer in merge_peers(config.peers):
        key = peer.public_key.value
        if peer.endpoint is None:
            continue
        now = present.get(key)
        if now is None or now.endpoint is None:
            found.add(key)
        elif "endpoints" in given:
            names = [str(name.value) for name in (peer.endpoint, *peer.more_endpoints)]
            if given["endpoints"].get(key.base64) != names:
                found.add(key)
        else:
            with contextlib.suppress(PywgError):
                if Endpoint.parse(str(peer.endpoint.value)) != now.endpoint:
                    found.add(key)
    return found


def peer_changes(
    wanted: Sequence[PeerSnapshot],
    device: DeviceSnapshot,
    move: Container[PublicKey],
    *,
    single: bool,
) -> list[PeerChange]:
    """What makes the device's peers equal to the wanted ones; no peer is removed.

    move: peers that get the endpoint that is wanted. single: allowed IPs that go are taken away one by one,
    so that those that stay are there all the time; not every WireGuard knows that.
    """
    present = {peer.public_key: peer for peer in device.peers}
    changes = []
    for target in wanted:
        now = present.get(target.public_key)
        change = PeerChange(target.public_key)
        if now is None:
            now = PeerSnapshot(target.public_key)
        elif not single and set(now.allowed_ips) - set(target.allowed_ips):
            change.replace_allowed_ips = True
        if target.preshared_key != now.preshared_key:
            change.preshared_key = target.preshared_key
        if target.endpoint is not None and target.endpoint != now.endpoint and target.public_key in move:
            change.endpoint = target.endpoint
        if target.persistent_keepalive_interval != now.persistent_keepalive_interval:
            change.persistent_keepalive_interval = target.persistent_keepalive_interval
        there: set[Network] = set() if change.replace_allowed_ips else set(now.allowed_ips)
        change.allowed_ips = [
            *(AllowedIpChange(network) for network in target.allowed_ips if network not in there),
            *(AllowedIpChange(network, True) for network in there - set(target.allowed_ips)),
        ]
        if target.public_key not in present or change != PeerChange(target.public_key, allowed_ips=[]):
            changes.append(change)
    return changes


def peers_to_remove(wanted: Sequence[PeerSnapshot], device: DeviceSnapshot) -> list[PublicKey]:
    """Those that nobody wants."""
    named = {peer.public_key for peer in wanted}
    return [peer.public_key for peer in device.peers if peer.public_key not in named]


# --- Parts of the plan. -----------------------------------------------------------------------------------


def _target(peer: Peer, endpoints: Mapping[EndpointName, Endpoint]) -> PeerSnapshot:
    return PeerSnapshot(
        peer.public_key.value,
        value_of(peer.preshared_key) or PresharedKey.ZERO,
        None if peer.endpoint is None else endpoints.get(peer.endpoint.value),
        persistent_keepalive_interval=value_of(peer.persistent_keepalive) or 0,
        allowed_ips=[entry.value.network for entry in peer.allowed_ips],
    )


def _device_change(config: Config, given: Mapping[str, Any], device: DeviceSnapshot) -> DeviceChange:
    """A key, a port or a mark that the file does not have is left: a hook may have set it, or `up`."""
    section, change = config.interface, DeviceChange()
    if section.private_key is not None and section.private_key.value != device.private_key:
        change.private_key = section.private_key.value
    if section.listen_port is not None and section.listen_port.value not in (0, device.listen_port):
        change.listen_port = section.listen_port.value
    mark = value_of(section.fwmark)
    if mark is None and given.get("fwmark"):
        mark = 0
    if mark is not None and mark != device.fwmark:
        change.fwmark = mark
    return change


def _addresses(
    wanted: Sequence[Located[InterfaceAddress]], given: Mapping[str, Any], present: Sequence[InterfaceAddress]
) -> tuple[list[InterfaceAddress], list[InterfaceAddress]]:
    values = list(dict.fromkeys(address.value for address in wanted))
    add = [address for address in values if address not in present]
    if "addresses" in given:
        ours = [address for address in present if str(address) in given["addresses"]]
    else:
        ours = [address for address in present if not (address.version == 6 and address.is_link_local)]
    return add, [address for address in ours if address not in values]


def _table(value: int | str | None, default: str) -> int | None:
    """The number of the table that routes go into; None: no routes."""
    value = default if value is None else value
    if value == "off":
        return None
    if value == "auto":
        return MAIN_TABLE
    return value if isinstance(value, int) else table_number(value)


def _in_table(network: Network, table: int) -> bool:
    """Default routes are not in the main table; see `pywg.host.routing`."""
    return network.prefixlen > 0 or table != MAIN_TABLE


def _defaults(networks: set[Network], table: int | None) -> set[Network]:
    """Those that have a table and rules of their own."""
    return {network for network in networks if network.prefixlen == 0 and table == MAIN_TABLE}


def _version(network: Network) -> int:
    return network.version


def _refuse_unknown(
    config: Config,
    given: Mapping[str, Any],
    change: DeviceChange,
    old_defaults: set[Network],
    defaults: set[Network],
) -> None:
    """Rules and firewall of a default route go by the mark, and only `up` knows which ones it added."""
    mistakes = []
    fwmark = config.interface.fwmark
    if change.fwmark is not None and old_defaults:
        text = "FwMark: it cannot change while the tunnel has a default route; use `pywg down` and `pywg up`"
        mistakes.append(Mistake(fwmark.position if fwmark else _whole_file(config), text))
    if not given and old_defaults != defaults:
        text = "AllowedIPs: `pywg up` did not bring this tunnel up, so its default routes stay as they are"
        mistakes.append(Mistake(_whole_file(config), text))
    if mistakes:
        raise ConfigError(mistakes)


def _whole_file(config: Config) -> Position:
    section = config.interface
    known = [section.private_key, *section.addresses, *(peer.public_key for peer in config.peers)]
    return Position(next((located.position.path for located in known if located is not None), ""))


# --- Doing it. --------------------------------------------------------------------------------------------


def reload(argument: str, say: Say) -> None:
    """Put the file that `argument` means into its running tunnel; `say` prints one line.

    Raises PywgError; then all is as it was.
    """
    loaded = load(argument)
    for warning in loaded.warnings:
        say(warning)
    interface = loaded.location.interface
    require_network_rights(f"pywg reload {shlex.quote(argument)}")
    if not interface_exists(interface):
        raise PywgError(f"`{interface}' is not up; bring it up: pywg up {shlex.quote(argument)}")
    require_wireguard(interface)
    with _alone(interface):
        kept = state.read(interface)
        if kept is not None and kept.is_owned:
            raise PywgError(f"`{interface}' is just being brought up")
        _reload(argument, loaded, kept if kept is not None and kept.is_running else None, say)


@contextlib.contextmanager
def _alone(interface: str) -> Iterator[None]:
    """Be the only reload of an interface in its network namespace. Raises PywgError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as lock:
        try:
            lock.bind(f"\0pywg-reload/{interface}")
        except OSError:
            raise PywgError(f"`{interface}' is just being reloaded by another process") from None
        yield


def _reload(argument: str, loaded: Loaded, kept: State | None, say: Say) -> None:
    interface, config = loaded.location.interface, loaded.config
    given = {} if kept is None else kept.given
    with LinuxNetwork() as network, RunningInterface(interface) as link:
        device = control.get(interface)
        old_table = _table(given.get("table"), "auto")
        running = Running(
            device,
            link.addresses(),
            link.mtu(),
            frozenset() if old_table is None else frozenset(link.routes(old_table)),
            frozenset(link.networks(MAIN_TABLE)),
        )
        move = peers_to_move(config, given, device)
        names = [
            peer.endpoint
            for peer in merge_peers(config.peers)
            if peer.endpoint is not None and peer.public_key.value in move
        ]
        changes = plan(config, resolve_all(names, say), given, running)
        count = 0

        def counted(line: str) -> None:
            nonlocal count
            count += line.startswith("[#]")
            say(line)

        with _state_restored(kept), Steps(counted) as steps:
            work = _Work(interface, config, changes, running, steps, network, link)
            if kept is not None:
                if UNFINISHED in given:
                    work.delete_half_done(kept)
                kept.given = _while_unfinished(config, given, device)
                _write(kept)
            work.add_addresses()
            work.change_device()
            work.set_mtu()
            work.add_routes()
            if kept is not None:
                if changes.add_defaults:
                    add_default_routes(
                        argument,
                        config,
                        kept,
                        changes.add_defaults,
                        steps=steps,
                        network=network,
                        say=counted,
                    )
                work.change_dns(kept, given)
                work.delete_default_routes(kept)
            work.delete_routes()
            work.delete_addresses()
            if kept is not None:
                work.renew_firewall(kept)
            work.remove_peers()
            work.change_monitor(argument, given, say)
            called = state.named_peers(config)
            before = called if kept is None else kept.names
            tell_names(interface, called)
            if kept is not None:
                _keep(kept, loaded, say)
    if not count and called == before:
        say(f"pywg: `{interface}' is as {loaded.location.path} says; nothing was changed")
    elif not count:
        say("pywg: nothing but names of peers was changed")


@contextlib.contextmanager
def _state_restored(kept: State | None) -> Iterator[None]:
    """What was kept is there again after a failure."""
    before = None if kept is None else copy.deepcopy(kept)
    try:
        yield
    except BaseException:
        if before is not None:
            _write(before)
        raise


def _write(kept: State) -> None:
    with contextlib.suppress(OSError):  # told when it was written first
        state.write(kept)


def _while_unfinished(config: Config, given: Mapping[str, Any], device: DeviceSnapshot) -> dict[str, Any]:
    """What the next reload compares with if this one is killed: all that may have been added by then."""
    networks = {str(network) for peer in device.peers for network in peer.allowed_ips}
    networks |= {str(entry.value.network) for peer in config.peers for entry in peer.allowed_ips}
    addresses = [*given.get("addresses", ()), *(str(address.value) for address in config.interface.addresses)]
    return {
        **given,
        "addresses": list(dict.fromkeys(addresses)),
        "dns": None,
        UNFINISHED: sorted(networks | set(given.get(UNFINISHED, ()))),
    }


def _keep(kept: State, loaded: Loaded, say: Say) -> None:
    """From now on, `down` and the next reload go by this file."""
    section = loaded.config.interface
    kept.path = str(Path(loaded.location.path).absolute())
    kept.pre_down, kept.post_down = section.pre_down, section.post_down
    kept.save_config = section.save_config is not None and section.save_config.value
    kept.names = state.named_peers(loaded.config)
    kept.given = state.given_by(loaded.config)
    try:
        state.write(kept)
    except OSError as error:
        say(f"Warning: {state.directory()}: {error.strerror}; `pywg down` will go by the old file")


@dataclasses.dataclass(slots=True)
class _Work:
    """The steps of a reload, in order: what is added first, what is removed last, so that nothing is missing
    in between and an undo seldom has to bring a peer back, whose session would be lost."""

    interface: str
    config: Config
    plan: Plan
    running: Running
    steps: Steps
    network: Any
    link: Any

    def add_addresses(self) -> None:
        places = {address.value: address.position for address in self.config.interface.addresses}
        for address in self.plan.add_addresses:
            self.steps.run(
                self._ip(address, "address add"),
                functools.partial(
                    placed, places[address], "Address", self.network.add_address, self.interface, address
                ),
                Undo(
                    self._ip(address, "address delete"), functools.partial(self.link.delete_address, address)
                ),
            )

    def change_device(self) -> None:
        before = self.running.device
        changes = peer_changes(self.plan.peers, before, self.plan.move, single=True)
        base = self.plan.device
        if not changes and base == DeviceChange():
            return
        back = DeviceChange(
            before.private_key if base.private_key else None,
            before.listen_port if base.listen_port else None,
            before.fwmark if base.fwmark is not None else None,
        )
        undo = functools.partial(self._restore, back)
        self.steps.run(
            "\n".join(self._shown(base, changes)),
            functools.partial(self._make_equal, base, self.plan.peers, self.plan.move),
            Undo(f"wg syncconf {self.interface} <(settings from before)", undo),
        )

    def set_mtu(self) -> None:
        if self.plan.mtu is None:
            return
        mtu = self.plan.mtu or choose_mtu(self.config, control.get(self.interface), self.network)
        if mtu != self.running.mtu:
            command, before = f"ip link set dev {self.interface} mtu", self.running.mtu
            self.steps.run(
                f"{command} {mtu}",
                functools.partial(self.link.set_mtu, mtu),
                Undo(f"{command} {before}", functools.partial(self.link.set_mtu, before)),
            )

    def add_routes(self) -> None:
        table = self.plan.table
        if table is None:
            return
        places = {e.value.network: e.position for peer in self.config.peers for e in peer.allowed_ips}
        for network in self.plan.add_routes:
            self.steps.run(
                self._route(network, "add", table),
                functools.partial(
                    placed,
                    places[network],
                    "AllowedIPs",
                    self.network.add_route,
                    self.interface,
                    network,
                    table,
                ),
                Undo(
                    self._route(network, "delete", table),
                    functools.partial(self.link.delete_route, network, table),
                ),
            )

    def delete_routes(self) -> None:
        table = self.plan.old_table
        if table is None:
            return
        for network in self.plan.delete_routes:
            self.steps.run(
                self._route(network, "delete", table),
                functools.partial(self.link.delete_route, network, table),
                Undo(
                    self._route(network, "add", table),
                    functools.partial(self.network.add_route, self.interface, network, table),
                ),
            )

    def delete_addresses(self) -> None:
        gone, stays = self.plan.delete_addresses, self.running.addresses
        others = [a for a in (*stays, *self.plan.add_addresses) if a not in gone and a.version == 4]
        if any(other.network == address.network for address in gone for other in others) and (
            not self.link.promotes_secondaries()
        ):
            self.steps.run(
                f"sysctl -q net.ipv4.conf.{self.interface}.promote_secondaries=1",
                self.link.promote_secondaries,
            )
        for address in gone:
            self.steps.run(
                self._ip(address, "address delete"),
                functools.partial(self.link.delete_address, address),
                Undo(
                    self._ip(address, "address add"),
                    functools.partial(self.network.add_address, self.interface, address),
                ),
            )

    def remove_peers(self) -> None:
        keys = peers_to_remove(self.plan.peers, self.running.device)
        if keys:
            change = DeviceChange(peers=[PeerChange(key, remove=True) for key in keys])
            self.steps.run(
                "\n".join(f"wg set {self.interface} peer {key.base64} remove" for key in keys),
                functools.partial(control.apply, self.interface, change),
                Undo(
                    f"wg syncconf {self.interface} <(settings from before)",
                    functools.partial(self._restore, DeviceChange()),
                ),
            )

    def delete_half_done(self, kept: State) -> None:
        """Default routes, when a reload was killed that may have been at them; they are added anew."""
        mark = kept.table
        if mark is None:
            return
        for route in sorted(self.link.routes(mark), key=_version):
            if route.prefixlen == 0:
                delete = functools.partial(self.link.delete_route, route, mark)
                self.steps.run(self._route(route, "delete", mark), delete)
        for rule in rules_left(kept, self.network):
            self.steps.run(rule.command("delete"), functools.partial(self.network.delete_rule, rule))
        for name in kept.firewall:
            installed = Installed.from_name(self.interface, name)
            if commands := installed.commands:
                self.steps.run("\n".join(commands), installed.remove)
        if self.config.interface.fwmark is None and self.running.device.fwmark == mark:
            off = functools.partial(control.apply, self.interface, DeviceChange(fwmark=0))
            self.steps.run(f"wg set {self.interface} fwmark off", off)
        kept.table, kept.rules, kept.firewall = None, [], []

    def delete_default_routes(self, kept: State) -> None:
        """A default route, its rules and its firewall; with the last one the mark goes, unless the file's."""
        mark = kept.table
        if mark is None:
            return
        for route in self.plan.delete_defaults:
            version = route.version
            self.steps.run(
                self._route(route, "delete", mark),
                functools.partial(self.link.delete_route, route, mark),
                Undo(
                    self._route(route, "add", mark),
                    functools.partial(self.network.add_route, self.interface, route, mark),
                ),
            )
            rules = [rule for rule in kept.rules if rule.version == version]
            for rule in rules:
                self.steps.run(
                    rule.command("delete"),
                    functools.partial(self.network.delete_rule, rule),
                    Undo(rule.command("add"), functools.partial(self.network.add_rule, rule)),
                )
            kept.rules = [rule for rule in kept.rules if rule not in rules]
            for installed, firewall in self._firewalls(kept, version, self.running.addresses):
                self.steps.run(
                    "\n".join(installed.commands),
                    installed.remove,
                    Undo(
                        "\n".join(firewall.commands(installed.kind)),
                        functools.partial(firewall.add, installed.kind),
                    ),
                )
                kept.firewall.remove(installed.name)
        if self.plan.delete_defaults and not (self.plan.add_defaults or self.plan.keep_defaults):
            kept.table = None
            after = value_of(self.config.interface.fwmark) or 0
            if after != mark:
                self.steps.run(
                    f"wg set {self.interface} fwmark {after or 'off'}",
                    functools.partial(control.apply, self.interface, DeviceChange(fwmark=after)),
                    Undo(
                        f"wg set {self.interface} fwmark {mark}",
                        functools.partial(control.apply, self.interface, DeviceChange(fwmark=mark)),
                    ),
                )

    def renew_firewall(self, kept: State) -> None:
        """The firewall of a default route that stays protects the addresses that there are now."""
        for route in self.plan.keep_defaults:
            changed = [*self.plan.add_addresses, *self.plan.delete_addresses]
            if not any(address.version == route.version for address in changed):
                continue
            now = self.link.addresses()
            pairs = zip(
                self._firewalls(kept, route.version, self.running.addresses),
                self._firewalls(kept, route.version, now),
                strict=True,
            )
            for (installed, old), (_, new) in pairs:
                self.steps.run(
                    "\n".join([*installed.commands, *new.commands(installed.kind)]),
                    functools.partial(_replace, installed, new),
                    Undo(
                        "\n".join(old.commands(installed.kind)), functools.partial(_replace, installed, old)
                    ),
                )

    def _firewalls(
        self, kept: State, version: int, addresses: Sequence[InterfaceAddress]
    ) -> list[tuple[Installed, Firewall]]:
        ours = [address.ip for address in addresses if address.version == version]
        found = [Installed.from_name(self.interface, name) for name in kept.firewall]
        return [
            (installed, Firewall(self.interface, version, ours, kept.table or 0))
            for installed in found
            if installed.version == version
        ]

    def change_dns(self, kept: State, given: Mapping[str, Any]) -> None:
        servers, search = state.given_by(self.config)["dns"]
        if [servers, search] == given.get("dns", [[], []]):
            return
        if kept.dns is not None:
            old = recall_dns(kept.dns)
            self.steps.run(old.undo_shown, old.undo, Undo(old.shown, old.apply))
            kept.dns = None
        if servers:
            position = self.config.interface.dns_servers[0].position
            new = choose_dns(self.interface, servers, search)
            kept.dns = new.record()
            _write(kept)
            self.steps.run(
                new.shown,
                functools.partial(placed, position, "DNS", new.apply),
                Undo(new.undo_shown, new.undo),
            )

    def change_monitor(self, argument: str, given: Mapping[str, Any], say: Say) -> None:
        if sys.platform != "linux":
            return
        peers, runs = watched_peers(self.config), monitor_runs(self.interface)
        same = given.get("endpoints") == state.given_by(self.config)["endpoints"]
        if peers and not (runs and same):
            start = functools.partial(start_or_warn, self.interface, peers, say)
            self.steps.run(f"pywg monitor {shlex.quote(argument)} &", start)
        elif runs and not peers:
            self.steps.run(
                f"pkill -f 'pywg.host.monitor {self.interface}'",
                functools.partial(stop_monitor, self.interface),
            )

    def _make_equal(
        self, base: DeviceChange, wanted: Sequence[PeerSnapshot], move: Container[PublicKey]
    ) -> None:
        """Allowed IPs go one by one where that is known; then a second look finds nothing left to do."""
        for single in (True, False) if has_daemon(self.interface) else (False,):
            changes = peer_changes(wanted, control.get(self.interface), move, single=single)
            if not changes and base == DeviceChange():
                return
            try:
                control.apply(self.interface, dataclasses.replace(base, peers=changes))
            except PywgError:
                if not single or not any(entry.remove for change in changes for entry in change.allowed_ips):
                    raise
            else:
                base = DeviceChange()

    def _restore(self, base: DeviceChange) -> None:
        before = self.running.device
        added = peers_to_remove(before.peers, control.get(self.interface))
        change = dataclasses.replace(base, peers=[PeerChange(key, remove=True) for key in added])
        control.apply(self.interface, change)
        everyone = {peer.public_key for peer in before.peers}
        self._make_equal(DeviceChange(), before.peers, everyone)

    def _shown(self, base: DeviceChange, changes: Sequence[PeerChange]) -> list[str]:
        """One line of `wg set` for the device, and one for each peer; keys that are secret are not shown."""
        words = []
        if base.private_key is not None:
            words.append("private-key <(the file's)")
        if base.listen_port is not None:
            words.append(f"listen-port {base.listen_port}")
        if base.fwmark is not None:
            words.append(f"fwmark {base.fwmark:#x}" if base.fwmark else "fwmark off")
        lines = [f"wg set {self.interface} {' '.join(words)}"] if words else []
        targets = {peer.public_key: peer for peer in self.plan.peers}
        for change in changes:
            line = f"wg set {self.interface} peer {change.public_key.base64}"
            if change.preshared_key is not None:
                line += " preshared-key " + ("/dev/null" if change.preshared_key.is_zero else "<(the file's)")
            if change.endpoint is not None:
                line += f" endpoint {change.endpoint}"
            if change.persistent_keepalive_interval is not None:
                line += f" persistent-keepalive {change.persistent_keepalive_interval}"
            if change.allowed_ips:
                line += f" allowed-ips {','.join(map(str, targets[change.public_key].allowed_ips))}"
            lines.append(line)
        return lines

    def _ip(self, address: InterfaceAddress, verb: str) -> str:
        return f"ip -{address.version} {verb} {address} dev {self.interface}"

    def _route(self, network: Network, verb: str, table: int) -> str:
        in_table = "" if table == MAIN_TABLE else f" table {table}"
        return f"ip -{network.version} route {verb} {network} dev {self.interface}{in_table}"


def _replace(installed: Installed, firewall: Firewall) -> None:
    installed.remove()
    firewall.add(installed.kind)
