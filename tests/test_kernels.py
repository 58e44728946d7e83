"""Each sparse kernel against its slow, obvious, dense twin."""

import pytest
import torch

from interp.sae import kernels
from interp.sae.architecture import Moment
from interp.sae.batchtopk import select, threshold_for
from interp.sae.kernels import Dense, from_flat


def random_active(batch=5, d_sae=12, share=0.3, seed=0):
    torch.manual_seed(seed)
    dense = torch.randn(batch, d_sae).abs() * (torch.rand(batch, d_sae) < share)
    flat = dense.view(-1).nonzero().squeeze(1)
    return from_flat(flat, dense.view(-1)[flat], batch, d_sae), dense


def test_active_entries_make_the_dense_matrix_again():
    active, dense = random_active()
    assert torch.equal(active.dense(), dense)
    values, indices = active.padded()
    again = torch.zeros_like(dense).scatter_add_(1, indices, values)
    assert torch.equal(again, dense)


def test_a_row_without_entries_decodes_to_zero():
    active = from_flat(torch.tensor([4]), torch.tensor([2.0]), 3, 4)
    assert active.decode(active.values, torch.eye(4)).tolist() == [[0.0] * 4, [2.0, 0.0, 0.0, 0.0], [0.0] * 4]


def test_sparse_sums_equal_dense_products():
    active, dense = random_active()
    code = Dense(dense)
    g, y, W, v = torch.randn(5, 7), torch.randn(5, 7), torch.randn(12, 7), torch.randn(12)
    at = dense > 0
    torch.testing.assert_close(active.decode(active.values, W), code.decode(dense, W))
    torch.testing.assert_close(active.dots(g, W), code.dots(g, W)[at])
    torch.testing.assert_close(active.outer(active.values, y), code.outer(dense, y))
    torch.testing.assert_close(active.sums(active.values), code.sums(dense))
    torch.testing.assert_close(active.at(v), code.at(v).expand(5, 12)[at])


def test_the_encoders_matrix_adds_the_bias_before_rounding():
    torch.manual_seed(4)
    u, W, b = torch.randn(6, 8), torch.randn(10, 8), torch.randn(10) * 100
    rows, matrix = kernels.encoder_rows(u, torch.bfloat16), kernels.encoder_matrix(W, b, torch.bfloat16)
    exact = u.bfloat16().float() @ W.bfloat16().float().T + b
    got = torch.cat([pre.clone() for _, pre in kernels.blocks(rows, matrix)])
    torch.testing.assert_close(got.float(), exact, rtol=2**-8, atol=2**-8)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("width", [768, 50, 7])
@pytest.mark.parametrize("shift", [0.0, -0.75, -50.0, 50.0])
def test_every_positive_entry_is_found_and_no_other(dtype, width, shift):
    torch.manual_seed(1)
    pre = (torch.randn(33, width) + shift).to(dtype)
    pre[3, 2], pre[4, 2] = 0.0, -0.0
    wanted = (pre > 0).view(-1).nonzero().squeeze(1)
    flat, values = kernels.positive_(pre.clone())
    assert torch.equal(flat, wanted)
    assert torch.equal(values, pre.view(-1)[wanted])


def test_a_cut_in_the_bias_passes_what_lies_above_it():
    torch.manual_seed(6)
    u, W, b = torch.randn(700, 5), torch.randn(24, 5), torch.randn(24)  # more rows than a block
    pre = (u @ W.T + b).view(-1)
    matrix = kernels.encoder_matrix(W, b - 1.5, torch.float32)
    flat, over = kernels.positive_entries(kernels.encoder_rows(u, torch.float32), matrix)
    assert torch.equal(flat, (pre > 1.5).nonzero().squeeze(1))
    torch.testing.assert_close(over + 1.5, pre[flat])


@pytest.mark.parametrize(("width", "k"), [(9216, 32), (2048, 8), (512, 32), (50, 7), (32, 32)])
def test_a_rows_topk_is_torchs(width, k):
    torch.manual_seed(2)
    pre = torch.randn(9, width)
    columns = kernels.row_topk(pre.view(torch.int32), k)
    positive = pre.topk(k, dim=1).values.clamp_min(0).sort().values  # the order of negative numbers does not matter
    assert torch.equal(pre.gather(1, columns).clamp_min(0).sort().values, positive)


def test_topk_entries_are_each_rows_largest_positive():
    W, u = torch.eye(4), torch.tensor([[3.0, 1.0, 2.0, -1.0], [-1.0, -2.0, 5.0, -3.0]])
    matrix = kernels.encoder_matrix(W, torch.zeros(4), torch.float32)
    flat, values = kernels.entries_topk(kernels.encoder_rows(u, torch.float32), matrix, 2)
    assert from_flat(flat, values, 2, 4).dense().tolist() == [[3.0, 0.0, 2.0, 0.0], [0.0, 0.0, 5.0, 0.0]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_largest_takes_exactly_the_count_even_with_ties(dtype):
    mask = kernels.largest(torch.tensor([1.0, 3.0, 3.0, 3.0, 0.5], dtype=dtype), 2)
    assert mask.tolist() == [False, True, True, False, False]
    assert kernels.largest(torch.ones(3, dtype=dtype), 0).tolist() == [False] * 3
    torch.manual_seed(7)
    values = torch.rand(5000).to(dtype)  # as bfloat16 a few hundred distinct ones
    for count in (1, 17, 2500, 4999, 5000, 6000):
        mask = kernels.largest(values, count)
        assert int(mask.sum()) == min(count, 5000)
        assert mask.all() or values[mask].min() >= values[~mask].max()


def test_batchtopk_selects_what_a_flat_topk_would():
    torch.manual_seed(2)
    u, p = torch.randn(6, 5), {"W_enc": torch.randn(20, 5), "b_enc": torch.randn(20) * 0.1}
    values = (u @ p["W_enc"].T + p["b_enc"]).view(-1).topk(18).values
    for hint in (0.0, 0.5, 100.0):  # unknown, too low, far too high: the answer is the same
        active, smallest = select(p, u, 3, Moment(0.0, torch.tensor(hint), torch.float32))
        torch.testing.assert_close(active.values.sort(descending=True).values, values)
        assert float(smallest) == pytest.approx(float(values[-1]))


def test_the_measured_threshold_lets_k_a_row_pass():
    torch.manual_seed(3)
    u, W, b = torch.randn(64, 8), torch.randn(30, 8), torch.randn(30)
    level = threshold_for(u, W, b, 4)
    assert int((u @ W.T + b > level).sum()) == 4 * 64
    assert threshold_for(u, W, b - 100.0, 4) == 0.0  # too few are positive


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_keeping_the_largest_leaves_the_rest_zero(dtype):
    torch.manual_seed(5)
    pre = torch.rand(6, 512).to(dtype)
    wanted = torch.zeros_like(pre).scatter_(1, pre.topk(9).indices, pre.topk(9).values)
    kept = kernels.keep_largest(pre, 9)
    assert kept is pre
    assert torch.equal(kept.sort().values, wanted.sort().values)  # which of equal values is kept is open
