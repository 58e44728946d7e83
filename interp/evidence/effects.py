"""What every feature causes: ablated where it fires, beside the same amount along another feature's row.

At a position where a feature of activation a fires, x is what passes the hook point that it writes:

1.  x - a W_dec  is put in its place: the feature is 0, and what the dictionary fails to explain stays.
2.  x - a |W_dec| u  is put there, u the unit row of another feature: the control. Another one at each position of a
    feature, drawn from those that fire about as often (`steering.matched_features`), whether it fires there or not.
3.  Of both, the next token's distribution is compared with the untouched one:

        KL    = sum over tokens of p (log p - log p')       nats; p untouched, p' changed
        loss  = log p(t) - log p'(t)                        nats; t the token that follows in the text

    Both are of the difference d of the logits: with c = d - sum p d, KL = log sum p exp c and loss = KL - c(t), so that
    small effects do not drown in the rounding of large logits.

It sees the next token only. What later positions take up by attention from a changed position is not seen, so a feature
without an effect here may have one there.

Activations are computed anew, in the model as it is open; a position at which the feature does not fire in it (an index
may have been made in bfloat16) is left out. Each text is a block of the index, as the index read it. How it is computed,
and how far that was from whole passes, is told by `about_effects`.

Killed at any moment, the same call goes on with the blocks that are missing.

Axes    M chosen position, U unlike position, E version, V vocabulary, D width, F feature, T token.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp import places
from interp.corpus.tables import read_parquet
from interp.device import keeping_freed_memory
from interp.evidence.positions import Chosen
from interp.evidence.table import FORMAT, about_effects, make_table, read_effects, write_effects
from interp.index import FeatureIndex
from interp.models import Model
from interp.models.versions import Trial, Versions, try_versions
from interp.progress import bar
from interp.sae import SAE
from interp.sae.dictionary import one_read, one_written
from interp.steering.controls import matched_features
from interp.types import InterpError

FILE = "effects.parquet"
TINY = 1e-30
"""So that a row of zeros has a direction, along which nothing is moved."""
MEASURED: dict[str, tuple[pa.DataType, str]] = {
    "feature": (pa.uint32(), "whole"),
    "position": (pa.uint32(), "whole"),
    "document": (pa.uint32(), "whole"),
    "above": (pa.int8(), "whole"),
    "control": (pa.uint32(), "whole"),
    "activation": (pa.float32(), "real"),
    "amount": (pa.float32(), "real"),
    "kl": (pa.float64(), "real"),
    "loss": (pa.float64(), "real"),
    "control_kl": (pa.float64(), "real"),
    "control_loss": (pa.float64(), "real"),
}
"""What a part holds: a row a position of a feature."""


@dataclass(frozen=True, kw_only=True)
class EffectsConfig:
    """How effects are measured."""

    seed: int = 0
    """Of the controls."""
    at_once: int = 256
    """Positions of features that are one batch; each is two versions, and every unlike position one more. What comes out
    depends on it in the last bits only."""
    part_blocks: int = 4
    """Blocks whose figures are written together: what a kill may lose."""
    whole_passes: bool = False
    """Run whole passes even where a family can go on from keys and values that are kept."""
    restart: bool = False
    """Begin anew, not where a killed call stopped."""

    def __post_init__(self) -> None:
        for name in ("at_once", "part_blocks"):
            if getattr(self, name) < 1:
                raise InterpError(f"{name} is {getattr(self, name)}; it must be 1 or more.")


@dataclass(frozen=True, eq=False)
class Passages:
    """The text that features are tried in, as blocks that the model reads, and how often features fire in it."""

    token_N: np.ndarray
    document_N: np.ndarray
    testing_D: np.ndarray
    """True of documents on which labels are tested."""
    block: int
    density_F: np.ndarray

    @staticmethod
    def of(index: FeatureIndex) -> "Passages":
        """An index's."""
        testing_D = index.documents["split"].to_numpy() == "labels"
        density_F = index.features["density"].to_numpy().astype(np.float64)
        return Passages(index.tokens, index.document_at, testing_D, index.block, density_F)


@dataclass(frozen=True, eq=False)
class _Run:
    """One measurement."""

    model: Model
    sae: SAE
    passages: Passages
    chosen: Chosen
    control_M: np.ndarray
    config: EffectsConfig
    read: str
    written: str


