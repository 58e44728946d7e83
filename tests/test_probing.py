"""Sparse probing: planted latents, shuffled labels, picking that must not leak, sae-probes' own code, and real sets on a tiny model."""

import ast
import csv
import inspect
import io
import json
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import zstandard
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score
from sklearn.model_selection import LeavePOut, StratifiedKFold

from interp import places
from interp.activations import ActivationStore
from interp.evals import probes
from interp.evals.figure import Section
from interp.evals.measures import Setting, find_measures
from interp.evals.probing import baselines, of_latents, probing, probing_each
from interp.evals.probing_rows import folder, last_rows
from interp.evals.probing_tasks import KINDS, TASKS, Labelled, Plan, read_task
from interp.mask import SINK_RATIO
from interp.models import Model
from interp.sae import SAE
from interp.types import InterpError

TRAIN, TEST = 256, 200
TWO = Plan(tasks=("119_us_state_TX", "87_glue_cola"), train=64, test=64, tokens=8, ks=(1, 3))


def labelled(seed: int = 0) -> Labelled:
    draw = np.random.default_rng(seed)
    label_N = np.concatenate([draw.permutation(count) < count // 2 for count in (TRAIN, TEST)])
    texts = tuple(
        f"{'good' if draw.random() < (0.9 if label else 0.1) else 'bad'} {i}" for i, label in enumerate(label_N)
    )
    return Labelled(task="planted", texts=texts, label_N=label_N, meanings=("no", "yes"), train=TRAIN)


def codes(latents: int, share: float = 0.02, seed: int = 1) -> np.ndarray:
    """Latents that know nothing of any label."""
    draw = np.random.default_rng(seed)
    return (draw.random((TRAIN + TEST, latents)) < share) * draw.gamma(2.0, 1.0, (TRAIN + TEST, latents))


def neuron_odds(seed: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=TEST)


def test_one_latent_that_is_the_label_is_found_and_parts_the_texts_without_a_mistake():
    task, z_NF = labelled(), codes(300)
    z_NF[:, 17] = 3.0 * task.label_N
    found = of_latents(csr_matrix(z_NF), task, (1, 5), neuron_odds())
    assert found["latents"][0] == found["probe_loss_latent"] == 17
    assert found["auroc_k1"] == found["accuracy_k1"] == found["f1_k1"] == 1.0
    assert found["probe_loss"] < 0.05
    assert found["better_p"] < 1e-6


def test_a_latent_that_is_the_label_but_for_a_tenth_has_the_area_of_that_channel():
    task, z_NF = labelled(), codes(300)
    wrong_N = np.arange(TRAIN + TEST) % 10 == 0
    z_NF[:, 17] = 2.0 * (task.label_N ^ wrong_N)
    found = of_latents(csr_matrix(z_NF), task, (1,), neuron_odds())
    asked, said = task.label_N[TRAIN:], (task.label_N ^ wrong_N)[TRAIN:]
    assert found["accuracy_k1"] == pytest.approx(accuracy_score(asked, said))
    assert found["auroc_k1"] == pytest.approx(roc_auc_score(asked, said))
    low, high = found["auroc_k1_low"], found["auroc_k1_high"]
    assert low < 0.9 < high < 1.0


def test_picking_the_best_of_9216_random_latents_on_the_training_texts_leaves_nothing_on_the_test_texts():
    z_NF = csr_matrix(codes(9216))
    found = [of_latents(z_NF, labelled(seed), (1, 5), neuron_odds()) for seed in range(6)]
    area = np.array([[one["auroc_k1"], one["auroc_k5"]] for one in found])
    # A test AUROC of nothing has a standard deviation of at most 1 / sqrt(12 * 50).
    assert np.abs(area.mean(0) - 0.5).max() < 3 * 0.041 / np.sqrt(6)
    assert min(one["probe_loss"] for one in found) > np.log(2) - 0.02
    assert all(one["searched"] > 9_000 for one in found)
    # While on the texts that they were picked by, the same latents would look better than nothing.
    task = labelled()
    each = probes.fit_each(z_NF[:TRAIN], task.label_N[:TRAIN])
    assert each.loss_F.min() < np.log(2) - 0.01


def test_shuffled_labels_leave_every_probe_at_a_half():
    draw = np.random.default_rng(5)
    area = []
    for seed in range(5):
        task = labelled(seed)
        task = replace(task, texts=tuple(f"word{draw.integers(40)} word{draw.integers(40)}" for _ in task.texts))
        found = baselines(draw.normal(size=(TRAIN + TEST, 20)).astype(np.float32), task, (1, 2))
        area.append([found[f"auroc_{name}"] for name in ("dense", "means", "words", "neurons_k1", "neurons_k2")])
    assert np.abs(np.mean(area, axis=0) - 0.5).max() < 3 * 0.041 / np.sqrt(5)


def test_baselines_find_what_was_planted_in_coordinates_and_in_words():
    task, draw = labelled(), np.random.default_rng(3)
    x_ND = draw.normal(size=(TRAIN + TEST, 20)).astype(np.float32)
    x_ND[:, 4] = 50 + 0.1 * draw.normal(size=len(x_ND)) + 0.5 * task.label_N  # far from 0, where |mean| would drown it
    x_ND[:, 9] += task.label_N
    found = baselines(x_ND, task, (1, 2))
    assert found["neurons"] == [4, 9]
    assert found["auroc_neurons_k1"] > 0.98
    assert found["auroc_dense"] > 0.98
    assert 0.85 < found["auroc_words"] < 0.97
    assert found["accuracy_words"] == pytest.approx(0.9, abs=0.05)
    # Without standardising, the mean difference leans on the coordinate with the larger spread.
    assert 0.7 < found["auroc_means"] < 0.95
    assert found["probe_loss_neurons"] < 0.2


def test_figures_on_labels_are_those_of_scikit_learn():
    draw = np.random.default_rng(0)
    label_N, odds_N = draw.random(101) < 0.3, draw.normal(size=101).round(1)
    scores = probes.score(label_N, odds_N)
    assert scores.auroc == pytest.approx(roc_auc_score(label_N, odds_N), abs=1e-12)
    assert scores.accuracy == accuracy_score(label_N, odds_N > 0)
    assert scores.f1 == pytest.approx(f1_score(label_N, odds_N > 0, average="weighted"), abs=1e-12)


def test_each_latents_own_probe_is_the_minimum_of_its_objective():
    z_NF, label_N = codes(40, share=0.3), labelled().label_N
    each = probes.fit_each(csr_matrix(z_NF), label_N)
    scale_F = np.sqrt((z_NF**2).sum(0) / (z_NF > 0).sum(0))

    def objective(latent: int, w: float, b: float) -> float:
        odds = w * z_NF[:, latent] / scale_F[latent] + b
        return float(np.logaddexp(0, np.where(label_N, -odds, odds)).sum() + (w * w + b * b) / (2 * probes.PRIOR))

    for latent in range(40):
        w, b = each.weight_F[latent] * scale_F[latent], each.bias_F[latent]
        least = objective(latent, w, b)
        assert all(
            objective(latent, w + dw, b + db) > least for dw, db in ((1e-3, 0), (-1e-3, 0), (0, 1e-3), (0, -1e-3))
        )
        assert each.loss(csr_matrix(z_NF), label_N, latent) == pytest.approx(each.loss_F[latent])
        assert each.loss_F[latent] * len(label_N) + (w * w + b * b) / (2 * probes.PRIOR) == pytest.approx(least)


def test_the_paired_test_of_two_areas_holds_its_level_and_sees_a_difference():
    draw, label_N = np.random.default_rng(0), np.arange(200) % 2 == 0
    same = [
        probes.better_p(label_N, label_N + draw.normal(size=200) * 2, label_N + draw.normal(size=200) * 2)
        for _ in range(300)
    ]
    assert 0.02 < np.mean(np.array(same) < 0.05) < 0.09
    assert probes.better_p(label_N, label_N + draw.normal(size=200) / 2, label_N + draw.normal(size=200) * 3) < 1e-3
    score = draw.normal(size=200)
    assert probes.better_p(label_N, score, 2 * score + 1) == 1.0


# ---- sae-probes' own code ----


class Results(NamedTuple):
    metrics: Any
    classifier: Any
    scaler: Any


def peer(*names: str) -> dict[str, Any]:
    """Functions of sae-probes 0.4.2 as they stand in its files; its modules need packages that ours cannot live beside."""
    space: dict[str, Any] = {
        "np": np, "torch": torch, "LogisticRegression": LogisticRegression, "roc_auc_score": roc_auc_score,
        "f1_score": f1_score, "accuracy_score": accuracy_score, "LeavePOut": LeavePOut, "StratifiedKFold": StratifiedKFold,
        "Callable": Any, "BestClassifierResults": Results, "Metrics": lambda **values: values,
    }  # fmt: skip
    for file in ("run_sae_evals", "utils_training"):
        tree = ast.parse((places.package_folder("sae_probes") / f"{file}.py").read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name in names:
                node.returns = None
                for argument in (*node.args.args, *node.args.kwonlyargs):
                    argument.annotation = None
                exec(compile(ast.Module([node], []), file, "exec"), space)
    return {name: space[name] for name in names}


def test_ranking_and_probes_are_those_of_sae_probes_own_code():
    theirs = peer("mean_act_normalization", "get_sorted_indices", "get_cv", "get_splits", "find_best_reg")
    assert "penalty" in inspect.signature(theirs["find_best_reg"]).parameters
    task, z_NF = labelled(), codes(120, share=0.2)
    for latent, gain in ((3, 1.5), (50, 0.8), (77, 0.5)):
        z_NF[:, latent] += gain * task.label_N * (np.random.default_rng(latent).random(len(z_NF)) < 0.6)
    train, test = torch.from_numpy(z_NF[:TRAIN]), torch.from_numpy(z_NF[TRAIN:])
    known, asked = task.label_N[:TRAIN], task.label_N[TRAIN:]
    order = theirs["get_sorted_indices"](train, torch.from_numpy(known.astype(int)), theirs["mean_act_normalization"])
    ours = probes.rank_latents(csr_matrix(z_NF[:TRAIN]), known, 16)
    assert ours.tolist() == order[:16].tolist()
    for k in (1, 2, 5, 16):
        some = order[:k].numpy()
        result = theirs["find_best_reg"](
            train[:, some].numpy(), known.astype(int), test[:, some].numpy(), asked.astype(int), penalty="l2", seed=42
        ).metrics
        mine = probes.score(asked, probes.fit(z_NF[:TRAIN][:, ours[:k]], known, z_NF[TRAIN:][:, ours[:k]])[0])
        assert mine.auroc == pytest.approx(result["test_auc"], abs=1e-4)
        assert mine.accuracy == pytest.approx(result["test_acc"], abs=1e-9)
        assert mine.f1 == pytest.approx(result["test_f1"], abs=1e-9)


# ---- the sets ----


def test_a_task_has_each_text_once_no_text_under_both_labels_and_as_many_of_each_label():
    task = read_task("130_temp_cat_Frequency", Plan(train=64, test=64))  # 691 of its 1,062 rows are there already
    assert len(set(task.texts)) == len(task.texts) == 128
    for part in (task.label_N[:64], task.label_N[64:]):
        assert part.sum() == 32
        assert np.abs(np.diff(part.astype(int))).sum() > 1  # mixed
    path = places.package_folder("sae_probes") / "data" / "cleaned_data" / "130_temp_cat_Frequency.csv.zst"
    with path.open("rb") as raw:
        rows = list(csv.DictReader(io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(raw), encoding="utf-8")))
    label = {row["prompt"].strip(): row["target"] for row in rows}
    assert all((label[text] == task.meanings[1]) == bool(y) for text, y in zip(task.texts, task.label_N, strict=True))
    other = read_task("130_temp_cat_Frequency", Plan(train=64, test=64, seed=1))
    assert set(other.texts) != set(task.texts)


def test_the_thirty_tasks_are_in_the_package_with_enough_texts_three_of_each_kind():
    assert len(set(TASKS)) == len(TASKS) == 30
    assert {len(names) for names in KINDS.values()} == {3}
    for name in TASKS:
        task = read_task(name, Plan())
        assert (len(task.texts), task.train, task.label_N.sum()) == (800, 512, 400)


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (
            {"tasks": ("119_us_state_TY",)},
            "no labelled set in sae-probes: '119_us_state_TY': did you mean 119_us_state_TX",
        ),
        ({"tasks": ("119_us_state_TX",), "train": 2000}, "422 distinct texts labelled 1, and 1,144 are asked for"),
        ({"tasks": ("13_us_state",)}, "has .* labels, and a probe tells two apart"),
        ({"tasks": ()}, "name at least one labelled set"),
        ({"train": 33}, "train is an even number of texts, 32 or more; it was 33"),
        ({"ks": (0,)}, "ks are numbers of latents, 1 or more"),
    ],
)
def test_what_cannot_be_probed_is_said_in_a_sentence(plan: dict[str, Any], said: str):
    with pytest.raises(InterpError, match=said):
        read_task((asked := Plan(**plan)).tasks[0], asked)


