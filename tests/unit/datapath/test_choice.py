"""Which data path is taken, what PYWG_DATAPATH insists on, and how it is told that this cannot be."""

from __future__ import annotations

import sys

import click.testing
import pytest

from pywg.cli import pywg, pywgd
from pywg.datapath import CIPHER_VARIABLE, VARIABLE, check_choice, describe, wanted_offload
from pywg.errors import PywgError

NOT_BUILT = "PYWG_DATAPATH=compiled, but the compiled one is not built"
NO_SUCH = "PYWG_DATAPATH=fast is not 'auto', 'portable' or 'compiled'"


@pytest.fixture
def not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a system where the extension was not built."""
    monkeypatch.setitem(sys.modules, "pywg.datapath.compiled", None)


@pytest.mark.parametrize("choice", [None, "", "auto"])
def test_without_the_compiled_one_the_portable_one_is_taken_and_says_why(choice, not_built, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    if choice is not None:
        monkeypatch.setenv(VARIABLE, choice)
    check_choice()
    assert describe().startswith("portable data path (the compiled one is not built), cryptography ")
    assert not wanted_offload().vnet_hdr


def test_the_portable_one_can_be_insisted_on(monkeypatch):
    monkeypatch.setenv(VARIABLE, "portable")
    check_choice()
    assert describe().startswith("portable data path (PYWG_DATAPATH=portable), ")
    assert not wanted_offload().vnet_hdr


def test_a_build_for_another_system_is_told_from_none(monkeypatch, tmp_path):
    compiled = tmp_path / "compiled.py"
    compiled.write_text("raise ImportError('libdl.so.2: cannot open shared object file')")
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.delitem(sys.modules, "pywg.datapath.compiled", raising=False)
    monkeypatch.setattr("pywg.datapath.__path__", [str(tmp_path)])
    assert "(the compiled one cannot be loaded: libdl.so.2: cannot open shared object file)" in describe()


@pytest.mark.parametrize(("choice", "sentence"), [("compiled", NOT_BUILT), ("fast", NO_SUCH)])
class TestWhatIsNotHere:
    @pytest.fixture(autouse=True)
    def insist(self, choice, not_built, monkeypatch):
        monkeypatch.setenv(VARIABLE, choice)

    def test_is_an_error_with_a_sentence(self, choice, sentence):
        with pytest.raises(PywgError) as told:
            check_choice()
        assert str(told.value) == sentence

    def test_is_told_by_version(self, choice, sentence, capfd):
        assert pywgd.run(["--version"], {}) == 1
        assert capfd.readouterr() == ("", f"pywgd: {sentence}\n")

    def test_is_told_by_the_tools_version(self, choice, sentence):
        done = click.testing.CliRunner().invoke(pywg.main, ["--version"])
        assert (done.exit_code, done.stdout, done.stderr) == (1, "", f"pywg: {sentence}\n")


class TestTheCipherLibrary:
    @pytest.fixture(autouse=True)
    def compiled(self):
        self.module = pytest.importorskip("pywg.datapath.compiled")

    def test_can_be_insisted_on(self, monkeypatch):
        names = {"ipsec-mb": "Intel IPsec-MB", "boringssl": "BoringSSL", "openssl": "OpenSSL"}
        for cipher in self.module.ciphers():
            monkeypatch.setenv(CIPHER_VARIABLE, cipher)
            check_choice()
            assert describe().startswith(f"compiled data path, {names[cipher]}")

    def test_that_is_not_here_is_an_error_that_tells_which_are(self, monkeypatch):
        monkeypatch.setenv(CIPHER_VARIABLE, "rot13")
        with pytest.raises(PywgError, match=r"^PYWG_CIPHER=rot13 was not found; here are: .*openssl$"):
            check_choice()

    def test_means_nothing_to_the_portable_one(self, monkeypatch):
        monkeypatch.setenv(VARIABLE, "portable")
        monkeypatch.setenv(CIPHER_VARIABLE, "rot13")
        check_choice()
