"""Training on one GPU: the same results as on the CPU, how fast, and a run that goes on elsewhere.

    python benchmarks/gpu.py                        # everything, under 6 minutes; benchmarks/results/gpu.json
    python benchmarks/gpu.py --quick --profile      # everything small, under a minute
    python benchmarks/gpu.py --quick --device cpu   # the same without a GPU, which compares the CPU with itself

Needs PyTorch, numpy, safetensors and filelock; other packages of ours have stand-ins (bare.py). Makes its own rows from a seed.
A case that fails is told and costs no other; the exit code is 1 when a result differs by more than its tolerance, or a case
failed. A step's yardstick is the encoder's product x W in bfloat16, (B, D) by (D, F), and the two products of its dense
backward pass, (F, B) by (B, D) for the weights and (B, F) by (F, D) for the rows, each measured in the same run.
"""

import argparse
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from itertools import cycle, product
from pathlib import Path
from statistics import median
from typing import Any

import torch
from bare import MISSING
from torch import Tensor

from interp.sae import SAE, make_architecture
from interp.sae.architecture import Architecture, Moment
from interp.training import TrainConfig, steps
from interp.training.finish import finish
from interp.training.optimise import optimise
from interp.training.state import State, adam, initial

KINDS = ("topk", "batchtopk", "jumprelu", "matryoshka")
SIZES = ((768, 24_576), (2304, 65_536))
SMALL = ((64, 1024), (96, 2048))
CHECKED = (96, 2048, 8, 512)
"""d_in, d_sae, k and rows a batch of what is compared with the CPU."""
STEPS = 20
TOLERANCES = {
    # What: (in float32, in bfloat16). Shares of entries that one has and the other has not; errors are norms of
    # differences over norms.
    "selected otherwise": (1e-4, 3e-3),
    "encode": (1e-5, 1e-5),
    "decode": (1e-5, 1e-5),
    "loss": (1e-5, 5e-3),
    "gradients": (1e-3, 2e-1),  # in bfloat16 many pre-activations are equal, and which of them pass is chance
    "FVU after 20 steps": (1e-4, 2e-3),
    "weights after 20 steps": (1e-3, 1e-1),
    "resumed on the CPU, FVU": (1e-4, 1e-4),
}


class Report:
    """Figures as they come, on disk after each, so that a limit of time loses none."""

    def __init__(self, path: Path, seconds: float) -> None:
        self.path, self.began, self.seconds = path, time.perf_counter(), seconds
        self.figures: dict[str, Any] = {}
        self.failed: list[str] = []

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.seconds - (time.perf_counter() - self.began)

    def case(self, name: str, work: Callable[..., Any], *given: Any, least: float = 1.0) -> Any:
        """What the work gives, kept by its name; None when it fails or no time is left for it, and why is kept."""
        if self.left < least:
            self.keep(name, {"left out": "no time"})
            return None
        began = time.perf_counter()
        try:
            found = work(*given)
        except Exception as error:
            self.failed.append(name)
            found = {"failed": f"{type(error).__name__}: {error}"[:2000]}
            traceback.print_exc()
        print(f"[{time.perf_counter() - self.began:6.1f} s] {name}: {json.dumps(found)}", flush=True)
        self.keep(name, found)
        self.keep("seconds", self.figures.get("seconds", {}) | {name: round(time.perf_counter() - began, 1)})
        return found

    def keep(self, name: str, found: Any) -> None:
        self.figures[name] = found
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.figures, indent=2) + "\n", encoding="utf-8")


def planted(d_in: int, count: int, batch: int, device: torch.device, seed: int = 0) -> list[Tensor]:
    """Batches of sparse mixtures of random directions, twice as many as columns, 32 a row, and a little noise."""
    draw = torch.Generator(device).manual_seed(seed)
    truth = torch.nn.functional.normalize(torch.randn(2 * d_in, d_in, generator=draw, device=device), dim=1)
    made = []
    for _ in range(count):
        chosen = torch.randint(2 * d_in, (batch, 32), generator=draw, device=device)
        strengths = torch.rand(batch, 32, generator=draw, device=device) + 0.5
        mixed = torch.nn.functional.embedding_bag(chosen, truth, mode="sum", per_sample_weights=strengths)
        made.append(mixed + 0.01 * torch.randn(batch, d_in, generator=draw, device=device))
    return made


def architecture(kind: str, d_in: int, d_sae: int, k: int) -> Architecture:
    return make_architecture(kind, d_in=d_in, d_sae=d_sae, **({"l0": k} if kind == "jumprelu" else {"k": k}))


def moved(state: State, made: Architecture, device: torch.device) -> State:
    """A copy of a state that has not begun, on the device."""
    p = {name: value.clone().to(device) for name, value in state.p.items()}
    parts = {name: getattr(state, name).clone().to(device) for name in ("scale_in", "scale_out", "idle_F", "hint")}
    return State(p=p, **parts, step=0, tokens=0, optimiser=adam(p, made), made_on=device.type)


