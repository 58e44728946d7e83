"""card.json: where an SAE comes from, how it was made, and what was measured, so that a claim can be traced."""

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp import places
from interp.types import Hook, InterpError, parse_hooks

if TYPE_CHECKING:
    from interp.mask import Mask

FORMAT = 1
WEIGHTS = "sae_weights.safetensors"
TRAINED = "trained.parquet"
"""Which documents it was trained on (see `checkpoint.trained`)."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """Everything but the weights."""

    name: str
    model: str
    """What `open_model` takes."""
    model_sha256: str
    hook_name: str
    """Of a crosscoder: all that it reads, joined by +. `reads` has them apart."""
    dtype: str
    """Of the model when its activations were harvested."""
    attention: str
    architecture: str
    """As trained; the folder's cfg.json says as saved."""
    norm_cutoff: float
    """Positions with a larger norm at the first hook point that is read are sinks: not trained on, left alone by edits."""
    separator: int
    context: int
    """Positions in a block of training text."""
    hook_name_out: str = ""
    """Of a transcoder: the hook point it writes."""
    norm_cutoffs: dict[str, float] = field(default_factory=dict)
    """Of a crosscoder: the norm beyond which a position is a sink, by each hook point that it reads."""
    sae_sha256: str = ""
    corpus: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    licences: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 of the folder's files by name; cards written before there was this field have none."""
    card_sha256: str = ""
    """Of the card itself (see `card_sha256`); written by `write`, and empty in cards from before there was this field."""
    format: int = FORMAT

    @property
    def reads(self) -> tuple[Hook, ...]:
        """The hook points that it reads; their widths are in the weights."""
        return parse_hooks(self.hook_name)

    @property
    def writes(self) -> tuple[Hook, ...]:
        """The hook points that it writes."""
        return parse_hooks(self.hook_name_out) or self.reads

    @property
    def mask(self) -> "Mask":
        """Which positions its SAE counts: by the norm at every hook point that it reads.

        Cards of crosscoders from before there was `norm_cutoffs` tell of the first one only.
        """
        from interp.mask import Mask  # here, for it brings PyTorch, without which a card can be read

        return Mask({str(hook): self.norm_cutoff for hook in self.reads[:1]} | self.norm_cutoffs)

    def write(self, folder: Path) -> "Card":
        """Write card.json with its own hash; the card as written comes back."""
        written = replace(self, card_sha256=card_sha256(asdict(self)))
        places.write_json(folder / "card.json", asdict(written))
        return written

    @staticmethod
    def read(folder: Path) -> "Card":
        """The folder's card; InterpError when it is missing, broken, or of a later format."""
        raw = places.read_json(folder / "card.json")
        version = raw.get("format", 0) if isinstance(raw, dict) else None
        if not isinstance(version, int) or version > FORMAT:
            raise InterpError(f"{folder}/card.json is of a later format than this version reads; update interp.")
        known = Card.__dataclass_fields__
        missing = [k for k, f in known.items() if k not in raw and k in _REQUIRED]
        if missing:
            raise InterpError(f"{folder}/card.json has no {', '.join(missing)}; it was not written whole.")
        kept = {key: value for key, value in raw.items() if key in known}
        for key, value in kept.items():
            _check_kind(folder, key, value, known[key].type)
        return Card(**kept)


def card_sha256(raw: dict[str, Any]) -> str:
    """The SHA-256 of all that a card.json says, but this hash itself: sorted keys, no spaces, ASCII.

    Whoever rewrites a card can hash it again, so it shows edits made by hand, not those of a forger: for these there is
    the pin (`checkpoint.files.pin`), which has to come from elsewhere.
    """
    said = {key: value for key, value in raw.items() if key != "card_sha256"}
    text = json.dumps(said, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _check_kind(folder: Path, key: str, value: Any, kind: Any) -> None:
    """Raises InterpError when a field is of another kind than the class says."""
    wanted = _KINDS[getattr(kind, "__name__", str(kind)).partition("[")[0]]
    fits = isinstance(value, wanted) and not isinstance(value, bool)
    if fits and key in _RANGES:
        low, high = _RANGES[key]
        fits = low <= value <= high
    if fits and key == "norm_cutoffs":
        fits = all(isinstance(norm, int | float) and 0 <= norm <= 1e30 for norm in value.values())
    if fits and key in ("files", "versions", "licences"):
        fits = all(isinstance(text, str) for text in value.values())
    if fits and key in ("sae_sha256", "model_sha256"):  # which name folders of labels, presets and indexes
        fits = re.fullmatch(r"[\w:]*( \+ [\w:]+)*", value) is not None
    if not fits:
        raise InterpError(f"{folder}/card.json gives {key} the value {str(value)[:60]!r}, which is none of its kind.")


def verify_files(folder: str | Path) -> None:
    """Raises InterpError when weights or cfg.json are not those the card names (the cheap part of verifying)."""
    path = Path(folder)
    card = Card.read(path)
    wanted = {WEIGHTS: card.sae_sha256 or card.files.get(WEIGHTS, ""), "cfg.json": card.files.get("cfg.json", "")}
    for name, digest in wanted.items():
        if digest and places.sha256_file(path / name) != digest:
            raise InterpError(
                f"{path / name} is not the file that card.json names (SHA-256 differs): it was changed or cut short."
            )


_RANGES = {"norm_cutoff": (0, 1e30), "separator": (0, 2**31), "context": (2, 2**24)}
_KINDS: dict[str, Any] = {"str": str, "int": int, "float": (int, float), "dict": dict}
_REQUIRED = (
    "name",
    "model",
    "model_sha256",
    "hook_name",
    "dtype",
    "attention",
    "architecture",
    "norm_cutoff",
    "separator",
    "context",
)


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    return dict(_installed())


@cache
def _installed() -> dict[str, str]:
    """Read once a process, for a package's metadata takes tens of milliseconds."""
    import importlib.metadata
    import platform

    installed = {"python": platform.python_version()}
    for name in ("interp", "torch", "transformers", "transformer-lens", "sae-lens", "tokenizers"):
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed
