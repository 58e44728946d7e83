"""Generate with and without edits, from the same random numbers."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from interp.models import Edit, Model
from interp.render import Html, table_html, tokens_html


@dataclass(frozen=True, kw_only=True)
class SteerRun:
    """What the model says with and without the edits, and all that is needed to do it again."""

    prompt: str
    edits: list[dict[str, Any]]
    baseline: str
    steered: str
    prompt_tokens: list[int]
    baseline_tokens: list[int]
    steered_tokens: list[int]
    seed: int
    temperature: float
    top_p: float
    model: str
    model_sha256: str
    dtype: str
    attention: str
    sae: str
    sae_sha256: str
    versions: dict[str, str]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, ensure_ascii=False)

    def _repr_html_(self) -> str:
        def shown(text: str) -> Html:
            return Html(tokens_html([text], [0.0], 1.0))

        return table_html(["", self.prompt], [("baseline", shown(self.baseline)), ("steered", shown(self.steered))])


def generate(
    model: Model,
    prompt: Sequence[int],
    edits: Sequence[Edit],
    *,
    max_new_tokens: int = 40,
    seed: int = 0,
    temperature: float = 0.0,
    top_p: float = 1.0,
) -> tuple[list[int], list[int]]:
    """(baseline, steered) token ids that follow the prompt; both draw the same random numbers."""
    settings: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "seed": seed,
        "temperature": temperature,
        "top_p": top_p,
    }
    (baseline,) = model.generate([prompt], **settings)
    (steered,) = model.generate([prompt], edits=edits, **settings) if edits else ([*baseline],)
    return baseline, steered
