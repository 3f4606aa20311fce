"""macOS's `ifconfig`, `route`, `netstat` and `networksetup`, as far as tunnels need them, over Linux.

`darwin_commands.py PROGRAM ARGUMENT...`: interfaces and routes are the real ones of the network namespace, so
that packets go where the commands say; name servers are in a file of JSON, /run/services.json. What a program
does not know ends it with status 64.
"""

from __future__ import annotations

import fcntl
import json
import os
import pathlib
import re
import subprocess
import sys

SERVICES = "/run/services.json"


def ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"{sys.argv[1]}: {done.stdout.strip()}")
    return done.stdout


def ifconfig(arguments: list[str]) -> None:
    match arguments:
        case [name]:
            mtu = re.search(r"mtu (\d+)", ip("link", "show", "dev", name))
            assert mtu
            print(f"{name}: flags=8051<UP,POINTOPOINT,RUNNING,MULTICAST> mtu {mtu[1]}")
        case [name, "inet", address, own, "alias"] if address.startswith(f"{own}/"):
            ip("-4", "address", "add", address, "dev", name)
        case [name, "inet6", address, "alias"]:
            ip("-6", "address", "add", address, "dev", name, "nodad")
        case [name, "mtu", mtu]:
            ip("link", "set", "dev", name, "mtu", mtu)
        case [name, "up"]:
            ip("link", "set", "dev", name, "up")
        case _:
            sys.exit(64)


def route(arguments: list[str]) -> None:
    arguments = [argument for argument in arguments if argument not in ("-q", "-n")]
    match arguments:
        case ["monitor"]:
            with subprocess.Popen(
                ["ip", "monitor", "link", "route"], stdout=subprocess.PIPE, text=True
            ) as events:
                assert events.stdout
                for _ in events.stdout:
                    print("RTM_CHANGE: Change Metrics, Flags or Gateway", flush=True)
        case ["get", family, "default"]:
            words = ip(version(family), "route", "show", "default").split()
            print(f"   route to: default\n  interface: {words[words.index('dev') + 1]}")
        case ["get", family, destination]:
            words = ip(version(family), "route", "get", destination.partition("/")[0]).split()
            print(
                f"   route to: {destination}\n  interface: {words[words.index('dev') + 1]}\n      flags: <UP>"
            )
        case ["add", family, network, "-interface", name]:
            ip(version(family), "route", "add", network, "dev", name)
        case ["add", family, host, "-gateway", gateway]:
            ip(version(family), "route", "add", host, "via", gateway)
        case ["add", family, host, "127.0.0.1" | "::1", "-blackhole"]:
            ip(version(family), "route", "add", "blackhole", host)
        case ["delete", family, host]:
            ip(version(family), "route", "delete", host)
        case _:
            sys.exit(64)


def netstat(arguments: list[str]) -> None:
    match arguments:
        case ["-nr", "-f", family]:
            print("Routing tables\n\nInternet:\nDestination        Gateway            Flags   Netif Expire")
            for line in ip(version(f"-{family}"), "route", "show").splitlines():
                words = line.split()
                way = words[words.index("via") + 1] if "via" in words else "link#4"
                print(f"{words[0]:18} {way:18} UGScg    en0")
        case _:
            sys.exit(64)


def networksetup(arguments: list[str]) -> None:
    with pathlib.Path(SERVICES).open("r+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        services = json.load(file)
        match arguments:
            case ["-listallnetworkservices"]:
                print("An asterisk (*) denotes that a network service is disabled.")
                for name, service in services.items():
                    print(f"{'*' if service.get('off') else ''}{name}")
                return
            case ["-getdnsservers", name]:
                found = services[name]["dns"]
                print("\n".join(found) or f"There aren't any DNS Servers set on {name}.")
                return
            case ["-getsearchdomains", name]:
                found = services[name]["search"]
                print("\n".join(found) or f"There aren't any Search Domains set on {name}.")
                return
            case ["-setdnsservers" | "-setsearchdomains" as option, name, *values] if (
                name in services and values
            ):
                key = "dns" if option == "-setdnsservers" else "search"
                services[name][key] = [] if values == ["Empty"] else values
            case _:
                print("** Error: The parameters were not valid.")
                sys.exit(4)
        file.seek(0)
        file.truncate()
        json.dump(services, file)


def version(family: str) -> str:
    return {"-inet": "-4", "-inet6": "-6"}[family]


if __name__ == "__main__":
    if (fails := os.environ.get("FAILS")) and " ".join(sys.argv[1:]).startswith(fails):
        sys.exit(f"{sys.argv[1]}: this shall fail")
    {"ifconfig": ifconfig, "route": route, "netstat": netstat, "networksetup": networksetup}[sys.argv[1]](
        sys.argv[2:]
    )
