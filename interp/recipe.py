"""From activations to checkpoints with their cards: one SAE, or a sweep of many from one pass."""

import itertools
import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from interp import places
from interp.activations import ActivationSource, ActivationStore, Batches, StoresTogether, Stream, Together
from interp.checkpoint import Card, load, save
from interp.checkpoint.card import versions
from interp.checkpoint.files import WEIGHTS
from interp.device import check_memory, resolve_device
from interp.render.terminal import say
from interp.render.words import counted
from interp.sae import ARCHITECTURES, SAE, Architecture, make_architecture
from interp.sae.metrics import reconstruction
from interp.training import TrainConfig, train, train_many
from interp.training.plan import Plan
from interp.types import InterpError, unknown

HELD_OUT_ROWS = 65_536
SEEDS = 2**32
PAIRED = ("transcoder", "crosscoder")
"""They read several hook points."""


def train_checkpoint(
    source: ActivationSource,
    hook_name: str,
    into: str | Path,
    architecture: str = "batchtopk",
    *,
    hook_name_out: str = "",
    epochs: float = 1.0,
    batch: int = 4096,
    buffer: int | None = None,
    config: TrainConfig | None = None,
    held_out: ActivationStore | None = None,
    name: str | None = None,
    licences: dict[str, str] | None = None,
    script: str = "interp train",
    restart: bool = False,
    listeners: Sequence[Callable[[Any], None]] = (),
    **options: Any,
) -> SAE:
    """Train on a store or a stream, write the checkpoint into a folder, and return the SAE as saved.

    `options` are the architecture's own (d_sae, k, l1 and so on). A transcoder reads `hook_name` and writes
    `hook_name_out`; a crosscoder's `hook_name` is several joined by "+". The threshold is set, and FVU and L0 are
    measured, on `held_out` (of the same model), or else on the text's last blocks, which no epoch trains on. The state
    of an unfinished run lies in `into/.run`, from which the same call goes on. A folder that holds this very SAE is
    left as it is, and one that holds another is refused (unless `restart`), as is one that another process trains into.
    """
    folder = Path(into)
    if not folder.name:
        raise InterpError("the checkpoint takes its folder's name; name a folder.")
    run = folder / ".run"
    hooks = _hooks(architecture, hook_name, hook_name_out)
    config = config or TrainConfig()
    _check_several(source, hooks)
    rule = _rule(architecture, config, **_widths(source, architecture, hooks), **options)
    check_memory(_bytes(rule), counted(rule.d_sae, "feature"), resolve_device(config.device))
    names = hooks[0] if len(hooks) == 1 else hooks
    hook_name = "+".join(hooks[:-1] if hook_name_out else hooks)
    measured = _HeldOut.of(source, held_out)
    batches = _batches(source, names, batch, epochs, buffer, measured)
    made = _recipe(script, architecture, rule, config, batches)
    with places.only_one(folder, "training"):
        places.drop_partials(folder)
        if not restart and _exists(folder, run, _asked(source, hook_name, hook_name_out, made, config)):
            say(f"{folder} holds this SAE already; --restart makes it anew.")
            return load(folder)
        held = measured.rows(names)
        sae = train(batches, rule, config, held_out=held, into=run, restart=restart, listeners=listeners)
        sae.name = name or folder.name
        sae.set_hooks(hook_name, hook_name_out or None)
        _keep(sae, folder, run, _card(sae, source, hooks[0], architecture, made, licences))
    return sae


def _exists(folder: Path, run: Path, asked: dict[str, Any]) -> bool:
    """Whether the folder holds the finished SAE that is asked (see `_asked`).

    Raises InterpError, naming what differs, when it holds another SAE. Where a run has begun, the loop compares.
    """
    if run.exists():
        return False
    if not (folder / "card.json").exists():
        if (folder / WEIGHTS).exists():
            raise InterpError(
                f"{folder} holds an SAE without a card; choose another folder, or --restart to replace it."
            )
        return False
    card = Card.read(folder)
    kept = _flat(_of(card.hook_name, card.hook_name_out, card.model_sha256, card.corpus) | card.recipe)
    for key, value in asked.items():
        if key in kept and kept[key] != value:
            raise InterpError(
                f"{folder} holds an SAE with {key} = {kept[key]!r}, and {value!r} was asked; "
                "choose another folder, or --restart to replace it."
            )
    return True


