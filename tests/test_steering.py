"""Edits of features, against a slow hook that decodes everything."""

import json
import os
import subprocess
import sys

import pytest
import torch

from interp.models import Edit
from interp.sae import SAE
from interp.steering import (
    Ablate,
    Add,
    Clamp,
    Direction,
    Hooked,
    Orthogonal,
    Preset,
    Sampling,
    Scale,
    SteeredModel,
    StrengthSweepConfig,
    When,
    compile_edits,
    difference_of_means,
    generate,
    model_edit,
)
from interp.steering.binding import bind_all
from interp.steering.conflicts import find_conflicts
from interp.steering.edits import from_dict, to_dict
from interp.types import FeatureRef, InterpError
from interp.workbench import Workbench
from tests.conftest import HOOK, ROOT

EARLY = "blocks.0.hook_resid_post"
TEXT = "The capital of France is Paris."


def activations(wb, edits=()):
    ids = torch.tensor([wb.model.prompt(TEXT)])
    hooked = [model_edit(e, wb.sae, norm_cutoff=wb.card.norm_cutoff, separator=0) for e in edits]
    return wb.model.run(ids, [HOOK], hooked).activations[HOOK][0].float()


def slow(wb, feature, wanted):
    """Encode everything, set one column, decode, and put the error of the reconstruction back."""
    x = activations(wb)
    code = wb.sae.encode(x)
    error = x - wb.sae.decode(code)
    edited = code.clone()
    edited[:, feature] = wanted(code[:, feature])
    out = wb.sae.decode(edited) + error
    out[0] = x[0]  # the first position is a sink
    return out


@pytest.fixture(scope="module")
def wb(checkpoint):
    return Workbench.open(checkpoint, labels="sqlite://")


@pytest.fixture
def firing(wb):
    """A feature that fires somewhere on the text."""
    return wb.spectrum(TEXT).strongest(1)[0]


@pytest.fixture(scope="module")
def saes(wb):
    """The workbench's SAE, and a random one a layer below it."""
    draw = torch.Generator().manual_seed(3)
    W = torch.randn(24, 16, generator=draw)
    early = SAE(
        W_enc=W.T.contiguous(), b_enc=torch.zeros(24), W_dec=W / W.norm(dim=1, keepdim=True), b_dec=torch.zeros(16),
        threshold=torch.zeros(24), name="early", reads=EARLY,
    )  # fmt: skip
    return {"": Hooked(wb.sae, wb.card.norm_cutoff, 0), "early": Hooked(early, 1e9, 0)}


def hooked_run(wb, edits, text=TEXT):
    tokens = torch.tensor([wb.model.prompt(text)])
    run = wb.model.run(tokens, [EARLY, HOOK], edits, logits=True)
    return {name: x[0].float() for name, x in run.activations.items()} | {"logits": run.logits[0]}


@pytest.mark.parametrize(
    ("edit", "wanted"),
    [
        (lambda f: Clamp(feature=f, strength=6.0), lambda z: torch.full_like(z, 6.0)),
        (lambda f: Ablate(feature=f), torch.zeros_like),
        (lambda f: Scale(feature=f, strength=3.0), lambda z: 3 * z),
        (lambda f: Add(feature=f, strength=2.0), lambda z: z + 2),
        (lambda f: Clamp(feature=f, strength=6.0, when=When(above=-1.0)), lambda z: torch.full_like(z, 6.0)),
    ],
)
def test_an_edit_equals_the_slow_hook_within_1e5_of_the_norm(wb, firing, edit, wanted):
    got, expected = activations(wb, [edit(firing)]), slow(wb, firing, wanted)
    assert not torch.equal(got, activations(wb))
    assert float(((got - expected).norm(dim=1) / expected.norm(dim=1)).max()) < 1e-5


def test_the_sae_in_the_loop_with_no_change_leaves_every_bit(wb, firing):
    x = activations(wb)
    assert torch.equal(activations(wb, [Scale(feature=firing, strength=1.0)]), x)
    assert torch.equal(activations(wb, [Add(feature=firing, strength=0.0)]), x)
    same = [model_edit(Scale(feature=f, strength=1.0), wb.sae, norm_cutoff=1e9, separator=0) for f in range(64)]
    tokens = torch.tensor([wb.model.prompt(TEXT)])
    assert torch.equal(wb.model.run(tokens, edits=same).logits, wb.model.run(tokens).logits)


