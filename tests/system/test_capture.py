"""`pywg capture` beside a real tunnel, read and decrypted by tshark."""

from __future__ import annotations

import pathlib
import shutil
import signal
import subprocess
import sys

import pytest

from tests.system.cases import ping
from tests.system.conftest import missing
from tests.system.net import Host, HostTask, Lab, eventually
from tests.system.programs import PROGRAMS, Program
from tests.system.test_up_down import status_of
from tests.system.tunnel import WG, Tunnel, generate_psk, make_tunnel

PYWG = str(pathlib.Path(sys.executable).with_name("pywg"))
WRITTEN = "/run/capture.pcapng"


@pytest.fixture
def tunnel(lab: Lab, ours: Program) -> Tunnel:
    return make_tunnel(lab, ours, ours)


def capture(host: Host, *options: str) -> HostTask:
    """A capture that has begun."""
    task = host.start(PYWG, "capture", WG, "-w", WRITTEN, *options)
    eventually("the capture begins", lambda: "capturing on" in task.output())
    return task


def finished(task: HostTask) -> str:
    task.signal(signal.SIGINT)
    return task.wait()


def tshark(host: Host, *options: str) -> list[str]:
    """The lines that tshark prints of the capture."""
    if shutil.which("tshark") is None:
        missing("tshark is not installed")
    done = subprocess.run(
        ["nsenter", f"--target={host.pid}", "--mount", "--", "tshark", "-n", "-r", WRITTEN, *options],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def fields(host: Host, filter: str, *names: str) -> list[list[str]]:
    options = [option for name in names for option in ("-e", name)]
    lines = tshark(host, "-Y", filter, "-T", "fields", "-E", "separator=|", *options)
    return [line.split("|") for line in lines]


@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("initiator", ["left", "right"])
def test_tshark_decrypts_a_capture_with_its_secrets(tunnel: Tunnel, initiator: str, outer: int) -> None:
    host = tunnel.left.machine.host
    task = capture(host, "--secrets")
    tunnel.configure(initiator=getattr(tunnel, initiator), psk=generate_psk(), outer=outer)
    first = getattr(tunnel, initiator)
    ping(first, tunnel.other(first))
    said = finished(task)
    assert "will hold the private key" in said
    assert " packets captured" in said
    handshake = [row[0] for row in fields(host, "wg.type <= 2 && wg.type >= 1", "wg.type")]
    assert handshake[:2] == ["1", "2"]
    decrypted = fields(host, "wg.type == 4 && icmp", "ip.src", "icmp.type", "frame.interface_name")
    assert {row[1].split(",")[-1] for row in decrypted} == {"8", "0"}
    inner = fields(host, f'icmp && frame.interface_name == "{WG}"', "ip.src", "ip.dst")
    assert [tunnel.left.inner[0], tunnel.right.inner[0]] in inner
    assert [tunnel.right.inner[0], tunnel.left.inner[0]] in inner


def test_without_secrets_nothing_decrypts_and_no_key_is_there(tunnel: Tunnel) -> None:
    host = tunnel.left.machine.host
    task = capture(host, "--outer")
    tunnel.configure(initiator=tunnel.left)
    ping(tunnel.left, tunnel.right)
    finished(task)
    assert fields(host, "wg.type == 4", "wg.counter")
    assert fields(host, "icmp", "ip.src") == []
    assert tunnel.left.key.private not in host.run("strings", "-n", "20", WRITTEN)
    assert host.run("stat", "-c%a", WRITTEN).strip() == "600"


def test_a_trap_under_the_name_of_the_file_is_told_and_left_alone(tunnel: Tunnel) -> None:
    host = tunnel.left.machine.host
    host.write("/run/passwd", "root\n")
    host.run("sh", "-c", "mkdir -m 1777 /run/shared && ln -s ../passwd /run/shared/it")
    status, said = status_of(host, PYWG, "capture", WG, "-w", "/run/shared/it", "--secrets")
    assert status == 1
    assert "/run/shared/it cannot be written: it is a link, in a folder that everybody may write to" in said
    assert host.run("cat", "/run/passwd") == "root\n"


def test_drops_have_their_reason_as_a_comment(tunnel: Tunnel) -> None:
    left, right = tunnel.left, tunnel.right
    host = right.machine.host
    tunnel.configure(initiator=left)
    ping(left, right)
    task = capture(host)
    # Left sends from an address that is not its own there.
    left.machine.run("ip", "addr", "add", "10.77.0.9/32", "dev", WG)
    left.machine.run("ping", "-c1", "-W1", "-I", "10.77.0.9", right.inner[0], check=False)
    right.machine.run("ping", "-c1", "-W1", "-I", WG, "10.77.0.99", check=False)
    left.machine.host.run(
        *(sys.executable, "-c", "import socket; socket.socket(2, 2).sendto(b'x' * 50, ('192.0.2.2', 51820))")
    )
    finished(task)
    comments = {row[0] for row in fields(host, "frame.comment", "frame.comment")}
    assert {"dropped: source-not-allowed", "dropped: no-route", "dropped: unknown-type"} <= comments


def test_packets_are_cut_and_counted_and_the_time_is_bounded(tunnel: Tunnel) -> None:
    host = tunnel.left.machine.host
    tunnel.configure(initiator=tunnel.left)
    ping(tunnel.left, tunnel.right)
    task = capture(host, "--inner", "-s", "20", "-c", "4")
    assert "another capture" in host.run(PYWG, "capture", WG, "-w", "/run/other", check=False)
    tunnel.left.machine.run("ping", "-c3", "-i0.2", tunnel.right.inner[0])
    assert "4 packets captured" in task.wait()
    rows = fields(host, "frame", "frame.cap_len", "frame.len")
    assert rows == [["20", "84"]] * 4
    said = host.run(PYWG, "capture", WG, "-w", WRITTEN, "--seconds", "0.3")
    assert "packets captured" in said


def test_a_stream_goes_through_a_pipe(tunnel: Tunnel) -> None:
    host = tunnel.left.machine.host
    said = host.run("sh", "-c", f"{PYWG} capture {WG} -w - --seconds 0.2 2>/run/said | head -c 4 | xxd -p")
    assert said.strip() == "0a0d0d0a"


def test_the_key_log_of_the_environment_opens_what_tcpdump_captured(lab: Lab) -> None:
    tunnel = make_tunnel(lab, PROGRAMS["pywgd"], PROGRAMS["wireguard-go"])
    host = tunnel.left.machine.host
    tunnel.left.stop()
    eventually("it has ended", lambda: WG not in host.run("ip", "-o", "link"))
    daemon = str(pathlib.Path(sys.executable).with_name("pywgd"))
    host.run("sh", "-c", f"cd /run && {daemon} {WG}", env={"WG_KEYLOGFILE": "keys"})
    tunnel.left.is_up = False
    dump = host.start("tcpdump", "-Z", "root", "-U", "-w", WRITTEN, "-i", tunnel.left.uplink, "udp")
    eventually("tcpdump listens", lambda: "listening" in dump.output())
    tunnel.configure(initiator=tunnel.left, psk=generate_psk())
    ping(tunnel.left, tunnel.right)
    eventually("the echo is in the file", lambda: len(tshark(host, "-Y", "wg.type == 4")) >= 2)
    assert host.run("stat", "-c%a", "/run/keys").strip() == "600"
    opened = tshark(host, "-o", "wg.keylog_file:/run/keys", "-Y", "icmp", "-T", "fields", "-e", "icmp.type")
    assert {line.split(",")[-1] for line in opened} == {"8", "0"}


def test_refusals_are_sentences_and_leave_no_file(tunnel: Tunnel) -> None:
    host = tunnel.left.machine.host
    assert "wg7 has no daemon here" in host.run(PYWG, "capture", "wg7", "-w", WRITTEN, check=False)
    assert "cannot be written" in host.run(PYWG, "capture", WG, "-w", "/no/such/folder", check=False)
    assert not host.run("ls", "/run").count("capture.pcapng")
