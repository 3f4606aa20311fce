"""A configuration file's tunnel, up and down, in wg-quick's order.

Everything that can be found wrong without changing the system is told first. Then each step is shown as the
command that a person would type; when one fails, the device goes again, without the Down hooks.
"""

from __future__ import annotations

import errno
import functools
import importlib
import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING

from pywg.config.change import device_change
from pywg.config.files import Loaded, load
from pywg.config.model import Config, Network, Operation, merge_peers
from pywg.config.positions import ConfigError, Mistake, Position
from pywg.errors import PywgError
from pywg.host.daemon import finish_start, shown_command, spawn_daemon, wait_until_ended, wait_until_ready
from pywg.host.hooks import run_hooks
from pywg.host.names import interface_exists, require_network_rights
from pywg.host.resolve import resolve_all
from pywg.host.steps import Steps, Undo
from pywg.uapi.client import Client, has_daemon
from pywg.uapi.error import UapiError

if TYPE_CHECKING:
    from pywg.device.snapshot import DeviceSnapshot
    from pywg.host.linux import LinuxNetwork

OVERHEAD = 80
"""Bytes that the outer headers take of a packet at the most: IPv6 40, UDP 8, WireGuard 16 + 16."""

DEFAULT_PATH_MTU = 1500
SMALLEST_MTU, LARGEST_MTU = 68, 65535


def bring_up(argument: str, say: Callable[[str], None]) -> None:
    """Bring up the tunnel of a file or of an interface's name; `say` prints one line.

    Raises PywgError; then the system is as it was, but for what the hooks did.
    """
    loaded = _load(argument, say)
    interface, config = loaded.location.interface, loaded.config
    if config.interface.private_key is None and not (config.interface.pre_up or config.interface.post_up):
        say(f"Warning: {loaded.location.path}: there is no PrivateKey; nothing goes through until one is set")
    require_network_rights(f"pywg up {shlex.quote(argument)}")
    if interface_exists(interface):
        raise PywgError(f"`{interface}' already exists")
    with Steps(say) as steps:
        steps.run(
            f"{shown_command()} {interface}",
            functools.partial(_start_daemon, interface),
            Undo(f"ip link delete dev {interface}", functools.partial(_delete, interface)),
        )
        with _open_network() as network:
            wait_until_ready(interface)
            run_hooks("PreUp", config.interface.pre_up, interface, steps.show)
            steps.run(
                f"wg addconf {interface} <(wg-quick strip {shlex.quote(argument)})",
                functools.partial(_configure, interface, config, say),
            )
            for address in config.interface.addresses:
                steps.run(
                    f"ip -{address.value.version} address add {address.value} dev {interface}",
                    functools.partial(
                        _placed, address.position, "Address", network.add_address, interface, address.value
                    ),
                )
            with Client.open(interface) as client:
                device = client.get()
            mtu = choose_mtu(config, device, network)
            steps.run(
                f"ip link set mtu {mtu} up dev {interface}",
                functools.partial(_go_up, interface, mtu, network, config),
            )
            _add_routes(interface, config, device, network, steps)
            run_hooks("PostUp", config.interface.post_up, interface, steps.show)


def take_down(argument: str, say: Callable[[str], None]) -> None:
    """Take down what `bring_up` brought up; `say` prints one line. Raises PywgError.

    A PreDown hook that fails leaves the interface as it is, as with wg-quick.
    """
    loaded = _load(argument, say)
    interface, config = loaded.location.interface, loaded.config
    require_network_rights(f"pywg down {shlex.quote(argument)}")
    require_wireguard(interface)

    def show(command: str) -> None:
        say(f"[#] {command}")

    run_hooks("PreDown", config.interface.pre_down, interface, show)
    show(f"ip link delete dev {interface}")
    _delete(interface)
    run_hooks("PostDown", config.interface.post_down, interface, show)


def require_wireguard(interface: str) -> None:
    """Raise PywgError unless this is a WireGuard interface of this network namespace, anybody's."""
    if interface_exists(interface):
        if has_daemon(interface):
            return
        with _open_network() as network:
            if network.is_kernel_wireguard(interface):
                return
    elif has_daemon(interface):
        raise PywgError(f"`{interface}' is in another network namespace; take it down there")
    raise PywgError(f"`{interface}' is not a WireGuard interface")


def refuse_unsupported(config: Config) -> None:
    """Raise ConfigError for everything that a file asks for and that is not done yet; nothing is ignored."""
    interface = config.interface
    mistakes: list[Mistake] = []
    text = "DNS: name servers are not set yet; until they are, set them in PostUp and PostDown"
    mistakes += [Mistake(server.position, text) for server in interface.dns_servers]
    mistakes += [Mistake(domain.position, text) for domain in interface.dns_search]
    if interface.save_config is not None and interface.save_config.value:
        text = "SaveConfig: saving on the way down is not done yet; set it to false"
        mistakes.append(Mistake(interface.save_config.position, text))
    table = interface.table
    if table is not None and isinstance(table.value, str) and table.value not in ("auto", "off"):
        text = f"Table: names such as '{table.value}' are not looked up yet; give the table's number"
        mistakes.append(Mistake(table.position, text))
    if _routes_automatically(config):
        mistakes += [
            Mistake(position, f"AllowedIPs: {_NO_DEFAULT_ROUTE.format(network)}")
            for network, position in _allowed_networks(config).items()
            if network.prefixlen == 0
        ]
    if mistakes:
        raise ConfigError(sorted(mistakes, key=lambda mistake: mistake.position))


