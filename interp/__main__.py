"""`python -m interp`: the command line, as torchrun begins it on every rank; only the first one prints."""

import os
import sys

from interp import progress
from interp.cli import main

if __name__ == "__main__":
    if int(os.environ.get("RANK", "0")):
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # until the process ends
        progress.show(False)
    main()
