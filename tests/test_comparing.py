"""SAEs compared on the same tokens: published layouts, slow ways to the figures, what is told apart and what is refused."""

import copy
import json
import math
from dataclasses import replace

import pytest
import torch

from interp.checkpoint import Card, save, save_weights
from interp.checkpoint.formats import FORMATS, Foreign
from interp.corpus import open_corpus, tokenize
from interp.evals import evaluate
from interp.evals.comparing import compare as measure
from interp.evals.comparison_page import comparison_html
from interp.models import Edit
from interp.sae import SAE
from interp.sae.sparser import Sparser
from interp.types import Hook, InterpError
from interp.workbench import compare
from tests.conftest import HOOK
from tests.test_cli import call

EARLY = "blocks.0.hook_resid_post"
TOKENS = 1_024


@pytest.fixture(scope="module")
def blocks(tiny, text_folder):
    return tokenize(open_corpus(text_folder), tiny, TOKENS, split="heldout")


@pytest.fixture(scope="module")
def good(tiny, blocks) -> SAE:
    """Both directions of each principal axis of the activations: what passes is the larger third of the coordinates."""
    x = tiny.run(blocks.tokens_NT, [HOOK]).activations[HOOK][blocks.real_NT()]
    axes = torch.linalg.svd(x - x.mean(0), full_matrices=False).Vh
    rows = torch.cat([axes, -axes])
    level = ((x - x.mean(0)) @ axes.T).abs().flatten().quantile(0.67)
    return SAE(
        W_enc=rows.T.contiguous(), b_enc=torch.zeros(32), W_dec=rows, b_dec=x.mean(0), threshold=level.expand(32).clone(),
        reads=HOOK, name="good",
    )  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(good, tiny, tiny_folder, tmp_path_factory):
    """It in a folder with a card."""
    folder = tmp_path_factory.mktemp("good")
    card = Card(
        name="good", model=str(tiny_folder), model_sha256=tiny.fingerprint(), hook_name=HOOK, dtype="float32", attention="sdpa",
        architecture="jumprelu", norm_cutoff=1e9, separator=tiny.separator, context=256,
    )  # fmt: skip
    save(good, folder, card)
    return folder


@pytest.fixture(scope="module")
def topk(good) -> SAE:
    """The same weights, by the rule that all three formats hold."""
    kept = {name: tensor for name, tensor in good.state_dict().items() if name != "threshold"}
    return SAE(**kept, k=4, reads=HOOK, name="topk")


def noised(sae: SAE, share: float, seed: int = 0) -> SAE:
    """The same with decoder rows that are off by a share of their norm."""
    other = copy.deepcopy(sae)
    noise = torch.randn(other.W_dec.shape, generator=torch.Generator().manual_seed(seed))
    other.W_dec += share * noise / noise.norm(dim=1, keepdim=True) * other.W_dec.norm(dim=1, keepdim=True)
    return other


def written(sae: SAE, folder, format_: str, model: str = "tiny-llama"):
    folder.mkdir(parents=True)
    FORMATS[format_].write(Foreign(sae=sae, model=model), folder)
    return folder


CUT = {HOOK: 1e9}


def test_three_libraries_folders_of_equal_weights_differ_by_nothing(tiny, topk, checkpoint, text_folder, tmp_path):
    """sparsify names its hook point by its folder, dictionary_learning in its configuration; none has a card or a mask."""
    folders = [
        written(topk, tmp_path / "a" / "saelens", "saelens"),
        written(topk, tmp_path / "b" / "layers.1", "sparsify"),
        written(topk, tmp_path / "c" / "dl", "dictionary_learning"),
        checkpoint,
    ]
    found = compare(folders, open_corpus(text_folder), TOKENS, l0s=[2], model=tiny)
    assert [one.letter for one in found.saes] == ["A", "B", "C", "D"]
    assert [one.reads for one in found.saes] == [(HOOK,)] * 4
    foreign = [one for one in found.differences if {one.a, one.b} <= set("ABC")]
    assert len(foreign) == 3 * 3 * 2
    for one in foreign:
        assert abs(one.value) < 1e-7
        assert one.better == ""
        assert "cannot be told apart" in one.says
    for one, format_ in zip(found.saes, ("saelens", "sparsify", "dictionary_learning"), strict=False):
        said = " ".join(one.assumed)
        assert f"it has no card; it was read as {format_}" in said
        assert "model: taken to be tiny-llama" in said
        assert "sinks and not counted, as the others' cards say" in said
    assert found.saes[3].assumed == ()
    assert found.at("A", 2)["l0"].value == found.at("D", 2)["l0"].value == 2.0
    assert len(found.differences) == 6 * 3 * 2
    assert "36 comparisons, paired over" in found.counts()
    assert all(one.q is not None and one.q >= one.p for one in found.differences)


