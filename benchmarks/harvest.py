"""Harvest speed against a bare Hugging Face forward pass of the same truncated model.

    python benchmarks/harvest.py

Ours runs through TransformerBridge's hook points to layer 15 and stops there; the bare model is cut after layer 15.
Batches of 16 x 256 tokens, bfloat16 where native, alternating.
"""

import torch
from common import alternate, ratio, report

from interp.models import open_model
from interp.models.embedded import smollm2_folder

HOOK, LAYER, ROUNDS = "blocks.15.hook_resid_post", 15, 12


def bare(attention: str, dtype: torch.dtype):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(smollm2_folder(), dtype=dtype, attn_implementation=attention).eval()
    model.model.layers = model.model.layers[: LAYER + 1]
    model.model.norm = torch.nn.Identity()
    return model.model


@torch.inference_mode()
def main() -> None:
    ours = {attention: open_model("smollm2", attention=attention) for attention in ("sdpa", "eager")}
    theirs = {attention: bare(attention, ours["sdpa"].dtype) for attention in ("sdpa", "eager")}
    tokens = torch.randint(3, 40_000, (16, 256), generator=torch.Generator().manual_seed(0))
    tokens[:, 0] = 0
    work = {f"interp {a}": (lambda m=m: m.run(tokens, [HOOK])) for a, m in ours.items()}
    work |= {f"hugging face {a}": (lambda m=m: m(tokens, use_cache=False)) for a, m in theirs.items()}
    seconds = alternate(work, ROUNDS)
    figures = {
        f"{name}, tokens/s": round(tokens.numel() / sorted(times)[len(times) // 2]) for name, times in seconds.items()
    }
    for mine in ("sdpa", "eager"):
        for other in ("sdpa", "eager"):
            middle, low, high = ratio(seconds[f"hugging face {other}"], seconds[f"interp {mine}"])
            figures[f"speed of interp {mine} over hugging face {other}"] = [round(x, 3) for x in (middle, low, high)]
    exact = (ours["sdpa"].run(tokens, [HOOK]).activations[HOOK] - theirs["sdpa"](tokens).last_hidden_state).abs().max()
    report(
        "harvest",
        figures | {"dtype": ours["sdpa"].dtype_name, "rounds": ROUNDS, "largest difference, sdpa": float(exact)},
    )


main()
