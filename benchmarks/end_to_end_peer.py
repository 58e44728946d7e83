"""SAELens' training run and SAEDashboard's runner, each in its own environment, stage by stage. Imports nothing of `interp`.

    .peers/bin/python benchmarks/end_to_end_peer.py train REQUEST
    .peers-dashboard/bin/python benchmarks/end_to_end_peer.py dashboard REQUEST

REQUEST is a JSON object. What is told is one, too: a list of stages with seconds by the clock, seconds of processors and how
much of what was done (`measured` of `unit`; without a unit it is done once, however long the text).

SAELens  Its LanguageModelSAETrainingRunner with its own ActivationsStore, which streams sequences that are tokens already. The
         model is Hugging Face's (AutoModelForCausalLM, which it stops after the hooked layer), the quickest way that it has to
         a model in a folder. All else its defaults: float32, batches of 4,096, 32 sequences a forward pass.
SAEDashboard  Its own forward passes over a part of the text, and its SaeVisRunner over batches of 128 features on all of the
         text, as its Neuronpedia runner has them; for that the activations of the rest come from a harvest (not timed).
"""

import contextlib
import importlib.metadata
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from dashboard_peer import BATCH, MINIBATCH, cached, hooked

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
Told = list[dict[str, Any]]


@contextlib.contextmanager
def timed(told: Told, stage: str) -> Iterator[dict[str, Any]]:
    """Add a stage to those told; whoever asks may say how much it was of what."""
    row: dict[str, Any] = {"stage": stage}
    began, busy = time.perf_counter(), time.process_time()
    yield row
    told.append(row | {"seconds": time.perf_counter() - began, "busy": time.process_time() - busy})


def train(request: dict[str, Any]) -> Told:
    """A run of SAELens over `tokens` of the sequences; its forward passes are told apart from the steps."""
    told: Told = []
    with timed(told, "SAELens: start, open the model"):
        import datasets
        import sae_lens
        from sae_lens.config import LoggingConfig

        sae = sae_lens.BatchTopKTrainingSAEConfig(d_in=request["d_in"], d_sae=request["d_sae"], k=float(request["k"]))
        cfg = sae_lens.LanguageModelSAERunnerConfig(
            sae=sae,
            model_name=request["model"],
            model_class_name="AutoModelForCausalLM",
            hook_name=f"model.layers.{request['layer']}",
            context_size=request["block"],
            training_tokens=request["tokens"],
            autocast=request["autocast"],
            autocast_lm=request["autocast"],
            logger=LoggingConfig(log_to_wandb=False),
            checkpoint_path=None,
            output_path=str(Path(request["into"]) / "saelens"),
        )
        rows = datasets.load_dataset("parquet", data_files=request["sequences"], split="train", streaming=True)
        runner = sae_lens.LanguageModelSAETrainingRunner(cfg, override_dataset=rows)
    forward: dict[str, Any] = {"stage": "SAELens: forward passes", "seconds": 0.0, "busy": 0.0, "measured": 0}
    run = runner.activations_store.get_activations

    def watched(tokens: torch.Tensor) -> torch.Tensor:
        inner: Told = []
        with timed(inner, ""):
            made = run(tokens)
        for name in ("seconds", "busy"):
            forward[name] += inner[0][name]
        forward["measured"] += tokens.numel()
        return made

    runner.activations_store.get_activations = watched
    whole: Told = []
    with timed(whole, "SAELens: training"):
        runner.run()
    steps = -(-request["tokens"] // cfg.train_batch_size_tokens)
    rest = {name: whole[0][name] - forward[name] for name in ("seconds", "busy")}
    batches = {"stage": "SAELens: training steps", "measured": steps * cfg.train_batch_size_tokens}
    return [*told, forward | {"unit": "tokens"}, batches | {"unit": "tokens"} | rest]


def dashboard(request: dict[str, Any]) -> Told:
    """SAEDashboard's forward passes over `tokens`, and `batches` of features on all that the harvest has, written as HTML."""
    told: Told = []
    with timed(told, "SAEDashboard: start, open model and SAE"):
        from sae_dashboard.data_writing_fns import save_feature_centric_vis
        from sae_dashboard.sae_vis_data import SaeVisConfig
        from sae_dashboard.sae_vis_runner import FeatureDataGeneratorFactory, SaeVisRunner
        from sae_lens import SAE

        model = hooked(request["model"])
        sae = SAE.load_from_disk(request["sae"], device="cpu")
        hook = sae.cfg.hook_name = sae.cfg.metadata.hook_name  # where this version looks for it
    with tempfile.TemporaryDirectory(dir=request["into"]) as own, tempfile.TemporaryDirectory(dir=own) as kept:
        tokens = cached(request["acts"], None, hook, Path(kept))
        options = {"hook_point": hook, "minibatch_size_features": BATCH, "minibatch_size_tokens": MINIBATCH}
        part = tokens[: request["tokens"] // tokens.shape[1]]
        cfg = SaeVisConfig(**options, features=[0], device="cpu", cache_dir=Path(own))
        generator = FeatureDataGeneratorFactory.create(cfg, model, sae, part)
        with timed(told, "SAEDashboard: forward passes, cached") as row, torch.inference_mode():
            for number, minibatch in enumerate(generator.token_minibatches):
                generator.get_model_acts(number, minibatch, use_cache=False)
            row |= {"measured": part.numel(), "unit": "tokens"}
        batches = min(request["batches"], -(-sae.cfg.d_sae // BATCH))
        row = {"measured": batches, "unit": f"batches of {BATCH} features"}
        seconds: Told = []
        for batch in range(batches):
            features = list(range(batch * BATCH, min((batch + 1) * BATCH, sae.cfg.d_sae)))
            cfg = SaeVisConfig(**options, features=features, device="cpu", cache_dir=Path(kept))
            with timed(seconds, "SAEDashboard: features"):
                data = SaeVisRunner(cfg).run(encoder=sae, model=model, tokens=tokens)
            with timed(seconds, "SAEDashboard: pages written"):
                save_feature_centric_vis(data, Path(request["into"]) / f"{batch}.html")
    for stage in ("SAEDashboard: features", "SAEDashboard: pages written"):
        of = [each for each in seconds if each["stage"] == stage]
        told.append({"stage": stage} | row | {name: sum(each[name] for each in of) for name in ("seconds", "busy")})
    return told


if __name__ == "__main__":
    with contextlib.redirect_stdout(io.StringIO()):
        stages = {"train": train, "dashboard": dashboard}[sys.argv[1]](json.loads(sys.argv[2]))
    packages = {"train": ("sae-lens", "transformer-lens"), "dashboard": ("sae-dashboard", "sae-lens")}[sys.argv[1]]
    versions = {name: importlib.metadata.version(name) for name in (*packages, "transformers", "torch")}
    print(json.dumps({"stages": stages, "versions": versions}))
