"""What the documents list is what the code has, and nothing else; their links lead somewhere.

Commands, options, words and keys are in definition lists; variables, reasons, constants and fields in tables.
That the commands in them work is shown by `tests/system/test_docs.py`.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator

import click
import pytest

import bench.cli
import pywg
from pywg.cli import setargs, wgformat
from pywg.cli.pywg import COMMANDS, main
from pywg.config import parse
from pywg.config.model import Dialect
from pywg.config.positions import ConfigError
from pywg.device import constants
from pywg.device.events import EventKind
from pywg.device.snapshot import DeviceSnapshot, PeerSnapshot
from pywg.errors import DropReason
from pywg.noise.keys import PresharedKey, PrivateKey
from pywg.observe.services import services
from pywg.uapi import format as uapi_format
from pywg.wire.endpoint import Endpoint
from pywg.wire.network import Network
from tests.documents import ROOT, Page, pages, pattern, with_keys

REFERENCE = ROOT / "docs" / "reference"
PAGES = pages()
COMMAND_PAGES = sorted(
    path.stem for path in REFERENCE.glob("pywg*.md") if path.stem not in {"pywgd", "pywg.conf"}
)


def reference(name: str) -> Page:
    return Page(REFERENCE / f"{name}.md")


def section(page: Page, title: str) -> str:
    """The text between a heading and the next one of its level or above."""
    found = re.search(
        rf"^(#+) {re.escape(title)} *\n(.*?)(?=^#{{1,2}} |\Z)", page.text, re.MULTILINE | re.DOTALL
    )
    assert found, f"{page.name} has no section '{title}'"
    return found[2]


def terms(text: str) -> list[str]:
    """What a definition list defines; several terms on one line are several."""
    lines = re.findall(r"^(`[^\n]*`)\n: ", text, re.MULTILINE)
    return [term for line in lines for term in re.findall(r"`([^`]+)`", line)]


def first_column(text: str) -> list[str]:
    """The code in the first column of tables."""
    return re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)


def sources() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted((ROOT / "pywg").rglob("*.py")):
        yield str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8"))


# --- Commands. --------------------------------------------------------------------------------------------


def test_every_command_is_described_and_no_other():
    assert [term.removeprefix("pywg ") for term in terms(section(reference("pywg"), "Commands"))] == list(
        COMMANDS
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_what_the_list_of_commands_says_is_what_help_says(name):
    listed = re.search(rf"^`pywg {name}`\n: (.*)", reference("pywg").text, re.MULTILINE)
    assert listed[1].startswith(COMMANDS[name].rstrip("."))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_synopsis(name):
    assert any(f"\n`pywg {name}`" in section(reference(page), "Synopsis") for page in COMMAND_PAGES)


def options_of(command: click.Command) -> set[str]:
    """Every command under `pywg` has both names of help; click itself keeps those of its first context."""
    options = (parameter for parameter in command.params if isinstance(parameter, click.Option))
    return {name for option in options for name in option.opts} | {"-h", "--help"}


@pytest.mark.parametrize("page", COMMAND_PAGES)
def test_every_option_is_described_and_no_other(page):
    synopsis = section(reference(page), "Synopsis")
    names = re.findall(r"^`pywg (\w+)[ `]", synopsis, re.MULTILINE)
    commands = [main.get_command(click.Context(main), name) for name in names] or [main]
    has = set.union(*(options_of(command) for command in commands))
    assert set(terms(section(reference(page), "Options"))) == has


def test_every_word_of_set_is_described_and_no_other():
    page = reference("pywg-set")
    assert terms(section(page, "Words of the interface")) == list(setargs._DEVICE_WORDS)
    assert terms(section(page, "Words of a peer")) == [word for word in setargs._PEER_WORDS if word != "peer"]


def test_every_field_of_show_is_described_and_no_other():
    assert terms(section(reference("pywg-show"), "Fields")) == list(wgformat.FIELDS)


def test_every_option_of_the_benchmark_is_described_and_no_other(capsys):
    with pytest.raises(SystemExit):
        bench.cli.parse(["--help"])
    has = re.findall(r"^  (--[a-z]+)", capsys.readouterr().out, re.MULTILINE)
    assert terms(section(Page(ROOT / "docs/howto/measure.md"), "Options")) == has


def test_the_figures_of_the_readme_are_those_that_were_measured():
    columns, *rows = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in re.findall(r"^\|.*\|$", section(Page(ROOT / "README.md"), "How fast"), re.MULTILINE)
        if "---" not in line
    )
    results = Page(ROOT / "docs/benchmarks/results.md").text
    measured = {
        cells[0]: cells
        for line in re.findall(r"^\|.*\*\*.*\|$", results, re.MULTILINE)
        for cells in [[cell.strip() for cell in line.strip("|").split("|")]]
    }
    header = re.search(r"^\| over wireguard-go \|.*$", results, re.MULTILINE)
    there = [cell.strip() for cell in header[0].strip("|").split("|")]
    assert rows
    for row in rows:
        cells = [measured[row[0]][there.index(column)] for column in columns]
        assert [re.sub(r"\*\*([\d.]+)\*\*.*", r"\1", cell) for cell in cells] == row
    start, memory = (
        float(re.search(rf"^\| {re.escape(name)} \| ([\d.]+)", results, re.MULTILINE)[1])
        for name in ("start to socket ready, s", "RSS, 1 peer, idle, MB")
    )
    assert f"{start:.2f} s and {memory:.0f} MB" in Page(ROOT / "README.md").text


def test_every_target_of_make_is_described_and_no_other():
    has = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    described = terms(section(Page(ROOT / "docs/howto/contribute.md"), "Targets"))
    assert sorted(described) == sorted(f"make {name}" for name in has)


def test_every_file_that_a_cipher_library_is_found_by_is_described_and_no_other():
    code = (ROOT / "pywg/datapath/aead.h").read_text()
    named = re.search(
        r"^\| library \| file .*?(?=\n\n)", Page(ROOT / "docs/howto/make-it-fast.md").text, re.M | re.S
    )
    described = {name for name in re.findall(r"`([^`]+)`", named[0]) if ".so" in name}
    assert described == set(re.findall(r'"(lib[^"/]+\.so[.0-9]*)"', code))


def test_every_man_page_has_a_source():
    built = re.findall(
        r'\("(reference/[\w.-]+)", "([\w.-]+)", "[^"]+", \[author\], (\d)\)',
        (ROOT / "docs/conf.py").read_text(),
    )
    assert {name for _, name, _ in built} == {*COMMAND_PAGES, "pywgd", "pywg.conf"}
    for source, name, number in built:
        assert Page(ROOT / "docs" / f"{source}.md").headings()[0] == f"{name}({number})"


# --- Configuration. ---------------------------------------------------------------------------------------


def test_every_key_of_a_file_is_described_and_no_other():
    page = reference("pywg.conf")
    assert sorted(terms(section(page, "[Interface]"))) == sorted(
        entry.name for entry in parse._INTERFACE_ENTRIES.values()
    )
    assert sorted(terms(section(page, "[Peer]"))) == sorted(
        entry.name for entry in parse._PEER_ENTRIES.values()
    )


def test_every_setting_in_comments_is_described_and_no_other():
    described = terms(section(reference("pywg.conf"), "Settings in comments"))
    entries = [*parse._INTERFACE_EXTENSIONS.values(), *parse._PEER_EXTENSIONS.values()]
    assert sorted(described) == sorted(f"#pywg {entry.name}" for entry in entries)


def test_keys_that_only_up_reads_are_said_to_be():
    text = section(reference("pywg.conf"), "[Interface]") + section(reference("pywg.conf"), "[Peer]")
    entries = dict(re.findall(r"^(`[^\n]*`)\n: (.*?)(?=\n\n)", text, re.MULTILINE | re.DOTALL))
    for line, description in entries.items():
        for name in re.findall(r"`(\w+)`", line):
            entry = (parse._INTERFACE_ENTRIES | parse._PEER_ENTRIES)[name.lower()]
            only_up = re.search(r"Only\s+for\s+`pywg\s+up`\.$", description) is not None
            assert only_up is not entry.of_wg, name


def test_configuration_files_in_documents_can_be_read():
    key = PrivateKey.generate(lambda count: bytes(range(count)))
    texts = {"privatekey": key.base64, "publickey": key.public_key.base64}
    checked = 0
    for page in PAGES:
        for block in page.blocks():
            if block.language == "ini" and "[Interface]" in block.text and "Adress" not in block.text:
                parse.parse(with_keys(block.text, lambda _, name: texts[name]), page.name, Dialect.WG_QUICK)
                checked += 1
    assert checked > 5


def test_units_in_documents_are_understood_by_systemd(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze; apt-get install systemd")
    program = tmp_path / "pywg"
    program.touch(0o755)
    checked = 0
    for page in PAGES:
        for block in page.blocks():
            if "[Service]" in block.text and "[Unit]" in block.text:
                unit = tmp_path / f"unit{checked}@.service"
                unit.write_text(block.text.replace("/usr/local/bin/pywg", str(program)))
                verify = ["systemd-analyze", "verify", "--man=no", str(unit).replace("@.", "@wg0.")]
                done = subprocess.run(verify, capture_output=True, text=True, check=False)
                assert (done.returncode, done.stderr) == (0, ""), page.name
                checked += 1
    assert checked > 1


def test_the_mistakes_shown_in_the_guide_are_those_that_are_told():
    key = PrivateKey.generate(lambda count: bytes(range(count)))
    texts = {"privatekey": key.base64, "publickey": key.public_key.base64}
    page = Page(ROOT / "docs/howto/read-errors.md")
    wrong = next(block for block in page.blocks() if "Adress" in block.text)
    shown = [
        line for line in page.text.splitlines() if line.startswith("./wg1.conf:") and "PostUp" not in line
    ]
    with pytest.raises(ConfigError) as told:
        parse.parse(with_keys(wrong.text, lambda _, name: texts[name]), "./wg1.conf", Dialect.WG_QUICK)
    assert str(told.value).splitlines() == shown


def environment_variables() -> set[str]:
    """The names that are looked up in the environment, wherever in the code."""
    found = set()
    for _, module in sources():
        named = {
            target.id: node.value.value
            for node in ast.walk(module)
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(module):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            called = ast.unparse(node.func)
            if called in ("os.environ.get", "environment.get", "_descriptor", "os.getenv"):
                name = node.args[0]
                if isinstance(name, ast.Constant):
                    found.add(name.value)
                elif isinstance(name, ast.Name) and name.id in named:
                    found.add(named[name.id])
    return found


def test_every_environment_variable_is_described_and_no_other():
    assert set(first_column(reference("environment").text)) == environment_variables()


def test_every_variable_of_the_daemon_is_on_its_man_page():
    rows = re.findall(r"^\| `(\w+)` \| `pywgd`[ ,]", reference("environment").text, re.MULTILINE)
    assert terms(section(reference("pywgd"), "Environment")) == rows


# --- Formats. ---------------------------------------------------------------------------------------------


def full_device() -> DeviceSnapshot:
    """A device of which everything is set."""
    key = PrivateKey.generate(lambda count: bytes(range(count)))
    peer = PeerSnapshot(
        key.public_key,
        PresharedKey.generate(lambda count: bytes(range(count))),
        Endpoint("192.0.2.1", 51820),
        1_700_000_000_000_000_001,
        1,
        2,
        25,
        [Network.parse("10.0.0.0/24")],
    )
    return DeviceSnapshot(key, 51820, 7, [peer])


def test_every_field_of_the_json_is_described_and_no_other():
    page = reference("show-json")
    value = wgformat.json_value([("wg0", full_device())], hide_keys=False)
    interface = value["interfaces"][0]
    assert first_column(section(page, "The whole")) == list(value)
    assert first_column(section(page, "An interface")) == list(interface)
    assert first_column(section(page, "A peer")) == list(interface["peers"][0])


def test_every_key_of_get_is_described_and_no_other():
    lines = "\n".join(uapi_format.format_get(full_device())).splitlines()
    assert first_column(section(reference("uapi"), "get=1")) == [line.partition("=")[0] for line in lines]


def test_every_key_of_set_is_described_and_no_other():
    module = next(module for name, module in sources() if name == "pywg/uapi/server.py")
    functions = {node.name: node for node in ast.walk(module) if isinstance(node, ast.FunctionDef)}
    described = {
        "_apply_to_device": first_column(section(reference("uapi"), "set=1: the device")),
        "_apply_to_peer": first_column(section(reference("uapi"), "set=1: a peer")),
    }
    described["_apply_to_peer"].remove("public_key")
    for name, keys in described.items():
        has = {
            node.value.value
            for node in ast.walk(functions[name])
            if isinstance(node, ast.MatchValue) and isinstance(node.value, ast.Constant)
        }
        assert set(keys) == has


def test_every_request_of_our_own_is_described_and_no_other():
    engine = None  # they only keep it until somebody asks
    assert reference("statistics").headings()[1:] == [f"{name}=1" for name in services(engine)]


def test_every_kind_of_event_is_described_and_no_other():
    rows = re.findall(r"^\| (`[^|]+) \|.*\|.*\|$", section(reference("statistics"), "events=1"), re.MULTILINE)
    described = {name for row in rows for name in re.findall(r"`([\w-]+)`", row)}
    assert described == {kind.value for kind in EventKind}


def test_every_drop_reason_is_described_in_order_and_no_other():
    assert first_column(reference("drop-reasons").text) == [reason.value for reason in DropReason]


def test_every_constant_is_described_with_its_value():
    rows = re.findall(r"^\| `([A-Z_]+)` \| ([^|]+) \|", reference("limits").text, re.MULTILINE)
    described = {name: eval(re.sub(r" m?s$", "", value).replace("^", "**")) for name, value in rows}
    assert described == {name: value for name, value in vars(constants).items() if name.isupper()}


def texts_of_the_code() -> str:
    """All texts in the code, one per line, with the values of module constants in their places."""
    texts = []
    for _, module in sources():
        constant = {
            node.targets[0].id: str(node.value.value)
            for node in module.body
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and isinstance(node.value, ast.Constant)
        }
        for node in ast.walk(module):
            if isinstance(node, ast.Constant):
                texts.append(str(node.value))
            elif isinstance(node, ast.JoinedStr):
                parts = (
                    part.value
                    if isinstance(part, ast.Constant)
                    else constant.get(ast.unparse(part.value), "...")
                    for part in node.values
                )
                texts.append("".join(parts))
    return "\n".join(texts)


@pytest.mark.parametrize("name", ["container", "without-root"])
def test_the_messages_that_a_guide_explains_are_those_of_the_code(name):
    table = re.search(
        r"^\| what it says .*?(?=\n\n|\Z)", Page(ROOT / f"docs/howto/{name}.md").text, re.M | re.S
    )
    texts = texts_of_the_code()
    messages = [text for text in first_column(table[0]) if not re.match(r"\w+: ", text)]
    assert messages
    for message in messages:
        assert message in texts


# --- Documents as such. -----------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_inside_leads_somewhere(page):
    assert not re.search(r"(?<!!)\[\]\(", page.prose), f"{page.name}: a link without text; not all fill it in"
    for link in page.links():
        path, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        target = (page.path.parent / path).resolve() if path else page.path
        assert target.is_file(), f"{page.name}: {link}"
        assert not anchor or anchor in Page(target).anchors(), f"{page.name}: {link}"


def test_no_two_pages_have_the_same_title():
    titles = [page.headings()[0] for page in PAGES if page.path.is_relative_to(ROOT / "docs")]
    assert len(set(titles)) == len(titles)


def test_every_page_is_in_a_list_that_is_read_without_sphinx_too():
    indices = [page for page in PAGES if page.path.name == "index.md"]
    listed = {(page.path.parent / link).resolve() for page in indices for link in page.links()}
    for page in PAGES:
        if page.path.is_relative_to(ROOT / "docs") and page.path != ROOT / "docs" / "index.md":
            assert page.path in listed, page.name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_is_played_or_says_why_not(page):
    for block in page.blocks():
        if block.language == "console" and not block.is_left_out:
            assert page.stage, f"{page.name}:{block.line}: name a stage, or say why this is not played"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_are_read_without_leftovers(page):
    assert page.text.count("```") % 2 == 0
    for step in page.steps():
        assert re.compile(pattern(getattr(step, "prints", "")))


def test_no_document_installs_somebody_elses_distribution():
    for page in PAGES:
        assert not re.search(r"install (-\S+ )*pywg\b(?!-vpn)", page.text), page.name


def test_the_project_is_called_what_the_readme_says():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    readme = Page(ROOT / "README.md").text
    assert f"`{project['name']}`" in readme
    assert f"Python {project['requires-python'].removeprefix('>=')} or newer" in readme
    assert f"Version {'.'.join(pywg.__version__.split('.')[:2])}" in readme
