"""Windows' `netsh interface` and `powershell`, as far as tunnels need them, over a file of JSON.

`windows_commands.py PROGRAM ARGUMENT...`: the file that SYSTEM names has what they have set, as lines.
What a program does not know ends it with status 1, as netsh has it.
"""

from __future__ import annotations

import ipaddress
import json
import os
import pathlib
import re
import sys

FILE = pathlib.Path(os.environ["SYSTEM"])
OPTIONS = {
    "add address": {"name", "interface", "address", "mask", "store"},
    "set subinterface": {"interface", "mtu", "store"},
    "add route": {"prefix", "interface", "nexthop", "metric", "store"},
    "delete route": {"prefix", "interface", "nexthop", "store"},
    "set dnsservers": {"name", "source", "address", "register", "validate"},
    "add dnsservers": {"name", "address", "index", "validate"},
}


def netsh(arguments: list[str], system: dict[str, list[str]]) -> None:
    interface, version, verb, what, *rest = arguments
    command = f"{verb} {what}"
    options = dict(option.split("=", 1) for option in rest)
    if interface != "interface" or version not in ("ipv4", "ipv6") or not options.keys() <= OPTIONS[command]:
        sys.exit("The syntax supplied for this command is not valid.")
    if options.pop("store", "active") != "active":
        sys.exit("this would outlive a restart")
    if "prefix" in options:
        assert f"ipv{ipaddress.ip_network(options['prefix']).version}" == version
    options.pop("metric", None)
    line = " ".join([version, what, *(f"{key}={value}" for key, value in sorted(options.items()))])
    if verb == "delete":
        system["settings"].remove(line)
    elif line in system["settings"]:
        sys.exit("The object already exists.")
    else:
        system["settings"].append(line)


def powershell(arguments: list[str], system: dict[str, list[str]]) -> None:
    assert arguments[:3] == ["-NoProfile", "-NonInteractive", "-Command"]
    match = re.match(r"Find-NetRoute -RemoteIPAddress (\S+) \| Where-Object NextHop \| ", arguments[3])
    assert match, arguments
    ipaddress.ip_address(match[1])
    if arguments[3].endswith("Select-Object InterfaceIndex,NextHop | ConvertTo-Json"):
        print(json.dumps({"InterfaceIndex": 12, "NextHop": "fe80::1" if ":" in match[1] else "192.0.2.2"}))
    elif arguments[3].endswith("| Select-Object NlMtu | ConvertTo-Json"):
        print(json.dumps([{"NlMtu": 1492}]))


if __name__ == "__main__":
    if (fails := os.environ.get("FAILS")) and fails in " ".join(sys.argv[1:]):
        sys.exit("this shall fail")
    system = json.loads(FILE.read_text())
    try:
        {"netsh": netsh, "powershell": powershell}[sys.argv[1]](sys.argv[2:], system)
    finally:
        FILE.write_text(json.dumps(system))
