"""The notebooks of docs/notebooks, run from the first cell to the last, with what they show kept in them.

python recipes/notebooks.py           # runs them and writes their outputs
python recipes/notebooks.py --check   # runs them and writes nothing; fails where a cell does
"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from interp import places
from interp.render.terminal import say

FOLDER = Path(__file__).parent.parent / "docs" / "notebooks"
SECONDS = 900
"""A cell may take, at most."""


def run(path: Path) -> nbformat.NotebookNode:
    """The notebook as it comes out; nbclient's CellExecutionError where a cell fails."""
    book = nbformat.read(path, as_version=4)
    NotebookClient(book, timeout=SECONDS, record_timing=False, resources={"metadata": {"path": str(FOLDER)}}).execute()
    for cell in book.cells:
        # What is told of progress has this machine's paths and times in it.
        cell["outputs"] = [each for each in cell.get("outputs", []) if each.get("name") != "stderr"]
        if cell.cell_type != "code":
            del cell["outputs"]
            continue
        for each in cell["outputs"]:
            if "text/html" in each.get("data", {}):
                each["data"].pop("text/plain", None)  # the same once more, for no notebook
    book.metadata["language_info"] = {"name": "python"}
    return book


if __name__ == "__main__":
    for path in sorted(FOLDER.glob("*.ipynb")):
        book = run(path)
        if "--check" not in sys.argv[1:]:
            with places.whole_file(path) as partial:
                nbformat.write(book, partial)
        say(f"{path.name}: {sum(cell.cell_type == 'code' for cell in book.cells)} cells ran.")
