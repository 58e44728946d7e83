"""A model with named hook points: run it, read it, edit it, generate with it.

Axes    B prompt, T token, D width at a hook point, V vocabulary.

The class knows nothing of any library of models: it holds a module, a tokenizer and a table from hook name
to the submodule whose output that hook point is. `bridge.py` fills the table from TransformerLens.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from interp.models.weights import weights_sha256
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
    generated: bool = False
    """Whether these tokens were generated, and not part of the prompt."""
    prompt_B: Int[Tensor, " B"] | None = None
    """Tokens of each row's prompt, the first position counted."""


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
    _fingerprint: str | None = None
    _shapes: dict[str, tuple[int, ...]] | None = None

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.module.parameters()).dtype

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    def fingerprint(self) -> str:
        """SHA-256 of the weights' names, types and bytes (about a second for 135M parameters)."""
        if self._fingerprint is None:
            self._fingerprint = weights_sha256(self.module.state_dict())
        return self._fingerprint

    # ---- text ----

    def tokenize(self, text: str) -> list[int]:
        """Token ids of the text alone: no bos, no separator."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def prompt(self, text: str) -> list[int]:
        """Token ids as the model should see them: the separator, then the text.

        Raises InterpError when the text is empty or longer than the context.
        """
        tokens = self.tokenize(text)
        if not tokens:
            raise InterpError("the text is empty; give at least one word.")
        if len(tokens) + 1 > self.n_ctx:
            raise InterpError(
                f"the text has {len(tokens):,} tokens, and {self.name} reads at most {self.n_ctx - 1:,}; shorten it."
            )
        return [self.separator, *tokens]

    def chat(self, messages: list[dict[str, str]]) -> list[int]:
        """Token ids of a conversation in the model's own template, with nothing put in front."""
        if not getattr(self.tokenizer, "chat_template", None):
            raise InterpError(f"{self.name} has no chat template; pass raw text instead.")
        ids = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
        return [int(token) for token in ids]

    def decode(self, tokens: Sequence[int]) -> str:
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
        if self._shapes is None:
            self._shapes = self._run_for_shapes()
        return self._shapes

    def _run_for_shapes(self) -> dict[str, tuple[int, ...]]:
        # An alias names the same module as its target, so one module can answer for many names.
        first: dict[int, tuple[int, ...]] = {}
        handles = []
        for point in set(self.hook_points.values()):

            def see(module: nn.Module, _: Any, out: Any) -> None:
                if isinstance(out, Tensor):
                    first.setdefault(id(module), tuple(out.shape[2:]))

            handles.append(point.register_forward_hook(see))
        try:
            with torch.inference_mode(), self.attention_for(list(self.hook_points)):
                tokens = torch.full((1, 4), self.separator, device=self.device)
                self.module(tokens, use_cache=False)
        finally:
            for handle in handles:
                handle.remove()
        order = {key: rank for rank, key in enumerate(first)}
        fired = [name for name, point in self.hook_points.items() if id(point) in first]
        fired.sort(key=lambda name: order[id(self.hook_points[name])])
        return {name: first[id(self.hook_points[name])] for name in fired}

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
    ) -> Run:
        """Activations at the hook points after the edits, and the logits if asked.

        Without `logits=True` the pass ends at the last hook point asked for. Positions where `real_BT` is
        false are padding on the left: they are neither attended to nor counted. With `last`, logits are computed
        at that many positions from the end only.
        """
        logits = not hooks if logits is None else logits
        tokens_BT = tokens_BT.to(self.device)
        site, extra = self.site(tokens_BT, real_BT)
        seen: dict[str, Tensor] = {}
        wanted = set(hooks)

        def keep(name: str) -> Callable[..., None]:
            def hook(_: nn.Module, __: Any, out: Tensor) -> None:
                seen[name] = out
                if not logits and len(seen) == len(wanted):
                    raise _Stop

            return hook

        readers = {name: keep(name) for name in dict.fromkeys(hooks)}
        if last:
            extra = extra | {"logits_to_keep": last}
        out = None
        with torch.inference_mode(), self._hooked(readers, edits, [site]), suppress(_Stop):
            out = self.module(tokens_BT, use_cache=False, **extra)
        if len(seen) < len(wanted):
            missing = sorted(wanted - set(seen))
            raise InterpError(f"{missing[0]} did not fire when {self.name} ran; try another hook point.")
        return Run(activations=seen, logits=out.logits if out is not None else None)

    def site(self, tokens_BT: Tensor, real_BT: Tensor | None = None) -> tuple[Site, dict[str, Any]]:
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
            extra = {"attention_mask": real_BT.long(), "position_ids": position_BT}
        return Site(tokens_BT, real_BT, position_BT, prompt_B=real_BT.sum(1)), extra

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
    def _hooked(
        self, readers: dict[str, Callable[..., None]], edits: Sequence[Edit], site: list[Site]
    ) -> Iterator[None]:
        """Hooks in place while the block runs: edits first, in their order, then readers."""
        for name in (*readers, *(edit.hook_name for edit in edits)):
            self.check_hook(name)

        def editor(edit: Edit) -> Callable[..., Tensor]:
            def hook(_: nn.Module, __: Any, out: Tensor) -> Tensor:
                return edit.apply(out, site[0])

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

    def check_generation(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, temperature: float, top_p: float
    ) -> None:
        """Raises InterpError when these prompts cannot be continued so: empty, too long, or no such sampling."""
        if not prompts or min(map(len, prompts)) == 0:
            raise InterpError("there is no prompt to continue; give at least one token.")
        longest = max(map(len, prompts))
        if max_new_tokens < 1:
            raise InterpError(f"{max_new_tokens} new tokens cannot be generated; ask for at least 1.")
        if longest + max_new_tokens > self.n_ctx:
            raise InterpError(
                f"a prompt of {longest:,} tokens and {max_new_tokens:,} new ones exceed the {self.n_ctx:,} "
                f"that {self.name} reads; shorten one of them."
            )
        if not 0 <= temperature < float("inf"):
            raise InterpError(f"the temperature is {temperature}; it must be 0 (the likeliest token) or more.")
        if not 0 < top_p <= 1:
            raise InterpError(f"top_p is {top_p}; it must be above 0 and at most 1.")

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

        Works with a key–value cache. `temperature` 0 takes the likeliest token. Each row draws from its own
        generator: seeded by (seed, row) for one seed, by `seed[row]` as the first row would be for a list of them;
        so a row's random numbers do not depend on what else runs. A row ends with the tokenizer's eos, or with the
        token that completes one of the strings `stop`; both are kept. Raises InterpError (see `check_generation`).
        """
        self.check_generation(prompts, max_new_tokens, temperature, top_p)
        for edit in edits:
            self.check_hook(edit.hook_name)
        if not isinstance(seed, int) and len(seed) != len(prompts):
            raise InterpError(f"{len(seed)} seeds were given for {len(prompts)} prompts; give one each.")
        each = range(len(prompts)) if isinstance(seed, int) else [0] * len(prompts)
        seeds = [seed] * len(prompts) if isinstance(seed, int) else seed
        draws = [torch.Generator().manual_seed(s * 1_000_003 + row) for s, row in zip(seeds, each, strict=True)]
        return self._steps(
            prompts, max_new_tokens, edits, lambda logits: _choose(logits, temperature, top_p, draws), stop
        )

    def _steps(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        edits: Sequence[Edit],
        choose: Callable[[Tensor], list[int]],
        stop: Sequence[str],
    ) -> Iterator[list[int | None]]:
        tokens_BT, real_BT = self.padded(prompts)
        site, extra = self.site(tokens_BT, real_BT)
        ended = [False] * len(prompts)
        answers: list[list[int]] = [[] for _ in prompts]
        cache, eos, prompt_B = None, self.tokenizer.eos_token_id, site.prompt_B
        for _ in range(max_new_tokens):
            # Hooks are in place for the step only: whoever takes the tokens may run the model in between.
            with torch.inference_mode(), self._hooked({}, edits, [site]):
                out = self.module(site.tokens_BT, use_cache=True, past_key_values=cache, logits_to_keep=1, **extra)
                chosen = choose(out.logits[:, -1])
            cache = out.past_key_values
            yield [None if over else token for over, token in zip(ended, chosen, strict=True)]
            for row, token in enumerate(chosen):
                answers[row].append(token)
                ended[row] = ended[row] or token == eos or (bool(stop) and self._stops(answers[row], stop))
            if all(ended):
                return
            step_B1 = torch.tensor(chosen, device=self.device)[:, None]
            real_BT = torch.cat([real_BT, torch.ones_like(step_B1, dtype=torch.bool)], 1)
            position_B1 = site.position_BT[:, -1:] + 1
            site = Site(step_B1, real_BT[:, -1:], position_B1, generated=True, prompt_B=prompt_B)
            extra = {"attention_mask": real_BT.long(), "position_ids": position_B1}

    def _stops(self, answer: list[int], stop: Sequence[str]) -> bool:
        """Whether the last tokens hold one of the strings."""
        text = self.decode(answer[-4 * max(map(len, stop)) - 4 :])
        return any(each in text for each in stop)

    # ---- the way out ----

    def unembedding(self) -> tuple[Float[Tensor, "V D"], Float[Tensor, " D"]]:
        """The unembedding matrix and the final norm's gain, in float32.

        A direction d in the residual stream moves the logits by about W_U (gain · d) over the norm's scale,
        which is positive and common to all tokens: it orders tokens, and is left out.
        """
        find: Any = getattr(self.module, "get_output_embeddings", lambda: None)
        head = find()
        named = head.named_parameters() if head is not None else ()
        weight = next((p for n, p in named if n.endswith("weight")), None)
        if weight is None:
            raise InterpError(f"{self.name} has no unembedding, so logit effects cannot be had.")
        # The one norm outside the layers; the bridge puts `_original_component` into the name.
        norms = (
            p
            for n, p in self.module.named_parameters()
            if re.search(r"(^|\.)(norm|ln_f|final_layer_norm|final_layernorm)\.(_original_component\.)?weight$", n)
            and not re.search(r"\.\d+\.", n)
            and p.shape == weight.shape[1:]
        )
        gain = next(norms, torch.ones(weight.shape[1]))
        return weight.detach().float(), gain.detach().float()

    def neuron_outputs(self, width: int) -> dict[int, Float[Tensor, "M D"]]:
        """By layer, what a unit of each MLP neuron adds to a residual stream of that width; {} when it cannot be told."""
        found: dict[int, Tensor] = {}
        for layer in range(10_000):
            hook, out = (self.hook_points.get(f"blocks.{layer}.mlp.{name}") for name in ("hook_post", "out.hook_in"))
            if hook is None or out is None:
                return found
            owner = next((m for m in self.module.modules() if getattr(m, "hook_in", None) is out), None)
            weight = getattr(getattr(owner, "original_component", owner), "weight", None)
            if weight is None or weight.ndim != 2:
                return {}
            # A Linear keeps (out, in); GPT-2's Conv1D keeps (in, out).
            linear = isinstance(getattr(owner, "original_component", owner), nn.Linear)
            rows = (weight.T if linear else weight).detach().float()
            if rows.shape[1] != width:
                return {}
            found[layer] = rows.contiguous()
        return found


NUCLEUS = 512
"""How many of the likeliest tokens are sorted first when drawing with `top_p`; a row that needs more sorts all."""


def _choose(logits_BV: Tensor, temperature: float, top_p: float, draws: Sequence[torch.Generator]) -> list[int]:
    """One token a row: the likeliest, or a draw from the smallest set with probability `top_p`.

    One uniform number a row and step, so that two runs with one seed stay comparable whatever they drew before.
    """
    if temperature <= 0:
        return [int(token) for token in logits_BV.argmax(-1).tolist()]
    probability_BV = (logits_BV.float().cpu() / temperature).softmax(-1)
    point_B = torch.stack([torch.rand((), generator=draw) for draw in draws])
    if top_p >= 1:
        mass_BV = probability_BV.double().cumsum(-1)
        found = torch.searchsorted(mass_BV, (point_B.double() * mass_BV[:, -1])[:, None], right=True).squeeze(1)
        return [int(token) for token in found.clamp_max(logits_BV.shape[1] - 1).tolist()]
    top = probability_BV.topk(min(NUCLEUS, logits_BV.shape[1]), dim=-1)
    chosen = []
    for row, point in enumerate(point_B):
        values, order = top.values[row], top.indices[row]
        if values.sum() < top_p:
            values, order = probability_BV[row].sort(descending=True)
        kept = values.cumsum(-1) - values < top_p
        kept[0] = True
        mass = (values * kept).cumsum(-1)
        chosen.append(int(order[min(int((mass <= point * mass[-1]).sum()), len(order) - 1)]))
    return chosen
