"""A dense Llama as a mixture of experts, the text that its experts are trained on, and that training (recipes/upcycled.py).

Axes    S step, L language, T position, E expert.
Source  Komatsuzaki et al. 2023, "Sparse upcycling": experts that begin as copies of the dense model's MLP.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from interp import places
from interp.corpus import Corpus, Document, mix
from interp.progress import bar

ROUTER_STD = 0.02
"""Of the weights that a router begins with."""
TRIES = 30
"""Pieces of a document that are looked at for one to take."""


def upcycle(dense: nn.Module, *, experts: int, top_k: int, seed: int, router_std: float = ROUTER_STD) -> Any:
    """transformers' MixtralForCausalLM with the Llama's weights: every expert of a layer is a copy of its gated MLP, the routers
    are drawn from the seed. Its logits are the Llama's, for the weights of the chosen experts sum to one."""
    from transformers import MixtralConfig, MixtralForCausalLM

    old: Any = dense.config
    same = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "head_dim")
    same += ("num_key_value_heads", "hidden_act", "max_position_embeddings", "rms_norm_eps", "tie_word_embeddings")
    same += ("rope_parameters", "bos_token_id", "eos_token_id", "pad_token_id")
    config = MixtralConfig(
        **{name: getattr(old, name) for name in same}, num_local_experts=experts, num_experts_per_tok=top_k
    )
    config._experts_implementation = "eager"
    with torch.device("meta"):
        made = MixtralForCausalLM(config)
    draw = torch.Generator().manual_seed(seed)
    weights = {name: value for name, value in dense.state_dict().items() if ".mlp." not in name}
    for number, layer in enumerate(dense.model.layers):  # type: ignore[union-attr, arg-type]
        mlp: Any = layer.mlp
        gate_up, down = torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]), mlp.down_proj.weight
        router = torch.randn(experts, old.hidden_size, generator=draw) * router_std
        name = f"model.layers.{number}.mlp"
        weights |= {
            f"{name}.gate.weight": router.to(down.dtype),
            f"{name}.experts.gate_up_proj": gate_up.detach().expand(experts, -1, -1).clone(),
            f"{name}.experts.down_proj": down.detach().expand(experts, -1, -1).clone(),
        }
    made.load_state_dict(weights, assign=True)
    made.model.rotary_emb = type(made.model.rotary_emb)(config)  # its buffers are in no state_dict
    made.tie_weights()
    return made.eval()


def mixed(dense: Any, mixture: Any, layers: Sequence[int]) -> dict[str, nn.Parameter]:
    """Puts the mixture's experts and routers into the dense model at these layers, and gives their parameters, which alone are
    trained. The layers outside compute what their copies would, at the price of one."""
    dense.requires_grad_(False)
    found: dict[str, nn.Parameter] = {}
    for layer in layers:
        block = mixture.model.layers[layer].mlp
        dense.model.layers[layer].mlp = block
        found |= {f"model.layers.{layer}.mlp.{name}": p.requires_grad_(True) for name, p in block.named_parameters()}
    return found


def routers_of(module: nn.Module) -> list[Any]:
    """The routers of a mixture's layers, in their order."""
    return [part for part in module.modules() if type(part).__name__ == "MixtralTopKRouter"]


def router_weight(folder: Path, layer: int) -> Tensor:
    """The router of a layer, as a mixture's folder has it."""
    with safe_open(folder / "model.safetensors", "pt") as weights:
        (name,) = (key for key in weights.keys() if f".{layer}." in key and key.endswith(".gate.weight"))  # noqa: SIM118
        return weights.get_tensor(name)  # type: ignore[no-any-return]


def one_copy(module: nn.Module, layers: Sequence[int]) -> None:
    """Sends tokens to one expert in all other layers, whose experts are still copies of each other: their sum is the same."""
    for layer, router in enumerate(routers_of(module)):
        if layer not in layers:
            router.top_k = 1


# ---- text ----


