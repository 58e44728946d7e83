"""The training loop as an iterator of steps; saving, printing and plotting subscribe to it.

Axes    B batch row, D d_in, F d_sae.
Source  Gao et al. 2024, "Scaling and evaluating sparse autoencoders": AuxK (appendix A.2), unit decoder rows with the
        parallel part of their gradient removed (A.3). Bussmann et al. 2024 for BatchTopK.
"""

import json
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.device import native_bfloat16
from interp.progress import bar
from interp.sae import SAE, BatchTopK, TopK, kernels
from interp.sae.batchtopk import threshold_for
from interp.training import signals
from interp.training.state import State, initial, load
from interp.types import InterpError

HELD_BACK = 65_536
INIT_ROWS = 65_536


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How to train; what to train is the architecture's."""

    tokens: int | None = None
    """Rows to train on; None: all that the batches give."""
    lr: float | None = None
    """Peak learning rate; None: 2e-3 / sqrt(d_sae / 9216), chosen on SmolLM2's layer 15."""
    warmup: float = 0.02
    """Share of the run over which the rate rises from 0."""
    decay: float = 0.5
    """Share of the run, at its end, over which it falls linearly to 0."""
    aux_alpha: float = 1 / 32
    aux_k: int | None = None
    """Dead features that AuxK lets explain the residual; None: d_in / 2."""
    dead_after: int = 500_000
    """Tokens without firing after which a feature counts as dead."""
    save_every: int = 1_000_000
    """Tokens between saved states."""
    seed: int = 0
    bfloat16: bool | None = None
    """The encoder's product in bfloat16; None: where the machine has it natively."""

    def __post_init__(self) -> None:
        if self.tokens is not None and self.tokens < 1:
            raise InterpError(f"tokens is {self.tokens}; it must be at least 1.")
        if self.lr is not None and not 0 < self.lr < 1:
            raise InterpError(f"lr is {self.lr}; it must lie between 0 and 1.")
        for name in ("warmup", "decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise InterpError(f"{name} is {getattr(self, name)}; it is a share of the run, 0 to 1.")

    def resolved(self, d_in: int, d_sae: int, tokens: int | None) -> "TrainConfig":
        """The same with every default that depends on sizes or on the machine filled in."""
        return replace(
            self,
            tokens=self.tokens or tokens,
            lr=self.lr or 2e-3 / (d_sae / 9216) ** 0.5,
            aux_k=self.aux_k or d_in // 2,
            bfloat16=native_bfloat16(torch.device("cpu")) if self.bfloat16 is None else self.bfloat16,
        )


@dataclass(frozen=True)
class Step:
    """One step of training, as told to whoever listens."""

    step: int
    tokens: int
    fvu: float
    """Of this batch, before the step."""
    l0: float
    dead: int
    """Features idle for `dead_after` tokens."""
    lr: float
    seconds: float
    sae: SAE | None = None
    """The finished SAE; only on the last step."""


def train(
    batches: Iterable[Tensor],
    architecture: BatchTopK | TopK,
    config: TrainConfig | None = None,
    *,
    held_out: Float[Tensor, "N D"] | None = None,
    into: str | Path | None = None,
    restart: bool = False,
) -> SAE:
    """The trained SAE. `batches` is any iterable of float tensors (B, d_in); no language model is needed.

    `held_out` rows set the threshold; without them the last 65,536 rows of the batches (or a tenth, if fewer) are
    kept back. With `into`, the state and a JSON log are kept there, and the same call goes on after a kill.
    """
    config = config or TrainConfig()
    total = config.tokens or _rows(batches) or 0
    last: Step | None = None
    log = Path(into) / "log.jsonl" if into else None
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
    with bar(f"train {type(architecture).__name__} {architecture.d_sae}", max(total, 1)) as advance:
        done = 0
        for last in steps(batches, architecture, config, held_out=held_out, into=into, restart=restart):
            advance(last.tokens - done, f"FVU {last.fvu:.3f}, L0 {last.l0:.0f}, dead {last.dead}")
            done = last.tokens
            if log is not None and (last.step % 50 == 0 or last.sae is not None):
                with log.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({k: v for k, v in asdict(_told(last)).items() if k != "sae"}) + "\n")
    if last is None or last.sae is None:
        raise InterpError("the batches gave no rows, so nothing was trained; check the corpus and the mask.")
    return last.sae


def _told(step: Step) -> Step:
    return Step(step.step, step.tokens, step.fvu, step.l0, step.dead, step.lr, step.seconds)


def _rows(batches: Any) -> int | None:
    if hasattr(batches, "__len__") and hasattr(batches, "batch_size"):
        return len(batches) * int(batches.batch_size)
    return None


