"""A configuration file's tunnel, up and down, in wg-quick's order.

Everything that can be found wrong without changing the system is told first. Then each step is shown as the
command that a person would type; when one fails, all of them are undone, without the Down hooks. What `down`
will need is kept by `pywg.host.state`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import importlib
import shlex
import sys
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from pywg.config.change import device_change
from pywg.config.files import Loaded, load
from pywg.config.model import Config, Operation, merge_peers, network_of
from pywg.config.positions import ConfigError, Mistake, Position
from pywg.device.snapshot import DeviceSnapshot, PeerSnapshot
from pywg.errors import PywgError
from pywg.host import control, kernel, state
from pywg.host.daemon import (
    finish_start,
    shown_command,
    spawn_daemon,
    wait_until_ended,
    wait_until_process_ended,
    wait_until_ready,
)
from pywg.host.hooks import run_hooks
from pywg.host.names import interface_exists, interface_meant, require_network_rights
from pywg.host.peernames import tell_names
from pywg.host.resolve import resolve_all
from pywg.host.routing import (
    choose_mtu,
    choose_table,
    default_marks,
    default_rules,
    routes_to_add,
    rules_of,
    table_number,
)
from pywg.host.state import State
from pywg.host.steps import Interrupted, Steps, Undo, placed
from pywg.host.sysctl import set_src_valid_mark, src_valid_mark, strict_interfaces
from pywg.uapi.client import Client, has_daemon
from pywg.uapi.error import UapiError
from pywg.uapi.format import DeviceChange
from pywg.wire.network import Network

if TYPE_CHECKING:
    from pywg.host.ahead import DaemonAhead
    from pywg.host.linux import LinuxNetwork
    from pywg.host.routing import Rule

Say = Callable[[str], None]


def bring_up(
    argument: str,
    say: Say,
    *,
    backend: str | None = None,
    dry: bool = False,
    ahead: DaemonAhead | None = None,
) -> None:
    """Bring up the tunnel of a file or of an interface's name; `say` prints one line.

    backend: `kernel` or `userspace`; None: the kernel's where there is one. dry: show the steps and do
    nothing, which needs no rights. ahead: a daemon that waits for its turn. Raises PywgError; then the system
    is as it was, but for what the hooks did.
    """
    loaded = _load(argument, say)
    interface, config = loaded.location.interface, loaded.config
    if config.interface.private_key is None and not (config.interface.pre_up or config.interface.post_up):
        say(f"Warning: {loaded.location.path}: there is no PrivateKey; nothing goes through until one is set")
    table = _table_of(config)
    kept = State.begin(interface, loaded.location.path, backend or "userspace", config)
    if not dry:
        require_network_rights(f"pywg up {shlex.quote(argument)}")
    with Steps(say, dry=dry) as steps:
        _begin(kept, steps, say)
        _make_device(kept, backend, ahead, steps)
        with _open_network() as network:
            up = _Up(argument, config, table, kept, steps, network, say)
            if not dry:
                if kept.backend == "userspace":
                    wait_until_ready(interface)
                kept.index = state.index_of(interface)
                _keep(up)
            _run_hooks(up, "PreUp")
            _configure_device(up)
            if kept.names and not dry:
                tell_names(interface, kept.names)
            _add_addresses(up)
            device = _device(up)
            _set_mtu_and_up(up, device)
            _set_dns(up)
            _add_routes(up, device)
            _run_hooks(up, "PostUp")
            _start_monitor(up)
            kept.finished = True
            _keep(up)


def take_down(argument: str, say: Say) -> None:
    """Take down a tunnel by what `bring_up` kept of it, else by its file; `say` prints one line.

    Raises PywgError. A PreDown hook that fails leaves the interface as it is, as with wg-quick.
    """
    interface = interface_meant(argument)
    kept = state.read(interface) if interface is not None else None
    if kept is None:
        loaded = _load(argument, say, with_keys=False)
        config = loaded.config
        kept = State.begin(loaded.location.interface, loaded.location.path, "", config)
        require_network_rights(f"pywg down {shlex.quote(argument)}")
        require_wireguard(kept.interface)
        _note_by_device(kept, config)
    else:
        require_network_rights(f"pywg down {shlex.quote(argument)}")
        if kept.is_owned:
            raise PywgError(
                f"`{kept.interface}' is just being brought up, by process {kept.owner.partition('/')[0]}"
            )
        if not kept.finished:
            clean_leftovers(say)
            return
        if interface_exists(kept.interface) and not kept.is_running:  # made anew by somebody else
            clean_leftovers(say)
            take_down(argument, say)
            return

    def show(command: str) -> None:
        say(f"[#] {command}")

    if interface_exists(kept.interface):
        run_hooks("PreDown", kept.pre_down, kept.interface, show)
        _save_on_the_way_down(kept, say)
    else:
        say(f"pywg: `{kept.interface}' is gone already; what it left behind is removed")
    clean = undo_all(kept, say)
    run_hooks("PostDown", kept.post_down, kept.interface, show)
    if not clean:
        raise PywgError(f"`{kept.interface}' is down, but not all that belonged to it could be removed")


def save(argument: str, say: Say) -> None:
    """Write a running tunnel into its file, as `pywg.host.save` puts it. Raises PywgError."""
    loaded = load(argument)
    for warning in loaded.warnings:
        say(warning)
    require_network_rights(f"pywg save {shlex.quote(argument)}")
    require_wireguard(loaded.location.interface)
    _save(loaded, say)


def undo_all(kept: State, say: Say) -> bool:
    """Take away all that `up` did for a tunnel but what its hooks did, and the record of it.

    Each step is shown. One that fails is told, and the others go on; returns whether none did.
    """
    clean = True

    def undo(shown: str, action: Callable[[], None]) -> None:
        nonlocal clean
        for line in shown.split("\n"):
            say(f"[#] {line}")
        try:
            action()
        except (PywgError, OSError) as error:
            clean = False
            say(f"pywg: this could not be undone: {error}")

    from pywg.host.monitor import stop_monitor

    if kept.dns is not None:
        from pywg.host.dns import recall_dns

        try:
            dns = recall_dns(kept.dns)
        except PywgError as error:
            clean = False
            say(f"pywg: this could not be undone: {error}")
        else:
            undo(dns.undo_shown, dns.undo)
    stop_monitor(kept.interface)
    for name in kept.firewall:
        from pywg.host.firewall import Installed

        installed = Installed.from_name(kept.interface, name)
        if commands := installed.commands:
            undo("\n".join(commands), installed.remove)
    if kept.rules or kept.table is not None:
        with _open_network() as network:
            for rule in rules_left(kept, network):
                undo(rule.command("delete"), functools.partial(network.delete_rule, rule))
    if interface_exists(kept.interface) and (kept.index is None or kept.is_running):  # else somebody else's
        undo(f"ip link delete dev {kept.interface}", functools.partial(_delete, kept.interface))
    try:
        state.remove(kept.interface)
    except OSError as error:
        say(f"pywg: {error.filename}: {error.strerror}")
    return clean


def rules_left(kept: State, network: LinuxNetwork) -> list[Rule]:
    """The policy rules of the tunnel that are there, and those of others that let its datagrams pass."""
    others = [rule for other in state.read_all() if other.interface != kept.interface for rule in other.rules]
    return [
        rule
        for version in (4, 6)
        for rule in network.rules(version)
        if rule in kept.rules or (rule.mark == kept.table and not rule.inverted and rule in others)
    ]


def require_wireguard(interface: str) -> None:
    """Raise PywgError unless this is a WireGuard interface of this network namespace, anybody's."""
    if interface_exists(interface):
        if has_daemon(interface):
            return
        with _open_network() as network:
            if network.is_kernel_wireguard(interface):
                return
    elif has_daemon(interface):
        raise PywgError(
            f"`{interface}' is in another network namespace; take it down there, or end its daemon if it is "
            "in none"
        )
    raise PywgError(
        f"`{interface}' is not a WireGuard interface; `pywg show interfaces` lists those that are"
    )