def in_pieces(corpus: Corpus, chars: int, split: str) -> Corpus:
    """One piece of each document of a split, in an order drawn from their SHA-256: so that many documents fit into few tokens.

    What counts is the document's split. A piece has another SHA-256, and would be passed over where that says `final`: so the
    first piece is taken whose own says `train`.
    """

    def read() -> Iterator[Document]:
        for doc in corpus.documents(split):
            for first in range(0, min(len(doc.text), TRIES * chars), chars):
                piece = replace(doc, text=doc.text[first : first + chars])
                if piece.split == "train" and piece.text.strip():
                    yield piece
                    break

    name = f"{corpus.name}, {split} documents, {chars} characters of each"
    return mix([(replace(corpus, name=name, read=read, mixed=None), 1.0)])


# ---- training ----


@dataclass(frozen=True, kw_only=True)
class Training:
    """How experts and routers are trained."""

    lr: float = 3e-4
    router_lr: float = 1e-3
    balance: float = 0.02
    """Of transformers' load-balancing loss, beside the loss of the next token."""
    warmup: int = 10
    """Steps; after them the rate falls in a line to a tenth."""
    save_every: int = 24

    def rate(self, step: int, steps: int) -> float:
        """The part of the learning rate at a step."""
        left = 1 - max(step - self.warmup, 0) / max(steps - self.warmup, 1)
        return min((step + 1) / self.warmup, 0.1 + 0.9 * left)


def train(
    dense: Any,
    trained: Mapping[str, nn.Parameter],
    rows_SLT: Int[Tensor, "S L T"],
    separator: int,
    into: Path,
    config: Training,
) -> list[dict[str, float]]:
    """Trains on one row of each language at a step, from where the folder's state stands; gives the losses of every step."""
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

    routers = [p for name, p in trained.items() if ".gate." in name]
    others = [p for name, p in trained.items() if ".gate." not in name]
    optimiser = torch.optim.Adam([{"params": others, "lr": config.lr}, {"params": routers, "lr": config.router_lr}])
    rates = [group["lr"] for group in optimiser.param_groups]
    log = _resume(into, trained, optimiser)
    logits: list[Tensor] = []
    gates = routers_of(dense)
    handles = [gate.register_forward_hook(lambda _, __, out: logits.append(out[0])) for gate in gates]
    with bar("training", len(rows_SLT)) as advance:
        advance(len(log), "")
        for step in range(len(log), len(rows_SLT)):
            rows = rows_SLT[step]
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * config.rate(step, len(rows_SLT))
            logits.clear()
            loss = dense(rows, labels=rows.masked_fill(rows == separator, -100)).loss
            balance = load_balancing_loss_func(tuple(logits), gates[0].num_experts, gates[0].top_k)
            optimiser.zero_grad()
            (loss + config.balance * balance).backward()
            nn.utils.clip_grad_norm_(trained.values(), 1.0)
            optimiser.step()
            log.append({"loss": round(float(loss.detach()), 5), "balance": round(float(balance.detach()), 5)})
            if (step + 1) % config.save_every == 0 or step + 1 == len(rows_SLT):
                _keep(into, trained, optimiser, log)
            advance(1, f"loss {log[-1]['loss']:.3f}")
    for handle in handles:
        handle.remove()
    return log


def _keep(into: Path, trained: Mapping[str, nn.Parameter], optimiser: Any, log: list[dict[str, float]]) -> None:
    tensors = {}
    for name, parameter in trained.items():
        state = optimiser.state[parameter]
        tensors |= {name: parameter.detach(), f"{name}:mean": state["exp_avg"], f"{name}:square": state["exp_avg_sq"]}
    into.mkdir(parents=True, exist_ok=True)
    with places.whole_file(into / "state.safetensors") as partial:
        save_file(tensors, partial, metadata={"log": json.dumps(log)})


def _resume(into: Path, trained: Mapping[str, nn.Parameter], optimiser: Any) -> list[dict[str, float]]:
    file = into / "state.safetensors"
    if not file.exists():
        return []
    with safe_open(file, "pt") as opened, torch.no_grad():
        log: list[dict[str, float]] = json.loads(opened.metadata()["log"])
        for name, parameter in trained.items():
            parameter.copy_(opened.get_tensor(name))
            optimiser.state[parameter] = {
                "step": torch.tensor(float(len(log))),
                "exp_avg": opened.get_tensor(f"{name}:mean"),
                "exp_avg_sq": opened.get_tensor(f"{name}:square"),
            }
    return log
