"""`pywg up` and `pywg down` as on macOS: `darwin_up.py up|down FILE`, with that system's commands on PATH."""

import functools
import sys

from pywg.errors import PywgError
from pywg.host import darwin_tunnel

say = functools.partial(print, file=sys.stderr, flush=True)
try:
    {"up": darwin_tunnel.bring_up, "down": darwin_tunnel.take_down}[sys.argv[1]](sys.argv[2], say)
except PywgError as error:
    sys.exit(f"pywg: {error}")
