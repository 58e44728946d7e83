"""Runs peers' own SAE trainers in their virtual environment, for step times and for weights from the same rows.

    OMP_NUM_THREADS=2 .peers/bin/python benchmarks/peers.py < requests > answers

One JSON object a line in, one a line out; whatever the libraries print goes to stderr. Imports nothing of `interp`.

    {"do": "make", "id": "a", "library": "saelens", "architecture": "topk", "rows": "x.safetensors", "d_sae": 9216, ...}
    {"do": "step", "id": "a"}                     one optimisation step on the next batch: {"seconds": 1.2}
    {"do": "train", "id": "a", "out": "folder"}   a fresh run: weights.safetensors and result.json, which is the answer
    {"do": "versions"}

Every answer to what could not be done is {"error": "a sentence"}.

Weights  Raw input units, x_hat = z @ W_dec + b_dec with pre = (x - b_dec) @ W_enc + b_enc. A `threshold` (d_sae) means
         z = relu(pre) where pre > threshold; topk keeps the k largest; gated has b_gate, b_mag, r_mag and no b_enc.
         Decoder rows are of unit norm, except sparsify's: it selects on pre, so scaling them would select others.
Rows     One tensor `x` (N, d_in); batch i is rows i * batch onwards, wrapping round, as float32.
Recipes  The library's default where it has one, its own documentation's example where that is all there is; a number
         of steps that a short run would not reach is scaled to the run. Each class says what it takes from where.
"""

import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import sys
import tempfile
import time
import traceback
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

ARCHITECTURES = ("standard", "gated", "topk", "batchtopk", "jumprelu", "matryoshka")
PENALISED = ("standard", "gated", "jumprelu")
PACKAGES = {"saelens": "sae-lens", "sparsify": "eai-sparsify", "dictionary_learning": "dictionary_learning"}
CHECKED_ROWS = 1024
NOT_SETTINGS = ("layer", "lm_name", "wandb_name", "submodule_name", "device", "seed", "activation_dim", "dict_size")

# Of dictionary_learning: each architecture's module and trainer, and our names for its tensors.
TRAINERS = {
    "standard": ("standard", "StandardTrainer"),
    "gated": ("gdm", "GatedSAETrainer"),
    "topk": ("top_k", "TopKTrainer"),
    "batchtopk": ("batch_top_k", "BatchTopKTrainer"),
    "jumprelu": ("jumprelu", "JumpReluTrainer"),
    "matryoshka": ("matryoshka_batch_top_k", "MatryoshkaBatchTopKTrainer"),
}
NAMES = {
    "encoder.weight": "W_enc",
    "encoder.bias": "b_enc",
    "decoder.weight": "W_dec",
    "bias": "b_dec",
    "decoder_bias": "b_dec",
    "gate_bias": "b_gate",
    "mag_bias": "b_mag",
} | {name: name for name in ("W_enc", "b_enc", "W_dec", "b_dec", "r_mag", "threshold")}


class Refused(Exception):
    """A request that cannot be met; its message is the answer."""


@dataclass(frozen=True, kw_only=True)
class Request:
    library: str
    architecture: str
    rows: str
    d_sae: int
    k: int = 32
    """Latents a row: exact for topk, the mean for batchtopk and matryoshka, the target of dictionary_learning's jumprelu."""
    batch: int = 4096
    tokens: int = 500_000
    autocast: bool = False
    seed: int = 0
    lr: float | None = None
    l1: float | None = None
    """Weight of the sparsity penalty, whatever the architecture calls it; None for the library's own."""

    def __post_init__(self):
        if self.library not in PACKAGES:
            raise Refused(f"no library {self.library!r}; there are {', '.join(PACKAGES)}")
        if self.architecture not in ARCHITECTURES:
            raise Refused(f"no architecture {self.architecture!r}; there are {', '.join(ARCHITECTURES)}")
        if self.library == "sparsify" and self.architecture != "topk":
            raise Refused(f"sparsify trains topk, not {self.architecture}")
        if self.autocast and self.library != "saelens":
            raise Refused(f"{self.library} uses bfloat16 autocast on CUDA only")
        if self.l1 is not None and self.architecture not in PENALISED:
            raise Refused(f"{self.architecture} has no sparsity penalty, so no l1")
        if not 0 < self.k <= self.d_sae:
            raise Refused(f"k {self.k} is not from 1 to d_sae {self.d_sae}")
        if self.steps < 10:
            raise Refused(f"tokens {self.tokens} make {self.steps} batches of {self.batch}; 10 is the least")

    @property
    def steps(self) -> int:
        return self.tokens // self.batch


