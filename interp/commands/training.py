"""From a model and a text to trained SAEs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from interp.commands.options import Device, Model, Option, Restart, Seed, Stored, Together, refuse_idle
from interp.commands.texts import Corpus
from interp.types import InterpError

if TYPE_CHECKING:
    from interp.activations import ActivationStore, Stream
    from interp.sae import SAE

K = 32
"""Active features a token where none are asked."""
STREAMED = 1_000_000
"""Tokens that are streamed where no number is asked."""
Setting = int | float | bool | str | Sequence[int] | None
"""Of a field of an architecture or of TrainConfig."""

Settings = Annotated[
    Mapping[str, Setting] | None,
    Option("Any other field of the architecture or of TrainConfig (docs/training.md), by its name."),
]
Source = Annotated[
    str,
    Option(
        "Folder or URL that `interp harvest` wrote, or a model whose activations of --corpus are streamed. Several folders of "
        "the same text are joined by +; their hook points are then called 1:…, 2:…."
    ),
]
Architecture = Annotated[
    str,
    Option("Kind of SAE: standard, gated, topk, batchtopk, jumprelu, matryoshka, transcoder or crosscoder."),
]
K_ = Annotated[int | None, Option("How many features are active on a token, for topk kinds. Without: 32.", low=1)]
L1 = Annotated[float | None, Option("Weight of the sparsity penalty, for standard and gated.")]
Form = Annotated[str | None, Option("Form of jumprelu's penalty: quadratic, step or tanh.")]
Epochs = Annotated[float, Option("How many times to go through the activations.", low=0.01)]
Batch = Annotated[int, Option("How many tokens a training step takes.", low=1)]
Rate = Annotated[float | None, Option("Largest learning rate. Without: one that fits the number of features.")]
Buffer = Annotated[
    int | None,
    Option(
        "Tokens that are shuffled together. Without: a million of a harvest (in shards of 65,536), 262,144 of a stream.",
        low=1,
    ),
]
Pairs = Annotated[
    str | None,
    Option(
        "Train on pairs of rows of one document, for temporal contrast: neighbours (what it takes unless told) or document, "
        "any two."
    ),
]
StreamedCorpus = Annotated[
    str, Option("Text whose activations are streamed from the model, so that none are written to disk.")
]
StreamedTokens = Annotated[int | None, Option("How many tokens to stream. Without: a million.", low=1)]
ModelType = Annotated[
    str | None,
    Option(
        "Number type of the model: float32 or bfloat16. Without: bfloat16 where the processor multiplies it, else float32."
    ),
]
TrainingDevice = Annotated[str, Option("Where the SAE is trained, and a streamed model runs: auto, cpu, cuda or mps.")]
HeldOut = Annotated[
    str | None,
    Option(
        "Harvest (a folder or URL) on which the SAE is measured and its threshold set. Without: the last blocks of the text."
    ),
]


@dataclass(frozen=True)
class Harvested:
    """A store of activations."""

    into: str
    """A folder or URL."""
    positions: int


@dataclass(frozen=True)
class Trained:
    """A checkpoint that was trained."""

    into: Path
    about: str
    """The SAE in a line."""


def harvest(
    model: Model,
    corpus: Corpus,
    hook: Annotated[Sequence[str], Option("Hook points to read, one or more; `interp hooks MODEL` lists them.")],
    *,
    tokens: Annotated[int, Option("How many tokens to read.", low=1)] = 1_000_000,
    into: Annotated[
        str,
        Option(
            "Folder to write the activations into, or a URL to send them to (s3://, gs://, file://), shard by shard."
        ),
    ] = "activations",
    split: Annotated[
        str | None,
        Option(
            "Read only this split of the text: train, heldout, labels or final. Without: all of it (of packaged texts, but final)."
        ),
    ] = None,
    dtype: ModelType = None,
    stored: Stored = "",
    device: Device = "auto",
    together: Together = False,
    restart: Restart = False,
) -> Harvested:
    """Write a model's activations to disk; run again after a stop, it goes on.

    Begun by torchrun, or with --together, its processes write the one store together (docs/scale.md).

    Raises InterpError when the model, the text or a hook point does not exist, when the disk has no room, and when a URL cannot
    be reached.
    """
    from interp.activations import harvest as write_store
    from interp.corpus import open_corpus
    from interp.models import open_model
    from interp.training.one_folder import see_the_same

    text, together = open_corpus(corpus), see_the_same(into) or together
    opened = open_model(model, dtype=dtype, device=device)
    store = write_store(
        opened, text, hook, tokens, into, split=split, restart=restart, together=together, stored=stored
    )
    return Harvested(into, store.positions)


def train(
    source: Source,
    hook: Annotated[
        Sequence[str], Option("Hook point to read (`interp hooks MODEL` lists them); for a crosscoder, several.")
    ],
    into: Annotated[Path, Option("Folder to write the trained SAE into.")],
    *,
    architecture: Architecture = "batchtopk",
    d_sae: Annotated[int, Option("How many features the SAE has.", low=1)] = 4608,
    k: K_ = None,
    l0: Annotated[float | None, Option("How many active features a token jumprelu aims at.")] = None,
    l1: L1 = None,
    form: Form = None,
    hook_out: Annotated[str, Option("Hook point whose activations a transcoder predicts.")] = "",
    skip: Annotated[bool, Option("Give a transcoder a linear map beside its features.")] = False,
    epochs: Epochs = 1.0,
    batch: Batch = 4096,
    lr: Rate = None,
    resample: Annotated[
        bool, Option("Begin features that died anew, for kinds that have no loss of their own for dead features.")
    ] = False,
    seed: Seed = 0,
    settings: Settings = None,
    buffer: Buffer = None,
    pairs: Pairs = None,
    corpus: StreamedCorpus = "",
    tokens: StreamedTokens = None,
    device: TrainingDevice = "auto",
    held_out: HeldOut = None,
    tensorboard: Annotated[Path | None, Option("Folder to write TensorBoard's files into.")] = None,
    restart: Restart = False,
) -> Trained:
    """Train an SAE on activations, harvested or streamed; run again after a stop, it goes on bit for bit.

    Begun by torchrun, its processes train the one SAE together (docs/scale.md).

    `settings` are further fields of the architecture or of TrainConfig by name (docs/training.md). Raises InterpError
    when they do not fit together, and when the folder holds another SAE.
    """
    # Longer than others are: 25 of its lines are the options.
    from interp import places
    from interp.activations import open_stores
    from interp.recipe import train_checkpoint
    from interp.training import TrainConfig, parallel
    from interp.training import tensorboard as board

    of_architecture, of_training = _part(settings or {})
    options = _given(d_sae=d_sae, k=k, l0=l0, l1=l1, form=form, skip=skip or None) | of_architecture
    if takes_k([architecture]):
        options.setdefault("k", K)
    if tensorboard:
        places.check_writable(tensorboard)
    with parallel.joined():
        sae = train_checkpoint(
            open_activations(source, [*hook, *([hook_out] if hook_out else [])], corpus, tokens, device),
            hook,
            into,
            architecture,
            writes=hook_out,
            epochs=epochs,
            batch=batch,
            buffer=buffer,
            pairs=pairs,
            config=TrainConfig(**{"lr": lr, "seed": seed, "resample": resample, "device": device, **of_training}),
            held_out=open_stores(held_out) if held_out else None,
            listeners=[board(tensorboard)] if tensorboard else [],
            restart=restart,
            **options,
        )
        return Trained(Path(into), _about(sae, of_training.get("feature_ranks", 1)))


def _about(sae: "SAE", feature_ranks: int) -> str:
    """The SAE in a line; of several ranks that share the features, `sae` has one's."""
    if feature_ranks == 1:
        return str(sae)
    return f"SAE({sae.name!r}, d_in={sae.d_in}, d_sae={sae.d_sae * feature_ranks}, rule={sae.rule})"


