"""`pywg up` as on Windows: `windows_up.py FILE`, with Wintun's stand-in, in the foreground until SIGINT.

The test is the host behind the adapter: a line `send HEX` on standard input is a packet that the host sends
into the tunnel; what comes out is printed as `got HEX`. `remove` takes the adapter away.
"""

import pathlib
import selectors
import sys
import threading

from pywg.errors import PywgError
from pywg.host import windows_tunnel
from tests import windows

selectors.DefaultSelector = selectors.SelectSelector  # there is nothing better on Windows
name = pathlib.Path(sys.argv[1]).stem


def say(line: str) -> None:
    print(line, flush=True)
    if "Ctrl-C takes it down" in line:
        host = windows.Host(name)
        threading.Thread(target=obey, args=(host,), daemon=True).start()
        threading.Thread(target=report, args=(host,), daemon=True).start()


def obey(host: windows.Host) -> None:
    for line in sys.stdin:
        what, _, packet = line.strip().partition(" ")
        if what == "send":
            host.send(bytes.fromhex(packet))
        else:
            host.remove()


def report(host: windows.Host) -> None:
    while True:
        print("got", host.recv(3600).hex(), flush=True)


try:
    windows_tunnel.bring_up(sys.argv[1], say, windows.load())
except PywgError as error:
    print(f"pywg: {error}")
    sys.exit(1)
finally:
    assert not windows.adapter_exists(name)
