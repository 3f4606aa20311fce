"""Indices: random, unused, and given back."""

from collections.abc import Callable

from pywg.device.indextable import IndexTable


def numbers(*given: int) -> Callable[[int], bytes]:
    """A random source that gives these numbers, each in four bytes."""
    sequence = iter(given)
    return lambda size: next(sequence).to_bytes(size, "little")


def test_an_index_is_the_random_source_s_32_bits() -> None:
    table: IndexTable[str] = IndexTable(numbers(0xDEADBEEF, 0))
    assert table.allocate("a") == 0xDEADBEEF
    assert table.allocate("b") == 0
    assert (table.get(0xDEADBEEF), table.get(0)) == ("a", "b")


def test_an_index_in_use_is_not_given_again() -> None:
    table: IndexTable[str] = IndexTable(numbers(7, 7, 7, 8))
    assert [table.allocate("a"), table.allocate("b")] == [7, 8]
    assert table.get(7) == "a"


def test_a_released_index_is_nobody_s_and_may_be_given_again() -> None:
    table: IndexTable[str] = IndexTable(numbers(7, 7))
    table.release(table.allocate("a"))
    assert table.get(7) is None
    assert table.allocate("b") == 7


def test_releasing_twice_is_harmless() -> None:
    table: IndexTable[str] = IndexTable(numbers(7))
    table.release(7)
    assert len(table) == 0


def test_an_index_is_handed_over_without_changing() -> None:
    table: IndexTable[str] = IndexTable(numbers(7))
    index = table.allocate("handshake")
    table.hand_over(index, "keypair")
    assert table.get(index) == "keypair"
    assert len(table) == 1
