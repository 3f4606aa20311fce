"""`pywg metrics` where it has nothing to serve, or may not."""

import sys

import pytest
from click.testing import CliRunner

from pywg.cli.pywg import main


@pytest.mark.parametrize("listen", ["9586", "127.0.0.1:", ":9586", "127.0.0.1:70000", "127.0.0.1:x"])
def test_an_address_that_is_none_is_refused(listen: str) -> None:
    done = CliRunner().invoke(main, ["metrics", "--listen", listen])
    assert done.exit_code == 2
    assert "--listen takes ADDRESS:PORT" in done.output


def test_a_package_that_is_missing_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "pywg.observe.metrics", raising=False)
    done = CliRunner().invoke(main, ["metrics", "--once"])
    assert done.exit_code == 1
    assert "-m pip install prometheus-client" in done.output


def test_an_address_that_this_host_has_not_is_told_as_such() -> None:
    done = CliRunner().invoke(main, ["metrics", "--listen", "192.0.2.77:9586"])
    assert done.exit_code == 1
    assert (
        "Cannot assign requested address; `ip address show` shows the addresses of this host" in done.output
    )
