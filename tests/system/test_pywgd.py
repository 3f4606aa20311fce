"""wireguard-go's contract, kept by `pywgd`: how it starts, what it takes from its caller, and how it ends.

Everything is seen from outside: processes, descriptors, interfaces, sockets, exit statuses, and `wg`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import pathlib
import re
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator

import pytest

import pywg
from tests.system.net import TOOLS, CommandError, Host, HostTask, Lab, eventually
from tests.system.programs import PROGRAMS
from tests.system.tunnel import WG, Key, Station, hostport, make_station, make_tunnel

PYWGD = str(pathlib.Path(sys.executable).with_name("pywgd"))
SOCKET = f"/run/wireguard/{WG}.sock"
O_CLOEXEC = 0o2000000

pytestmark = pytest.mark.usefixtures("namespaces")


@pytest.fixture
def host(lab: Lab) -> Host:
    return lab.host("box")


@dataclasses.dataclass(frozen=True)
class Process:
    """A running daemon, looked at through /proc."""

    pid: int

    @property
    def folder(self) -> pathlib.Path:
        return pathlib.Path("/proc", str(self.pid))

    def runs(self) -> bool:
        try:
            return self.folder.joinpath("stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except (FileNotFoundError, ProcessLookupError):
            return False

    def descriptors(self) -> dict[int, tuple[str, bool]]:
        """What each of its descriptors leads to, and whether a program that it executes would inherit it."""
        found = {}
        for entry in (self.folder / "fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                text = (self.folder / "fdinfo" / entry.name).read_text()
                flags = re.search(r"^flags:\s*([0-7]+)$", text, re.MULTILINE)
                assert flags is not None
                found[int(entry.name)] = str(entry.readlink()), not int(flags[1], 8) & O_CLOEXEC
        return found

    def session_and_terminal(self) -> tuple[int, int]:
        _state, _parent, _group, session, terminal, *_ = (
            self.folder.joinpath("stat").read_text().rpartition(")")[2].split()
        )
        return int(session), int(terminal)


def daemons(host: Host) -> list[Process]:
    """The pywgd processes that were started in the host."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        try:
            if (
                entry.name.isdigit()
                and b"pywgd" in (entry / "cmdline").read_bytes()
                and (entry / "ns/net").samefile(f"/proc/{host.pid}/ns/net")
            ):
                found.append(Process(int(entry.name)))
        except OSError:
            continue
    return [process for process in found if process.runs()]


def start(host: Host, *arguments: str, env: dict[str, str] | None = None) -> Process:
    """Start a daemon in the background, and return when its caller may go on."""
    before = daemons(host)
    host.run(PYWGD, *(arguments or (WG,)), env=env)
    [process] = [process for process in daemons(host) if process not in before]
    return process


def status_of(host: Host, *command: str, env: dict[str, str] | None = None) -> tuple[int, str]:
    """Run a command that may fail; returns its exit status and what it printed."""
    printed = host.run("sh", "-c", f"{shlex.join(command)} 2>&1; echo $?", env=env)
    *lines, status = printed.splitlines()
    return int(status), "\n".join(lines)


def links(host: Host) -> list[str]:
    lines = host.run("ip", "-brief", "link").splitlines()
    return sorted(name for line in lines if (name := line.split()[0].partition("@")[0]) != "lo")


def sockets(host: Host) -> list[str]:
    return sorted(path.name for path in host.path("/run/wireguard").iterdir())


def assert_nothing_left(host: Host) -> None:
    assert daemons(host) == []
    assert sockets(host) == []
    assert links(host) == []


def has_ended(host: Host) -> bool:
    return daemons(host) == []


def answers(host: Host, interface: str = WG) -> bool:
    return host.run("wg", "show", interface, check=False).startswith("interface:")


def started(host: Host, task: HostTask) -> None:
    """Wait until a daemon in the foreground answers."""
    eventually("it answers", lambda: task.poll() is not None or answers(host))
    assert task.poll() is None, task.output()


# --- The command line. ------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [("-f", WG), ("--foreground", WG), (WG,)])
def test_in_the_foreground_it_stays_the_caller_s_child_until_it_is_told_to_end(
    host: Host, arguments: tuple[str, ...]
) -> None:
    variable = {"WG_PROCESS_FOREGROUND": "1"} if arguments == (WG,) else {}
    task = host.start(PYWGD, *arguments, env=variable)
    started(host, task)
    assert [process.pid for process in daemons(host)] == [task.pid]
    task.signal(signal.SIGTERM)
    assert task.wait(2) == ""  # with status 0
    assert_nothing_left(host)


