"""The server on real sockets, in front of a device that is only a table."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import pathlib
import socket
import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress

import pytest

from pywg.errors import PywgError
from pywg.noise.keys import PresharedKey, PrivateKey, PublicKey
from pywg.uapi import server as server_module
from pywg.uapi.client import Client, has_daemon, list_interfaces
from pywg.uapi.error import UapiError
from pywg.uapi.format import MAX_LINE
from pywg.uapi.listen import listen
from pywg.uapi.server import UapiServer
from pywg.wire.endpoint import Endpoint
from pywg.wire.network import Network
from tests.unit.uapi.table import TableDevice, TablePeer

PRIVATE = PrivateKey(bytes(range(1, 33))).clamped()
ALICE, BOB = PublicKey(b"a" * 32), PublicKey(b"b" * 32)
OK = b"errno=0\n\n"
INVALID = b"errno=-%d\n\n" % errno.EINVAL


@pytest.fixture
def directory(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "wireguard"


class Session:
    """A served table, and ways to talk to it."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.device = TableDevice()
        self.directory = directory
        self.path = directory / "wg0.sock"
        self.server: UapiServer[TablePeer] = UapiServer(self.device, listen("wg0", directory))

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(self.path)

    async def ask(self, request: bytes) -> bytes:
        """Send it, say that nothing more comes, and take what is answered until the server hangs up."""
        reader, writer = await self.connect()
        writer.write(request)
        writer.write_eof()
        try:
            return await reader.read()
        finally:
            writer.close()

    async def set(self, *lines: str) -> bytes:
        return await self.ask(("\n".join(["set=1", *lines]) + "\n\n").encode())


