"""Do few latents tell what a text is about? k-sparse probing on labelled texts, beside probes that need no dictionary.

1.  `probing_tasks` draws the texts of thirty sets of two labels, `probing_rows` keeps what the model makes of the last token
    of each (sae-probes reads there too), and the dictionary encodes these rows. A last token that is a sink has no latents.
2.  Latents are ranked on the training texts; a probe on the best k is fitted there and scored on the test texts. The same
    is done with neurons, here the coordinates of what the dictionary reads, ranked by what suits them.
3.  Beside them: a probe on all coordinates (dense), the difference of means, and a probe on the words of the texts.
4.  A probe on each latent alone gives the 1-D probe loss: the latent is picked on the training texts.
`probes` has the formulas and their sources. A figure is a mean over tasks, its interval a 95 % bootstrap over tasks, paired
where two things are compared; a task's own interval is DeLong's, over its test texts. Whether a task's best latent is better
than its best neuron is DeLong's test, one-sided, with Benjamini and Hochberg's correction over the tasks.

Each text is read by the model once, whatever is measured on it (`probing_each` for several dictionaries).

Axes    N text, M test text, F d_sae, D d_in, T task.

Source  Kantamneni et al. 2025, "Are Sparse Autoencoders Useful? A Case Study in Sparse Probing"; Gurnee et al. 2023, "Finding
        neurons in a haystack" (k-sparse probing); Gao et al. 2024, "Scaling and evaluating sparse autoencoders" (1-D probe loss).
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.codes import encode_rows, hooks_read
from interp.corpus.sources.installed import version
from interp.evals import probes
from interp.evals.figure import Better, Figure, Section
from interp.evals.probing_rows import as_read, kept_baselines, last_rows
from interp.evals.probing_tasks import Labelled, Plan, kind_of, read_task
from interp.mask import Mask
from interp.models import Model
from interp.progress import bar
from interp.sae.dictionary import Dictionary, join
from interp.statistics import benjamini_hochberg, bootstrap

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

FALSE_DISCOVERIES = 0.05
"""Of the tasks said to have a latent that is better than the best neuron, the share that may be wrong."""
Cutoffs = float | Mapping[str, float]
"""Norms above which a position is a sink: of the first hook point that is read, or by hook point (`Card.mask`)."""


def probing(model: Model, dictionary: Dictionary, *, norm_cutoff: Cutoffs, plan: Plan | None = None) -> Section:
    """How well few of the dictionary's latents tell labels apart, beside neurons and dense probes: a row a task.

    Raises InterpError when `sae-probes` is not installed, for a set that it has not or that is too small, when the model
    lacks a hook point, and when the dictionary was made for another width.
    """
    return probing_each(model, [(dictionary, norm_cutoff)], plan=plan)[0]


def probing_each(
    model: Model, dictionaries: Sequence[tuple[Dictionary, Cutoffs]], *, plan: Plan | None = None
) -> list[Section]:
    """`probing` of several dictionaries, in their order; where they read different hook points, one pass has them all.

    Raises InterpError as `probing` does.
    """
    plan = plan or Plan()
    subjects = [_Subject(dictionary, tuple(hooks_read(model, dictionary)), cut) for dictionary, cut in dictionaries]
    hooks = list(dict.fromkeys(hook for subject in subjects for hook in subject.hooks))
    tasks = [
        read_task(name, plan) for name in plan.tasks
    ]  # so that a set that is missing is said before the first pass
    with bar("probe", len(tasks), "tasks") as step:
        for labelled in tasks:
            began = time.perf_counter()
            x = last_rows(model, hooks, labelled, plan)
            shared = (time.perf_counter() - began) / max(len(subjects), 1)
            for subject in subjects:
                subject.measure(model, labelled, x, plan, shared)
            step(1, note=labelled.task)
    return [_section(model, subject, plan) for subject in subjects]


@dataclass(eq=False)
class _Subject:
    """A dictionary, and what was found of it so far."""

    dictionary: Dictionary
    hooks: tuple[str, ...]
    norm_cutoff: Cutoffs
    rows: list[dict[str, Any]] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def measure(self, model: Model, labelled: Labelled, x: Mapping[str, Tensor], plan: Plan, shared: float) -> None:
        """Add a task's row; `shared` are the seconds that reading its texts took for this dictionary."""
        began = time.perf_counter()
        x_ND = join(self.dictionary, {hook: x[hook] for hook in self.hooks})
        cutoffs = self.norm_cutoff if isinstance(self.norm_cutoff, Mapping) else {self.hooks[0]: self.norm_cutoff}
        counted_N = Mask(cutoffs).counted(x, torch.ones(len(x_ND), dtype=torch.bool))
        z_NF = latents_of(self.dictionary, x_ND, counted_N)
        read = as_read(model, labelled, plan)
        beside = kept_baselines(
            model, self.hooks, labelled, plan, read.digest, lambda: baselines(x_ND.numpy(), labelled, plan.ks)
        )
        self.rows.append(
            {
                "task": labelled.task,
                "kind": kind_of(labelled.task),
                "train": labelled.train,
                "test": len(labelled.texts) - labelled.train,
                "tokens": sum(read.lengths),
                "cut_short": sum(length >= plan.tokens for length in read.lengths),
                "sinks": int((~counted_N).sum()),
                **of_latents(z_NF, labelled, plan.ks, np.array(beside["neuron_odds"])),
                **{name: value for name, value in beside.items() if name != "neuron_odds"},
            }
        )
        self.digests.append(read.digest)
        self.seconds += time.perf_counter() - began + shared


