"""Lenses: maps to the final residual against slow obvious versions, fits that end and go on, and which lens is right."""

import itertools
import json
import re
import shutil

import numpy as np
import pytest
import torch

from interp.checkpoint.files import present
from interp.cli import indexing as cli_indexing
from interp.commands import COMMANDS
from interp.corpus import open_corpus
from interp.lenses import (
    Context,
    FitConfig,
    Lens,
    cut_stretches,
    fit_jacobian,
    fit_tuned,
    judge,
    load_lenses,
    logit_lens,
    measure_changes,
    readout,
)
from interp.lenses.agreement import Readers
from interp.lenses.files import load_judgement, state_path
from interp.lenses.jacobian import Jacobian
from interp.lenses.judge import auroc, precision, rank
from interp.lenses.lens import last_residual, top_tokens
from interp.lenses.measure import AFTER
from interp.lenses.said import SEEN, Said, load_said, save_said
from interp.lenses.tuned import Tuned
from interp.mask import Mask
from interp.models import Edit, open_model
from interp.publishing import carries
from interp.render import visible
from interp.sae import SAE
from interp.types import Hook, InterpError
from interp.verification import seal
from interp.verification.claims import claims
from interp.verification.files import check_files
from interp.workbench import Workbench
from interp.workbench import lenses as room
from interp.workbench.says import keep_said
from tests.families import WIDTH, save, sentences

