"""Cipher libraries read nothing behind the buffers and keys that we hand them."""

from __future__ import annotations

import pathlib
import shutil
import subprocess

import pytest

HERE = pathlib.Path(__file__).resolve().parent
HEADERS = HERE.parents[2] / "pywg" / "datapath"


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_no_library_reads_behind_a_buffer_or_a_key(tmp_path: pathlib.Path) -> None:
    program = tmp_path / "guarded"
    build = ["cc", "-O1", f"-I{HEADERS}", "-o", program, HERE / "guarded.c", "-ldl", "-lpthread"]
    subprocess.run(build, check=True, capture_output=True)
    told = subprocess.run([program], check=True, capture_output=True, text=True, timeout=60).stdout
    assert told
    assert [line for line in told.splitlines() if not line.endswith(": 0")] == []
