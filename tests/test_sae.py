import pytest
import torch

from interp.sae import SAE
from interp.sae.metrics import reconstruction
from interp.types import InterpError


def make(rule="jumprelu", d_in=24, d_sae=96, seed=0):
    torch.manual_seed(seed)
    W = torch.nn.functional.normalize(torch.randn(d_sae, d_in), dim=1)
    kwargs = {"threshold": torch.rand(d_sae)} if rule == "jumprelu" else {"k": 5}
    return SAE(W_enc=W.T, b_enc=torch.randn(d_sae) * 0.2, W_dec=W, b_dec=torch.randn(d_in), **kwargs)


@pytest.mark.parametrize("rule", ["jumprelu", "topk"])
def test_sparse_and_dense_encoding_agree(rule):
    sae, x = make(rule), torch.randn(300, 24) * 2
    dense = sae.encode(x)
    assert torch.allclose(sae.active(x).dense(), dense, atol=1e-5)
    values, indices = sae.encode_sparse(x)
    assert torch.allclose(torch.zeros_like(dense).scatter_add_(1, indices, values), dense, atol=1e-5)
    assert torch.allclose(sae.reconstruct(x), sae.decode(dense), atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_bfloat16_candidates_lose_no_active_feature(seed):
    """Rows with large common parts, where a bfloat16 product is at its worst, and thresholds in the thick of it."""
    sae = make(seed=seed, d_in=64, d_sae=512)
    x = torch.randn(2000, 64) * torch.logspace(-2, 2, 2000)[:, None] + 50 * torch.randn(64)
    exact, quick = sae.active(x, bfloat16=False), sae.active(x, bfloat16=True)
    # The last bit of a float32 sum may differ between the two orders of summation, so only entries at the very edge
    # may: within 1e-5 of the row's scale.
    a, b = exact.dense(), quick.dense()
    differ = ((a > 0) != (b > 0)).nonzero()
    pre = sae.pre_activations(x)
    scale = (x - sae.b_dec).norm(dim=1)
    for row, feature in differ.tolist():
        assert abs(float(pre[row, feature] - sae.threshold[feature])) < 1e-5 * float(scale[row])
    both = (a > 0) & (b > 0)
    assert float((a - b)[both].abs().max()) < 1e-5 * float(scale.max())


def test_active_means_strictly_above_the_threshold():
    sae = SAE(
        W_enc=torch.eye(2), b_enc=torch.zeros(2), W_dec=torch.eye(2), b_dec=torch.zeros(2), threshold=torch.ones(2)
    )
    assert sae.encode(torch.tensor([[1.0, 1.5]])).tolist() == [[0.0, 1.5]]
    assert sae.active(torch.tensor([[1.0, 1.5]])).features.tolist() == [1]


def test_one_features_activation_is_its_column_of_the_code():
    for rule in ("jumprelu", "topk"):
        sae, x = make(rule), torch.randn(2, 50, 24)
        assert torch.allclose(sae.encode_feature(x, 7), sae.encode(x)[..., 7], atol=1e-5)


def test_metrics_equal_their_definitions():
    sae, x = make(), torch.randn(500, 24) * 2
    got = reconstruction(sae, x, batch=64)
    error = (x - sae.decode(sae.encode(x))).square().sum()
    assert got.fvu == pytest.approx(float(error / (x - x.mean(0)).square().sum()), rel=1e-5)
    assert got.l0 == pytest.approx(float((sae.encode(x) > 0).sum(1).float().mean()))
    assert got.dead == int(((sae.encode(x) > 0).sum(0) == 0).sum())


def test_moving_an_sae_forgets_what_it_cached():
    sae = make()
    sae.active(torch.randn(4, 24))
    sae.W_enc.mul_(2)
    again = sae.to(torch.float64).to(torch.float32)
    x = torch.randn(50, 24)
    assert torch.allclose(again.active(x).dense(), again.encode(x), atol=1e-5)


def test_an_sae_with_other_weights_forgets_what_it_cached():
    sae, other, x = make(seed=1), make(seed=2), torch.randn(50, 24)
    sae.active(x)
    sae.load_state_dict(other.state_dict())
    assert torch.equal(sae.active(x).dense(), other.active(x).dense())


@pytest.mark.parametrize("rule", ["jumprelu", "topk"])
def test_no_rows_have_no_entries(rule):
    assert make(rule).active(torch.zeros(0, 24)).dense().shape == (0, 96)
    assert make(rule).reconstruct(torch.zeros(0, 24)).shape == (0, 24)


def test_an_sae_needs_one_rule():
    with pytest.raises(InterpError, match="either a threshold"):
        SAE(W_enc=torch.eye(2), b_enc=torch.zeros(2), W_dec=torch.eye(2), b_dec=torch.zeros(2))
