"""`pywg new`: new configuration files that match each other, with new keys."""

from __future__ import annotations

import ipaddress
import os
import shlex
from pathlib import Path

import click

from pywg.config.files import is_interface_name
from pywg.config.fresh import AddressPool, Member, matching_files
from pywg.config.model import EndpointName
from pywg.config.parse import BadValue, endpoint_name
from pywg.config.write import write
from pywg.errors import PywgError

HUB_FILE = "hub"


@click.command("new")
@click.argument("hosts", nargs=-1, metavar="[NAME[=HOST:PORT] NAME[=HOST:PORT]]")
@click.option("--hub", metavar="HOST:PORT", help="Where the clients reach the hub.")
@click.option("--clients", metavar="NAME,...", help="The hub's clients, separated by commas.")
@click.option("--network", metavar="CIDR", help="IPv4 network for the tunnel's addresses.")
@click.option("--network6", metavar="CIDR", help="IPv6 network for the tunnel's addresses.")
@click.option("--psk", is_flag=True, help="A preshared key for each pair, too.")
@click.option("-o", "--output", metavar="DIRECTORY", required=True, help="Where to write the files.")
def command(
    *,
    hosts: tuple[str, ...],
    hub: str | None,
    clients: str | None,
    network: str | None,
    network6: str | None,
    psk: bool,
    output: str,
) -> None:
    """Write new configuration files for two hosts, or for a hub and its clients.

    Each file is NAME.conf, may be read by you only, and is complete but for what you want to add. No file is
    replaced; when anything fails, none is left.

    \b
    pywg new alice=alice.example:51820 bob --network 10.9.0.0/24 -o keys
    pywg new --hub hub.example:51820 --clients alice,bob \\
        --network 10.9.0.0/24 --network6 fd09::/64 --psk -o keys
    """
    networks = [
        _network(option, text, version)
        for option, text, version in (("--network", network, 4), ("--network6", network6, 6))
        if text
    ]
    if not networks:
        raise click.UsageError("give it addresses: --network 10.9.0.0/24, --network6 fd09::/64, or both")
    center, others = _members(hosts, hub, clients)
    files = matching_files(center, others, networks, os.urandom, preshared=psk, route_all=hub is not None)
    paths = _write_all(Path(output), {f"{name}.conf": write(config) for name, config in files.items()})
    for path in paths:
        click.echo(str(path))
    first = shlex.quote(f"./{paths[0].name}")
    click.echo(f"Bring each file to its host by a way that you trust; there: pywg up {first}", err=True)


def _members(hosts: tuple[str, ...], hub: str | None, clients: str | None) -> tuple[Member, list[Member]]:
    """The one that everybody is a peer of, and the others."""
    if hub is not None and clients is not None and not hosts:
        others = [_member(name.strip()) for name in clients.split(",")]
        center = Member(HUB_FILE, _endpoint("--hub", hub))
    elif hub is None and clients is None and len(hosts) == 2:
        center, second = (_member(*text.partition("=")[::2]) for text in hosts)
        others = [second]
    else:
        raise click.UsageError(
            "give two hosts, as in 'alice=alice.example:51820 bob', or --hub and --clients"
        )
    members = [center, *others]
    for member in members:
        if [other.name for other in members].count(member.name) > 1:
            raise click.UsageError(f"'{member.name}' is there twice; each host has a file of its own")
    if not any(member.endpoint for member in members):
        raise click.UsageError(f"one of the two must say where it can be reached: {center.name}=HOST:PORT")
    return center, others


def _member(name: str, endpoint: str = "") -> Member:
    if not is_interface_name(name):
        raise click.UsageError(
            f"{name!r} cannot be a file's name and an interface's: 1 to 15 of a-z A-Z 0-9 _ = + . -"
        )
    return Member(name, _endpoint(name, endpoint) if endpoint else None)


def _endpoint(what: str, text: str) -> EndpointName:
    try:
        endpoint = endpoint_name(text)
    except BadValue as bad:
        raise click.UsageError(f"{what}: {bad}") from None
    if not endpoint.port.isdigit() or int(endpoint.port) == 0:
        raise click.UsageError(f"{what}: the port must be a number from 1 to 65535")
    return endpoint


def _network(option: str, text: str, version: int) -> AddressPool:
    try:
        found = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise click.UsageError(
            f"{option}: '{text}' is not a network, such as 10.9.0.0/24 or fd09::/64"
        ) from None
    if found.version != version:
        raise click.UsageError(f"{option}: {found} is an IPv{found.version} network; this takes IPv{version}")
    return found


def _write_all(directory: Path, texts: dict[str, str]) -> list[Path]:
    """Write all files or none; `directory` is made when it is not there. Raises PywgError."""
    made: list[Path] = []
    made_directory = False
    path = directory
    try:
        if not directory.is_dir():
            directory.mkdir(mode=0o700)
            made_directory = True
        for name, text in texts.items():
            path = directory / name
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            made.append(path)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
    except BaseException as error:
        for written in made:
            written.unlink(missing_ok=True)
        if made_directory:
            directory.rmdir()
        if isinstance(error, FileExistsError):
            raise PywgError(f"{path} is there already; nothing was written. Give another --output") from None
        if isinstance(error, OSError):
            raise PywgError(f"{path} cannot be written: {error.strerror}; nothing was left") from None
        raise
    return made
