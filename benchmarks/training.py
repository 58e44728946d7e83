"""A training step against SAELens' own trainer, on the same SmolLM2 activations.

    python benchmarks/training.py

B 4096, d_in 576, d_sae 9216, k 32; whole steps with Adam, alternating; SAELens with its defaults and with bfloat16
autocast. Held-out quality after the same tokens is the trainer's own benchmark; this one is of speed.
"""

import tempfile
from itertools import cycle

import torch
from common import alternate, peak_mib, ratio, report

from interp.activations import harvest
from interp.corpus import open_corpus
from interp.models import open_model
from interp.sae import BatchTopK, TopK
from interp.training import TrainConfig
from interp.training.loop import _Worker
from interp.training.state import initial

HOOK, B, D_IN, D_SAE, K, ROUNDS = "blocks.15.hook_resid_post", 4096, 576, 9216, 32, 7


def rows() -> list[torch.Tensor]:
    with tempfile.TemporaryDirectory() as folder:
        store = harvest(open_model("smollm2"), open_corpus("wiki-en"), [HOOK], 40_960, folder)
        return list(store.batches(HOOK, B))


def ours(architecture, batches):
    state = initial(torch.cat(batches), D_SAE, 1e-3, 0)
    worker, turn = _Worker(architecture, TrainConfig(), state), cycle(batches)
    for _ in range(20):  # past the first steps, whose threshold hint is still far off
        worker.step(next(turn), 1e-3)
    return lambda: worker.step(next(turn), 1e-3)


def saelens(kind: str, batches, autocast: bool):
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.training.sae_trainer import SAETrainer

    sae_class, config = {
        "batchtopk": (BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig),
        "topk": (TopKTrainingSAE, TopKTrainingSAEConfig),
    }[kind]
    sae = sae_class(config(d_in=D_IN, d_sae=D_SAE, k=K))
    scale = (D_IN / torch.cat(batches).square().sum(1).mean()).sqrt()
    scaled = [batch * scale for batch in batches]
    settings = {"total_training_samples": 10**7, "train_batch_size_samples": B, "autocast": autocast, "lr_end": 3e-5}
    trainer = SAETrainer(SAETrainerConfig(**settings, logger=LoggingConfig(log_to_wandb=False)), sae, iter(scaled))
    turn = cycle(scaled)
    return lambda: trainer.step(next(turn))


def main() -> None:
    batches = rows()
    product = torch.randn(B, D_IN).bfloat16(), torch.randn(D_SAE, D_IN).bfloat16(), torch.empty(B, D_SAE).bfloat16()
    work = {
        "one bfloat16 product": lambda: torch.mm(product[0], product[1].T, out=product[2]),
        "interp batchtopk": ours(BatchTopK(d_in=D_IN, d_sae=D_SAE, k=K), batches),
        "interp topk": ours(TopK(d_in=D_IN, d_sae=D_SAE, k=K), batches),
    }
    mine = peak_mib()
    for kind in ("batchtopk", "topk"):
        work[f"SAELens {kind}"] = saelens(kind, batches, autocast=False)
        work[f"SAELens {kind}, autocast"] = saelens(kind, batches, autocast=True)
    seconds = alternate(work, ROUNDS)
    figures = {f"{name}, ms a step": round(1000 * sorted(t)[len(t) // 2], 1) for name, t in seconds.items()}
    for kind in ("batchtopk", "topk"):
        for other in (f"SAELens {kind}", f"SAELens {kind}, autocast"):
            middle, low, high = ratio(seconds[other], seconds[f"interp {kind}"])
            figures[f"times faster than {other}"] = [round(x, 1) for x in (middle, low, high)]
    report("training", figures | {"rounds": ROUNDS, "peak MiB before SAELens": round(mine)})


main()
