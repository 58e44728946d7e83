"""Each sparse kernel against its slow, obvious, dense twin."""

import torch

from interp.sae import BatchTopK, TopK, kernels
from interp.sae.batchtopk import threshold_for
from interp.sae.kernels import from_flat


def random_active(batch=5, d_sae=12, share=0.3, seed=0):
    torch.manual_seed(seed)
    dense = torch.randn(batch, d_sae).abs() * (torch.rand(batch, d_sae) < share)
    flat = dense.view(-1).nonzero().squeeze(1)
    return from_flat(flat, dense.view(-1)[flat], batch, d_sae), dense


def test_active_entries_make_the_dense_matrix_again():
    active, dense = random_active()
    assert torch.equal(active.dense(12), dense)
    values, indices = active.padded()
    again = torch.zeros_like(dense).scatter_add_(1, indices, values)
    assert torch.equal(again, dense)


def test_a_row_without_entries_decodes_to_zero():
    active = from_flat(torch.tensor([4]), torch.tensor([2.0]), 3, 4)
    assert kernels.decode(active, torch.eye(4)).tolist() == [[0.0] * 4, [2.0, 0.0, 0.0, 0.0], [0.0] * 4]


def test_gradients_equal_autograd_through_the_dense_product():
    _, dense = random_active()
    x, W_dec = torch.randn(5, 7), torch.randn(12, 7, requires_grad=True)
    W_enc, b_enc = torch.randn(12, 7, requires_grad=True), torch.zeros(12, requires_grad=True)
    shift = torch.zeros(7, requires_grad=True)
    mask = dense > 0
    code = ((x - shift) @ W_enc.T + b_enc) * mask
    g = torch.randn(5, 7)
    (code @ W_dec * g).sum().backward()
    entries = from_flat(mask.view(-1).nonzero().squeeze(1), code[mask].detach(), 5, 12)
    got = kernels.gradients(entries, x, g, W_enc.detach(), W_dec.detach())
    for mine, theirs in (
        (got.W_enc, W_enc.grad),
        (got.b_enc, b_enc.grad),
        (got.W_dec, W_dec.grad),
        (got.b_dec_in, shift.grad),
    ):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


def test_dots_are_the_products_at_the_entries():
    active, dense = random_active()
    g, W = torch.randn(5, 7), torch.randn(12, 7)
    torch.testing.assert_close(kernels.dots(active, g, W), (g @ W.T)[dense > 0])


def test_above_misses_nothing_when_the_cut_is_rounded():
    torch.manual_seed(1)
    pre = torch.randn(130, 50).bfloat16()
    cut = torch.randn(50)
    found = torch.zeros(130 * 50, dtype=torch.bool)
    found[kernels.above(pre, cut)] = True
    assert bool(found[(pre.float() > cut).view(-1)].all())


def test_largest_takes_exactly_the_count_even_with_ties():
    mask = kernels.largest(torch.tensor([1.0, 3.0, 3.0, 3.0, 0.0]), 2)
    assert mask.tolist() == [False, True, True, False, False]


def test_batchtopk_selects_what_a_flat_topk_would():
    torch.manual_seed(2)
    pre, bias = torch.randn(6, 20), torch.randn(20) * 0.1
    for hint in (0.0, 0.5, 100.0):  # too low, about right, far too high: the answer is the same
        active, smallest = BatchTopK(d_in=3, d_sae=20, k=3).select(pre, bias, torch.tensor(hint))
        values = (pre + bias).view(-1).topk(18).values
        assert torch.allclose(active.values.sort(descending=True).values, values)
        assert float(smallest) == float(values[-1])


def test_topk_selects_each_rows_largest_positive_entries():
    pre = torch.tensor([[3.0, 1.0, 2.0, -1.0], [-1.0, -2.0, 5.0, -3.0]])
    active, _ = TopK(d_in=2, d_sae=4, k=2).select(pre, torch.zeros(4), torch.zeros(()))
    assert active.dense(4).tolist() == [[3.0, 0.0, 2.0, 0.0], [0.0, 0.0, 5.0, 0.0]]


def test_the_measured_threshold_lets_k_a_row_pass():
    torch.manual_seed(3)
    parts = [torch.randn(40, 30), torch.randn(24, 30)]
    level = threshold_for(parts, 4)
    passed = sum(int((part > level).sum()) for part in parts)
    assert passed == 4 * 64
