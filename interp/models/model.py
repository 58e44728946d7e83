"""A model with named hook points: run it, read it, edit it, generate with it.

Axes    B prompt, T token, D width at a hook point, V vocabulary.

The class knows nothing of any library of models: it holds a module, a tokenizer and a table from hook name
to the submodule whose output that hook point is. `bridge.py` fills the table from TransformerLens. What it does with text is in
`reading.py` and `text.py`, one forward pass in `passes.py`, how texts are continued in `generation.py`, and what the logits read in `readout.py`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from interp.models import generation, habits
from interp.models.above import Above
from interp.models.families import DECODER, Family, Frame, Media
from interp.models.habits import GoesOn
from interp.models.kept import Rows, kept_by
from interp.models.passes import (
    PROBE,
    Edit,
    Run,
    Site,
    Tried,
    gradients,
    make_site,
    single_pass,
    try_hooks,
    width_of,
)
from interp.models.reading import ReadsText
from interp.models.readout import last_residual, neuron_outputs, read_unembedding
from interp.models.transcribing import transcribe
from interp.models.turns import Turns
from interp.models.weights import PREFIX, first_sha256, stored_types, weights_sha256
from interp.types import InterpError, unknown


@dataclass
class Model(ReadsText):
    """A language model and its hook points; made by `open_model`."""

    name: str
    source: str
    """What `open_model` takes to open it again."""
    module: nn.Module
    tokenizer: Any
    hook_points: dict[str, nn.Module]
    frame: Frame
    """What is put around a text."""
    n_ctx: int
    attention: str
    """The attention implementation, `sdpa` or `eager`; recorded, for results differ in the last bits."""
    attention_for: Callable[[Sequence[str]], AbstractContextManager[None]] = field(default=lambda hooks: nullcontext())
    """Chooses, for the hook points of one run, an implementation in which they fire."""
    ends: frozenset[int] = frozenset()
    """Tokens that end a text: the tokenizer's eos, and every other that the model's own configuration names."""
    folder: Path | None = None
    """Where its files are on this machine."""
    named_weights: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    """By the names that the model's own library gives them."""
    family: Family = field(default=DECODER, repr=False)
    media: Media | None = field(default=None, repr=False)
    """How it reads pictures or sound; None of a model of text."""
    _caches_at: dict[str, bool] = field(default_factory=dict, init=False, repr=False)
    turns: Turns = field(default_factory=Turns, repr=False)
    """Any number of threads may use a model: each forward pass, with its hooks, has the module for itself."""

    @property
    def dtype(self) -> torch.dtype:
        """The number type it computes in."""
        return next(self.module.parameters()).dtype

    @property
    def dtype_name(self) -> str:
        """`bfloat16`, `float32`."""
        return str(self.dtype).removeprefix("torch.")

    @cached_property
    def _fingerprint(self) -> str:
        return weights_sha256(
            self.named_weights or self.module.state_dict(), stored_types(self.folder) if self.folder else ()
        )

    def fingerprint(self) -> str:
        """A name for the weights: SHA-256 of their names, shapes, stored types and bytes (half a second for 135M
        parameters). See `weights_sha256`."""
        return self._fingerprint

    @cached_property
    def _first_fingerprint(self) -> str:
        return first_sha256(self.module.state_dict())

    def fingerprint_like(self, name: str) -> str:
        """The fingerprint in the form that another one has, for cards and indexes of before there were names in it."""
        return self.fingerprint() if name.startswith(PREFIX) else self._first_fingerprint

    # ---- hook points ----

    def hook_names(self) -> list[str]:
        """Names of the hook points that fire on text, in the order in which they fire."""
        return list(self.shapes())

    def width(self, hook_name: str) -> int:
        """Length of the vector at each position of a hook point: of the residual stream and what is added to it by
        the model's config, elsewhere by running a few tokens once.

        Raises InterpError when there is no such hook point, or no single vector at a position.
        """
        return width_of(self, hook_name)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape past (B, T) at each hook point that fires, found by running a few tokens (once)."""
        return {name: tried.shape for name, tried in self.tried.items()}

    @cached_property
    def tried(self) -> dict[str, Tried]:
        """What each hook point that fires did with a few tokens, in the order in which they first fired."""
        return try_hooks(self)

    def fires_once(self, hook_name: str) -> bool:
        """Whether a hook point is known to fire once in a pass, on every token."""
        return hook_name in self.tried and self.tried[hook_name].once

    def check_hook(self, hook_name: str) -> None:
        """Raises InterpError, with the nearest names, when the model has no such hook point."""
        if hook_name not in self.hook_points:
            raise unknown(
                f"hook point in {self.name}:",
                hook_name,
                self.hook_points,
                try_=self.family.lists.format(name=self.name),
            )

    @cached_property
    def above(self) -> Above:
        """Passes that begin at a hook point whose activations are given."""
        return Above(self)

    # ---- running ----

    def run(
        self,
        tokens_BT: Int[Tensor, "B T"],
        read: Sequence[str] = (),
        edits: Sequence[Edit] = (),
        *,
        grad: bool = False,
        logits: bool | None = None,
        real_BT: Bool[Tensor, "B T"] | None = None,
        last: int = 0,
        prompt_B: Int[Tensor, " B"] | None = None,
        given: Shaped[Tensor, "B ..."] | None = None,
    ) -> Run:
        """Activations at the hook points `read`, after the edits, and the logits if asked.

        Without `logits=True` the pass ends at the last hook point asked for. Positions where `real_BT` is
        false are padding on the left: they are neither attended to nor counted. With `last`, logits are computed
        at that many positions from the end only. `prompt_B` says how many tokens of each row are its prompt, all
        without. `given` is what a model of pictures or sound is given for each row (see `families.media`), whose places
        the tokens then are. Threads may call this at once: each pass has its own hooks.

        With `grad`, what comes back is a graph: `torch.autograd.grad` of the logits, or of a later activation, with
        respect to an activation read, or to a tensor that an edit uses. The model's parameters stay constants
        (`module.requires_grad_()` makes them a part). The pass has the module for itself; going back through its graph
        needs no turn, for it reads weights and tensors of its own only, which no other pass changes. A hook point that
        only looks on (a scale shown beside the norm that is used) has no way to the logits, and PyTorch says so.

        Raises InterpError for more tokens than the model reads, for a hook point that does not exist or does not fire,
        and for `grad` through padding in a family that cannot leave it out.
        """
        if logits and not self.has_vocabulary:
            raise InterpError(
                f"{self.name} has no vocabulary: it gives vectors, not logits; read a hook point instead."
            )
        logits = not read if logits is None else logits
        with gradients(grad=True) if grad else nullcontext():
            if grad:  # what was made in inference mode can be no part of a graph
                tokens_BT = tokens_BT.clone()
                real_BT, prompt_B = (x if x is None else x.clone() for x in (real_BT, prompt_B))
            site, extra = self.site(tokens_BT.to(self.device), real_BT, prompt_B, given)
        if real_BT is not None and not bool(site.real_BT.all()) and not self.masks_padding:
            if grad:
                raise InterpError(
                    f"{self.name} reads padding like text, and gradients would pass through it; run texts of one length "
                    "together."
                )
            return habits.by_length(self, site, read, edits, logits, last)
        return single_pass(self, site, extra, read, edits, logits=logits, last=last, grad=grad)

    def site(
        self,
        tokens_BT: Tensor,
        real_BT: Tensor | None = None,
        prompt_B: Tensor | None = None,
        given: Tensor | None = None,
    ) -> tuple[Site, dict[str, Any]]:
        """Where the tokens stand, and what the module is to be told of padding; InterpError when they are too many."""
        if tokens_BT.shape[1] > self.n_ctx:
            raise InterpError(
                f"{tokens_BT.shape[1]:,} tokens are more than the {self.n_ctx:,} that {self.name} reads; shorten the text."
            )
        site = make_site(
            tokens_BT,
            real_BT,
            prompt_B,
            fills=self.separator if self.frame.alone else None,
            given=None if given is None else given.to(self.device),
        )
        if self.media is not None and given is None:
            raise InterpError(f"{self.name} reads {self.media.kind}, not text; name files of such.")
        if real_BT is None or self.frame.alone:
            return site, {}
        return site, self.accepted({"attention_mask": site.real_BT.long(), "position_ids": site.position_BT})

    def probe(self) -> Site:
        """A few tokens in two rows (for some modules run once a row), or two random items."""
        if self.media is not None:
            places_BT, given = self.media.sample(PROBE[0])
            return make_site(places_BT.to(self.device), given=given.to(self.device))
        return make_site(self.some_tokens(PROBE[1]).repeat(PROBE[0], 1))

    def outputs(self, site: Site, options: Mapping[str, Any]) -> Tensor:
        """What the module gives at each position (see `Family.call`); hooks and turns are the caller's."""
        return self.family.call(self.module, site, self.frame, options)

    def site_at(self, site: Site, hook_name: str) -> Site:
        """The positions that a hook point sees: of an encoder–decoder, those of its side."""
        return self.family.site_at(site, self.frame, hook_name)

    @property
    def has_vocabulary(self) -> bool:
        """Whether what it gives are logits of tokens; else vectors."""
        return self.family.vocabulary(self.module)

    @cached_property
    def arguments(self) -> frozenset[str]:
        """Names of what this family's forward pass takes."""
        return frozenset(signature(self.module.forward).parameters)

    def accepted(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Those of the options that this family's forward pass takes."""
        return {name: value for name, value in options.items() if name in self.arguments}

    @cached_property
    def masks_padding(self) -> bool:
        """Whether padding on the left changes nothing, found by trying: recurrent models read it like text."""
        return self.media is not None or habits.is_masked(self)

    @cached_property
    def causal(self) -> bool:
        """Whether what follows a token changes nothing at it, found by trying."""
        return self.media is None and habits.is_causal(self)

    def check_causal(self, what: str) -> None:
        """Raises InterpError, saying what cannot be had, when what follows a token changes what is given at it."""
        if not self.causal:
            how = "a text in both directions" if self.media is None else self.media.kind
            raise InterpError(
                f"{self.name} reads {how}, so no token is the next one, and {what} cannot be had of it; "
                "`interp ablate` says what a feature changes."
            )

    @property
    def generates(self) -> bool:
        """Whether it continues or answers a text."""
        return self.causal if self.family.generates is None else self.family.generates

    @cached_property
    def goes_on(self) -> GoesOn:
        """How texts are continued: from what the caller keeps of them (see `kept`), or by reading them anew; found by trying."""
        tried = self.family.caches and kept_by(self) is not None
        return habits.goes_on(self, padded=self.masks_padding) if tried else "anew"

    @property
    def caches(self) -> bool:
        """Whether a text can be continued from what the caller keeps of it."""
        return self.goes_on != "anew"

    def caches_at(self, hook_name: str) -> bool:
        """Whether an edit at the hook point finds in such a step what it finds in a pass over the whole text."""
        if hook_name not in self._caches_at:
            self._caches_at[hook_name] = habits.is_cached_at(self, hook_name, padded=self.masks_padding)
        return self._caches_at[hook_name]

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int = 40,
        edits: Sequence[Edit] = (),
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | Sequence[int] = 0,
        stop: Sequence[str] = (),
    ) -> list[list[int]]:
        """New token ids for each prompt; `stream` has the particulars."""
        answers: list[list[int]] = [[] for _ in prompts]
        steps = self.stream(
            prompts,
            max_new_tokens=max_new_tokens,
            edits=edits,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
            stop=stop,
        )
        for step in steps:
            for answer, token in zip(answers, step, strict=True):
                if token is not None:
                    answer.append(token)
        return answers

    def transcribe(self, clips: Sequence[Sequence[int]], edits: Sequence[Edit] = (), most: int = 200) -> list[str]:
        """What a model of speech writes down of clips (see `transcribing`); InterpError for others."""
        return transcribe(self, clips, edits, most)

    def check_generation(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, temperature: float, top_p: float
    ) -> None:
        """Raises InterpError when these prompts cannot be continued so: empty, too long, or no such sampling."""
        generation.check(self, prompts, max_new_tokens, temperature, top_p)

    def rows(self, real_BT: Tensor, edits: Sequence[Edit]) -> Rows | None:
        """Prompts, padded on the left where `real_BT` is false, that go on under these edits from what is kept of them; None
        where they must be read anew at each token."""
        if not self.caches or not all(self.caches_at(edit.hook_name) for edit in edits):
            return None
        if self.goes_on == "alone":
            return Rows(self, real_BT, edits, "rows")
        return Rows(self, real_BT, edits, "lengths" if not real_BT.all() and not self.masks_padding else "")

    def stream(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int = 40,
        edits: Sequence[Edit] = (),
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | Sequence[int] = 0,
        stop: Sequence[str] = (),
    ) -> Iterator[list[int | None]]:
        """Step by step, the next token of each prompt (separator included by the caller), None where a row has ended.

        Works from what is kept of the texts (keys and values, or a state) where the family does. `temperature` 0 takes the likeliest token. Each row draws from its own
        generator: seeded by (seed, row) for one seed, by `seed[row]` as the first row would be for a list of them;
        so a row's random numbers do not depend on what else runs. A row ends with one of the model's `ends`, or with the
        token that completes one of the strings `stop`; both are kept. Other threads may use the model between two
        steps. Raises InterpError (see `check_generation`).
        """
        self.check_generation(prompts, max_new_tokens, temperature, top_p)
        for edit in edits:
            self.check_hook(edit.hook_name)
        draws = generation.generators(seed, len(prompts))
        return generation.steps(
            self, prompts, max_new_tokens, edits, lambda x: generation.choose(x, temperature, top_p, draws), stop
        )

    # ---- the way out ----

    @property
    def last_residual(self) -> str | None:
        """The hook point of the residual stream after the last layer, before the final norm; None where there is none."""
        return last_residual(self.hook_points)

    def unembedding(self) -> tuple[Float[Tensor, "V D"], Float[Tensor, " D"]]:
        """(unembedding, gain of the final norm), in float32: a direction d moves the logits by (unembedding · gain) d, up to
        a positive scale common to all tokens. What a LayerNorm takes off is folded into the matrix. See `readout`.

        Raises InterpError when there is no unembedding, or a final norm that is not known.
        """
        return self._unembedding

    @cached_property
    def _unembedding(self) -> tuple[Tensor, Tensor]:
        if not self.has_vocabulary:
            raise InterpError(f"{self.name} has no vocabulary, so logit effects cannot be had.")
        few = self.some_tokens(4)

        def run() -> None:
            with torch.inference_mode():
                self.outputs(make_site(few), {})

        with self.turns.turn():
            return read_unembedding(self.module, run, self.hook_points.get(self.last_residual or ""), self.name)

    def neuron_outputs(self, width: int) -> dict[int, Float[Tensor, "M D"]]:
        """By layer, what a unit of each MLP neuron adds to a residual stream of that width; {} when it cannot be told."""
        return neuron_outputs(self.module, self.hook_points, width)
