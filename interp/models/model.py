"""A model with named hook points: run it, read it, edit it, generate with it.

Axes    B prompt, T token, D width at a hook point, V vocabulary.

The class knows nothing of any library of models: it holds a module, a tokenizer and a table from hook name
to the submodule whose output that hook point is. `bridge.py` fills the table from TransformerLens.
"""

import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import cached_property
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from interp.models import generation, habits
from interp.models.readout import neuron_outputs, read_unembedding
from interp.models.turns import Turns
from interp.models.vocabulary import vocabulary, vocabulary_bytes
from interp.models.weights import PREFIX, first_sha256, stored_types, weights_sha256
from interp.types import InterpError, unknown

RESIDUAL = (".hook_resid_pre", ".hook_resid_mid", ".hook_resid_post", ".hook_attn_out", ".hook_mlp_out")
"""Hook points as wide as the residual stream, by the ends of their names."""


@dataclass(frozen=True)
class Site:
    """Where an edit is being applied: the tokens that pass the hook point, and where they stand."""

    tokens_BT: Int[Tensor, "B T"]
    real_BT: Bool[Tensor, "B T"]
    """False at padding."""
    position_BT: Int[Tensor, "B T"]
    """Position of each token in its own prompt, counted from 0 without padding."""
    prompt_B: Int[Tensor, " B"]
    """Tokens of each row's prompt, the first position counted; what stands after them was generated."""

    @property
    def generated_BT(self) -> Bool[Tensor, "B T"]:
        """True at tokens that were generated, and are not part of the prompt."""
        return self.position_BT >= self.prompt_B[:, None]

    @property
    def generated(self) -> bool:
        """Whether all of these tokens were generated."""
        return bool(self.generated_BT.all())


@dataclass(frozen=True)
class Edit:
    """A change of the activations at one hook point, made while the model runs."""

    hook_name: str
    apply: Callable[[Float[Tensor, "B T D"], Site], Float[Tensor, "B T D"]]


@dataclass(frozen=True)
class Run:
    """What one forward pass left behind."""

    activations: dict[str, Tensor]
    logits: Float[Tensor, "B T V"] | None


class _Stop(BaseException):
    """Raised in the last hook that was asked for, so that later layers are never computed."""