torch.set_num_threads(1)
HOOK = "blocks.0.hook_out"
LAST = "blocks.2.hook_out"
QUICK = FitConfig(texts=2, coordinates=16, rounds=4)


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A model of each family, made when it is first asked for."""
    root, made = tmp_path_factory.mktemp("lenses"), {}

    def model(family):
        if family not in made:
            made[family] = open_model(str(save(family, root / family)), dtype="float32")
        return made[family]

    return model


def stretches(model, count, length=12, seed=0):
    ids = [token for text in sentences(count, seed) for token in model.tokenize(text)]
    body = length - 1
    rows = [ids[i : i + body] for i in range(0, len(ids) - body, body)][:count]
    assert len(rows) == count
    return torch.tensor([[model.separator, *row] for row in rows])


def readers(model):
    draw = torch.Generator().manual_seed(5)
    return Readers(torch.randn(6, WIDTH, generator=draw), readout(model))


def explicit(model, hook_name, tokens_SL):
    """(next, later) by one backward pass for each coordinate of each position: every Jacobian by itself."""
    final = last_residual(model)
    S, L = tokens_SL.shape
    run = model.run(tokens_SL, [hook_name, final], grad=True)
    x, y = run.activations[hook_name], run.activations[final]
    now, later = torch.zeros(WIDTH, WIDTH), torch.zeros(WIDTH, WIDTH)
    for u, row in itertools.product(range(1, L), range(WIDTH)):
        (gradient,) = torch.autograd.grad(y[:, u, row].sum(), x, retain_graph=True)
        now[row] += gradient[:, u].sum(0)
        later[row] += gradient[:, 1:u].sum((0, 1))
    return now / (S * (L - 1)), later / (S * (L - 1))


@pytest.mark.parametrize("family", ["llama", "gpt2", "mamba", "gemma2"])
def test_over_all_draws_of_positions_the_mean_is_the_jacobian(opened, family):
    model = opened(family)
    tokens_SL, final = stretches(model, 2, length=5), last_residual(model)
    work = Jacobian(model, HOOK, final, WIDTH, WIDTH, Mask({}), QUICK)
    run = model.run(tokens_SL, [HOOK, final], grad=True)
    counted_SL = torch.ones_like(tokens_SL, dtype=torch.bool)
    counted_SL[:, 0] = False
    for drawn in itertools.product([False, True], repeat=4):
        drawn_SL = torch.tensor([[False, *drawn]]).expand(2, -1)
        for row in range(WIDTH):
            work.add_row(run.activations[HOOK], run.activations[final], row, counted_SL, drawn_SL, 0)
    ours = work.matrices(None)
    for name, theirs in zip(("next", "later"), explicit(model, HOOK, tokens_SL), strict=True):
        assert torch.allclose(ours[name], theirs, atol=1e-4 * float(theirs.abs().max())), name
    assert work.positions() == 16 * 2 * 4 // 2  # each position is drawn in half of them


def test_the_jacobian_says_what_a_small_step_does(opened):
    model = opened("llama")
    tokens_SL, final, step = stretches(model, 1, length=5), last_residual(model), 1e-2
    direction = torch.nn.functional.normalize(torch.randn(WIDTH, generator=torch.Generator().manual_seed(1)), dim=0)
    now, later = torch.zeros(WIDTH), torch.zeros(WIDTH)
    for at in range(1, 5):

        def y(by, at=at):
            def move(x, site):
                x = x.clone()
                x[:, at] += by * direction
                return x

            return model.run(tokens_SL, [final], [Edit(HOOK, move)]).activations[final][0].double()

        slope = ((y(step) - y(-step)) / (2 * step)).float()
        now, later = now + slope[at] / 4, later + slope[at + 1 :].sum(0) / 4
    for theirs, matrix in zip((now, later), explicit(model, HOOK, tokens_SL), strict=True):
        assert float((matrix @ direction - theirs).norm()) < 2e-2 * float(theirs.norm())


def test_where_nothing_follows_the_next_lens_is_the_logit_lens(opened, tmp_path):
    model = opened("llama")
    tokens_SL = stretches(model, 16)
    made = fit_jacobian(model, LAST, tokens_SL, readers(model), tmp_path, QUICK)
    assert torch.allclose(made["next"].matrix_OD, torch.eye(WIDTH), atol=1e-6)
    assert not made["later"].matrix_OD.any()
    rows = torch.randn(3, WIDTH)
    logit = logit_lens(model, LAST)
    assert torch.allclose(made["next"].scores(rows, readout(model)), logit.scores(rows, readout(model)), atol=1e-4)
    tuned = fit_tuned(model, LAST, tokens_SL, readers(model), tmp_path, QUICK)["tuned"]
    assert torch.allclose(tuned.matrix_OD, torch.eye(WIDTH), atol=1e-2)


def test_layers_that_add_nothing_leave_a_direction_as_it_is(tmp_path):
    model = open_model(str(save("llama", tmp_path / "model")), dtype="float32")
    with torch.no_grad():
        for name, parameter in model.module.named_parameters():
            if ("o_proj" in name or "down_proj" in name) and ("layers.1." in name or "layers.2." in name):
                parameter.zero_()
    assert float((model.run(stretches(model, 1), [HOOK, LAST]).activations[HOOK]).norm()) > 0
    made = fit_jacobian(model, HOOK, stretches(model, 16), readers(model), tmp_path / "lenses", QUICK)
    assert torch.allclose(made["next"].matrix_OD, torch.eye(WIDTH), atol=1e-5)
    assert float(made["later"].matrix_OD.abs().max()) < 1e-5


def test_the_logit_lens_reads_what_a_step_in_the_final_residual_raises(opened):
    """At right angles to the residual, as the norm's derivative there has it."""
    model = opened("llama")
    tokens_SL, d_D = stretches(model, 1), torch.randn(WIDTH, generator=torch.Generator().manual_seed(2))
    x_D = model.run(tokens_SL, [LAST]).activations[LAST][0, -1]
    d_D = d_D - (d_D @ x_D) / (x_D @ x_D) * x_D
    moved, still = (
        model.run(tokens_SL, edits=[Edit(LAST, lambda x, site, by=by: x + by * d_D)]).logits[0, -1]
        for by in (1e-2, -1e-2)
    )
    ours, theirs = logit_lens(model, LAST).scores(d_D[None], readout(model))[0], moved - still
    assert float(torch.corrcoef(torch.stack([ours, theirs]))[0, 1]) > 0.999


def test_a_planted_map_is_recovered(opened):
    draw = torch.Generator().manual_seed(0)
    A_OD, b_O = torch.randn(5, 7, generator=draw), torch.randn(5, generator=draw)
    work = Tuned(opened("llama"), HOOK, LAST, 7, 5, Mask({}))
    for half in (0, 1):
        x_ND = torch.randn(400, 7, generator=draw) * torch.tensor([100.0, 1, 1, 1, 1, 1, 0.1]) + 3.0
        work.add_rows(x_ND, x_ND @ A_OD.T + b_O, half)
    made = work.matrices(None)
    assert torch.allclose(made["tuned"], A_OD, atol=0.05)
    assert torch.allclose(made["bias"][0], b_O, atol=0.5)
    theirs = torch.linalg.lstsq(x_ND - x_ND.mean(0), (x_ND - x_ND.mean(0)) @ A_OD.T).solution.T
    assert torch.allclose(work.matrices(1)["tuned"], theirs, atol=0.05)


def test_what_is_noise_is_held_back_by_the_ridge(opened):
    """Fewer rows than dimensions: without a ridge a half fits its own noise."""
    draw = torch.Generator().manual_seed(0)
    work = Tuned(opened("llama"), HOOK, LAST, 40, 1, Mask({}))
    for half in (0, 1):
        x_ND = torch.randn(30, 40, generator=draw)
        work.add_rows(x_ND, torch.randn(30, 1, generator=draw), half)
    assert float(work.matrices(0)["tuned"].norm()) < 0.7 * float(work._solve([0], 1e-6)[0].norm())


