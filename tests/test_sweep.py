"""Sweeps, verdicts, effects and replays, each figure against a slow way to it."""

import importlib.util
import json
import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from interp import cli
from interp.models import Edit
from interp.sae import SAE
from interp.statistics import wilson
from interp.steering import (
    Add,
    Clamp,
    Direction,
    Hooked,
    Steerable,
    SteeredModel,
    StrengthSweepConfig,
    judge,
    matched_features,
)
from interp.steering.detection import ENOUGH, Peak, detection, named, sentence
from interp.steering.measures import distinct, loops
from interp.steering.replay import first_difference
from interp.steering.targets import CHOOSING, LATER, logprobs_after, measure_targets
from interp.steering.verdict import OPENINGS
from interp.steering.window import find_window
from interp.types import FeatureRef, InterpError
from interp.workbench import Workbench
from interp.workbench.known import peaks
from tests.conftest import HOOK, ROOT
from tests.test_cli import call

PROMPTS = ("The capital of", "A cat sat on")


@pytest.fixture(scope="module")
def wb(checkpoint):
    return Workbench.open(checkpoint, labels="sqlite://")


@pytest.fixture(scope="module")
def config():
    return StrengthSweepConfig(factors=(-1.0, 0.0, 2.0), prompts=PROMPTS, regex="a", seeds=(1, 2))


@pytest.fixture(scope="module")
def swept(wb, config):
    return wb.sweep(5, config=config, max_new_tokens=9, temperature=0.7)


def logprobs(wb, tokens, edits=()):
    return wb.model.run(torch.tensor([tokens]), edits=list(edits)).logits[0].float().log_softmax(-1)


def test_a_points_figures_equal_reading_each_text_by_itself(wb, swept, config):
    shifts, kls, losses, fires = [], [], [], []
    point = swept.curve[2]
    edit = Clamp(feature=5, strength=2 * swept.largest)
    baselines = iter(swept.baseline.tokens)
    answers = iter(point.tokens)
    for prompt in swept.prompt_tokens:
        for _ in config.seeds:
            base, said = next(baselines), next(answers)
            span = slice(len(prompt) - 1, len(prompt) + len(base) - 1)
            plain = logprobs(wb, prompt + base)[span]
            moved = logprobs(wb, prompt + base, wb.steered.compile([[edit]]))[span]
            targets = swept.target_tokens
            shifts.append(float((moved[:, targets].logsumexp(1) - plain[:, targets].logsumexp(1)).mean()))
            kls.append(float((moved.exp() * (moved - plain)).sum(1).mean()))
            read = logprobs(wb, prompt + said)
            losses.append(-np.mean([float(read[len(prompt) - 1 + i, t]) for i, t in enumerate(said)]))
            x = wb.model.run(torch.tensor([prompt + said]), [HOOK]).activations[HOOK][0, len(prompt) :]
            kept = x[(torch.tensor(said) != 0) & (x.norm(dim=1) <= wb.card.norm_cutoff)]
            fires.append(bool((wb.sae.encode_feature(kept, 5) > 0).any()))
    assert point.shift[0] == pytest.approx(np.mean(shifts), abs=1e-5)
    assert point.kl[0] == pytest.approx(np.mean(kls), abs=1e-5)
    assert point.perplexity[0] == pytest.approx(math.exp(np.mean(losses)), rel=1e-4)
    assert point.fires[0] == np.mean(fires)
    assert point.shift[1] <= point.shift[0] <= point.shift[2]
    assert point.matches[0] == np.mean(["a" in text for text in point.texts])


def test_a_sweep_has_its_controls_beside_it_and_shares_its_random_numbers(wb, swept, config):
    assert {name: [p.factor for p in points] for name, points in swept.series.items()} == {
        "feature": [-1.0, 0.0, 2.0],
        "random features": [-1.0, 2.0],
        "noise": [-1.0, 2.0],
        "sign flipped": [2.0],
        "prompt only": [0.0],
    }
    assert swept.words.startswith("The following text uses the words")
    (alone,) = wb.model.generate(
        [swept.prompt_tokens[1]], seed=[2], temperature=0.7, max_new_tokens=9,
        edits=wb.steered.compile([[Clamp(feature=5, strength=-swept.largest)]]),
    )  # fmt: skip
    assert swept.curve[0].tokens[3] == alone
    assert swept.verdict is not None
    assert "feature 5" in swept._repr_html_()
    assert len(swept.rows()) == 10
    row = swept.rows()[3]
    assert (row["kl"], row["kl_low"], row["kl_high"]) == swept.curve[2].kl