def test_without_the_package_the_command_that_installs_it_is_named(monkeypatch):
    monkeypatch.setattr(places.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InterpError, match="'sae_probes' is not installed; `interp setup` installs"):
        read_task(TASKS[0], Plan())


# ---- the whole measure ----


@pytest.fixture(scope="module")
def dictionaries(tiny: Model) -> list[SAE]:
    made = []
    for seed, block in ((0, 1), (1, 1), (2, 0)):
        draw = torch.Generator().manual_seed(seed)
        W = torch.nn.functional.normalize(torch.randn(48, 16, generator=draw), dim=1)
        made.append(untrained(W, f"blocks.{block}.hook_resid_post"))
    return made


def untrained(W_dec: torch.Tensor, hook: str) -> SAE:
    features, width = W_dec.shape
    zero = {"b_enc": torch.zeros(features), "b_dec": torch.zeros(width)}
    return SAE(W_enc=W_dec.T.contiguous(), W_dec=W_dec, k=6, reads=hook, **zero)


def test_the_measure_reads_each_text_once_for_all_dictionaries_and_never_again(
    tiny: Model, dictionaries: list[SAE], monkeypatch, tmp_path
):
    monkeypatch.setenv("INTERP_HOME", str(tmp_path))
    sections = probing_each(tiny, [(sae, SINK_RATIO * 100.0) for sae in dictionaries], plan=TWO)
    kept = sorted(path.relative_to(folder(tiny, TWO)).as_posix() for path in folder(tiny, TWO).rglob("*.safetensors"))
    assert kept == [f"blocks.{b}.hook_resid_post/{task}.safetensors" for b in (0, 1) for task in sorted(TWO.tasks)]
    check(sections[0])

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the model ran")

    monkeypatch.setattr(Model, "run", refuse)
    again = probing(tiny, dictionaries[0], norm_cutoff=SINK_RATIO * 100.0, plan=TWO)
    assert (again.figures, again.rows, again.of) == (sections[0].figures, sections[0].rows, sections[0].of)
    # One task's file is lost, another is damaged: these alone are made again.
    damaged = folder(tiny, TWO) / "blocks.0.hook_resid_post" / "87_glue_cola.safetensors"
    damaged.write_bytes(b"nothing")
    probing(tiny, dictionaries[1], norm_cutoff=1e9, plan=TWO)
    with pytest.raises(AssertionError, match="the model ran"):
        probing(tiny, dictionaries[2], norm_cutoff=1e9, plan=TWO)


