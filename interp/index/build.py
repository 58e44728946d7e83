"""Build the index: one streaming pass of the SAE over activations, then DuckDB sorts and counts.

The pass writes a part for every shard of activations, so that a killed build goes on with the next part. DuckDB
works within a set memory and spills to disk, so memory does not grow with the text.

Axes    N position, D d_in, F d_sae, V vocabulary.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float
from torch import Tensor

from interp import places
from interp.activations import ActivationStore
from interp.corpus import write_parquet
from interp.models import Model
from interp.models.vocabulary import vocabulary
from interp.progress import bar, say
from interp.sae import SAE
from interp.types import InterpError

FORMAT = 1
BINS = 50
TOP_TOKENS = 20
TOP_LOGITS = 10
NEIGHBOURS = 10
TOP_EXAMPLES = 20
BANDS, PER_BAND = 5, 5
WINDOW = 16
"""Positions shown on either side of an example."""
BATCH = 4096


@dataclass(frozen=True, kw_only=True)
class IndexConfig:
    """What the index keeps and what building it may use."""

    keep: Literal["all", "examples"] = "all"
    """`all` activations, or only those in the windows of the examples."""
    memory_gib: float = 2.0
    threads: int = 2


def build_index(
    sae: SAE,
    store: ActivationStore,
    model: Model,
    into: str | Path,
    config: IndexConfig | None = None,
    *,
    norm_cutoff: float,
    sae_sha256: str = "",
    hook_name: str | None = None,
) -> None:
    """Write the index of `sae` over the store into a folder (see `FeatureIndex`).

    Sinks (`norm_cutoff`) and separators are left out of every count. Raises InterpError when the store lacks
    the SAE's hook point or their widths differ.
    """
    config = config or IndexConfig()
    hook = hook_name or sae.hook_name
    store.check_hook(hook)
    folder, work = Path(into), Path(into) / ".build"
    work.mkdir(parents=True, exist_ok=True)
    keep_N = store.keep(hook, norm_cutoff)
    meta = {
        "format": FORMAT,
        "sae_sha256": sae_sha256,
        "model_sha256": store.recipe["model_sha256"],
        "hook_name": hook,
        "corpus": store.recipe["corpus"],
        "tokens_sha256": store.recipe["tokens_sha256"],
        "positions": store.positions,
        "kept_positions": int(keep_N.sum()),
        "norm_cutoff": norm_cutoff,
        "keep": config.keep,
        "d_sae": sae.d_sae,
    }
    stamp = work / "build.json"
    if not stamp.exists() or places.read_json(stamp) != meta:
        shutil.rmtree(work)
        work.mkdir()
        places.write_json(stamp, meta)
    _encode(sae, store, hook, keep_N, work)
    store.blocks.save(folder)
    _write_vocabulary(model, folder)
    with duckdb.connect(str(work / "sort.duckdb")) as db:
        db.execute(f"SET memory_limit='{config.memory_gib}GiB'; SET threads={config.threads}")
        db.execute(f"SET temp_directory={quoted(work)}; SET preserve_insertion_order=false")
        _views(db, folder, work)
        say("index: statistics")
        statistics = _statistics(db, sae.d_sae, int(keep_N.sum()))
        say("index: examples")
        _examples(db, folder)
        say("index: sorting activations")
        _activations(db, folder, config.keep)
    say("index: logits and neighbours")
    columns = statistics | _logits(sae, model) | _neighbours(sae)
    with places.whole_file(folder / "features.parquet") as partial:
        write_parquet(pa.table(columns), partial)
    places.write_json(folder / "index.json", meta)
    shutil.rmtree(work)


def _encode(sae: SAE, store: ActivationStore, hook: str, keep_N: Tensor, work: Path) -> None:
    """One part of (feature, position, value) a shard, exact float32 values."""
    with bar(f"index {sae.name}", store.positions) as step, torch.inference_mode():
        for number, (first, x_ND) in enumerate(store.in_order(hook)):
            part = work / f"part-{number:05d}.parquet"
            if x_ND.shape[1] != sae.d_in:
                raise InterpError(
                    f"{hook} has width {x_ND.shape[1]} and the SAE reads {sae.d_in}: it was made for another model."
                )
            if not part.exists():
                kept = keep_N[first : first + len(x_ND)].nonzero().squeeze(1)
                pieces = []
                for rows in kept.split(BATCH):
                    active = sae.active(x_ND[rows].to(sae.b_dec.device))
                    pieces.append((active.features.cpu(), rows[active.rows.cpu()] + first, active.values.cpu()))
                _write_part(pieces, part)
            step(len(x_ND))


def _write_part(pieces: list[tuple[Tensor, Tensor, Tensor]], part: Path) -> None:
    if not pieces:
        pieces = [(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), torch.zeros(0))]
    features, positions, values = (torch.cat([piece[i] for piece in pieces]).numpy() for i in range(3))
    table = pa.table(
        {
            "feature": features.astype(np.uint32),
            "position": positions.astype(np.uint32),
            "value": values.astype(np.float32),
        }
    )
    with places.whole_file(part) as partial:
        pq.write_table(table, partial, compression="none", use_dictionary=False)


def _write_vocabulary(model: Model, folder: Path) -> None:
    texts = vocabulary(model.tokenizer)
    table = pa.table({"token": np.arange(len(texts), dtype=np.uint32), "text": texts})
    with places.whole_file(folder / "vocabulary.parquet") as partial:
        write_parquet(table, partial)


def _views(db: duckdb.DuckDBPyConnection, folder: Path, work: Path) -> None:
    db.execute(f"CREATE OR REPLACE VIEW act AS SELECT * FROM read_parquet({quoted(work / 'part-*.parquet')})")
    db.execute(f"CREATE OR REPLACE VIEW tok AS SELECT * FROM read_parquet({quoted(folder / 'tokens.parquet')})")


def quoted(path: Path) -> str:
    """A path as a string of SQL."""
    return "'" + str(path).replace("'", "''") + "'"


def _columns(db: duckdb.DuckDBPyConnection, query: str) -> dict[str, np.ndarray]:
    return dict(db.execute(query).fetchnumpy() or {})


def _table(db: duckdb.DuckDBPyConnection, query: str) -> Any:
    return db.sql(query).to_arrow_table()


def _statistics(db: duckdb.DuckDBPyConnection, d_sae: int, kept: int) -> dict[str, Any]:
    """A column a statistic, a row a feature, features that never fire included."""
    db.execute(
        """
        CREATE OR REPLACE TEMP TABLE stat AS
        SELECT feature, count(*) AS fires, avg(value) AS mean, max(value) AS max,
               approx_quantile(value, [0.1, 0.25, 0.5, 0.75, 0.9, 0.99]) AS quantiles
        FROM act GROUP BY feature
        """
    )
    bins = _columns(
        db,
        f"""
        SELECT feature, least(floor({BINS} * value / max), {BINS - 1})::INT AS bin, count(*) AS n
        FROM act JOIN stat USING (feature) GROUP BY ALL
        """,
    )
    histogram = np.zeros((d_sae, BINS), dtype=np.uint32)
    histogram[bins["feature"], bins["bin"]] = bins["n"]
    stat = _table(db, "SELECT * FROM stat")
    rows = stat["feature"].to_numpy()
    fires = _spread(d_sae, rows, stat["fires"].to_numpy(), np.uint32)
    return {
        "feature": np.arange(d_sae, dtype=np.uint32),
        "fires": fires,
        "density": fires / max(kept, 1),
        "mean": _spread(d_sae, rows, stat["mean"].to_numpy(), np.float32),
        "max": _spread(d_sae, rows, stat["max"].to_numpy(), np.float32),
        "quantiles": pa.array(_lists(d_sae, rows, stat["quantiles"]), pa.list_(pa.float32())),
        "histogram": pa.array(list(histogram), pa.list_(pa.uint32())),
        **_token_statistics(db, d_sae),
    }


def _token_statistics(db: duckdb.DuckDBPyConnection, d_sae: int) -> dict[str, Any]:
    """Which tokens and how many documents each feature fires on."""
    db.execute(
        """
        CREATE OR REPLACE TEMP TABLE pair AS
        SELECT feature, token, count(*) AS n, sum(value) AS total
        FROM act JOIN tok USING (position) GROUP BY ALL
        """
    )
    tokens = _table(
        db,
        f"""
        SELECT feature, list(token ORDER BY total DESC, token) AS tokens, list(n ORDER BY total DESC, token) AS counts
        FROM (SELECT *, row_number() OVER (PARTITION BY feature ORDER BY total DESC, token) AS rank FROM pair)
        WHERE rank <= {TOP_TOKENS} GROUP BY feature
        """,
    )
    shares = "SELECT feature, n / sum(n) OVER (PARTITION BY feature) AS p FROM pair"
    entropy = _columns(db, f"SELECT feature, -sum(p * ln(p)) AS nats FROM ({shares}) GROUP BY feature")
    touched = "SELECT feature, count(DISTINCT document) AS n FROM act JOIN tok USING (position) GROUP BY feature"
    documents = _columns(db, touched)
    rows = tokens["feature"].to_numpy()
    return {
        "top_tokens": pa.array(_lists(d_sae, rows, tokens["tokens"]), pa.list_(pa.uint32())),
        "top_token_counts": pa.array(_lists(d_sae, rows, tokens["counts"]), pa.list_(pa.uint32())),
        "token_entropy": _spread(d_sae, entropy["feature"], entropy["nats"], np.float32),
        "documents": _spread(d_sae, documents["feature"], documents["n"], np.uint32),
    }


def _spread(d_sae: int, at: Any, values: Any, dtype: Any) -> np.ndarray:
    """A value a feature, 0 where there is none."""
    column = np.zeros(d_sae, dtype=dtype)
    column[at] = values
    return column


def _lists(d_sae: int, at: Any, values: Any) -> list[Any]:
    """A list a feature, empty where there is none."""
    column: list[Any] = [[] for _ in range(d_sae)]
    for feature, value in zip(at, values.to_pylist(), strict=True):
        column[feature] = value
    return column


def _examples(db: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """The strongest position of a feature in each document is a candidate; kept are the top and a few of each fifth.

    Within a fifth, which are kept is drawn by a hash of the position: the same every time, and no one's choice.
    """
    db.execute(
        """
        CREATE OR REPLACE TEMP TABLE peak AS
        SELECT feature, document, arg_max(position, value) AS position, max(value) AS value
        FROM act JOIN tok USING (position) GROUP BY feature, document
        """
    )
    db.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE example AS
        WITH ranked AS (
            SELECT feature, position, value,
                   row_number() OVER (PARTITION BY feature ORDER BY value DESC, position) AS rank,
                   ntile({BANDS}) OVER (PARTITION BY feature ORDER BY value DESC, position) AS band
            FROM peak
        ), drawn AS (
            SELECT *, row_number() OVER (PARTITION BY feature, band ORDER BY hash(position), position) AS place
            FROM ranked WHERE rank > {TOP_EXAMPLES}
        )
        SELECT feature, 0::UTINYINT AS band, rank::UTINYINT AS rank, position, value FROM ranked WHERE rank <= {TOP_EXAMPLES}
        UNION ALL
        SELECT feature, band::UTINYINT, place::UTINYINT, position, value FROM drawn WHERE place <= {PER_BAND}
        """
    )
    table = _table(
        db,
        "SELECT * FROM example ORDER BY feature, band, rank",
    )
    with places.whole_file(folder / "examples.parquet") as partial:
        write_parquet(_halves(table), partial)