# ---- fits that end ----


def test_more_text_makes_the_halves_agree_more_and_a_fit_stops_when_it_is_enough(opened, tmp_path):
    model = opened("llama")
    tokens_SL = stretches(model, 256)
    config = FitConfig(texts=4, coordinates=16, rounds=32, enough=0.999)
    made = fit_jacobian(model, HOOK, tokens_SL, readers(model), tmp_path / "all", config)
    agreements = made["later"].about["agreement"]
    assert [each["next"]["positions"] for each in agreements] == [88, 176, 352, 704, 1408]
    for name in ("next", "later"):
        assert agreements[-1][name]["tokens"] > agreements[0][name]["tokens"]
    assert not made["next"].about["enough"]
    reached = min(each["whole"] for each in agreements[2].values())
    less = FitConfig(texts=4, coordinates=16, rounds=32, enough=reached - 1e-6)
    stopped = fit_jacobian(model, HOOK, tokens_SL, readers(model), tmp_path / "less", less)
    assert stopped["next"].about["enough"]
    assert len(stopped["next"].about["agreement"]) <= 3


class Killed(BaseException):
    """As Ctrl-C would end it."""


@pytest.mark.parametrize("fit", [fit_jacobian, fit_tuned])
def test_a_fit_that_was_ended_goes_on_to_the_same_lens(opened, tmp_path, monkeypatch, fit):
    model = opened("llama")
    tokens_SL = stretches(model, 32)
    whole = fit(model, HOOK, tokens_SL, readers(model), tmp_path / "whole", QUICK)
    kind = "jacobian" if fit is fit_jacobian else "tuned"
    work = Jacobian if fit is fit_jacobian else Tuned
    once = work.add

    def until(self, tokens_SL, number, half):
        if number == 3:
            raise Killed
        once(self, tokens_SL, number, half)

    monkeypatch.setattr(work, "add", until)
    with pytest.raises(Killed):
        fit(model, HOOK, tokens_SL, readers(model), tmp_path / "ended", QUICK)
    assert state_path(tmp_path / "ended", kind).exists()
    assert not load_lenses(tmp_path / "ended", model.fingerprint(), HOOK)
    read = []
    monkeypatch.setattr(work, "add", lambda self, *told: (read.append(told[1]), once(self, *told))[1])
    again = fit(model, HOOK, tokens_SL, readers(model), tmp_path / "ended", QUICK)
    assert read[0] == 3
    for name, lens in whole.items():
        assert torch.equal(lens.matrix_OD, again[name].matrix_OD)
        assert lens.about["agreement"] == again[name].about["agreement"]
    read.clear()
    fit(model, HOOK, tokens_SL, readers(model), tmp_path / "ended", QUICK)
    assert not read  # found, not fitted
    fit(model, HOOK, tokens_SL, readers(model), tmp_path / "ended", QUICK, restart=True)
    assert read[0] == 0


def test_more_rounds_go_on_where_fewer_were_not_enough(opened, tmp_path, monkeypatch):
    model, once, read = opened("llama"), Jacobian.add, []
    tokens_SL = stretches(model, 32)
    two, four = (FitConfig(texts=2, coordinates=16, rounds=rounds, enough=0.9999) for rounds in (2, 4))
    whole = fit_jacobian(model, HOOK, tokens_SL, readers(model), tmp_path / "whole", four)["later"]
    monkeypatch.setattr(Jacobian, "add", lambda self, *told: (read.append(told[1]), once(self, *told))[1])
    less = fit_jacobian(model, HOOK, tokens_SL, readers(model), tmp_path / "more", two)["later"]
    more = fit_jacobian(model, HOOK, tokens_SL, readers(model), tmp_path / "more", four)["later"]
    assert read == list(range(8))
    assert not torch.equal(less.matrix_OD, more.matrix_OD)
    assert torch.equal(more.matrix_OD, whole.matrix_OD)
    assert more.about["agreement"] == whole.about["agreement"]
    few = FitConfig(texts=2, coordinates=16, rounds=2, enough=1e-9)
    assert fit_tuned(model, HOOK, tokens_SL, readers(model), tmp_path / "few", few)["tuned"].about["enough"]
    assert not state_path(tmp_path / "few", "tuned").exists()