def _asked(
    source: ActivationSource, hook: str, hook_out: str, recipe: dict[str, Any], config: TrainConfig
) -> dict[str, Any]:
    """What a finished SAE must agree with to be the one that is asked."""
    asked = _flat(_of(hook, hook_out, source.recipe["model_sha256"], source.recipe) | recipe)
    del asked["script"], asked["training.device"]  # where it is made is not what is asked
    if config.bfloat16 is None:  # the machine's choice, and this may be another machine
        del asked["training.bfloat16"]
    return asked


def _of(hook: str, hook_out: str, model_sha256: str, text: Mapping[str, Any]) -> dict[str, Any]:
    tokens = text.get("tokens_sha256")
    return {"hook_name": hook, "hook_name_out": hook_out, "model_sha256": model_sha256, "tokens_sha256": tokens}


def _flat(recipe: dict[str, Any]) -> dict[str, Any]:
    """Nested fields by names with dots, as JSON gives them back."""
    found: dict[str, Any] = {}
    for key, value in json.loads(json.dumps(recipe)).items():
        inner = _flat(value) if isinstance(value, dict) else {"": value}
        found |= {f"{key}.{name}".rstrip("."): each for name, each in inner.items()}
    return found


def _keep(sae: SAE, folder: Path, run: Path, card: Card) -> None:
    """Write the checkpoint with its log, then drop the state of its run."""
    save(sae, folder, card)
    shutil.copyfile(run / "log.jsonl", folder / "training_log.jsonl")
    places.drop_folder(run)


def _hooks(architecture: str, hook_name: str, hook_name_out: str) -> tuple[str, ...]:
    if (architecture == "transcoder") != bool(hook_name_out):
        raise InterpError(
            "a transcoder writes another hook point: name it (hook_name_out, --hook-out)."
            if architecture == "transcoder"
            else f"{architecture} writes the hook point it reads; only a transcoder takes another one."
        )
    hooks = tuple(part.strip() for part in hook_name.split("+"))
    if len(hooks) > 1 and architecture != "crosscoder":
        raise InterpError(f"{architecture} reads one hook point; {len(hooks)} were given (a crosscoder reads several).")
    hooks = (*hooks, hook_name_out) if hook_name_out else hooks
    twice = [hook for hook in hooks if hooks.count(hook) > 1]
    if twice:
        raise InterpError(f"{architecture} is given {twice[0]} twice; name different hook points, or train an SAE.")
    return hooks


def _check_several(source: ActivationSource, hooks: Sequence[str]) -> None:
    """Raises InterpError when stores are read side by side for hook points of one of them."""
    if isinstance(source, StoresTogether) and len({hook.split(":")[0] for hook in hooks}) == 1:
        for hook in hooks:
            source.check_hook(hook)
        alone = source.parts[int(hooks[0].split(":")[0]) - 1].folder
        raise InterpError(f"{', '.join(hooks)} is of one model alone; train on {alone}, where it has no number.")


def _rule(architecture: str, config: TrainConfig, **options: Any) -> Architecture:
    """The architecture; InterpError also for a setting that would do nothing with it."""
    rule = make_architecture(architecture, **options)
    form = getattr(rule, "form", "quadratic")
    if "l0" in options and form != "quadratic":
        raise InterpError(f"l0 would do nothing in JumpReLU's form {form!r}; only the quadratic one aims at an L0.")
    if config.resample and rule.traits.auxk and config.aux_alpha > 0:
        raise InterpError(
            f"resample would do nothing for {architecture}, whose dead features learn by AuxK; with aux_alpha 0 they "
            "would be resampled instead."
        )
    if not 0 <= config.seed < SEEDS:
        raise InterpError(f"seed is {config.seed}; it must be at least 0 and below {SEEDS}.")
    return rule


