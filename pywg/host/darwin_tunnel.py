"""A configuration file's tunnel on macOS, up and down, in wg-quick's order. Experimental: never run on a Mac.

Interfaces are named by the system there, `utun4`; /var/run/wireguard/NAME.name tells which a tunnel has.
"""

from __future__ import annotations

import errno
import functools
import os
import shlex
import time
from collections.abc import Callable

from pywg.config.change import device_change
from pywg.config.files import Loaded, load
from pywg.config.model import Config
from pywg.config.positions import ConfigError, Located, Mistake
from pywg.errors import PywgError
from pywg.host import control, darwin_monitor, networksetup
from pywg.host.command import run, shown
from pywg.host.daemon import finish_start, shown_command, spawn_daemon, wait_until_ready
from pywg.host.darwin import (
    DarwinNetwork,
    EndpointRoutes,
    address_command,
    endpoint_command,
    mtu_command,
    route_command,
    up_command,
)
from pywg.host.darwin_state import Tunnel, name_file, real_interface
from pywg.host.hooks import run_hooks
from pywg.host.names import interface_exists, require_network_rights
from pywg.host.network import HALVES
from pywg.host.networksetup import Resolver
from pywg.host.resolve import resolve_all
from pywg.host.routing import choose_mtu, routes_to_add
from pywg.host.steps import Steps, Undo, placed
from pywg.uapi.client import Client, has_daemon
from pywg.uapi.error import UapiError
from pywg.uapi.path import SOCKET_DIRECTORY, socket_path
from pywg.wire.network import Network

DEVICE = "utun"
"""What the daemon is asked for: the first utun that is free."""

_END_LIMIT = 5.0

Say = Callable[[str], None]


def bring_up(argument: str, say: Say) -> None:
    """Bring up the tunnel of a file or of a name; `say` prints one line.

    Raises PywgError; then the system is as it was, but for what the hooks did.
    """
    loaded = _load(argument, say)
    name, config = loaded.location.interface, loaded.config
    require_network_rights(f"pywg up {shlex.quote(argument)}")
    if (interface := real_interface(name)) and has_daemon(interface):
        raise PywgError(f"`{name}' already exists as `{interface}'")
    if left := Tunnel.read(name):
        say(f"pywg: `{name}' ended without being taken down; what it left behind is removed")
        darwin_monitor.stop(left)
        left.clean(say)
    with Steps(say) as steps, DarwinNetwork() as network:
        steps.run(
            f"WG_TUN_NAME_FILE={name_file(name)} {shown_command()} {DEVICE}",
            functools.partial(_start_daemon, name),
            Undo(
                f"rm -f {SOCKET_DIRECTORY}/{DEVICE}*.sock {name_file(name)}", functools.partial(_delete, name)
            ),
        )
        interface = real_interface(name)
        if interface is None:
            raise PywgError(f"{shown_command()} did not tell its interface in {name_file(name)}")
        wait_until_ready(interface)
        say(f"[+] Interface for {name} is {interface}")
        tunnel = Tunnel(name, interface, EndpointRoutes([]))
        section = config.interface
        run_hooks("PreUp", _hooks(section.pre_up, name), interface, steps.show)
        steps.run(
            f"wg addconf {interface} <(wg-quick strip {shlex.quote(argument)})",
            functools.partial(_configure, interface, config, say),
        )
        for address in section.addresses:
            command = address_command(interface, address.value)
            steps.run(shown(command), functools.partial(placed, address.position, "Address", run, command))
        device = control.get(interface)
        for command in (mtu_command(interface, choose_mtu(config, device, network)), up_command(interface)):
            steps.run(shown(command), functools.partial(run, command))
        if control.get(interface).listen_port == 0:
            raise _port_taken(config)
        if section.table is None or section.table.value != "off":
            _add_routes(
                tunnel, {allowed for peer in device.peers for allowed in peer.allowed_ips}, network, steps
            )
        _watch(tunnel, config, steps, say)
        run_hooks("PostUp", _hooks(section.post_up, name), interface, steps.show)


def take_down(argument: str, say: Say) -> None:
    """Take down what `bring_up` or wg-quick brought up; `say` prints one line. Raises PywgError."""
    loaded = _load(argument, say)
    name, section = loaded.location.interface, loaded.config.interface
    require_network_rights(f"pywg down {shlex.quote(argument)}")
    interface, tunnel = real_interface(name), Tunnel.read(name)
    if (interface is None or not has_daemon(interface)) and tunnel is None:
        raise PywgError(f"`{name}' is not a WireGuard interface")

    def show(command: str) -> None:
        say(f"[#] {command}")

    shown_name = interface or (tunnel.interface if tunnel else name)
    run_hooks("PreDown", _hooks(section.pre_down, name), shown_name, show)
    if tunnel is not None:
        darwin_monitor.stop(tunnel)
        tunnel = Tunnel.read(name)  # it may have noted more, or have cleaned up
    show(f"rm -f {socket_path(shown_name)} {name_file(name)}")
    _delete(name)
    clean = tunnel is None or tunnel.clean(say)
    run_hooks("PostDown", _hooks(section.post_down, name), shown_name, show)
    if not clean:
        raise PywgError(f"`{name}' is down, but not all that belonged to it could be removed")


