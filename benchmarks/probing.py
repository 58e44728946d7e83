"""Sparse probing of the embedded SAE of block 15, and the same activations through sae-probes' own code.

    python benchmarks/probing.py                      thirty tasks: what evals/probing.py gives, and how long it took
    python benchmarks/probing.py --tasks 3            the first so many tasks of each run
    python benchmarks/probing.py --peer .peers/bin/python     ours beside sae-probes' on three tasks, and the differences

With `--peer` the latents of each task (the same rows, the same parts) go to sae-probes' `get_sorted_indices` and `find_best_reg`,
once with L2, as ours are fitted, and once with L1, its default. Needs its environment: requirements/peers-nodeps.txt.
"""

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from common import peak_mib, report
from safetensors.torch import save_file

from interp.evals.probing import latents_of, probing
from interp.evals.probing_rows import last_rows
from interp.evals.probing_tasks import TASKS, Plan, read_task
from interp.workbench import EMBEDDED, Workbench

COMPARED = ("123_world_country_United_Kingdom", "87_glue_cola", "92_glue_sst2")
"""Short texts of three kinds."""


def main() -> None:
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--sae", default=str(EMBEDDED))
    parse.add_argument("--tasks", type=int, default=len(TASKS))
    parse.add_argument("--peer", default="", help="a Python that has sae-probes and sae-lens")
    asked = parse.parse_args()
    wb = Workbench.open(asked.sae, labels="sqlite://")
    plan = Plan(tasks=COMPARED if asked.peer else TASKS[: asked.tasks])
    began, processor = time.perf_counter(), time.process_time()
    section = probing(wb.model, wb.sae, norm_cutoff=wb.card.mask.cutoffs, plan=plan)
    seconds, processor = time.perf_counter() - began, time.process_time() - processor
    for row in section.rows:
        print(
            f"{row['task']:36} {row['tokens']:7,} tokens",
            *(f"{row[c]:.3f}" for c in ("auroc_k1", "auroc_neurons_k1", "auroc_k16", "auroc_dense", "auroc_words")),
        )
    for figure in section.figures:
        print(
            f"{figure.name:26} {figure.value:8.4f}",
            "" if figure.interval is None else "{:.4f} to {:.4f}".format(*figure.interval),
        )
    print(f"{seconds:.0f} s, {processor:.0f} s of processor, peak {peak_mib():.0f} MiB")
    if asked.peer:
        report("probing_peer", compare(wb, plan, asked.peer, section.rows))
    else:
        report("probing", section.to_dict() | {"wall_s": seconds, "processor_s": processor, "peak_mib": peak_mib()})


def compare(wb: Workbench, plan: Plan, python: str, rows: tuple) -> dict:
    """By task and penalty: sae-probes' figures, and how far ours are from them."""
    found: dict = {}
    with tempfile.TemporaryDirectory() as folder:
        requests, order = [], []
        for name in plan.tasks:
            requests.extend(json.dumps(one) for one in _requests(wb, plan, name, Path(folder)))
            order += [(name, penalty) for penalty in ("l2", "l1")]
        script = str(Path(__file__).parent / "probing_peer.py")
        said = subprocess.run([python, script], input="\n".join(requests), capture_output=True, text=True, check=True)
        answers = [json.loads(line) for line in said.stdout.splitlines()]
    ours = {row["task"]: row for row in rows}
    for (name, penalty), theirs in zip(order, answers, strict=True):
        mine = ours[name]
        one = {"same_latents": theirs["indices"] == mine["latents"]}
        for k, scores in theirs["ks"].items():
            one[f"k{k}"] = {
                key: {
                    "ours": mine[f"{key}_k{k}"],
                    "theirs": scores[key],
                    "difference": mine[f"{key}_k{k}"] - scores[key],
                }
                for key in ("auroc", "accuracy", "f1")
            }
        found.setdefault(name, {})[penalty] = one
    worst = {
        penalty: max(abs(found[name][penalty][f"k{k}"]["auroc"]["difference"]) for name in found for k in plan.ks)
        for penalty in ("l2", "l1")
    }
    return {"sae_probes": "0.4.2", "largest_auroc_difference": worst, "tasks": found}


def _requests(wb: Workbench, plan: Plan, name: str, folder: Path) -> list[dict]:
    task, hook = read_task(name, plan), str(wb.sae.reads[0])
    x = last_rows(wb.model, [hook], task, plan)
    z = latents_of(wb.sae, x[hook], wb.card.mask.counted(x, torch.ones(len(x[hook]), dtype=torch.bool))).toarray()
    label = torch.from_numpy(task.label_N.astype(np.int64))
    file = folder / f"{name}.safetensors"
    parts = {"train": torch.from_numpy(z[: task.train].copy()), "test": torch.from_numpy(z[task.train :].copy())}
    save_file(parts | {"known": label[: task.train].clone(), "asked": label[task.train :].clone()}, file)
    return [{"rows": str(file), "ks": list(plan.ks), "penalty": penalty} for penalty in ("l2", "l1")]


if __name__ == "__main__":
    main()
