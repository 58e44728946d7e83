"""`python -m interp.mcp JSON` serves what the JSON says, as `interp mcp` writes it."""

import json
import sys
from contextlib import suppress

from interp.commands.machine import Served
from interp.mcp.server import serve

if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        serve(Served.read(json.loads(sys.argv[1])))
