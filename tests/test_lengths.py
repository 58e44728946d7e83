"""The house stays readable: files and functions of a length that one look holds, or a written reason."""

import ast

import pytest

from tests.conftest import ROOT

MOST_LINES = 400
MOST_OF_A_FUNCTION = 60
REASONS = {
    ("interp/commands/training.py", "train"): "its signature is 25 options, each with its help",
}
"""Functions that may be longer."""

FILES = sorted((ROOT / "interp").rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_are_of_a_length_that_one_look_holds(path):
    text = path.read_text(encoding="utf-8")
    name = str(path.relative_to(ROOT))
    assert text.count("\n") <= MOST_LINES, name
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= MOST_OF_A_FUNCTION or (name, node.name) in REASONS, (name, node.name, lines)


def test_every_reason_is_still_needed():
    for (name, function), reason in REASONS.items():
        tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
        (node,) = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == function]
        assert (node.end_lineno or 0) - node.lineno + 1 > MOST_OF_A_FUNCTION, reason