def sweep(
    source: Annotated[
        str, Option("Folder or URL that `interp harvest` wrote, or a model whose activations of --corpus are streamed.")
    ],
    into: Annotated[Path, Option("Folder to write the SAEs into, each in a folder of its own.")],
    *,
    hook: Annotated[Sequence[str], Option("Hook point to train on; repeatable.")],
    architecture: Annotated[Sequence[str], Option("Kinds of SAE.")] = ("batchtopk",),
    d_sae: Annotated[Sequence[int], Option("How many features an SAE has.")] = (4608,),
    k: Annotated[Sequence[int], Option("How many features are active on a token, for topk kinds. Without: 32.")] = (),
    l0: Annotated[Sequence[float], Option("How many active features a token jumprelu aims at.")] = (),
    l1: Annotated[Sequence[float], Option("Weights of the sparsity penalty, for standard and gated.")] = (),
    seed: Annotated[Sequence[int], Option("Seeds.")] = (0,),
    lr: Annotated[
        Sequence[float], Option("Largest learning rates. Without: one that fits the number of features.")
    ] = (),
    epochs: Epochs = 1.0,
    batch: Batch = 4096,
    settings: Settings = None,
    buffer: Buffer = None,
    pairs: Pairs = None,
    corpus: StreamedCorpus = "",
    tokens: StreamedTokens = None,
    device: TrainingDevice = "auto",
    held_out: HeldOut = None,
    restart: Restart = False,
) -> list[dict[str, Any]]:
    """Train every combination from one pass over the activations; what exists is skipped.

    A row an SAE comes back. Raises InterpError as `train` does, before anything is trained.
    """
    from interp.activations import open_stores
    from interp.recipe import train_sweep as train_all
    from interp.training import TrainConfig

    of_architecture, of_training = _part(settings or {})
    grid: dict[str, list[Any]] = {
        "architecture": list(architecture),
        "d_sae": list(d_sae),
        "k": list(k) or ([K] if takes_k(architecture) else []),
        "l0": list(l0),
        "l1": list(l1),
        "seed": list(seed),
        "lr": list(lr),
        **{name: [value] for name, value in of_architecture.items()},
    }
    return train_all(
        open_activations(source, hook, corpus, tokens, device),
        hook,
        into,
        {key: values for key, values in grid.items() if values},
        epochs=epochs,
        batch=batch,
        buffer=buffer,
        pairs=pairs,
        config=TrainConfig(**{"device": device, **of_training}),
        held_out=open_stores(held_out) if held_out else None,
        restart=restart,
    )