def away(got: Tensor, wanted: Tensor) -> float:
    """The norm of the difference over the norm."""
    wanted = wanted.double()
    return float((got.cpu().double() - wanted).norm() / wanted.norm().clamp_min(1e-30))


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def same_as_cpu(kind: str, device: torch.device, bfloat16: bool) -> dict[str, float]:
    """How far the device's results are from the CPU's: one batch's, and those of 20 steps."""
    d_in, d_sae, k, batch = CHECKED
    made, here = architecture(kind, d_in, d_sae, k), planted(d_in, 4, batch, torch.device("cpu"))
    there = [x.to(device) for x in here]
    config = TrainConfig(tokens=batch * 40, device="cpu", bfloat16=bfloat16, dead_after=4 * batch, lr=1e-3)
    config = config.resolved(made, batch * 40)
    states = [initial(torch.cat(here), torch.cat(here), made, 0)]
    states.append(moved(states[0], made, device))
    found: dict[str, float] = {}
    ends = []
    for state, rows in zip(states, (here, there), strict=True):
        moment = Moment(0.5, state.hint, torch.bfloat16 if bfloat16 else torch.float32)
        x = rows[0] * state.scale_in - state.p["b_dec"]
        ends.append(made.gradients({n: v.clone() for n, v in state.p.items()}, x, x, moment))
    losses = [float(out.error_BO.square().sum()) / batch + out.penalty for out in ends]
    found["loss"] = abs(losses[1] / losses[0] - 1)
    found["gradients"] = max(away(ends[1].grads[name], value) for name, value in ends[0].grads.items())
    fvus = []
    for state, rows in zip(states, (here, there), strict=True):
        turn = cycle(rows)
        fvus.append([optimise(state, made, config, next(turn), i / 40).fvu for i in range(STEPS)][-1])
    found["FVU after 20 steps"] = abs(fvus[1] - fvus[0])
    moves = [away(states[1].p[name], value) for name, value in states[0].p.items() if name.startswith("W_")]
    found["weights after 20 steps"] = max(moves)
    sae = finish(states[0], made, here[3])
    return found | encoded_alike(sae, here[3], device, bfloat16)


def encoded_alike(sae: SAE, x_BD: Tensor, device: torch.device, bfloat16: bool) -> dict[str, float]:
    """Whether an SAE has the same active entries, values and reconstruction there, whatever proposes its candidates."""
    want = sae.active(x_BD, bfloat16=False)
    wanted, entries = want.dense(), len(want.rows)
    decoded = sae.decode_active(want, x_BD)
    there = SAE(**{name: value.to(device) for name, value in sae.state_dict().items()}, k=sae.k)
    got = there.active(x_BD, bfloat16=bfloat16)
    dense = got.dense().cpu()
    both = (dense > 0) & (wanted > 0)
    return {
        "selected otherwise": float(((dense > 0) != (wanted > 0)).sum()) / max(entries, 1),
        "encode": away(dense[both], wanted[both]),
        "decode": away(there.decode_active(want_on(want, device), x_BD), decoded),
    }


def want_on(active: Any, device: torch.device) -> Any:
    """The same entries on the device."""
    return type(active)(
        *(getattr(active, n).to(device) for n in ("rows", "features", "values", "offsets")), active.d_sae
    )


def resumed(device: torch.device) -> dict[str, Any]:
    """A run that is left on the device and goes on on the CPU, beside one that was on the CPU all along."""
    d_in, d_sae, k, batch = CHECKED
    made, rows = architecture("batchtopk", d_in, d_sae, k), planted(d_in, 24, batch, torch.device("cpu"))

    def events(where: str, folder: str) -> Iterator[Any]:
        config = TrainConfig(tokens=batch * 20, device=where, bfloat16=False, save_every=batch * 5, lr=2e-3)
        return steps(rows, made, config, held_out=rows[-1], into=folder)

    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        *_, whole = events("cpu", one)
        going = events(str(device), two)
        for _ in range(12):
            next(going)
        going.close()
        rest = list(events("cpu", two))
    said = any("goes on on cpu" in note for event in rest for note in event.notes)
    gone_on = rest[0].step
    assert device.type == "cpu" or said
    return {
        "goes on at step": gone_on,
        "said": said,
        "FVU": [rest[-1].fvu, whole.fvu],
        "resumed on the CPU, FVU": abs(rest[-1].fvu - whole.fvu),
    }


