"""Ranks latents and fits probes with sae-probes' own code, in the peers' environment, on activations that it is given.

    .peers/bin/python benchmarks/probing_peer.py < requests > answers

One JSON object a line in, one a line out. Imports nothing of `interp`.

    {"rows": "task.safetensors", "ks": [1, 5], "penalty": "l2"}
    {"indices": [17, 4, ...], "ks": {"1": {"auroc": 0.9, "accuracy": 0.8, "f1": 0.8, "seconds": 0.1}, ...}}

The file has `train` and `test`, activations of texts × latents, and `known` and `asked`, their labels (0 or 1). What is called
is `get_sorted_indices`, `mean_act_normalization` and `find_best_reg`, as sae-probes' `run_sae_eval` calls them.
"""

import json
import sys
import time
import types

import torch
from safetensors.torch import load_file

# One of its other probes is xgboost's; it is imported at the head of a file that holds all of them, and called by none here.
sys.modules.setdefault("xgboost", types.ModuleType("xgboost"))

from sae_probes.run_sae_evals import get_sorted_indices, mean_act_normalization  # noqa: E402
from sae_probes.utils_training import find_best_reg  # noqa: E402


def answer(request: dict) -> dict:
    """sae-probes' ranking and the scores of its probes on the test rows."""
    rows = load_file(request["rows"])
    order = get_sorted_indices(rows["train"], rows["known"], mean_act_normalization)
    by_k = {}
    for k in request["ks"]:
        began, best = time.perf_counter(), order[:k]
        found = find_best_reg(
            X_train=rows["train"][:, best],
            y_train=rows["known"],
            X_test=rows["test"][:, best],
            y_test=rows["asked"],
            penalty=request["penalty"],
            seed=42,
        ).metrics
        seconds = time.perf_counter() - began
        by_k[str(k)] = {"auroc": found.test_auc, "accuracy": found.test_acc, "f1": found.test_f1, "seconds": seconds}
    return {"indices": order[: max(request["ks"])].tolist(), "ks": by_k}


if __name__ == "__main__":
    torch.set_num_threads(1)
    answers = sys.stdout
    sys.stdout = sys.stderr  # whatever the library prints
    for line in sys.stdin:
        answers.write(json.dumps(answer(json.loads(line))) + "\n")
        answers.flush()
