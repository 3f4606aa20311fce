"""Builds the compiled data path where that is possible; everything else is in pyproject.toml."""

from __future__ import annotations

import sys

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext


class OptionalBuildExt(build_ext):
    """Goes on without the extension when it cannot be built, and says so in one line."""

    def run(self) -> None:
        try:
            super().run()
        except Exception as error:
            self._explain(error)

    def build_extension(self, ext: Extension) -> None:
        try:
            super().build_extension(ext)
        except Exception as error:
            self._explain(error)

    def _explain(self, error: Exception) -> None:
        first_line = str(error).partition("\n")[0]
        print(f"pywg: the portable data path is used, the compiled one was not built: {first_line}", file=sys.stderr)


def extensions() -> list[Extension]:
    """The extension, where the system can have it and Cython is there to translate it."""
    if not sys.platform.startswith("linux"):
        return []
    return [
        Extension(
            "pywg.datapath.compiled",
            ["pywg/datapath/compiled.pyx"],
            include_dirs=["pywg/datapath"],
            extra_compile_args=["-O3", "-fno-strict-aliasing", "-Wno-unused-function"],
            libraries=["dl", "pthread"],
        )
    ]


setup(ext_modules=extensions(), cmdclass={"build_ext": OptionalBuildExt})
