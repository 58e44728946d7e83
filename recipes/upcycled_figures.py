"""Figures of the upcycled mixture: losses and shares by language, what tells where tokens go, and how they are written down.

Axes    D document, E expert, P counted position, F feature.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch.nn.functional import cross_entropy

from interp import places
from interp.corpus import TokenBlocks
from interp.evals.routing import Pairs, Routing, halves, measure_features
from interp.models import Model
from interp.progress import bar
from interp.statistics import bootstrap_difference, bootstrap_ratio

AT_ONCE = 8
SHOWN = 8
"""Tokens that a feature is shown by."""


@torch.inference_mode()
def measured(model: Model, blocks: TokenBlocks, routers: Sequence[str]) -> dict[str, Any]:
    """By document: the sum of the losses of its tokens, how many those are, and by router how many of its positions each expert was
    sent."""
    count, real_NT = len(blocks.documents), blocks.real_NT()
    loss_D, tokens_D = np.zeros(count), np.zeros(count)
    sent: dict[str, np.ndarray] = {}
    with bar("measuring", blocks.positions) as advance:
        for first in range(0, len(blocks.tokens_NT), AT_ONCE):
            some = slice(first, first + AT_ONCE)
            tokens, real, document = blocks.tokens_NT[some], real_NT[some], blocks.document_NT[some]
            run = model.run(tokens, routers, logits=True)
            assert run.logits is not None
            said = real[:, 1:]
            losses = cross_entropy(run.logits[:, :-1].float().transpose(1, 2), tokens[:, 1:], reduction="none")[said]
            own = document[:, 1:][said].numpy()
            loss_D += np.bincount(own, losses.double().numpy(), count)
            tokens_D += np.bincount(own, minlength=count)
            for router in routers:
                logits = run.activations[router][real]
                chosen = torch.zeros_like(logits).scatter(1, logits.topk(top_k(model)).indices, 1).numpy()
                here = np.stack([np.bincount(document[real].numpy(), one, count) for one in chosen.T], 1)
                sent[router] = sent.get(router, 0) + here
            advance(tokens.numel(), "")
    return {"loss": loss_D.tolist(), "tokens": tokens_D.tolist(), "sent": {r: s.tolist() for r, s in sent.items()}}


def top_k(model: Model) -> int:
    """Experts that a token is sent to."""
    return int(model.module.config.num_experts_per_tok)  # type: ignore[union-attr, arg-type]


# ---- what is kept ----


def keep_routing(text: Routing, null_PE: np.ndarray, sources: Sequence[str], file: Path) -> None:
    """In a file of arrays, with where another router sends the same positions, and the source of each document."""
    x = text.activation_PF.tocsr()
    with places.whole_file(file) as partial, partial.open("wb") as out:
        np.savez_compressed(
            out, layer=text.layer, after=text.sent_PE, before=null_PE, token=text.token_P, previous=text.before_P,
            document=text.document_P, position=text.position_P, sources=np.array(sources),
            data=x.data, indices=x.indices, indptr=x.indptr, shape=x.shape,
        )  # fmt: skip


def kept_routing(file: Path) -> tuple[dict[str, Routing], list[str]]:
    """What was kept: the routing by the routers after training and before, and the source of each document."""
    with np.load(file, allow_pickle=False) as kept:
        x = csr_matrix((kept["data"], kept["indices"], kept["indptr"]), shape=kept["shape"])
        known = [kept[name] for name in ("token", "previous", "document")]
        layer, position = int(kept["layer"]), kept["position"]
        texts = {which: Routing(layer, kept[which], *known, x, position) for which in ("after", "before")}
        return texts, kept["sources"].tolist()


def source_of(text: Routing, sources: Sequence[str], names: Mapping[str, str]) -> np.ndarray:
    """(P, language): of which language each position is."""
    own = np.array(sources)[text.document_P]
    return np.stack([own == source for source in names.values()], 1)


def by_language(
    text: Routing, sources: Sequence[str], names: Mapping[str, str], strength: float, seed: int
) -> list[dict[str, Any]]:
    """For each expert and language, what `measure_features` says of the language as of a feature, on the measured half."""
    one, other = halves(text, seed)
    experts = text.sent_PE.shape[1]
    pairs = [(expert, number) for expert in range(experts) for number in range(len(names))]
    column = csr_matrix(source_of(other, sources, names).astype(np.float32))
    rows = measure_features(other, column, pairs, Pairs(one, strength).by_pair(other))
    return [row | {"language": list(names)[row["feature"]]} for row in rows]


def described(
    text: Routing,
    sources: Sequence[str],
    names: Mapping[str, str],
    features: Iterable[int],
    words: Sequence[str],
    seed: int,
) -> dict[str, Any]:
    """On which tokens and in which languages features fire in the measured half."""
    _, other = halves(text, seed)
    language, column = source_of(other, sources, names), other.activation_PF.tocsc()
    found = {}
    for feature in sorted(set(features)):
        x_P = np.asarray(column[:, [feature]].todense()).ravel()
        token, times = np.unique(other.token_P[x_P > 0], return_counts=True)
        most = np.argsort(-times, kind="stable")[:SHOWN]
        found[str(feature)] = {
            "density": float((x_P > 0).mean()),
            "languages": dict(zip(names, language[x_P > 0].mean(0).tolist(), strict=True)),
            "tokens": {words[token[i]]: int(times[i]) for i in most},
            "different_tokens": len(token),
        }
    return found


# ---- the report ----


def losses(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Of one language: nats a token before, after, and the change, with 95 % intervals over documents."""
    tokens = np.array(before["tokens"])
    sides = [np.array(one["loss"]) for one in (before, after)]
    return {
        "documents": int((tokens > 0).sum()),
        "tokens": int(tokens.sum()),
        "before": [sides[0].sum() / tokens.sum(), bootstrap_ratio(sides[0], tokens)],
        "after": [sides[1].sum() / tokens.sum(), bootstrap_ratio(sides[1], tokens)],
        "change": [
            (sides[1] - sides[0]).sum() / tokens.sum(),
            bootstrap_difference((sides[0], tokens), (sides[1], tokens), paired=True),
        ],
    }