def test_equal_saes_differ_by_exactly_nothing_and_a_noised_decoder_is_told_apart(tiny, good, blocks):
    same = measure(tiny, {"A": good, "B": copy.deepcopy(good)}, blocks, cutoffs={"A": CUT, "B": CUT})
    assert {(one.value, one.interval, one.better) for one in same.differences} == {(0.0, (0.0, 0.0), "")}
    worse = measure(tiny, {"A": good, "B": noised(good, 0.5)}, blocks, cutoffs={"A": CUT, "B": CUT})
    ev = [one for one in worse.differences if one.measure == "ev"]
    assert len(ev) >= 2
    for one in ev:
        assert one.better == "A"
        assert one.value > 0
        assert one.says.startswith("A is better than B by ")
        assert one.p < 0.01
        assert one.q is None


def test_the_order_of_two_only_turns_the_sign(tiny, good, blocks):
    saes = {"A": good, "B": noised(good, 0.3), "C": noised(good, 0.3, seed=1)}
    one = measure(tiny, saes, blocks, cutoffs=dict.fromkeys(saes, CUT), l0s=[2])
    two = measure(tiny, dict(reversed(saes.items())), blocks, cutoffs=dict.fromkeys(saes, CUT), l0s=[2])
    turned = {(d.b, d.a, d.measure, d.wanted): d for d in two.differences}
    assert len(turned) == 3 * 3 * 2
    for d in one.differences:
        other = turned[d.a, d.b, d.measure, d.wanted]
        assert other.value == pytest.approx(-d.value, abs=1e-12)
        assert other.interval == pytest.approx([-end for end in reversed(d.interval)], abs=1e-12)
        assert (other.p, other.q, other.better) == (d.p, d.q, d.better)


def test_figures_are_those_of_evaluate_and_of_a_slow_way_at_a_lower_l0(tiny, good, blocks):
    other = noised(good, 0.3)
    found = measure(tiny, {"A": good, "B": other}, blocks, cutoffs={"A": CUT, "B": CUT}, l0s=[2])
    for letter, sae in (("A", good), ("B", other)):
        report, row = evaluate(tiny, sae, blocks, norm_cutoff=1e9), found.at(letter)
        assert row["ev"].value == pytest.approx(1 - report.fvu, rel=1e-5)
        assert row["l0"].value == pytest.approx(report.l0, rel=1e-9)
        assert row["delta_ce"].value == pytest.approx(report.delta_ce, abs=1e-6)
        assert found.of["ce"] == pytest.approx(report.ce, rel=1e-6)
        assert found.of[f"ce_mean at {HOOK}"] == pytest.approx(report.ce_mean, rel=1e-5)
        if report.recovered_zero is not None:
            assert row["recovered_zero"].value == pytest.approx(report.recovered_zero, abs=1e-5)
    # At L0 2: the densely encoded rows, cut at the level under which exactly two entries a position are left.
    own = blocks.real_NT()
    x = tiny.run(blocks.tokens_NT, [HOOK]).activations[HOOK][own]
    strength = good.encode(x) * good.W_dec.norm(dim=1)
    level = strength.flatten().sort(descending=True).values[2 * len(x) - 1]
    y = good.decode(torch.where(strength >= level, good.encode(x), 0.0))
    ev = 1 - float((x - y).double().square().sum() / (x.double() - x.double().mean(0)).square().sum())
    row = found.at("A", 2)
    assert row["ev"].value == pytest.approx(ev, rel=1e-5)
    assert row["l0"].value == pytest.approx(2.0, abs=0.02)

    def put(x_NTD, site):
        out = x_NTD.clone()
        out[own] = y
        return out

    clean, there = (
        tiny.run(blocks.tokens_NT, edits=edits, logits=True).logits.double().log_softmax(-1)
        for edits in ([], [Edit(HOOK, put)])
    )
    predicted = own[:, :-1] & (blocks.tokens_NT[:, 1:] != blocks.separator)
    kl = (clean.exp() * (clean - there)).sum(-1)[own].mean()  # at every position that counts, as in a report
    target = blocks.tokens_NT[:, 1:][..., None]
    loss = (clean - there)[:, :-1].gather(-1, target)[..., 0][predicted].mean()
    assert row["kl"].value == pytest.approx(float(kl), rel=1e-4, abs=1e-7)
    assert row["delta_ce"].value == pytest.approx(float(loss), rel=1e-4, abs=1e-6)