# --- The steps of `up`, in order. -------------------------------------------------------------------------


@dataclasses.dataclass(slots=True)
class _Up:
    """A tunnel on its way up. table: what `_table_of` gives."""

    argument: str
    config: Config
    table: int | str | None
    kept: State
    steps: Steps
    network: LinuxNetwork
    say: Say

    @property
    def interface(self) -> str:
        return self.kept.interface


def _begin(kept: State, steps: Steps, say: Say) -> None:
    """Clean up after tunnels that ended badly, make sure that ours is not there, and say that we make it."""
    if steps.dry:
        _refuse_existing(kept.interface)
        return
    with state.locked():
        clean_leftovers(say)
        _refuse_existing(kept.interface)
        steps.run(
            "", functools.partial(_write_state, kept, say), Undo("", lambda: state.remove(kept.interface))
        )


def clean_leftovers(say: Say) -> None:
    """Remove what tunnels of this network namespace left behind that were killed, or their `up` was."""
    for kept in state.read_all():
        if (kept.finished and kept.is_running) or kept.is_owned:
            continue
        how = "ended without being taken down" if kept.finished else "was interrupted on its way up"
        say(f"pywg: `{kept.interface}' {how}; what it left behind is removed")
        wait_until_process_ended(kept.starter)
        undo_all(kept, say)