def shares(one: Mapping[str, Any], router: str) -> list[list[float]]:
    """Of one language: for each expert the share of positions sent to it, and its interval over documents."""
    sent = np.array(one["sent"][router])
    positions = sent.sum(1) / round(float(sent.sum() / max(sum(one["tokens"]), 1)))
    return [[float(e.sum() / positions.sum()), *(bootstrap_ratio(e, positions) or ())] for e in sent.T]


def spread(found: Mapping[str, Mapping[str, Any]], router: str) -> float:
    """How far languages differ in where their tokens go: the mean over experts of the largest less the smallest share."""
    of = np.array([[share[0] for share in shares(one, router)] for one in found.values()])
    return float((of.max(0) - of.min(0)).mean())


def report(
    work: Path,
    texts: Mapping[str, Routing],
    sources: Sequence[str],
    names: Mapping[str, str],
    routers: Sequence[str],
    words: Sequence[str],
    seeds: Sequence[int],
) -> dict[str, Any]:
    """All that was measured."""
    of = {which: places.read_json(work / f"measured-{which}.json") for which in ("before", "after")}
    log = places.read_json(work / "training.json")
    read = {}
    for which in of:
        kept = [places.read_json(work / f"read-{which}-{seed}.json") for seed in seeds]
        told = [[row["feature"] for row in one["section"]["rows"] if row["told"]] for one in kept]
        read[which] = {
            **kept[0],
            "told": [len(told[0]), len(kept[0]["section"]["rows"])],
            "features": described(texts[which], sources, names, told[0], words, seeds[0]),
            "other seeds": [_other(one, len(some)) for one, some in zip(kept[1:], told[1:], strict=True)],
        }
    return rounded({
        "made": places.read_json(work / "made.json"),
        "training": {"steps": len(log), "first_steps": _part(log[:24]), "last_steps": _part(log[-24:])},
        "loss, nats": {name: losses(of["before"][name], of["after"][name]) for name in names},
        "shares": {
            which: {router: {name: shares(one[name], router) for name in names} for router in routers}
            for which, one in of.items()
        },
        "spread": {which: {router: spread(one, router) for router in routers} for which, one in of.items()},
        "read": read,
    })  # fmt: skip


def _other(kept: Mapping[str, Any], told: int) -> dict[str, Any]:
    """Of other halves the figures, how many features were told, and of which languages experts are."""
    section = kept["section"]
    return {
        "seed": section["of"]["seed"],
        "told": [told, len(section["rows"])],
        "figures": {one["name"]: [one["value"], one["interval"]] for one in section["figures"]},
        "languages told": [row for row in kept["languages"] if row["told"]],
    }


def _part(log: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([row[name] for row in log])) for name in ("loss", "balance")}


def rounded(value: Any) -> Any:
    """Floats to five digits, so that a diff of results shows what changed."""
    if isinstance(value, float | np.floating):
        return float(f"{float(value):.5g}")
    if isinstance(value, Mapping):
        return {key: rounded(one) for key, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list | tuple) else value


def lines(found: Mapping[str, Any]) -> list[str]:
    """The report as a person reads it."""
    said = [
        f"{name}: {one['before'][0]:.3f} to {one['after'][0]:.3f} nats, {one['change'][0]:+.3f} {one['change'][1]}"
        for name, one in found["loss, nats"].items()
    ]
    for which in ("before", "after"):
        for router, of in found["shares"][which].items():
            parts = [f"{name} " + " ".join(f"{share[0]:.2f}" for share in one) for name, one in of.items()]
            said.append(f"{which}, {router}, spread {found['spread'][which][router]:.3f}: " + "; ".join(parts))
    for which, one in found["read"].items():
        figures = {f["name"]: (f["value"], f["interval"]) for f in one["section"]["figures"]}
        said.append(f"{which}: told {one['told'][0]} of {one['told'][1]}; {figures}")
        for row in one["languages"] + one["section"]["rows"]:
            if row["told"] or "language" in row:
                about = row.get("language") or one["features"][str(row["feature"])]
                rates = f"{row['rate']} against {row['predicted']}, within {row['within']} {row['within_interval']}"
                said.append(f"{which}, expert {row['expert']}, {row['feature']}: {rates}, told {row['told']}: {about}")
    return said
