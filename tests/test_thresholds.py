"""Thresholds for each feature, set after training at the same L0."""

import pytest
import torch

from interp.checkpoint import Card, load
from interp.recipe import train_checkpoint
from interp.sae import SAE, BatchTopK, Crosscoder, TopK, Transcoder, thresholds
from interp.sae.metrics import reconstruction
from interp.sae.thresholds import feature_thresholds
from interp.training import TrainConfig, steps, train
from interp.types import InterpError
from tests.conftest import HOOK
from tests.test_training import Rows, planted


def noisy_and_clear(count=6_000):
    """(SAE, rows): the first 8 features fire at 2 to 3 on a background that reaches 1.5; of the other 8, whose
    activations begin at .4, nothing else fires. No common threshold serves both."""
    torch.manual_seed(3)
    W = torch.linalg.qr(torch.randn(24, 24)).Q
    code = torch.zeros(count, 24)
    code[:, :8] = (2 + torch.rand(count, 8)) * (torch.rand(count, 8) < 0.15)
    code[:, 8:16] = (0.4 + torch.rand(count, 8)) * (torch.rand(count, 8) < 0.15)
    x = code @ W
    mixed = W[:16].clone()
    mixed[:8] += W[16:]  # the first features' encoder rows also see the background
    x = x + (torch.rand(count, 8) * 1.5) @ W[16:]
    zero = torch.zeros
    sae = SAE(W_enc=mixed.T, b_enc=zero(16), W_dec=W[:16], b_dec=zero(24), threshold=torch.full((16,), 1.0))
    return sae, x


def at_level(sae, x, k):
    level = sae.pre_activations(x).flatten().topk(k * len(x)).values[-1]
    return thresholds._with(sae, torch.full_like(sae.threshold, float(level)))


def test_features_get_thresholds_of_their_own_at_the_same_l0_and_reconstruct_rows_not_seen_better():
    sae, x = noisy_and_clear()
    seen, others = x[:3000], x[3000:]
    one = at_level(sae, seen, 2)
    each = thresholds._with(one, feature_thresholds(one, seen, seen, 2))
    assert float(each.threshold[:8].mean()) > float(one.threshold[0]) > float(each.threshold[8:].mean())
    before, after = (reconstruction(sae, others) for sae in (one, each))
    assert after.l0 == pytest.approx(before.l0, rel=0.03)
    assert after.fvu < 0.95 * before.fvu


def test_exactly_k_a_row_pass_on_the_rows_that_set_them():
    sae, x = noisy_and_clear()
    one = at_level(sae, x, 2)
    each = thresholds._with(one, feature_thresholds(one, x, x, 2))
    assert len(each.active(x).rows) == pytest.approx(2 * len(x), abs=2)


def slow_best(gain, log, price):
    """The threshold's place in one feature's entries, the largest first, by trying each."""
    worth = [-price * thresholds.PRIOR * max(float(log[0]), 0.0)]
    worth += [
        float(gain[: n + 1].sum() - price * (n + 1 + thresholds.PRIOR * abs(float(log[n])))) for n in range(len(gain))
    ]
    return max(range(len(worth)), key=lambda n: worth[n])


def test_the_best_thresholds_are_those_found_by_trying_each(monkeypatch):
    monkeypatch.setattr(thresholds, "PRIOR", 0.5)
    torch.manual_seed(0)
    features = torch.randint(6, (200,))
    ratio = (torch.rand(200) * 1.4 + 0.55).double()
    order, first, rank = thresholds._by_feature(features, ratio, 6)
    gain, logs, sorted_features = torch.randn(200).double() + 1, ratio[order].log(), features[order]
    found = thresholds._best(gain, logs, sorted_features, first, rank, 90)
    taken = [int((logs[sorted_features == f] > found[f]).sum()) for f in range(6)]
    prices = torch.linspace(0.01, 4.0, 2_000).tolist()
    by_trying = [
        [slow_best(gain[sorted_features == f], logs[sorted_features == f], price) for f in range(6)] for price in prices
    ]
    assert taken in by_trying
    sums = {sum(way) for way in by_trying}
    assert sum(taken) in (max(n for n in sums if n <= 90), min(n for n in sums if n > 90))


def test_a_prior_keeps_features_with_few_entries_where_they_are(monkeypatch):
    sae, x = noisy_and_clear(200)
    one = at_level(sae, x, 2)
    far = {}
    for prior in (0.0, 1e4):
        monkeypatch.setattr(thresholds, "PRIOR", prior)
        far[prior] = float((feature_thresholds(one, x, x, 2) / one.threshold).log().abs().mean())
    assert far[1e4] < 0.2 * far[0.0]


@pytest.mark.parametrize("kind", ["batchtopk", "transcoder", "crosscoder"])
def test_a_run_ends_with_a_threshold_for_each_feature_and_is_else_the_same(kind):
    x, _ = planted(rows=256 * 40)
    rules = {
        "batchtopk": BatchTopK(d_in=32, d_sae=48, k=3),
        "transcoder": Transcoder(d_in=32, d_out=12, d_sae=48, k=3, skip=True),
        "crosscoder": Crosscoder(widths=(20, 12), d_sae=48, k=3),
    }
    y = {"batchtopk": None, "transcoder": x[:, :12].relu() * 2, "crosscoder": x[:, 20:]}[kind]

    class Batches(Rows):
        def from_batch(self, first):
            left = x[:, :20] if kind == "crosscoder" else x
            pairs = zip(left.split(256), (y if y is not None else x).split(256), strict=True)
            return iter([(a, b) if y is not None else a for a, b in pairs][first : len(self)])

    held = (x[:4096, :20] if kind == "crosscoder" else x[:4096], y[:4096]) if y is not None else x[:4096]
    ends = {}
    for way in ("one", "feature"):
        *_, ends[way] = steps(Batches(x), rules[kind], TrainConfig(thresholds=way), held_out=held)
    one, each = ends["one"].sae, ends["feature"].sae
    assert torch.equal(one.W_enc, each.W_enc)
    assert not torch.equal(one.threshold, each.threshold)
    assert (each.centred, each.reads) == (one.centred, one.reads)
    assert ends["feature"].l0 == pytest.approx(ends["one"].l0, rel=0.1)
    assert ends["feature"].fvu < 1.02 * ends["one"].fvu


def test_the_card_says_how_thresholds_were_set_and_saelens_opens_them(store, tmp_path):
    from sae_lens import SAE as Theirs

    def make(**changed):
        return train_checkpoint(store, HOOK, tmp_path / "one", d_sae=32, k=4, batch=256, **changed)

    sae = make(config=TrainConfig(thresholds="feature"))
    assert Card.read(tmp_path / "one").recipe["training"]["thresholds"] == "feature"
    assert len(sae.threshold.unique()) > 1
    x = next(iter(store.batches(HOOK, 64)))
    torch.testing.assert_close(Theirs.load_from_disk(str(tmp_path / "one")).encode(x), load(tmp_path / "one").encode(x))
    with pytest.raises(InterpError, match="thresholds = 'feature', and 'one' was asked"):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TrainConfig(thresholds="features"), "no way to set thresholds 'features': did you mean feature"),
        (
            lambda: train([torch.rand(8, 4)], TopK(d_in=4, d_sae=8, k=2), TrainConfig(tokens=8, thresholds="feature")),
            "would do nothing for TopK",
        ),
    ],
)
def test_mistakes_are_answered_in_a_sentence(make, message):
    with pytest.raises(InterpError, match=message):
        make()