def _refuse_existing(interface: str) -> None:
    if interface_exists(interface):
        try:
            require_wireguard(interface)
            what = f"`pywg down {interface}` takes it down, and `pywg reload` puts a changed file into it"
        except PywgError:
            what = f"it is no WireGuard interface: see `ip -d link show {interface}`, or rename the file"
        raise PywgError(f"`{interface}' already exists; {what}")
    if (other := state.read(interface)) and other.is_owned:
        raise PywgError(f"`{interface}' is just being brought up, by process {other.owner.partition('/')[0]}")


def _write_state(kept: State, say: Say) -> None:
    try:
        state.write(kept)
    except OSError as error:
        say(
            f"Warning: {state.directory()}: {error.strerror}; `pywg down` will go by the file "
            f"({state.DIRECTORY_VARIABLE} can name another folder)"
        )


def _keep(up: _Up) -> None:
    """Write down what has been done, and what is going to be."""
    if not up.steps.dry:
        with contextlib.suppress(OSError):  # told when it was written first
            state.write(up.kept)


def _make_device(kept: State, backend: str | None, ahead: DaemonAhead | None, steps: Steps) -> None:
    interface = kept.interface
    undo = Undo(f"ip link delete dev {interface}", functools.partial(_delete, interface))
    by_kernel = f"ip link add dev {interface} type wireguard"
    if backend == "kernel" or (backend is None and steps.dry and kernel.is_loaded()):
        steps.run(by_kernel, functools.partial(kernel.make_interface, interface), undo)
    elif backend is None and steps.attempt(by_kernel, functools.partial(_try_kernel, interface), undo):
        kept.backend = "kernel"
    else:
        steps.run(f"{shown_command()} {interface}", functools.partial(_start_daemon, kept, ahead), undo)


def _try_kernel(interface: str) -> bool:
    """Whether the kernel made the interface. Raises PywgError when it has WireGuard and did not."""
    try:
        kernel.make_interface(interface)
    except PywgError:
        if kernel.is_loaded():
            raise
        return False
    return True


def _start_daemon(kept: State, ahead: DaemonAhead | None) -> None:
    """Start it, or let it begin that was; meanwhile import what the later steps need."""
    waiting = None if ahead is None else ahead.begin(kept.interface)
    process = spawn_daemon(kept.interface) if waiting is None else waiting
    kept.starter = state.process_identity(process.pid)
    try:
        with contextlib.suppress(OSError):  # told when it was written first
            state.write(kept)
        for name in ("linux", "monitor"):
            importlib.import_module(f"pywg.host.{name}")
    finally:
        finish_start(process)


def _run_hooks(up: _Up, name: str) -> None:
    section = up.config.interface
    hooks = section.pre_up if name == "PreUp" else section.post_up
    run_hooks(name, hooks, up.interface, up.steps.show, dry=up.steps.dry)


def _configure_device(up: _Up) -> None:
    stripper = "pywg" if up.config.extensions else "wg-quick"  # which passes over lines of pywg's own
    up.steps.run(
        f"wg addconf {up.interface} <({stripper} strip {shlex.quote(up.argument)})",
        functools.partial(_configure, up.interface, up.config, up.say),
    )