def test_a_direction_is_swept_like_a_feature(wb):
    direction = wb.difference_of_means(["The capital of France is Paris."], ["A cat sat on the mat."])
    config = StrengthSweepConfig(factors=(1.0,), prompts=PROMPTS, verdict=False)
    found = wb.sweep(direction, config=config, max_new_tokens=3)
    assert set(found.series) == {"feature", "noise", "sign flipped"}
    assert found.curve[0].shift[0] > found.series["sign flipped"][0].shift[0]


# ---- verdict ----


@pytest.fixture(scope="module")
def planted(wb):
    """At the last layer: feature 0 writes one token's unembedding, feature 1 what no token reads, the rest noise."""
    unembed, gain = wb.model.unembedding()
    draw = torch.Generator().manual_seed(1)
    rows = torch.randn(40, 16, generator=draw)
    rows[0] = unembed[77] * gain
    _, _, V = torch.linalg.svd(unembed * gain)
    rows[1] = V[-1]
    rows = rows / rows.norm(dim=1, keepdim=True)
    sae = SAE(
        W_enc=rows.T.contiguous(), b_enc=torch.zeros(40), W_dec=rows, b_dec=torch.zeros(16),
        threshold=torch.zeros(40), name="planted", reads=HOOK,
    )  # fmt: skip
    return SteeredModel(wb.model, {"": Hooked(sae, 1e9, 0)}, lambda: wb.model.vocabulary)


def test_a_planted_controller_is_told_from_a_feature_that_no_token_reads(planted, monkeypatch):
    # Held at 20 it says one token and nothing else; that a controller must leave text is a test of its own below.
    monkeypatch.setattr("interp.steering.verdict.fluent", lambda ratio, more_loops: True)
    matched = tuple(range(2, 21))

    def verdict(feature, largest, own):
        peaks = {feature: peaks_of(own), **dict.fromkeys(matched, peaks_of([8] * 20))}
        return judge(planted, Steerable(feature=feature, largest=largest, matched=matched, peaks=peaks))

    same, scattered = [7] * 20, list(range(20, 40))
    loud = verdict(0, 20.0, same)
    assert loud.verdict == "both"
    assert loud.shift[1] > max(loud.shift_controls)
    assert loud.output_score > max(loud.output_score_controls)
    assert loud.flipped < 0
    assert loud.detection == 1.0
    assert len(loud.shift_controls) == len(loud.output_score_controls) == 24
    assert verdict(0, 20.0, scattered).verdict == "controller"
    assert verdict(1, 0.001, same).verdict == "detector"
    assert verdict(1, 0.001, scattered).verdict == "neither"


def test_the_verdicts_shift_and_output_score_equal_one_prompt_at_a_time(wb, planted):
    subject = Steerable(feature=0, largest=3.0, matched=tuple(range(2, 21)))
    found = judge(planted, subject, prompts=PROMPTS)
    sae, shifts, scores = planted.saes[""].sae, [], []
    for text in PROMPTS:
        tokens = wb.model.prompt(text)
        plain = logprobs(wb, tokens)[-1]
        targets = [planted.vocabulary().index(t) for t in found.targets]
        held = logprobs(wb, tokens, planted.compile([[Clamp(feature=0, strength=3.0)]]))[-1]
        shifts.append(float(held[targets].logsumexp(0) - plain[targets].logsumexp(0)))
        x = wb.model.run(torch.tensor([tokens]), [HOOK]).activations[HOOK][0, -1]
        push = Add(feature=0, strength=10 * float(sae.encode(x).max()), where="from:-1")
        pushed = logprobs(wb, tokens, planted.compile([[push]]))[-1]
        best = max(targets, key=lambda t: float(pushed[t]))
        rank = pushed.argsort(descending=True).tolist().index(best)
        scores.append((1 - rank / len(pushed)) * float(pushed[best].exp()))
    assert found.shift[0] == pytest.approx(np.mean(shifts), abs=1e-5)
    assert found.output_score == pytest.approx(np.mean(scores), rel=1e-4)


