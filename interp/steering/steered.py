"""A model with the SAEs whose features are edited in it, and what is asked of the two together.

Axes    B prompt, T token, V vocabulary, D width of the residual stream.
"""

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.models import Edit, Model
from interp.sae import join
from interp.steering.binding import BoundEdit, Feature, Saes, bind_all
from interp.steering.compiling import Vocabulary, compile_bound, is_read_before, needs_a_pass
from interp.steering.edits import FeatureEdit, check_positions, describe_feature
from interp.steering.sampling import Sampling
from interp.types import InterpError

FORMAT = 1
"""Of records."""
ROWS = 96
"""Rows that are generated at a time."""
OnStep = Callable[[list[int | None]], None]
Rows = Sequence[Sequence[BoundEdit]]
"""Of each prompt, its own edits; or one list for all."""


@dataclass(frozen=True, eq=False)
class SteeredModel:
    """A model with the SAEs whose features are edited in it."""

    model: Model
    saes: Saes
    vocabulary: Vocabulary
    identity: Mapping[str, Any] = field(default_factory=dict)
    """Names and hashes for the record."""

    # ---- edits ----

    def bind(self, edits: Sequence[FeatureEdit | BoundEdit]) -> list[BoundEdit]:
        """The edits with all that they name, which can be made in this model.

        Raises InterpError when one cannot be: see `binding.bind`, and widths.
        """
        bound = bind_all(edits, self.saes)
        for each in {id(one): one for one in bound}.values():
            for name, row in each.rows.items():
                self._check_width(each.label, name, len(row))
            when = each.edit.when
            own = None if when is None or when.feature is None else describe_feature(when.feature)
            for label, feature in ((each.label, each.feature), (own or each.label, each.gate)):
                for hook in feature.home.sae.reads if feature is not None else ():
                    self._check_width(label, str(hook), hook.width)
        return bound

    def _check_width(self, label: str, hook_name: str, width: int) -> None:
        known = self.model.width(hook_name)
        if width != known:
            raise InterpError(
                f"{label} has width {width}, and {hook_name} of {self.model.name} has {known}; "
                "was it made for another model or hook point?"
            )

    def bind_rows(self, rows: Sequence[Sequence[FeatureEdit | BoundEdit]]) -> list[list[BoundEdit]]:
        """Several lists of edits, each as `bind` gives it."""
        bound = iter(self.bind([edit for edits in rows for edit in edits]))
        return [[next(bound) for _ in edits] for edits in rows]

    def compile(
        self,
        rows: Sequence[Sequence[FeatureEdit]],
        tokens_BT: Int[Tensor, "B T"] | None = None,
        real_BT: Bool[Tensor, "B T"] | None = None,
    ) -> list[Edit]:
        """The rows' edits as the model takes them: one list for all prompts, or one each.

        The texts are needed for features that are read where the edited pass has not been yet (see `compile_bound`).
        Raises InterpError when an edit cannot be made, or needs texts that are not given.
        """
        return self.compile_bound(self.bind_rows(rows), tokens_BT, real_BT)

    def compile_bound(
        self, rows: Rows, tokens_BT: Int[Tensor, "B T"] | None = None, real_BT: Bool[Tensor, "B T"] | None = None
    ) -> list[Edit]:
        """The rows' edits as the model takes them.

        A feature that is read where the edited pass has not been yet (a crosscoder's) is read in a pass over the texts
        without edits, which is run here. Raises InterpError when there are no texts for it.
        """
        made = compile_bound(rows, order=self._order(rows), vocabulary=self.vocabulary)
        if not made.clean_hooks:
            return made.edits
        if tokens_BT is None:
            raise InterpError(needs_a_pass(made.clean_hooks))
        seen = self.model.run(tokens_BT, list(made.clean_hooks), real_BT=real_BT).activations
        return made.after({name: seen[name] for name in made.clean_hooks})

    def _order(self, rows: Rows) -> Sequence[str]:
        """In which order hook points fire, where more than one matters."""
        hooks: set[str] = set()
        for bound in (bound for edits in rows for bound in edits):
            hooks |= {*bound.hook_names, bound.sinks.hook_name}
            for feature in (bound.feature, bound.gate):
                hooks |= set(feature.home.reads) if feature is not None else set()
        return self.model.hook_names() if len(hooks) > 1 else ()

    # ---- text ----

    def tokenize(self, texts: Sequence[str], sampling: Sampling | None = None) -> list[list[int]]:
        """Token ids of the prompts (see `Sampling`); InterpError for an empty or too long one."""
        sampling = sampling or Sampling()
        if not texts:
            raise InterpError("there is no prompt; give at least one.")
        for text in texts:
            if not isinstance(text, str):
                raise InterpError(f"the prompt {text!r} is no text; give strings.")
        if sampling.chat:
            return [self.model.chat([{"role": "user", "content": text}]) for text in texts]
        return [self.model.prompt(text, special=sampling.special) for text in texts]

    def decode(self, tokens: Sequence[int], stop: Sequence[str] = ()) -> str:
        """The answer as text, cut before the first stop string."""
        text = self.model.decode(tokens)
        return text[: min([text.find(each) for each in stop if each in text], default=len(text))]

    @cached_property
    def folded(self) -> list[str]:
        """The text of every token without case and spaces (spaces alone stay)."""
        return [text.strip().lower() or text for text in self.vocabulary()]

    @cached_property
    def unembedding(self) -> tuple[Float[Tensor, "V D"], Float[Tensor, " D"]]:
        """See `Model.unembedding`."""
        return self.model.unembedding()

    # ---- runs ----

    def request(
        self,
        prompts: Sequence[Sequence[int]],
        variants: Sequence[Sequence[FeatureEdit | BoundEdit]],
        sampling: Sampling,
    ) -> "SteerRequest":
        """Prompts (token ids) and sets of edits, any of which can be run with any.

        Raises InterpError, before anything is computed, when a prompt cannot be continued so, or under one of the sets.
        """
        bound = self.bind_rows(variants)
        check_positions((one.edit for edits in bound for one in edits), prompts)
        self.model.check_generation(prompts, sampling.max_new_tokens, sampling.temperature, sampling.top_p)
        order = self._order(bound)
        for one in (one for edits in bound for one in edits):
            if one.feature is not None and not is_read_before(one, order):
                raise InterpError(needs_a_pass(one.feature.home.reads))
        return SteerRequest(self, [list(prompt) for prompt in prompts], bound, sampling)

    def activation(self, feature: Feature, x: Mapping[str, Tensor]) -> Tensor:
        """The feature's activation, from what the model made at each hook point that it reads."""
        own = {name: x[name].float() for name in feature.home.reads}
        return feature.home.sae.encode_feature(join(feature.home.sae, own), feature.number)

    def record(self) -> dict[str, Any]:
        """What a replay depends on besides the request."""
        return {
            "format": FORMAT,
            **self.identity,
            "saes": {name: home.sha256 for name, home in self.saes.items() if name},
            "dtype": self.model.dtype_name,
            "attention": self.model.attention,
            "device": self.model.device.type,
            "threads": torch.get_num_threads(),
            "cpu": torch.backends.cpu.get_cpu_capability() + " " + platform.machine(),
        }