def _configure(interface: str, config: Config, say: Say) -> None:
    endpoints = resolve_all([peer.endpoint for peer in config.peers if peer.endpoint is not None], say)
    change = device_change(config, endpoints)
    try:
        if has_daemon(interface):
            with Client.open(interface) as client:
                client.set(change)
        else:
            kernel.apply(interface, change)
    except UapiError as error:
        if error.errno == errno.EADDRINUSE:
            raise _port_taken(config) from None
        raise PywgError(f"{interface} did not take the configuration: {error}") from None


def _add_addresses(up: _Up) -> None:
    for address in up.config.interface.addresses:
        add = functools.partial(up.network.add_address, up.interface, address.value)
        up.steps.run(
            f"ip -{address.value.version} address add {address.value} dev {up.interface}",
            functools.partial(placed, address.position, "Address", add),
        )


def _device(up: _Up) -> DeviceSnapshot:
    """The device as it is now, as hooks may have changed it; in a dry run, as the file would make it."""
    if not up.steps.dry:
        return control.get(up.interface)
    peers = merge_peers(up.config.peers)
    names = [peer.endpoint for peer in peers if peer.endpoint is not None]
    endpoints = resolve_all(names, up.say)
    mark = up.config.interface.fwmark
    return DeviceSnapshot(
        fwmark=0 if mark is None else mark.value,
        peers=[
            PeerSnapshot(
                peer.public_key.value,
                endpoint=None if peer.endpoint is None else endpoints[peer.endpoint.value],
                allowed_ips=[entry.value.network for entry in peer.allowed_ips],
            )
            for peer in peers
        ],
    )


def _set_mtu_and_up(up: _Up, device: DeviceSnapshot) -> None:
    mtu = choose_mtu(up.config, device, up.network)
    up.steps.run(f"ip link set mtu {mtu} up dev {up.interface}", functools.partial(_go_up, up, mtu))


def _go_up(up: _Up, mtu: int) -> None:
    """A daemon binds its sockets when its interface goes up; pywgd tells by having no port that it failed."""
    up.network.set_mtu_and_up(up.interface, mtu)
    if control.get(up.interface).listen_port == 0:
        raise _port_taken(up.config)


def _port_taken(config: Config) -> PywgError:
    port = config.interface.listen_port
    if port is None:
        return PywgError("no UDP port could be opened; `ss -lun` shows what is taken")
    text = f"ListenPort: UDP port {port.value} is in use already; `ss -lunp` shows by whom"
    return ConfigError([Mistake(port.position, text)])


def _set_dns(up: _Up) -> None:
    """Name servers, and the search domains with them. What will be set is noted first."""
    section = up.config.interface
    if not section.dns_servers:
        if section.dns_search:
            up.say(f"Warning: {section.dns_search[0].position}: DNS: domains without a server are not set")
        return
    from pywg.host.dns import choose_dns

    position = section.dns_servers[0].position
    try:
        change = choose_dns(up.interface, *_dns_of(up.config))
    except PywgError as error:
        raise ConfigError([Mistake(position, f"DNS: {error}")]) from None
    up.kept.dns = change.record()
    _keep(up)
    up.steps.run(
        change.shown,
        functools.partial(placed, position, "DNS", change.apply),
        Undo(change.undo_shown, change.undo),
    )


def _add_routes(up: _Up, device: DeviceSnapshot) -> None:
    """Routes to what the device allows."""
    if up.table == "off":
        return
    wanted = {allowed for peer in device.peers for allowed in peer.allowed_ips}
    number = up.table if isinstance(up.table, int) else None
    covered: set[Network] = set()
    if number is None:
        covered = _covered(up, {allowed.version for allowed in wanted})
    defaults = {allowed for allowed in wanted if allowed.prefixlen == 0 and number is None}
    for allowed in routes_to_add(wanted - defaults, covered):
        _add_route(up, allowed, number)
    for allowed in sorted(defaults, key=lambda network: -network.version):
        if up.kept.table is None:
            _choose_mark(up, device)
        _add_default_route(up, allowed)