def test_measured_targets_are_what_rises_most_and_is_said(wb, planted):
    subject = Steerable(feature=0, largest=20.0, matched=tuple(range(2, 21)))
    found = measure_targets(planted, subject)
    assert [found.along[n] for n in (0, 1, 19)] == [None, 2, 20]
    assert set(found.tokens) == {0, *found.noises}
    prompts = [wb.model.prompt(text) for text in CHOOSING]
    texts = [(p, wb.model.generate([p], seed=[0], temperature=0.0, max_new_tokens=LATER)[0]) for p in prompts]
    last = min(len(answer) for _, answer in texts) + 1

    def means(edits):
        rows = [logprobs(wb, [*p, *answer], edits)[-last:] for p, answer in texts]
        return torch.stack(rows).mean((0, 1)), torch.stack(rows).exp().mean((0, 1))

    plain, _ = means(())
    held = [means(planted.compile([[Clamp(feature=0, strength=20.0, along=each)]])) for each in found.along[:-1]]
    for place in (0, found.noises[-1]):
        others = torch.stack([rise - plain for n, (rise, _) in enumerate(held) if n not in (0, place)])
        own = held[place][0] - plain - others.mean(0)
        said = held[place][1] >= 1 / len(own)
        assert said[found.tokens[place]].all()
        assert own[found.tokens[place]].tolist() == pytest.approx(own[said].topk(20).values.tolist(), abs=1e-5)
    assert found.tokens[0][0] == 77, "the token that it writes"
    assert not set(CHOOSING) & set(OPENINGS)


def test_noise_is_judged_with_tokens_of_its_own_too(planted):
    subject = Steerable(feature=0, largest=20.0, matched=tuple(range(2, 21)))
    found, targets = judge(planted, subject), measure_targets(planted, subject)
    ids = planted.tokenize(OPENINGS)
    plain = logprobs_after(planted, ids, [[] for _ in ids])
    for n, place in enumerate(targets.noises):
        edits = planted.bind_rows([[subject.edit(20.0, along=targets.along[place])] for _ in ids])
        held, wanted = logprobs_after(planted, ids, edits), targets.tokens[place]
        shift = held[:, wanted].logsumexp(1) - plain[:, wanted].logsumexp(1)
        assert found.shift_noises[n] == pytest.approx(float(shift.mean()), abs=1e-5)
    assert found.moves
    assert found.shift[0] > max(found.shift_noises) > max(found.shift_controls)
    # A direction that is noise itself, looked at as if it were a feature, is not beyond other noise.
    noise = Direction(name="another", hook_name=HOOK, vector=tuple(torch.randn(16).tolist()), norm_cutoff=1e9)
    assert not judge(planted, Steerable(feature=noise, largest=5.0)).moves


def test_matched_features_are_alive_near_in_density_and_drawn_by_the_seed():
    density = np.concatenate([[0.0, 0.0], np.geomspace(1e-5, 1e-1, 400)])
    drawn = matched_features(density, 200)
    assert len(set(drawn)) == 19
    assert 200 not in drawn
    assert all(abs(math.log10(density[f] / density[200])) < 0.6 for f in drawn)
    assert drawn == matched_features(density, 200) != matched_features(density, 200, seed=1)
    with pytest.raises(InterpError, match="fewer than the 19 controls"):
        matched_features(np.ones(5), 0)


