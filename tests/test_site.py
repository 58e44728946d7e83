"""The documentation: the site builds, no link leads nowhere, the page of commands is the command line's, notebooks run."""

import os
import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "recipes"))
import commands_page
import notebooks


def test_the_page_of_commands_is_what_the_command_line_takes():
    made = commands_page.page()
    assert commands_page.PAGE.read_text(encoding="utf-8") == made, "python recipes/commands_page.py writes it anew"
    assert made.count("\n## interp ") > 40
    assert "## interp labels merge" in made


def test_the_site_builds_and_every_link_in_it_leads_somewhere(tmp_path):
    call = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(
        call, cwd=ROOT, capture_output=True, text=True, timeout=300, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site" / "python.html").read_text(encoding="utf-8")
    assert "Find features by" in page or "interp.workbench.finding.search" in page
    assert "https://fonts" not in page  # no page asks another host for anything


def test_the_readme_is_one_page_and_its_links_lead_somewhere():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) < 150
    for link in re.findall(r"\]\(([^)#]+)", readme):
        assert (ROOT / link).exists(), link


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(notebooks.FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_every_cell_of_a_notebook_runs_and_those_that_are_committed_have_been_run(path, tmp_path, monkeypatch):
    kept = notebooks.nbformat.read(path, as_version=4)
    assert any("text/html" in out.get("data", {}) for cell in kept.cells for out in cell.get("outputs", []))
    assert "/tmp" not in path.read_text(encoding="utf-8").replace("mkdtemp", "")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    book = notebooks.run(path)  # raises where a cell does
    assert [cell.source for cell in book.cells] == [cell.source for cell in kept.cells]