def test_sinks_are_never_moved(wb):
    assert torch.equal(activations(wb, [Clamp(feature=1, strength=50.0)])[0], activations(wb)[0])
    everything = model_edit(Clamp(feature=1, strength=50.0), wb.sae, norm_cutoff=0.0, separator=0)
    ids = torch.tensor([wb.model.prompt(TEXT)])
    assert torch.equal(wb.model.run(ids, edits=[everything]).logits, wb.model.run(ids).logits)


def test_edits_apply_to_the_prompt_or_to_what_is_generated(wb):
    seen = []

    def spy(x, site):
        seen.append((x[0, -1].clone(), site.generated))
        return x

    for where, moved in (("prompt", False), ("generated", True)):
        seen.clear()
        edit = model_edit(Add(feature=2, strength=30.0, where=where), wb.sae, norm_cutoff=1e9, separator=0)
        wb.model.generate([wb.model.prompt("A cat")], max_new_tokens=2, edits=[Edit(HOOK, spy), edit, Edit(HOOK, spy)])
        changed = {
            generated: not torch.equal(a, b) for (a, generated), (b, _) in zip(seen[::2], seen[1::2], strict=True)
        }
        assert changed == {False: not moved, True: moved}


def test_steering_gives_both_texts_and_a_record(wb):
    run = wb.steer("The capital", [Clamp(feature=3, strength=40.0)], max_new_tokens=12, seed=4, temperature=1.0)
    again = wb.steer("The capital", [Clamp(feature=3, strength=40.0)], max_new_tokens=12, seed=4, temperature=1.0)
    assert run == again
    assert run.sampling["seed"] == 4
    assert run.environment["sae_sha256"] == wb.card.sae_sha256
    assert run.baseline_tokens != run.steered_tokens
    assert run.baseline == wb.model.decode(run.baseline_tokens)
    assert run.edits == [{"kind": "Clamp", "feature": 3, "strength": 40.0, "where": "all"}]
    assert (
        wb.steer("The capital", [], max_new_tokens=5).steered == wb.steer("The capital", [], max_new_tokens=5).baseline
    )
    assert "steered" in run._repr_html_()


def test_orthogonal_leaves_no_part_along_the_row_and_residual_units_scale_with_the_norm(wb, firing):
    x, row = activations(wb), wb.sae.W_dec[firing]
    unit = row / row.norm()
    flat = activations(wb, [Orthogonal(feature=firing)])
    assert (flat[1:] @ unit).abs().max() < 1e-5
    assert torch.allclose(flat[1:], x[1:] - (x[1:] @ unit)[:, None] * unit, atol=1e-5)
    added = activations(wb, [Add(feature=firing, strength=0.5, unit="residual")])
    assert torch.allclose(added[1:], x[1:] + 0.5 * x[1:].norm(dim=1, keepdim=True) * unit, atol=1e-5)


def test_an_edit_along_another_direction_moves_just_as_far(wb, firing):
    x = activations(wb)
    own, other = (activations(wb, [Clamp(feature=firing, strength=6.0, along=a)]) - x for a in (None, 5))
    assert torch.allclose(own.norm(dim=1), other.norm(dim=1), rtol=1e-3, atol=1e-5)
    row = wb.sae.W_dec[5]
    assert torch.allclose(
        other[1:] / other[1:].norm(dim=1, keepdim=True), (row / row.norm()).expand(len(x) - 1, -1), atol=1e-4
    )


def test_edits_at_one_hook_point_act_in_their_order(wb, firing):
    x = activations(wb)
    first, second = Clamp(feature=firing, strength=6.0), Scale(feature=firing, strength=2.0)
    row = wb.sae.W_dec[firing]

    def slow_clamp(y, to):
        return y + (to - wb.sae.encode_feature(y, firing))[:, None] * row

    held = slow_clamp(x, 6.0)
    doubled = held + wb.sae.encode_feature(held, firing)[:, None] * row
    assert torch.allclose(activations(wb, [first, second])[1:], doubled[1:], atol=1e-4)
    twice = x + wb.sae.encode_feature(x, firing)[:, None] * row
    assert torch.allclose(activations(wb, [second, first])[1:], slow_clamp(twice, 6.0)[1:], atol=1e-4)


def test_edits_at_several_layers_act_as_one_after_the_other(wb, saes):
    below, above = Add(feature=FeatureRef(sae="early", feature=2), strength=3.0), Clamp(feature=1, strength=4.0)
    both = hooked_run(wb, compile_edits([[above, below]], saes))
    only = hooked_run(wb, compile_edits([[below]], saes))
    expected = only[HOOK] + (4.0 - wb.sae.encode_feature(only[HOOK], 1))[:, None] * wb.sae.W_dec[1]
    assert torch.equal(both[EARLY], only[EARLY])
    assert torch.allclose(both[HOOK][1:], expected[1:], atol=1e-5)