def peaks_of(tokens, **more):
    """Examples drawn from the fifths in turn."""
    return [Peak(token=token, fifth=n * 5 // max(len(tokens), 1) + 1, **more) for n, token in enumerate(tokens)]


def test_detection_holds_each_example_out_and_is_said_by_fifth():
    folded = ["paris", "london", "the", "rome", "oslo"]
    strongest = [Peak(token=token, fifth=1, strongest=True) for token in (0, 0, 1)]
    own = strongest + peaks_of([0, 1, 2, 3, 4])
    found = detection(own, folded)
    assert found.strongest[0] == 1.0  # each is another's too
    assert [share for share, *_ in found.fifths] == [1.0, 1.0, 0.0, 0.0, 0.0]
    assert found.range[0] == pytest.approx(2 / 5)
    assert found.range == wilson(2, 5)
    assert found.tried == 8
    assert (
        detection(peaks_of([3, 0, 3, 2]), folded, own).range[0] == 1.0
    )  # another feature's, against this one's tokens
    assert named(own, folded) == {"paris", "london"}
    assert math.isnan(detection([], folded).range[0])


def test_a_fifth_that_the_strongest_use_up_is_judged_by_them():
    """Of a feature in few documents, all are among the strongest."""
    found = detection([Peak(token=n // 2, fifth=n // 2 + 1, strongest=True) for n in range(10)], list("abcde"))
    assert found.fifths == [wilson(2, 2)] * 5


def test_documents_kept_from_training_are_enough_from_twenty_on():
    folded = list("ab")
    trained, kept = peaks_of([0] * 10), peaks_of([1] * 20, reserved=True)
    few, many = detection(trained + kept[:19], folded), detection(trained + kept, folded)
    assert (few.tried, few.tried_reserved) == (29, 19)
    assert (many.tried, many.tried_reserved) == (20, 20)
    assert "20 in documents kept from training" in sentence(many)


def test_an_indexs_examples_know_their_fifth_and_whether_they_were_kept_from_training(wb):
    index, feature = wb.index, int(wb.index.features["documents"].to_numpy().argmax())
    found = peaks(wb, [feature])[feature]
    shown = [e for e in index.examples(feature) if e.value > index.clean_above[feature]]
    assert [peak.token for peak in found] == [int(index.tokens[e.position]) for e in shown]
    assert [peak.fifth for peak in found if not peak.strongest] == [e.band for e in shown if e.band]
    assert {peak.fifth for peak in found if peak.strongest} == {1}
    trained = [e.trained_on for e in shown]
    assert [peak.reserved for peak in found] == [mark == "no" for mark in trained]
    kept = sum(peak.reserved for peak in found)  # in the last blocks, which are held out
    assert wb.detection(feature).tried == (kept if kept >= ENOUGH else len(found))


# ---- text that stays text ----


def point(factor, shift, ratio, loops=0.0):
    figure = (0.0, 0.0, 0.0)
    return SimpleNamespace(
        factor=factor, strength=10 * factor, shift=(shift, shift - 0.1, shift + 0.1),
        perplexity_ratio=(ratio, ratio - 0.1, ratio + 0.1), loops=(loops, *figure[1:]),
    )  # fmt: skip


def test_the_window_is_where_a_feature_moves_the_text_and_the_text_stays_text():
    curve = [point(-1, -2, 1.2), point(0.5, 0.4, 1.1), point(1, 1.5, 1.3), point(1.5, 2, 1.5), point(2, 3, 2.5)]
    found = find_window({"feature": curve}, 0.0)
    assert found.factors == (1, 1.5)
    assert found.strengths == (10, 15)
    assert found.moves == [1, 1.5, 2]
    assert found.fluent == [0.5, 1, 1.5]
    assert "from 1 to 1.5 times its largest activation (10 to 15)" in found.sentence
    # A control of the same strength that moves as much closes it.
    beaten = find_window({"feature": curve, "noise": [point(1, 1.6, 1), point(1.5, 0.1, 1)]}, 0.0)
    assert beaten.factors == (1.5, 1.5)
    # Loops close it too, unless unsteered text loops as well.
    loopy = [point(1, 1.5, 1.0, loops=0.5)]
    assert find_window({"feature": loopy}, 0.0).factors is None
    assert find_window({"feature": loopy}, 0.25).factors == (1, 1)
    none = find_window({"feature": curve[:2]}, 0.0)
    assert none.factors is None
    assert none.sentence.startswith("Window: none.")
    assert "no strength above 0" in find_window({"feature": curve[:1]}, 0.0).sentence


def test_a_controller_leaves_text_that_is_text(planted):
    """The same feature, held so strongly that one token is all that is said."""
    subject = Steerable(feature=0, largest=300.0, matched=tuple(range(2, 21)))
    found = judge(planted, subject, prompts=PROMPTS)
    assert found.moves
    assert not found.fluent
    assert found.verdict == "neither"
    assert "moves the output, which is no longer text" in found.sentence


def test_a_sweeps_record_from_before_text_had_to_stay_text_replays(wb):
    config = StrengthSweepConfig(factors=(1.0,), prompts=PROMPTS, controls=False)
    record = json.loads(wb.sweep(0, config=config, max_new_tokens=2).to_json())
    del record["window"], record["verdict"]["fluent"], record["targets_by"]
    for p in [record["baseline"], *record["series"]["feature"]]:
        del p["perplexity_ratio"]
    found = wb.replay(record)
    assert found.identical
    assert found.environment == ["its verdict is by an earlier rule and is not compared"]


def test_a_sweeps_record_by_the_logit_lens_replays_with_the_tokens_that_it_had(wb):
    config = StrengthSweepConfig(factors=(1.0,), prompts=PROMPTS, controls=False)
    made = wb.sweep(0, config=config, target_tokens=[5, 6], max_new_tokens=2)
    assert (made.target_tokens, made.targets_by) == ([5, 6], "name")
    record = json.loads(made.to_json())
    del record["targets_by"], record["verdict"]["shift_noises"]
    found = wb.replay(record | {"verdict": {"verdict": "both"}})
    assert found.identical
    assert found.environment == ["its verdict is by an earlier rule and is not compared"]
    for tokens, message in (
        ([5, -1], "a target token is -1"),
        (["5"], "a target token is '5'"),
        ([10**6], "not all of tiny"),
    ):
        with pytest.raises(InterpError, match=message):
            wb.replay(record | {"target_tokens": tokens})


def test_loops_and_repetition():
    assert distinct([1, 2, 1, 2], 2) == pytest.approx(2 / 3)
    assert math.isnan(distinct([1], 2))
    assert loops([9, 8, 7, 1, 2, 3, 1, 2, 3, 1, 2, 3])
    assert loops([5] * 8)
    assert not loops([5] * 7)
    assert not loops(list(range(40)))
    assert not loops([1, 2, 3, 1, 2, 3, 1, 2, 4])


# ---- effects ----


def test_effects_equal_one_context_at_a_time(wb):
    found = wb.effects(0, contexts=6, length=20, strength=7.0)
    assert found.contexts == 6
    index, seen = wb.index, []
    for row in found.rows:
        start = max(row["position"] // index.block * index.block + 1, row["position"] + 2 - 20)
        tokens = [0, *index.tokens[start : row["position"] + 1].tolist()]
        plain = logprobs(wb, tokens)[-1]
        held = logprobs(wb, tokens, wb.steered.compile([[Clamp(feature=0, strength=7.0)]]))[-1]
        assert row["clamped_kl"] == pytest.approx(float((held.exp() * (held - plain)).sum()), abs=1e-5)
        assert row["clamped_top_changes"] == (int(held.argmax()) != int(plain.argmax()))
        seen.append(held - plain)
    mean = torch.stack(seen).mean(0)
    assert found.clamped.raised[0][1] == pytest.approx(float(mean.max()), abs=1e-4)
    assert found.ablated.kl[0] > 0
    # Each context has its own control, drawn from features of like density, at the same amount.
    matched = wb.steerable(0).matched
    for row in found.rows:
        start = max(row["position"] // index.block * index.block + 1, row["position"] + 2 - 20)
        tokens = [0, *index.tokens[start : row["position"] + 1].tolist()]
        plain, kls = logprobs(wb, tokens)[-1], []
        for other in matched:
            held = logprobs(wb, tokens, wb.steered.compile([[Clamp(feature=0, strength=7.0, along=other)]]))[-1]
            kls.append(float((held.exp() * (held - plain)).sum()))
        assert min(abs(kl - row["clamped_random features_kl"]) for kl in kls) < 1e-5
    for effect in (found.ablated, found.clamped):
        assert set(effect.controls) == {"random features", "noise"}
        assert all(c.kl[1] <= c.kl[0] <= c.kl[2] and c.kl[0] > 0 for c in effect.controls.values())
    said = found.clamped.sentences()
    assert [sentence.partition(":")[0] for sentence in said[1:]] == [
        "the same along random features",
        "the same along noise",
    ]
    assert "effects on the next token" in found._repr_html_()
    many = wb.effects(0, contexts=70, length=8)
    assert many.contexts == 70
    assert len({row["position"] for row in many.rows}) == 70
    with pytest.raises(InterpError, match="give at least 1 context"):
        wb.effects(0, contexts=0)
    with pytest.raises(InterpError, match="open elsewhere to ask this of elsewhere#3"):
        wb.effects(FeatureRef(sae="elsewhere", feature=3))


# ---- records ----


def test_a_replay_is_identical_or_says_where_it_first_differs(wb):
    run = wb.steer("The capital", [Clamp(feature=3, strength=40.0)], max_new_tokens=8, seed=4, temperature=1.0)
    batch = wb.steer_many(
        ["The capital", "A cat"], [[], [Clamp(feature=3, strength=9.0)]], seeds=[0, 1], max_new_tokens=5
    )
    assert len(batch.outputs) == 8
    assert batch.texts(1)[0] == batch.outputs[2]["text"]
    direction = wb.difference_of_means(["The capital of France is Paris."], ["A cat sat on the mat."])
    small = StrengthSweepConfig(factors=(1.0,), prompts=PROMPTS, verdict=False, controls=False)
    for each in (run, batch, wb.sweep(direction, config=small, max_new_tokens=2)):
        assert wb.replay(json.loads(each.to_json())).identical
    record = json.loads(run.to_json())
    was = record["steered_tokens"][3]
    record["steered_tokens"][3] = 1 if was != 1 else 2
    record["environment"]["versions"]["torch"] = "0.1"
    found = wb.replay(record)
    assert found.difference == f"steered_tokens[3]: {record['steered_tokens'][3]} recorded, {was} now"
    assert "torch 0.1 is" in found.sentence()
    with pytest.raises(InterpError, match="made with tiny on tiny-llama, sae_sha256 0000"):
        wb.replay(record | {"environment": record["environment"] | {"sae_sha256": "0" * 64}})
    with pytest.raises(InterpError, match="is no record of a steering run"):
        wb.replay({"kind": "steer"})
    del record["sampling"]
    with pytest.raises(InterpError, match="the record is not whole: 'sampling'"):
        wb.replay(record)


def test_the_first_difference_is_the_first():
    assert first_difference({"a": [1, 2]}, {"a": [1, 2]}) == ""
    assert first_difference({"a": [1, 2]}, {"a": [1, 3]}) == "a[1]: 2 recorded, 3 now"
    assert first_difference([1], [1, 2], "x") == "x: 1 entries recorded, 2 now"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"factors": ()}, "the sweep has no factors"),
        ({"factors": (1.0, float("nan"))}, "are not all finite"),
        ({"kind": "push"}, "cannot 'push'"),
        ({"targets": ("The capital of France",)}, "tokens for tiny-llama; name single tokens"),
        ({"regex": "("}, "no regular expression RE2 takes"),
        ({"where": "from:99"}, "begins outside the prompt"),
        ({"prompts": ("word " * 900,)}, "reads at most 511"),
    ],
)
def test_a_sweep_that_cannot_be_made_is_refused_before_anything_is_generated(wb, monkeypatch, given, message):
    _ = wb.steered
    monkeypatch.setattr(type(wb.model.module), "forward", lambda *a, **k: pytest.fail("the model ran"))
    with pytest.raises(InterpError, match=message):
        wb.sweep(5, config=StrengthSweepConfig(**{"prompts": PROMPTS, **given}), max_new_tokens=4)


def test_a_feature_that_never_fires_has_no_unit_of_strength(wb):
    with pytest.raises(InterpError, match="never fires in the index"):
        wb.sweep(5, config=StrengthSweepConfig(prompts=PROMPTS), largest=0.0, max_new_tokens=4)


# ---- the command line ----


def test_sweep_record_and_replay_on_the_command_line(monkeypatch, capsys, checkpoint, tmp_path):
    file = tmp_path / "run.json"
    given = ["--sweep", "5", "--strengths=2", "--tokens", 3, "--record", file, "--json"]
    code, out, err = call(monkeypatch, capsys, "steer", checkpoint, "The capital", "A cat", *given)
    assert code == 0, err
    assert json.loads(out)["kind"] == "sweep"
    assert json.loads(file.read_text()) == json.loads(out)
    code, out, err = call(monkeypatch, capsys, "replay", file, "--sae", checkpoint)
    assert (code, out.strip()) == (0, "identical: every recorded token and number came out again."), err
    record = json.loads(file.read_text())
    record["series"]["feature"][0]["tokens"][1][0] += 1
    file.write_text(json.dumps(record))
    code, out, _ = call(monkeypatch, capsys, "replay", file, "--sae", checkpoint)
    assert code == 1
    assert out.startswith("it first differs at series.feature[0].tokens[1][0]")
    code, out, _ = call(
        monkeypatch,
        capsys,
        "steer",
        checkpoint,
        "--sweep",
        "5",
        "--strengths",
        "1",
        "--tokens",
        3,
        "--no-controls",
        "The cat",
    )
    assert code == 0
    assert "random features" not in out


@pytest.fixture
def sides(tmp_path):
    """The files of a contrast, as the option names them."""
    (tmp_path / "up.txt").write_text("The capital of France is Paris.\n")
    (tmp_path / "down.txt").write_text("A cat sat on the mat.\n")
    return f"{tmp_path}/up.txt,{tmp_path}/down.txt"


def test_a_contrast_is_swept_on_the_command_line_like_a_feature(monkeypatch, capsys, checkpoint, sides):
    more = ["--strengths", "1,2", "--tokens", 2, "--target", " cat", "The capital"]
    contrast = ["--sweep", "contrast", "--contrast", f"{sides}=0.5"]
    code, out, err = call(monkeypatch, capsys, "steer", checkpoint, *contrast, *more, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert set(found["series"]) == {"feature", "noise", "sign flipped"}
    assert [point["strength"] for point in found["series"]["feature"]] == [0.5, 1.0]
    assert found["verdict"]["verdict"] in ("controller", "neither")
    code, out, _ = call(monkeypatch, capsys, "steer", checkpoint, "--sweep", "5", *more)
    assert code == 0
    cells = next(re.split("  +", line.strip()) for line in out.splitlines() if "noise" in line)
    figure = r"-?[\d.e-]+ \(-?[\d.e-]+ to -?[\d.e-]+\)"
    assert [bool(re.fullmatch(figure, cell)) for cell in cells] == [False, False, True, True]


def test_a_contrast_of_rows_is_that_of_their_texts(monkeypatch, capsys, checkpoint, wb, tmp_path):
    up, down = "The capital of France\nis Paris.", "A cat sat\non the mat."
    (tmp_path / "up.jsonl").write_text(json.dumps({"id": "r-1", "text": up}))
    (tmp_path / "both.csv").write_text(f'side,words of it\nup,"{up}"\ndown,"{down}"\n')
    right = list(wb.difference_of_means([up], [down]).vector)
    for sets in (f"{tmp_path}/up.jsonl,{tmp_path}/both.csv#side=down", f"{tmp_path}/both.csv#words of it#side=up,down"):
        code, out, err = call(
            monkeypatch, capsys, "steer", checkpoint, "A cat", "--contrast", f"{sets}=2", "--json", "--tokens", 2
        )
        assert code == 0, err
        assert json.loads(out)["edits"][0]["feature"]["vector"] == right
    assert list(wb.difference_of_means(tmp_path / "up.jsonl", f"{tmp_path}/both.csv#side=down").vector) == right


def test_a_contrast_keeps_its_condition_and_is_computed_last(monkeypatch, capsys, checkpoint, sides):
    given = ["steer", checkpoint, "A cat", "--contrast", f"{sides}=0.5", "--tokens", 2]
    code, out, err = call(monkeypatch, capsys, *given, "--when", "5>-1", "--include-masked", "--json")
    assert code == 0, err
    (edit,) = json.loads(out)["edits"]
    assert (edit["when"], edit["include_masked"]) == ({"above": -1.0, "feature": 5}, True)
    monkeypatch.setattr(Workbench, "contrast", lambda *a, **k: pytest.fail("the contrast was computed"))
    for wrong, message in (
        (["--clamp", "99=1"], "no feature 99"),
        (["--add", "3=1e39"], "is beyond 1e+09"),
        (["--where", "from:77"], "begins outside the prompt"),
        (["--when", "self>1"], "the condition must name a feature"),
        (["--top-p", "0"], "top_p is 0.0"),
        (["--sweep", "contrast", "--target", "The capital of"], "name single tokens"),
    ):
        code, out, err = call(monkeypatch, capsys, *given, *wrong)
        assert (code, out) == (2, "")
        assert message in err


def test_json_stays_one_document_when_a_preset_is_saved_and_conflicts_of_a_batch_are_printed(
    monkeypatch, capsys, checkpoint, tmp_path
):
    monkeypatch.setenv("INTERP_HOME", str(tmp_path))
    given = ["steer", checkpoint, "A cat", "--clamp", "5=9", "--ablate", "5", "--tokens", 2]
    code, out, err = call(monkeypatch, capsys, *given, "--save-preset", "mine", "--json")
    assert code == 0
    assert json.loads(out)["kind"] == "steer"
    assert "preset in" in err
    code, out, _ = call(monkeypatch, capsys, *given, "--seed", 1, "--seed", 2)
    assert out.replace("\n", " ").count("Ablate on feature 5 undoes the earlier Clamp 9 on feature 5") == 1


def test_presets_several_prompts_and_effects_on_the_command_line(monkeypatch, capsys, checkpoint, tmp_path):
    monkeypatch.setenv("INTERP_HOME", str(tmp_path))
    (tmp_path / "up.txt").write_text("The capital of France is Paris.\n")
    (tmp_path / "down.txt").write_text("A cat sat on the mat.\n")
    edits = ["--clamp", "5=9", "--orthogonal", "6", "--when", "self>-1", "--save-preset", "mine"]
    code, _, err = call(monkeypatch, capsys, "steer", checkpoint, "The capital", *edits, "--tokens", 3)
    assert code == 0, err
    code, out, _ = call(monkeypatch, capsys, "presets", checkpoint, "mine")
    assert [edit["kind"] for edit in json.loads(out)["edits"]] == ["Clamp", "Orthogonal"]
    more = ["--preset", "mine", "--contrast", f"{tmp_path}/up.txt,{tmp_path}/down.txt=0.5", "--seed", 1, "--seed", 2]
    code, out, err = call(
        monkeypatch,
        capsys,
        "steer",
        checkpoint,
        "The capital",
        "A cat",
        *more,
        "--temperature",
        0.9,
        "--tokens",
        3,
        "--json",
    )
    assert code == 0, err
    assert len(json.loads(out)["outputs"]) == 8
    assert json.loads(out)["variants"][1][2]["feature"]["name"] == "contrast"
    code, out, _ = call(monkeypatch, capsys, "steer", checkpoint, "A cat", "--clamp", "5=9", "--tokens", 6, "--stream")
    streamed, _, rest = out.partition("baseline")
    assert streamed.strip()
    whole = rest.partition("steered")[2].rstrip().rstrip("\ufffd")  # the stream waits for the rest of a cut character
    assert streamed.split() == whole.split()
    code, out, _ = call(monkeypatch, capsys, "effects", checkpoint, 5, "--contexts", 3, "--json")
    assert json.loads(out)["contexts"] == 3
    assert cli.app is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["steer", "SAE", "A cat", "--clamp", "x=1"], "write FEATURE=STRENGTH"),
        (["steer", "SAE", "A cat", "--ablate", "x"], "'x' is no feature"),
        (["steer", "SAE", "A cat", "--add", "1=2", "--where", "from:77"], "begins outside the prompt"),
        (["steer", "SAE", "A cat", "--add", "1=2", "--when", "3"], "write FEATURE>STRENGTH"),
        (["steer", "SAE", "A cat", "--preset", "none"], "no preset 'none'"),
        (["steer", "SAE", "A cat", "--contrast", "a=1"], "is no contrast"),
        (["steer", "SAE", "A cat", "--add", "nowhere#1=2"], "there is no SAE at nowhere"),
        (["steer", "SAE"], "there is no text to continue"),
        (["steer", "SAE", "--sweep", "99"], "no feature 99"),
        (["steer", "SAE", "--sweep", "1", "--strengths", "a"], "--strengths is 'a'"),
        (["steer", "SAE", "--sweep", "1", "--strengths", "inf"], "are not all finite"),
        (
            ["steer", "SAE", "--sweep", "1", "--clamp", "1=2", "--preset", "x", "--unit", "residual", "--stream"],
            "--clamp, --preset, --unit, --stream would do nothing in a sweep",
        ),
        (
            ["steer", "SAE", "--sweep", "1", "--when", "1>2", "--include-masked", "--save-preset", "x"],
            "--when, --include-masked, --save-preset would do nothing in a sweep",
        ),
        (["steer", "SAE", "--sweep", "1", "--contrast", "a,b=1"], "both --sweep contrast and --contrast"),
        (["steer", "SAE", "--sweep", "contrast"], "both --sweep contrast and --contrast"),
        (
            ["steer", "SAE", "A cat", "--strengths", "1", "--regex", "a"],
            "--strengths, --regex would do nothing without",
        ),
        (["steer", "SAE", "A cat", "A dog", "--stream"], "--stream would do nothing with several prompts or seeds"),
        (["steer", "SAE", "A cat", "--seed", "1", "--seed", "2", "--stream"], "--stream would do nothing with several"),
        (["steer", "SAE", "A cat", "--seed", str(2**70)], "give a whole number from"),
        (["effects", "SAE", "99"], "no feature 99"),
        (["effects", "SAE", "9", "--strength", "1e39"], "is beyond 1e+09"),
        (["replay", "none.json"], "there is no file none.json"),
    ],
)
def test_mistakes_in_steering_are_one_sentence_and_exit_code_2(
    monkeypatch, capsys, tmp_path, checkpoint, arguments, message
):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(monkeypatch, capsys, *[checkpoint if a == "SAE" else a for a in arguments])
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


def test_a_direction_needs_no_index(wb):
    direction = Direction(name="d", hook_name=HOOK, vector=tuple(wb.sae.W_dec[3].tolist()), norm_cutoff=1e9)
    found = wb.verdict(direction)
    assert found.verdict in ("controller", "neither")
    assert found.detection == 0.0


def test_the_benchmark_sees_a_position_that_should_have_moved_and_one_that_should_not(wb, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    spec = importlib.util.spec_from_file_location("steering_benchmark", ROOT / "benchmarks" / "steering.py")
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    found = benchmark.exactness(wb, 1)
    assert found["clamp against a slow hook, over the position's norm"] < 1e-5
    should, still = found["positions that should move, over all features"], found["positions that should not"]
    assert should + still == 20 * wb.index.block
    assert min(should, still) > 0
    assert found["of these, changed in any bit"] == 0
    nothing = Edit(HOOK, lambda x, site: x)
    everything = Edit(HOOK, lambda x, site: x + 1)
    monkeypatch.setattr(benchmark, "model_edit", lambda *a, **k: nothing)
    assert benchmark.exactness(wb, 1)["clamp against a slow hook, over the position's norm"] > 1e-3
    monkeypatch.setattr(benchmark, "model_edit", lambda *a, **k: everything)
    assert benchmark.exactness(wb, 1)["of these, changed in any bit"] == still


def test_the_documented_figures_are_the_studys():
    study = json.loads((ROOT / "benchmarks" / "results" / "steering_study.json").read_text())
    docs = (ROOT / "docs" / "steering.md").read_text(encoding="utf-8")
    for name, found in study["verdicts"].items():
        low, high = (100 * end for end in found["interval"])
        assert f"| {name} | {found['count']} | {100 * found['share']:.1f} % ({low:.1f} to {high:.1f}) |" in docs
    moves, fires = study["moves"]["count"], study["fires"]["count"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"{moves} move the output beyond their controls and {fires} fire on tokens" in readme