def test_other_text_is_another_fit(opened, tmp_path):
    model = opened("llama")
    first = fit_tuned(model, HOOK, stretches(model, 16), readers(model), tmp_path, QUICK, text="a")["tuned"]
    other = fit_tuned(model, HOOK, stretches(model, 16, seed=1), readers(model), tmp_path, QUICK, text="b")["tuned"]
    assert not torch.equal(first.matrix_OD, other.matrix_OD)
    kept = load_lenses(tmp_path, model.fingerprint(), HOOK)["tuned"]
    assert kept.about["recipe"]["text"] == "b"
    assert torch.equal(kept.matrix_OD, other.matrix_OD)


# ---- refusals ----


def test_what_cannot_be_fitted_is_refused_in_a_sentence(opened, tmp_path):
    model = opened("llama")
    tokens_SL, by = stretches(model, 16), readers(model)
    with pytest.raises(InterpError, match=r"2 stretches of text are too few.*its two halves need 8"):
        fit_jacobian(model, HOOK, tokens_SL[:2], by, tmp_path, QUICK)
    with pytest.raises(InterpError, match=r"no hook point in llama: 'blocks\.9\.hook_out'"):
        fit_jacobian(model, "blocks.9.hook_out", tokens_SL, by, tmp_path, QUICK)
    with pytest.raises(
        InterpError, match=r"no gradient goes from the final residual of .* to ln_final\.hook_normalized"
    ):
        fit_jacobian(model, "ln_final.hook_normalized", tokens_SL, by, tmp_path, QUICK)
    with pytest.raises(InterpError, match="1 rounds until"):
        FitConfig(rounds=1)
    with pytest.raises(InterpError, match="texts is 0"):
        FitConfig(texts=0)
    with pytest.raises(InterpError, match=r"reads directions of width 32, and these have 7"):
        logit_lens(model, HOOK).scores(torch.randn(2, 7), readout(model))
    with pytest.raises(InterpError, match=r"64 wide and its final residual 32, so the logit lens cannot read it"):
        logit_lens(model, "blocks.0.mlp.out.hook_in")


def test_what_reads_both_ways_has_no_later(tmp_path):
    from tests.families import save

    model = open_model(str(save("bert", tmp_path / "bert")), dtype="float32")
    if model.last_residual is None:
        pytest.fail("BERT has no hook point for its last layer")
    with pytest.raises(InterpError, match=r"reads a text in both directions, so nothing is said later than a position"):
        fit_jacobian(
            model, model.last_residual, torch.zeros(16, 12, dtype=torch.long), readers_of(model), tmp_path, QUICK
        )


def readers_of(model):
    return Readers(torch.randn(2, WIDTH), torch.randn(WIDTH, 9))


def test_a_damaged_lens_and_one_of_another_model_are_refused(opened, tmp_path):
    model = opened("llama")
    fit_tuned(model, HOOK, stretches(model, 16), readers(model), tmp_path, QUICK)
    with pytest.raises(InterpError, match=r"was fitted for blocks\.0\.hook_out of a model with weights .*, not for"):
        load_lenses(tmp_path, opened("gpt2").fingerprint(), HOOK)
    path = tmp_path / "tuned" / "lens.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-4] + b"\0\0\0\1")
    with pytest.raises(InterpError, match="is not the file that was written with its description"):
        load_lenses(tmp_path, model.fingerprint(), HOOK)
    path.unlink()
    with pytest.raises(InterpError, match="is not the file that was written with its description"):
        load_lenses(tmp_path, model.fingerprint(), HOOK)
    path.write_bytes(whole)
    about = tmp_path / "tuned" / "lens.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"positions": "many"}))
    with pytest.raises(InterpError, match="does not describe a lens: positions is 'many'"):
        load_lenses(tmp_path, model.fingerprint(), HOOK)


# ---- text ----


def test_a_stretch_is_of_one_document_and_none_is_left_out():
    #          block of 6:  0 a a a a a | 0 a 0 b b b | 0 b b 0 c c
    tokens = np.array([0, 1, 2, 3, 4, 5, 0, 6, 0, 11, 12, 13, 0, 14, 15, 0, 21, 22])
    document = np.array([0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 2, 2])
    made = cut_stretches(tokens, document, 0, length=4)
    assert sorted(made.tolist()) == [[0, 1, 2, 3], [0, 4, 5, 6], [0, 11, 12, 13]]
    assert cut_stretches(tokens, document, 0, length=4, documents=[1]).tolist() == [[0, 11, 12, 13]]
    assert torch.equal(made, cut_stretches(tokens, document, 0, length=4))
    with pytest.raises(InterpError, match="no document of the text has 7 tokens"):
        cut_stretches(tokens, document, 0, length=8)


