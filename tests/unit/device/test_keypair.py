"""Who moves where when keypairs come and are confirmed."""

import pytest

from pywg.device.keypair import Keypair, Keypairs


def keypair(*, initiator: bool, born: float = 0.0) -> Keypair:
    return Keypair(local_index=0, initiator=initiator, born=born, expires=born + 180)


def places(keypairs: Keypairs) -> tuple[Keypair | None, Keypair | None, Keypair | None]:
    return keypairs.previous, keypairs.current, keypairs.next


def test_an_initiator_s_keypair_is_current_at_once_and_pushes_out_the_previous() -> None:
    keypairs = Keypairs()
    a, b, c = (keypair(initiator=True) for _ in range(3))
    assert keypairs.add(a) == []
    assert keypairs.add(b) == []
    assert places(keypairs) == (a, b, None)
    assert keypairs.add(c) == [a]
    assert places(keypairs) == (b, c, None)


def test_a_responder_s_keypair_is_next_and_pushes_out_the_previous() -> None:
    keypairs = Keypairs()
    a, b, c = keypair(initiator=True), keypair(initiator=True), keypair(initiator=False)
    keypairs.add(a)
    keypairs.add(b)
    assert keypairs.add(c) == [a]
    assert places(keypairs) == (None, b, c)


def test_a_confirmed_keypair_becomes_current_and_the_current_previous() -> None:
    keypairs = Keypairs()
    a, b = keypair(initiator=False), keypair(initiator=False)
    keypairs.add(a)
    assert keypairs.confirm(a, yields=False) == []
    keypairs.add(b)
    assert keypairs.confirm(b, yields=False) == []
    assert places(keypairs) == (a, b, None)


def test_a_second_unconfirmed_keypair_pushes_out_the_first() -> None:
    keypairs = Keypairs()
    a, b = keypair(initiator=False), keypair(initiator=False)
    keypairs.add(a)
    assert keypairs.add(b) == [a]
    assert places(keypairs) == (None, None, b)


def test_an_initiator_s_keypair_makes_an_unconfirmed_one_previous() -> None:
    keypairs = Keypairs()
    a, b, c = keypair(initiator=True), keypair(initiator=False), keypair(initiator=True)
    keypairs.add(a)
    keypairs.add(b)
    assert keypairs.add(c) == [a]
    assert places(keypairs) == (b, c, None)


def test_a_keypair_is_confirmed_once() -> None:
    keypairs = Keypairs()
    a = keypair(initiator=False)
    keypairs.add(a)
    keypairs.confirm(a, yields=False)
    assert keypairs.confirm(a, yields=True) is None
    assert places(keypairs) == (None, a, None)


@pytest.mark.parametrize("yields", [False, True])
def test_of_simultaneous_sessions_the_yielding_side_takes_the_other_s(yields: bool) -> None:
    keypairs = Keypairs()
    theirs, ours = keypair(initiator=False, born=10.0), keypair(initiator=True, born=10.1)
    keypairs.add(theirs)
    keypairs.add(ours)
    assert keypairs.confirm(theirs, yields=yields) == ([] if yields else None)
    assert places(keypairs) == ((ours, theirs, None) if yields else (theirs, ours, None))


def test_a_session_much_older_than_ours_is_not_yielded_to() -> None:
    keypairs = Keypairs()
    theirs, ours = keypair(initiator=False, born=10.0), keypair(initiator=True, born=15.0)
    keypairs.add(theirs)
    keypairs.add(ours)
    assert keypairs.confirm(theirs, yields=True) is None


def test_our_own_previous_session_is_not_yielded_to() -> None:
    keypairs = Keypairs()
    a, b = keypair(initiator=True), keypair(initiator=True)
    keypairs.add(a)
    keypairs.add(b)
    assert keypairs.confirm(a, yields=True) is None


def test_clear_gives_back_all() -> None:
    keypairs = Keypairs()
    a, b = keypair(initiator=True), keypair(initiator=False)
    keypairs.add(a)
    keypairs.add(b)
    assert keypairs.clear() == [a, b]
    assert places(keypairs) == (None, None, None)
    assert keypairs.clear() == []


def test_a_keypair_sends_until_it_expires_or_is_exhausted() -> None:
    it = keypair(initiator=True, born=100.0)
    assert it.may_send(279.999)
    assert not it.may_send(280.0)
    it.exhausted = True
    assert not it.may_send(101.0)
