"""Which policy rules a default route needs, which of them belong to a tunnel, and what a table is called."""

from __future__ import annotations

import pytest

from pywg.errors import PywgError
from pywg.host import routing
from pywg.host.routing import Rule, choose_table, default_marks, default_rules, rules_of, table_number
from pywg.wire.network import Network

PLAIN = [Rule(4, 0, table=255), Rule(4, 32766, table=254), Rule(4, 32767, table=253)]


def in_order(rules):
    return sorted(rules, key=lambda rule: rule.priority)


def with_tunnels(*marks):
    rules = PLAIN
    for mark in marks:
        rules = in_order([*rules, *default_rules(4, mark, rules, default_marks(rules))])
    return rules


def way(rules, mark, tables):
    """Where a packet goes: the first table asked that has a default route, as the kernel asks them."""
    at = 0
    while True:
        rule = next(rule for rule in in_order(rules) if rule.priority >= at)
        at = rule.priority + 1
        if rule.mark is not None and (rule.mark == mark) == rule.inverted:
            continue
        if rule.goto is not None:
            at = rule.goto
        elif rule.table in tables and not rule.suppress:
            return rule.table


def test_a_default_route_gets_the_rules_of_wg_quick():
    assert [rule.command("add") for rule in default_rules(4, 51820, PLAIN, set())] == [
        "ip -4 rule add not fwmark 51820 table 51820 priority 32765",
        "ip -4 rule add table main suppress_prefixlength 0 priority 32764",
    ]


def test_the_tunnel_s_own_datagrams_take_the_ordinary_way():
    rules = with_tunnels(7)
    assert way(rules, 0, {7, 254}) == 7
    assert way(rules, 7, {7, 254}) == 254


@pytest.mark.parametrize("gone", [1, 2, 3])
def test_each_tunnel_goes_through_the_one_before_it_whichever_is_gone(gone):
    rules = with_tunnels(1, 2, 3)
    tables = {1, 2, 3, 254}
    assert [way(rules, mark, tables) for mark in (0, 3, 2, 1)] == [3, 2, 1, 254]
    rules = [rule for rule in rules if rule not in rules_of(gone, rules)]
    left = [mark for mark in (3, 2, 1) if mark != gone]
    assert [way(rules, mark, tables - {gone}) for mark in (0, *left)] == [*left, 254]


def test_a_tunnel_of_the_other_ip_version_is_let_pass_too():
    rules = [*PLAIN, *default_rules(4, 2, PLAIN, {1})]
    assert way(rules, 1, {2, 254}) == 254
    assert way(rules, 0, {2, 254}) == 2


def test_all_rules_of_a_tunnel_are_found_and_nobody_else_s():
    rules = with_tunnels(1, 2, 3)
    foreign = Rule(4, 100, mark=9, table=254)
    left = [foreign, *rules]
    for mark in (2, 1, 3):
        left = [rule for rule in left if rule not in rules_of(mark, left)]
    assert in_order(left) == in_order([foreign, *PLAIN])


def test_rules_that_leave_no_room_are_told():
    with pytest.raises(PywgError, match="there is no room"):
        default_rules(4, 1, [Rule(4, 0, table=255), Rule(4, 1, table=254)], set())


def test_the_first_free_table_is_chosen():
    assert choose_table(set()) == 51820
    assert choose_table({51820, 51821, 51823}) == 51822


def test_tables_are_named_as_iproute2_names_them(tmp_path, monkeypatch):
    monkeypatch.setattr(routing, "_TABLE_FOLDERS", (str(tmp_path),))
    (tmp_path / "rt_tables").write_text("# 5 five\n255\tlocal\n0x10 hexadecimal # 16\nx broken\n")
    (tmp_path / "rt_tables.d").mkdir()
    (tmp_path / "rt_tables.d/mine.conf").write_text("77 mine\n")
    assert [table_number(name) for name in ("local", "hexadecimal", "mine", "main")] == [255, 16, 77, 254]
    for name in ("five", "broken"):
        with pytest.raises(PywgError, match=f"there is no routing table '{name}'"):
            table_number(name)


def test_a_network_is_not_covered_by_one_of_the_other_version():
    wanted = {Network.parse("10.0.0.0/8")}
    assert routing.routes_to_add(wanted, {Network.parse("::/0")}) == sorted(wanted)