# ---- which lens is right ----


def a_sae(hook_name=HOOK, seed=0):
    draw = torch.Generator().manual_seed(seed)
    W_dec = torch.nn.functional.normalize(torch.randn(8, WIDTH, generator=draw), dim=1)
    return SAE(
        W_enc=W_dec.T.contiguous(), b_enc=torch.zeros(8), W_dec=W_dec, b_dec=torch.zeros(WIDTH), threshold=torch.zeros(8),
        reads=Hook(hook_name, WIDTH),
    )  # fmt: skip


def test_changes_are_what_two_passes_differ_by(opened):
    model, sae = opened("llama"), a_sae()
    tokens_SL = stretches(model, 4, length=AFTER + 4)
    contexts = [Context(tokens=tuple(row)) for row in tokens_SL.tolist()]
    asked_A = torch.tensor([5, 9, 30, 31])
    ours = measure_changes(model, sae, 3, contexts, 5.0, asked_A)
    before = model.run(tokens_SL, [HOOK], logits=True)
    now_C = sae.encode(before.activations[HOOK][:, 3])[:, 3]
    for k, amount_C in enumerate((-now_C, 5.0 - now_C)):

        def move(x, site, amount_C=amount_C):
            x = x.clone()
            x[:, 3] += amount_C[:, None] * sae.W_dec[3]
            return x

        theirs = (model.run(tokens_SL, edits=[Edit(HOOK, move)]).logits - before.logits)[..., asked_A]
        theirs = (theirs - theirs.mean(-1, keepdim=True)) * (1 if k else -1)
        assert torch.allclose(ours[k, 0, 0], theirs[0::2, 3].mean(0), atol=1e-4)
        assert torch.allclose(ours[k, 1, 1], theirs[1::2, 4:].mean((0, 1)), atol=1e-4)
    with pytest.raises(InterpError, match="1 contexts of"):
        measure_changes(model, sae, 3, contexts[:1], 5.0, asked_A)


def test_figures_of_a_list_are_what_they_say():
    true = np.arange(1000.0)
    assert precision(true, true) == 1.0
    assert precision(-true, true) == 0.0
    assert rank(true**3, true) == pytest.approx(1.0)
    assert rank(-true, true) == pytest.approx(-1.0)
    assert np.isnan(rank(np.zeros(3), true[:3]))
    score = np.array([3.0, 2.0, 1.0, 0.0])
    assert auroc(score, np.array([0, 1]), np.array([2, 3])) == 1.0
    assert auroc(score, np.array([0, 2]), np.array([1])) == 0.5
    assert auroc(score, np.array([1]), np.array([1])) == 0.5
    assert np.isnan(auroc(score, np.array([], dtype=int), np.array([1])))


def planted(spans, seed=0, features=40, tokens=400):
    """Changes that a known map explains at each span (None: noise), with the rows and the readout they come from."""
    draw = torch.Generator().manual_seed(seed)
    rows, reads = torch.randn(features, 12, generator=draw), torch.randn(12, tokens, generator=draw)
    parts = [
        torch.randn(features, tokens, generator=draw) if matrix is None else rows @ matrix.T @ reads for matrix in spans
    ]
    spread = torch.stack(parts, 1)[:, None, :, None].expand(-1, 2, -1, 2, -1)
    return rows, reads, spread + 0.5 * spread.std() * torch.randn(spread.shape, generator=draw)


def test_the_lens_that_is_right_wins_and_without_one_the_logit_lens_stays():
    draw = torch.Generator().manual_seed(9)
    true, wrong = torch.randn(12, 12, generator=draw), torch.randn(12, 12, generator=draw)
    rows, reads, changes = planted([true, None])
    lenses = {"logit": Lens("logit", HOOK, None), "next": Lens("next", HOOK, true), "tuned": Lens("tuned", HOOK, wrong)}
    around = [(row @ true.T @ reads).topk(20).indices.numpy() for row in rows]
    others = [np.arange(400)] * len(rows)
    found = judge(lenses, rows, reads, changes, around, others)
    assert found.winners["next"].lens == "next"
    assert found.winners["next"].over_logit[1] > 0
    assert found.winners["later"].lens == "logit"
    assert found.winners["later"].over_logit == (0.0, 0.0, 0.0)
    assert found.figures["next"]["told apart"][0] > 0.9
    assert abs(found.figures["tuned"]["told apart"][0] - 0.5) < 0.1
    # Each half has a noise of half the spread: the truth is nearer to their mean than they are to one another.
    assert found.figures["next"]["rank clamped next"][0] > found.halves["rank clamped next"][0] > 0.5
    assert abs(found.figures["logit"]["rank clamped later"][0]) < 0.05
    assert found.chance["precision clamped next"] == 0.25
    assert json.loads(json.dumps(found.to_json()))["winners"]["next"]["lens"] == "next"
    with pytest.raises(InterpError, match="the logit lens is one of the lenses"):
        judge({"next": lenses["next"]}, rows, reads, changes, around, others)


