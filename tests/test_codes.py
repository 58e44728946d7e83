"""Masks, and the one loop that encodes, against slow ways to the same."""

import numpy as np
import pytest
import torch

from interp.codes import encode, encode_rows
from interp.mask import SINK_RATIO, Mask, norm_cutoff, own_tokens
from interp.models import Model, open_model
from interp.sae import SAE
from interp.types import InterpError
from tests.conftest import HOOK
from tests.families import save, sentences

# ---- which positions count ----


def test_the_cutoff_is_six_times_the_median_of_finite_real_norms():
    norms = torch.tensor([1000.0, 1.0, 2.0, 3.0, float("nan"), float("inf")])
    real = torch.tensor([False, True, True, True, True, True])
    assert norm_cutoff(norms, real) == SINK_RATIO * 2.0
    assert norm_cutoff(torch.tensor([4.0])) == 24.0
    with pytest.raises(InterpError, match="none of 2 positions has a finite norm"):
        norm_cutoff(norms, torch.tensor([False, False, False, False, True, True]))


def test_a_texts_own_tokens_are_neither_its_first_nor_separators_wherever_padding_puts_them():
    tokens = torch.tensor([[0, 5, 0, 6], [0, 0, 7, 8]])
    assert own_tokens(tokens, 0).tolist() == [[False, True, False, True], [False, False, True, True]]
    place = torch.tensor([[0, 1, 2, 3], [-1, -1, 0, 1]])
    assert own_tokens(tokens, 0, place).tolist() == [[False, True, False, True], [False, False, False, True]]


def test_a_position_counts_when_it_is_real_and_no_sink_at_any_hook_point():
    real = torch.tensor([True, True, True, True, False])
    a = torch.tensor([[3.0, 4.0], [30.0, 40.0], [0.0, 1.0], [float("nan"), 0.0], [0.0, 1.0]])
    b = torch.tensor([1.0, 1.0, 9.0, 1.0, 1.0])  # norms that are known
    assert Mask({"a": 5.0}).counted({"a": a}, real).tolist() == [True, False, True, False, False]
    assert Mask({"a": 5.0, "b": 8.0}).counted({"a": a, "b": b}, real).tolist() == [True, False, False, False, False]
    assert Mask({}).counted({}, real).tolist() == real.tolist()


# ---- codes ----


def dictionary(model: Model, hook: str) -> SAE:
    draw, width = torch.Generator().manual_seed(3), model.width(hook)
    W = torch.randn(width, 4 * width, generator=draw)
    return SAE(
        W_enc=W, b_enc=torch.zeros(4 * width), W_dec=W.T.contiguous(), b_dec=torch.zeros(width),
        threshold=torch.full((4 * width,), 0.5), reads=hook, name="drawn",
    )  # fmt: skip


@pytest.mark.parametrize("family", ["llama", "gpt2", "bloom", "mamba"])  # of which the last reads its padding
def test_codes_are_those_of_each_text_alone(tmp_path, family):
    model = open_model(str(save(family, tmp_path / family)), dtype="float32")
    hook = [h for h in model.hook_names() if h.endswith(("hook_resid_post", "hook_out"))][-1]
    sae = dictionary(model, hook)
    items = [model.prompt(text) for text in (*sentences(3), "the")] + [[model.separator, 7, model.separator, 9]]
    assert len({len(item) for item in items}) > 2
    codes = encode(model, sae, items, Mask({hook: 1e9}))
    assert codes.matrix.shape == (sum(map(len, items)), sae.d_sae)
    first = 0
    for number, item in enumerate(items):
        x_TD = model.run(torch.tensor([item]), [hook]).activations[hook][0].float()
        counted = [place > 0 and token != model.separator for place, token in enumerate(item)]
        active = sae.active(x_TD[counted])
        alone = encode(model, sae, [item], Mask({hook: 1e9}))
        assert alone.value_A.tobytes() == active.values.numpy().tobytes()  # bit for bit
        assert alone.feature_A.tolist() == active.features.tolist()
        assert alone.counted_P.tolist() == counted
        own = slice(first, first + len(item))
        slow = np.zeros((len(item), sae.d_sae), dtype=np.float32)
        slow[counted] = active.dense().numpy()
        together = codes.matrix[own].toarray()
        both = (together > 0) & (slow > 0)
        assert np.allclose(together[both], slow[both], rtol=1e-3, atol=1e-2)
        # What fires in one of the two only stands at its threshold, where another order of a sum decides.
        once = np.nonzero((together > 0) != (slow > 0))
        level = sae.threshold.numpy()[once[1]]
        assert (np.abs(np.maximum(together, slow)[once] - level) < 1e-3).all()
        about = codes.positions.iloc[own]
        assert about["item"].tolist() == [number] * len(item)
        assert about["place"].tolist() == list(range(len(item)))
        assert about["token"].tolist() == item
        assert about["text"].tolist() == [model.vocabulary[token] for token in item]
        assert about["counted"].tolist() == counted
        assert np.allclose(codes.largest()[number], slow.max(0), rtol=1e-3, atol=1e-2)
        first += len(item)


