"""`pywg show`: interfaces, peers and traffic, as `wg show` prints them, or as JSON."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from pywg.cli import wgformat
from pywg.cli.wgusage import WORDS, refuse_usage
from pywg.device.snapshot import DeviceSnapshot
from pywg.errors import PywgError
from pywg.host import control

if TYPE_CHECKING:
    from pywg.observe.findings import Finding

_USAGE = f"[--json] {{ <interface> | all | interfaces }} [{' | '.join(wgformat.FIELDS)}]"


@click.command("show", context_settings={"ignore_unknown_options": True})
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@WORDS
@click.pass_context
def command(context: click.Context, as_json: bool, words: tuple[str, ...]) -> None:
    """Show interfaces, their peers and what they carried.

    \b
    pywg show                     every interface, for people
    pywg show INTERFACE|all       one, or every one
    pywg show INTERFACE|all FIELD one field, for scripts; columns go apart by tabs
    pywg show interfaces          the names only

    \b
    FIELD is one of: public-key, private-key, listen-port, fwmark, peers,
    preshared-keys, endpoints, allowed-ips, latest-handshakes, transfer,
    persistent-keepalive, dump.

    WG_HIDE_KEYS=never shows private and preshared keys, and WG_COLOR_MODE=always|never overrides that only a
    terminal gets colours; so does NO_COLOR.

    JSON has a "version", 1 now; later versions of pywg may add fields, but change none within a version.
    "interfaces" is a list of objects: "name", "public_key" (or null), "has_private_key", "private_key" (only
    with WG_HIDE_KEYS=never), "listen_port", "fwmark" (numbers or null), and "peers", a list of objects:
    "public_key", "name" (text or null), "has_preshared_key", "preshared_key" (only with WG_HIDE_KEYS=never),
    "endpoint" (text or null), "allowed_ips" (a list), "latest_handshake" (seconds since 1970, or null),
    "rx_bytes", "tx_bytes", "persistent_keepalive" (seconds, or null); and "findings", what is wrong as far as
    counts alone tell.
    """
    match words:
        case ("interfaces",) if not as_json:
            interfaces = control.list_interfaces()
            click.echo(" ".join(interfaces), nl=bool(interfaces))
        case () | ("all",):
            _show_all(context, as_json)
        case ("all", field) if not as_json:
            _show_field_of_all(context, field)
        case ("help",):
            click.echo(context.get_help())
        case (interface,) if interface != "interfaces":
            _show_one(interface, as_json)
        case (interface, field) if interface != "interfaces" and not as_json:
            _show_field(context, interface, field)
        case _:
            refuse_usage(context, _USAGE)


def _show_all(context: click.Context, as_json: bool) -> None:
    interfaces = control.list_interfaces()
    if as_json:
        devices = list(_readable(interfaces))
        _print_json(devices)
    else:
        devices = []
        for name, device in _readable(interfaces):
            devices.append((name, device))
            _print_pretty(name, device)
            _print_findings(name)
            if name != interfaces[-1]:
                click.echo()
    if interfaces and not devices:
        context.exit(1)


def _show_field_of_all(context: click.Context, field: str) -> None:
    interfaces = control.list_interfaces()
    found = False
    for name, device in _readable(interfaces):
        found = True
        for row in _rows(context, device, field):
            click.echo("\t".join((name, *row)))
    if interfaces and not found:
        context.exit(1)


def _show_one(interface: str, as_json: bool) -> None:
    device = control.get(interface)
    if as_json:
        _print_json([(interface, device)])
    else:
        _print_pretty(interface, device)
        _print_findings(interface)


def _show_field(context: click.Context, interface: str, field: str) -> None:
    for row in _rows(context, control.get(interface), field):
        click.echo("\t".join(row))


def _readable(interfaces: list[str]) -> Iterator[tuple[str, DeviceSnapshot]]:
    """One after the other; an interface that cannot be read is told on standard error and left out."""
    for interface in interfaces:
        try:
            device = control.get(interface)
        except PywgError as error:
            click.echo(f"pywg: {error}", err=True)
            continue
        yield interface, device


def _rows(context: click.Context, device: DeviceSnapshot, field: str) -> Iterator[tuple[str, ...]]:
    rows = wgformat.FIELDS.get(field)
    if rows is None:
        click.echo(f"pywg: there is no field '{field}'", err=True)
        refuse_usage(context, _USAGE)
    return map(tuple, rows(device))


def _print_pretty(name: str, device: DeviceSnapshot) -> None:
    text = wgformat.pretty(name, device, int(time.time()), hide_keys=_hides_keys())
    click.echo(text if _has_colours() else wgformat.without_colours(text), nl=False, color=True)


def _print_findings(name: str) -> None:
    """What is wrong as far as counts alone tell, beside what `wg` prints: for eyes only, never in a pipe."""
    if not (sys.stdout.isatty() and sys.stderr.isatty()):
        return
    from pywg.observe.findings import short

    for finding in _findings(name):
        whom = f"{short(finding.peer, finding.name)}: " if finding.peer else ""
        click.echo(f"{finding.weight.value}: {whom}{finding.kind.summary}", err=True)
        click.echo(f"  `pywg doctor {name}` tells more [{finding.code}]", err=True)


def _findings(name: str) -> list[Finding]:
    from pywg.observe.counted import from_statistics
    from pywg.observe.findings import settle

    try:
        said = control.statistics(name)
    except PywgError:
        return []  # it has gone since it was read
    return [] if said is None else settle(from_statistics(said))


def _print_json(devices: list[tuple[str, DeviceSnapshot]]) -> None:
    from pywg.host.peernames import peer_names  # half of what this command imports

    def findings(name: str) -> list[dict[str, Any]]:
        return [finding.to_json() for finding in _findings(name)]

    value = wgformat.json_value(devices, hide_keys=_hides_keys(), names=peer_names, findings=findings)
    click.echo(json.dumps(value, indent=2))


def _hides_keys() -> bool:
    return os.environ.get("WG_HIDE_KEYS") != "never"


def _has_colours() -> bool:
    mode = os.environ.get("WG_COLOR_MODE")
    if mode in ("always", "never"):
        return mode == "always"
    return not os.environ.get("NO_COLOR") and sys.stdout.isatty()