def test_a_condition_opens_an_edit_only_where_its_feature_is_above_the_threshold(wb, saes):
    x = hooked_run(wb, [])
    own = wb.sae.encode(x[HOOK])
    feature = int((own[1:] > 0).sum(0).clamp_max(len(own) - 3).argmax())
    middle = float(own[1:, feature].median())
    cases = {
        None: own[:, feature] > middle,
        FeatureRef(sae="early", feature=4): saes["early"].sae.encode(x[EARLY])[:, 4] > middle,
    }
    for source, opened in cases.items():
        edit = Add(feature=feature, strength=5.0, when=When(feature=source, above=middle))
        got = hooked_run(wb, compile_edits([[edit]], saes, order=[EARLY, HOOK]))[HOOK]
        moved = (got - x[HOOK]).norm(dim=1) > 1e-6
        assert torch.equal(moved[1:], opened[1:])
        assert moved.any()
        assert not moved.all()


def test_conditions_are_read_before_the_first_edit(wb, firing):
    edits = [Ablate(feature=firing), Add(feature=5, strength=4.0, when=When(feature=firing, above=0.0))]
    saes = {"": Hooked(wb.sae, wb.card.norm_cutoff, 0)}
    fires = wb.sae.encode_feature(activations(wb), firing) > 0
    with_both = hooked_run(wb, compile_edits([edits], saes))[HOOK] - activations(wb, edits[:1])
    assert torch.equal(with_both.norm(dim=1)[1:] > 1e-6, fires[1:])


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("from:3", lambda tokens, texts: [p >= 3 for p in range(len(tokens))]),
        ("from:-2", lambda tokens, texts: [p >= len(tokens) - 2 for p in range(len(tokens))]),
        ("token:/^ ?(France|Paris)$/", lambda tokens, texts: [t.strip() in ("France", "Paris") for t in texts]),
        ("prompt", lambda tokens, texts: [True] * len(tokens)),
        ("generated", lambda tokens, texts: [False] * len(tokens)),
    ],
)
def test_an_edit_touches_the_places_it_names(wb, saes, where, expected):
    tokens = wb.model.prompt(TEXT)
    edit = compile_edits([[Add(feature=2, strength=9.0, where=where)]], saes, vocabulary=lambda: wb.model.vocabulary)
    moved = (hooked_run(wb, edit)[HOOK] - hooked_run(wb, [])[HOOK]).norm(dim=1) > 1e-6
    wanted = expected(tokens, [wb.model.vocabulary[t] for t in tokens])
    assert moved.tolist()[1:] == wanted[1:]
    assert not moved[0]  # a sink
    assert any(wanted) == (where != "generated")


def test_sinks_are_moved_when_asked(wb):
    x = activations(wb)
    assert not torch.equal(activations(wb, [Add(feature=1, strength=9.0, include_masked=True)])[0], x[0])


def test_a_topk_sae_is_edited_through_its_whole_code(wb):
    import torch.nn.functional as F

    sae = SAE(W_enc=wb.sae.W_enc, b_enc=wb.sae.b_enc, W_dec=wb.sae.W_dec, b_dec=wb.sae.b_dec, k=4, name="k", reads=HOOK)
    x = hooked_run(wb, [])[HOOK]
    code = sae.encode(x)
    for feature in code.sum(0).topk(2).indices.tolist():
        edit = model_edit(Scale(feature=feature, strength=3.0), sae, norm_cutoff=1e9, separator=0)
        expected = x + sae.decode(code * (1 + 2 * F.one_hot(torch.tensor(feature), 64))) - sae.decode(code)
        assert torch.allclose(hooked_run(wb, [edit])[HOOK][1:], expected[1:], atol=1e-5)


# ---- generation ----


def test_a_batch_with_its_own_edits_and_seeds_equals_one_by_one(wb, saes):
    prompts = [wb.model.prompt(text) for text in ("The capital", "A cat sat on the mat; the dog", "Numbers", "def")]
    rows = [
        [], [Clamp(feature=3, strength=20.0)], [Add(feature=4, strength=9.0, where="generated"), Ablate(feature=3)],
        [Clamp(feature=3, strength=-5.0, where="from:-1")],
    ]  # fmt: skip
    for settings in ({}, {"temperature": 1.0}, {"temperature": 0.8, "top_p": 0.7}):
        together = wb.model.generate(
            prompts, edits=compile_edits(rows, saes), seed=[5, 6, 7, 8], max_new_tokens=10, **settings
        )
        for prompt, row, seed, answer in zip(prompts, rows, (5, 6, 7, 8), together, strict=True):
            made = compile_edits([row], saes)
            assert wb.model.generate([prompt], edits=made, seed=seed, max_new_tokens=10, **settings) == [answer]