def timed(work: Callable[[], Any], device: torch.device, seconds: float, least: int = 5) -> float:
    """The median seconds of `work`, in bursts that end together with the device."""
    work()
    synchronise(device)
    began = time.perf_counter()
    work()
    synchronise(device)
    burst = max(min(int(0.2 / max(time.perf_counter() - began, 1e-5)), 50), 1)
    each: list[float] = []
    end = time.perf_counter() + seconds
    while len(each) < least or time.perf_counter() < end:
        began = time.perf_counter()
        for _ in range(burst):
            work()
        synchronise(device)
        each.append((time.perf_counter() - began) / burst)
        if len(each) >= 2 and time.perf_counter() > end + seconds:
            break
    return median(each)


def products(d_in: int, d_sae: int, batch: int, device: torch.device, seconds: float) -> dict[str, float]:
    """Milliseconds of the encoder's bfloat16 product, and of the two of its dense backward pass, outputs allocated."""
    x = torch.randn(batch, d_in, device=device).bfloat16()
    W = torch.randn(d_sae, d_in, device=device).bfloat16()
    z, into_W, into_x = torch.mm(x, W.T), torch.empty_like(W), torch.empty_like(x)
    forward = timed(lambda: torch.mm(x, W.T, out=z), device, seconds)
    weights = timed(lambda: torch.mm(z.T, x, out=into_W), device, seconds)
    rows = timed(lambda: torch.mm(z, W, out=into_x), device, seconds)
    flops = 2 * batch * d_in * d_sae
    return {
        "forward ms": 1e3 * forward,
        "backward to weights ms": 1e3 * weights,
        "backward to rows ms": 1e3 * rows,
        "forward TFLOP/s": flops / forward / 1e12,
    }


def begun(kind: str, d_in: int, d_sae: int, k: int, rows: list[Tensor]) -> Callable[[], None]:
    """One step at a time of a run in its middle, parameters in float32; AuxK has nothing to do until something is dead."""
    made = architecture(kind, d_in, d_sae, k)
    tokens = len(rows[0]) * 100_000
    config = TrainConfig(tokens=tokens, device=str(rows[0].device), bfloat16=True).resolved(made, tokens)
    some = torch.cat(rows[:2])[:16_384]
    state, turn = initial(some, some, made, 0), cycle(rows)

    def step() -> None:
        optimise(state, made, config, next(turn), 0.5)

    return step


def speed(
    kind: str, d_in: int, d_sae: int, k: int, rows: list[Tensor], bare: dict[str, float], seconds: float
) -> dict[str, Any]:
    """Steps and rows a second, memory, and the products' share of a step."""
    device, batch = rows[0].device, len(rows[0])
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    step = begun(kind, d_in, d_sae, k, rows)
    for _ in range(30):  # a JumpReLU's codes become sparse
        step()
    took = timed(step, device, seconds)
    three = sum(bare[name] for name in bare if name.endswith("ms"))
    peak = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None
    return {
        "ms a step": round(1e3 * took, 3),
        "steps/s": round(1 / took, 2),
        "rows/s": round(batch / took),
        "forward product's share": round(bare["forward ms"] / (1e3 * took), 3),
        "three products' share": round(three / (1e3 * took), 3),
        "peak GiB": peak and round(peak, 2),
    }


def looped(d_in: int, d_sae: int, k: int, rows: list[Tensor], count: int) -> dict[str, float]:
    """Milliseconds a step of a whole run of BatchTopK, with its warnings and events, from the tenth step on."""
    made, batch = architecture("batchtopk", d_in, d_sae, k), len(rows[0])
    config = TrainConfig(tokens=batch * count, device=str(rows[0].device), bfloat16=True)
    turn = cycle(rows)
    times = []
    for event in steps((next(turn) for _ in range(count)), made, config, held_out=rows[0]):
        times.append(time.perf_counter())
        assert event.step <= count
    return {"ms a step": round(1e3 * (times[-2] - times[9]) / (count - 10), 3)}


def profile(kind: str, d_in: int, d_sae: int, k: int, rows: list[Tensor]) -> dict[str, Any]:
    """Microseconds of the device's kernels in a step, the longest first, and how many were begun."""
    step = begun(kind, d_in, d_sae, k, rows)
    for _ in range(30):
        step()
    activities = [torch.profiler.ProfilerActivity.CPU]
    activities += [torch.profiler.ProfilerActivity.CUDA] if rows[0].device.type == "cuda" else []
    with torch.profiler.profile(activities=activities) as seen:
        for _ in range(5):
            step()
        synchronise(rows[0].device)
    name = "self_device_time_total" if rows[0].device.type == "cuda" else "self_cpu_time_total"
    found = sorted(seen.key_averages(), key=lambda event: -getattr(event, name))
    mine = [event for event in found if getattr(event, name) and not event.key.startswith(("ProfilerStep", "cuda"))]
    return {event.key[:90]: [round(getattr(event, name) / 5, 1), event.count / 5] for event in mine[:24]}


