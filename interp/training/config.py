"""How to train, checked; what to train is the architecture's."""

from dataclasses import dataclass, replace

from interp.device import native_bfloat16, resolve_device
from interp.sae.architecture import Architecture
from interp.types import InterpError, unknown

THRESHOLDS = ("one", "feature")
MATRICES = ("W_enc", "W_dec")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How to train; what to train is the architecture's."""

    tokens: int | None = None
    """Rows to train on; None: all that the batches hold, less those kept back where nothing is held out."""
    lr: float | None = None
    """Peak learning rate; None: see `default_lr`."""
    warmup: float = 0.1
    """Share of the run over which the rate rises from 0."""
    decay: float = 0.2
    """Share of the run, at its end, over which it falls linearly to 0."""
    aux_alpha: float = 1 / 32
    """Weight of AuxK, for architectures that have it; 0 leaves it out."""
    aux_k: int | None = None
    """Dead features that AuxK lets explain the residual; None: d_in / 2."""
    dead_after: int | None = None
    """Tokens without firing after which a feature counts as dead; None: a twentieth of the run, at most 500,000."""
    orthogonal: float = 0.0
    """Weight of the penalty on each decoder row's largest squared cosine with another's, which keeps apart features that
    share a part, such as siblings that each hold their parent (docs/training.md); 0 leaves it out."""
    thresholds: str = "one"
    """Where thresholds are measured after training: `one` level for all features, or one for each `feature` at the same L0
    (sae/thresholds.py)."""
    resample: bool = False
    """Where there is no AuxK, or none is wanted: begin dead features anew, on rows that are explained worst, every `dead_after` tokens."""
    frozen: tuple[str, ...] = ()
    """Matrices that stay as they begin, `W_enc` or `W_dec`: an SAE whose decoder is random rows and whose encoder is trained
    is a null, of which every other figure can be asked what it is worth (evals/nulls.py)."""
    save_every: int = 1_000_000
    """Tokens between saved states."""
    seed: int = 0
    bfloat16: bool | None = None
    """The encoder's product in bfloat16; None: where the device has it natively."""
    device: str = "auto"
    """Where the parameters are and batches are moved to; `auto` takes CUDA, then MPS, then the CPU."""
    feature_ranks: int = 1
    """Under torchrun, how many ranks share the features; groups of so many ranks share each batch's rows (docs/scale.md)."""

    def __post_init__(self) -> None:
        if self.tokens is not None and self.tokens < 1:
            raise InterpError(f"tokens is {self.tokens}; it must be at least 1.")
        if self.lr is not None and not 0 < self.lr < 1:
            raise InterpError(f"lr is {self.lr}; it must lie between 0 and 1.")
        for name in ("warmup", "decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise InterpError(f"{name} is {getattr(self, name)}; it is a share of the run, 0 to 1.")
        for name, what in (
            ("dead_after", "tokens"),
            ("save_every", "tokens"),
            ("aux_k", "features"),
            ("feature_ranks", "ranks"),
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InterpError(f"{name} is {value}; it is a number of {what}, at least 1.")
        object.__setattr__(self, "frozen", tuple(sorted(set(self.frozen))))  # as lists of JSON give it back, too
        for name in self.frozen:
            if name not in MATRICES:
                raise unknown("matrix to freeze", name, MATRICES)
        for name in ("resample", "orthogonal"):
            if getattr(self, name) and "W_dec" in self.frozen:
                raise InterpError(f"{name} moves decoder rows, and W_dec is frozen; leave one of the two out.")
        if self.resample and self.frozen:
            raise InterpError("resample begins encoder rows anew, and W_enc is frozen; leave one of the two out.")
        if self.thresholds not in THRESHOLDS:
            raise unknown("way to set thresholds", self.thresholds, THRESHOLDS)
        for name in ("aux_alpha", "orthogonal"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InterpError(f"{name} is {getattr(self, name)}; it is a weight, 0 or more.")

    def resolved(self, architecture: Architecture, tokens: int) -> "TrainConfig":
        """The same for a run of that many tokens, with every default that depends on sizes or on the machine filled in.

        Raises InterpError when thresholds are to be set for an architecture that has none to set.
        """
        if self.thresholds != "one" and not architecture.traits.measured:
            raise InterpError(
                f"thresholds={self.thresholds!r} would do nothing for {type(architecture).__name__}, which has its own or none; "
                "it is for architectures whose threshold is measured after training, such as batchtopk."
            )
        device = resolve_device(self.device)
        return replace(
            self,
            tokens=tokens,
            lr=self.lr or architecture.traits.rate * default_lr(architecture.d_sae, tokens),
            dead_after=self.dead_after or max(min(tokens // 20, 500_000), 1),
            aux_k=self.aux_k or max(architecture.d_in // 2, 1),
            bfloat16=native_bfloat16(device) if self.bfloat16 is None else self.bfloat16,
            device=str(device),
        )

    def rate(self, done: float) -> float:
        """The learning rate's share of its peak when `done` of the run is over."""
        up = done / self.warmup if self.warmup > 0 else 1.0
        down = (1.0 - done) / self.decay if self.decay > 0 else 1.0
        return max(min(1.0, up, down), 1e-3)


def default_lr(d_sae: int, tokens: int) -> float:
    """2e-3 / sqrt(d_sae / 9216) but at most 4e-3, and up to twice that for runs shorter than 8 million tokens.

    Measured on SmolLM2's layer 15 at a million tokens or less, and on synthetic worlds, where dictionaries of 128 learn
    no better from more (docs/training.md); the rise for short runs is the cube root of 8 million over tokens.
    """
    short = min(max((8e6 / max(tokens, 1)) ** (1 / 3), 1.0), 2.0)
    return short * 2e-3 / max(d_sae / 9216, 0.25) ** 0.5