def test_a_command_line_that_is_not_understood_changes_nothing(host: Host) -> None:
    for arguments in ([], ["-f"], [WG, "-f"], ["-x", WG], ["-f", WG, "wg1"], [""], ["--foreground=1", WG]):
        assert status_of(host, PYWGD, *arguments) == (2, "Usage: pywgd [-f/--foreground] INTERFACE-NAME")
    assert_nothing_left(host)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("wg0123456789abcdef", "must have 1 to 15 bytes"),
        ("../wg0", "no '/', ':' or white space"),
        ("wg 0", "no '/', ':' or white space"),
        ("..", "no '/', ':' or white space"),
        ("lo", "exists already and is no TUN device"),
        ("wg%s", "no interface name that the system takes"),
    ],
)
def test_a_name_that_no_interface_can_have_is_refused(host: Host, name: str, reason: str) -> None:
    status, printed = status_of(host, PYWGD, name)
    assert status == 1
    assert printed.startswith(f"pywgd: {name}: ")
    assert reason in printed
    assert len(printed.splitlines()) == 1
    assert_nothing_left(host)


def test_a_pattern_takes_the_first_free_number_and_the_name_file_tells_which(host: Host) -> None:
    for number in range(2):
        start(host, "wg%d", env={"WG_TUN_NAME_FILE": "/run/name"})
        assert host.run("cat", "/run/name") == f"wg{number}\n"
    assert links(host) == ["wg0", "wg1"]
    assert sockets(host) == ["wg0.sock", "wg1.sock"]


def test_a_name_file_that_cannot_be_written_is_told(host: Host) -> None:
    status, printed = status_of(host, PYWGD, WG, env={"WG_TUN_NAME_FILE": "/run/missing/name"})
    assert (status, printed) == (
        1,
        "pywgd: wg0: WG_TUN_NAME_FILE=/run/missing/name can't be written: No such file or directory",
    )
    assert_nothing_left(host)


# --- What it may do. --------------------------------------------------------------------------------------


def test_without_the_right_to_make_devices_it_says_what_it_needs(host: Host) -> None:
    status, printed = status_of(host, "setpriv", "--bounding-set=-net_admin", PYWGD, WG)
    assert status == 1
    sentence = (
        "the tunnel device wg0 may not be made here; it needs root or CAP_NET_ADMIN, and the right to open"
    )
    assert printed == f"pywgd: wg0: {sentence} /dev/net/tun"
    assert_nothing_left(host)


def test_without_tunnel_devices_it_says_how_to_get_them(host: Host) -> None:
    host.run("mount", "-t", "tmpfs", "tmpfs", "/dev/net")
    status, printed = status_of(host, PYWGD, WG)
    assert status == 1
    assert printed.startswith("pywgd: wg0: /dev/net/tun is missing. Load the module with 'modprobe tun'")
    assert len(printed.splitlines()) == 1
    assert_nothing_left(host)


def test_a_folder_that_cannot_hold_sockets_is_told_and_the_interface_goes_again(host: Host) -> None:
    host.run("mount", "-o", "ro", "-t", "tmpfs", "tmpfs", "/run/wireguard")
    status, printed = status_of(host, PYWGD, WG)
    assert status == 1
    assert printed.startswith(f"pywgd: wg0: /var{SOCKET} cannot be made: Read-only file system")
    assert_nothing_left(host)


def test_silent_is_silent_about_failures_too(host: Host) -> None:
    assert status_of(host, PYWGD, "lo", env={"LOG_LEVEL": "silent"}) == (1, "")


# --- Going into the background. ---------------------------------------------------------------------------


def test_the_caller_can_go_on_at_once_twenty_times(host: Host) -> None:
    key = Key.generate()
    host.write("/run/key", key.private)
    host.write(
        "/run/script",
        f"""set -e
for number in $(seq 20); do
    {PYWGD} {WG}
    wg set {WG} private-key /run/key listen-port 5000
    ip link set {WG} up
    test "$(wg show {WG} public-key) $(wg show {WG} listen-port)" = "{key.public} 5000"
    ip link del {WG}
done
""",
    )
    host.run("sh", "/run/script", timeout=120)  # also: the next one starts while the last one ends
    eventually("the last one has ended", functools.partial(has_ended, host))
    assert_nothing_left(host)


def test_a_script_that_reads_its_output_does_not_hang(host: Host) -> None:
    assert host.run("sh", "-c", f'out=$({PYWGD} {WG} 2>&1); echo "<$out>"', timeout=5) == "<>\n"
    assert answers(host)


IN_A_TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"


@pytest.mark.parametrize("options", ["", "-f"])
def test_a_caller_without_standard_streams_gets_its_daemon(host: Host, options: str) -> None:
    """What is opened next has their numbers, and must not be taken for them."""
    host.run("sh", "-c", f"{PYWGD} {options} {WG} <&- >&- 2>&- &")
    eventually("it answers", lambda: host.run("wg", "show", WG, check=False).startswith("interface:"))
    host.run("wg", "set", WG, "listen-port", "5000")
    host.run("ip", "link", "set", WG, "up")
    assert host.run("wg", "show", WG, "listen-port") == "5000\n"