def _halves(table: pa.Table) -> pa.Table:
    values = pa.array(table["value"].to_numpy().astype(np.float16))
    return table.set_column(table.schema.get_field_index("value"), "value", values)


def _activations(db: duckdb.DuckDBPyConnection, folder: Path, keep: str) -> None:
    """activations.parquet by (feature, position); with `all`, positions.parquet by position as well."""
    source = "act"
    if keep == "examples":
        db.execute(
            f"""
            CREATE OR REPLACE TEMP TABLE near AS
            SELECT DISTINCT feature, (position // {WINDOW} + step)::BIGINT AS chunk
            FROM example, (SELECT unnest([-1, 0, 1]) AS step)
            """
        )
        source = f"(SELECT act.* FROM act SEMI JOIN near ON act.feature = near.feature AND act.position // {WINDOW} = near.chunk)"
    orders = {"activations": "feature, position"} | ({"positions": "position, feature"} if keep == "all" else {})
    (folder / "positions.parquet").unlink(missing_ok=True)
    db.execute("SET preserve_insertion_order=true")  # else a streamed result comes out of order
    for name, order in orders.items():
        query = f"SELECT feature, position, value FROM {source} ORDER BY {order}"
        stream: Any = db.sql(query).to_arrow_reader(1 << 20)
        with places.whole_file(folder / f"{name}.parquet") as partial:
            schema = pa.schema({"feature": pa.uint32(), "position": pa.uint32(), "value": pa.float16()})
            # Sorted integers: their differences are small, which a dictionary would hide.
            encoding: dict[str, Any] = {
                "use_dictionary": ["feature"],
                "column_encoding": {"position": "DELTA_BINARY_PACKED"},
            }
            with pq.ParquetWriter(partial, schema, compression="zstd", compression_level=3, **encoding) as writer:
                for batch in stream:
                    writer.write_table(_halves(pa.Table.from_batches([batch])).cast(schema), row_group_size=131_072)


