"""Plain stand-ins for small packages that a machine may lack, so that the training room runs there too.

A machine with a GPU often has PyTorch and no more, and nothing can be installed on it. What these packages are there for
(checking shapes in tests, drawing tables, finding folders, counting the process's memory) no measurement needs. To import
this module puts them in place, and the repository's root on the path, so it comes before anything of interp.
"""

import importlib.util
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any


class _Shape:
    """`Float[Tensor, "B D"]` and its like: the tensor's own type, unchecked."""

    def __class_getitem__(cls, item: Any) -> Any:
        return item[0]


def _jaxtyping() -> ModuleType:
    made = ModuleType("jaxtyping")
    for name in ("Bool", "Float", "Int", "Int32", "Int64", "Shaped", "UInt8"):
        setattr(made, name, _Shape)
    return made


def _psutil() -> ModuleType:
    made, free = ModuleType("psutil"), {}
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, value = line.split(":")
        free[name] = 1024 * int(value.split()[0])
    made.virtual_memory = lambda: SimpleNamespace(available=free["MemAvailable"])  # type: ignore[attr-defined]
    own = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    made.Process = lambda: SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=own, shared=0))  # type: ignore[attr-defined]
    return made


def _platformdirs() -> ModuleType:
    made = ModuleType("platformdirs")
    for kind in ("cache", "data"):
        setattr(made, f"user_{kind}_path", lambda name, kind=kind: Path.home() / f".{kind}" / name)
    return made


def _rich() -> ModuleType:
    made, cells = ModuleType("rich"), ModuleType("rich.cells")
    made.__path__ = []
    cells.cell_len = len  # type: ignore[attr-defined]
    cells.set_cell_size = lambda text, size: text[:size].ljust(size)  # type: ignore[attr-defined]
    sys.modules["rich.cells"] = made.cells = cells  # type: ignore[attr-defined]
    return made


STAND_INS: dict[str, Callable[[], ModuleType]] = {
    "jaxtyping": _jaxtyping,
    "platformdirs": _platformdirs,
    "psutil": _psutil,
    "rich": _rich,
}


def _there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def stand_in() -> list[str]:
    """Put a stand-in in the place of each package that is missing; their names."""
    missing = [name for name in STAND_INS if not _there(name)]
    for name in missing:
        sys.modules[name] = STAND_INS[name]()
    return missing


sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
MISSING = stand_in()