def latents_of(dictionary: Dictionary, x_ND: Float[Tensor, "N D"], counted_N: Tensor) -> "csr_matrix":
    """The latents of each row, texts × latents; rows that do not count have none."""
    from scipy.sparse import csr_matrix

    entries = encode_rows(dictionary, x_ND, counted_N)
    return csr_matrix((entries.value_A, (entries.row_A, entries.feature_A)), shape=(len(x_ND), dictionary.d_sae))


def of_latents(
    z_NF: "csr_matrix", labelled: Labelled, ks: Sequence[int], neuron_odds: Float[np.ndarray, " M"]
) -> dict[str, Any]:
    """What the latents of a task's texts come to; `neuron_odds` is what the best neuron's probe says of the test texts."""
    split, label_N = labelled.train, labelled.label_N
    train, test, known, asked = z_NF[:split], z_NF[split:], label_N[:split], label_N[split:]
    best = probes.rank_latents(train, known, max(ks))
    found: dict[str, Any] = {"searched": int((np.diff(train.tocsc().indptr) > 0).sum()), "latents": best.tolist()}
    for k in ks:
        odds, _ = probes.fit(train[:, best[:k]].toarray(), known, test[:, best[:k]].toarray())
        found |= _named(probes.score(asked, odds), f"_k{k}")
        if k == 1:
            found["auroc_k1_low"], found["auroc_k1_high"] = probes.auroc_interval(asked, odds)
            found["better_p"] = probes.better_p(asked, odds, neuron_odds)
    each = probes.fit_each(train, known)
    latent = int(each.loss_F.argmin())
    return found | {"probe_loss": each.loss(test, asked, latent), "probe_loss_latent": latent}


def baselines(x_ND: Float[np.ndarray, "N D"], labelled: Labelled, ks: Sequence[int]) -> dict[str, Any]:
    """What probes without a dictionary come to on a task's texts."""
    from scipy.sparse import csr_matrix

    split, label_N = labelled.train, labelled.label_N
    known, asked = label_N[:split], label_N[split:]
    raw_train, raw_test = x_ND[:split].astype(np.float64), x_ND[split:].astype(np.float64)
    train, test = probes.standardised(raw_train, raw_test)
    best = probes.rank_neurons(raw_train, known, max(*ks, 1))
    found: dict[str, Any] = {"neurons": best.tolist()}
    for k in ks:
        found |= _named(
            probes.score(asked, probes.fit(train[:, best[:k]], known, test[:, best[:k]])[0]), f"_neurons_k{k}"
        )
    odds, _ = probes.fit(train[:, best[:1]], known, test[:, best[:1]])
    found["neuron_odds"] = odds.tolist()
    found |= _named(probes.score(asked, probes.fit(train, known, test, probes.DENSE_CS)[0]), "_dense")
    found |= _named(probes.score(asked, probes.means_odds(raw_train, known, raw_test)), "_means")
    texts = list(labelled.texts)
    found |= _named(probes.score(asked, probes.words_odds(texts[:split], known, texts[split:])), "_words")
    each = probes.fit_each(csr_matrix(train), known)
    neuron = int(each.loss_F.argmin())
    return found | {"probe_loss_neurons": each.loss(csr_matrix(test), asked, neuron)}


def _named(scores: probes.Scores, end: str) -> dict[str, float]:
    return {f"auroc{end}": scores.auroc, f"accuracy{end}": scores.accuracy, f"f1{end}": scores.f1}


