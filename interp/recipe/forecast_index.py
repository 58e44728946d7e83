"""What an index would take on this machine, told from a slice of one, made by the code that makes the whole.

1.  Encoding: an SAE of random weights, whose threshold lets as many features pass as are asked, reads random rows.
2.  Sorting and counting: a text is made up (tokens by Zipf's law, documents with words of their own), and a few features that
    fire on it: each mostly where some tokens stand, and as often as one of the whole index would. The others, which are not
    gone through, fire anywhere. What the text costs grows with its tokens, the rest with the features.
3.  What the weights say: some rows of the decoder are compared with an unembedding and neurons of the model's sizes, of random
    weights; it grows with the features. Descriptions are encoded, where the sentence encoder is there.

Axes    N position, F feature, D width of the hook point, V vocabulary, M neuron.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import torch
from torch import Tensor

from interp.activations.manifest import SHARD_POSITIONS
from interp.codes import Entries, encode_rows
from interp.corpus import write_parquet
from interp.corpus.blocks import BLOCK
from interp.device import keeping_freed_memory
from interp.index import weights
from interp.index.build import TEXT_BYTES
from interp.index.by_feature import write_by_feature
from interp.index.clean import indexed_text
from interp.index.format import code_type
from interp.index.parts import Build, IndexConfig, write_by_position, write_part
from interp.index.stats import Near
from interp.models import Model
from interp.models.sentence import sentence_encoder
from interp.models.sizes import ModelSize, small_copy
from interp.predicates import Text
from interp.recipe.forecast import FITS, Stage, bytes_here, clock_of, peak
from interp.recipe.rules import PAIRED, make_rule
from interp.sae import SAE
from interp.sae.options import Options
from interp.training import TrainConfig
from interp.training.watch import own_memory, wanted_l0
from interp.types import InterpError

USUAL_L0 = 32
"""Active features a token, of SAEs that are not told how many."""
ROWS = 8_192
"""Rows that are encoded."""
TEXT, FEATURES = 131_072, 192
"""Positions of the made-up text, and features that are gone through, at most."""
COMPARED, DESCRIBED = 1024, 128
"""Decoder rows that are compared with all that the model has, and descriptions that are encoded."""
SPREAD = 1.4
"""Of the logarithm of how often features fire, as a standard deviation (an SAE of SmolLM2's block 15 with 9,216 features)."""
ON_TOKENS = 0.6
"""The part of a feature's firings that is where its tokens stand."""
DOCUMENT, OWN_WORDS, OWN_SHARE = 110, 30, 0.3
"""Tokens of a document, how many of them are words that it repeats, and the share of its text that they are."""
CHUNK_BYTES = 100
"""What an activation takes while statistics are made of it, of a million at a time."""


@dataclass(frozen=True)
class _Part:
    """Seconds and bytes on disk of a part of the work."""

    seconds: float = 0.0
    disk: float = 0.0

    def __add__(self, other: "_Part") -> "_Part":
        return _Part(self.seconds + other.seconds, self.disk + other.disk)

    def times(self, much: float) -> "_Part":
        return _Part(self.seconds * much, self.disk * much)


def forecast_index(
    size: ModelSize, width: int, tokens: int, kind: str, options: Options, *, device: str = "auto"
) -> Stage:
    """What an index of all activations of an SAE takes, over a harvest of so many tokens, of hook points of that width.

    `disk` is what stays; while it is made, about 16 bytes for each activation are there, too. Raises InterpError for an
    architecture that reads several hook points, and when the memory does not hold what is tried.
    """
    if kind in PAIRED:
        raise InterpError(f"a {kind} reads and writes several hook points; plans are made for SAEs of one.")
    rule = make_rule(kind, TrainConfig(device="cpu"), {"d_in": width}, options)
    clock, l0 = clock_of("cpu"), wanted_l0(rule)
    active = min(l0 or USUAL_L0, rule.d_sae)
    model = small_copy(size.model, 1, dtype=size.dtype, device="cpu")
    held = own_memory()
    with keeping_freed_memory(), peak() as most, torch.inference_mode():
        sae, x_ND = _random_sae(width, rule.d_sae, active, kind == "topk")
        encoding, entries = _encoding(sae, x_ND, clock)
        text, by_feature, features = _going_through(sae, tokens, active, size, model, clock)
        said = _weights(sae.W_dec, model, size, clock)
    part = encoding.times(tokens) + text.times(tokens) + by_feature.times(rule.d_sae) + said
    return Stage(
        stage="index",
        memory=held
        - bytes_here(model)
        + size.weights
        + (most[0] - held)
        + min(tokens, SHARD_POSITIONS) * (4 * width + entries)
        + TEXT_BYTES * tokens
        + CHUNK_BYTES * min(int(tokens * active), 1 << 20),
        seconds=part.seconds,
        disk=int(part.disk),
        rate=tokens / part.seconds,
        by=f"{features:,} of {rule.d_sae:,} features on a made-up text"
        + ("" if l0 else f", {USUAL_L0} active a token assumed"),
    )


def _random_sae(width: int, d_sae: int, active: float, largest: bool) -> tuple[SAE, Tensor]:
    """(an SAE of random unit rows of which so many are active a row, rows of activations)."""
    if 16 * width * d_sae > FITS * psutil.virtual_memory().available:
        raise InterpError("too little memory is free for an SAE of that size; plan fewer features, or close something.")
    draw = torch.Generator().manual_seed(0)
    W_FD = torch.nn.functional.normalize(torch.randn(d_sae, width, generator=draw), dim=1)
    x_ND = torch.randn(ROWS, width, generator=draw).bfloat16()
    some = x_ND[:256].float() @ W_FD.T
    zero_F, zero_D = torch.zeros(d_sae), torch.zeros(width)
    rule: dict[str, Any] = {"k": max(round(active), 1)}
    if not largest:
        level = float(some.flatten().topk(max(round(active * len(some)), 1)).values[-1])
        rule = {"threshold": torch.full((d_sae,), max(level, 0.0))}
    return SAE(W_enc=W_FD.T.contiguous(), b_enc=zero_F, W_dec=W_FD, b_dec=zero_D, **rule), x_ND


def _encoding(sae: SAE, x_ND: Tensor, clock: Callable[[], float]) -> tuple[_Part, int]:
    """(the first pass over a position, what it holds for one beside the activations)."""
    every_N = torch.ones(len(x_ND), dtype=torch.bool)
    encode_rows(sae, x_ND[:64], every_N[:64])  # what is made once
    began = clock()
    entries = encode_rows(sae, x_ND, every_N)
    return _Part((clock() - began) / len(x_ND)), 3 * 8 * len(entries.row_A) // len(x_ND)


def _going_through(
    sae: SAE, tokens: int, active: float, size: ModelSize, model: Model, clock: Callable[[], float]
) -> tuple[_Part, _Part, int]:
    """(the second pass over a position, and over a feature; how many of these were gone through)."""
    count, some = min(tokens, TEXT), min(sae.d_sae, FEATURES)
    draw = np.random.default_rng(0)
    columns, documents, words = _text(count, max(size.vocabulary, 2), draw)
    fires_F = np.exp(draw.normal(0, SPREAD, some))
    fires_F = np.clip(fires_F / fires_F.mean() * tokens * active / sae.d_sae, 1, count // 4).astype(np.int64)
    firings = [_firings(int(fires), columns["token"], draw) for fires in fires_F]
    position = np.concatenate(firings)
    feature = np.repeat(np.arange(some), [len(each) for each in firings])
    order = np.lexsort((feature, position))
    value = draw.exponential(1, len(position)).astype(np.float32) + 1
    with tempfile.TemporaryDirectory() as folder:
        run = Build(sae, Path(folder), IndexConfig(threads=1), None, 0.5)
        run.made.mkdir()
        text = {name: pa.array(column) for name, column in columns.items()}
        write_part(Entries(position[order], feature[order], value[order]), run.work / "part-00000.parquet", 0)
        began = clock()
        write_by_position(run, text)
        sorting = (clock() - began) / len(position) * active
        began = clock()
        said = _said(columns, documents, words)
        reading = (clock() - began) / count
        _let_others_fire(run, text, active, int(fires_F.mean()), draw)
        began = clock()
        told = write_by_feature(run, text, said, Near())
        each = (clock() - began) / some
        write_parquet(pa.table(told).slice(0, some), run.work / "told.parquet")
        disk = {path.name: path.stat().st_size for path in (*run.made.iterdir(), run.work / "told.parquet")}
    a_row = (disk["positions.parquet"] + disk["activations.parquet"] + disk["pairs.parquet"]) / len(position)
    by_feature = (disk["examples.parquet"] + disk["told.parquet"]) / some
    of_text = _Part(sorting + reading, a_row * active + 3)  # tokens, and what counts
    return of_text, _Part(each, by_feature), some


def _text(count: int, vocabulary: int, draw: np.random.Generator) -> tuple[dict[str, np.ndarray], pa.Table, list[str]]:
    """(token, document and kept of every position, the documents, the vocabulary's words) of a made-up text."""
    rank = 1 / np.arange(1, vocabulary + 1)
    token_N = draw.choice(vocabulary, count, p=rank / rank.sum()).astype(np.uint32)
    document_N = np.cumsum(draw.random(count) < 1 / DOCUMENT)
    document_N = (document_N - document_N[0]).astype(np.uint32)
    documents = int(document_N[-1]) + 1
    own = np.minimum(vocabulary ** draw.random((documents, OWN_WORDS)), vocabulary - 1).astype(np.uint32)
    again = np.flatnonzero(draw.random(count) < OWN_SHARE)
    token_N[again] = own[document_N[again], draw.integers(0, OWN_WORDS, len(again))]
    kept_N = np.arange(count) % BLOCK > 0
    letters = draw.integers(97, 123, (vocabulary, 9)).astype(np.uint8)
    lengths, begins = draw.integers(2, 10, vocabulary), draw.random(vocabulary) < 0.6
    words = [
        " " * begin + bytes(row[:length]).decode()
        for row, length, begin in zip(letters, lengths, begins.tolist(), strict=True)
    ]
    split = draw.choice(["train", "heldout", "labels"], documents, p=[0.8, 0.1, 0.1])
    table = {"source": ["text"] * documents, "topic": [""] * documents, "title": [""] * documents, "split": split}
    return {"token": token_N, "document": document_N, "kept": kept_N}, pa.table(table), words


def _said(columns: dict[str, np.ndarray], documents: pa.Table, words: list[str]) -> Text:
    """The made-up text as predicates look at it; no token of it is a separator."""
    token_N, document_N, kept_N = (columns[name] for name in ("token", "document", "kept"))
    return indexed_text(token_N, document_N, kept_N, documents, words, block=BLOCK, separator=len(words))


def _firings(count: int, token_N: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Positions, ascending, at which a made-up feature fires: about so many."""
    found, so_far = [], 0
    while so_far < ON_TOKENS * count:
        places = np.flatnonzero(token_N == token_N[draw.integers(len(token_N))])[: count - so_far]
        found.append(places)
        so_far += len(places)
    return np.unique(np.concatenate([*found, draw.integers(0, len(token_N), count - so_far)]))


def _let_others_fire(
    run: Build, text: dict[str, pa.Array], active: float, fires: int, draw: np.random.Generator
) -> None:
    """Fill up what is read for co-activation: at each position as many features are active as in the whole index."""
    positions, each = len(text["token"]), max(round(active), 1)
    run.codes.write_bytes(draw.integers(0, run.sae.d_sae, positions * each).astype(code_type(run.sae.d_sae)).tobytes())
    text["active"] = pa.array(np.full(positions, each, dtype=np.uint32))
    run.fires_F[run.fires_F == 0] = max(fires, 1)


def _weights(W_dec: Tensor, model: Model, size: ModelSize, clock: Callable[[], float]) -> _Part:
    """What is said of all features from the weights, and from their descriptions."""
    features, made = len(W_dec), dict[str, Any]()
    began = clock()
    unembedding = weights.centred_unembedding(model)
    part = _Part(clock() - began)
    some = W_dec[:COMPARED]
    share = features / len(some)
    if unembedding is not None and len(unembedding) == W_dec.shape[1]:
        began = clock()
        made |= weights.logit_columns(some, unembedding)
        part += _Part(clock() - began).times(share) + _Part(disk=2 * unembedding.numel())
    began = clock()
    made |= weights.neighbour_columns(some)
    part += _Part(clock() - began).times(share**2)
    outputs = model.neuron_outputs(W_dec.shape[1])
    if outputs:
        every = dict.fromkeys(range(size.layers), outputs[0])
        seconds = {}
        for count in sorted({max(len(some) // 2, 1), len(some)}):  # what is done once, and what for each feature
            began = clock()
            aligned, told = weights.neuron_columns(W_dec[:count], every)
            seconds[count] = clock() - began
        made |= aligned  # of all that are compared
        few, more = min(seconds), max(seconds)
        each = max(seconds[more] - seconds[few], 0.0) / max(more - few, 1)
        part += _Part(seconds[more] + (features - more) * each, _disk(told))
    part += _Part(disk=_disk(pa.table(made)) * share)
    try:
        encoder = sentence_encoder()
    except InterpError:
        return part
    began = clock()
    vectors = encoder.encode(["one, two, three, four, five"] * min(DESCRIBED, features))
    return part + _Part(clock() - began, vectors.numel()).times(features / len(vectors))


def _disk(table: pa.Table) -> int:
    """Bytes of a table as a file."""
    with tempfile.TemporaryDirectory() as folder:
        write_parquet(table, Path(folder) / "table.parquet")
        return (Path(folder) / "table.parquet").stat().st_size
