"""Allowed IPs and their owners, against a plain dictionary."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pywg.device.routes import Routes
from pywg.device.session import PeerId
from pywg.wire.network import Network

PEERS = [PeerId(number) for number in range(1, 4)]
NETWORKS = [Network.parse(text) for text in ("10.0.0.0/8", "10.0.0.0/16", "0.0.0.0/0", "::/0", "fd00::/64")]


class RoutesMachine(RuleBasedStateMachine):
    """Each network has at most one owner; a peer's are listed in the order it got them."""

    def __init__(self) -> None:
        super().__init__()
        self.routes = Routes()
        self.model: list[tuple[PeerId, Network]] = []

    @rule(peer=st.sampled_from(PEERS), networks=st.lists(st.sampled_from(NETWORKS), max_size=4))
    def add(self, peer: PeerId, networks: list[Network]) -> None:
        self.routes.add(peer, networks)
        for network in networks:
            if (peer, network) not in self.model:
                self.model = [entry for entry in self.model if entry[1] != network]
                self.model.append((peer, network))

    @rule(peer=st.sampled_from(PEERS), networks=st.lists(st.sampled_from(NETWORKS), max_size=4, unique=True))
    def remove(self, peer: PeerId, networks: list[Network]) -> None:
        had = [network for network in networks if (peer, network) in self.model]
        assert self.routes.remove(peer, networks) == had
        self.model = [entry for entry in self.model if entry not in [(peer, network) for network in had]]

    @rule(peer=st.sampled_from(PEERS))
    def clear(self, peer: PeerId) -> None:
        assert self.routes.clear(peer) == [network for owner, network in self.model if owner == peer]
        self.model = [entry for entry in self.model if entry[0] != peer]

    @invariant()
    def owners_agree(self) -> None:
        assert len(self.routes) == len(self.model)
        for peer in PEERS:
            assert self.routes.of(peer) == [network for owner, network in self.model if owner == peer]


TestRoutes = RoutesMachine.TestCase
TestRoutes.settings = settings(max_examples=40, deadline=None)


def test_a_network_listed_twice_for_removal_is_given_back_once() -> None:
    routes = Routes()
    routes.add(PEERS[0], NETWORKS[:1])
    assert routes.remove(PEERS[0], [NETWORKS[0], NETWORKS[0]]) == NETWORKS[:1]
    assert len(routes) == 0