def refuse_unsupported(config: Config) -> None:
    """Raise ConfigError for what a file asks for and macOS has not, or is not done there yet."""
    section = config.interface
    mistakes: list[Mistake] = []
    if section.fwmark is not None and section.fwmark.value:
        mistakes.append(Mistake(section.fwmark.position, "FwMark: macOS has no firewall marks; leave it out"))
    if section.table is not None and section.table.value not in ("auto", "main", "off"):
        text = "Table: macOS has one routing table; it can be auto, main or off"
        mistakes.append(Mistake(section.table.position, text))
    if section.save_config is not None and section.save_config.value:
        text = "SaveConfig: saving on the way down is not done on macOS yet; set it to false"
        mistakes.append(Mistake(section.save_config.position, text))
    if mistakes:
        raise ConfigError(sorted(mistakes, key=lambda mistake: mistake.position))


def _load(argument: str, say: Say) -> Loaded:
    loaded = load(argument)
    for warning in loaded.warnings:
        say(warning)
    refuse_unsupported(loaded.config)
    return loaded


def _hooks(hooks: list[Located[str]], name: str) -> list[Located[str]]:
    """As wg-quick has it there: `%i` is the utun, `%I` the file's name."""
    return [Located(hook.value.replace("%I", name), hook.position) for hook in hooks]


def _start_daemon(name: str) -> None:
    SOCKET_DIRECTORY.mkdir(mode=0o700, parents=True, exist_ok=True)
    name_file(name).unlink(missing_ok=True)
    before = os.environ.get("WG_TUN_NAME_FILE")
    os.environ["WG_TUN_NAME_FILE"] = str(name_file(name))
    try:
        finish_start(spawn_daemon(DEVICE))
    finally:
        del os.environ["WG_TUN_NAME_FILE"]
        if before is not None:
            os.environ["WG_TUN_NAME_FILE"] = before


def _delete(name: str) -> None:
    """End the daemon by removing its socket, and wait for the interface to go with it."""
    interface = real_interface(name)
    name_file(name).unlink(missing_ok=True)
    if interface is None:
        return
    socket_path(interface).unlink(missing_ok=True)
    deadline = time.monotonic() + _END_LIMIT
    while interface_exists(interface) and time.monotonic() < deadline:
        time.sleep(0.01)


def _configure(interface: str, config: Config, say: Say) -> None:
    endpoints = resolve_all([peer.endpoint for peer in config.peers if peer.endpoint is not None], say)
    try:
        with Client.open(interface) as client:
            client.set(device_change(config, endpoints))
    except UapiError as error:
        if error.errno == errno.EADDRINUSE:
            raise _port_taken(config) from None
        raise PywgError(f"the daemon of {interface} did not take the configuration: {error}") from None


def _port_taken(config: Config) -> PywgError:
    port = config.interface.listen_port
    if port is None:
        return PywgError("no UDP port could be opened; `lsof -nP -iUDP` shows what is taken")
    text = f"ListenPort: UDP port {port.value} is in use; `lsof -nP -iUDP:{port.value}` shows by whom"
    return ConfigError([Mistake(port.position, text)])


def _add_routes(tunnel: Tunnel, wanted: set[Network], network: DarwinNetwork, steps: Steps) -> None:
    """Routes to what the device allows; a default route in two halves, beside the system's own."""
    for allowed in routes_to_add(wanted, set()):
        if allowed.prefixlen == 0:
            tunnel.routes.versions.append(allowed.version)
            for half in HALVES[allowed.version]:
                command = route_command(tunnel.interface, half)
                steps.run(shown(command), functools.partial(run, command))
        else:
            add = functools.partial(network.add_route, tunnel.interface, allowed)
            steps.run(shown(route_command(tunnel.interface, str(allowed))), add)


def _watch(tunnel: Tunnel, config: Config, steps: Steps, say: Say) -> None:
    """Direct routes to endpoints, name servers, and the monitor that keeps both."""
    section = config.interface
    servers = [str(server.value) for server in section.dns_servers]
    search = [domain.value for domain in section.dns_search]
    tunnel.resolver = Resolver(servers, search) if servers or search else None

    def undo() -> None:
        if left := Tunnel.read(tunnel.name):
            darwin_monitor.stop(left)
            (Tunnel.read(tunnel.name) or left).clean(say)

    steps.run("", tunnel.write, Undo("", undo))
    if tunnel.routes.versions:
        tunnel.renew_routes(darwin_monitor.endpoint_hosts(tunnel.interface))
        for host in tunnel.routes.hosts:
            steps.show(shown(endpoint_command(host, tunnel.routes.gateway_of(host))))
    if tunnel.resolver is not None:
        steps.run(networksetup.shown(servers), tunnel.set_resolver)
    if tunnel.routes.versions or tunnel.resolver is not None:
        say("[+] Backgrounding route monitor")
        darwin_monitor.start(tunnel)
    else:
        tunnel.forget()