def test_where_nothing_changes_nothing_is_claimed():
    """As after the last layer, where no later position hears of an edit."""
    rows, reads, changes = planted([torch.eye(12), None])
    changes = changes.clone()
    changes[:, :, 1] = 0.0
    lenses = {"logit": Lens("logit", HOOK, None), "later": Lens("later", HOOK, torch.zeros(12, 12))}
    found = judge(lenses, rows, reads, changes, [np.arange(9)] * 40, [np.arange(9, 20)] * 40)
    assert found.winners["next"].lens == found.winners["later"].lens == "logit"
    assert np.isnan(found.winners["later"].precision).all()
    assert np.isnan(found.figures["logit"]["rank ablated later"][0])
    assert np.isnan(found.figures["later"]["rank ablated next"][0])


def test_only_marked_tokens_are_listed():
    lens, rows = Lens("logit", HOOK, None), torch.tensor([[1.0, 0.0]])
    reads = torch.tensor([[5.0, 4.0, 3.0, 2.0], [0.0, 0.0, 0.0, 0.0]])
    assert top_tokens(lens, rows, reads, 2) == [[0, 1]]
    assert top_tokens(lens, rows, reads, 2, torch.tensor([False, True, False, True])) == [[1, 3]]


def test_a_fit_is_kept_by_its_tokens_whatever_the_text_is_called(opened, tmp_path, monkeypatch):
    model = opened("llama")
    tokens_SL = stretches(model, 16)
    once = fit_tuned(model, HOOK, tokens_SL, readers(model), tmp_path, QUICK, text="an index of 100 positions")
    monkeypatch.setattr(Tuned, "add", lambda *_: pytest.fail("fitted again"))
    again = fit_tuned(model, HOOK, tokens_SL, readers(model), tmp_path, QUICK, text="an index of 200 positions")
    assert torch.equal(again["tuned"].matrix_OD, once["tuned"].matrix_OD)
    assert again["tuned"].about["recipe"]["text"] == "an index of 100 positions"
    monkeypatch.undo()
    other = fit_tuned(model, HOOK, tokens_SL.flip(0), readers(model), tmp_path, QUICK, text="an index of 100 positions")
    assert other["tuned"].about["recipe"]["tokens_sha256"] != once["tuned"].about["recipe"]["tokens_sha256"]


# ---- the whole way ----


@pytest.fixture(scope="module")
def workbench(tmp_path_factory, tiny):
    """An SAE of the tiny model's first layer with an index over long documents."""
    from interp.activations import harvest
    from interp.recipe import train_checkpoint
    from interp.training import TrainConfig

    folder = tmp_path_factory.mktemp("long")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INTERP_HOME", str(folder / "home"))
        rows = [{"text": " ".join(sentences(9, seed)), "title": f"doc {seed}"} for seed in range(60)]
        text = folder / "docs.jsonl"
        text.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        hook = "blocks.0.hook_resid_post"
        store = harvest(tiny, open_corpus(text), [hook], 30_000, folder / "store")
        config = TrainConfig(lr=5e-3)
        train_checkpoint(store, hook, folder / "sae", d_sae=32, k=4, epochs=4, batch=256, config=config)
        wb = Workbench.open(folder / "sae", labels="sqlite://")
        wb.build_index(open_corpus(text), 30_000, beside=True)
        yield wb


def test_a_workbench_fits_judges_and_reads_its_lenses(workbench):
    wb = workbench
    assert list(wb.lenses()) == ["logit"]
    assert wb.judged_lenses() is None
    config = FitConfig(texts=4, coordinates=16, rounds=4)
    made = wb.fit_lenses(jacobian=config, tuned=config)
    assert set(made) == {"next", "later", "tuned"}
    assert list(wb.lenses()) == ["logit", "next", "later", "tuned"]
    found = wb.judge_lenses(features=6)
    assert found == load_judgement(room.home(wb), wb.card.sae_sha256) == wb.judged_lenses()
    assert found["features"] == len(found["chosen"]) == 6
    assert set(found["winners"]) == {"next", "later"}
    assert found["figures"]["next"].keys() == found["figures"]["logit"].keys()
    assert not list(room.home(wb).glob("measuring/*/*"))
    said = wb.says(found["chosen"], count=5)
    seen = {text for text, asked in zip(wb.index.vocabulary, room.seen(wb).tolist(), strict=False) if asked}
    assert all(set(tokens) <= seen and len(tokens) == 5 for lists in said.values() for tokens in lists)
    split = wb.index.documents["split"].to_numpy()
    scene = room._scene(wb, wb.model)
    for feature in found["chosen"]:
        for peak in room._peaks(scene, feature, room.CONTEXTS):
            span = wb.index.document_at[peak - room.BEFORE : peak + AFTER + 1]
            assert set(split[span]) == {"labels"}
            assert len(set(span)) == 1
            assert peak in wb.index.fired(feature)[0]


