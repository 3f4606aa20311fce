"""The four messages: their layout by an independent dissector, and any bytes whatever."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.contrib.wireguard import Wireguard
from scapy.packet import Raw

from pywg.errors import BadPacket, DropReason
from pywg.wire import messages
from pywg.wire.messages import CookieReply, Data, Initiation, Message, Response, parse_untrusted

INDICES = st.integers(0, 2**32 - 1)


FORMAT_REASONS = {
    DropReason.EMPTY,
    DropReason.TRUNCATED,
    DropReason.OVERSIZED,
    DropReason.UNKNOWN_TYPE,
    DropReason.RESERVED_BITS,
}


def octets(size: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size)


INITIATIONS = st.builds(Initiation, INDICES, octets(32), octets(48), octets(28), octets(16), octets(16))
RESPONSES = st.builds(Response, INDICES, INDICES, octets(32), octets(16), octets(16), octets(16))
COOKIE_REPLIES = st.builds(CookieReply, INDICES, octets(24), octets(32))
DATA = st.builds(
    Data, INDICES, st.integers(0, 2**64 - 1), st.binary(min_size=16, max_size=100).map(memoryview)
)
MESSAGES = INITIATIONS | RESPONSES | COOKIE_REPLIES | DATA


def reason_for(datagram: bytes) -> DropReason:
    with pytest.raises(BadPacket) as caught:
        parse_untrusted(datagram)
    return caught.value.reason


class TestLayout:
    @given(INITIATIONS)
    def test_scapy_reads_our_initiations(self, message: Initiation) -> None:
        outer = Wireguard(message.encode())
        assert (outer.message_type, outer.reserved_zero) == (1, 0)
        assert type(outer.payload).__name__ == "WireguardInitiation"
        inner = outer.payload
        assert inner.sender_index == message.sender
        assert inner.unencrypted_ephemeral == message.ephemeral
        assert inner.encrypted_static == message.static
        assert inner.encrypted_timestamp == message.timestamp
        assert (inner.mac1, inner.mac2) == (message.mac1, message.mac2)
        assert Raw not in outer

    @given(RESPONSES)
    def test_scapy_reads_our_responses(self, message: Response) -> None:
        outer = Wireguard(message.encode())
        assert (outer.message_type, outer.reserved_zero) == (2, 0)
        inner = outer.payload
        assert (inner.sender_index, inner.receiver_index) == (message.sender, message.receiver)
        assert inner.unencrypted_ephemeral == message.ephemeral
        assert inner.encrypted_nothing == message.nothing
        assert (inner.mac1, inner.mac2) == (message.mac1, message.mac2)
        assert Raw not in outer

    @given(COOKIE_REPLIES)
    def test_scapy_reads_our_cookie_replies(self, message: CookieReply) -> None:
        outer = Wireguard(message.encode())
        assert (outer.message_type, outer.reserved_zero) == (3, 0)
        inner = outer.payload
        assert inner.receiver_index == message.receiver
        assert (inner.nonce, inner.encrypted_cookie) == (message.nonce, message.cookie)
        assert Raw not in outer

    @given(DATA)
    def test_scapy_reads_our_data_messages(self, message: Data) -> None:
        outer = Wireguard(message.encode())
        assert (outer.message_type, outer.reserved_zero) == (4, 0)
        inner = outer.payload
        assert (inner.receiver_index, inner.counter) == (message.receiver, message.counter)
        assert inner.encrypted_encapsulated_packet == bytes(message.ciphertext)

    @given(DATA)
    def test_the_header_struct_makes_the_same_data_messages(self, message: Data) -> None:
        header = messages.DATA_HEADER.pack(4, message.receiver, message.counter)
        assert header + bytes(message.ciphertext) == message.encode()

    def test_sizes_are_the_paper_s(self) -> None:
        assert dict(messages.MESSAGE_SIZES) == {1: 148, 2: 92, 3: 64}
        assert (messages.INITIATION_SIZE, messages.RESPONSE_SIZE, messages.COOKIE_REPLY_SIZE) == (148, 92, 64)
        assert (messages.DATA_HEADER_SIZE, messages.DATA_OVERHEAD) == (16, 32)

    @pytest.mark.parametrize(
        ("number", "kind", "rest"),
        [(1, Initiation, []), (2, Response, []), (3, CookieReply, []), (4, Data, ["ciphertext"])],
    )
    def test_the_tables_name_the_fields_of_the_messages(
        self, number: int, kind: type[Message], rest: list[str]
    ) -> None:
        names = [field.name for field in messages.LAYOUTS[number]]
        assert names + rest == ["type", *(field.name for field in dataclasses.fields(kind))]

    @given(INITIATIONS | RESPONSES)
    def test_without_macs_is_all_before_them(self, message: Initiation | Response) -> None:
        assert message.encode_without_macs() + message.mac1 + message.mac2 == message.encode()

    def test_macs_are_zeros_until_they_are_made(self) -> None:
        assert Initiation(1, bytes(32), bytes(48), bytes(28)).encode()[-32:] == bytes(32)
        assert Response(1, 2, bytes(32), bytes(16)).encode()[-32:] == bytes(32)

    @pytest.mark.parametrize(
        "message",
        [
            Initiation(1, bytes(31), bytes(48), bytes(28)),
            Initiation(1, bytes(32), bytes(49), bytes(28)),
            Response(1, 2, bytes(32), b""),
            CookieReply(1, bytes(12), bytes(32)),
        ],
    )
    def test_a_field_of_the_wrong_length_is_not_encoded(
        self, message: Initiation | Response | CookieReply
    ) -> None:
        with pytest.raises(ValueError, match="wrong length"):
            message.encode()


class TestParse:
    @given(MESSAGES)
    def test_what_is_encoded_parses_to_the_same(self, message: Message) -> None:
        assert parse_untrusted(message.encode()) == message

    @given(MESSAGES)
    def test_a_view_parses_as_bytes_do(self, message: Message) -> None:
        assert parse_untrusted(memoryview(bytearray(message.encode()))) == message

    @given(
        st.binary(max_size=200)
        | st.builds(lambda t, rest: bytes([t, 0, 0, 0]) + rest, st.integers(0, 6), st.binary(max_size=160))
    )
    def test_any_bytes_parse_or_give_a_reason(self, datagram: bytes) -> None:
        try:
            message = parse_untrusted(datagram)
        except BadPacket as caught:
            message, reason = None, caught.reason
        if message is not None:
            assert message.encode() == datagram
        else:
            assert reason in FORMAT_REASONS

    def test_ciphertext_is_a_view_not_a_copy(self) -> None:
        datagram = bytearray(b"\4" + bytes(47))
        message = parse_untrusted(datagram)
        assert isinstance(message, Data)
        datagram[16] = 0xAA
        assert message.ciphertext[0] == 0xAA

    def test_no_bytes_are_empty(self) -> None:
        assert reason_for(b"") is DropReason.EMPTY

    @pytest.mark.parametrize("size", [1, 2, 3])
    def test_less_than_a_type_is_truncated(self, size: int) -> None:
        assert reason_for(b"\4\0\0\0"[:size]) is DropReason.TRUNCATED

    @pytest.mark.parametrize(("number", "size"), [(1, 148), (2, 92), (3, 64)])
    def test_a_handshake_message_has_its_exact_size(self, number: int, size: int) -> None:
        whole = bytes([number]) + bytes(size - 1)
        assert parse_untrusted(whole).encode() == whole
        for shorter in range(4, size):
            assert reason_for(whole[:shorter]) is DropReason.TRUNCATED
        for more in (1, 2, 1000, 65535 - size):
            assert reason_for(whole + bytes(more)) is DropReason.OVERSIZED

    def test_data_has_any_size_from_32(self) -> None:
        for size in range(4, 32):
            assert reason_for(b"\4" + bytes(size - 1)) is DropReason.TRUNCATED
        for size in [*range(32, 100), 1452, 65507]:
            message = parse_untrusted(b"\4" + bytes(size - 1))
            assert isinstance(message, Data)
            assert len(message.ciphertext) == size - 16

    @pytest.mark.parametrize("number", [0, *range(5, 256)])
    def test_other_types_are_unknown(self, number: int) -> None:
        assert reason_for(bytes([number]) + bytes(147)) is DropReason.UNKNOWN_TYPE
        assert reason_for(bytes([number, 1, 1, 1]) + bytes(144)) is DropReason.UNKNOWN_TYPE

    @pytest.mark.parametrize(("number", "size"), [(1, 148), (2, 92), (3, 64), (4, 32)])
    @pytest.mark.parametrize("bit", range(8, 32))
    def test_every_reserved_bit_is_looked_at(self, number: int, size: int, bit: int) -> None:
        datagram = (number | 1 << bit).to_bytes(4, "little") + bytes(size - 4)
        assert reason_for(datagram) is DropReason.RESERVED_BITS
