"""What tells where a token is sent: found where it was planted, nothing where the token alone decides; and how routing is read."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from interp.corpus import TokenBlocks
from interp.evals.routing import Pairs, Routing, layers_of_experts, measure_features, measure_routing, read_routing
from interp.models import open_model
from interp.sae.rows import random_rows
from interp.types import InterpError
from tests.families import save
from tests.test_planted import made

DOCUMENTS, LENGTH, TOKENS, EXPERTS = 80, 60, 12, 3


def world(decides, seed=0):
    """Random tokens; feature 0 fires in stretches, of which no token tells; feature 1 at token 3, 2 at the pair (3, 4) and 3 in
    half of the documents, which have more of tokens 0 to 5; the rest at random. `decides` gives the expert of each position."""
    draw = np.random.default_rng(seed)
    document = np.repeat(np.arange(DOCUMENTS), LENGTH)
    about = document % 2 == 0
    token = np.where(
        draw.random(len(document)) < 0.7 * about,
        draw.integers(0, 6, len(document)),
        draw.integers(0, TOKENS, len(document)),
    )
    before = np.where(np.arange(len(token)) % LENGTH == 0, TOKENS, np.roll(token, 1))
    stretch = np.repeat(draw.random(len(token) // 10) < 0.3, 10)
    planted = [stretch, token == 3, (before == 3) & (token == 4), about]
    fires = np.stack([*planted, *(draw.random((4, len(token))) < 0.2)], 1)
    expert = decides(stretch, token, before, draw)
    sent = np.eye(EXPERTS, dtype=bool)[expert]
    return Routing(
        0, sent, token, before, document, csr_matrix(fires * draw.uniform(1, 2, fires.shape)), np.arange(len(token))
    )


def test_a_feature_that_decides_is_told_and_what_tokens_say_is_not():
    def decides(stretch, token, before, draw):
        return np.where(stretch & (draw.random(len(token)) < 0.8), 2, token % 3)

    found = measure_routing(world(decides), chosen=4)
    assert [(row["expert"], row["feature"]) for row in found.rows if row["told"]] == [(2, 0)]
    (row,) = (row for row in found.rows if row["told"])
    assert row["within_interval"][0] < 0.8 * 2 / 3 < row["within_interval"][1]  # a third would have gone there anyway
    assert row["rate"] == pytest.approx(0.8 + 0.2 / 3, abs=0.05)
    assert found["gain_both"].interval[0] > 0.1
    assert found["bits_both"].value < found["bits_pair"].value
    assert found["found_both"].value > found["found_pair"].value


@pytest.mark.parametrize(("pair", "seed"), [(False, 0), (True, 1)])
def test_where_tokens_decide_no_feature_is_told(pair, seed):
    def decides(stretch, token, before, draw):
        own = (token + before * pair) % 3
        return np.where(draw.random(len(token)) < 0.1, draw.integers(0, 3, len(token)), own)

    found = measure_routing(world(decides, seed), seed=seed, chosen=8)
    assert found.rows
    assert not [row for row in found.rows if row["told"]]
    assert found["gain_both"].value < 0.005
    token = [found[name] for name in ("bits_token", "bits_pair")]
    assert (token[0].value > 4 * token[1].value / 3) == pair


def test_a_feature_that_always_fires_at_its_pair_says_nothing_beyond_it():
    text = world(lambda stretch, token, before, draw: np.where(token == 3, 1, 0))
    rows = measure_features(text, text.activation_PF, [(1, 1)], np.full(text.sent_PE.shape, 1 / 3))
    assert rows[0]["rate"] == 1
    assert rows[0]["over"][0] > 0.6
    assert (rows[0]["within"], rows[0]["p"], rows[0]["told"]) == (None, None, False)


def test_pairs_lean_on_tokens_and_these_on_the_share():
    sent = np.array([[True, False], [True, False], [False, True], [False, True]])
    text = Routing(
        0, sent, np.array([1, 1, 1, 2]), np.array([0, 0, 5, 1]), np.zeros(4, int), csr_matrix((4, 1)), np.arange(4)
    )
    pairs = Pairs(text, 1.0)
    token_1 = (2 + 0.5) / 4
    assert pairs.by_token(np.array([1, 2, 9]))[:, 0].tolist() == [token_1, 0.5 / 2, 0.5]
    assert pairs.by_pair(text)[:3, 0].tolist() == [(2 + token_1) / 3, (2 + token_1) / 3, token_1 / 2]


def test_where_tokens_were_sent_is_what_the_router_chose(tmp_path):
    import pyarrow as pa

    model = open_model(str(save("mixtral", tmp_path / "m")), dtype="float32")
    tokens = torch.randint(5, 300, (4, 20), generator=torch.Generator().manual_seed(0))
    tokens[:, 0] = model.separator
    tokens[1, 7] = model.separator
    documents = torch.arange(4)[:, None].expand(4, 20).clone()
    blocks = TokenBlocks(tokens, documents, pa.table({"document": range(4)}), model.separator)
    sae = made(random_rows(16, 32, 0), random_rows(16, 32, 0))
    sae.set_hooks("blocks.1.mlp.hook_in")
    assert list(layers_of_experts(model)) == [0, 1, 2]
    text = read_routing(model, sae, blocks, 1, norm_cutoff={})
    hooks = ["blocks.1.mlp.hook_in", "blocks.1.mlp.hook_router_logits"]
    run = model.run(tokens, hooks)
    real = blocks.real_NT()
    two = run.activations[hooks[1]][real].topk(2).indices
    assert np.array_equal(text.sent_PE, torch.zeros(len(two), 4).scatter(1, two, 1).bool().numpy())
    assert np.array_equal(text.token_P, tokens[real])
    assert np.array_equal(text.before_P, tokens.roll(1, 1)[real])
    assert np.array_equal(text.document_P, documents[real])
    assert np.array_equal(text.position_P, real.flatten().nonzero().squeeze(1))
    active = sae.active(run.activations[hooks[0]][real].float())
    assert text.activation_PF.nnz == len(active.values) > 0
    with pytest.raises(InterpError, match=r"m has no experts in layer 7 .*: its layers with experts are 0, 1, 2"):
        read_routing(model, sae, blocks, 7, norm_cutoff={})
    with pytest.raises(InterpError, match="no layer of it has any"):
        read_routing(open_model(str(save("llama", tmp_path / "l")), dtype="float32"), sae, blocks, 1, norm_cutoff={})