def test_streaming_gives_the_same_tokens_and_lets_the_model_run_in_between(wb):
    prompts = [wb.model.prompt("The capital"), wb.model.prompt("A cat")]
    edit = model_edit(Clamp(feature=3, strength=20.0), wb.sae, norm_cutoff=1e9, separator=0)
    tokens = torch.tensor([prompts[0]])
    plain, steps = wb.model.run(tokens).logits, []
    for step in wb.model.stream(prompts, edits=[edit], max_new_tokens=6):
        steps.append(step)
        assert torch.equal(wb.model.run(tokens).logits, plain)
    assert [list(row) for row in zip(*steps, strict=True)] == wb.model.generate(prompts, edits=[edit], max_new_tokens=6)


def test_a_row_ends_with_its_stop_string_and_the_text_is_cut_before_it(wb):
    whole = wb.steer("The capital", [], max_new_tokens=12).baseline
    stop = whole[5:7]
    run = wb.steer("The capital", [], max_new_tokens=12, stop=[stop])
    assert run.baseline == whole[: whole.find(stop)]
    assert len(run.baseline_tokens) < 12
    other = wb.steer("The capital", [], max_new_tokens=12, stop=["never there"])
    assert other.baseline == whole


def test_top_p_draws_from_the_smallest_set_and_temperature_follows_the_softmax():
    from interp.models.generation import choose

    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]]).repeat(4000, 1)
    draws = [torch.Generator().manual_seed(n) for n in range(4000)]
    p = logits[0].softmax(-1)
    counts = torch.bincount(torch.tensor(choose(logits, 1.0, 1.0, draws)), minlength=4) / 4000
    assert torch.allclose(counts, p, atol=0.03)
    kept = torch.bincount(torch.tensor(choose(logits, 1.0, 0.8, draws)), minlength=4) / 4000
    assert kept[2:].sum() == 0  # .64 + .24 reach .8
    assert torch.allclose(kept[:2], p[:2] / p[:2].sum(), atol=0.03)


def test_the_text_so_far_is_told_while_it_grows(wb):
    told = []
    run = wb.steer(
        "A cat", [Clamp(feature=3, strength=9.0)], max_new_tokens=4, on_text=lambda a, b: told.append((a, b))
    )
    assert len(told) == 4
    assert told[-1] == (run.baseline, run.steered)


# ---- contrast, conflicts, presets ----


def test_a_contrast_is_the_difference_of_mean_activations(wb):
    sets = (["The capital of France is Paris.", "Rome"], ["A cat sat on the mat.", "one, two and three"])

    def mean(texts):
        rows = []
        for text in texts:
            x = wb.model.run(torch.tensor([wb.model.prompt(text)]), [HOOK]).activations[HOOK][0, 1:]
            rows.append(x[x.norm(dim=1) <= wb.card.norm_cutoff].mean(0))
        return torch.stack(rows).mean(0)

    made = wb.difference_of_means(*sets)
    assert torch.allclose(torch.tensor(made.vector), mean(sets[0]) - mean(sets[1]), atol=1e-5)
    moved = activations(wb, [Add(feature=made, strength=2.0)]) - activations(wb)
    assert torch.allclose(moved[1:], 2 * torch.tensor(made.vector).expand(len(moved) - 1, -1), atol=1e-4)
    with pytest.raises(InterpError, match="the set of texts 'away' is empty"):
        difference_of_means(wb.model, ["a"], [], HOOK)


def test_conflicts_are_named(wb, saes):
    held, gone = Clamp(feature=3, strength=8.0), Ablate(feature=3)
    assert find_conflicts(bind_all([held, gone], saes)) == [
        "Ablate on feature 3 undoes the earlier Clamp 8 on feature 3 wherever both act."
    ]
    apart = [Clamp(feature=3, strength=8.0, where="prompt"), Ablate(feature=3, where="generated")]
    assert find_conflicts(bind_all(apart, saes)) == []
    row = wb.sae.W_dec[3]
    near = Direction(name="near", hook_name=HOOK, vector=tuple(row.tolist()), norm_cutoff=1e9)
    (said,) = find_conflicts(bind_all([held, Add(feature=near, strength=1.0)], saes))
    assert "their directions have a cosine of 1.00" in said
    assert wb.steer("A cat", [held, gone], max_new_tokens=1).conflicts == find_conflicts(bind_all([held, gone], saes))