def test_it_keeps_neither_terminal_nor_session_nor_folder_nor_descriptors_of_its_caller(host: Host) -> None:
    host.run("mkdir", "/run/here")
    script = f"umask 027; cd /run/here; exec 9>/run/held; {PYWGD} {WG}"
    host.run(sys.executable, "-c", IN_A_TERMINAL, "sh", "-c", script)
    [process] = daemons(host)
    assert answers(host), "the hangup of the terminal has not ended it"
    assert process.session_and_terminal() == (process.pid, 0)
    assert (process.folder / "cwd").readlink() == pathlib.Path("/")
    for descriptor, (leads_to, inheritable) in process.descriptors().items():
        if descriptor <= 2:
            assert leads_to == "/dev/null"
        else:
            assert re.fullmatch(r"/dev/net/tun|/dev/null|(socket|pipe|anon_inode):\S+", leads_to)
            assert not inheritable, leads_to
    assert "Umask:\t0027" in (process.folder / "status").read_text()


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        (None, ()),
        ("", ()),
        ("silent", ()),
        ("error", ("ERROR: (wg0) ",)),
        ("verbose", ("INFO: (wg0) ", "ERROR: (wg0) ")),
        ("debug", ("INFO: (wg0) ", "ERROR: (wg0) ")),
    ],
)
def test_in_the_background_it_prints_only_what_log_level_asks_for(
    host: Host, level: str | None, shown: tuple[str, ...]
) -> None:
    env = {} if level is None else {"LOG_LEVEL": level}
    host.run("sh", "-c", f"{PYWGD} {WG} >/run/out 2>&1", env=env)
    host.run("sh", "-c", f"wg set {WG} fwmark 1; printf 'set=1\nnonsense=1\n\n' | ncat -U {SOCKET}")
    host.run("rm", SOCKET)
    eventually("it has ended", functools.partial(has_ended, host))
    printed = host.path("/run/out").read_text()
    assert {line.partition(")")[0] + ") " for line in printed.splitlines()} == set(shown)
    assert ("nonsense" in printed) == bool(shown)


def test_in_the_foreground_errors_are_printed_without_being_asked_for(host: Host) -> None:
    task = host.start(PYWGD, "-f", WG)
    started(host, task)
    host.run("sh", "-c", f"printf 'set=1\nnonsense=1\n\n' | ncat -U {SOCKET}")
    assert re.fullmatch(r"ERROR: \(wg0\) \d{4}/\d\d/\d\d \d\d:\d\d:\d\d UAPI: 'nonsense' .*\n", task.output())


# --- What it is given. ------------------------------------------------------------------------------------


def hand_over(host: Host, kind: str, path: str, *arguments: str, **env: str) -> HostTask:
    program = [sys.executable, str(TOOLS / "hand_over.py"), WG, kind, path, PYWGD, *arguments]
    return host.start(*program, env=env)


@pytest.mark.parametrize("kind", ["plain", "vnet_hdr"])
def test_a_device_opened_by_its_caller_carries_packets(lab: Lab, kind: str) -> None:
    ours, theirs = (make_station(lab, PROGRAMS["pywgd"], name, i) for i, name in enumerate(("a", "b"), 1))
    lab.join(ours.machine, theirs.machine, ["192.0.2.1/24"], ["192.0.2.2/24"])
    task = hand_over(ours.machine.host, kind, "-", "-f", "another-name")
    started(ours.machine.host, task)
    assert "mtu 1420" in ours.machine.run("ip", "link", "show", WG)
    assert ours.machine.host.path(SOCKET).is_socket()
    theirs.start()
    theirs.configure(ours)
    ours.configure(theirs, endpoint=hostport(theirs.outer[0]))
    for size in ("0", "1392", "4000"):
        assert "3 received" in ours.machine.run("ping", "-c3", "-i0.1", "-w10", "-s", size, theirs.inner[0])
    theirs.machine.start("sh", "-c", "ncat -l 7000 | sha256sum >/run/received")
    theirs.machine.run("sh", "-c", "until ss -ltn | grep -q :7000; do :; done")
    sent = ours.machine.run(
        "sh",
        "-c",
        f"head -c 3000000 /dev/urandom >/run/f; ncat --send-only {theirs.inner[0]} 7000 </run/f; "
        "sha256sum </run/f",
    )
    received = theirs.machine.host.path("/run/received")
    eventually("all has arrived", lambda: received.exists() and received.read_text() == sent)
    theirs.stop()
    task.signal(signal.SIGTERM)
    task.wait(2)
    assert "does not exist" in ours.machine.run("ip", "link", "show", WG, check=False)