def against_sparsify(d_in: int, d_sae: int, k: int, rows: list[Tensor], seconds: float) -> Any:
    """Milliseconds of sparsify's forward and backward pass (without an optimiser) on the same rows, where it is installed."""
    try:
        from sparsify import SparseCoder, SparseCoderConfig
    except ImportError as error:
        return f"not measured: sparsify cannot be imported here ({error})"
    device = rows[0].device
    coder = SparseCoder(d_in, SparseCoderConfig(num_latents=d_sae, k=k), device=device, dtype=torch.float32)
    turn = cycle(rows)

    def both() -> None:
        x = next(turn)
        with torch.autocast(device.type, torch.bfloat16):
            coder(x, x).fvu.backward()
        coder.zero_grad(set_to_none=True)

    return {"forward and backward ms": round(1e3 * timed(both, device, seconds), 3)}


def judge(found: dict[str, float], bfloat16: bool) -> list[str]:
    """What is farther off than it may be."""
    return [name for name in found if name in TOLERANCES and not found[name] <= TOLERANCES[name][bfloat16]]


def check(report: Report, device: torch.device) -> None:
    """(a) and (c): the same results as on the CPU, as a table."""
    print(f"{'':32}" + "".join(f"{name[:22]:>24}" for name in TOLERANCES))
    for kind, bfloat16 in product(KINDS, (False, True)):
        name = f"{kind} {'bfloat16' if bfloat16 else 'float32'}"
        found = report.case(f"same as CPU, {name}", same_as_cpu, kind, device, bfloat16)
        if found and "failed" not in found:
            print(f"{name:32}" + "".join(f"{found.get(each, float('nan')):24.2e}" for each in TOLERANCES), flush=True)
            report.failed += [f"{name}: {each} is {found[each]:.2e}" for each in judge(found, bfloat16)]
    found = report.case("resume", resumed, device)
    if found and "failed" not in found:
        report.failed += [f"resume: {each} is {found[each]:.2e}" for each in judge(found, False)]


def measure(report: Report, device: torch.device, quick: bool, profiled: bool) -> None:
    """(b): speed, at each size the yardstick first."""
    gpu = device.type == "cuda"
    sizes = SIZES if gpu or not quick else SMALL
    seconds = (0.3 if gpu else 0.02) if quick else 1.5
    for batch in (4096, 16_384) if not quick else (4096 if gpu else 256,):
        for d_in, d_sae in sizes:
            ks = (32, 64) if batch == 4096 and not quick else (32,)
            _size(report, (d_in, d_sae, batch), ks, device, seconds, profiled and batch != 16_384)


def _size(
    report: Report,
    size: tuple[int, int, int],
    ks: tuple[int, ...],
    device: torch.device,
    seconds: float,
    profiled: bool,
) -> None:
    d_in, d_sae, batch = size
    rows, name = planted(d_in, 4, batch, device), f"{d_in}→{d_sae}, batch {batch}"
    bare = report.case(f"products {name}", products, d_in, d_sae, batch, device, seconds / 3)
    if not bare or "forward ms" not in bare:
        return
    for k, kind in product(ks, KINDS):
        report.case(f"{kind} {name}, k {k}", speed, kind, d_in, d_sae, k, rows, bare, seconds, least=12)
    for kind in KINDS if profiled else ():
        report.case(f"profile {kind} {name}", profile, kind, d_in, d_sae, 32, rows, least=20)
    report.case(f"whole run {name}", looped, d_in, d_sae, 32, rows, 60, least=15)
    report.case(f"sparsify topk {name}", against_sparsify, d_in, d_sae, 32, rows, seconds, least=10)


def about(device: torch.device) -> dict[str, Any]:
    found: dict[str, Any] = {"device": str(device), "torch": torch.__version__, "cuda": torch.version.cuda}
    if device.type == "cuda":
        found |= {"card": torch.cuda.get_device_name(device)}
        found |= {"memory GiB": round(torch.cuda.mem_get_info(device)[1] / 2**30, 1)}
    try:
        import triton

        found["triton"] = triton.__version__
    except ImportError:
        found["triton"] = None
    return found | {"stand-ins for": MISSING}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "gpu.json")
    parser.add_argument("--seconds", type=float, default=340.0, help="after which no case is begun")
    parser.add_argument("--profile", action="store_true", help="also what a step's kernels take")
    given = parser.parse_args()
    if given.device.startswith("cuda") and not torch.cuda.is_available():
        sys.exit("there is no CUDA device on this machine; --device cpu --quick runs everything small without one.")
    device, report = torch.device(given.device), Report(given.out, given.seconds)
    report.case("about", about, device)
    check(report, device)
    measure(report, device, given.quick, given.profile)
    report.keep("missed", report.failed)
    print("\n".join(["MISSED:", *report.failed] if report.failed else ["everything is within its tolerance"]))
    sys.exit(1 if report.failed else 0)


if __name__ == "__main__":
    main()
