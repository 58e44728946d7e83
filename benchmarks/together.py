"""A harvest by one process of one thread, one of two, and two of one thread each that share it.

python benchmarks/together.py            # some four minutes on two cores; writes benchmarks/results/together.json

SmolLM2-135M up to block 3, two shards of 65,536 tokens; each form so many times in turn, the median counts. The clock runs from
the moment at which the first process has its model open until the last one has the whole store; the text is read in this time.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from interp import places
from interp.activations.manifest import SHARD_POSITIONS

RESULTS = Path(__file__).parent / "results" / "together.json"
FORMS = {"1 process, 1 thread": (1, 1), "1 process, 2 threads": (1, 2), "2 processes, 1 thread each": (2, 1)}
ROUNDS = 5
LOAD = os.getloadavg()[0]
"""Of the machine before: other work counts."""
TOKENS = 2 * SHARD_POSITIONS - 1024  # in whole blocks, no third shard
WORK = """
import sys, time, torch
from interp.activations import harvest
from interp.corpus import open_corpus
from interp.models import open_model
torch.set_num_threads(int(sys.argv[3]))
model = open_model("smollm2")
began = time.time()
harvest(model, open_corpus("wiki-en"), ["blocks.3.hook_resid_post"], int(sys.argv[2]), sys.argv[1], together=True)
print(began, time.time())
"""


def seconds(processes: int, threads: int) -> float:
    """Of one harvest by so many processes of so many threads."""
    with tempfile.TemporaryDirectory() as folder:
        call = [sys.executable, "-c", WORK, f"{folder}/acts", str(TOKENS), str(threads)]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        running = [subprocess.Popen(call, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
        times = [tuple(map(float, process.communicate()[0].split())) for process in running]
    return max(end for _, end in times) - min(began for began, _ in times)


def main() -> None:
    took: dict[str, list[float]] = {form: [] for form in FORMS}
    for _ in range(ROUNDS):
        for form, (processes, threads) in FORMS.items():
            took[form].append(seconds(processes, threads))
            print(form, [round(each, 1) for each in took[form]], flush=True)
    middle = {form: statistics.median(times) for form, times in took.items()}
    base = middle["1 process, 1 thread"]
    beside = f"the load was {LOAD:.1f} when this began, on {os.cpu_count()} processors"
    result = {
        "beside": beside,
        "tokens": TOKENS,
        "seconds": took,
        "times as fast": {form: base / each for form, each in middle.items()},
    }
    places.write_json(RESULTS, result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
