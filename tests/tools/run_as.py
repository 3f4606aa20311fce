"""Runs a program as if on another system: `run_as.py PLATFORM pywg|pywgd ARGUMENT...`; see `import_as.py`."""

import importlib
import sys

from import_as import become

platform, program, *arguments = sys.argv[1:]
become(platform)
sys.argv = [program, *arguments]
importlib.import_module(f"pywg.cli.{program}").main()
