"""What is for a GPU, tried without one: kernels in Triton's interpreter, the benchmark on the CPU and on a pretend device."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

import interp.sae
from interp.sae import gpu
from tests.elsewhere import elsewhere

ROOT = Path(__file__).parent.parent


def _loaded(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels run one program after the other, on the CPU (conftest.py says so to Triton before it is imported)."""
    pytest.importorskip("triton", reason="Triton is not installed, and its kernels are nothing without it")
    # By its path, past the hook that checks shapes in tests: Triton reads a kernel's source, and takes no wrapper for one.
    made = _loaded("interp.sae.triton_kernels", Path(gpu.__file__).with_name("triton_kernels.py"))
    monkeypatch.setitem(sys.modules, made.__name__, made)
    monkeypatch.setattr(interp.sae, "triton_kernels", made, raising=False)


@pytest.mark.parametrize("width", [50, 5000])
@pytest.mark.parametrize("dtype", [torch.int16, torch.int32])
def test_entries_over_a_cut_are_those_of_a_mask(interpreted, width, dtype):
    bits = torch.randint(-9, 30_000, (7, width), generator=torch.Generator().manual_seed(0)).to(dtype)
    cut = torch.tensor([0, 29_999, 1, 15_000, 40_000, -20, 29_000])
    flat, kept = gpu.entries_over(bits, cut)
    wanted = (bits > cut[:, None]).view(-1).nonzero().squeeze(1)
    assert torch.equal(flat, wanted)
    assert torch.equal(kept, bits.view(-1)[wanted])
    assert len(gpu.entries_over(bits, cut + 50_000)[0]) == 0


def test_sums_of_long_short_and_empty_segments(interpreted):
    draw = torch.Generator().manual_seed(1)
    long, alone = torch.full((100,), 2), torch.arange(6, 40)
    segments = torch.cat([torch.zeros(3, dtype=torch.int64), long, alone, torch.full((27,), 41)])
    items, weights = torch.randint(9, (len(segments),), generator=draw), torch.randn(len(segments), generator=draw)
    table, other = torch.randn(9, 300, generator=draw), torch.randn(45, 300, generator=draw)
    wanted = torch.zeros(45, 300).index_add_(0, segments, weights[:, None] * table[items])
    torch.testing.assert_close(gpu.segment_sums(segments, items, weights, table, 45), wanted)
    none = segments[:0]
    assert not gpu.segment_sums(none, none, weights[:0], table, 4).any()
    torch.testing.assert_close(gpu.dots(segments, items, other, table), (other[segments] * table[items]).sum(1))


def test_rows_of_a_decoder_are_projected_and_kept_at_norm_one(interpreted):
    draw = torch.Generator().manual_seed(2)
    grad, W = torch.randn(5, 1500, generator=draw), torch.randn(5, 1500, generator=draw)
    unit = W / W.norm(dim=1, keepdim=True)
    gpu.divide_by_norm_(W)
    torch.testing.assert_close(W, unit)
    wanted = grad - (grad * unit).sum(1, keepdim=True) * unit
    gpu.drop_along_(grad, unit)
    torch.testing.assert_close(grad, wanted)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["topk", "batchtopk", "jumprelu", "matryoshka"])
def test_training_through_triton_is_training(interpreted, bench, kind, monkeypatch):
    on = False
    monkeypatch.setattr(gpu, "runs", lambda x: on)
    made, rows = bench.architecture(kind, 12, 64, 4), bench.planted(12, 3, 32, torch.device("cpu"))
    config = bench.TrainConfig(tokens=320, device="cpu", bfloat16=False, dead_after=32, lr=1e-3).resolved(made, 320)
    one = bench.initial(torch.cat(rows), torch.cat(rows), made, 0)
    two = bench.moved(one, made, torch.device("cpu"))
    for i, batch in enumerate(rows):
        on = False
        wanted = bench.optimise(one, made, config, batch, i / 10)
        on = True
        assert bench.optimise(two, made, config, batch, i / 10).fvu == pytest.approx(wanted.fvu, rel=1e-5)
    for name, value in one.p.items():
        torch.testing.assert_close(two.p[name], value, rtol=1e-4, atol=1e-6)


def test_products_are_aligned_and_blocks_large_on_a_gpu():
    assert gpu.block_rows(65_536, torch.bfloat16) == 8192
    assert gpu.block_rows(2**31, torch.float32) == 1
    before = torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction
    with gpu.whole_sums():
        assert not torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction
    assert before == torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction
    assert not gpu.runs(torch.ones(2))


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark as a module, small."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    made = _loaded("gpu_benchmark", ROOT / "benchmarks" / "gpu.py")
    for name, small in {"CHECKED": (16, 128, 4, 64), "STEPS": 3, "SMALL": ((16, 128),)}.items():
        monkeypatch.setattr(made, name, small)
    return made


@pytest.mark.parametrize("kind", ["topk", "batchtopk", "jumprelu", "matryoshka"])
def test_the_benchmark_compares_a_device_with_the_cpu(bench, kind):
    with elsewhere() as device:
        found = bench.same_as_cpu(kind, device, False)
    assert set(found) < set(bench.TOLERANCES)
    assert not bench.judge(found, False)
    assert bench.judge(found | {"loss": float("nan")}, False) == ["loss"]


def test_the_benchmark_takes_a_run_from_a_device_to_the_cpu(bench):
    with elsewhere() as device:
        found = bench.resumed(device)
    assert found["said"]
    assert not bench.judge(found, False)


@pytest.mark.parametrize(("tolerance", "code"), [(1.0, 0), (-1.0, 1)])
def test_the_benchmark_writes_what_it_found_and_ends_with_1_on_a_miss(bench, tmp_path, monkeypatch, tolerance, code):
    file = tmp_path / "gpu.json"
    monkeypatch.setattr(bench, "KINDS", ("batchtopk",))
    monkeypatch.setattr(bench, "TOLERANCES", dict.fromkeys(bench.TOLERANCES, (tolerance, tolerance)))
    if code:  # the table alone
        monkeypatch.setattr(bench, "SMALL", ())
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--quick", "--device", "cpu", "--out", str(file)])
    with pytest.raises(SystemExit) as ended:
        bench.main()
    assert ended.value.code == code
    found = json.loads(file.read_text())
    assert bool(found["missed"]) == bool(code)
    if code:
        return
    speed = found["batchtopk 16→128, batch 256, k 32"]
    assert speed["rows/s"] > 0
    assert 0 < speed["forward product's share"] < speed["three products' share"]
    assert found["whole run 16→128, batch 256"]["ms a step"] > 0
    assert "cannot be imported" in str(found["sparsify topk 16→128, batch 256"])


def test_the_benchmark_needs_none_of_our_other_packages():
    hidden = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"jaxtyping", "platformdirs", "psutil", "rich", "beartype", "duckdb", "pyarrow"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hidden())
import gpu
print(gpu.MISSING, gpu.same_as_cpu("topk", gpu.torch.device("cpu"), False)["loss"])
"""
    folder = ROOT / "benchmarks"
    done = subprocess.run([sys.executable, "-c", hidden], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("['jaxtyping', 'platformdirs', 'psutil', 'rich'] 0.0")
