"""What is to be trained, checked before anything runs: hook points, the architecture with its options, the memory."""

from collections.abc import Mapping, Sequence

from interp.activations import ActivationSource, StoresTogether
from interp.sae import Architecture, Options, make_architecture
from interp.sae.options import Sizes, name_of
from interp.training import TrainConfig
from interp.types import Hook, InterpError

SEEDS = 2**32
PAIRED = ("transcoder", "crosscoder")
"""They read several hook points."""


def check_hooks(architecture: str, reads: Sequence[Hook], writes: Sequence[Hook]) -> tuple[Hook, ...]:
    """The hook points that it reads, then those that it writes where they are others; InterpError when it cannot."""
    if (architecture == "transcoder") != bool(writes):
        raise InterpError(
            "a transcoder writes another hook point: name it (writes, --hook-out)."
            if architecture == "transcoder"
            else f"{architecture} writes the hook point it reads; only a transcoder takes another one."
        )
    if len(writes) > 1:
        raise InterpError(f"a transcoder writes one hook point; {len(writes)} were given.")
    if len(reads) > 1 and architecture != "crosscoder":
        raise InterpError(f"{architecture} reads one hook point; {len(reads)} were given (a crosscoder reads several).")
    if not reads:
        raise InterpError("no hook point was given to train on; name one, such as blocks.15.hook_resid_post.")
    hooks = (*reads, *writes)
    twice = [hook for hook in hooks if hooks.count(hook) > 1]
    if twice:
        raise InterpError(f"{architecture} is given {twice[0]} twice; name different hook points, or train an SAE.")
    return hooks


def check_several(source: ActivationSource, hooks: Sequence[Hook]) -> None:
    """Raises InterpError when stores are read side by side for hook points of one of them."""
    if isinstance(source, StoresTogether) and len({hook.model for hook in hooks}) == 1:
        for hook in hooks:
            source.check_hook(str(hook))
        alone = source.parts[hooks[0].model - 1].folder
        said = ", ".join(map(str, hooks))
        raise InterpError(f"{said} is of one model alone; train on {alone}, where it has no number.")


def kind_of(architecture: str | Architecture) -> str:
    """The name of an architecture that is given by name or as a configuration."""
    return architecture if isinstance(architecture, str) else name_of(architecture)


def sizes_of(source: ActivationSource, architecture: str, hooks: Sequence[Hook]) -> Sizes:
    """What the activations say of the architecture's widths."""
    widths = tuple(source.width(str(hook)) for hook in hooks)
    if architecture == "crosscoder":
        return {"widths": widths}
    return {"d_in": widths[0], "d_out": widths[1]} if len(widths) > 1 else {"d_in": widths[0]}


def make_rule(architecture: str | Architecture, config: TrainConfig, sizes: Sizes, options: Options) -> Architecture:
    """The architecture, made of its name and options, or as it is given.

    Raises InterpError for an option that it does not take, one that would do nothing, and widths that do not fit.
    """
    if isinstance(architecture, str):
        rule = make_architecture(architecture, **sizes, **options)
    else:
        rule = _checked(architecture, sizes, options)
    form = getattr(rule, "form", "quadratic")
    if "l0" in options and form != "quadratic":
        raise InterpError(f"l0 would do nothing in JumpReLU's form {form!r}; only the quadratic one aims at an L0.")
    if config.resample and rule.traits.auxk and config.aux_alpha > 0:
        raise InterpError(
            f"resample would do nothing for {kind_of(architecture)}, whose dead features learn by AuxK; with aux_alpha 0 "
            "they would be resampled instead."
        )
    if not 0 <= config.seed < SEEDS:
        raise InterpError(f"seed is {config.seed}; it must be at least 0 and below {SEEDS}.")
    return rule


def pairing_of(rule: Architecture) -> str | None:
    """How an architecture's batches are paired unless told."""
    return "neighbours" if rule.traits.along else None


def _checked(rule: Architecture, sizes: Mapping[str, object], options: Mapping[str, object]) -> Architecture:
    name = name_of(rule)
    if options:
        raise InterpError(f"{name} is given with all its options; leave out {', '.join(options)}.")
    for key, value in sizes.items():
        if getattr(rule, key) != value:
            raise InterpError(f"{name} was made for {key} = {getattr(rule, key)}, and the activations have {value}.")
    return rule


def bytes_of(rule: Architecture) -> int:
    """Of parameters, gradients and two moments: the least that training takes."""
    return 4 * 4 * rule.d_sae * (rule.d_in + rule.d_out + 1)
