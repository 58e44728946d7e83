"""Packing, verifying, exporting and converting the embedded SAE: seconds, MB/s beside a plain copy, largest errors.

    python benchmarks/sharing.py

A copy (shutil.copytree) of the same files runs in turns with packing and unpacking, so that the ratio says what the disk
and the machine's load do not. `large` is the checkpoint with half a gigabyte of random bytes as its index.
"""

import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import torch
from common import alternate, ratio, report

from interp import workbench
from interp.checkpoint import pack, unpack
from interp.checkpoint.formats import FORMATS, compare, convert
from interp.checkpoint.formats.foreign import Foreign
from interp.sae import SAE
from interp.verification import seal, verify
from interp.verification.measure import activations
from interp.verification.probe import probe_blocks
from interp.workbench import EMBEDDED, Workbench

ROUNDS, LARGE, PAGES = 5, 2**29, 1_000


def copies(folder: Path, work: Path) -> dict[str, float]:
    """MB/s (10^6 bytes) of packing, unpacking and copying a folder, and what they are of the copy."""
    archive, out = work / "a.tar", work / "out"
    size = pack(folder, archive).bytes / 1e6

    def fresh(run):
        def again():
            shutil.rmtree(out, ignore_errors=True)
            run()

        return again

    seconds = alternate(
        {
            "pack": lambda: pack(folder, archive),
            "unpack": fresh(lambda: unpack(archive, out)),
            "copy": fresh(lambda: shutil.copytree(folder, out)),
        },
        ROUNDS,
    )
    found = {f"{name}, MB/s": round(size / statistics.median(took)) for name, took in seconds.items()}
    slowest = {f"{name}, slowest round": round(size / max(seconds[name])) for name in ("pack", "unpack")}
    times = {
        f"{name}, times a copy's time": round(ratio(seconds[name], seconds["copy"])[0], 2)
        for name in ("pack", "unpack")
    }
    return {"MB": round(size, 1)} | found | slowest | times


def timed(run) -> tuple[float, object]:
    began = time.perf_counter()
    made = run()
    return round(time.perf_counter() - began, 1), made


def conversions(wb: Workbench, work: Path) -> dict[str, dict[str, float]]:
    """Largest differences after a way there and back, on activations of the embedded model at every probe position."""
    model = wb.model
    tokens = probe_blocks(model, wb.card.context)
    x = activations(model, [wb.card.hook_name], tokens)[wb.card.hook_name]
    rows = x[(tokens != model.separator) & (x.norm(dim=-1) <= wb.card.norm_cutoff)]
    parts = {name: getattr(wb.sae, name) for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
    saes = {"jumprelu": wb.sae, "topk": SAE(**parts, k=32, reads=wb.card.hook_name)}
    found = {"rows": {"rows": len(rows), "largest activation": round(float(wb.sae.encode(rows).max()), 1)}}
    for rule, sae in saes.items():
        FORMATS["saelens"].write(Foreign(sae=sae, model="smollm2"), work / rule)
        for target in ("saelens", "sparsify", "dictionary_learning", "llamascopium"):
            if target == "sparsify" and rule == "jumprelu":
                continue  # has no thresholds
            there, back = work / f"{rule}-{target}", work / f"{rule}-{target}-back"
            convert(work / rule, target, there)
            done = convert(there, "saelens", back)
            found[f"{rule} → {target} → saelens"] = compare(sae, FORMATS["saelens"].read(back).sae, rows) | {
                "second way alone": done.error(rows)["codes"]
            }
    return found


def main() -> None:
    wb = Workbench.open(EMBEDDED)
    figures: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as made:
        work = Path(made)
        figures["embedded"] = copies(wb.folder, work)
        shutil.copytree(wb.folder, work / "large")
        (work / "large" / "index" / "more.parquet").write_bytes(b"PAR1" + os.urandom(LARGE) + b"PAR1")
        figures["large"] = copies(work / "large", work)
        shutil.rmtree(work / "large")
        seconds, found = timed(lambda: workbench.verify(wb.folder))
        figures["verify the embedded SAE"] = {"seconds": seconds, "verdict": found.verdict, "dtype": found.dtype}
        shutil.copytree(wb.folder, work / "sealed")
        seconds, _ = timed(lambda: seal(work / "sealed"))
        figures["seal a copy"] = {"seconds": seconds}
        seconds, found = timed(lambda: verify(work / "sealed"))
        figures["verify the sealed copy"] = {"seconds": seconds, "verdict": found.verdict, "dtype": found.dtype}
        seconds, _ = timed(lambda: wb.export("html", work / "pages", range(PAGES)))
        largest = max(path.stat().st_size for path in (work / "pages").glob("feature-*.html"))
        figures[f"{PAGES:,} pages"] = {"seconds": seconds, "largest page, bytes": largest}
        with torch.inference_mode():
            figures["conversions"] = conversions(wb, work)
    report("sharing", figures)


if __name__ == "__main__":
    main()
