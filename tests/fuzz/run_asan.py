"""Builds the compiled data path with AddressSanitizer and UndefinedBehaviorSanitizer, and fuzzes that build.

The tree is copied to a temporary folder, so the build in the tree stays as it is. With clang and atheris
the build also tells libFuzzer where it goes (`run.py` uses that); gcc with libasan is enough for the random
events of `fuzz_compiled.py`, whose arguments this takes. Ends with status 1 when something was found.
"""

from __future__ import annotations

import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHECKS = "-fno-sanitize=alignment -fno-sanitize-recover=undefined -g -O1"


def clang() -> str | None:
    """The newest clang here that comes with its sanitizers' headers."""
    return next(
        filter(None, (shutil.which(f"clang{version}") for version in ("", "-19", "-16", "-14"))), None
    )


def preloadable_fuzzer() -> pathlib.Path | None:
    """AddressSanitizer and libFuzzer in one library, as atheris brings it."""
    found = importlib.util.find_spec("atheris")
    if found is None or found.origin is None:
        return None
    library = pathlib.Path(found.origin).parents[1] / "asan_with_fuzzer.so"
    return library if library.exists() else None


def can_guide() -> bool:
    """Whether a build can be fuzzed along its coverage here."""
    return clang() is not None and preloadable_fuzzer() is not None


def copy(tree: pathlib.Path) -> None:
    """Put the package and the tests there, without what is built of them."""
    for part in ("pywg", "tests"):
        shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("*.so", "*.c", "__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, tree)


def compile_there(tree: pathlib.Path, tools: dict[str, str]) -> None:
    """Build the compiled data path of a copied tree with these compilers and flags."""
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    subprocess.run(command, cwd=tree, env={**os.environ, **tools}, check=True)
    if not list((tree / "pywg" / "datapath").glob("compiled*.so")):
        raise SystemExit("the sanitized build did not come about")


def library_of_gcc(name: str) -> pathlib.Path:
    """One of its sanitizers' runtimes."""
    ask = ["gcc", f"-print-file-name={name}"]
    return pathlib.Path(subprocess.run(ask, check=True, capture_output=True, text=True).stdout.strip())


def build(tree: pathlib.Path) -> dict[str, str]:
    """Put a sanitized build beside copies of the package and the tests; returns the environment for it."""
    copy(tree)
    compiler, library = clang(), preloadable_fuzzer()
    if compiler is not None and library is not None:
        sanitize = "-fsanitize=address,undefined,fuzzer-no-link"
        # The runtime is preloaded; linking by clang with the flag would bring a second one.
        tools = {"CC": compiler, "LDSHARED": f"{compiler} -shared", "CFLAGS": f"{sanitize} {CHECKS}"}
    else:
        library = library_of_gcc("libasan.so")
        sanitize = "-fsanitize=address,undefined"
        tools = {"CFLAGS": f"{sanitize} {CHECKS}", "LDFLAGS": sanitize}
    compile_there(tree, tools)
    return dict(
        os.environ,
        LD_PRELOAD=str(library),
        ASAN_OPTIONS="detect_leaks=0:abort_on_error=0:exitcode=1",
        UBSAN_OPTIONS="print_stacktrace=1",
        PYTHONMALLOC="malloc",
        PYTHONPATH=str(tree),
    )


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="pywg-asan-") as folder:
        tree = pathlib.Path(folder)
        environment = build(tree)
        command = [sys.executable, str(tree / "tests" / "fuzz" / "fuzz_compiled.py"), *sys.argv[1:]]
        return subprocess.run(command, cwd=tree, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