async def until(condition: Callable[[], bool]) -> None:
    """Let the server run until then."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0)


Scenario = Callable[[Session], Awaitable[None]]


@pytest.fixture(params=["asyncio", "uvloop"])
def play(request: pytest.FixtureRequest, directory: pathlib.Path) -> Iterator[Callable[[Scenario], None]]:
    """Runs a scenario against a server, on both event loops; fails when it leaves the socket behind."""
    factory = asyncio.new_event_loop
    if request.param == "uvloop":
        factory = pytest.importorskip("uvloop").new_event_loop

    def play(scenario: Scenario) -> None:
        async def main() -> None:
            session = Session(directory)
            await session.server.start()
            try:
                async with asyncio.timeout(60):
                    await scenario(session)
            finally:
                await session.server.close()

        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())

    yield play
    assert list(directory.iterdir()) == []


def test_every_key_of_set_reaches_the_device(play: Callable[[Scenario], None]) -> None:
    async def scenario(session: Session) -> None:
        answer = await session.set(
            f"private_key={PRIVATE.hex}",
            "listen_port=51820",
            "fwmark=16",
            "replace_peers=true",
            f"public_key={ALICE.hex}",
            f"preshared_key={bytes(range(32)).hex()}",
            "endpoint=[2001:db8::1]:7",
            "persistent_keepalive_interval=25",
            "replace_allowed_ips=true",
            "allowed_ip=10.0.0.0/8",
            "allowed_ip=10.0.0.0/24",
            "allowed_ip=-10.0.0.0/24",
            "protocol_version=1",
        )
        assert answer == OK
        device = session.device
        assert (device.private_key, device.listen_port, device.fwmark) == (PRIVATE, 51820, 16)
        (peer,) = device.peers.values()
        assert peer.preshared_key == PresharedKey(bytes(range(32)))
        assert (peer.endpoint, peer.keepalive) == (Endpoint("2001:db8::1", 7), 25)
        assert list(peer.networks) == [Network.parse("10.0.0.0/8")]
        assert device.commits == 1

    play(scenario)


def test_a_client_gets_what_it_has_set(play: Callable[[Scenario], None]) -> None:
    async def scenario(session: Session) -> None:
        text = f"listen_port=5\npublic_key={ALICE.hex}\nallowed_ip=::/0"

        def talk() -> None:
            with Client.open("wg0", session.directory) as client:
                client.set(text)
                assert client.get() == session.device.snapshot()

        await asyncio.to_thread(talk)
        assert session.device.listen_port == 5

    play(scenario)


def test_the_private_key_is_clamped_and_zeros_take_it_away(play: Callable[[Scenario], None]) -> None:
    async def scenario(session: Session) -> None:
        await session.set("private_key=" + "ff" * 32)
        assert session.device.private_key == PrivateKey(b"\xf8" + b"\xff" * 30 + b"\x7f")
        await session.set("private_key=" + "00" * 32)
        assert session.device.private_key is None

    play(scenario)


@pytest.mark.parametrize(
    ("line", "number"),
    [
        ("private_key=00", errno.EINVAL),
        ("listen_port=65536", errno.EINVAL),
        ("listen_port=1", errno.EADDRINUSE),
        ("listen_port", errno.EPROTO),
        ("fwmark=4294967296", errno.EINVAL),
        ("replace_peers=false", errno.EINVAL),
        ("no_such_key=1", errno.EINVAL),
        ("allowed_ip=10.0.0.0/8", errno.EINVAL),
        ("public_key=", errno.EINVAL),
        ("=", errno.EINVAL),
        ("x" * (MAX_LINE + 1), errno.EIO),
    ],
)
def test_a_device_line_that_is_wrong_gets_its_errno(
    play: Callable[[Scenario], None], line: str, number: int
) -> None:
    async def scenario(session: Session) -> None:
        assert await session.set("fwmark=7", line, "fwmark=8") == b"errno=-%d\n\n" % number
        assert session.device.fwmark == 7, "what came before stays, what comes after is not applied"

    play(scenario)


@pytest.mark.parametrize(
    "line",
    [
        "preshared_key=00",
        "endpoint=example.com:5",
        "endpoint=[::1]:65536",
        "endpoint=" + "9" * 5000,
        "endpoint=1.2.3.4:" + "9" * 5000,
        "persistent_keepalive_interval=65536",
        "replace_allowed_ips=1",
        "allowed_ip=10.0.0.0",
        "allowed_ip=--10.0.0.0/8",
        "update_only=yes",
        "remove=",
        "protocol_version=2",
        "listen_port=5",
        "private_key=" + "01" * 32,
    ],
)
@pytest.mark.parametrize("dummy", [False, True])
def test_a_peer_line_that_is_wrong_gets_its_errno(
    play: Callable[[Scenario], None], line: str, dummy: bool
) -> None:
    async def scenario(session: Session) -> None:
        before = [f"public_key={ALICE.hex}", *(["update_only=true"] if dummy else [])]
        after = [f"public_key={BOB.hex}"]
        assert await session.set(*before, line, *after) == INVALID
        assert list(session.device.peers) == ([] if dummy else [ALICE])

    play(scenario)


def test_update_only_does_not_create_a_peer(play: Callable[[Scenario], None]) -> None:
    async def scenario(session: Session) -> None:
        await session.set(f"public_key={ALICE.hex}")
        for key in (ALICE, BOB):
            assert await session.set(f"public_key={key.hex}", "update_only=true", "allowed_ip=::/0") == OK
        assert list(session.device.peers) == [ALICE]
        assert list(session.device.peers[ALICE].networks) == [Network.parse("::/0")]

    play(scenario)


def test_allowed_ips_come_and_go_in_the_order_of_the_lines_up_to_one_that_is_wrong(
    play: Callable[[Scenario], None],
) -> None:
    async def scenario(session: Session) -> None:
        answer = await session.set(
            f"public_key={ALICE.hex}",
            "allowed_ip=10.0.0.1/32",
            "replace_allowed_ips=true",
            "allowed_ip=10.0.0.2/32",
            "allowed_ip=10.0.0.3/32",
            "allowed_ip=-10.0.0.2/32",
            "allowed_ip=10.0.0.4/32",
            f"public_key={BOB.hex}",
            "allowed_ip=10.0.0.4/32",
            "allowed_ip=10.0.0.5/32",
            "allowed_ip=10.0.0.6",
            "allowed_ip=10.0.0.7/32",
        )
        assert answer == INVALID
        of = {key: [str(network) for network in peer.networks] for key, peer in session.device.peers.items()}
        assert of == {ALICE: ["10.0.0.3/32"], BOB: ["10.0.0.4/32", "10.0.0.5/32"]}

    play(scenario)


def test_remove_forgets_the_peer_and_passes_over_its_further_lines(play: Callable[[Scenario], None]) -> None:
    async def scenario(session: Session) -> None:
        await session.set(f"public_key={ALICE.hex}", f"public_key={BOB.hex}")
        answer = await session.set(
            f"public_key={ALICE.hex}",
            "remove=true",
            "remove=true",
            "endpoint=1.2.3.4:5",
            "preshared_key=" + "01" * 32,
            "persistent_keepalive_interval=5",
            "replace_allowed_ips=true",
            "allowed_ip=::/0",
            "allowed_ip=-::/0",
            "update_only=true",
        )
        assert answer == OK
        assert list(session.device.peers) == [BOB]
        assert not session.device.owners

    play(scenario)


def test_our_own_key_as_a_peer_is_silently_ignored(play: Callable[[Scenario], None]) -> None:
    async def scenario(session: Session) -> None:
        own = PRIVATE.public_key.hex
        assert await session.set(f"private_key={PRIVATE.hex}", f"public_key={own}", "allowed_ip=::/0") == OK
        assert not session.device.peers
        assert not session.device.owners

    play(scenario)


def test_a_keepalive_begins_when_the_endpoint_is_known_whatever_the_order(
    play: Callable[[Scenario], None],
) -> None:
    async def scenario(session: Session) -> None:
        await session.set(
            f"public_key={ALICE.hex}", "persistent_keepalive_interval=5", "endpoint=192.0.2.1:7"
        )
        assert session.device.keepalives_began == [(Endpoint("192.0.2.1", 7), 5)]

    play(scenario)


def test_a_peer_that_is_not_told_a_psk_keeps_its_own(play: Callable[[Scenario], None]) -> None:
    async def scenario(session: Session) -> None:
        await session.set(f"public_key={ALICE.hex}", "preshared_key=" + "01" * 32)
        await session.set(f"public_key={ALICE.hex}", "endpoint=192.0.2.1:7")
        assert session.device.peers[ALICE].preshared_key == PresharedKey(b"\x01" * 32)

    play(scenario)


def test_lines_may_end_as_on_windows(play: Callable[[Scenario], None]) -> None:
    async def scenario(session: Session) -> None:
        assert await session.ask(b"set=1\nfwmark=7\r\n\r\n") == OK
        assert session.device.fwmark == 7

    play(scenario)


def test_a_request_may_end_with_the_stream(play: Callable[[Scenario], None]) -> None:
    async def scenario(session: Session) -> None:
        assert await session.ask(b"set=1\nfwmark=7\nlisten_port=9") == OK
        assert (session.device.fwmark, session.device.listen_port) == (7, 9)

    play(scenario)


def test_lines_are_applied_as_they_arrive(play: Callable[[Scenario], None]) -> None:
    async def scenario(session: Session) -> None:
        _, writer = await session.connect()
        writer.write(b"set=1\nfwmark=7\nlisten_po")
        await until(lambda: session.device.fwmark == 7)
        writer.close()
        await until(lambda: session.device.commits > 1)
        assert session.device.listen_port == 0

    play(scenario)


def test_one_connection_serves_many_requests(play: Callable[[Scenario], None]) -> None:
    async def scenario(session: Session) -> None:
        request = b"set=1\nfwmark=7\n\nget=1\n\nset=1\nbad=1\nfwmark=8\n\nget=1\nget=1\n\nget=1\n\n"
        get = b"fwmark=7\n" + OK
        # `get=1` with a line behind it is an error; that line's rest is no request, so the server hangs up.
        assert await session.ask(request) == OK + get + INVALID + INVALID

    play(scenario)


def test_after_an_error_the_next_request_needs_no_blank_line_before_it(
    play: Callable[[Scenario], None],
) -> None:
    async def scenario(session: Session) -> None:
        reader, writer = await session.connect()
        writer.write(b"set=1\nbad=1\n")
        assert await reader.readuntil(b"\n\n") == INVALID
        writer.write(b"get=1\n\n")
        assert await reader.readuntil(b"\n\n") == OK
        writer.close()

    play(scenario)


@pytest.mark.parametrize(
    "request_", [b"", b"\n", b"get=1", b"get=1\n", b"get=2\n\n", b"GET / HTTP/1.1\n", b"x" * 200_000]
)
def test_what_is_no_request_is_hung_up_on(play: Callable[[Scenario], None], request_: bytes) -> None:
    async def scenario(session: Session) -> None:
        reader, writer = await session.connect()
        writer.write(request_)
        writer.write_eof()
        try:
            answer = await reader.read()
        except ConnectionResetError:  # it had not read everything
            answer = b""
        # Only `get=1` without its blank line is answered: nothing follows where a line end must be.
        assert answer == (INVALID if request_ == b"get=1\n" else b"")
        writer.close()

    play(scenario)


def networks_text(count: int) -> str:
    return "\n".join(f"allowed_ip={ipaddress.IPv4Address(0x0A000000 + i)}/32" for i in range(count))


def test_others_are_answered_while_100_000_allowed_ips_are_set(play: Callable[[Scenario], None]) -> None:
    async def scenario(session: Session) -> None:
        reader, writer = await session.connect()
        writer.write(f"set=1\npublic_key={ALICE.hex}\n{networks_text(100_000)}\n\n".encode())
        big = asyncio.ensure_future(reader.readexactly(len(OK)))
        answered = 0
        other_reader, other_writer = await session.connect()
        while not big.done():
            other_writer.write(b"set=1\nfwmark=3\n\n")
            assert await other_reader.readuntil(b"\n\n") == OK
            answered += 1
        assert await big == OK
        assert answered > 50
        assert len(session.device.owners) == 100_000
        writer.close()
        other_writer.close()
        assert (await session.ask(b"get=1\n\n")).count(b"allowed_ip=") == 100_000

    play(scenario)


def test_a_peer_removed_by_another_client_does_not_come_back(play: Callable[[Scenario], None]) -> None:
    async def scenario(session: Session) -> None:
        reader, writer = await session.connect()
        writer.write(f"set=1\npublic_key={ALICE.hex}\nallowed_ip=10.1.0.0/16\n".encode())
        await until(lambda: bool(session.device.owners))
        assert await session.set(f"public_key={ALICE.hex}", "remove=true") == OK
        writer.write(b"allowed_ip=10.2.0.0/16\npersistent_keepalive_interval=5\n\n")
        assert await reader.readuntil(b"\n\n") == OK
        assert not session.device.peers
        writer.close()

    play(scenario)


def test_a_client_that_stalls_holds_up_nobody(play: Callable[[Scenario], None]) -> None:
    async def scenario(session: Session) -> None:
        await session.set(f"public_key={ALICE.hex}", networks_text(20_000))
        stalled = [await session.connect() for _ in range(3)]
        stalled[0][1].write(b"set=1\nfwmark=7\n")  # stops in the middle of a request
        stalled[1][1].write(b"get=1\n\n" * 20)  # never reads the answers
        stalled[1][1].transport.pause_reading()  # type: ignore[attr-defined]
        assert await session.set("fwmark=8") == OK
        assert await session.set("fwmark=9") == OK
        assert session.device.fwmark == 9
        for _, writer in stalled:
            writer.transport.abort()

    play(scenario)


def test_connections_are_limited_and_the_most_silent_one_makes_room(
    play: Callable[[Scenario], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "CLIENT_LIMIT", 3)

    async def scenario(session: Session) -> None:
        idle = []
        for _ in range(3):
            reader, writer = await session.connect()
            writer.write(b"get=1\n\n")
            assert await reader.readuntil(b"\n\n") == OK
            idle.append((reader, writer))
        assert await session.set("fwmark=8") == OK
        assert await idle[0][0].read() == b"", "the first one was hung up on"
        for reader, writer in idle[1:]:
            writer.write(b"get=1\n\n")
            assert await reader.readuntil(b"\n\n") == b"fwmark=8\n" + OK
        for _, writer in idle:
            writer.close()

    play(scenario)


def test_a_gigabyte_without_a_newline_is_cut_off(play: Callable[[Scenario], None]) -> None:
    async def scenario(session: Session) -> None:
        _, writer = await session.connect()
        writer.write(b"set=1\n")
        sent = 0
        with suppress(ConnectionError):
            while sent < 1 << 30:
                writer.write(b"x" * 65536)
                sent += 65536
                await writer.drain()
        assert sent < 1 << 24
        writer.transport.abort()
        assert await session.set("fwmark=8") == OK

    play(scenario)


def test_refused_lines_without_end_are_read_away_in_little_memory(play: Callable[[Scenario], None]) -> None:
    async def scenario(session: Session) -> None:
        reader, writer = await session.connect()
        writer.write(b"set=1\nbad=1\n")
        assert await reader.readuntil(b"\n\n") == INVALID
        for _ in range(100):
            writer.write(b"junk=1\n" * 10_000)
            await writer.drain()
        writer.write(b"\nget=1\n\n")
        assert await reader.readuntil(b"\n\n") == OK
        writer.close()

    play(scenario)


def test_an_exception_in_the_device_is_answered_and_survived(
    play: Callable[[Scenario], None], caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(session: Session) -> None:
        def fail(mark: int) -> None:
            raise RuntimeError("a fault of ours")

        session.device.set_fwmark = fail  # type: ignore[method-assign]
        assert await session.set("fwmark=8") == b"errno=-55\n\n"
        assert await session.set("listen_port=8") == OK

    play(scenario)
    assert "a fault of ours" in caplog.text


# --- The socket file. -------------------------------------------------------------------------------------


def test_socket_and_directory_are_for_their_owner_only(directory: pathlib.Path) -> None:
    before = os.umask(0)
    os.umask(before)
    with listen("wg0", directory):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert stat.S_IMODE((directory / "wg0.sock").stat().st_mode) == 0o700
    assert os.umask(before) == before


def test_a_stale_socket_is_replaced(directory: pathlib.Path) -> None:
    listen("wg0", directory).close()
    assert (directory / "wg0.sock").exists()
    with listen("wg0", directory):
        assert has_daemon("wg0", directory)


def test_a_live_socket_is_refused(directory: pathlib.Path) -> None:
    with listen("wg0", directory):
        with pytest.raises(PywgError, match="a daemon for wg0 runs already"):
            listen("wg0", directory)
        assert has_daemon("wg0", directory)


def test_a_socket_with_a_full_backlog_is_alive(directory: pathlib.Path) -> None:
    with listen("wg0", directory) as listener:
        listener.listen(0)
        waiting: list[socket.socket] = []
        with suppress(BlockingIOError):
            while len(waiting) < 10:
                waiting.append(socket.socket(socket.AF_UNIX))
                waiting[-1].setblocking(False)
                waiting[-1].connect(str(directory / "wg0.sock"))
        with pytest.raises(PywgError, match="runs already"):
            listen("wg0", directory)
        for connection in waiting:
            connection.close()


def test_what_is_not_a_socket_is_left_alone(directory: pathlib.Path) -> None:
    directory.mkdir()
    (directory / "wg0.sock").write_text("mine")
    with pytest.raises(PywgError, match="is not a socket"):
        listen("wg0", directory)
    assert (directory / "wg0.sock").read_text() == "mine"


def test_a_directory_that_cannot_be_made_is_told(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PywgError, match="cannot be used"):
        listen("wg0", tmp_path / "file" / "wireguard")


@pytest.mark.parametrize("name", ["", "../wg0", "a/b", "a\0b"])
def test_a_name_cannot_lead_out_of_the_directory(directory: pathlib.Path, name: str) -> None:
    with pytest.raises(UapiError):
        listen(name, directory)
    assert not has_daemon(name, directory)
    with pytest.raises(UapiError):
        Client.open(name, directory)


@pytest.mark.parametrize("how", ["unlink", "rename", "replace", "rename over"])
def test_removing_the_socket_is_noticed(play: Callable[[Scenario], None], how: str) -> None:
    async def scenario(session: Session) -> None:
        waiting = asyncio.ensure_future(session.server.wait_until_removed())
        (session.directory / "other.sock").touch()
        (session.directory / "other.sock").unlink()
        await session.ask(b"get=1\n\n")
        assert not waiting.done(), "others may come and go"
        path = session.path
        if how == "rename":
            path = path.rename(session.directory / "elsewhere")
        if how == "rename over":
            (session.directory.parent / "another").touch()
            (session.directory.parent / "another").rename(path)
        else:
            path.unlink()
        if how == "replace":
            path.touch()
        await waiting
        if how in ("replace", "rename over"):
            await session.server.close()
            assert path.exists(), "what is not ours stays"
            path.unlink()

    play(scenario)


def test_closing_hangs_up_on_clients(play: Callable[[Scenario], None]) -> None:
    async def scenario(session: Session) -> None:
        reader, writer = await session.connect()
        writer.write(b"get=1\n\n")
        await reader.readuntil(b"\n\n")
        await session.server.close()
        assert await reader.read() == b""
        writer.close()

    play(scenario)


def test_its_folder_is_open_to_its_owner_whatever_the_caller_s_umask(tmp_path: pathlib.Path) -> None:
    umask = os.umask(0o777)
    try:
        listen("wg0", tmp_path / "run" / "wireguard").close()
    finally:
        assert os.umask(umask) == 0o777, "it is as it was"
    modes = [
        (tmp_path / path).stat().st_mode & 0o777
        for path in ("run", "run/wireguard", "run/wireguard/wg0.sock")
    ]
    assert modes == [0o755, 0o700, 0o700]


# --- The client's side. -----------------------------------------------------------------------------------


def test_interfaces_are_listed_without_stale_sockets(directory: pathlib.Path) -> None:
    assert list_interfaces(directory) == []
    listen("wg-stale", directory).close()
    (directory / "notes.sock").write_text("no socket")
    with listen("wg0", directory), listen("wg1", directory):
        assert sorted(list_interfaces(directory)) == ["wg0", "wg1"]
        assert not (directory / "wg-stale.sock").exists()
        assert (directory / "notes.sock").exists()


def test_a_missing_daemon_is_told_with_its_errno(directory: pathlib.Path) -> None:
    with pytest.raises(UapiError, match="no daemon answers") as caught:
        Client.open("wg0", directory)
    assert caught.value.errno == errno.ENOENT


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user; run as root")
def test_a_socket_of_another_user_is_told_with_what_to_do(tmp_path: pathlib.Path) -> None:
    tmp_path.chmod(0o700)
    program = (
        "import os, pathlib, sys\n"
        "from pywg.uapi.client import Client\n"
        "from pywg.uapi.error import UapiError\n"
        "os.setuid(65534)\n"
        "try:\n    Client.open('wg0', pathlib.Path(sys.argv[1]))\n"
        "except UapiError as error:\n    print(error)\n"
    )
    with listen("wg0", tmp_path):
        done = subprocess.run(
            [sys.executable, "-c", program, tmp_path], capture_output=True, text=True, timeout=60
        )
    path = tmp_path / "wg0.sock"
    assert done.stdout == f"no daemon answers at {path}: Permission denied; try again as root\n"


def test_text_that_would_end_early_is_not_sent(directory: pathlib.Path) -> None:
    with (
        listen("wg0", directory),
        Client.open("wg0", directory) as client,
        pytest.raises(UapiError, match="blank line"),
    ):
        client.set("fwmark=1\n\nfwmark=2")


def answered(directory: pathlib.Path, answer: bytes) -> Client:
    """A client whose daemon has sent `answer` already and hung up."""
    directory.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "wg0.sock"))
        listener.listen()
        client = Client.open("wg0", directory)
        connection, _ = listener.accept()
        with connection:
            connection.sendall(answer)
    return client


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        (b"", errno.EPROTO),
        (b"errno=0\n", errno.EPROTO),
        (b"\n", errno.EPROTO),
        (b"errno=-22\n\n", errno.EINVAL),
        (b"x" * 100_000, errno.EPROTO),
        (b"listen_port=x\nerrno=0\n\n", errno.EINVAL),
    ],
)
def test_any_answer_of_a_daemon_becomes_one_error(
    directory: pathlib.Path, answer: bytes, number: int
) -> None:
    with answered(directory, answer) as client, pytest.raises(UapiError) as caught:
        client.get()
    assert caught.value.errno == number


def test_an_answer_sent_before_the_request_was_read_is_still_read(directory: pathlib.Path) -> None:
    with answered(directory, b"errno=-22\n\n") as client, pytest.raises(UapiError) as caught:
        client.set("fwmark=1\n" * 200_000)
    assert caught.value.errno == errno.EINVAL


def test_a_socket_has_its_name_only_once_it_listens(
    directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named_before: list[bool] = []
    really_listen = socket.socket.listen

    def watched_listen(self: socket.socket, backlog: int = 0) -> None:
        named_before.append((directory / "wg0.sock").exists())
        really_listen(self, backlog)

    monkeypatch.setattr(socket.socket, "listen", watched_listen)
    with listen("wg0", directory):
        assert named_before == [False]
        assert os.listdir(directory) == ["wg0.sock"]  # noqa: PTH208
