"""Files as they are found in the wild, read by us and by the functions of the `wg-quick` that is installed.

`taken` are files that both read, `refused` those that `wg-quick` and `wg` together refuse, and `warned` those
that `wg` refuses where we warn. What a daemon makes of them is shown by `tests/system/test_wild.py`.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pywg.config.files import Location, load_text, read_text
from pywg.config.model import Config, Dialect
from pywg.config.parse import parse
from pywg.config.plain import plain_text
from pywg.config.positions import ConfigError
from pywg.config.write import write

WILD = Path(__file__).parents[2] / "data" / "wild"

WG_QUICK = shutil.which("wg-quick")
KEEPS_HASH = WG_QUICK is None or "unstripped" in Path(WG_QUICK).read_text()
"""Until 2021, wg-quick took a `#` in a hook for a comment."""

ASK_WG_QUICK = """
source <(sed '/function override insertion point/,$d' "$(command -v wg-quick)")
parse_options "$1" 2>/dev/null
printf '%s\\n' "${ADDRESSES[@]}" -- "${DNS[@]}" -- "${DNS_SEARCH[@]}" -- "$MTU" -- "$TABLE" -- "$SAVE_CONFIG"
for hooks in PRE_UP POST_UP PRE_DOWN POST_DOWN; do
    declare -n list=$hooks
    printf '%s\\n' -- "${list[@]}"
done
"""


def files(kind: str) -> list:
    return [pytest.param(path, id=path.stem) for path in sorted((WILD / kind).glob("*.conf"))]


def read(path: Path) -> Config:
    return parse(read_text(str(path)), str(path), Dialect.WG_QUICK)


def ours(config: Config) -> list[list[str]]:
    """What only wg-quick reads, as lists of texts."""
    section = config.interface
    hooks = (section.pre_up, section.post_up, section.pre_down, section.post_down)
    return [
        [str(address.value) for address in section.addresses],
        [str(server.value) for server in section.dns_servers],
        [domain.value for domain in section.dns_search],
        [str(section.mtu.value)] if section.mtu else [],
        [str(section.table.value)] if section.table else [],
        ["1" if section.save_config and section.save_config.value else "0"],
        *([_hook(command.value) for command in commands] for commands in hooks),
    ]


def _hook(command: str) -> str:
    return command if KEEPS_HASH else command.partition("#")[0].rstrip()


def theirs(path: Path) -> list[list[str]]:
    """The same, from wg-quick's variables; empty entries left out, addresses with their length."""
    printed = subprocess.run(
        ["bash", "-c", ASK_WG_QUICK, "wg-quick", path], capture_output=True, text=True, check=True
    ).stdout
    groups = [[line for line in group.split("\n") if line] for group in f"\n{printed}".split("\n--")]
    addresses, *rest = groups
    whole = [
        address if "/" in address else f"{address}/{128 if ':' in address else 32}" for address in addresses
    ]
    rest[3] = [table.lower() if table.lower() in ("auto", "off") else table for table in rest[3]]
    return [whole, *rest]


@pytest.mark.skipif(WG_QUICK is None, reason="needs wg-quick: apt install wireguard-tools")
@pytest.mark.parametrize("path", files("taken"))
def test_wg_quick_and_we_read_the_same(path):
    assert ours(read(path)) == theirs(path)


@pytest.mark.parametrize("path", files("taken") + files("warned"))
def test_what_is_read_is_written_and_read_back(path):
    config = read(path)
    assert parse(write(config), str(path), Dialect.WG_QUICK) == config


@pytest.mark.parametrize("path", files("taken") + files("warned"))
def test_what_is_stripped_is_a_file_of_wg_s_without_warnings(path):
    text = read_text(str(path))
    loaded = load_text(Location(str(path), path.stem), text)
    again = parse(plain_text(text, loaded.config), str(path), Dialect.WG)
    assert [peer.allowed_ips for peer in again.peers] == [peer.allowed_ips for peer in loaded.config.peers]


@pytest.mark.parametrize("path", files("refused"))
def test_what_they_refuse_we_refuse_with_its_place(path):
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert all(mistake.position.line for mistake in caught.value.mistakes)


@pytest.mark.parametrize("path", files("warned"))
def test_what_only_wg_refuses_is_warned_of(path):
    assert read(path).warnings


def test_there_are_fifty():
    assert len(list(WILD.glob("*/*.conf"))) >= 50