def check(section: Section) -> None:
    names = [figure.name for figure in section.figures]
    assert len(set(names)) == len(names)
    for row in section.rows:
        assert (row["train"], row["test"]) == (64, 64)
        assert row["searched"] <= 48
        assert 0 <= row["auroc_k1"] <= 1
    mean = section["auroc_k1"]
    assert mean.value == pytest.approx(np.mean([row["auroc_k1"] for row in section.rows]))
    assert (mean.n, mean.unit) == (2, "tasks")
    assert mean.interval is not None
    assert section["less_dense_k3"].value == pytest.approx(section["auroc_k3"].value - section["auroc_dense"].value)
    assert Section.from_dict(json.loads(json.dumps(section.to_dict()))) == section


def test_the_row_of_a_text_is_what_the_model_makes_of_its_last_token_that_is_read(tiny: Model, monkeypatch, tmp_path):
    monkeypatch.setenv("INTERP_HOME", str(tmp_path))
    task, hook = read_task(TWO.tasks[1], TWO), "blocks.1.hook_resid_post"
    x = last_rows(tiny, [hook], task, TWO)
    for i in (0, 40, 127):
        ids = [tiny.separator, *tiny.tokenize(task.texts[i])[: TWO.tokens]]
        alone = tiny.run(torch.tensor([ids]), [hook]).activations[hook][0, -1]
        torch.testing.assert_close(x[hook][i], alone, rtol=1e-4, atol=1e-5)