def add_default_routes(
    argument: str,
    config: Config,
    kept: State,
    routes: Collection[Network],
    *,
    steps: Steps,
    network: LinuxNetwork,
    say: Say,
) -> None:
    """Default routes for a tunnel that runs already, with all that belongs to them, as `up` adds them."""
    up = _Up(argument, config, None, kept, steps, network, say)
    for route in sorted(routes, key=lambda network: -network.version):
        if kept.table is None:
            _choose_mark(up, control.get(kept.interface))
        _add_default_route(up, route)


def _add_route(up: _Up, network: Network, table: int | None) -> None:
    in_table = "" if table is None else f" table {table}"
    add = functools.partial(up.network.add_route, up.interface, network, *([] if table is None else [table]))
    position = _allowed_networks(up.config).get(network, Position(up.kept.path))
    up.steps.run(
        f"ip -{network.version} route add {network} dev {up.interface}{in_table}",
        functools.partial(placed, position, "AllowedIPs", add),
    )


def _choose_mark(up: _Up, device: DeviceSnapshot) -> None:
    """The mark of the tunnel's own datagrams, and the number of its table: the device's, or a new one."""
    if device.fwmark:
        up.kept.table = device.fwmark
        _keep(up)
        return
    with state.locked():
        used = {other.table for other in state.read_all() if other.table is not None}
        for version in (4, 6):
            used |= up.network.tables_in_use(version)
            used |= {rule.table for rule in up.network.rules(version) if rule.table is not None}
        up.kept.table = mark = choose_table(used)
        _keep(up)
    up.steps.run(
        f"wg set {up.interface} fwmark {mark}",
        lambda: control.apply(up.interface, DeviceChange(fwmark=mark)),
    )


def _add_default_route(up: _Up, network: Network) -> None:
    """The route comes last: nothing goes into the tunnel until all that protects it is there."""
    mark, version = up.kept.table, network.version
    assert mark is not None
    _add_firewall(up, version, mark)
    if version == 4:
        _set_src_valid_mark(up)
    marks = {other for each in (4, 6) for other in default_marks(up.network.rules(each))}
    rules = default_rules(version, mark, up.network.rules(version), marks)
    up.kept.rules += rules
    _keep(up)
    for rule in rules:
        undo = Undo(rule.command("delete"), functools.partial(_delete_rule, rule))
        up.steps.run(rule.command("add"), functools.partial(up.network.add_rule, rule), undo)
    _add_route(up, network, mark)


def _delete_rule(rule: Rule) -> None:
    with _open_network() as network:
        network.delete_rule(rule)


def _add_firewall(up: _Up, version: int, mark: int) -> None:
    """In nftables, else in iptables; without either, the tunnel works, and its user is warned."""
    from pywg.host.firewall import Firewall, Installed, kinds_here

    addresses = [address.value.ip for address in up.config.interface.addresses]
    if not up.steps.dry:
        addresses += [address.ip for address in up.network.all_addresses_of(up.interface)]
    ours = dict.fromkeys(address for address in addresses if address.version == version)
    firewall = Firewall(up.interface, version, list(ours), mark)
    reason = "neither nftables nor iptables is here"
    for kind in kinds_here():
        installed = Installed(up.interface, version, kind)
        up.kept.firewall.append(installed.name)
        _keep(up)
        undo = Undo("\n".join(firewall.undo_commands(kind)), installed.remove)
        try:
            up.steps.run("\n".join(firewall.commands(kind)), functools.partial(firewall.add, kind), undo)
        except Interrupted:
            raise
        except PywgError as error:
            up.kept.firewall.remove(installed.name)
            reason = str(error)
            continue
        return
    up.say(f"Warning: {reason}; packets for {up.interface}'s addresses that arrive beside it are not dropped")


def _set_src_valid_mark(up: _Up) -> None:
    """Let the check of source addresses go by marks too; it matters where that check is strict."""
    if src_valid_mark() == 1:
        return
    command = "sysctl -q net.ipv4.conf.all.src_valid_mark="
    if up.steps.dry:
        up.steps.show(f"{command}1")
        return
    undo = Undo(f"{command}0", lambda: set_src_valid_mark(0))
    up.steps.attempt(f"{command}1", functools.partial(_try_src_valid_mark, up.say), undo)