def selftest(
    *,
    architecture: Annotated[str, Option("Kind of SAE to try.")] = "batchtopk",
    d_in: Annotated[int, Option("Width of the synthetic activations.", low=2)] = 64,
    features: Annotated[int, Option("How many features to plant.", low=1)] = 128,
    active: Annotated[int, Option("How many planted features each row has.", low=1)] = 4,
    d_sae: Annotated[
        int | None, Option("How many features the SAE has. Without: twice the planted ones.", low=1)
    ] = None,
    k: Annotated[
        int | None, Option("How many features are active in a row, for topk kinds. Without: as many as planted.", low=1)
    ] = None,
    l0: Annotated[
        float | None, Option("How many active features a row jumprelu aims at. Without: as many as planted.")
    ] = None,
    l1: L1 = None,
    form: Form = None,
    rows: Annotated[int, Option("How many rows to train on.", low=10_000)] = 500_000,
    batch: Batch = 1024,
    lr: Rate = None,
    seed: Seed = 0,
    settings: Settings = None,
    circuits: Annotated[
        bool, Option("Plant circuits instead: does an attribution graph show them? Of the others only --seed counts.")
    ] = False,
) -> dict[str, Any]:
    """Plant known features in synthetic activations, train with this recipe, and say how many came back.

    With `circuits`, two small decoders whose circuits are known are built, and their attribution graphs compared with these.

    Raises InterpError when the architecture does not exist or does not take what is given.
    """
    from interp.recipe import selftest as recover
    from interp.training import TrainConfig

    if circuits:
        from interp.recipe.planted_circuits import selftest_circuits

        return {"seed": seed, "circuits": selftest_circuits(seed)}
    of_architecture, of_training = _part(settings or {})
    planted: dict[str, float] = {"k": active} if takes_k([architecture]) else {}
    if architecture == "jumprelu" and form in (None, "quadratic"):
        planted = {"l0": float(active)}
    options = planted | _given(d_sae=d_sae, k=k, l0=l0, l1=l1, form=form) | of_architecture
    return recover(
        architecture,
        d_in=d_in,
        features=features,
        active=active,
        rows=rows,
        batch=batch,
        config=TrainConfig(**{"tokens": rows, "lr": lr, "seed": seed, **of_training}),
        seed=seed,
        **options,
    )


def setting_types(architectures: Sequence[str]) -> dict[str, Any]:
    """The fields that `settings` may name, with their types: of TrainConfig, and of these architectures."""
    from typing import get_type_hints

    from interp.sae import ARCHITECTURES
    from interp.training import TrainConfig

    known = get_type_hints(TrainConfig)
    for name in architectures:
        known |= get_type_hints(ARCHITECTURES[name]) if name in ARCHITECTURES else {}
    return known


def takes_k(architectures: Sequence[str]) -> bool:
    """Whether one of them has a k."""
    from dataclasses import fields

    from interp.sae import ARCHITECTURES

    return any(f.name == "k" for name in architectures if name in ARCHITECTURES for f in fields(ARCHITECTURES[name]))


def _part(settings: Mapping[str, Setting]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(options of the architecture, fields of TrainConfig)."""
    from dataclasses import fields

    from interp.training import TrainConfig

    training = {field.name for field in fields(TrainConfig)}
    whole = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
    return (
        {name: value for name, value in whole.items() if name not in training},
        {name: value for name, value in whole.items() if name in training},
    )


def _given(**options: Setting) -> dict[str, Any]:
    """The options that were given."""
    return {key: value for key, value in options.items() if value is not None}


def open_activations(
    source: str, hooks: Sequence[str], corpus: str, tokens: int | None, device: str
) -> "ActivationStore | Stream":
    """The store in a folder or at a URL, or a model's activations as they are made.

    Raises InterpError when `source` is neither, and when a harvest is given with a text.
    """
    from interp.activations import open_stores, stream
    from interp.corpus import open_corpus
    from interp.models import open_model
    from interp.objects import is_url

    if is_url(source) or any((Path(name.strip()) / "manifest.json").exists() for name in (source, *source.split("+"))):
        given = {"corpus": corpus, "tokens": tokens}
        refuse_idle(given, f"with {source}, which holds harvested activations; leave it out")
        return open_stores(source)
    if not corpus:
        raise InterpError(
            f"{source} is no folder that `interp harvest` wrote; harvest into it first, or give a model and --corpus to "
            "stream its activations."
        )
    return stream(
        open_model(source, device=device), open_corpus(corpus), [hook.strip() for hook in hooks], tokens or STREAMED
    )
