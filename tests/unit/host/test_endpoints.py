"""Which endpoint is set when, on a virtual clock, with a peer that keeps WireGuard's own times."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence

from pywg.config.model import EndpointName
from pywg.device.snapshot import PeerSnapshot
from pywg.host.endpoints import Answer, EndpointKeeper, Resolve, SetEndpoint, Watched
from pywg.noise.keys import PublicKey
from pywg.wire.endpoint import Endpoint

KEY = PublicKey(b"p" * 32)
V4, V6 = Endpoint("192.0.2.1", 51820), Endpoint("2001:db8::1", 51820)
OTHER_V4, OTHER_V6 = Endpoint("198.51.100.1", 51820), Endpoint("2001:db8:1::1", 51820)
NAME, BACKUP = EndpointName("vpn.example.org", "51820"), EndpointName("backup.example.org", "51820")
START = 1000.0


@dataclasses.dataclass
class World:
    """A device with one peer, a sender behind it, a name server; `run` lets seconds pass.

    live: the endpoints at which the peer answers now. Handshakes: after 120 s when something is sent, after
    15 s without an answer, again every 5 s; a session carries data for 180 s.
    """

    endpoint: Endpoint | None
    names: dict[EndpointName, Sequence[Endpoint]]
    live: set[Endpoint]
    unreachable: set[Endpoint] = dataclasses.field(default_factory=set)
    sends: Callable[[float], bool] = lambda now: True
    keepalive: int = 0
    server_answers_lookups: bool = True
    now: float = START
    session: float | None = None
    unanswered_since: float | None = None
    next_initiation: float = 0.0
    received: int = 0
    sent: int = 0
    lookups: list[tuple[float, EndpointName]] = dataclasses.field(default_factory=list)
    changes: list[tuple[float, Endpoint]] = dataclasses.field(default_factory=list)
    looks: int = 0

    def __post_init__(self) -> None:
        watched = Watched(KEY, tuple(self.names))
        self.keeper = EndpointKeeper([watched], lambda: 0.5, self.now)
        self._due = self.now
        self._do(self.keeper.start(self.now))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self._traffic()
            if self.now >= self._due:
                self.looks += 1
                self._do(self.keeper.observe([self._snapshot()], round(self.now * 1e9), self.now))
                self._due = self.keeper.next_look(self.now)
            self.now = min(self.now + 0.5, end)

    def change_network(self) -> None:
        self._do(self.keeper.network_changed(self.now))

    def _snapshot(self) -> PeerSnapshot:
        handshake = 0 if self.session is None else round(self.session * 1e9)
        return PeerSnapshot(
            KEY,
            endpoint=self.endpoint,
            last_handshake_ns=handshake,
            rx_bytes=self.received,
            tx_bytes=self.sent,
            persistent_keepalive_interval=self.keepalive,
        )

    def _traffic(self) -> None:
        keepalive = self.keepalive and (self.now - START) % self.keepalive == 0
        data = self.sends(self.now)
        if not data and not keepalive:
            return
        answers = self.endpoint in self.live
        age = None if self.session is None else self.now - self.session
        silent = 0.0 if self.unanswered_since is None else self.now - self.unanswered_since
        if age is None or age >= 120 or silent >= 15:
            self._initiate(answers)
            age = None if self.session is None else self.now - self.session
        if age is not None and age < 180:
            self.sent += 100 if data else 32
            if data and answers:
                self.received += 100
                self.unanswered_since = None
            elif data and self.unanswered_since is None:
                self.unanswered_since = self.now

    def _initiate(self, answers: bool) -> None:
        if self.now < self.next_initiation:
            return
        self.sent += 148
        self.next_initiation = self.now + 5.5
        if answers:
            self.received += 92
            self.session, self.unanswered_since = self.now, None

    def _do(self, actions: Sequence[Resolve | SetEndpoint]) -> None:
        for action in actions:
            if isinstance(action, SetEndpoint):
                assert action.endpoint != self.endpoint, "nothing is set twice"
                self.endpoint = action.endpoint
                self.changes.append((self.now - START, action.endpoint))
            else:
                self.lookups.append((self.now - START, action.name))
                found = self.names[action.name] if self.server_answers_lookups else ()
                answers = [Answer(endpoint, endpoint not in self.unreachable) for endpoint in found]
                self._do(self.keeper.resolved(action.name, answers, self.now))


def test_an_endpoint_that_answers_is_never_touched() -> None:
    world = World(V6, {NAME: [V6, V4]}, {V6, V4})
    world.run(3600)
    assert world.changes == []
    assert len(world.lookups) == 1


def test_a_peer_to_which_nobody_sends_is_left_alone() -> None:
    world = World(V6, {NAME: [V6, V4]}, set(), sends=lambda now: False)
    world.run(3600)
    assert world.changes == []
    assert len(world.lookups) == 1


def test_the_other_family_is_tried_within_seconds_and_kept() -> None:
    world = World(V6, {NAME: [V6, V4]}, {V4})
    world.run(15)
    ((when, endpoint),) = world.changes
    assert endpoint == V4
    assert when <= 6
    assert world.session is not None
    world.run(3600)
    assert len(world.changes) == 1


def test_addresses_of_one_name_are_tried_with_families_in_turn() -> None:
    world = World(V6, {NAME: [V6, OTHER_V6, V4, OTHER_V4]}, {OTHER_V4})
    world.run(60)
    assert [endpoint for _, endpoint in world.changes] == [V4, OTHER_V6, OTHER_V4]


def test_rounds_through_endpoints_that_are_all_silent_become_slower_and_never_end() -> None:
    world = World(V6, {NAME: [V6, V4]}, set())
    world.run(3600)
    gaps = [later - earlier for (earlier, _), (later, _) in itertools.pairwise(world.changes)]
    assert max(gaps[:2]) < 15
    assert all(20 < gap < 40 for gap in gaps[-10:])
    world.live.add(V6)
    world.run(80)
    assert world.session is not None
    assert world.session > START + 3600


def test_lookups_in_trouble_are_bounded() -> None:
    world = World(V4, {NAME: [V4]}, set())
    world.run(4 * 3600)
    times = [when for when, _ in world.lookups]
    assert times[1] < 20
    assert len(times) < 4 * 3600 / 90 + 10
    assert all(later - earlier >= 90 for earlier, later in itertools.pairwise(times[10:]))


def test_a_session_that_falls_silent_leads_to_the_name_s_new_address() -> None:
    world = World(V4, {NAME: [V4]}, {V4})
    world.run(60)
    world.names[NAME], world.live = [OTHER_V4], {OTHER_V4}
    world.run(40)
    ((when, endpoint),) = world.changes
    assert endpoint == OTHER_V4
    assert 60 + 19 < when < 60 + 28
    received = world.received
    world.run(10)
    assert world.received > received


def test_without_traffic_a_stale_handshake_is_noticed_by_its_keepalives() -> None:
    world = World(V4, {NAME: [V4]}, {V4}, sends=lambda now: False, keepalive=25)
    world.run(60)
    assert world.session == START
    world.names[NAME], world.live = [OTHER_V4], {OTHER_V4}
    world.run(200)
    ((when, endpoint),) = world.changes
    assert endpoint == OTHER_V4
    assert 135 <= when < 190


def test_keepalives_that_nobody_has_to_answer_are_no_trouble() -> None:
    world = World(V4, {NAME: [V4, V6]}, {V4}, sends=lambda now: False, keepalive=1)
    world.run(3600)
    assert world.changes == []


def test_a_network_change_looks_names_up_and_moves_to_a_new_address_at_once() -> None:
    world = World(V4, {NAME: [V4]}, {V4}, sends=lambda now: now < START + 10)
    world.run(60)
    world.names[NAME] = [OTHER_V4]
    world.change_network()
    assert world.changes == [(60.0, OTHER_V4)]


def test_many_network_changes_are_few_lookups() -> None:
    world = World(V4, {NAME: [V4]}, {V4})
    for _ in range(100):
        world.run(0.5)
        world.change_network()
    assert len(world.lookups) <= 12


def test_an_address_without_a_way_is_left_at_once_after_a_network_change() -> None:
    world = World(V6, {NAME: [V6, V4]}, {V6, V4})
    world.run(60)
    world.unreachable, world.live = {V6}, {V4}
    world.change_network()
    assert world.changes == [(60.0, V4)]


def test_addresses_without_a_way_are_tried_last() -> None:
    world = World(OTHER_V4, {BACKUP: [OTHER_V4], NAME: [V6, V4]}, {V4}, unreachable={V6})
    world.run(30)
    assert [endpoint for _, endpoint in world.changes] == [V4]


def test_a_roamed_peer_stays_where_it_is_heard_from() -> None:
    world = World(V4, {NAME: [V4]}, {V4, OTHER_V4})
    world.run(60)
    world.endpoint = OTHER_V4
    world.run(600)
    world.change_network()
    world.run(600)
    assert world.changes == []


def test_a_roamed_peer_that_falls_silent_is_looked_for_under_its_name() -> None:
    world = World(V4, {NAME: [V4]}, {V4, OTHER_V4})
    world.run(60)
    world.endpoint = OTHER_V4
    world.run(60)
    world.live = {V4}
    world.run(40)
    assert [endpoint for _, endpoint in world.changes] == [V4]


def test_failing_over_to_the_second_endpoint_and_back() -> None:
    world = World(V4, {NAME: [V4], BACKUP: [OTHER_V4]}, {V4, OTHER_V4})
    world.run(60)
    world.live = {OTHER_V4}
    world.run(60)
    assert [endpoint for _, endpoint in world.changes] == [OTHER_V4]
    world.live = {V4, OTHER_V4}
    world.run(240)
    assert len(world.changes) == 1
    world.run(240)
    assert [endpoint for _, endpoint in world.changes] == [OTHER_V4, V4]
    world.run(7200)
    assert len(world.changes) == 2


def test_a_preferred_endpoint_that_stays_away_is_tried_ever_less_and_left_within_seconds() -> None:
    world = World(V4, {NAME: [V4], BACKUP: [OTHER_V4]}, {OTHER_V4})
    world.run(6 * 3600)
    assert [endpoint for _, endpoint in world.changes[:3]] == [OTHER_V4, V4, OTHER_V4]
    tries = [when for when, endpoint in world.changes if endpoint == V4]
    lefts = [when for when, endpoint in world.changes[1:] if endpoint == OTHER_V4]
    assert all(left - tried <= 6 for tried, left in zip(tries, lefts, strict=False))
    assert 5 <= len(tries) <= 10
    gaps = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert all(later > earlier for earlier, later in itertools.pairwise(gaps[:4]))
    assert max(gaps) < 3600 + 300


def test_a_name_server_that_is_away_does_not_keep_from_trying_known_addresses() -> None:
    world = World(V4, {NAME: [V4], BACKUP: [OTHER_V4]}, {V4, OTHER_V4})
    world.run(60)
    world.server_answers_lookups, world.live = False, {OTHER_V4}
    world.run(40)
    assert [endpoint for _, endpoint in world.changes] == [OTHER_V4]


def test_an_answer_that_never_comes_is_not_waited_for() -> None:
    keeper = EndpointKeeper([Watched(KEY, (NAME, BACKUP))], lambda: 0.5, 0.0)
    assert keeper.start(0.0) == [Resolve(NAME), Resolve(BACKUP)]
    keeper.resolved(BACKUP, [Answer(V4)], 0.1)
    now, moves = 0.2, []
    while now < 10:
        snapshot = PeerSnapshot(KEY, endpoint=OTHER_V4, tx_bytes=148)
        moves += [a for a in keeper.observe([snapshot], 0, now) if isinstance(a, SetEndpoint)]
        now += 0.5
    assert moves[0].endpoint == V4


def test_initiations_of_a_peer_that_does_not_hear_us_are_no_answer() -> None:
    world = World(V4, {NAME: [V4], BACKUP: [OTHER_V4]}, {V4, OTHER_V4})
    world.run(60)
    world.live = {OTHER_V4}
    for _ in range(6):
        world.run(5)
        if world.endpoint == V4:
            world.received += 148
    assert [endpoint for _, endpoint in world.changes] == [OTHER_V4]


def test_a_peer_without_an_endpoint_gets_one() -> None:
    world = World(None, {NAME: [V4]}, {V4})
    world.run(10)
    assert [endpoint for _, endpoint in world.changes] == [V4]


def test_peers_that_left_the_device_are_no_matter() -> None:
    keeper = EndpointKeeper([Watched(KEY, (NAME,))], lambda: 0.5, 0.0)
    assert keeper.observe([], 0, 1.0) == []


def test_the_device_is_looked_at_every_five_seconds_while_all_is_well() -> None:
    world = World(V4, {NAME: [V4]}, {V4})
    world.run(1000)
    assert world.looks <= 1000 / 5 + 60