def test_every_edit_is_written_and_read_back():
    direction = Direction(name="d", hook_name=HOOK, vector=(1.0, 0.5), norm_cutoff=9.0)
    for edit in (
        Clamp(feature=3, strength=8.0, where="from:2", when=When(above=1.0)),
        Add(feature=direction, strength=0.5, unit="residual"),
        Scale(feature=FeatureRef(sae="x", feature=2), strength=2.0, include_masked=True),
        Ablate(feature=1, when=When(feature=FeatureRef(sae="x", feature=7), above=0.0)),
        Orthogonal(feature=1, along=4),
    ):
        assert from_dict(to_dict(edit)) == edit
    with pytest.raises(InterpError, match="no edit 'Push'"):
        from_dict({"kind": "Push"})
    with pytest.raises(InterpError, match="an edit Clamp cannot be read"):
        from_dict({"kind": "Clamp", "feature": 3})


def test_presets_are_kept_by_name_and_read_from_a_file(wb, tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_HOME", str(tmp_path))
    edits = [Clamp(feature=3, strength=8.0), Ablate(feature=4)]
    path = wb.save_preset("calm", edits, note="a note")
    assert wb.presets() == ["calm"]
    assert wb.preset("calm").edits == wb.preset(path).edits == edits
    with pytest.raises(InterpError, match="did you mean calm"):
        wb.preset("clam")
    other = wb.preset("calm").to_dict() | {"sae_sha256": "0" * 64}
    with pytest.raises(InterpError, match="is for tiny with weights 0000"):
        wb.preset(other)
    with pytest.raises(InterpError, match="cannot name a preset"):
        wb.save_preset("../up", edits)
    assert isinstance(wb.preset(path), Preset)


# ---- mistakes ----


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (Clamp(feature=64, strength=1.0), "no feature 64 in .* features 0 to 63"),
        (Clamp(feature=1, strength=float("nan")), "is not finite"),
        (Add(feature=1, strength=float("inf")), "is not finite"),
        (Add(feature=1, strength=1.0, unit="miles"), "no unit of a strength 'miles'"),
        (Add(feature=1, strength=1.0, where="nowhere"), "no place to edit 'nowhere'"),
        (Add(feature=1, strength=1.0, where="token:/(/"), "no regular expression RE2 takes"),
        (Add(feature=1, strength=1.0, when=When(feature=99, above=0.0)), "no feature 99"),
        (Add(feature=1, strength=1.0, when=When(above=float("nan"))), "is not finite"),
        (
            Clamp(feature=Direction(name="d", hook_name=HOOK, vector=(1.0,), norm_cutoff=1.0), strength=1.0),
            "has no activation to clamp",
        ),
        (
            Add(feature=Direction(name="d", hook_name=HOOK, vector=(0.0,), norm_cutoff=1.0), strength=1.0),
            "must be finite and not 0",
        ),
        (Clamp(feature=FeatureRef(sae="other", feature=1), strength=1.0), "there is no SAE at other"),
    ],
)
def test_an_edit_that_cannot_be_made_is_refused_before_the_model_is_opened(checkpoint, edit, message, monkeypatch):
    fresh = Workbench.open(checkpoint, labels="sqlite://")
    monkeypatch.setattr("interp.workbench.opening.open_model", lambda *a, **k: pytest.fail("the model was opened"))
    with pytest.raises(InterpError, match=message):
        fresh.steer("A cat", [edit])


def test_an_sae_of_another_model_is_refused(checkpoint, wb, tmp_path):
    import shutil

    from interp import places

    shutil.copytree(checkpoint, tmp_path / "s")
    card = places.read_json(tmp_path / "s" / "card.json")
    places.write_json(tmp_path / "s" / "card.json", card | {"model_sha256": "0" * 64})
    with pytest.raises(InterpError, match="edits of one run need SAEs of one model"):
        wb.steer("A cat", [Clamp(feature=FeatureRef(sae=str(tmp_path / "s"), feature=1), strength=1.0)])