@keeping_freed_memory()
def measure_effects(
    model: Model,
    sae: SAE,
    passages: Passages,
    chosen: Chosen,
    folder: str | Path,
    config: EffectsConfig | None = None,
) -> pa.Table:
    """The table of effects (`table.COLUMNS`), which is also written into `effects.parquet` of a folder.

    A table of the same measurement that lies there is given back as it is. Raises InterpError when the SAE is of another
    width than the text or the model, reads or writes several hook points, has fewer live features than a feature has
    positions, when the model reads texts in both directions, when a position is none of the text, and when another
    process measures there.
    """
    config, place = config or EffectsConfig(), Path(folder)
    run = _prepare(model, sae, passages, chosen, config)
    asked = _asked(run)
    with places.only_one(place, "measuring effects"):
        finished = None if config.restart else _finished(place / FILE, asked)
        if finished is not None:
            return finished
        work, trial = _work_folder(place, asked, config.restart), _try(run)
        rows = _measure(run, work, trial)
        how = {"cached": trial.cached, "off": trial.off if math.isfinite(trial.off) else None, "why": trial.why}
        about = {key: value for key, value in asked.items() if key != "format"} | how
        table = make_table(rows, chosen.features, passages.density_F, passages.testing_D, about)
        with places.whole_file(place / FILE) as partial:
            write_effects(table, partial)
        places.drop_folder(work)
    return table


# ---- what is asked, and what lies there ----


def _prepare(model: Model, sae: SAE, passages: Passages, chosen: Chosen, config: EffectsConfig) -> _Run:
    read, written = one_read(sae, "an effect"), one_written(sae, "an effect")
    for hook in (read, written):
        width = model.width(hook.name)
        if width != hook.width:
            raise InterpError(
                f"{hook.name} of {model.name} has width {width} and {sae.name} {hook.width}: it was made for another model."
            )
    if len(passages.density_F) != sae.d_sae:
        raise InterpError(
            f"the text tells of {len(passages.density_F):,} features and {sae.name} has {sae.d_sae:,}: it was indexed with "
            "another SAE."
        )
    size = len(passages.token_N) // passages.block * passages.block
    if len(chosen.position_M) and not 0 <= chosen.position_M.min() <= chosen.position_M.max() < size - 1:
        raise InterpError(
            f"a position is not followed by a token of the text, which has {size:,}; choose positions of the same index."
        )
    if not len(chosen.position_M):
        raise InterpError("no feature fires in text that effects are measured in; index more text.")
    at_end = chosen.position_M % passages.block == passages.block - 1
    if at_end.any():
        raise InterpError(
            f"position {chosen.position_M[at_end][0]} ends a block, so the token after it was not read with it; choose "
            "positions of the same index."
        )
    controls = _controls(chosen, passages.density_F, sae, config.seed)
    return _Run(model, sae, passages, chosen, controls, config, read.name, written.name)


def _controls(chosen: Chosen, density_F: np.ndarray, sae: SAE, seed: int) -> np.ndarray:
    """Another feature for each position, unlike ones at the positions of one feature."""
    writes_F = sae.W_dec.norm(dim=1).cpu().numpy() > 0  # what writes nothing is no control
    first = np.flatnonzero(np.diff(chosen.feature_M.astype(np.int64), prepend=-1))
    count = np.diff(np.append(first, len(chosen.feature_M)))
    drawn = []
    for start, size in zip(first, count, strict=True):
        feature = int(chosen.feature_M[start])
        known_F = np.where(writes_F, density_F, 0.0)
        known_F[feature] = density_F[feature]
        drawn.append(matched_features(known_F, feature, int(size), seed))
    return np.array([one for each in drawn for one in each], dtype=np.int64)


def _asked(run: _Run) -> dict[str, Any]:
    """Everything that decides what comes out, but for its last bits."""
    chosen, passages = run.chosen, run.passages
    return {
        "format": FORMAT,
        "model": run.model.source,
        "model_sha256": run.model.fingerprint(),
        "dtype": run.model.dtype_name,
        "attention": run.model.attention,
        "sae": run.sae.name,
        "sae_sha256": weights_sha256(run.sae),
        "reads": run.read,
        "writes": run.written,
        "positions_sha256": _sha256(chosen.features, chosen.feature_M, chosen.position_M, chosen.above_M),
        "text_sha256": _sha256(passages.token_N.astype(np.int64), passages.document_N.astype(np.int64)),
        "density_sha256": _sha256(passages.density_F),
        "block": passages.block,
        "seed": run.config.seed,
        "part_blocks": run.config.part_blocks,
        "whole_passes": run.config.whole_passes,
    }