def test_what_was_measured_is_not_measured_again(workbench, monkeypatch):
    wb, measured = workbench, []
    once = room.measure_changes

    def until(model, sae, feature, *told):
        measured.append(feature)
        if len(measured) == 3:
            raise Killed
        return once(model, sae, feature, *told)

    monkeypatch.setattr(room, "measure_changes", until)
    with pytest.raises(Killed):
        wb.judge_lenses(features=5, seed=3)
    found = wb.judge_lenses(features=5, seed=3)
    assert measured[2:] == [measured[2], *found["chosen"][2:]]


# ---- what is shown ----


@pytest.fixture(scope="module")
def judged(workbench):
    """The workbench with lenses fitted and judged, as the command does it."""
    wb = workbench
    made = wb.make_lenses(texts=2, rounds=2, features=6)
    yield wb, made
    wb.said_path.unlink(missing_ok=True)
    for name in ("said", "index"):
        wb.__dict__.pop(name, None)


def otherwise(wb, **winners):
    """What would be kept if other lenses had won, and a workbench that shows it."""
    found = json.loads(json.dumps(wb.judged_lenses()))
    for span, lens in winners.items():
        found["winners"][span]["lens"] = lens
    keep_said(wb, found)
    return wb


def test_without_a_judgement_the_logit_lens_is_shown_and_said_to_be_unjudged(workbench):
    wb = workbench
    assert wb.said is None
    (says,) = wb.feature(3).says
    assert (says.span, says.lens, says.how) == ("next", "logit", "logit lens, not judged here")
    assert all(times >= SEEN for times in (*says.raised_times, *says.lowered_times))
    assert set(says.raised) <= set(wb.feature(3).promoted)
    assert wb.search("promotes:/./").notes == ("promotes:/./: logit lens, not judged here",)
    with pytest.raises(InterpError, match="later: needs a lens that was judged .* `interp lenses SAE`"):
        wb.search("later:/./")