def test_a_sink_has_no_latents_and_is_counted(tiny: Model, dictionaries: list[SAE], monkeypatch, tmp_path):
    monkeypatch.setenv("INTERP_HOME", str(tmp_path))
    section = probing(tiny, dictionaries[0], norm_cutoff=1e-6, plan=replace(TWO, tasks=TWO.tasks[:1]))
    assert section.rows[0]["sinks"] == 128
    assert section["searched"].value == 0
    assert section["auroc_k1"].value == 0.5
    assert section["auroc_k1"].interval is None  # of a single task


def test_the_report_makes_the_section_and_its_headline_is_there(
    tiny: Model, dictionaries: list[SAE], store: ActivationStore, monkeypatch, tmp_path
):
    monkeypatch.setenv("INTERP_HOME", str(tmp_path))
    one = replace(TWO, tasks=TWO.tasks[:1], ks=Plan().ks)
    monkeypatch.setattr(
        "interp.evals.measures.Plan", lambda seed: replace(one, seed=seed)
    )  # thirty would take a minute
    (measure,) = find_measures(("probing",))
    cutoff = {"blocks.1.hook_resid_post": 1e9}
    section = measure.make(Setting(model=tiny, sae=dictionaries[0], blocks=store.blocks, norm_cutoff=cutoff, seed=3))
    assert (section.name, section.title, section.of["seed"]) == (measure.name, measure.title, 3)
    assert set(measure.headline) <= {figure.name for figure in section.figures}