def _bytes(rule: Architecture) -> int:
    """Of parameters, gradients and two moments: the least that training takes."""
    return 4 * 4 * rule.d_sae * (rule.d_in + rule.d_out + 1)


def _widths(source: ActivationSource, architecture: str, hooks: tuple[str, ...]) -> dict[str, Any]:
    widths = tuple(source.width(hook) for hook in hooks)
    if architecture == "crosscoder":
        return {"widths": widths}
    return {"d_in": widths[0]} | ({"d_out": widths[1]} if len(widths) > 1 else {})


@dataclass(frozen=True)
class _HeldOut:
    """Text that is measured on and never trained on."""

    source: ActivationSource
    blocks: range
    training: range
    """Blocks of the training text that are trained on."""
    how: str

    @staticmethod
    def of(source: ActivationSource, given: ActivationStore | None) -> "_HeldOut":
        """A store of its own, or the last tenth of the training text's blocks, with at most HELD_OUT_ROWS positions."""
        count = len(source.blocks.tokens_NT)
        if given is None:
            if count < 2:
                raise InterpError("a single block of text leaves none to measure on; harvest more, or give held_out.")
            first = count - max(min(count // 10, HELD_OUT_ROWS // source.blocks.block), 1)
            return _HeldOut(source, range(first, count), range(first), "the last blocks of the text")
        if given.recipe["model_sha256"] != source.recipe["model_sha256"]:
            raise InterpError(
                f"{given.folder} holds activations of {given.recipe['model']}, and not of the same model "
                f"({source.recipe['model']}) as those to train on; harvest held-out text from that one."
            )
        return _HeldOut(given, range(len(given.blocks.tokens_NT)), range(count), "a text of its own")

    @property
    def recipe(self) -> dict[str, Any]:
        """What the card says of it."""
        text = {key: self.source.recipe[key] for key in ("corpus", "tokens_sha256")}
        return {"how": self.how, "blocks": [self.blocks.start, self.blocks.stop], **text}

    def rows(self, names: str | tuple[str, ...]) -> Any:
        """At most HELD_OUT_ROWS rows, shuffled, as one batch."""
        batches = self.source.batches(names, 1, buffer=self.source.positions, blocks=self.blocks)
        if not batches.rows:
            raise InterpError(
                f"no position of {self.how} counts, so there is nothing to measure on; hold out more text."
            )
        return next(iter(replace(batches, batch_size=min(batches.rows, HELD_OUT_ROWS))))


def _batches(
    source: ActivationSource,
    names: str | tuple[str, ...],
    size: int,
    epochs: float,
    buffer: int | None,
    measured: _HeldOut,
) -> Batches:
    """What is trained on, mixed over `buffer` tokens (without, the source's own number)."""
    size, mixed = min(size, source.positions // 4 or 1), {} if buffer is None else {"buffer": buffer}
    made = source.batches(names, size, epochs=epochs, blocks=measured.training, **mixed)
    return replace(made, held_out=measured.recipe)


def _card(
    sae: SAE,
    source: ActivationSource,
    hook: str,
    architecture: str,
    recipe: dict[str, Any],
    licences: dict[str, str] | None,
) -> Card:
    made = source.recipe
    return Card(
        name=sae.name,
        model=made["source"],
        model_sha256=made["model_sha256"],
        hook_name=sae.hook_name,
        hook_name_out=sae.hook_name_out,
        dtype=made["dtype"],
        attention=made["attention"],
        architecture=architecture,
        norm_cutoff=source.norm_cutoff(hook),
        separator=made["separator"],
        context=made["block"],
        corpus=made["corpus"] | {"positions": made["positions"], "tokens_sha256": made["tokens_sha256"]},
        recipe=recipe,
        versions=versions(),
        licences=licences or {"text": made["corpus"]["licence"]},
    )


def _recipe(script: str, name: str, rule: Architecture, config: TrainConfig, batches: Batches) -> dict[str, Any]:
    rows = Plan.of(batches, config, held_out=True).tokens
    return {
        "script": script,
        "architecture": {"name": name, **asdict(rule)},  # type: ignore[call-overload]
        "batch_size": batches.batch_size,
        "epochs": batches.epochs,
        "buffer": batches.buffer,
        "streamed": isinstance(batches.source, Stream),
        "held_out": batches.held_out,
        # After what was asked, from which its defaults follow: a refusal names the first field that differs.
        "training": asdict(config.resolved(rule, rows)),
        "rows_an_epoch": batches.rows,
        "rows_seen": rows,
        "masked": "position 0 of each block, separators, and positions with a norm over norm_cutoff",
    }


def sweep(
    source: ActivationSource,
    hooks: Sequence[str],
    into: str | Path,
    grid: Mapping[str, Iterable[Any]],
    *,
    epochs: float = 1.0,
    batch: int = 4096,
    buffer: int | None = None,
    config: TrainConfig | None = None,
    held_out: ActivationStore | None = None,
    restart: bool = False,
) -> list[dict[str, Any]]:
    """Every combination of the grid at every hook point, from one pass over the activations; a row of measures each.

    The grid's keys are `architecture`, `seed`, `lr` and options of architectures (each takes those it has), such as
    {"architecture": ["batchtopk"], "d_sae": [2304], "k": [16, 32], "seed": [0, 1]}. Each SAE becomes a checkpoint in a
    folder named after what it is, and is skipped when that exists; each is bit-equal to training it alone.
    FVU, L0 and dead features are of held-out rows (see `train_checkpoint`), the half that set no threshold. Raises
    InterpError at once when another process sweeps or trains there.
    """
    folder, config = Path(into), config or TrainConfig()
    for hook in hooks:
        _check_several(source, [hook])
    wanted = {name: (hook, given) for hook in hooks for name, given in _names(source, hook, grid).items()}
    measured = _HeldOut.of(source, held_out)
    parts = {hook: _batches(source, hook, batch, epochs, buffer, measured) for hook in hooks}
    runs: dict[str, tuple[Architecture, TrainConfig]] = {}
    recipes, widths = {}, {hook: source.width(hook) for hook in hooks}
    for name, (hook, given) in wanted.items():
        own = {key: value for key, value in given.items() if key not in ("architecture", "seed", "lr")}
        settings = replace(config, **{key: given[key] for key in ("seed", "lr") if key in given})
        runs[name] = _rule(given["architecture"], settings, d_in=widths[hook], **own), settings
        recipes[name] = _recipe("interp sweep", given["architecture"], *runs[name], parts[hook])
    with ExitStack() as held:
        held.enter_context(places.only_one(folder, "the sweep"))
        for name in wanted:  # one that is trained by itself at this moment, say
            if (folder / name).exists():
                held.enter_context(places.only_one(folder / name, "the sweep"))
        places.drop_partials(folder / ".run")
        asked = {name: _asked(source, hook, "", recipes[name], config) for name, (hook, _) in wanted.items()}
        todo = {
            name: hook
            for name, (hook, _) in wanted.items()
            if restart or not _exists(folder / name, folder / ".run" / name, asked[name])
        }
        if len(todo) < len(wanted):
            say(f"{len(wanted) - len(todo)} of {len(wanted)} exist already and are skipped.")

        def keep(name: str, sae: SAE) -> None:
            card = _card(sae, source, todo[name], wanted[name][1]["architecture"], recipes[name], None)
            _keep(sae, folder / name, folder / ".run" / name, card)

        _train_each(source, folder, parts, {name: runs[name] for name in todo}, todo, measured, restart, keep)
        if (folder / ".run").exists() and not any((folder / ".run").iterdir()):
            (folder / ".run").rmdir()  # else it holds runs of another grid, which go on when they are asked
    return [_row(folder / name, *wanted[name], ("architecture", *grid)) for name in wanted]


def _train_each(
    source: ActivationSource,
    folder: Path,
    parts: Mapping[str, Batches],
    runs: Mapping[str, tuple[Architecture, TrainConfig]],
    hooks: Mapping[str, str],
    measured: _HeldOut,
    restart: bool,
    keep: Callable[[str, SAE], None],
) -> None:
    """Train the runs, each at its hook point and on that one's batches (`parts`), and `keep` what comes of them."""
    read = list(dict.fromkeys(hooks.values()))
    # A stream runs the model once for all hook points. A store has each on its own, and as many rows as count there.
    for group in [read] if read and isinstance(source, Stream) else [[hook] for hook in read]:
        columns = {name: group.index(hook) for name, hook in hooks.items() if hook in group}
        needed, (_, config) = sum(_bytes(runs[name][0]) for name in columns), runs[next(iter(columns))]
        check_memory(needed, f"{counted(len(columns), 'SAE')} at once", resolve_device(config.device))
        saes = train_many(
            Together(tuple(parts[hook] for hook in group)),
            {name: runs[name] for name in columns},
            held_out=tuple(measured.rows(hook) for hook in group),
            into=folder / ".run",
            restart=restart,
            columns=columns,
            listeners=[lambda step: _note(folder, step)],
        )
        for name, sae in saes.items():
            sae.name = name
            sae.set_hooks(hooks[name])
            keep(name, sae)


def _row(folder: Path, hook: str, given: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """What was asked of one SAE and what was measured; an L0 that was aimed at is not the one measured."""
    asked = {"target_l0" if key == "l0" else key: given.get(key) for key in keys}
    return {"name": folder.name, "hook_name": hook} | asked | _measured(folder)


def _names(source: ActivationSource, hook: str, grid: Mapping[str, Iterable[Any]]) -> dict[str, dict[str, Any]]:
    """Each combination by a name that says it, of the keys that its architecture has; InterpError when one cannot be."""
    source.check_hook(hook)
    values = {key: list(given) for key, given in grid.items()}
    values.setdefault("architecture", ["batchtopk"])
    empty = [key for key, given in values.items() if not given]
    if empty:
        raise InterpError(f"the sweep has no value for {empty[0]}.")
    found, used = {}, set[str]()
    for architecture in values.pop("architecture"):
        if architecture in PAIRED:
            raise InterpError(f"{architecture} reads several hook points; train it by itself (`interp train`).")
        if architecture not in ARCHITECTURES:
            raise unknown("architecture", architecture, ARCHITECTURES)
        known = {"seed", "lr", *(field.name for field in fields(ARCHITECTURES[architecture]))}
        own = {key: given for key, given in values.items() if key in known}
        used |= own.keys()
        for combination in itertools.product(*own.values()):
            given = dict(zip(own, combination, strict=True))
            rest = [f"{key}{value}".replace(", ", "_") for key, value in given.items()]
            found["-".join([architecture, hook, *rest])] = {"architecture": architecture, **given}
    idle = [key for key in values if key not in used]
    if idle:
        raise InterpError(f"none of the sweep's architectures takes {idle[0]}.")
    return found


def _note(folder: Path, step: Any) -> None:
    """Keep a finished run's measures until its checkpoint is written."""
    if step.sae is not None:
        measures = {"fvu": step.fvu, "l0": step.l0, "dead": step.dead, "tokens": step.tokens}
        places.write_json(folder / step.run / "measures.json", measures)


def _measured(folder: Path) -> dict[str, Any]:
    return dict(places.read_json(folder / "measures.json"))


def selftest(
    architecture: str = "batchtopk",
    *,
    d_in: int = 64,
    features: int = 128,
    active: int = 4,
    rows: int = 500_000,
    config: TrainConfig | None = None,
    seed: int = 0,
    batch: int = 1024,
    **options: Any,
) -> dict[str, Any]:
    """How many planted features a recipe recovers, on this machine.

    Rows are sums of `active` of `features` random unit directions (the frequent ones ten times as frequent as the
    rare), with strengths from 1 to 2, a constant offset and a little noise. A feature is recovered when a decoder row has
    cosine over 0.9 with it. Beside it stand what random decoder rows reach, and detection: the F1 of each recovered
    feature's latent as a detector of when it is on, on 20,000 rows that were not trained on.
    """
    if active > features:
        raise InterpError(f"{active} features are to be active and only {features} are planted; plant more.")
    if architecture in PAIRED:
        raise InterpError(f"selftest plants features for SAEs; {architecture} reads several hook points.")
    config = replace(config or TrainConfig(), tokens=rows)
    rule = _rule(architecture, config, d_in=d_in, **{"d_sae": 2 * features, **options})
    chunk = min(100_000, rows)
    check_memory(
        _bytes(rule) + 4 * (rows * d_in + features * (3 * chunk + d_in)),
        f"{counted(rows, 'row')} of {counted(features, 'feature')}",
    )
    draw = torch.Generator().manual_seed(seed)
    truth = torch.nn.functional.normalize(torch.randn(features, d_in, generator=draw), dim=1)
    odds = torch.logspace(0, -1, features)
    offset = torch.randn(d_in, generator=draw)

    def sample(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = torch.multinomial(odds.expand(count, -1), active, generator=draw)
        code = torch.zeros(count, features).scatter_(1, chosen, 1 + torch.rand(count, active, generator=draw))
        return code @ truth * 5 + offset + 0.05 * torch.randn(count, d_in, generator=draw), code

    held_out, code = sample(20_000)
    x = torch.cat([sample(min(chunk, rows - start))[0] for start in range(0, rows, chunk)])
    sae = train(_Planted(x.split(batch), features), rule, config, held_out=held_out).cpu()
    shuffled = torch.nn.functional.normalize(torch.randn(sae.d_sae, d_in, generator=draw), dim=1)
    found = _recovery(sae, truth, shuffled, held_out, code > 0)
    return (
        {"architecture": architecture, "planted": features, "d_sae": sae.d_sae}
        | found
        | {"true_l0": active, "rows": rows, "seed": seed}
    )


class _Planted(tuple[torch.Tensor, ...]):
    """Batches that hold so many features: an SAE with more can't use them all, and need not be warned of it."""

    findable: int

    def __new__(cls, batches: Iterable[torch.Tensor], findable: int) -> "_Planted":
        made = super().__new__(cls, batches)
        made.findable = findable
        return made


def _recovery(
    sae: SAE, truth: torch.Tensor, shuffled: torch.Tensor, held_out: torch.Tensor, on: torch.Tensor
) -> dict[str, Any]:
    """How near decoder rows, and random ones beside them, come to the planted directions `truth` (features, d_in); how
    well the nearest latents tell when a feature is `on` (rows, features)."""
    cosine, nearest = (torch.nn.functional.normalize(sae.W_dec, dim=1) @ truth.T).max(0)
    by_chance = (shuffled @ truth.T).max(0).values
    fires = sae.encode(held_out)[:, nearest] > 0
    f1 = 2 * (on & fires).sum(0) / (on.sum(0) + fires.sum(0)).clamp_min(1)
    sums = reconstruction(sae, held_out)
    return {
        "recovered": int((cosine > 0.9).sum()),
        "recovered_by_random_rows": int((by_chance > 0.9).sum()),
        "mean_cosine": float(cosine.mean()),
        "mean_cosine_of_random_rows": float(by_chance.mean()),
        "mean_f1": float(f1.mean()),
        "fvu": sums.fvu,
        "l0": sums.l0,
        "dead": sums.dead,
    }