@torch.inference_mode()
def _logits(sae: SAE, model: Model) -> dict[str, Any]:
    """The tokens whose logits each decoder row raises and lowers most, through the final norm's gain."""
    try:
        unembed_VD, gain_D = model.unembedding()
    except InterpError:
        empty = pa.array([[]] * sae.d_sae, pa.list_(pa.uint32()))
        return {"promoted": empty, "suppressed": empty}
    effects: dict[str, list[Any]] = {"promoted": [], "promoted_logits": [], "suppressed": [], "suppressed_logits": []}
    unembed_DV = (unembed_VD * gain_D).T.contiguous().cpu()
    for rows_FD in sae.W_dec.cpu().split(256):
        logits_FV = logit_effects(rows_FD, unembed_DV)
        for name, sign in (("promoted", 1.0), ("suppressed", -1.0)):
            top = (logits_FV * sign).topk(TOP_LOGITS, dim=1)
            effects[name] += list(top.indices.numpy().astype(np.uint32))
            effects[f"{name}_logits"] += list((top.values * sign).numpy().astype(np.float16))
    types = {True: pa.list_(pa.float16()), False: pa.list_(pa.uint32())}
    return {name: pa.array(value, types[name.endswith("logits")]) for name, value in effects.items()}


def logit_effects(rows_FD: Float[Tensor, "F D"], unembed_DV: Float[Tensor, "D V"]) -> Float[Tensor, "F V"]:
    """Direct effect of a unit of each direction on each logit, up to the final norm's scale, less its mean over tokens."""
    logits = rows_FD @ unembed_DV
    return logits - logits.mean(1, keepdim=True)


@torch.inference_mode()
def _neighbours(sae: SAE) -> dict[str, Any]:
    """The features whose decoder rows have the largest cosine with each one's."""
    unit = torch.nn.functional.normalize(sae.W_dec.cpu(), dim=1)
    ids, cosines = [], []
    count = min(NEIGHBOURS, sae.d_sae - 1)
    for start in range(0, sae.d_sae, 512):
        cosine = unit[start : start + 512] @ unit.T
        cosine[torch.arange(len(cosine)), torch.arange(start, start + len(cosine))] = -2
        top = cosine.topk(count, dim=1)
        ids += list(top.indices.numpy().astype(np.uint32))
        cosines += list(top.values.numpy().astype(np.float16))
    return {
        "nearest": pa.array(ids, pa.list_(pa.uint32())),
        "nearest_cosine": pa.array(cosines, pa.list_(pa.float16())),
    }