def test_a_topk_sae_at_a_lower_l0_is_read_by_position_and_no_sae_above_its_own(tiny, good, topk, blocks):
    cutoffs = {"A": CUT, "B": CUT}
    found = measure(tiny, {"A": topk, "B": good}, blocks, cutoffs=cutoffs, l0s=[1, 3])
    assert found.at("A", 3).how == "the 3 strongest of a position"
    assert found.at("B", 3).how.startswith("what writes at least")
    x = tiny.run(blocks.tokens_NT, [HOOK]).activations[HOOK][blocks.real_NT()]
    error = (x - Sparser(topk, k=3).reconstruct(x)).double().square().sum()
    ev = 1 - float(error / (x.double() - x.double().mean(0)).square().sum())
    assert found.at("A", 3)["ev"].value == pytest.approx(ev, rel=1e-5)
    with pytest.raises(
        InterpError, match=r"fewer than two of these can be read at L0 60: their own are A 4, B .*ask for a lower"
    ):
        measure(tiny, {"A": topk, "B": good}, blocks, cutoffs=cutoffs, l0s=[60])


def test_at_several_hook_points_only_the_loss_is_compared(tiny, good, blocks):
    early = copy.deepcopy(good)
    early.set_hooks(EARLY)
    cutoffs = {"A": CUT, "B": {EARLY: 1e9}}
    found = measure(tiny, {"A": good, "B": early}, blocks, cutoffs=cutoffs, l0s=[1])
    assert {one.measure for one in found.differences} == {"delta_ce", "kl"}
    assert any("A at blocks.1.hook_resid_post; B at blocks.0.hook_resid_post" in note for note in found.notes)


def test_a_position_counts_only_where_it_does_for_all(tiny, good, blocks):
    norms = tiny.run(blocks.tokens_NT, [HOOK]).activations[HOOK].norm(dim=-1)
    low = float(norms[blocks.real_NT()].median())
    found = measure(tiny, {"A": good, "B": good}, blocks, cutoffs={"A": CUT, "B": {HOOK: low}})
    assert found.of["counted"] == int((blocks.real_NT() & (norms <= low)).sum())


