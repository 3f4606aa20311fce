"""A configuration file's tunnel on Windows: up, and there until Ctrl-C. Experimental: never run on Windows.

There is no service and no named pipe yet, so the program that brings the tunnel up carries its packets, and
takes it down when it is told to end. If it is killed, the adapter goes with it; a route to an endpoint stays
until the system is restarted.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import shlex
from collections.abc import Callable

from pywg.config.change import device_change
from pywg.config.files import load
from pywg.config.model import Config
from pywg.config.positions import ConfigError, Located, Mistake
from pywg.device.snapshot import DeviceSnapshot
from pywg.errors import PywgError
from pywg.host.command import run, shown
from pywg.host.hooks import run_hooks
from pywg.host.inprocess import EngineThread
from pywg.host.names import require_network_rights
from pywg.host.network import HALVES
from pywg.host.resolve import resolve_all
from pywg.host.routing import choose_mtu, routes_to_add
from pywg.host.steps import Interrupted, Steps, Undo, placed
from pywg.host.windows import (
    Way,
    WindowsNetwork,
    address_command,
    endpoint_commands,
    mtu_command,
    name_server_commands,
    route_command,
)
from pywg.tun.windows import WindowsTun
from pywg.tun.wintun import Wintun
from pywg.uapi.error import UapiError
from pywg.uapi.server import apply_change

FIRST_MTU = 1420

Say = Callable[[str], None]


class _DownError(Exception):
    """Told to end, with the tunnel up: the steps are taken back."""


def bring_up(argument: str, say: Say, api: Wintun | None = None) -> None:
    """Bring up the tunnel of a file or of a name, carry its packets until interrupted, and take it down.

    say: prints one line. api: Wintun, if it is not to be looked for. Raises PywgError, also when the adapter
    is removed by somebody; then the system is as it was, but for what the hooks did.
    """
    loaded = load(argument)
    for warning in loaded.warnings:
        say(warning)
    config, interface = loaded.config, loaded.location.interface
    refuse_unsupported(config)
    require_network_rights(f"pywg up {shlex.quote(argument)}")
    hooks = functools.partial(_run_hooks, config, interface, say)
    with contextlib.suppress(_DownError), Steps(say) as steps:
        tun = _make_adapter(interface, steps, api)
        hooks("PreUp")
        engine = EngineThread(tun)
        steps.run("", lambda: None, Undo("", engine.stop))
        steps.run(
            f"wg addconf {interface} <(wg-quick strip {shlex.quote(argument)})",
            functools.partial(_configure, engine, config, say),
        )
        _set_up(config, tun, engine, steps)
        hooks("PostUp")
        say(f"[+] {interface} is up; Ctrl-C takes it down")
        with contextlib.suppress(Interrupted):
            while not engine.has_ended(1.0):
                continue
        hooks("PreDown")
        raise _DownError
    hooks("PostDown")


def take_down(argument: str, _: Say) -> None:
    """Raises PywgError: the program that brought it up is the only one that can take it down."""
    raise PywgError(
        f"press Ctrl-C where `pywg up {shlex.quote(argument)}' runs: on Windows that takes it down"
    )


def refuse_unsupported(config: Config) -> None:
    """Raise ConfigError for what a file asks for and Windows has not, or is not done there yet."""
    section = config.interface
    mistakes: list[Mistake] = []
    if section.fwmark is not None and section.fwmark.value:
        mistakes.append(
            Mistake(section.fwmark.position, "FwMark: Windows has no firewall marks; leave it out")
        )
    if section.table is not None and section.table.value not in ("auto", "main", "off"):
        text = "Table: Windows has one routing table; it can be auto, main or off"
        mistakes.append(Mistake(section.table.position, text))
    if section.save_config is not None and section.save_config.value:
        text = "SaveConfig: saving on the way down is not done on Windows yet; set it to false"
        mistakes.append(Mistake(section.save_config.position, text))
    text = "DNS: search domains are not set on Windows yet; leave them out"
    mistakes += [Mistake(domain.position, text) for domain in section.dns_search]
    if mistakes:
        raise ConfigError(sorted(mistakes, key=lambda mistake: mistake.position))


def _run_hooks(config: Config, interface: str, say: Say, name: str) -> None:
    section = config.interface
    hooks: dict[str, list[Located[str]]] = {
        "PreUp": section.pre_up,
        "PostUp": section.post_up,
        "PreDown": section.pre_down,
        "PostDown": section.post_down,
    }
    run_hooks(name, hooks[name], interface, lambda command: say(f"[#] {command}"))


def _make_adapter(interface: str, steps: Steps, api: Wintun | None) -> WindowsTun:
    made: list[WindowsTun] = []

    def remove() -> None:
        for tun in made:
            tun.close()

    steps.run(
        f"wintun: create adapter {interface}",
        lambda: made.append(WindowsTun.create(interface, FIRST_MTU, api)),
        Undo(f"wintun: remove adapter {interface}", remove),
    )
    return made[0]


def _configure(engine: EngineThread, config: Config, say: Say) -> None:
    endpoints = resolve_all([peer.endpoint for peer in config.peers if peer.endpoint is not None], say)
    change = device_change(config, endpoints)
    try:
        engine.call(lambda one: apply_change(one, change))
    except UapiError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise _port_taken(config, str(error)) from None
    if _snapshot(engine).listen_port == 0:
        raise _port_taken(config, "no UDP port could be opened")


def _snapshot(engine: EngineThread) -> DeviceSnapshot:
    return engine.call(lambda one: one.snapshot())


def _port_taken(config: Config, text: str) -> PywgError:
    port = config.interface.listen_port
    return PywgError(text) if port is None else ConfigError([Mistake(port.position, f"ListenPort: {text}")])


def _set_up(config: Config, tun: WindowsTun, engine: EngineThread, steps: Steps) -> None:
    """Addresses, MTU, name servers and routes."""
    interface, section = tun.name, config.interface
    for address in section.addresses:
        command = address_command(interface, address.value)
        steps.run(shown(command), functools.partial(placed, address.position, "Address", run, command))
    device = _snapshot(engine)
    with WindowsNetwork() as network:
        mtu = choose_mtu(config, device, network)
        versions = {4} | {address.value.version for address in section.addresses}
        for version in sorted(versions):
            command = mtu_command(interface, mtu, version)
            steps.run(shown(command), functools.partial(run, command))
        tun.set_mtu(mtu)
        for command in name_server_commands(interface, [str(server.value) for server in section.dns_servers]):
            steps.run(shown(command), functools.partial(run, command))
        if section.table is None or section.table.value != "off":
            _add_routes(interface, device, network, steps)


def _add_routes(interface: str, device: DeviceSnapshot, network: WindowsNetwork, steps: Steps) -> None:
    """Routes to what the device allows; before a default route, the ways to the endpoints are pinned."""
    wanted = {allowed for peer in device.peers for allowed in peer.allowed_ips}
    defaults = {allowed.version for allowed in wanted if allowed.prefixlen == 0}
    hosts = dict.fromkeys(peer.endpoint.host for peer in device.peers if peer.endpoint is not None)
    for host in hosts:
        way: Way | None = network.way_to(host) if (6 if ":" in host else 4) in defaults else None
        if way is not None:
            add, delete = endpoint_commands(host, way)
            steps.run(
                shown(add), functools.partial(run, add), Undo(shown(delete), functools.partial(_do, delete))
            )
    for allowed in routes_to_add(wanted, set()):
        for part in HALVES[allowed.version] if allowed.prefixlen == 0 else (str(allowed),):
            command = route_command(interface, part)
            steps.run(shown(command), functools.partial(run, command))


def _do(command: list[str]) -> None:
    run(command)