def test_a_norm_beyond_the_cutoff_has_no_codes_unless_it_is_asked_for(tiny):
    sae = dictionary(tiny, HOOK)
    item = tiny.prompt("A cat sat on the mat.")
    x = tiny.run(torch.tensor([item]), [HOOK]).activations[HOOK][0].float()
    cutoff = float(x[1:].norm(dim=1).median())
    codes = encode(tiny, sae, [item], Mask({HOOK: cutoff}))
    fired = codes.matrix.toarray().any(1)
    assert not fired[~codes.counted_P].any()
    assert 0 < codes.counted_P.sum() < len(item) - 1
    everywhere = encode(tiny, sae, [item], Mask({HOOK: cutoff}), include_masked=True)
    assert everywhere.counted_P.tolist() == codes.counted_P.tolist()
    assert everywhere.matrix.toarray().any(1).sum() > fired.sum()


def test_no_items_have_an_empty_matrix_and_too_long_ones_are_named(tiny):
    sae = dictionary(tiny, HOOK)
    none = encode(tiny, sae, [], Mask({HOOK: 1e9}))
    assert none.matrix.shape == (0, sae.d_sae)
    assert len(none.positions) == 0
    assert none.largest().shape == (0, sae.d_sae)
    with pytest.raises(InterpError, match=rf"text 1 has {tiny.n_ctx + 1:,} tokens .* reads 1 to {tiny.n_ctx:,}"):
        encode(tiny, sae, [[0, 5], [5] * (tiny.n_ctx + 1)], Mask({HOOK: 1e9}))
    with pytest.raises(InterpError, match="text 0 has 0 tokens"):
        encode(tiny, sae, [[]], Mask({HOOK: 1e9}))


def test_rows_are_encoded_some_at_a_time_and_keep_their_numbers():
    eye = torch.eye(3)
    sae = SAE(W_enc=eye, b_enc=torch.zeros(3), W_dec=eye, b_dec=torch.zeros(3), threshold=torch.zeros(3))
    x = torch.tensor([[1.0, 0.0, 2.0], [5.0, 5.0, 5.0], [0.0, 3.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 4.0]])
    counted = torch.tensor([True, False, True, True, True])
    for at_once in (1, 2, 100):
        entries = encode_rows(sae, x, counted, at_once=at_once)
        assert entries.row_A.tolist() == [0, 0, 2, 4]
        assert entries.feature_A.tolist() == [0, 2, 1, 2]
        assert entries.value_A.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert encode_rows(sae, x, torch.zeros(5, dtype=torch.bool)).row_A.tolist() == []


def test_the_workbench_encodes_texts_as_its_spectrum_shows_them(wb):
    text = "A cat sat on the mat."
    codes, shown = wb.encode([text]), wb.spectrum(text)
    assert codes.position_A.tolist() == shown.rows.tolist()
    assert codes.feature_A.tolist() == shown.features.tolist()
    assert codes.value_A.tobytes() == shown.values.tobytes()  # bit for bit
    assert codes.positions["text"].tolist() == shown.tokens
    assert codes.positions["counted"].tolist() == shown.counted
    assert codes.matrix.nnz == len(shown.values)
    several = wb.encode(["Paris", text, "A city by a river, where bread is baked."])
    mine = several.matrix[several.item_P == 1]
    assert np.allclose(mine.toarray(), codes.matrix.toarray(), atol=1e-3)
    with pytest.raises(InterpError, match="text 1: the text is empty"):
        wb.encode([text, ""])
    with pytest.raises(InterpError, match="takes a list of texts"):
        wb.encode(text)
