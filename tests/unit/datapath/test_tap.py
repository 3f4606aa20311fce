"""The tap: bounded, cut as wanted, and nothing while nobody captures. Both data paths: see the spec tests."""

from pywg.datapath import tap
from pywg.datapath.tap import Tap, Wanted
from pywg.errors import DropReason
from pywg.wire.endpoint import Endpoint

ENDPOINT = Endpoint("192.0.2.1", 51820)


def test_only_what_is_wanted_is_kept_and_cut() -> None:
    made = Tap(Wanted(inner=True, outer=False, snaplen=4))
    made.inner(b"0123456789", outgoing=True, dropped=DropReason.NO_ROUTE)
    made.outer(b"datagram", ENDPOINT, outgoing=True)
    (kept,), lost = made.take()
    assert (kept.data, kept.length, kept.dropped) == (b"0123", 10, DropReason.NO_ROUTE)
    assert kept.endpoint is None
    assert lost == 0
    assert made.take() == ([], 0)


def test_what_finds_no_room_is_counted() -> None:
    made = Tap(Wanted())
    count = tap.ROOM // 1000
    for _ in range(count + 5):
        made.outer(bytes(1000), ENDPOINT, outgoing=False)
    kept, lost = made.take()
    assert (len(kept), lost) == (count, 5)