@dataclass(frozen=True, eq=False)
class SteerRequest:
    """Prompts and sets of edits that were looked up and are known to be possible; made by `SteeredModel.request`."""

    steered: SteeredModel
    prompts: list[list[int]]
    variants: list[list[BoundEdit]]
    sampling: Sampling

    def generate(self, rows: Sequence[tuple[int, int, int]], on_step: OnStep | None = None) -> list[list[int]]:
        """New tokens of each row, which is (place of its prompt, place of its set of edits, seed); `ROWS` run at a time."""
        answers: list[list[int]] = []
        for start in range(0, len(rows), ROWS):
            some = rows[start : start + ROWS]
            made: list[list[int]] = [[] for _ in some]
            steps = self.steered.model.stream(
                [self.prompts[prompt] for prompt, _, _ in some],
                edits=self.steered.compile_bound([self.variants[variant] for _, variant, _ in some]),
                seed=[seed for _, _, seed in some],
                max_new_tokens=self.sampling.max_new_tokens,
                temperature=self.sampling.temperature,
                top_p=self.sampling.top_p,
                stop=self.sampling.stop,
            )
            for step in steps:
                for answer, token in zip(made, step, strict=True):
                    if token is not None:
                        answer.append(token)
                if on_step is not None:
                    on_step(step)
            answers += made
        return answers