def test_what_cannot_be_compared_says_what_exists(tiny, good, topk, checkpoint, text_folder, tmp_path):
    text = open_corpus(text_folder)
    with pytest.raises(InterpError, match="1 SAEs were given; a comparison is of 2 to 26"):
        compare([checkpoint], text, TOKENS, model=tiny)
    wide = SAE(W_enc=torch.eye(24), b_enc=torch.zeros(24), W_dec=torch.eye(24), b_dec=torch.zeros(24), k=2, reads=HOOK)
    other = written(wide, tmp_path / "wide", "saelens")
    with pytest.raises(
        InterpError, match=rf"B .*takes rows of width 24, and tiny-llama has width 16 at {HOOK}, which fits A"
    ):
        compare([checkpoint, other], text, TOKENS, model=tiny)
    elsewhere = copy.deepcopy(topk)
    elsewhere.set_hooks("blocks.9.hook_resid_post")
    with pytest.raises(InterpError, match="no hook point in tiny-llama: 'blocks.9.hook_resid_post': did you mean"):
        compare([checkpoint, written(elsewhere, tmp_path / "deep", "saelens")], text, TOKENS, model=tiny)
    gpt2 = written(topk, tmp_path / "gpt2", "saelens", "gpt2")
    with pytest.raises(
        InterpError, match="says that it is of gpt2, and the others are of tiny-llama.*say so with --model"
    ):
        compare([checkpoint, gpt2], text, TOKENS, model=tiny)
    card = Card.read(checkpoint)
    for name, changed, said in (
        (
            "other",
            replace(card, model_sha256="2:" + "0" * 64),
            "with weights 2:0000000000….*SAEs of one model are compared",
        ),
        (
            "parted",
            replace(card, separator=card.separator + 1),
            "parted by token 1, .* parts them by 0: .*another tokenizer",
        ),
    ):
        save(good, tmp_path / name, changed)
        with pytest.raises(InterpError, match=said):
            compare([checkpoint, tmp_path / name], text, TOKENS, model=tiny)
    nameless = copy.deepcopy(topk)
    nameless.set_hooks((Hook("", 16),))
    with pytest.raises(InterpError, match="none of these SAEs says which model it is of; name it with --model"):
        compare([written(nameless, tmp_path / n, "saelens", "") for n in ("x", "y")], text, TOKENS)
    with pytest.raises(InterpError, match="A .*does not say which hook point it is of; name it with --hook"):
        compare([tmp_path / "x", tmp_path / "y"], text, TOKENS, model=tiny)


def test_what_files_do_not_say_is_told_or_taken_from_the_others(tiny, topk, checkpoint, text_folder, tmp_path):
    nameless = copy.deepcopy(topk)
    nameless.set_hooks((Hook("", 16),))
    folder = tmp_path / "nameless"
    save_weights(nameless, folder, None)
    text = open_corpus(text_folder)
    taken = compare([checkpoint, folder], text, 512, l0s=[1], model=tiny)
    assert f"its files name no hook point; taken: {HOOK}, as the others" in taken.saes[1].assumed
    told = compare([folder, folder], text, 512, l0s=[1], model=tiny, hook=HOOK)
    assert any(
        s.startswith("positions of a norm above") and s.endswith("6 times the median norm on this text")
        for s in told.saes[0].assumed
    )
    assert {one.value for one in told.differences} == {0.0}


def test_the_command_prints_writes_json_and_a_page(monkeypatch, capsys, topk, checkpoint, text_folder, tmp_path):
    other = written(noised(topk, 0.4), tmp_path / "b" / "layers.1", "sparsify")
    page = tmp_path / "compared.html"
    asked = ("compare", checkpoint, other, "--corpus", text_folder, "--tokens", TOKENS, "--l0", 2)
    code, out, err = call(monkeypatch, capsys, *asked, "--html", page)
    assert code == 0, err
    flat = " ".join(out.split())
    for words in (
        "A: ",
        "B: ",
        "it has no card; it was read as sparsify",
        "6 comparisons",
        "is better",
        f"with plots in {page}",
    ):
        assert words in flat
    text = page.read_text()
    assert text.count("<figure") == 2
    assert "L0 against explained variance" in text
    assert "<script" not in text
    code, out, err = call(monkeypatch, capsys, *asked, "--json")
    found = json.loads(out)
    assert [one["letter"] for one in found["saes"]] == ["A", "B"]
    assert len(found["differences"]) == 6
    assert all(math.isfinite(end) for one in found["differences"] for end in one["interval"])
    code, _, err = call(monkeypatch, capsys, "compare", checkpoint, tmp_path / "none", "--corpus", text_folder)
    assert code == 2
    assert "there is no SAE at" in err


def test_the_page_escapes_what_sae_and_text_are_called(tiny, good, blocks):
    bad = copy.deepcopy(good)
    bad.name = "<script>alert(1)</script>"
    found = measure(tiny, {"A": bad, "B": good}, blocks, cutoffs={"A": CUT, "B": CUT}, l0s=[1], of={"text": "<b>"})
    text = comparison_html(found)
    assert "<script" not in text
    assert "<b>L0" in text  # ours
    assert "of <b>" not in text
