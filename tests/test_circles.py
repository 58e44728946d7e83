"""No module imports itself round about: every import counts, also one inside a function or for types only."""

import ast
from pathlib import Path

import interp

ROOT = Path(interp.__file__).parent


def module_of(path: Path) -> str:
    parts = ("interp", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path, modules: set[str]) -> set[str]:
    """The modules of the project that a file names in its imports: `from package import module` names the module, and
    the package too only where it takes something else from it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inside & modules) | ({str(node.module)} if inside - modules else set())
    return found & modules


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """The groups of modules of which each reaches each (Tarjan 1972), and modules that import themselves."""
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    path: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        number[module] = low[module] = len(number)
        path.append(module)
        for other in sorted(edges[module]):
            if other not in number:
                visit(other)
            if other in path:
                low[module] = min(low[module], low[other])
        if low[module] == number[module]:
            group = path[path.index(module) :]
            del path[path.index(module) :]
            if len(group) > 1 or module in edges[module]:
                found.append(sorted(group))

    for module in sorted(edges):
        if module not in number:
            visit(module)
    return found


def test_a_circle_is_found_however_long_it_is():
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert circles({"a": {"a"}, "b": {"c"}, "c": {"b"}}) == [["a"], ["b", "c"]]


def test_no_module_imports_itself_round_about():
    files = {module_of(path): path for path in ROOT.rglob("*.py")}
    edges = {module: imported(path, set(files)) for module, path in files.items()}
    assert circles(edges) == []