def steps(
    batches: Iterable[Tensor],
    architecture: BatchTopK | TopK,
    config: TrainConfig | None = None,
    *,
    held_out: Float[Tensor, "N D"] | None = None,
    into: str | Path | None = None,
    restart: bool = False,
) -> Iterator[Step]:
    """The loop behind `train`: yields after every step, the last time with the finished SAE."""
    config = config or TrainConfig()
    total = config.tokens or _rows(batches)
    if total is None:
        raise InterpError("TrainConfig(tokens=…) is needed: these batches do not say how many rows they hold.")
    config = config.resolved(architecture.d_in, architecture.d_sae, total)
    lr = float(config.lr or 0.0)
    recipe = {"architecture": type(architecture).__name__, **asdict(architecture), **asdict(config)}
    folder = Path(into) if into else None
    if folder is not None and restart:
        (folder / "state.safetensors").unlink(missing_ok=True)
        (folder / "log.jsonl").unlink(missing_ok=True)
    state = load(folder, recipe, lr, _device(batches)) if folder else None
    source = _Source(batches, state.step if state else 0, 0 if held_out is not None else min(HELD_BACK, total // 10))
    if state is None:
        first = source.peek(INIT_ROWS)
        if first.shape[1] != architecture.d_in:
            raise InterpError(
                f"the batches have {first.shape[1]} columns and d_in is {architecture.d_in}; they must agree."
            )
        state = initial(first, architecture.d_sae, lr, config.seed)
    worker = _Worker(architecture, config, state)
    tokens = saved = source.tokens_before(state.step)
    event: Step | None = None
    with signals.deferred() as asked:
        for x_BD in source:
            began = time.perf_counter()
            rate = lr * _schedule(tokens / total, config)
            fvu, l0, dead = worker.step(x_BD, rate)
            tokens += len(x_BD)
            if event is not None:
                yield event
            event = Step(state.step, tokens, fvu, l0, dead, rate, time.perf_counter() - began)
            if folder and (asked() or tokens - saved >= config.save_every):
                state.save(folder, recipe)
                saved = tokens
            if asked():
                return  # the signal is raised again as `deferred` ends
            if tokens >= total:
                break
    if event is None:
        return
    kept = held_out if held_out is not None else source.kept()
    sae = finish(state, architecture, kept)
    if folder:
        state.save(folder, recipe)
    yield Step(event.step, event.tokens, event.fvu, event.l0, event.dead, event.lr, event.seconds, sae)


def _device(batches: Any) -> torch.device:
    return getattr(batches, "device", torch.device("cpu"))


def _schedule(done: float, config: TrainConfig) -> float:
    up = done / config.warmup if config.warmup > 0 else 1.0
    down = (1.0 - done) / config.decay if config.decay > 0 else 1.0
    return max(min(1.0, up, down), 1e-3)


class _Source:
    """Batches from number `first` on, with the last `back` rows never given out."""

    def __init__(self, batches: Any, first: int, back: int) -> None:
        if hasattr(batches, "from_batch"):
            self.iterator: Iterator[Tensor] = batches.from_batch(first)
        else:
            self.iterator = iter(batches)
            for _ in range(first):
                next(self.iterator, None)
        self.batch = int(getattr(batches, "batch_size", 0))
        self.back, self.queue = back, deque[Tensor]()

    def peek(self, rows: int) -> Tensor:
        """The first rows, which are still given out afterwards."""
        while sum(map(len, self.queue)) < rows and (x := next(self.iterator, None)) is not None:
            self.queue.append(_checked(x))
        if not self.queue:
            raise InterpError("the batches gave no rows, so nothing can be trained; check the corpus and the mask.")
        self.batch = self.batch or len(self.queue[0])
        return torch.cat(list(self.queue))[:rows].float()

    def tokens_before(self, step: int) -> int:
        return step * self.batch

    def __iter__(self) -> Iterator[Tensor]:
        while True:
            while sum(map(len, self.queue)) <= self.back + self.batch and (x := next(self.iterator, None)) is not None:
                self.queue.append(_checked(x))
            if sum(map(len, self.queue)) <= self.back or not self.queue:
                return
            yield self.queue.popleft().float()

    def kept(self) -> Tensor:
        return torch.cat(list(self.queue)).float()


def _checked(x: Any) -> Tensor:
    if not isinstance(x, Tensor) or x.ndim != 2:
        shape = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise InterpError(f"a batch is a tensor of shape (B, d_in); this one is {shape}.")
    return x


class _Worker:
    """One optimisation step at a time on a state."""

    def __init__(self, architecture: BatchTopK | TopK, config: TrainConfig, state: State) -> None:
        self.architecture, self.state = architecture, state
        self.config = config.resolved(architecture.d_in, architecture.d_sae, None)
        self.dtype = torch.bfloat16 if self.config.bfloat16 else torch.float32
        self.pre: Tensor | None = None

    @torch.no_grad()
    def step(self, raw_BD: Tensor, lr: float) -> tuple[float, float, int]:
        """(FVU, L0, dead) of the batch under the parameters before the step.

        Loss: the mean over rows of ‖x̂ - x‖² / d_in, plus AuxK's.
        """
        state, d_in = self.state, self.architecture.d_in
        x_BD = raw_BD * state.scale
        centred_BD = x_BD - state.b_dec
        coarse_BD = centred_BD.to(self.dtype)
        if self.pre is None or self.pre.shape[0] != len(x_BD):
            self.pre = torch.empty(len(x_BD), self.architecture.d_sae, dtype=self.dtype, device=x_BD.device)
        pre_BF = kernels.product(coarse_BD, state.W_enc.to(self.dtype), out=self.pre)
        active, state.hint = self.architecture.select(pre_BF, state.b_enc, state.hint)
        error_BD = kernels.decode(active, state.W_dec) - centred_BD
        square = float(error_BD.square().sum())
        if not square < float("inf"):
            raise InterpError(
                f"the loss is not finite at step {state.step + 1}; the last saved state is good. "
                "Look for massive activations in that batch, or lower lr."
            )
        g_BD = error_BD * (2 / (len(x_BD) * d_in))
        grads = kernels.gradients(active, centred_BD, g_BD, state.W_enc, state.W_dec)
        state.W_enc.grad, state.b_enc.grad, state.W_dec.grad = grads.W_enc, grads.b_enc, grads.W_dec
        state.b_dec.grad = g_BD.sum(0) + grads.b_dec_in
        dead_F = state.idle_F >= self.config.dead_after
        dead = int(dead_F.sum())
        if dead and self.config.aux_alpha > 0:
            self._aux(dead_F.nonzero().squeeze(1), centred_BD, error_BD)
        self._update(lr)
        state.idle_F += len(x_BD)
        state.idle_F[active.features] = 0
        variance = float((x_BD - x_BD.mean(0)).square().sum())
        return square / max(variance, 1e-30), len(active.rows) / len(x_BD), dead

    def _aux(self, dead: Tensor, centred_BD: Tensor, error_BD: Tensor) -> None:
        """Add the gradient of alpha ‖r - r̂‖² / (B d_in), r̂ what the strongest dead features make of the residual."""
        state, config = self.state, self.config
        aux_k = min(config.aux_k or 1, len(dead))
        W_enc, W_dec = state.W_enc[dead], state.W_dec[dead]
        pre = (centred_BD.to(self.dtype) @ W_enc.to(self.dtype).T).float() + state.b_enc[dead]
        top = pre.topk(aux_k, dim=1, sorted=False)
        code = torch.zeros_like(pre).scatter_(1, top.indices, top.values.relu())
        miss_BD = (code @ W_dec + error_BD) * (2 * config.aux_alpha / error_BD.numel())
        dz = (miss_BD @ W_dec.T) * (code > 0)
        for parameter, grad in (
            (state.W_enc, dz.T @ centred_BD),
            (state.b_enc, dz.sum(0)),
            (state.W_dec, code.T @ miss_BD),
        ):
            assert parameter.grad is not None
            parameter.grad.index_add_(0, dead, grad)

    def _update(self, lr: float) -> None:
        state = self.state
        grad = state.W_dec.grad
        assert grad is not None
        grad.addcmul_(torch.linalg.vecdot(grad, state.W_dec)[:, None], state.W_dec, value=-1)
        for group in state.optimiser.param_groups:
            group["lr"] = lr
        state.optimiser.step()
        state.W_dec.div_(state.W_dec.norm(dim=1, keepdim=True))
        state.step += 1


@torch.no_grad()
def finish(state: State, architecture: BatchTopK | TopK, held_out: Float[Tensor, "N D"]) -> SAE:
    """The SAE in raw units, its weights rounded to float16, its threshold measured on held-out rows after rounding.

    With x scaled by s: activations, biases and threshold are divided by s; W_enc and W_dec stay.
    """

    def rounded(x: Tensor) -> Tensor:
        return x.half().float()

    weights: dict[str, Any] = {
        "W_enc": rounded(state.W_enc.T.contiguous()),
        "b_enc": rounded(state.b_enc / state.scale),
        "W_dec": rounded(state.W_dec),
        "b_dec": rounded(state.b_dec / state.scale),
    }
    if isinstance(architecture, TopK):
        return SAE(**weights, k=architecture.k)
    bare = SAE(**weights, k=architecture.k)
    parts = [bare.pre_activations(x) for x in held_out[:HELD_BACK].split(4096)] if len(held_out) else []
    if not parts:
        raise InterpError("there are no held-out rows to measure the threshold on; give held_out, or more batches.")
    level = threshold_for(parts, architecture.k)
    return SAE(**weights, threshold=rounded(torch.full((architecture.d_sae,), level)))
