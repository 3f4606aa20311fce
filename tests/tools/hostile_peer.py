"""A peer with right keys and no manners: makes a session by hand, and sends what tests/hostile.py thinks of.

Run with the tests' own Python, on the peer's machine: PRIVATE_KEY_FILE PUBLIC_KEY OUTER PORT ROUNDS
SOURCE=DESTINATION...: the daemon's public key and where it is; inner addresses of which packets are made.
Prints how many packets it has sent.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pathlib
import socket
import struct
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from pywg.noise import cookie, handshake, tai64n
from pywg.noise.keys import PresharedKey, PrivateKey, PublicKey
from pywg.noise.primitives import SessionCipher, dh
from pywg.wire import messages
from tests.hostile import TRICKS, never

UDP_SEGMENT = 103
INDEX = 666


class Session:
    """The protocol's least: one handshake, and data messages under what came of it."""

    def __init__(self, private: PrivateKey, public: PublicKey, to: tuple[str, int]) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("", to[1]))
        self._socket.settimeout(1.0)
        self._to = to
        self._counter = 0
        for _ in range(20):
            with contextlib.suppress(TimeoutError):
                self._begin(private, public)
                return
        raise SystemExit("no answer to our initiations")

    def _begin(self, private: PrivateKey, public: PublicKey) -> None:
        sent = handshake.create_initiation(
            private,
            public,
            dh(bytes(private), bytes(public)),
            PrivateKey.generate(os.urandom),
            tai64n.encode(time.time_ns()),
        )
        plain = messages.Initiation(INDEX, sent.ephemeral, sent.static, sent.timestamp).encode_without_macs()
        self._socket.sendto(cookie.CookieJar(public).stamp(plain, 0.0), self._to)
        while True:
            answer = self._socket.recv(2048)
            if answer[:1] == b"\2":
                break
        response = messages.parse_untrusted(answer)
        assert isinstance(response, messages.Response)
        keys = sent.read_response_untrusted(PresharedKey.ZERO, response.ephemeral, response.nothing)
        self._remote, self._sealer = response.sender, SessionCipher(keys.send)
        self.send([b""])

    def send(self, plaintexts: list[bytes]) -> None:
        """Those of one size as one super-packet, so that they arrive in one burst."""
        sealed = []
        for plaintext in plaintexts:
            header = struct.pack("<IIQ", 4, self._remote, self._counter)
            padded = plaintext + bytes(-len(plaintext) % 16)
            sealed.append(header + self._sealer.seal(self._counter, padded))
            self._counter += 1
        for size, run in itertools.groupby(sealed, key=len):
            control = [(socket.SOL_UDP, UDP_SEGMENT, struct.pack("=H", size))]
            batch = list(run)
            for start in range(0, len(batch), 40):
                self._socket.sendmsg(batch[start : start + 40], control, 0, self._to)


def main() -> None:
    key_file, public, outer, port, rounds, *pairs = sys.argv[1:]
    private = PrivateKey.from_base64(pathlib.Path(key_file).read_text().strip())
    session = Session(private, PublicKey.from_base64(public), (outer, int(port)))
    count = 0
    for _ in range(int(rounds)):
        for source, destination in (pair.split("=") for pair in pairs):
            for trick in TRICKS:
                packets = trick.packets(source, destination)
                session.send(packets)
                count += len(packets)
                time.sleep(0.01)
            session.send([packet for _, packet in never(source, destination)])
    print(count)


if __name__ == "__main__":
    main()
