"""`python -m interp.ui FOLDER PORT HOST` serves the pages of a checkpoint until it is stopped."""

import os
import sys
from pathlib import Path

from streamlit.web.cli import main as streamlit

from interp.commands.sharing import LARGEST_UPLOAD
from interp.ui.warming import warm


def main(folder: str, port: str, host: str) -> None:
    """Serve the dashboard; it comes back when the server ends."""
    options = {
        "server.port": port,
        "server.address": host,
        "server.headless": "true",
        "browser.gatherUsageStats": "false",
        "server.fileWatcherType": "none",
        "runner.magicEnabled": "false",  # what stands in a page's file by itself is not shown
        "server.maxUploadSize": str(LARGEST_UPLOAD // 2**20),
        "client.toolbarMode": "minimal",  # without Deploy; .streamlit/config.toml is read in a clone only
        "client.showErrorDetails": "none",
        "theme.base": str(Path(__file__).parent / "theme.toml"),
    }
    os.environ["STREAMLIT_BROWSER_GATHER_USAGE_STATS"] = "false"
    script = Path(__file__).parent / "entry" / "app.py"
    flags = [f"--{name}={value}" for name, value in options.items()]
    warm(folder)
    try:
        streamlit(["run", str(script), *flags, "--", folder], prog_name="streamlit")
    except KeyboardInterrupt:
        sys.exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
