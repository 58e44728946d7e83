"""A home of a test's own, in which the converted models are those of all tests: turning one into a folder takes half a minute."""

from pathlib import Path

from interp import places

MODELS = places.cache() / "models"


def own_home(monkeypatch, folder: Path) -> Path:
    """Labels and caches lie in the folder, until the test is over."""
    MODELS.mkdir(parents=True, exist_ok=True)  # where this test runs first
    (folder / "cache").mkdir(parents=True, exist_ok=True)
    (folder / "cache" / "models").symlink_to(MODELS)
    monkeypatch.setenv("INTERP_HOME", str(folder))
    return folder
