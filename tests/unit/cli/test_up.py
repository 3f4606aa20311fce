"""`pywg up` and `pywg down`, as far as they get without changing anything."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from pywg.cli.pywg import main


@pytest.fixture
def run(tmp_path, monkeypatch):
    tmp_path.chmod(0o700)
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(main, list(arguments))


@pytest.mark.parametrize("command", ["up", "down"])
def test_every_mistake_is_told_with_status_1(run, tmp_path, command):
    (tmp_path / "wg0.conf").write_text("[Interface]\nAdress = 10.0.0.1\n[Peer]\nAllowedIPs = 10.0.0.0/33\n")
    done = run(command, "wg0.conf")
    assert done.exit_code == 1
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "wg0.conf:2:1: unknown key 'Adress'; did you mean 'Address'?",
        "wg0.conf:3:1: [Peer]: has no PublicKey",
        "wg0.conf:4:14: AllowedIPs: '10.0.0.0/33' has a prefix longer than 32",
    ]


@pytest.mark.parametrize("command", ["up", "down"])
def test_a_missing_file_is_told_with_status_1(run, command):
    done = run(command, "./wg0.conf")
    assert (done.exit_code, done.stderr) == (1, "pywg: `./wg0.conf' does not exist\n")


@pytest.mark.parametrize("command", ["up", "down"])
@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["--nonsense"]])
def test_wrong_usage_has_status_2(run, command, arguments):
    assert run(command, *arguments).exit_code == 2


@pytest.mark.parametrize("command", ["up", "down"])
def test_missing_rights_are_told(run, tmp_path, command, monkeypatch):
    monkeypatch.setattr("pywg.host.names.may_administer_network", lambda: False)
    (tmp_path / "wg 0.conf").write_text("[Interface]\n")
    (tmp_path / "wg0.conf").write_text("[Interface]\nPreUp = true\nPreDown = true\n")
    (tmp_path / "wg0.conf").chmod(0o600)
    done = run(command, "wg0.conf")
    assert done.exit_code == 1
    assert done.stderr == (
        "pywg: changing interfaces needs the capability CAP_NET_ADMIN; "
        f"run it as root: sudo pywg {command} wg0.conf\n"
    )


def test_an_interface_that_exists_is_told_as_wg_quick_does(run, tmp_path, monkeypatch):
    monkeypatch.setattr("pywg.host.names.may_administer_network", lambda: True)
    (tmp_path / "lo.conf").write_text("[Interface]\nPreUp = true\n")
    (tmp_path / "lo.conf").chmod(0o600)
    done = run("up", "./lo.conf")
    said = "it is no WireGuard interface: see `ip -d link show lo`, or rename the file"
    assert (done.exit_code, done.stderr) == (1, f"pywg: `lo' already exists; {said}\n")


def test_an_interface_that_is_not_wireguard_is_told_as_wg_quick_does(run, tmp_path, monkeypatch):
    monkeypatch.setattr("pywg.host.names.may_administer_network", lambda: True)
    (tmp_path / "lo.conf").write_text("[Interface]\n")
    (tmp_path / "lo.conf").chmod(0o600)
    done = run("down", "./lo.conf")
    assert (done.exit_code, done.stderr.partition(";")[0]) == (1, "pywg: `lo' is not a WireGuard interface")


def test_a_file_without_a_private_key_gets_a_warning(run, tmp_path, monkeypatch):
    monkeypatch.setattr("pywg.host.names.may_administer_network", lambda: True)
    (tmp_path / "lo.conf").write_text("[Interface]\nMTU=1400\n")
    (tmp_path / "lo.conf").chmod(0o644)
    tmp_path.chmod(0o755)
    assert run("up", "./lo.conf").stderr.splitlines()[:2] == [
        "Warning: `./lo.conf' is world accessible; close it with: chmod 600 ./lo.conf",
        "Warning: ./lo.conf: there is no PrivateKey; nothing goes through until one is set",
    ]