@pytest.mark.parametrize("foreground", [True, False])
def test_device_and_socket_are_taken_over_as_when_wireguard_go_executes_itself(
    host: Host, foreground: bool
) -> None:
    task = hand_over(host, "vnet_hdr", SOCKET, WG, **({"WG_PROCESS_FOREGROUND": "1"} if foreground else {}))
    if foreground:
        started(host, task)
    else:
        task.wait(5)
    host.run("ip", "link", "set", WG, "up")
    assert answers(host)
    [process] = daemons(host)
    inheritable = {descriptor for descriptor, (_, yes) in process.descriptors().items() if yes}
    assert inheritable <= {0, 1, 2}
    host.run("rm", SOCKET)
    eventually("it has ended", lambda: not process.runs(), timeout=1)
    assert_nothing_left(host)


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("WG_TUN_FD", "three", "WG_TUN_FD=three is not the number of an open descriptor"),
        ("WG_TUN_FD", "-1", "WG_TUN_FD=-1 is not the number of an open descriptor"),
        ("WG_TUN_FD", "99", "WG_TUN_FD=99 is not open here"),
        ("WG_TUN_FD", "99999999999999999999", "WG_TUN_FD=99999999999999999999 is not open here"),
        ("WG_TUN_FD", "0", "descriptor 0 is no tunnel device: Inappropriate ioctl for device"),
        ("PYWG_WAIT_FD", "99", "PYWG_WAIT_FD=99 is not open here"),
        ("WG_UAPI_FD", "99", "WG_UAPI_FD=99 is not open here"),
        ("WG_UAPI_FD", "0", "WG_UAPI_FD=0 is not a unix socket that listens"),
    ],
)
def test_a_descriptor_that_is_none_of_the_kind_is_told(
    host: Host, variable: str, value: str, reason: str
) -> None:
    assert status_of(host, PYWGD, WG, env={variable: value}) == (1, f"pywgd: wg0: {reason}")
    assert_nothing_left(host)


@pytest.mark.parametrize("said", [b"\n", b""], ids=["told to begin", "left alone"])
def test_it_waits_with_nothing_made_until_its_caller_lets_it_begin_or_is_gone(
    host: Host, said: bytes
) -> None:
    host.run("mkfifo", "/run/begin")
    task = host.start("sh", "-c", f"exec {PYWGD} {WG} 9</run/begin", env={"PYWG_WAIT_FD": "9"})
    with host.path("/run/begin").open("wb") as pipe:
        eventually("it has imported", lambda: any("_sodium" in text for text in maps(host)))
        assert sockets(host) == links(host) == []
        pipe.write(said)
    assert task.wait() == ""
    if said:
        assert answers(host)
        [process] = daemons(host)
        assert not any("begin" in leads_to for leads_to, _ in process.descriptors().values())
    else:
        assert_nothing_left(host)


def maps(host: Host) -> list[str]:
    return [(process.folder / "maps").read_text() for process in daemons(host)]


# --- How it ends. -----------------------------------------------------------------------------------------