_MEASURES = {"auroc": "AUROC", "accuracy": "accuracy", "f1": "weighted F1"}
_BESIDE = {
    "dense": "a probe on all coordinates of what the dictionary reads",
    "means": "the difference of means",
    "words": "a probe on the words of the texts, without any model",
}


def _section(model: Model, subject: _Subject, plan: Plan) -> Section:
    means = [_mean(*each, seed=plan.seed) for each in _columns(subject.rows, plan.ks)]
    return Section(
        name="probing",
        title="Sparse probing",
        figures=(*means, *_counts(subject.rows, subject.dictionary.d_sae)),
        rows=tuple(subject.rows),
        of=_of(model, subject, plan),
        seconds=subject.seconds,
    )


def _columns(
    rows: list[dict[str, Any]], ks: Sequence[int]
) -> Iterator[tuple[str, str, Float[np.ndarray, " T"], Better]]:
    """(name, what it is, its value in each task, which way it is better) of every figure that is a mean over tasks."""

    def column(name: str) -> np.ndarray:
        return np.array([row[name] for row in rows], dtype=np.float64)

    latents = {k: f"the best {k} latents" if k > 1 else "the best latent" for k in ks}
    neurons = {k: f"the best {k} neurons" if k > 1 else "the best neuron" for k in ks}
    for k in ks:
        for name, word in _MEASURES.items():
            yield f"{name}_k{k}", f"{word} of a probe on {latents[k]}", column(f"{name}_k{k}"), "higher"
    for k in ks:
        yield f"auroc_neurons_k{k}", f"AUROC of a probe on {neurons[k]}", column(f"auroc_neurons_k{k}"), ""
    for name, words in _BESIDE.items():
        yield f"auroc_{name}", f"AUROC of {words}", column(f"auroc_{name}"), ""
    for k in ks:
        less = column(f"auroc_k{k}") - column(f"auroc_neurons_k{k}")
        yield f"less_neurons_k{k}", f"AUROC of {latents[k]} less that of {neurons[k]}", less, "higher"
    for k in ks:
        less = column(f"auroc_k{k}") - column("auroc_dense")
        yield f"less_dense_k{k}", f"AUROC of {latents[k]} less that of the dense probe", less, "higher"
    loss, of_neurons = column("probe_loss"), column("probe_loss_neurons")
    yield "probe_loss", "1-D probe loss in nats (a coin has 0.693)", loss, "lower"
    yield "probe_loss_neurons", "1-D probe loss of neurons in nats", of_neurons, ""
    yield "probe_loss_less_neurons", "1-D probe loss less that of neurons in nats", loss - of_neurons, "lower"


def _mean(name: str, says: str, values_T: Float[np.ndarray, " T"], better: Better, *, seed: int) -> Figure:
    value, low, high = bootstrap(values_T, seed)
    interval = (low, high) if len(values_T) > 1 else None
    return Figure(name=name, says=says, value=value, interval=interval, n=len(values_T), unit="tasks", better=better)


def _counts(rows: list[dict[str, Any]], d_sae: int) -> list[Figure]:
    """How many tasks have a latent that is surely better than the best neuron, and how many latents it was picked from.

    Each row gets its q-value.
    """
    searched = float(np.median([row["searched"] for row in rows]))
    found = [
        Figure(
            name="searched",
            says=f"latents that fire on a task's training texts, of {d_sae:,}, among which its best were picked (median)",
            value=searched,
            n=len(rows),
            unit="tasks",
        )
    ]
    if "better_p" in rows[0]:
        q = benjamini_hochberg(np.array([row["better_p"] for row in rows], dtype=np.float64))
        for row, each in zip(rows, q, strict=True):
            row["better_q"] = float(each)
        found.append(
            Figure(
                name="tasks_better_than_neuron",
                says=f"tasks whose best latent has a larger AUROC than the best neuron at a false discovery rate of {FALSE_DISCOVERIES:.0%}",
                value=float((q <= FALSE_DISCOVERIES).sum()),
                n=len(rows),
                unit="tasks",
                better="higher",
            )
        )
    return found


def _of(model: Model, subject: _Subject, plan: Plan) -> dict[str, Any]:
    return {
        "dictionary": subject.dictionary.name,
        "model": model.name,
        "fingerprint": model.fingerprint(),
        "dtype": model.dtype_name,
        "hooks": list(subject.hooks),
        "position": "last token",
        "sets": version("sae-probes"),
        "tokens_sha256": dict(zip(plan.tasks, subject.digests, strict=True)),
        "train": plan.train,
        "test": plan.test,
        "tokens": plan.tokens,
        "ks": list(plan.ks),
        "seed": plan.seed,
    }