_NO_DEFAULT_ROUTE = (
    "{} asks for a default route, which is not set up yet; with Table = off, PostUp can set routes of its own"
)


def choose_mtu(config: Config, device: DeviceSnapshot, network: LinuxNetwork) -> int:
    """The MTU in bytes: the file's, or that of the narrowest way to an endpoint less 80, or 1420."""
    if config.interface.mtu is not None:
        return config.interface.mtu.value
    endpoints = {peer.endpoint for peer in device.peers if peer.endpoint is not None}
    path_mtus = [mtu for endpoint in endpoints if (mtu := network.path_mtu(endpoint))]
    path_mtu = min(path_mtus, default=None) or network.default_mtu() or DEFAULT_PATH_MTU
    return max(SMALLEST_MTU, min(LARGEST_MTU, path_mtu - OVERHEAD))


def routes_to_add(wanted: set[Network], covered: set[Network]) -> list[Network]:
    """What still needs a route, longest prefix first; `covered` are what the interface has routes to."""
    lengths = {network.prefixlen for network in covered}
    missing = [
        network
        for network in wanted
        if not any(
            network.supernet(new_prefix=length) in covered
            for length in lengths
            if length <= network.prefixlen
        )
    ]
    return sorted(missing, key=lambda network: (-network.prefixlen, network.version, network.network_address))


def _load(argument: str, say: Callable[[str], None]) -> Loaded:
    loaded = load(argument)
    for warning in loaded.warnings:
        say(warning)
    refuse_unsupported(loaded.config)
    return loaded


def _open_network() -> LinuxNetwork:
    from pywg.host.linux import LinuxNetwork  # noqa: PLC0415  0.3 s that errors in a file need not wait for

    return LinuxNetwork()


def _start_daemon(interface: str) -> None:
    """Start it, and import the netlink library meanwhile, which takes about as long."""
    process = spawn_daemon(interface)
    try:
        importlib.import_module("pywg.host.linux")
    finally:
        finish_start(process)


def _delete(interface: str) -> None:
    if interface_exists(interface):
        with _open_network() as network:
            network.delete(interface)
    wait_until_ended(interface)


def _configure(interface: str, config: Config, say: Callable[[str], None]) -> None:
    endpoints = resolve_all([peer.endpoint for peer in config.peers if peer.endpoint is not None], say)
    try:
        with Client.open(interface) as client:
            client.set(device_change(config, endpoints))
    except UapiError as error:
        if error.errno == errno.EADDRINUSE:
            raise _port_taken(config) from None
        raise PywgError(f"the daemon of {interface} did not take the configuration: {error}") from None


def _go_up(interface: str, mtu: int, network: LinuxNetwork, config: Config) -> None:
    """A daemon binds its sockets when its interface goes up; pywgd tells by having no port that it failed."""
    network.set_mtu_and_up(interface, mtu)
    with Client.open(interface) as client:
        if client.get().listen_port == 0:
            raise _port_taken(config)


def _port_taken(config: Config) -> PywgError:
    port = config.interface.listen_port
    if port is None:
        return PywgError("no UDP port could be opened; `ss -lun` shows what is taken")
    text = f"ListenPort: UDP port {port.value} is in use already; `ss -lunp` shows by whom"
    return ConfigError([Mistake(port.position, text)])


def _add_routes(
    interface: str, config: Config, device: DeviceSnapshot, network: LinuxNetwork, steps: Steps
) -> None:
    """Routes to what the device allows now, which hooks may have changed."""
    table = config.interface.table
    if table is not None and table.value == "off":
        return
    wanted = {allowed for peer in device.peers for allowed in peer.allowed_ips}
    number = table.value if table is not None and isinstance(table.value, int) else None
    covered: set[Network] = set()
    if number is None:
        if default := next((allowed for allowed in wanted if allowed.prefixlen == 0), None):
            raise PywgError(f"{interface}: {_NO_DEFAULT_ROUTE.format(default)}")
        for version in {allowed.version for allowed in wanted}:
            covered |= network.networks_of(interface, version)
    positions = _allowed_networks(config)
    whole_file = Position(interface)
    for allowed in routes_to_add(wanted, covered):
        in_table = "" if number is None else f" table {number}"
        add = functools.partial(network.add_route, interface, allowed, *([] if number is None else [number]))
        steps.run(
            f"ip -{allowed.version} route add {allowed} dev {interface}{in_table}",
            functools.partial(_placed, positions.get(allowed, whole_file), "AllowedIPs", add),
        )


def _routes_automatically(config: Config) -> bool:
    table = config.interface.table
    return table is None or table.value == "auto"


def _allowed_networks(config: Config) -> dict[Network, Position]:
    """The networks that all sections together allow, and where they stand."""
    return {
        entry.value.network: entry.position
        for peer in merge_peers(config.peers)
        for entry in peer.allowed_ips
        if entry.value.operation is not Operation.REMOVE
    }


def _placed(position: Position, key: str, action: Callable[..., None], *arguments: object) -> None:
    """Do it; when it fails, say which value of the file asked for it."""
    try:
        action(*arguments)
    except PywgError as error:
        raise ConfigError([Mistake(position, f"{key}: {error}")]) from None