def weights_sha256(sae: SAE) -> str:
    """Of the numbers that it computes with, as `about_effects` names them."""
    return _sha256(*(tensor.detach().cpu().numpy() for _, tensor in sorted(sae.state_dict().items())))


def _sha256(*arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _finished(path: Path, asked: Mapping[str, Any]) -> pa.Table | None:
    """The table that lies there, if it is of this measurement; one of another is replaced in the end."""
    if not path.exists():
        return None
    try:
        table = read_effects(path)
    except InterpError:
        return None
    about = about_effects(table)
    return table if all(about.get(key) == value for key, value in asked.items()) else None


def _work_folder(place: Path, asked: dict[str, Any], restart: bool) -> Path:
    """Where the parts lie; those of another measurement are thrown away."""
    work = place / ".effects"
    places.drop_partials(place)
    stamp = work / "effects.json"
    if work.exists() and (restart or not stamp.exists() or places.read_json(stamp) != asked):
        places.drop_folder(work)
    if not work.exists():
        work.mkdir()
        places.write_json(stamp, asked)
    places.drop_partials(work)
    return work


# ---- block by block ----


def _try(run: _Run) -> Trial:
    """How versions are made, tried on the first block."""
    if run.config.whole_passes:
        return Trial(False, math.nan, "whole passes were asked for")
    start = int(run.chosen.position_M.min()) // run.passages.block * run.passages.block
    return try_versions(run.model, _tokens(run, start, start + run.passages.block), run.written)


def _tokens(run: _Run, start: int, stop: int) -> Int[Tensor, " T"]:
    return torch.tensor(run.passages.token_N[start:stop].astype(np.int64))


def _measure(run: _Run, work: Path, trial: Trial) -> dict[str, np.ndarray]:
    """What was measured at every position, in order of feature and position; parts that lie there are taken as they are."""
    block_M = run.chosen.position_M // run.passages.block
    blocks = np.unique(block_M)
    parts = np.array_split(blocks, math.ceil(len(blocks) / run.config.part_blocks))
    paths = [work / f"part-{number:05d}.parquet" for number in range(len(parts))]
    with bar(f"effects of {run.sae.name}", len(block_M), "positions") as step, torch.inference_mode():
        for part, path in zip(parts, paths, strict=True):
            if not path.exists():
                found = [_block(run, int(block), np.flatnonzero(block_M == block), trial.cached) for block in part]
                columns = {name: np.concatenate([each[name] for each in found]) for name in MEASURED}
                table = pa.table({name: pa.array(columns[name], kind) for name, (kind, _) in MEASURED.items()})
                with places.whole_file(path) as partial:
                    pq.write_table(table, partial)
            step(int(np.isin(block_M, part).sum()))
    kinds = {name: kind for name, (_, kind) in MEASURED.items()}
    whole = pa.concat_tables([read_parquet(path, kinds) for path in paths])
    whole = whole.sort_by([("feature", "ascending"), ("position", "ascending")])
    return {name: whole[name].to_numpy() for name in MEASURED}


def _block(run: _Run, block: int, of: np.ndarray, cached: bool) -> dict[str, np.ndarray]:
    """What is measured at the positions `of` (numbers in `run.chosen`), all in one block."""
    start = block * run.passages.block
    of = of[np.argsort(run.chosen.position_M[of], kind="stable")]
    place_M = run.chosen.position_M[of] - start
    tokens_T = _tokens(run, start, start + int(place_M[-1]) + 1)
    versions = Versions(run.model, tokens_T, run.written, read=[run.read], cached=cached)
    now_M = _activations(run.sae, versions.x[run.read], place_M, run.chosen.feature_M[of])
    fires = now_M > 0
    of, place_M, now_M = of[fires], place_M[fires], now_M[fires]
    norm_F = run.sae.W_dec.norm(dim=1).cpu().numpy()
    amount_M = now_M * norm_F[run.chosen.feature_M[of]]
    rows = {
        "feature": run.chosen.feature_M[of],
        "position": run.chosen.position_M[of],
        "document": run.passages.document_N[run.chosen.position_M[of]],
        "above": run.chosen.above_M[of],
        "control": run.control_M[of],
        "activation": now_M,
        "amount": amount_M,
    }
    kl, loss = [np.zeros((2, 0))], [np.zeros((2, 0))]
    for some in np.array_split(np.arange(len(of)), max(math.ceil(len(of) / run.config.at_once), 1)):
        if len(some):
            follow = run.passages.token_N[rows["position"][some] + 1]
            each = _compare(versions, place_M[some], follow, _changes(run.sae, of[some], amount_M[some], run))
            kl.append(each[0])
            loss.append(each[1])
    (own_kl, control_kl), (own_loss, control_loss) = np.concatenate(kl, 1), np.concatenate(loss, 1)
    return rows | {"kl": own_kl, "control_kl": control_kl, "loss": own_loss, "control_loss": control_loss}


def _activations(sae: SAE, x_TD: Tensor, place_M: np.ndarray, feature_M: np.ndarray) -> np.ndarray:
    """Each feature's activation at its place; 0 where it does not fire."""
    unlike, own_M = np.unique(place_M, return_inverse=True)
    values_UK, features_UK = sae.encode_sparse(x_TD[torch.tensor(unlike)])
    at_MK = torch.tensor(own_M, device=features_UK.device)
    same_MK = features_UK[at_MK] == torch.tensor(feature_M, device=features_UK.device)[:, None]
    now_M: np.ndarray = (values_UK[at_MK] * same_MK).sum(1).cpu().numpy().astype(np.float64)
    return now_M


def _changes(sae: SAE, of: np.ndarray, amount_M: np.ndarray, run: _Run) -> Float[Tensor, "2 M D"]:
    """What is taken off: so much along each feature's own row, and as much along its control's."""
    both = torch.tensor(np.stack([run.chosen.feature_M[of], run.control_M[of]]), device=sae.device)
    rows_2MD = sae.W_dec[both]
    amount = torch.tensor(amount_M, dtype=torch.float32, device=sae.device)[:, None]
    return rows_2MD / rows_2MD.norm(dim=-1, keepdim=True).clamp_min(TINY) * amount


def _compare(
    versions: Versions, place_M: np.ndarray, follow_M: np.ndarray, change_2MD: Float[Tensor, "2 M D"]
) -> tuple[np.ndarray, np.ndarray]:
    """(KL, change of the loss), each of shape (2, M): of features and of their controls. Places ascend."""
    unlike, first, count = np.unique(place_M, return_index=True, return_counts=True)
    x_TD = versions.x[versions.hook_name].float()
    at_M, at_U = torch.tensor(place_M), torch.tensor(unlike)
    changed_2MD = x_TD[at_M] - change_2MD.to(x_TD.device)
    logits_EV = versions.logits(torch.cat([at_U, at_M, at_M]), torch.cat([x_TD[at_U], changed_2MD.flatten(0, 1)]))
    untouched_UV, changed = logits_EV[: len(unlike)], logits_EV[len(unlike) :].unflatten(0, (2, len(place_M)))
    follow = torch.tensor(follow_M.astype(np.int64), device=logits_EV.device)
    kl_2M, loss_2M = (torch.empty(2, len(place_M), dtype=torch.float64) for _ in range(2))
    for row, start, stop in _stretches(first, count):
        kl, loss = kl_and_loss(untouched_UV[row], changed[:, start:stop].flatten(0, 1), follow[start:stop].repeat(2))
        kl_2M[:, start:stop], loss_2M[:, start:stop] = kl.view(2, -1).cpu(), loss.view(2, -1).cpu()
    return kl_2M.numpy(), loss_2M.numpy()


def _stretches(first: np.ndarray, count: np.ndarray) -> Iterator[tuple[int, int, int]]:
    for row, (start, size) in enumerate(zip(first.tolist(), count.tolist(), strict=True)):
        yield row, start, start + size


def kl_and_loss(
    untouched_V: Float[Tensor, " V"], changed_EV: Float[Tensor, "E V"], follow_E: Int[Tensor, " E"]
) -> tuple[Float[Tensor, " E"], Float[Tensor, " E"]]:
    """(KL(untouched ‖ changed), change of the loss at the tokens that follow) of logits, nats; see the head of the file."""
    p_V = untouched_V.float().softmax(-1)
    c_EV = changed_EV.float() - untouched_V.float()
    c_EV -= (c_EV @ p_V)[:, None]
    left_E = c_EV @ p_V  # of a mean that is large beside the rest: p sums to 1 but for rounding
    follow_c_E = c_EV.gather(1, follow_E[:, None])[:, 0]
    log_sum_E = (c_EV.expm1_() @ p_V).log1p()
    return (log_sum_E - left_E).clamp_min(0), log_sum_E - follow_c_E
