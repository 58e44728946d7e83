"""Recovery of known features: our SAEs and SAELens', trained on the same samples, scored by SAELens' own scorer.

    python benchmarks/recovery.py [--worlds 1,2,3] [--seeds 0,1,2] [--samples 10000000] [--only interp] [--table]
    python benchmarks/recovery.py --set anneal=0.2,decay=0.4,orthogonal=0.1 --only interp --architectures batchtopk
    python benchmarks/recovery.py --worlds 4,5,6 --seeds 10,11 --set lr=3e-3,anneal=0.2    # choosing settings
    python benchmarks/recovery.py --ceilings                 # what supervision, and a start at the truth, come to

A world (`sae_lens.synthetic`) adds up sparse features with a hierarchy, Zipf frequencies and correlations; which
fired is known. World 1 is SynthSAEBench's recipe made small; 2 (no hierarchy, more correlation) and 3 (twice the
features, more superposition) were written down before any SAE was trained on them. Worlds 4, 5 and 6 are made like 1, 2
and 3 from other seeds: settings of both libraries are chosen there (`--set`), with seeds that the comparison does not
use. Each run is a JSON file in the cache and is not repeated, nor is what the results' file has of others lost; 1 thread is fastest at this size.
Scores  F1 of each latent as a detector of the feature nearest its decoder row; MCC, one-to-one cosines of decoder rows
        with features; EV, explained variance; all macro means over latents on 40,000 rows no SAE was trained on.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from common import RESULTS, report
from sae_lens.config import LoggingConfig, SAETrainerConfig
from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
from sae_lens.saes.matryoshka_batchtopk_sae import (
    MatryoshkaBatchTopKTrainingSAE,
    MatryoshkaBatchTopKTrainingSAEConfig,
)
from sae_lens.synthetic import SyntheticModel, eval_sae_on_synthetic_data
from sae_lens.training.sae_trainer import SAETrainer
from torch import Tensor

from interp import places
from interp.recipe.worlds import BATCH, D_SAE, HELD_OUT, HELD_OUT_SEED, POOL_SEED, PREFIXES, K, batches, world_config

POOL, CALIBRATION = 2_000_000, 65_536
CEILING_SEED, PROBE_ROWS = 3, 100_000
FOLDER = places.cache() / "recovery"
SCORES = ("F1", "MCC", "EV", "L0", "uniqueness", "dead")


@cache
def world(number: int) -> SyntheticModel:
    return SyntheticModel(world_config(number))


@cache
def pool(number: int) -> Tensor:
    """The world's 2 million training samples, made once and kept in the cache."""
    path = FOLDER / f"world{number}.pt"
    if path.exists():
        return torch.load(path, mmap=True)
    with torch.random.fork_rng():
        torch.manual_seed(POOL_SEED)
        samples = torch.cat([world(number).sample(10_000) for _ in range(POOL // 10_000)])
    with places.whole_file(path) as partial:
        torch.save(samples, partial)
    return samples


def scores(number: int, sae: Any) -> dict[str, float]:
    """SAELens' figures on the world's held-out rows, which are the same for every SAE."""
    model = world(number)
    with torch.random.fork_rng():
        torch.manual_seed(HELD_OUT_SEED)
        result = eval_sae_on_synthetic_data(
            sae, model.feature_dict, model.activation_generator, num_samples=HELD_OUT, batch_size=4_000
        )
    return {
        "F1": result.classification.f1_score,
        "precision": result.classification.precision,
        "recall": result.classification.recall,
        "MCC": result.mcc,
        "EV": result.explained_variance,
        "L0": result.sae_l0,
        "uniqueness": result.uniqueness,
        "dead": result.dead_latents,
        "true L0": result.true_l0,
    }


def saelens(architecture: str, number: int, seed: int, samples: int, given: dict[str, float]) -> Any:
    """Trained by SAELens' SAETrainer: Adam at 1e-3 (`lr`), 100 steps of warm-up, the last third of the steps down to 0.

    A cosine from 1e-3 to 1e-4 before that last third was worse for it. It is scored in its training form, a BatchTopK
    over each scored batch, as SAELens' own runner does; its saved form with a threshold scores the same to 0.001.
    """
    torch.manual_seed(seed)
    data, sizes = pool(number), {"d_in": pool(number).shape[1], "d_sae": D_SAE, "k": K}
    if architecture == "matryoshka":
        config = MatryoshkaBatchTopKTrainingSAEConfig(**sizes, matryoshka_widths=list(PREFIXES))
        sae: Any = MatryoshkaBatchTopKTrainingSAE(config)
    else:
        sae = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(**sizes))
    settings = SAETrainerConfig(
        total_training_samples=samples,
        train_batch_size_samples=BATCH,
        lr=given.get("lr", 1e-3),
        lr_end=given.get("lr", 1e-3),
        lr_scheduler_name="constant",
        lr_warm_up_steps=100,
        lr_decay_steps=samples // BATCH // 3,
        logger=LoggingConfig(log_to_wandb=False),
    )
    return SAETrainer(settings, sae, batches(data, seed)).fit()


def interp(architecture: str, number: int, seed: int, samples: int, given: dict[str, float]) -> Any:
    """Trained by `interp.training.train`, with its defaults unless `given`; the threshold is set on training rows."""
    from interp.sae import BatchTopK
    from interp.training import TrainConfig, train

    data = pool(number)
    sizes: dict[str, Any] = {"d_in": data.shape[1], "d_sae": D_SAE, "k": K}
    sizes |= {name: given[name] for name in ("anneal",) if name in given}
    if architecture == "matryoshka":
        from interp.sae import Matryoshka

        rule: Any = Matryoshka(**sizes, prefixes=PREFIXES)
    else:
        rule = BatchTopK(**sizes)
    how: dict[str, Any] = {name: value for name, value in given.items() if name != "anneal"}
    config = TrainConfig(tokens=samples, seed=seed, **how)
    return train(batches(data, seed), rule, config, held_out=data[:CALIBRATION])


@cache
def frequent(number: int) -> Tensor:
    """The D_SAE features of the world that fire most often, which are what an SAE of that width can hope to find."""
    with torch.random.fork_rng():
        torch.manual_seed(CEILING_SEED)
        fires = sum((world(number).activation_generator.sample(4_000) > 0).sum(0) for _ in range(10))
    return torch.as_tensor(fires).topk(D_SAE).indices


def truth(architecture: str, number: int, seed: int, samples: int, given: dict[str, float]) -> Any:
    """BatchTopK as `interp` trains it, but begun at the directions that are to be found."""
    from interp.sae import BatchTopK
    from interp.training import TrainConfig, train

    directions = torch.nn.functional.normalize(world(number).feature_dict.feature_vectors.detach(), dim=1)

    class FromTruth(BatchTopK):
        def initial(self, p: dict[str, Tensor], u_BD: Tensor) -> dict[str, Tensor]:
            return {**p, "W_enc": directions[frequent(number)], "W_dec": directions[frequent(number)]}

    data = pool(number)
    rule = FromTruth(d_in=data.shape[1], d_sae=D_SAE, k=K)
    return train(batches(data, seed), rule, TrainConfig(tokens=samples, seed=seed), held_out=data[:CALIBRATION])


def probes(number: int) -> float:
    """Macro F1 of logistic regressions on rows, one for each of the `frequent` features, on rows not fitted to."""
    model, chosen = world(number), frequent(number)
    with torch.random.fork_rng():
        torch.manual_seed(CEILING_SEED)
        fitted, judged = (model.activation_generator.sample(n) for n in (PROBE_ROWS, HELD_OUT))
    x, y = model.feature_dict(fitted).detach(), (fitted[:, chosen] > 0).float()
    centre, spread = x.mean(0), x.std(0)
    layer = torch.nn.Linear(x.shape[1], len(chosen))
    fit = torch.optim.LBFGS(layer.parameters(), max_iter=200, history_size=20, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        fit.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(layer((x - centre) / spread), y)
        loss.backward()
        return loss

    fit.step(closure)
    with torch.no_grad():
        said = layer((model.feature_dict(judged) - centre) / spread) > 0
    true = judged[:, chosen] > 0
    hits = (said & true).sum(0)
    return float((2 * hits / (said.sum(0) + true.sum(0)).clamp_min(1)).mean())


Trainer = Callable[[str, int, int, int, dict[str, float]], Any]
LIBRARIES: dict[str, Trainer] = {"saelens": saelens, "interp": interp}
ARCHITECTURES = ("batchtopk", "matryoshka")


def run(number: int, library: str, architecture: str, seed: int, samples: int, given: dict[str, float]) -> None:
    """One run's scores as a JSON file in the cache; nothing is done when it is there."""
    how = "".join(f"-{name}{value:g}" for name, value in sorted(given.items()))
    path = FOLDER / f"world{number}-{library}-{architecture}{how}-seed{seed}-{samples}.json"
    if path.exists():
        return
    pool(number)
    began = time.perf_counter()
    sae = (LIBRARIES | {"truth": truth})[library](architecture, number, seed, samples, given)
    seconds = time.perf_counter() - began
    record = {"world": number, "library": library, "architecture": architecture, "seed": seed, "samples": samples}
    record |= {"given": given} if given else {}
    figures = record | scores(number, sae) | {"training seconds": round(seconds, 1)}
    places.write_json(path, figures)
    print(path.stem, *(f"{name} {figures[name]:.3f}" for name in SCORES), f"{seconds:.0f} s", flush=True)


def table(runs: list[dict[str, Any]]) -> str:
    """Markdown: for each world, architecture and library the mean over seeds, with the range of F1 and MCC."""
    lines = [
        "| World | Architecture | Library | Seeds | " + " | ".join(SCORES) + " |",
        "|---" * (4 + len(SCORES)) + "|",
    ]
    groups: dict[tuple[int, str, str], list[dict[str, Any]]] = {}
    for one in runs:
        how = "".join(f", {name} {value:g}" for name, value in sorted(one.get("given", {}).items()))
        groups.setdefault((one["world"], one["architecture"], one["library"] + how), []).append(one)
    for (number, architecture, library), members in sorted(groups.items()):
        cells = []
        for name in SCORES:
            values = [one[name] for one in members]
            spread = f" ({min(values):.3f}–{max(values):.3f})" if name in ("F1", "MCC") else ""
            cells.append(f"{statistics.mean(values):.3f}{spread}")
        lines.append(f"| {number} | {architecture} | {library} | {len(members)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _key(one: dict[str, Any]) -> tuple[Any, ...]:
    return one["world"], one["library"], one["architecture"], one["seed"], *sorted(one.get("given", {}).items())


def _kept(name: str) -> list[dict[str, Any]]:
    """The runs in the results' file."""
    file = RESULTS / f"{name}.json"
    return list(places.read_json(file)["runs"]) if file.exists() else []


def settings(text: str) -> dict[str, float]:
    return {name: float(value) for name, _, value in (part.partition("=") for part in text.split(","))}


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=numbers, default=[1, 2, 3])
    parser.add_argument("--seeds", type=numbers, default=[0, 1, 2])
    parser.add_argument("--samples", type=int, default=10_000_000)
    parser.add_argument("--only", choices=list(LIBRARIES))
    parser.add_argument("--architectures", type=lambda text: text.split(","), default=list(ARCHITECTURES))
    parser.add_argument("--set", type=settings, default={}, help="lr, decay, anneal … instead of the defaults")
    parser.add_argument("--table", action="store_true", help="train nothing; report the runs there are")
    parser.add_argument("--ceilings", action="store_true", help="only these, of BatchTopK")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.ceilings:
        for number in asked.worlds:
            path = FOLDER / f"world{number}-probes.json"
            if not path.exists():
                places.write_json(path, {"F1": probes(number)})
            run(number, "truth", "batchtopk", asked.seeds[0], asked.samples, {})
    elif not asked.table:
        for number in asked.worlds:
            for seed in asked.seeds:
                for architecture in asked.architectures:
                    for library in [asked.only] if asked.only else LIBRARIES:
                        run(number, library, architecture, seed, asked.samples, asked.set)
    name = "recovery" if max(asked.worlds) <= 3 else "recovery_settings"
    found = [places.read_json(path) for path in sorted(FOLDER.glob(f"world*-{asked.samples}.json"))]
    runs = list({_key(one): one for one in [*_kept(name), *found] if one["samples"] == asked.samples}.values())
    runs = [one for one in runs if one["seed"] in asked.seeds and one["world"] in asked.worlds]
    ceilings = {
        f"world {number}": places.read_json(path)["F1"]
        for number in asked.worlds
        if (path := FOLDER / f"world{number}-probes.json").exists()
    }
    sizes = {"batch": BATCH, "d_sae": D_SAE, "k": K, "prefixes": list(PREFIXES)}
    report(name, sizes | {"F1 of logistic probes": ceilings, "runs": runs})
    print(table(runs))


if __name__ == "__main__":
    main()
