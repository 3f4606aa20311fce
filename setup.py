"""Builds the compiled data path where that is possible; everything else is in pyproject.toml."""

from __future__ import annotations

import os
import subprocess
import sys

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext


class OptionalBuildExt(build_ext):
    """Goes on without the extension when it cannot be built, and says so in one line."""

    def run(self) -> None:
        """Translate, compile and copy; nothing of it is needed."""
        try:
            super().run()
        except Exception as error:
            self.extensions = []
            print(
                f"pywg: the portable data path is used, without the compiled one: {reason_of(error)}",
                file=sys.stderr,
            )


def reason_of(error: BaseException) -> str:
    """What kept the extension from being built; what the compiler itself said stands above."""
    cause: BaseException | None = error
    while cause is not None:  # setuptools wraps them
        if isinstance(cause, subprocess.CalledProcessError):
            return f"{cause.cmd[0]} ended with status {cause.returncode}"
        if isinstance(cause, FileNotFoundError) and cause.filename:
            return f"there is no '{cause.filename}' here"
        cause = cause.__cause__ or cause.__context__
    first_line = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first_line[:200]}"


def extensions() -> list[Extension]:
    """The extension, where the system can have it."""
    if not sys.platform.startswith("linux"):
        return []
    return [
        Extension(
            "pywg.datapath.compiled",
            ["pywg/datapath/compiled.pyx"],
            depends=[
                f"pywg/datapath/{name}"
                for name in (
                    "aead.h",
                    "cookie.h",
                    "packet.h",
                    "probe.h",
                    "udp.h",
                    "compiled_offload.pxd",
                    "compiled_replay.pxd",
                    "compiled_routes.pxd",
                )
            ],
            include_dirs=["pywg/datapath"],
            define_macros=[("PYWG_NO_PROBES", None)] if os.environ.get("PYWG_NO_PROBES") else [],
            extra_compile_args=["-O3", "-fno-strict-aliasing", "-Wno-unused-function"],
            libraries=["dl", "pthread"],
        )
    ]


setup(ext_modules=extensions(), cmdclass={"build_ext": OptionalBuildExt})