def test_the_command_says_what_was_fitted_and_judged_and_only_looks_when_called_again(judged, monkeypatch, capsys):
    wb, made = judged
    assert [fit.lens for fit in made.fits] == ["next", "later", "tuned"]
    assert all(-1 <= fit.halves <= 1 and fit.positions > 0 for fit in made.fits)
    assert made.where == str(wb.said_path)
    assert wb.said_path.exists()

    def refuse(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(room, "measure_changes", refuse)
    again = COMMANDS["lenses"].call(str(wb.folder), texts=2, rounds=2, features=6)
    assert again.judged == made.judged
    assert again.sentences == made.sentences
    cli_indexing._lenses(again, {})
    shown = capsys.readouterr().out
    assert "two whole fits would" in shown
    assert "precision clamped later" in shown
    assert f"Judged on {made.judged['features']} features" in shown
    assert "first ten tokens" in shown


def test_the_lists_are_what_the_winners_say_of_tokens_that_the_text_has(judged):
    wb = otherwise(judged[0], next="tuned", later="later")
    asked_V, readout_OV, lenses = room.seen(wb), readout(wb.model), wb.lenses()
    for span, name in (("next", "tuned"), ("later", "later")):
        half = lenses[name].matrix_OD.half().float()
        scores_FV = (wb.sae.W_dec @ half.T) @ readout_OV
        for f in range(wb.sae.d_sae):
            (says,) = (each for each in wb.feature(f).says if each.span == span)
            assert says.lens == name
            best = scores_FV[f].masked_fill(~asked_V, -torch.inf).topk(10)
            assert [x for _, x in says.raised] == pytest.approx(best.values.tolist(), rel=2e-3)
            assert next(text for text, _ in says.raised) == wb.index.vocabulary[int(best.indices[0])]
            worst = scores_FV[f].masked_fill(~asked_V, torch.inf).min()
            assert says.lowered[0][1] == pytest.approx(float(worst), rel=2e-3)
            assert min(says.raised_times + says.lowered_times) >= SEEN
        assert wb.said.spread(span).numpy() == pytest.approx(scores_FV.std(1, correction=0).numpy(), rel=1e-4)


def test_searches_and_descriptions_read_by_the_winners(judged):
    wb = otherwise(judged[0], next="logit", later="later")
    token = int(room.seen(wb).nonzero()[0])
    text = wb.index.vocabulary[token]
    half = wb.lenses()["later"].matrix_OD.half().float()
    scores_FV = (wb.sae.W_dec @ half.T) @ readout(wb.model)
    hits = wb.search(f"later:/^{re.escape(text)}$/", limit=64)
    z = scores_FV[:, token] / scores_FV.std(1, correction=0)
    assert {hit.feature for hit in hits} == set((z >= 2).nonzero()[:, 0].tolist())
    (note,) = hits.notes
    assert ": later lens: of its first ten tokens" in note
    first = wb.search("promotes:/./", limit=1)
    assert first.notes[0].startswith("promotes:/./: logit lens: of its first ten")
    for f in np.flatnonzero(wb.index.features["fires"].to_numpy() > 0)[:5].tolist():
        best = wb.said.tokens("later", "raised", f)[0][0]
        assert f"; later ‘{visible(wb.index.vocabulary[best].strip(' '))}’" in wb.index.description(f)
        assert "; later ‘" in wb.index.describe(f)
    otherwise(wb, later="logit")
    assert "; later" not in wb.index.description(int(f))


def test_beside_the_sae_it_is_sealed_and_read_without_a_model(judged, tmp_path, monkeypatch):
    wb = judged[0]
    folder = tmp_path / "sae"
    shutil.copytree(wb.folder, folder)
    seal(folder)
    mine = Workbench.open(folder, labels="sqlite://")
    made = mine.make_lenses(texts=2, rounds=2, features=6, beside=True)
    assert made.where == str(folder / "lenses.safetensors")
    lenses = [check for check in check_files(folder) if check.what == "file lenses.safetensors"]
    assert [check.verdict for check in lenses] == ["holds"]
    assert all(check.verdict == "holds" for check in check_files(folder) if check.what == "file card.json")
    claimed = {claim.what: claim.status for claim in claims(folder, mine.card, check_files(folder))}
    assert claimed["lenses"] == "only hashed"
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "elsewhere"))
    monkeypatch.setattr("interp.workbench.opening.open_model", lambda *a, **k: pytest.fail("the model was opened"))
    theirs = Workbench.open(folder, labels="sqlite://")
    assert [each.how for each in theirs.feature(2).says] == [made.sentences[span] for span in ("next", "later")]
    assert "lenses" in carries(present(folder)[0])


def test_where_no_edit_reaches_a_later_position_the_file_is_whole_and_says_so(judged):
    """After a model's last block: nothing that follows changes, so that no lens is right or wrong about it."""
    wb = judged[0]
    found = json.loads(json.dumps(wb.judged_lenses()))
    found["winners"]["later"] |= {"lens": "logit", "precision": [None, None, None], "over_logit": [None, None, None]}
    keep_said(wb, found)
    said = load_said(wb.said_path, wb.card.sae_sha256, wb.card.model_sha256, wb.sae.d_sae)
    assert said.sentence("later").startswith(
        "logit lens, not judged: no feature that was edited changed the logits over"
    )
    assert "of its first ten tokens" in said.sentence("next")
    keep_said(wb)


def test_a_file_that_is_damaged_or_of_other_weights_is_refused_in_a_sentence(judged, tmp_path):
    wb = judged[0]
    keep_said(wb)
    sae, model = wb.card.sae_sha256, wb.card.model_sha256
    good = load_said(wb.said_path, sae, model, wb.sae.d_sae)
    assert "of its first ten tokens" in good.sentence("next")
    with pytest.raises(InterpError, match="of another SAE"):
        load_said(wb.said_path, "0" * 64, model, wb.sae.d_sae)
    with pytest.raises(InterpError, match="of another model"):
        load_said(wb.said_path, sae, "2:" + "0" * 64, wb.sae.d_sae)
    with pytest.raises(InterpError, match="does not hold what is listed of 33 features"):
        load_said(wb.said_path, sae, model, 33)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(wb.said_path.read_bytes()[:-20])
    with pytest.raises(InterpError, match="cut short or changed"):
        load_said(cut, sae, model, wb.sae.d_sae)
    later = Said(good.about | {"format": 99}, good.matrices, good.lists)
    save_said(cut, later)
    with pytest.raises(InterpError, match="later version"):
        load_said(cut, sae, model, wb.sae.d_sae)