@pytest.mark.parametrize(
    ("edits", "settings", "message"),
    [
        ([Clamp(feature=1, strength=1.0, where="from:40")], {}, "begins outside the prompt, which has positions 0 to"),
        ([], {"max_new_tokens": 600}, "exceed the 512"),
        ([], {"max_new_tokens": 0}, "max_new_tokens is 0; give a whole number from 1"),
        ([], {"temperature": -1.0}, "the temperature is -1.0"),
        ([], {"top_p": 0.0}, "top_p is 0.0"),
        ([], {"stop": ("",)}, "a stop string is empty"),
        ([], {"temprature": 1.0}, "did you mean temperature"),
        (
            [
                Add(
                    feature=Direction(name="d", hook_name="blocks.9.x", vector=(1.0,) * 16, norm_cutoff=1.0),
                    strength=1.0,
                )
            ],
            {},
            "no hook point in tiny-llama",
        ),
    ],
)
def test_a_request_that_cannot_be_met_is_refused_before_anything_is_computed(wb, monkeypatch, edits, settings, message):
    _ = wb.steered
    monkeypatch.setattr(type(wb.model.module), "forward", lambda *a, **k: pytest.fail("the model ran"))
    with pytest.raises(InterpError, match=message):
        wb.steer("A cat", edits, **settings)


def test_a_condition_on_a_later_layer_is_refused(saes):
    edit = Add(feature=FeatureRef(sae="early", feature=1), strength=1.0, when=When(feature=1, above=0.0))
    with pytest.raises(InterpError, match="which the model reaches after"):
        compile_edits([[edit]], saes, order=[EARLY, HOOK])


def test_a_model_names_the_seeds_it_lacks(wb):
    with pytest.raises(InterpError, match="2 seeds were given for 1 prompts"):
        wb.model.generate([wb.model.prompt("A")], seed=[1, 2])
    assert isinstance(wb.steered, SteeredModel)


def test_names_of_before_still_answer_and_say_what_they_are_called_now(wb):
    import interp
    from interp import steering

    for home, before, now in (
        (interp, "SweepConfig", StrengthSweepConfig),
        (steering, "SweepConfig", StrengthSweepConfig),
        (steering, "Stage", SteeredModel),
        (steering, "sweep", steering.sweep_strengths),
        (steering, "contrast", difference_of_means),
    ):
        with pytest.warns(
            DeprecationWarning, match=f"{home.__name__}.{before} is now .*{now.__name__}; the old name goes"
        ):
            assert getattr(home, before) is now
    with pytest.warns(DeprecationWarning, match="Workbench.stage is now Workbench.steered"):
        assert wb.stage is wb.steered
    with pytest.warns(DeprecationWarning, match="Workbench.check_steering is now Workbench.request"):
        wb.check_steering(["A cat"], [[Ablate(feature=3)]], max_new_tokens=4)
    made = wb.request(["A cat"], [[], [Clamp(feature=3, strength=40.0)]], max_new_tokens=4)
    run = wb.steer("A cat", [Clamp(feature=3, strength=40.0)], max_new_tokens=4)
    assert made.generate([(0, 0, 0), (0, 1, 0)]) == [run.baseline_tokens, run.steered_tokens]
    with pytest.warns(DeprecationWarning, match="Workbench.contrast is now"):
        assert wb.contrast(["A cat"], ["A dog"]) == wb.difference_of_means(["A cat"], ["A dog"])


def wide(width, hook_name=HOOK):
    return Direction(name="d", hook_name=hook_name, vector=(1.0,) * width, norm_cutoff=1e9)


@pytest.fixture(scope="module")
def narrow(wb):
    """An SAE of width 8 at an earlier hook point, where the model has 16."""
    W = torch.eye(8)
    sae = SAE(W_enc=W, b_enc=torch.zeros(8), W_dec=W, b_dec=torch.zeros(8), threshold=torch.zeros(8), name="narrow", reads=EARLY)  # fmt: skip
    return SteeredModel(
        wb.model, {"": Hooked(wb.sae, 1e9, 0), "narrow": Hooked(sae, 1e9, 0)}, lambda: wb.model.vocabulary
    )


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (Add(feature=wide(5), strength=1.0), "'d' has width 5, and tiny at .* has 16"),
        (Add(feature=wide(1), strength=1.0), "'d' has width 1, and tiny at"),
        (Clamp(feature=3, strength=1.0, along=wide(5)), "'d' has width 5, and feature 3 has 16"),
        (Add(feature=wide(5, EARLY), strength=1.0), f"'d' has width 5, and {EARLY} of tiny-llama has 16"),
        (Clamp(feature=FeatureRef(sae="narrow", feature=1), strength=1.0), "feature narrow#1 has width 8, and"),
        (Add(feature=3, strength=1.0, when=When(feature=FeatureRef(sae="narrow", feature=1), above=0.0)), "narrow#1 has"),
    ],
)  # fmt: skip
def test_widths_that_do_not_fit_are_refused_before_the_model_runs(narrow, edit, message, monkeypatch):
    monkeypatch.setattr(type(narrow.model.module), "forward", lambda *a, **k: pytest.fail("the model ran"))
    with pytest.raises(InterpError, match=message):
        generate(narrow, "A cat", [edit], Sampling(max_new_tokens=2))