class Rows:
    """Batches of a cached activation file, in its order."""

    def __init__(self, path: str, batch: int):
        self.file = safe_open(path, framework="pt")
        self.x, self.size = self.file.get_slice("x"), batch
        self.count, self.d_in = self.x.get_shape()

    def __len__(self) -> int:
        return self.count // self.size

    def batch(self, i: int) -> Tensor:
        start, parts, missing = i * self.size % self.count, [], self.size
        while missing:
            parts.append(self.x[start : start + missing])
            missing, start = missing - len(parts[-1]), 0
        return torch.cat(parts).float()


class SAELens:
    """SAETrainer over our rows, as its `fit` drives it.

    Adam (0.9, 0.999), lr 3e-4 (SAETrainerConfig and LanguageModelSAERunnerConfig), constant, no warm-up, falling to 0 over
    the last fifth (their tutorial, and their JumpReLU page); clipped to norm 1. Activations scaled to a mean norm of
    sqrt(d_in), estimated by their ActivationScaler and folded in at the end. From docs/training_saes.md: l1 5 warmed up
    over a twentieth; JumpReLU with the tanh penalty, l0 5 warmed up over the whole run; matryoshka widths 1/4, 1/2, 1.
    """

    def __init__(self, request: Request, rows: Rows):
        import sae_lens
        from sae_lens.config import LoggingConfig, SAETrainerConfig
        from sae_lens.training.sae_trainer import SAETrainer

        stem, extra = self._recipe(request)
        size = {"d_in": rows.d_in, "d_sae": request.d_sae, "normalize_activations": "expected_average_only_in"}
        config = getattr(sae_lens, f"{stem}TrainingSAEConfig")(**size, **extra)
        torch.manual_seed(request.seed)
        sae = getattr(sae_lens, f"{stem}TrainingSAE")(config)
        lr = request.lr or 3e-4
        schedule = {"lr": lr, "lr_end": lr / 10, "lr_decay_steps": request.steps // 5}
        settings = SAETrainerConfig(
            total_training_samples=request.steps * request.batch,
            train_batch_size_samples=request.batch,
            autocast=request.autocast,
            logger=LoggingConfig(log_to_wandb=False),
            **schedule,
        )
        batches = map(rows.batch, range(request.steps))
        self.trainer = SAETrainer(settings, sae, batches)
        count = min(settings.n_batches_for_norm_estimate, max(len(rows), 1), request.steps)
        self.trainer.activation_scaler.estimate_scaling_factor(rows.d_in, batches, count)
        betas = [settings.adam_beta1, settings.adam_beta2]
        scale = self.trainer.activation_scaler.scaling_factor
        self.settings = {"optimiser": "Adam", "betas": betas, "scale": scale, **schedule, **extra}

    @staticmethod
    def _recipe(request: Request) -> tuple[str, dict]:
        """Stem of their class names, and what its configuration takes besides the sizes."""
        steps, width, penalty = request.steps, request.d_sae, 5.0 if request.l1 is None else request.l1
        l1 = {"l1_coefficient": penalty, "l1_warm_up_steps": steps // 20}
        tanh = {"jumprelu_sparsity_loss_mode": "tanh", "jumprelu_bandwidth": 2.0, "jumprelu_init_threshold": 0.1}
        l0 = {"l0_coefficient": penalty, "l0_warm_up_steps": steps, "pre_act_loss_coefficient": 3e-6}
        return {
            "standard": ("Standard", l1),
            "gated": ("Gated", l1),
            "topk": ("TopK", {"k": request.k}),
            "batchtopk": ("BatchTopK", {"k": float(request.k)}),
            "jumprelu": ("JumpReLU", tanh | l0),
            "matryoshka": (
                "MatryoshkaBatchTopK",
                {"k": float(request.k), "matryoshka_widths": [width // 4, width // 2, width]},
            ),
        }[request.architecture]

    def step(self, x: Tensor) -> None:
        self.trainer.step(x)
        self.trainer.n_training_steps += 1  # `fit` counts, `step` does not

    def finish(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Folded weights, and what the saved but unfolded SAE makes of x: theirs takes scaled activations."""
        from sae_lens import SAE

        sae, scale = self.trainer.sae.eval(), self.trainer.activation_scaler.scaling_factor
        with tempfile.TemporaryDirectory() as folder:
            sae.save_inference_model(folder)
            expected = SAE.load_from_disk(folder)(x * scale) / scale
            sae.fold_activation_norm_scaling_factor(scale)
            sae.fold_W_dec_norm()
            path, _ = sae.save_inference_model(folder)
            return load_file(path), expected


class Sparsify:
    """SparseCoder with the loop of their Trainer.fit, which itself takes a Transformers language model and runs it.

    Kept: b_dec from the first batch's mean, unit decoder rows before and no parallel gradient after each backward,
    fvu as the loss (auxk_alpha 0, no multi-topk), Signum under Schedule-Free with momentum 0.95, lr
    5e-3 / sqrt(d_sae / 2**14), no schedule; the averaged weights are what is saved. Activations are not scaled. Left
    out: their counts of dead latents, which nothing reads at auxk_alpha 0.
    """

    def __init__(self, request: Request, rows: Rows):
        from schedulefree import ScheduleFreeWrapper
        from sparsify.config import SparseCoderConfig
        from sparsify.sign_sgd import SignSGD
        from sparsify.sparse_coder import SparseCoder

        torch.manual_seed(request.seed)
        self.coder = SparseCoder(rows.d_in, SparseCoderConfig(num_latents=request.d_sae, k=request.k))
        lr = request.lr or 5e-3 / (request.d_sae / 2**14) ** 0.5
        self.optimiser = ScheduleFreeWrapper(SignSGD(self.coder.parameters(), lr=lr), momentum=0.95)
        self.optimiser.train()
        self.started = False
        self.settings = {"optimiser": "Schedule-Free SignSGD", "momentum": 0.95, "lr": lr, "scale": 1.0}

    def step(self, x: Tensor) -> None:
        if not self.started:
            self.coder.b_dec.data, self.started = x.mean(0), True
        self.coder.set_decoder_norm_to_unit_norm()
        self.coder(x).fvu.backward()
        self.coder.remove_gradient_parallel_to_decoder_directions()
        self.optimiser.step()
        self.optimiser.zero_grad()

    def finish(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The averaged weights as they are, and what their coder makes of x."""
        self.optimiser.eval()
        coder = self.coder
        weights = {"W_enc": coder.encoder.weight.T, "b_enc": coder.encoder.bias, "W_dec": coder.W_dec}
        return weights | {"b_dec": coder.b_dec}, coder(x).sae_out


class DictionaryLearning:
    """Their trainers' `update`, with what `trainSAE(normalize_activations=True)` does around it.

    Each trainer's own optimiser, lr and penalty: Adam, lr 1e-3 (standard), 5e-5 (gated), 7e-5 (jumprelu, target_l0 k),
    2e-4 / sqrt(d_sae / 2**14) (the topk kinds). Activations scaled to a mean squared norm of 1, biases and thresholds
    scaled back. The defaults of 1000 steps of warm-up, 2000 of sparsity warm-up and a threshold from step 1000 are at most
    a tenth, a fifth and four fifths of the run; lr falls from four fifths on and the matryoshka groups are as in the
    authors' dictionary_learning_demo.
    """

    def __init__(self, request: Request, rows: Rows):
        module, name = TRAINERS[request.architecture]
        settings = self._recipe(request)
        size = {"steps": request.steps, "activation_dim": rows.d_in, "dict_size": request.d_sae}
        torch.manual_seed(request.seed)  # JumpReluTrainer takes a seed and sows nothing with it
        self.trainer = getattr(self._module(module), name)(
            **size, **settings, seed=request.seed, layer=0, lm_name="rows", device="cpu"
        )
        count = max(1, min(100, len(rows), request.steps))
        self.norm = (sum(rows.batch(i).square().sum(1).mean().item() for i in range(count)) / count) ** 0.5
        self.done, self.exact_k = 0, request.architecture == "topk"
        betas = self.trainer.optimizer.param_groups[0]["betas"]
        own = {name: value for name, value in self.trainer.config.items() if name not in NOT_SETTINGS}
        self.settings = {"optimiser": "Adam", "betas": list(betas), "scale": 1 / self.norm} | own | settings

    @staticmethod
    def _module(name: str):
        """One trainer module, without the package's __init__: that imports its activation buffer, and so nnsight."""
        if "dictionary_learning" not in sys.modules:
            spec = importlib.util.find_spec("dictionary_learning")
            sys.modules["dictionary_learning"] = importlib.util.module_from_spec(spec)
        return importlib.import_module(f"dictionary_learning.trainers.{name}")

    @staticmethod
    def _recipe(request: Request) -> dict:
        steps, architecture = request.steps, request.architecture
        late = steps - steps // 5
        settings = {"warmup_steps": min(1000, steps // 10), "decay_start": late}
        if request.lr is not None:
            settings["lr"] = request.lr
        if architecture in PENALISED:
            settings["sparsity_warmup_steps"] = min(2000, steps // 5)
        else:
            settings |= {"k": request.k, "threshold_start_step": min(1000, late)}
        if request.l1 is not None:
            settings["sparsity_penalty" if architecture == "jumprelu" else "l1_penalty"] = request.l1
        if architecture == "jumprelu":
            settings["target_l0"] = request.k
        if architecture == "matryoshka":
            settings["group_fractions"] = [1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2 + 1 / 32]
        return settings

    def step(self, x: Tensor) -> None:
        self.trainer.update(self.done, x / self.norm)
        self.done += 1

    def finish(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Weights in raw units, and what their dictionary makes of x before its biases are scaled back."""
        ae = self.trainer.ae
        expected = ae(x / self.norm) * self.norm
        ae.scale_biases(self.norm)
        tensors = {name: t.T if name.endswith(".weight") else t for name, t in ae.state_dict().items()}
        weights = {NAMES[name]: tensor for name, tensor in tensors.items() if name in NAMES}
        if getattr(ae, "apply_b_dec_to_input", True) is False:  # jumprelu encodes x itself
            weights["b_enc"] = weights["b_enc"] + weights["b_dec"] @ weights["W_enc"]
        if self.exact_k:
            del weights["threshold"]
        elif "threshold" in weights:
            weights["threshold"] = weights["threshold"].expand(len(weights["W_dec"]))
        return weights, expected


LIBRARIES = {"saelens": SAELens, "sparsify": Sparsify, "dictionary_learning": DictionaryLearning}


def reconstruct(weights: dict[str, Tensor], x: Tensor, k: int) -> Tensor:
    """x_hat by the convention at the head of this file, so what a reader of weights.safetensors gets."""
    pre = (x - weights["b_dec"]) @ weights["W_enc"]
    if "b_gate" in weights:
        z = (pre * weights["r_mag"].exp() + weights["b_mag"]).relu() * (pre + weights["b_gate"] > 0)
    else:
        pre = pre + weights["b_enc"]
        z = pre.relu()
        if "threshold" in weights:
            z = z * (pre > weights["threshold"])
        elif k:
            top = z.topk(k, dim=1)
            z = torch.zeros_like(z).scatter_(1, top.indices, top.values)
    return z @ weights["W_dec"] + weights["b_dec"]


def versions() -> dict[str, str]:
    found = {name: importlib.metadata.version(package) for name, package in PACKAGES.items()}
    return found | {"torch": torch.__version__, "python": platform.python_version()}


def tidy(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of their own memory, float32; a negative threshold is 0, since every encoder here has a ReLU too."""
    own = {
        name: tensor.detach().float().clone(memory_format=torch.contiguous_format) for name, tensor in weights.items()
    }
    if "threshold" in own:
        own["threshold"].clamp_(min=0)
    return own


def train(request: Request, out: Path) -> dict:
    """The result of a whole run from a fresh start, also written to `out`; a stored one of the same request is kept."""
    stored, asked = out / "result.json", asdict(request)
    if stored.exists() and (result := json.loads(stored.read_text()))["request"] == asked:
        return result
    rows = Rows(request.rows, request.batch)
    trainer = LIBRARIES[request.library](request, rows)
    seconds = 0.0
    for i in range(request.steps):
        x = rows.batch(i)
        start = time.perf_counter()
        trainer.step(x)
        seconds += time.perf_counter() - start
    with torch.no_grad():
        x = rows.batch(0)[:CHECKED_ROWS]
        weights, expected = trainer.finish(x)
        weights = tidy(weights)
        error = reconstruct(weights, x, request.k if request.architecture == "topk" else 0) - expected
    result = {
        "library": request.library,
        "architecture": request.architecture,
        "versions": versions(),
        "tokens": request.steps * request.batch,
        "steps": request.steps,
        "seconds": seconds,
        "k": request.k,
        "settings": trainer.settings,
        "max_relative_error": (error.abs().max() / expected.abs().max()).item(),
        "rms_relative_error": (error.norm() / expected.norm()).item(),
        "request": asked,
    }
    write(out, weights, result)
    return result


def write(out: Path, weights: dict[str, Tensor], result: dict) -> None:
    """Both files appear whole; result.json, the sign that the run is done, comes last."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "result.json").unlink(missing_ok=True)
    save_file(weights, out / "weights.safetensors.part")
    (out / "weights.safetensors.part").replace(out / "weights.safetensors")
    (out / "result.json.part").write_text(json.dumps(result, indent=1))
    (out / "result.json.part").replace(out / "result.json")


class Worker:
    """What was made, by id; `answer` is one request's reply."""

    def __init__(self):
        self.requests: dict[str, Request] = {}
        self.running: dict[str, tuple] = {}

    def answer(self, order: dict) -> dict:
        actions = {"make": self.make, "step": self.step, "train": self.train, "versions": lambda order: versions()}
        if order.get("do") not in actions:
            raise Refused(f"nothing called {order.get('do')!r} to do; there are {', '.join(actions)}")
        return actions[order["do"]](order)

    def make(self, order: dict) -> dict:
        known = {field.name for field in fields(Request)}
        if unknown := set(order) - known - {"do", "id"}:
            raise Refused(f"make takes no {', '.join(sorted(unknown))}; it takes {', '.join(sorted(known))}")
        request = Request(**{name: value for name, value in order.items() if name in known})
        if not Path(request.rows).is_file():
            raise Refused(f"no file of rows at {request.rows}")
        self.requests[order["id"]] = request
        self.running.pop(order["id"], None)
        return {"ok": True}

    def step(self, order: dict) -> dict:
        request = self._asked(order)
        if order["id"] not in self.running:
            rows = Rows(request.rows, request.batch)
            self.running[order["id"]] = (LIBRARIES[request.library](request, rows), rows, iter(range(request.steps)))
        trainer, rows, turns = self.running[order["id"]]
        i = next(turns, None)
        if i is None:
            raise Refused(f"all {request.steps} steps are done; make it again, with more tokens for more steps")
        x = rows.batch(i)
        start = time.perf_counter()
        trainer.step(x)
        return {"seconds": time.perf_counter() - start}

    def train(self, order: dict) -> dict:
        return train(self._asked(order), Path(order["out"]))

    def _asked(self, order: dict) -> Request:
        if order["id"] not in self.requests:
            raise Refused(f"nothing made under id {order['id']!r}; there are {sorted(self.requests)}")
        return self.requests[order["id"]]


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # the libraries print; stdout is for answers
    os.environ |= {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled"}
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    worker = Worker()
    for line in filter(str.strip, sys.stdin):
        try:
            reply = worker.answer(json.loads(line))
        except Refused as error:
            reply = {"error": str(error)}
        except Exception as error:  # a peer's failure is an answer too
            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(reply) + "\n")


if __name__ == "__main__":
    main()