@dataclass
class Model:
    """A language model and its hook points; made by `open_model`."""

    name: str
    source: str
    """What `open_model` takes to open it again."""
    module: nn.Module
    tokenizer: Any
    hook_points: dict[str, nn.Module]
    separator: int
    """Token put in front of every text and between documents (0 for SmolLM2, which is not its bos)."""
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
    turns: Turns = field(default_factory=Turns, repr=False)
    """Any number of threads may use a model: each forward pass, with its hooks, has the module for itself."""
    _reading: threading.Lock = field(default_factory=threading.Lock, repr=False)
    """Of the tokenizer, which keeps its settings on itself."""

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.module.parameters()).dtype

    @property
    def dtype_name(self) -> str:
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

    # ---- text ----

    @cached_property
    def embedded_tokens(self) -> int:
        """How many token ids have an embedding; the tokenizer may know more or fewer."""
        table = getattr(self.module, "get_input_embeddings", lambda: None)()
        weight = next((p for p in table.parameters() if p.ndim == 2), None) if table is not None else None
        return len(weight) if weight is not None else 2**31

    @cached_property
    def vocabulary(self) -> list[str]:
        """What each token id looks like: those of the tokenizer, and those that only the (un)embedding has rows for."""
        return vocabulary(self.tokenizer, self._ids)

    @cached_property
    def vocabulary_bytes(self) -> list[bytes]:
        """The bytes of each token id."""
        return vocabulary_bytes(self.tokenizer, self._ids)

    @property
    def _ids(self) -> int:
        head = getattr(self.module, "get_output_embeddings", lambda: None)()
        rows = [len(p) for p in head.parameters() if p.ndim == 2] if head is not None else []
        return max([self.embedded_tokens if self.embedded_tokens < 2**31 else 0, *rows])

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """Token ids of the text alone: no bos, no separator.

        A text that spells a special token, such as `<|im_end|>`, stays text unless `special`. Raises InterpError for a
        token that the tokenizer knows and the model has no embedding for.
        """
        with self._reading:
            ids = list(self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=not special))
        return self._check_ids(ids)

    def _check_ids(self, ids: list[int]) -> list[int]:
        if ids and max(ids) >= self.embedded_tokens:
            token = self.tokenizer.convert_ids_to_tokens(max(ids))
            raise InterpError(
                f"the text holds the token {token!r} ({max(ids)}), which the tokenizer of {self.name} knows and its model "
                f"does not: it embeds tokens 0 to {self.embedded_tokens - 1}; use the tokenizer it was trained with."
            )
        return ids

    def prompt(self, text: str, *, special: bool = False) -> list[int]:
        """Token ids as the model should see them: the separator, then the text.

        With `special`, special tokens that the text spells (a rendered chat template, say) are read as such, and no
        separator is put before a text that begins with one. Raises InterpError when the text is empty or longer than
        the context.
        """
        tokens = self.tokenize(text, special=special)
        if not tokens:
            raise InterpError("the text is empty; give at least one word.")
        if not (special and tokens[0] in {self.separator, *self.tokenizer.all_special_ids}):
            tokens = [self.separator, *tokens]
        if len(tokens) > self.n_ctx:
            raise InterpError(
                f"the text has {len(tokens) - 1:,} tokens, and {self.name} reads at most {self.n_ctx - 1:,}; shorten it."
            )
        return tokens

    def chat(self, messages: list[dict[str, str]]) -> list[int]:
        """Token ids of a conversation in the model's own template, with nothing put in front."""
        if not getattr(self.tokenizer, "chat_template", None):
            raise InterpError(f"{self.name} has no chat template; pass raw text instead.")
        options: dict[str, Any] = {"add_generation_prompt": True, "tokenize": True, "return_dict": False}
        with self._reading:
            ids = self.tokenizer.apply_chat_template(messages, **options)
        return self._check_ids([int(token) for token in ids])

    def decode(self, tokens: Sequence[int]) -> str:
        with self._reading:
            return str(self.tokenizer.decode(list(tokens)))

    # ---- hook points ----

    def hook_names(self) -> list[str]:
        """Names of the hook points that fire on text, in the order in which they fire."""
        return list(self.shapes())

    def width(self, hook_name: str) -> int:
        """Length of the vector at each position of a hook point: of the residual stream and what is added to it by
        the model's config, elsewhere by running four tokens once.

        Raises InterpError when there is no such hook point, or no single vector at a position.
        """
        self.check_hook(hook_name)
        hidden = getattr(getattr(self.module, "config", None), "hidden_size", None)
        if isinstance(hidden, int) and hook_name.endswith(RESIDUAL):
            return hidden
        shape = self.shapes().get(hook_name)
        if shape is None or len(shape) != 1:
            found = "does not fire on text" if shape is None else f"has shape {shape} at a position"
            raise InterpError(f"{hook_name} of {self.name} {found}, not one vector; choose another hook point.")
        return shape[0]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape past (B, T) at each hook point that fires, found by running four tokens (once)."""
        return self._shapes

    @cached_property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        # An alias names the same module as its target, so one module can answer for many names.
        first: dict[int, tuple[int, ...]] = {}

        def see(module: nn.Module, _: Any, out: Any) -> None:
            if isinstance(out, Tensor):
                first.setdefault(id(module), tuple(out.shape[2:]))

        with self.turns.turn():
            handles = [point.register_forward_hook(see) for point in set(self.hook_points.values())]
            try:
                with self.attention_for(list(self.hook_points)):
                    self._few_tokens()
            finally:
                for handle in handles:
                    handle.remove()
        order = {key: rank for rank, key in enumerate(first)}
        fired = [name for name, point in self.hook_points.items() if id(point) in first]
        fired.sort(key=lambda name: order[id(self.hook_points[name])])
        return {name: first[id(self.hook_points[name])] for name in fired}

    @torch.inference_mode()
    def _few_tokens(self) -> Any:
        """What the module makes of four tokens; the caller has the turn."""
        return self.module(self.some_tokens(4), use_cache=False)

    def check_hook(self, hook_name: str) -> None:
        """Raises InterpError, with the nearest names, when the model has no such hook point."""
        if hook_name not in self.hook_points:
            raise unknown(
                f"hook point in {self.name}:",
                hook_name,
                self.hook_points,
                try_=f"`interp hooks {self.name}` lists all of them.",
            )

    # ---- running ----

    def run(
        self,
        tokens_BT: Int[Tensor, "B T"],
        hooks: Sequence[str] = (),
        edits: Sequence[Edit] = (),
        *,
        logits: bool | None = None,
        real_BT: Bool[Tensor, "B T"] | None = None,
        last: int = 0,
        prompt_B: Int[Tensor, " B"] | None = None,
    ) -> Run:
        """Activations at the hook points after the edits, and the logits if asked.

        Without `logits=True` the pass ends at the last hook point asked for. Positions where `real_BT` is
        false are padding on the left: they are neither attended to nor counted. With `last`, logits are computed
        at that many positions from the end only. `prompt_B` says how many tokens of each row are its prompt, all
        without. Threads may call this at once: each pass has its own hooks.
        """
        logits = not hooks if logits is None else logits
        tokens_BT = tokens_BT.to(self.device)
        site, extra = self.site(tokens_BT, real_BT, prompt_B)
        if real_BT is not None and not bool(site.real_BT.all()) and not self.masks_padding:
            return habits.by_length(self, site, hooks, edits, logits, last)
        return self.single_pass(site, extra, hooks, edits, logits, last)

    def single_pass(
        self, site: Site, extra: dict[str, Any], hooks: Sequence[str], edits: Sequence[Edit], logits: bool, last: int
    ) -> Run:
        """One forward pass, with the module for itself."""
        seen: dict[str, Tensor] = {}
        wanted = set(hooks)

        def keep(name: str) -> Callable[..., None]:
            def hook(_: nn.Module, __: Any, out: Tensor) -> None:
                seen[name] = out
                if not logits and len(seen) == len(wanted):
                    raise _Stop

            return hook

        readers = {name: keep(name) for name in dict.fromkeys(hooks)}
        if last and "logits_to_keep" in self._accepts:
            extra = extra | {"logits_to_keep": last}
        out = None
        with self.turns.turn(), torch.inference_mode(), self._hooked(readers, edits, site), suppress(_Stop):
            out = self.module(site.tokens_BT, use_cache=False, **extra)
        if len(seen) < len(wanted):
            missing = sorted(wanted - set(seen))
            raise InterpError(f"{missing[0]} did not fire when {self.name} ran; try another hook point.")
        return Run(activations=seen, logits=out.logits[:, -last:] if out is not None else None)

    def site(
        self, tokens_BT: Tensor, real_BT: Tensor | None = None, prompt_B: Tensor | None = None
    ) -> tuple[Site, dict[str, Any]]:
        """Where the tokens stand, and what the module is to be told of padding; InterpError when they are too many."""
        if tokens_BT.shape[1] > self.n_ctx:
            raise InterpError(
                f"{tokens_BT.shape[1]:,} tokens are more than the {self.n_ctx:,} that {self.name} reads; shorten the text."
            )
        extra: dict[str, Any] = {}
        if real_BT is None:
            real_BT = torch.ones_like(tokens_BT, dtype=torch.bool)
            position_BT = torch.arange(tokens_BT.shape[1], device=tokens_BT.device).expand_as(tokens_BT)
        else:
            real_BT = real_BT.to(tokens_BT.device)
            position_BT = (real_BT.long().cumsum(1) - 1).clamp_min(0)
            extra = self.accepted(attention_mask=real_BT.long(), position_ids=position_BT)
        return Site(tokens_BT, real_BT, position_BT, real_BT.sum(1) if prompt_B is None else prompt_B), extra

    @cached_property
    def _accepts(self) -> frozenset[str]:
        return frozenset(signature(self.module.forward).parameters)

    def accepted(self, **options: Any) -> dict[str, Any]:
        """Those of the options that this family's forward pass takes."""
        return {name: value for name, value in options.items() if name in self._accepts}

    @cached_property
    def masks_padding(self) -> bool:
        """Whether padding on the left changes nothing, found by trying: recurrent models read it like text."""
        return habits.is_masked(self)

    @cached_property
    def causal(self) -> bool:
        """Whether what follows a token changes nothing at it, found by trying."""
        return habits.is_causal(self)

    @cached_property
    def caches(self) -> bool:
        """Whether a text can be continued from keys and values that the caller keeps, found by trying."""
        if "past_key_values" not in self._accepts or getattr(self.module, "_is_stateful", False):
            return False  # some families keep their state in the module, where callers would see each other's
        return habits.is_cached(self)

    def some_tokens(self, count: int) -> Int[Tensor, "1 T"]:
        """The separator and tokens from all over the vocabulary, to see what the model does with any text."""
        known = min(self.embedded_tokens, 2**15)
        tokens = [self.separator, *(known * part // count for part in range(1, count))]
        return torch.tensor([tokens], device=self.device)

    def padded(self, prompts: Sequence[Sequence[int]]) -> tuple[Int[Tensor, "B T"], Bool[Tensor, "B T"]]:
        """(tokens, which are real): the prompts as rows of one length, filled on the left."""
        longest = max(map(len, prompts), default=0)
        tokens_BT = torch.full((len(prompts), longest), self.separator)
        real_BT = torch.zeros_like(tokens_BT, dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            tokens_BT[row, longest - len(prompt) :] = torch.tensor(list(prompt))
            real_BT[row, longest - len(prompt) :] = True
        return tokens_BT.to(self.device), real_BT.to(self.device)

    @contextmanager
    def _hooked(self, readers: dict[str, Callable[..., None]], edits: Sequence[Edit], site: Site) -> Iterator[None]:
        """Hooks in place while the block runs: edits first, in their order, then readers."""
        for name in (*readers, *(edit.hook_name for edit in edits)):
            self.check_hook(name)

        def editor(edit: Edit) -> Callable[..., Tensor]:
            def hook(_: nn.Module, __: Any, out: Tensor) -> Tensor:
                return edit.apply(out, site)

            return hook

        handles = []
        try:
            for edit in edits:
                point = self.hook_points[edit.hook_name]
                handles.append(point.register_forward_hook(editor(edit)))
            for name, reader in readers.items():
                handles.append(self.hook_points[name].register_forward_hook(reader))
            with self.attention_for([*readers, *(edit.hook_name for edit in edits)]):
                yield
        finally:
            for handle in handles:
                handle.remove()

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
        settings: dict[str, Any] = {"temperature": temperature, "top_p": top_p, "seed": seed, "stop": stop}
        for step in self.stream(prompts, max_new_tokens=max_new_tokens, edits=edits, **settings):
            for answer, token in zip(answers, step, strict=True):
                if token is not None:
                    answer.append(token)
        return answers

    def cached_step(
        self, new_BT: Tensor, real_BT: Tensor, prompt_B: Tensor, edits: Sequence[Edit], cache: Any
    ) -> tuple[Float[Tensor, "B V"], Any]:
        """(logits after the last of the new tokens, keys and values so far); `real_BT` is of the whole text."""
        position_BT = (real_BT.long().cumsum(1) - 1).clamp_min(0)[:, -new_BT.shape[1] :]
        site = Site(new_BT, real_BT[:, -new_BT.shape[1] :], position_BT, prompt_B)
        extra = self.accepted(attention_mask=real_BT.long(), position_ids=position_BT, logits_to_keep=1)
        with self.turns.turn(), torch.inference_mode(), self._hooked({}, edits, site):
            out = self.module(new_BT, use_cache=True, past_key_values=cache, **extra)
        return out.logits[:, -1], out.past_key_values

    def check_generation(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, temperature: float, top_p: float
    ) -> None:
        """Raises InterpError when these prompts cannot be continued so: empty, too long, or no such sampling."""
        generation.check(self, prompts, max_new_tokens, temperature, top_p)

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

        Works with a key–value cache where the family has one. `temperature` 0 takes the likeliest token. Each row draws from its own
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

    def unembedding(self) -> tuple[Float[Tensor, "V D"], Float[Tensor, " D"]]:
        """(unembedding, gain of the final norm), in float32: a direction d moves the logits by (unembedding · gain) d, up to
        a positive scale common to all tokens. What a LayerNorm takes off is folded into the matrix. See `readout`.

        Raises InterpError when there is no unembedding, or a final norm that is not known.
        """
        return self._unembedding

    @cached_property
    def _unembedding(self) -> tuple[Tensor, Tensor]:
        layers = [name for name in self.hook_points if re.fullmatch(r"blocks\.\d+\.hook_(resid_post|out)", name)]
        last = max(layers, key=lambda name: int(name.split(".")[1]), default=None)
        with self.turns.turn():
            return read_unembedding(self.module, self._few_tokens, self.hook_points.get(last or ""), self.name)

    def neuron_outputs(self, width: int) -> dict[int, Float[Tensor, "M D"]]:
        """By layer, what a unit of each MLP neuron adds to a residual stream of that width; {} when it cannot be told."""
        return neuron_outputs(self.module, self.hook_points, width)