def test_a_direction_may_act_wherever_the_model_has_one_vector_a_position(wb):
    mlp = "blocks.0.mlp.hook_post"
    assert wb.model.width(mlp) == 32
    assert wb.steer("A cat", [Add(feature=wide(32, mlp), strength=9.0)], max_new_tokens=2).edits
    with pytest.raises(InterpError, match="'d' has width 16, and .*hook_post of tiny-llama has 32"):
        wb.steer("A cat", [Add(feature=wide(16, mlp), strength=1.0)])
    with pytest.raises(InterpError, match="has shape .* at a position, not one vector"):
        wb.model.width("blocks.0.attn.hook_pattern")
    # Its tokens are measured, so that no unembedding need read what it writes.
    found = wb.sweep(wide(32, mlp), config=StrengthSweepConfig(prompts=("A cat",), factors=(1.0,)), max_new_tokens=1)
    assert found.verdict is not None
    assert len(found.target_tokens) == 20


@pytest.mark.parametrize("strength", [1e39, -2e9])
def test_a_strength_that_no_activation_reaches_is_refused(wb, strength):
    with pytest.raises(InterpError, match="is beyond 1e\\+09"):
        wb.steer("A cat", [Add(feature=3, strength=strength)])
    with pytest.raises(InterpError, match="is beyond 1e\\+09"):
        wb.effects(3, strength=strength)
    with pytest.raises(InterpError, match="is beyond 1e\\+09"):
        wb.sweep(
            3, config=StrengthSweepConfig(prompts=("A cat",), factors=(1.0, strength)), largest=2.0, max_new_tokens=1
        )
    direction = Direction(name="d", hook_name=HOOK, vector=(1e39,) * 16, norm_cutoff=1e9)
    with pytest.raises(InterpError, match="no entry beyond 1e\\+09"):
        wb.steer("A cat", [Add(feature=direction, strength=1.0)])


def test_a_batch_names_conflicts_and_one_feature_is_known_by_all_its_names(wb):
    own = FeatureRef(sae=wb.card.name, feature=3)
    edits = [Clamp(feature=3, strength=8.0), Ablate(feature=own)]
    batch = wb.steer_many(["A cat"], [[], edits], max_new_tokens=1)
    assert batch.conflicts == [
        [],
        [f"Ablate on feature {own} undoes the earlier Clamp 8 on feature 3 wherever both act."],
    ]
    assert wb.replay(json.loads(batch.to_json())).identical
    old = json.loads(batch.to_json())
    del old["conflicts"]
    assert wb.replay(old).identical