def _try_src_valid_mark(say: Say) -> bool:
    try:
        set_src_valid_mark(1)
    except OSError as error:
        say(f"Warning: net.ipv4.conf.all.src_valid_mark cannot be set to 1: {error.strerror}")
        if strict := strict_interfaces():
            say(f"Warning: answers to the tunnel may be dropped; rp_filter is strict on {', '.join(strict)}")
        return False
    return True


def _covered(up: _Up, versions: set[int]) -> set[Network]:
    """The networks that the interface has routes to, through its addresses or a hook."""
    if up.steps.dry:
        return {network_of(address.value) for address in up.config.interface.addresses}
    return set().union(*(up.network.networks_of(up.interface, version) for version in versions))


def _start_monitor(up: _Up) -> None:
    """The last step, where the file has endpoints that may change; without it the tunnel works as well."""
    from pywg.host.monitor import start_or_warn, stop_monitor, watched_peers

    peers = watched_peers(up.config)
    if not peers or sys.platform != "linux":
        return

    start = functools.partial(start_or_warn, up.interface, peers, up.say)
    stop = functools.partial(stop_monitor, up.interface)
    up.steps.run(f"pywg monitor {shlex.quote(up.argument)} &", start, Undo("", stop))


# --- Parts of both. ---------------------------------------------------------------------------------------


def _load(argument: str, say: Say, *, with_keys: bool = True) -> Loaded:
    loaded = load(argument, with_keys=with_keys)
    for warning in loaded.warnings:
        say(warning)
    _table_of(loaded.config)  # raises when there is no such table
    return loaded


def _table_of(config: Config) -> int | str | None:
    """The number of the table that the file names, or `off`; None is `auto`. Raises ConfigError."""
    table = config.interface.table
    if table is None or table.value == "auto":
        return None
    if isinstance(table.value, int) or table.value == "off":
        return table.value
    try:
        return table_number(table.value)
    except PywgError as error:
        raise ConfigError([Mistake(table.position, f"Table: {error}")]) from None


def _note_by_device(kept: State, config: Config) -> None:
    """Note what `wg-quick up`, or a person, must have done for the tunnel of that file."""
    from pywg.host.firewall import find_installed

    kept.firewall = [installed.name for installed in find_installed(kept.interface)]
    if _table_of(config) is None:
        device = control.get(kept.interface)
        allowed = [network for peer in device.peers for network in peer.allowed_ips]
        if device.fwmark and any(network.prefixlen == 0 for network in allowed):
            kept.table = device.fwmark
            with _open_network() as network:
                for version in (4, 6):
                    kept.rules += rules_of(device.fwmark, network.rules(version))
    if config.interface.dns_servers:
        from pywg.host.dns import choose_dns

        with contextlib.suppress(PywgError):
            kept.dns = choose_dns(kept.interface, *_dns_of(config)).record()


def _dns_of(config: Config) -> tuple[list[str], list[str]]:
    """Servers and search domains as text."""
    section = config.interface
    return [str(server.value) for server in section.dns_servers], [
        domain.value for domain in section.dns_search
    ]


def _save_on_the_way_down(kept: State, say: Say) -> None:
    """SaveConfig as the file has it now; a file that has gone is not made anew."""
    try:
        loaded = load(kept.path)
    except PywgError as error:
        if kept.save_config:
            say(f"Warning: SaveConfig: nothing is saved, as the file cannot be read: {error}")
        return
    wanted = loaded.config.interface.save_config
    if wanted is not None and wanted.value:
        _save(loaded, say)


def _save(loaded: Loaded, say: Say) -> None:
    from pywg.host.save import save_running

    say(f"[#] wg showconf {loaded.location.interface}")
    save_running(loaded)


def _open_network() -> LinuxNetwork:
    from pywg.host.linux import LinuxNetwork

    return LinuxNetwork()


def _delete(interface: str) -> None:
    if interface_exists(interface):
        with _open_network() as network:
            network.delete(interface)
    wait_until_ended(interface)


def _allowed_networks(config: Config) -> dict[Network, Position]:
    """The networks that all sections together allow, and where they stand."""
    return {
        entry.value.network: entry.position
        for peer in merge_peers(config.peers)
        for entry in peer.allowed_ips
        if entry.value.operation is not Operation.REMOVE
    }