ENDINGS: dict[str, Callable[[Host, Process], object]] = {
    "its interface is removed": lambda host, process: host.run("ip", "link", "del", WG),
    "its socket is removed": lambda host, process: host.run("rm", SOCKET),
    "its socket is replaced": lambda host, process: host.run(
        "sh", "-c", f"touch /run/other && mv /run/other {SOCKET}"
    ),
    "SIGTERM": lambda host, process: os.kill(process.pid, signal.SIGTERM),
    "SIGINT": lambda host, process: os.kill(process.pid, signal.SIGINT),
    "SIGHUP": lambda host, process: os.kill(process.pid, signal.SIGHUP),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_within_a_second_it_ends_and_leaves_nothing(host: Host, ending: str) -> None:
    process = start(host)
    host.run("ip", "link", "set", WG, "up")
    assert answers(host)
    ENDINGS[ending](host, process)
    eventually("it has ended", lambda: not process.runs(), timeout=1)
    check_what_is_left(host, ending)


@pytest.mark.parametrize("ending", ENDINGS)
def test_told_to_end_before_it_serves_it_ends_as_soon_as_it_would(host: Host, ending: str) -> None:
    process = start(host)
    ENDINGS[ending](host, process)
    eventually("it has ended", lambda: not process.runs())
    check_what_is_left(host, ending)


def check_what_is_left(host: Host, ending: str) -> None:
    if ending == "its socket is replaced":
        assert sockets(host) == ["wg0.sock"], "what is not its own stays"
        host.run("rm", SOCKET)
    assert_nothing_left(host)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_nothing_whenever_it_comes(host: Host, number: int) -> None:
    for milliseconds in range(0, 400, 20):
        task = host.start(PYWGD, "-f", WG)
        time.sleep(milliseconds / 1000)
        task.signal(number)
        with contextlib.suppress(CommandError):  # Python, while it starts, may pass over a KeyboardInterrupt
            task.wait(3, check=False)
        if number == signal.SIGINT:
            task.signal(number)
        task.wait(3, check=False)
        assert_nothing_left(host)


def test_an_interrupt_of_the_starting_command_ends_what_it_started(host: Host) -> None:
    for milliseconds in range(0, 200, 10):
        task = host.start(PYWGD, WG)
        time.sleep(milliseconds / 1000)
        task.signal(signal.SIGINT)
        task.wait(2, check=False)
        if task.process.returncode:
            assert_nothing_left(host)
        else:  # it came when the command was done, or just before: then the daemon got it
            host.run("sh", "-c", f"rm -f {SOCKET}")
            eventually("it has ended", functools.partial(has_ended, host), timeout=2)


def test_under_nohup_a_hangup_does_not_end_it(host: Host) -> None:
    task = host.start("nohup", PYWGD, "-f", WG)
    started(host, task)
    task.signal(signal.SIGHUP)
    assert answers(host)
    task.signal(signal.SIGTERM)
    task.wait(2)


def test_what_a_killed_one_leaves_behind_is_replaced(host: Host) -> None:
    process = start(host)
    os.kill(process.pid, signal.SIGKILL)
    eventually("it is dead", functools.partial(has_ended, host))
    eventually("its interface is gone", lambda: links(host) == [])
    assert sockets(host) == ["wg0.sock"]
    start(host)
    assert answers(host)


def test_two_daemons_of_one_interface_are_one_too_many(host: Host) -> None:
    first = start(host)
    host.run("wg", "set", WG, "fwmark", "7")
    assert status_of(host, PYWGD, WG) == (
        1,
        "pywgd: wg0: the interface wg0 exists already and is in use by another program",
    )
    assert daemons(host) == [first]
    assert host.run("wg", "show", WG, "fwmark") == "0x7\n"
    assert links(host) == ["wg0"]


def test_two_daemons_of_one_name_that_share_their_sockets_folder_are_one_too_many(host: Host) -> None:
    start(host)
    status, printed = status_of(host, "unshare", "--net", PYWGD, WG)
    assert (status, printed) == (
        1,
        f"pywgd: wg0: a daemon for wg0 runs already: it answers at /var{SOCKET}",
    )
    assert answers(host)


def test_two_started_at_once_make_one(host: Host) -> None:
    tasks = [host.start(PYWGD, WG) for _ in range(4)]
    for task in tasks:
        task.wait(10, check=False)
    assert sorted(task.process.returncode for task in tasks) == [0, 1, 1, 1]
    assert answers(host)
    assert len(daemons(host)) == 1


# --- When something is broken. ----------------------------------------------------------------------------

RECEIVE_LOG = """
import socket
log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
log.bind("/dev/log")
print("ready", flush=True)
while True:
    print(log.recv(9999).decode(), flush=True)
"""


@pytest.fixture
def syslog(host: Host) -> HostTask:
    """What arrives at the host's own /dev/log."""
    nodes = "null zero random urandom tty net/tun"
    host.run(
        "sh",
        "-c",
        "mkdir -p /run/dev/net && cd /run/dev && "
        f"for node in {nodes}; do touch $node; mount --bind /dev/$node $node; done; "
        "mount --rbind /run/dev /dev",
    )
    task = host.start(sys.executable, "-c", RECEIVE_LOG)
    eventually("it listens", lambda: "ready" in task.output())
    return task


@pytest.fixture
def broken(host: Host) -> dict[str, str]:
    """An environment in which something that the daemon needs can't be imported."""
    host.run("mkdir", "-p", "/run/broken/nacl")
    host.write("/run/broken/nacl/__init__.py", "raise ImportError('broken on purpose')\n")
    return {"PYTHONPATH": "/run/broken"}


def test_a_failure_in_the_background_is_told_to_syslog(
    host: Host, syslog: HostTask, broken: dict[str, str]
) -> None:
    host.run(PYWGD, WG, env=broken)
    eventually("it has ended", functools.partial(has_ended, host))
    assert_nothing_left(host)
    line = r"<27>.* pywgd\[\d+\]: wg0: ImportError: broken on purpose"
    eventually("the reason arrives", lambda: re.search(line, syslog.output()))


def test_a_journal_gets_levels_and_a_terminal_gets_times(host: Host) -> None:
    stream = "$(stat -Lc %d:%i /proc/self/fd/2)"
    journal = host.start(
        "sh", "-c", f'JOURNAL_STREAM={stream} exec "$0" -f {WG}', PYWGD, env={"LOG_LEVEL": "info"}
    )
    eventually("it is logged", lambda: re.search(r"^<6>wg0: started, ", journal.output(), re.MULTILINE))
    assert all(line.startswith("<6>wg0: ") for line in journal.output().splitlines())
    journal.stop()
    other = host.start(PYWGD, "-f", WG, env={"LOG_LEVEL": "info", "JOURNAL_STREAM": "1:1"})
    eventually(
        "it is logged", lambda: re.search(r"^INFO: \(wg0\) 20.* started, ", other.output(), re.MULTILINE)
    )
    other.stop()


def test_a_failure_is_printed_where_output_is_kept(
    host: Host, syslog: HostTask, broken: dict[str, str]
) -> None:
    task = host.start(PYWGD, WG, env={**broken, "LOG_LEVEL": "error"})
    task.wait(5)
    eventually("it has ended", functools.partial(has_ended, host))
    assert task.output().endswith("pywgd: wg0: ImportError: broken on purpose\n")
    task = host.start(PYWGD, "-f", WG, env=broken)
    task.wait(5, check=False)
    assert task.process.returncode == 1
    assert task.output().endswith("pywgd: wg0: ImportError: broken on purpose\n")
    assert syslog.output() == "ready\n"
    assert_nothing_left(host)


def test_silent_tells_nobody(host: Host, syslog: HostTask, broken: dict[str, str]) -> None:
    assert status_of(host, PYWGD, "-f", WG, env={**broken, "LOG_LEVEL": "silent"}) == (1, "")
    assert syslog.output() == "ready\n"
    assert_nothing_left(host)


# --- Interfaces that change while it runs. ----------------------------------------------------------------


def udp_ports(host: Host) -> list[str]:
    """The local UDP ports of the host's own namespace."""
    lines = host.run("ss", "-Hulpn").splitlines()
    return sorted({line.split()[3].rpartition(":")[2] for line in lines})


def test_an_interface_moved_to_another_namespace_keeps_working(lab: Lab) -> None:
    tunnel = make_tunnel(lab, PROGRAMS["pywgd"], PROGRAMS["pywgd"])
    ours, theirs = tunnel.left, tunnel.right
    home, away = ours.machine.host, lab.host("away")
    assert isinstance(ours.task, HostTask)
    tunnel.configure(initiator=ours)
    home.run("ip", "link", "set", WG, "netns", str(away.pid))
    for address in (f"{ours.inner[0]}/24", f"{ours.inner[1]}/64"):
        away.run("ip", "addr", "add", address, "dev", WG)
    away.run("ip", "link", "set", WG, "up")
    for address in theirs.inner:
        assert "1 received" in away.run("ping", "-c1", "-W5", address)
    assert (udp_ports(home), udp_ports(away)) == (["51820"], [])

    log = ours.task.output
    away.run("ip", "link", "set", WG, "mtu", "1300")
    eventually("the new MTU is noticed", lambda: "the MTU is now 1300" in log(), timeout=2)
    away.run("ip", "link", "set", WG, "down")
    eventually("its port is closed", lambda: udp_ports(home) == [], timeout=2)
    away.run("ip", "link", "set", WG, "up")
    eventually("its port is open", lambda: udp_ports(home) == ["51820"], timeout=2)
    assert "3 received" in away.run("ping", "-c3", "-i0.2", "-w10", "-s1400", theirs.inner[0])
    assert "listening port: 51820" in home.run("wg", "show", WG), "the socket stays where it was born"

    away.run("ip", "link", "del", WG)
    ours.task.wait(1)
    assert udp_ports(home) == []
    assert sockets(home) == []


def test_a_renamed_interface_is_followed_while_the_socket_keeps_its_name(host: Host) -> None:
    process = start(host)
    host.run("ip", "link", "set", WG, "name", "tunnel")
    host.run("ip", "link", "set", "tunnel", "up")
    eventually("it is up", lambda: len(udp_ports(host)) == 1, timeout=2)
    host.run("ip", "link", "set", "tunnel", "down")
    eventually("it is down", lambda: udp_ports(host) == [], timeout=2)
    assert answers(host)
    assert sockets(host) == ["wg0.sock"]
    host.run("rm", SOCKET)
    eventually("it has ended", lambda: not process.runs(), timeout=1)
    assert_nothing_left(host)


# --- With the tools and in the places that run wireguard-go. ----------------------------------------------


@pytest.mark.parametrize("allowed", ["10.77.0.0/24, fd77::/64", "0.0.0.0/0, ::/0"])
def test_wg_quick_brings_it_up_and_down(lab: Lab, allowed: str) -> None:
    left, right = lab.host("left"), lab.host("right")
    lab.join(left, right, ["192.0.2.1/24"], ["192.0.2.2/24"])
    keys = [Key.generate(), Key.generate()]
    env = {"WG_QUICK_USERSPACE_IMPLEMENTATION": PYWGD}
    for number, host in ((1, left), (2, right)):
        other = 3 - number
        networks = allowed if number == 1 else "10.77.0.1/32, fd77::1/128"
        host.run("mkdir", "-p", "/run/conf")
        host.write(
            "/run/conf/wg0.conf",
            f"[Interface]\nPrivateKey = {keys[number - 1].private}\nListenPort = 51820\n"
            f"Address = 10.77.0.{number}/24, fd77::{number}/64\n"
            f"[Peer]\nPublicKey = {keys[other - 1].public}\nAllowedIPs = {networks}\n"
            f"Endpoint = 192.0.2.{other}:51820\n",
        )
        host.run("wg-quick", "up", "/run/conf/wg0.conf", env=env)
    for address in ("10.77.0.2", "fd77::2"):
        assert "1 received" in left.run("ping", "-c1", "-W5", address)
    if "0.0.0.0/0" in allowed:
        right.run("ip", "addr", "add", "198.51.100.1/32", "dev", "lo")
        assert "1 received" in left.run("ping", "-c1", "-W5", "198.51.100.1"), "by the default route"
        assert "fwmark: 0xca6c" in left.run("wg", "show", WG)
    for host in (left, right):
        host.run("wg-quick", "down", "/run/conf/wg0.conf", env=env)
        eventually("it has ended", functools.partial(has_ended, host), timeout=1)
        assert sockets(host) == []
        assert WG not in links(host)
        assert "lookup 51820" not in host.run("ip", "rule")


@pytest.fixture
def container(lab: Lab, tmp_path: pathlib.Path) -> Iterator[tuple[Host, HostTask, Process]]:
    """A host whose pywgd is the first process of its process namespace; others may share its sockets."""
    host = lab.host("container")
    tmp_path.joinpath("sockets").mkdir()
    host.run("mount", "--bind", str(tmp_path / "sockets"), "/run/wireguard")
    task = host.start("unshare", "--pid", "--fork", "--mount-proc", PYWGD, "--foreground", WG)
    started(host, task)
    [child] = pathlib.Path(f"/proc/{task.pid}/task/{task.pid}/children").read_text().split()
    yield host, task, Process(int(child))
    if task.poll() is None:
        os.kill(int(child), signal.SIGKILL)


def test_as_the_first_process_of_a_container_it_serves_another_that_shares_its_sockets(
    lab: Lab, container: tuple[Host, HostTask, Process], tmp_path: pathlib.Path
) -> None:
    host, task, process = container
    sidecar = lab.host("sidecar")
    sidecar.run("mount", "--bind", str(tmp_path / "sockets"), "/run/wireguard")
    sidecar.run("wg", "set", WG, "listen-port", "5001")
    host.run("ip", "link", "set", WG, "up")
    assert "listening port: 5001" in sidecar.run("wg", "show", WG)
    assert udp_ports(host) == ["5001"]
    assert udp_ports(sidecar) == []
    os.kill(process.pid, signal.SIGTERM)
    task.wait(1)
    assert_nothing_left(host)
    assert sockets(sidecar) == []


def test_as_the_first_process_it_leaves_no_zombies_of_orphans(
    container: tuple[Host, HostTask, Process],
) -> None:
    _host, _task, process = container
    os.system(f"nsenter --target={process.pid} --pid -- sh -c 'sh -c \"sleep 0.2; exit 3\" & exit 0'")
    children = process.folder / "task" / str(process.pid) / "children"
    eventually("the orphan is gone", lambda: children.read_text() == "", timeout=2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_as_the_first_process_it_ends_also_while_it_starts(host: Host, number: int) -> None:
    task = host.start("unshare", "--pid", "--fork", "--mount-proc", PYWGD, "--foreground", WG)
    children = pathlib.Path(f"/proc/{task.pid}/task/{task.pid}/children")
    eventually("its socket is there", lambda: host.path(SOCKET).exists(), every=0.001)
    os.kill(int(children.read_text()), number)
    task.wait(10)
    assert_nothing_left(host)


# --- Hosts that lack something. ---------------------------------------------------------------------------


def test_without_ipv6_it_works_over_ipv4(lab: Lab) -> None:
    hosts = [lab.host("left"), lab.host("right")]
    for host in hosts:
        for which in ("all", "default"):
            host.run("sysctl", "-w", f"net.ipv6.conf.{which}.disable_ipv6=1")
    lab.join(hosts[0], hosts[1], ["192.0.2.1/24"], ["192.0.2.2/24"])
    stations = [
        Station(PROGRAMS["pywgd"], host, (f"192.0.2.{i}", ""), (f"10.77.0.{i}", f"fd77::{i}"), is_up=True)
        for i, host in enumerate(hosts, 1)
    ]
    for station in stations:
        station.task = station.program.bring_up(station.machine, WG)
    for station, other in (stations, stations[::-1]):
        station.configure(other, endpoint=hostport(other.outer[0]))
        station.machine.run("ip", "addr", "add", f"{station.inner[0]}/24", "dev", WG)
        station.machine.run("ip", "link", "set", WG, "up")
    assert "1 received" in stations[0].machine.run("ping", "-c1", "-w10", stations[1].inner[0])


def test_a_port_in_use_is_told_and_can_be_changed_while_up(host: Host) -> None:
    other = host.start("ncat", "-u", "-l", "5000")
    eventually("the port is taken", lambda: "5000" in udp_ports(host))
    task = host.start(PYWGD, "-f", WG)
    started(host, task)
    host.run("wg", "set", WG, "listen-port", "5000")
    host.run("ip", "link", "set", WG, "up")
    eventually("it is told", lambda: "UDP port 5000 is in use by another program" in task.output())
    assert host.run("wg", "show", WG, "listen-port") == "0\n"
    status, printed = status_of(host, "wg", "set", WG, "listen-port", "5000")
    assert (status, printed) == (1, "Unable to modify interface: Address already in use")
    host.run("wg", "set", WG, "listen-port", "5001")
    assert host.run("wg", "show", WG, "listen-port") == "5001\n"
    assert "5001" in udp_ports(host)
    other.stop()
    host.run("wg", "set", WG, "listen-port", "5000")
    assert udp_ports(host) == ["5000"]


@pytest.mark.parametrize("arguments", [[WG], ["--foreground", WG]], ids=["background", "foreground"])
def test_a_data_path_that_there_is_not_is_told_to_the_caller_and_leaves_nothing(
    host: Host, arguments: list[str]
) -> None:
    told = status_of(host, PYWGD, *arguments, env={"PYWG_DATAPATH": "fast"})
    assert told == (1, "pywgd: wg0: PYWG_DATAPATH=fast is not 'auto', 'portable' or 'compiled'")
    assert_nothing_left(host)


# --- What it gives up once it has what it needs. -----------------------------------------------------------

NET_BIND_SERVICE_AND_NET_ADMIN = 1 << 10 | 1 << 12


def status_of_process(process: Process) -> dict[str, str]:
    lines = process.folder.joinpath("status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def gives_up(host: Host) -> Process:
    """The only daemon here, as soon as it has dropped what it does not need."""
    (process,) = daemons(host)
    eventually("no new privileges", lambda: status_of_process(process)["NoNewPrivs"] == "1")
    eventually("few privileges", lambda: int(status_of_process(process)["CapEff"], 16) < 1 << 13)
    return process


def test_it_keeps_only_the_capabilities_that_it_needs(host: Host) -> None:
    host.run(PYWGD, WG)
    process = gives_up(host)
    host.run("ip", "link", "set", WG, "up")
    eventually("it is up", lambda: host.run("wg", "show", WG, "listen-port").strip() != "0")
    had = int(status_of_process(Process(os.getpid()))["CapPrm"], 16)
    kept = NET_BIND_SERVICE_AND_NET_ADMIN & had
    for task in (process.folder / "task").iterdir():
        status = status_of_process(Process(int(task.name)))
        assert {int(status[name], 16) for name in ("CapEff", "CapPrm")} == {kept}
        assert int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0
        assert int(status["CapBnd"], 16) & ~NET_BIND_SERVICE_AND_NET_ADMIN == 0


def test_its_memory_is_for_no_core_dump_and_no_swap(host: Host) -> None:
    host.run(PYWGD, WG)
    process = gives_up(host)
    limits = process.folder.joinpath("limits").read_text()
    assert re.search(r"^Max core file size +0 +0 ", limits, re.MULTILINE)
    status = status_of_process(process)
    if re.search(r"^Max locked memory +unlimited +unlimited", limits, re.MULTILINE):
        assert int(status["VmLck"].split()[0]) > 10_000
    else:
        assert os.geteuid() == 0


def test_marks_low_ports_and_another_namespace_still_work(lab: Lab, host: Host) -> None:
    other = lab.host("other")
    host.run(PYWGD, WG)
    gives_up(host)
    host.run("ip", "link", "set", WG, "up")
    host.run("wg", "set", WG, "fwmark", "7", "listen-port", "53")
    assert host.run("wg", "show", WG, "listen-port").strip() == "53"
    host.run("ip", "link", "set", WG, "netns", str(other.pid))
    other.run("ip", "link", "set", WG, "mtu", "1300", "up")
    host.run("wg", "set", WG, "listen-port", "54")
    other.run("ip", "link", "delete", WG)
    eventually("the daemon ends with its interface", lambda: not daemons(host))


def test_it_becomes_another_user_and_still_removes_its_socket(lab: Lab) -> None:
    tunnel = make_tunnel(lab, PROGRAMS["pywgd"], PROGRAMS["wireguard-go"])
    host = tunnel.left.machine.host
    tunnel.left.stop()
    eventually("the first daemon has ended", lambda: not daemons(host))
    # Nobody may read the modules there: whatever is needed has to be loaded before.
    closed, package = "/run/closed", pathlib.Path(pywg.__file__).parent
    host.run("mkdir", closed)
    host.run("mount", "-t", "tmpfs", "-o", "mode=700", "tmpfs", closed)
    host.run("mkdir", f"{closed}/pywg")
    host.run("mount", "--bind", package, f"{closed}/pywg")
    host.run(PYWGD, WG, env={"PYWG_USER": "nobody", "PYTHONPATH": closed})
    process = gives_up(host)
    eventually("it is nobody", lambda: set(status_of_process(process)["Uid"].split()) == {"65534"})
    tunnel.left.is_up = False
    tunnel.configure(initiator=tunnel.left)
    tunnel.left.machine.run("ping", "-c1", "-w10", tunnel.right.inner[0])
    host.run("ip", "link", "delete", WG)
    eventually("it ends", lambda: not process.runs())
    assert host.run("ls", "/run/wireguard").strip() == ""


def test_a_user_that_does_not_exist_is_told_before_anything_is_made(host: Host) -> None:
    said = host.run(PYWGD, WG, env={"PYWG_USER": "no-such-user"}, check=False)
    assert "PYWG_USER=no-such-user: there is no such user; `useradd --system no-such-user` adds one" in said
    assert WG not in host.run("ip", "link")