# Values of a wrong type are tried in a process of their own: the shape checker of these tests would refuse them first.
SCRIPT = """
import json, sys
from interp import *
from interp.steering import Sampling, StrengthSweepConfig
from interp.types import InterpError
from interp.workbench import Workbench

wb = Workbench.open(sys.argv[1], labels="sqlite://")
held = [Clamp(feature=3, strength=9.0)]
steer = json.loads(wb.steer("A cat", held, max_new_tokens=2).to_json())
batch = json.loads(wb.steer_many(["A cat"], [held], max_new_tokens=2).to_json())
config = StrengthSweepConfig(prompts=("A cat",), factors=(1.0,), controls=False, verdict=False)
sweep = json.loads(wb.sweep(3, config=config, max_new_tokens=2).to_json())

def at(record, **changed):
    return wb.replay(record | changed)

def around(**changed):
    return wb.replay(steer | {"environment": steer["environment"] | changed})

def edit(**changed):
    return wb.replay(steer | {"edits": [steer["edits"][0] | changed]})

def preset(edits):
    return wb.preset({"format": 1, "sae_sha256": wb.card.sae_sha256, "edits": edits})

def forward(*given, **named):
    raise TypeError("the model ran")

assert at(steer).identical and at(batch).identical and at(sweep).identical and preset(steer["edits"]).edits == held
type(wb.model.module).forward = forward
said = {}
for code in sys.argv[2:]:
    try:
        said[code] = repr(eval(code))
    except Exception as error:
        said[code] = f"{type(error).__name__}: {error}"
print(json.dumps(said))
"""
MISTAKES = {
    "wb.replay([])": "InterpError: this file is no record",
    "at(steer, environment=[])": "InterpError: this file is no record",
    "around(threads='x')": "InterpError: the record's threads is 'x'; give a whole number from 1",
    "around(threads=0)": "InterpError: the record's threads is 0",
    "around(threads=None)": "InterpError: the record's threads is None",
    "around(versions=None)": "InterpError: the record is not whole: its environment has versions None",
    "around(sae=[1])": "InterpError: the record is not whole: its environment has sae [1]",
    "around(format=9)": "InterpError: the record has format 9, and this version of interp replays format 1",
    "at(steer, edits=['a'])": "InterpError: 'a' is no edit; one is written",
    "at(steer, edits=5)": "InterpError: the record is not whole: edits is 5",
    "at(steer, prompt=5)": "InterpError: the record is not whole: prompt is 5",
    "at(steer, sampling=[1])": "InterpError: the record is not whole: sampling is [1]",
    "at(batch, prompts=[5])": "InterpError: the prompt 5 is no text",
    "at(batch, variants=[5])": "InterpError: the record is not whole",
    "at(batch, seeds=[2**70])": "InterpError: seed is 1180591620717411303424; give a whole number",
    "at(sweep, largest='abc')": "InterpError: the record is not whole: could not convert string to float: 'abc'",
    "at(sweep, subject=['a'])": "InterpError: ['a'] is no edit",
    "at(sweep, words=5)": "InterpError: the record is not whole: words is 5",
    "at(sweep, config=sweep['config'] | {'targets': [5]})": "InterpError: the sweep's targets are [5]",
    "at(sweep, config=sweep['config'] | {'controls': 'no'})": "InterpError: the sweep's controls is 'no'",
    "edit(feature=1.7)": "InterpError: 1.7 is no feature",
    "edit(feature=True)": "InterpError: True is no feature",
    "edit(feature={'sae': ['x'], 'feature': 1})": "InterpError: FeatureRef(sae=['x'], feature=1) is no feature",
    "edit(include_masked='no')": "InterpError: include_masked is 'no'; it is true or false",
    "edit(where=5)": "InterpError: no place to edit '5'",
    "edit(strength='x')": "InterpError: the strength x of feature 3 is not finite",
    "preset(5)": "InterpError: this is no preset of format 1",
    "preset(['a'])": "InterpError: 'a' is no edit",
    "preset([steer['edits'][0] | {'where': 5}])": "InterpError: no place to edit '5'",
    "preset([{'kind': 'Add', 'feature': {'name': 'd', 'hook_name': wb.card.hook_name, 'vector': [1, 2], "
    "'norm_cutoff': 9}, 'strength': 1}])": "InterpError: the direction 'd' has width 2, and tiny at",
    "Sampling(seed=2**70)": "InterpError: seed is 1180591620717411303424; give a whole number",
    "Sampling(seed=1.5)": "InterpError: seed is 1.5; give a whole number",
    "Sampling(max_new_tokens=2.5)": "InterpError: max_new_tokens is 2.5; give a whole number",
    "Sampling(stop=5)": "InterpError: stop is 5; give a string or a list of strings",
    "Sampling(stop=[5])": "InterpError: stop is [5]",
    "Sampling(temperature='x')": "InterpError: temperature is 'x'; give a number",
    "wb.steer_many(['A'], [[]], seeds=[1.5])": "InterpError: seed is 1.5",
    # A mistake of ours, made while computing, is not passed off as the record's.
    "at(steer)": "TypeError: the model ran",
}  # fmt: skip


@pytest.fixture(scope="module")
def said(checkpoint):
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, checkpoint, *MISTAKES],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("code", MISTAKES)
def test_a_wrong_value_in_a_record_a_preset_or_sampling_is_one_sentence_before_compute(said, code):
    assert said[code].startswith(MISTAKES[code])


def test_a_rendered_template_is_read_as_it_is_when_asked(wb):
    text = "<|endoftext|>A cat sat"
    plain = wb.steer(text, [Clamp(feature=3, strength=5.0)], max_new_tokens=2)
    read = wb.steer(text, [Clamp(feature=3, strength=5.0)], max_new_tokens=2, special=True)
    assert plain.prompt_tokens[1] != 0
    assert read.prompt_tokens == wb.model.prompt("A cat sat")
    assert wb.replay(json.loads(read.to_json())).identical
    before = json.loads(plain.to_json())
    del before["sampling"]["special"]  # as records of before have it
    assert wb.replay(before).identical
    assert wb.spectrum(text, special=True).tokens == wb.spectrum("A cat sat").tokens
    with pytest.raises(InterpError, match="leave special out"):
        wb.steer(text, [], chat=True, special=True)
