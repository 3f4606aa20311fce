"""One target under atheris: `fuzz.py TARGET [libFuzzer's arguments]`.

Coverage is that of pywg's Python; where libFuzzer was preloaded with a sanitized build, that of its C.
`run.py` starts it for every target; by hand it plays one input again: `fuzz.py burst FILE`.
"""

from __future__ import annotations

import os
import pathlib
import sys

import atheris

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))


def main() -> None:
    name, *arguments = sys.argv[1:]
    if "LD_PRELOAD" in os.environ:
        from tests.fuzz.targets import TARGETS
    else:
        with atheris.instrument_imports(include=["pywg"]):
            from tests.fuzz.targets import TARGETS
    target = TARGETS[name]
    again = os.environ.get("FUZZ_AGAIN", sys.argv[0])  # libFuzzer starts itself anew to merge corpora
    atheris.Setup([again, f"-max_len={target.longest}", *arguments], target.run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
