"""What a public function raises for a user's mistake is said where it is described."""

import ast
from collections.abc import Iterator

import pytest

from tests.conftest import ROOT

FILES = sorted((ROOT / "interp").rglob("*.py"))


def public_functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Functions and methods that others may call: none inside of functions, and none with an underscore before it."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if not node.name.startswith("_"):
                yield node
        elif isinstance(node, ast.ClassDef):
            if not node.name.startswith("_"):
                yield from public_functions(node)
        elif isinstance(node, ast.If | ast.With | ast.Try):
            yield from public_functions(node)


def raised_by(function: ast.AST) -> set[str]:
    """Names of what the function's own statements raise, without those of functions inside it."""
    names: set[str] = set()
    for node in ast.iter_child_nodes(function):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name):
            names.add(node.exc.func.id)
        names |= raised_by(node)
    return names


def test_raises_are_found_in_a_functions_own_statements():
    tree = ast.parse("def f():\n    if 1:\n        raise InterpError('x')\n    def g():\n        raise unknown('y')\n")
    (function,) = public_functions(tree)
    assert raised_by(function) == {"InterpError"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_users_mistake_is_named_in_the_docstring(path):
    for function in public_functions(ast.parse(path.read_text(encoding="utf-8"))):
        if raised_by(function) & {"InterpError", "unknown"}:
            assert "InterpError" in (ast.get_docstring(function) or ""), (function.name, function.lineno)
