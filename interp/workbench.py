"""The workbench: one open SAE with its model, its index and its labels.

wb = Workbench.open("saes/smollm2-135m-instruct/blocks.15.hook_resid_post/batchtopk-9216")
for hit in wb.search("token:/Paris|London/"):
    print(hit.feature, hit.label, hit.score)
"""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from interp import places, verification
from interp.activations import stream
from interp.checkpoint import Card, formats, load, pack, pull, push
from interp.checkpoint.archive import Packed
from interp.checkpoint.card import versions
from interp.checkpoint.record import remember
from interp.checkpoint.remote import Moved
from interp.corpus import Corpus, open_corpus, tokenize
from interp.device import native_bfloat16, resolve_device
from interp.evals import Report, evaluate
from interp.exports import Subject, export
from interp.index import Example, FeatureIndex, Neurons, build_index
from interp.index.build import IndexConfig
from interp.labels import Label, LabelBook
from interp.models import Model, open_model
from interp.models.sentence import sentence_encoder
from interp.progress import bar
from interp.render import Html, table_html, title_html, tokens_html, visible
from interp.sae import SAE
from interp.search import Hits, SavedSearch, Sources, saved, search
from interp.search.meanings import Meanings
from interp.steering import FeatureEdit, SteerRun, generate, model_edit
from interp.types import FeatureRef, InterpError, check_feature, unknown
from interp.verification import Verification

KEPT_ANSWERS = 64
TEXTS_AT_ONCE = 32
EMBEDDED = "saes/smollm2-135m-instruct/blocks.15.hook_resid_post/batchtopk-9216"


@dataclass(frozen=True)
class Coactive:
    """A feature that fires together with another."""

    feature: int
    count: int
    """Tokens on which it fires too."""
    of: int
    """Tokens of the other that were looked at."""
    lift: float
    """Share of them over its density."""


@dataclass(frozen=True, kw_only=True)
class FeaturePage:
    """All that the index and the labels know of one feature."""

    feature: int
    label: Label | None
    description: str
    """Automatic and untested."""
    density: float
    """Share of the index's counted positions."""
    fires: int
    mean: float
    max: float
    quantiles: list[float]
    """Of the activations above 0: 10, 25, 50, 75, 90 and 99 %."""
    histogram: list[int]
    """Counts in 50 equal bins from 0 to `max`."""
    token_entropy: float
    """Entropy in nats of the tokens it fires on."""
    documents: int
    top_tokens: list[tuple[str, int]]
    promoted: list[tuple[str, float]]
    suppressed: list[tuple[str, float]]
    logit_histogram: list[int]
    """Counts of tokens in 50 equal bins from the most suppressed to the most promoted."""
    nearest: list[tuple[int, float]]
    """(feature, decoder cosine)."""
    coactive: list[Coactive]
    neurons: list[tuple[int, int, float]]
    """(layer, neuron, cosine of the decoder row with what the neuron writes)."""
    band_edges: list[float]
    """Largest activation of the documents it fires in, at the edges of their fifths, from strong to weak."""
    examples: list[Example]

    def _repr_html_(self) -> str:
        name = self.label.text if self.label else f"{self.description} (automatic, untested)"
        facts = f"density {self.density:.2e}, max {self.max:.3g}, fires in {self.documents:,} documents"
        logits = table_html(
            ["promotes", "", "suppresses", ""],
            [(visible(a), x, visible(b), y) for (a, x), (b, y) in zip(self.promoted, self.suppressed, strict=True)],
        )
        rows = [
            (e.value, Html(tokens_html(e.tokens, e.values, self.max, peak=e.peak)), e.title) for e in self.examples[:10]
        ]
        return (
            title_html(f"feature {self.feature}: {name}")
            + title_html(facts)
            + table_html(["max", "text", "document"], rows)
            + logits
        )


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Feature by token activations of a text."""

    tokens: list[str]
    counted: list[bool]
    """False at sinks (the first position, separators, massive norms), where nothing is encoded."""
    rows: np.ndarray
    """Token of each entry."""
    features: np.ndarray
    values: np.ndarray

    def largest(self, d_sae: int) -> np.ndarray:
        """Each feature's largest activation on the text."""
        out = np.zeros(d_sae, dtype=np.float64)
        np.maximum.at(out, self.features, self.values)
        return out

    def top(self, token: int, count: int = 5) -> list[tuple[int, float]]:
        """The strongest features at a token."""
        at = self.rows == token
        order = np.argsort(-self.values[at], kind="stable")[:count]
        return [(int(f), float(v)) for f, v in zip(self.features[at][order], self.values[at][order], strict=True)]

    def strongest(self, count: int = 30) -> list[int]:
        """The features with the largest activation anywhere in the text."""
        if not len(self.features):
            return []
        peak = self.largest(int(self.features.max()) + 1)
        order = np.argsort(-peak, kind="stable")[:count]
        return [int(f) for f in order if peak[f] > 0]

    def matrix(self, features: Sequence[int]) -> np.ndarray:
        """Activations of shape (features, tokens)."""
        place = {int(f): i for i, f in enumerate(features)}
        out = np.zeros((len(features), len(self.tokens)))
        for row, feature, value in zip(self.rows, self.features, self.values, strict=True):
            if int(feature) in place:
                out[place[int(feature)], row] = value
        return out

    def to_pandas(self) -> pd.DataFrame:
        """A row an active entry: token number, token, feature, value."""
        tokens = [self.tokens[row] for row in self.rows]
        return pd.DataFrame({"position": self.rows, "token": tokens, "feature": self.features, "value": self.values})

    def _repr_html_(self) -> str:
        rows = []
        for feature in self.strongest(20):
            values = self.matrix([feature])[0]
            rows.append(
                (feature, float(values.max()), Html(tokens_html(self.tokens, list(values), float(values.max()))))
            )
        return table_html(["feature", "max", "text"], rows)


@dataclass(frozen=True, eq=False)
class Workbench:
    """One SAE and everything that can be asked of it; opened by `Workbench.open`."""

    sae: SAE
    card: Card
    folder: Path
    labels: LabelBook
    device: str = "auto"

    @staticmethod
    def open(path: str | Path = EMBEDDED, *, device: str = "auto", labels: str | None = None) -> "Workbench":
        """The checkpoint in a folder, with its labels (a SQLAlchemy URL moves them elsewhere).

        The model and the index are opened when they are first needed. Raises InterpError when the folder is
        no checkpoint with a card.
        """
        folder = resolve(path)
        if folder.is_dir() and not (folder / "card.json").exists():
            raise InterpError(
                f"{folder} has no card.json, so its model and hook point are unknown; open it with interp.load instead."
            )
        sae = load(folder)
        card = Card.read(folder)
        book = LabelBook(card.sae_sha256, sae.d_sae, url=labels, shipped=folder / "labels.jsonl")
        return Workbench(sae, card, folder, book, device)

    @cached_property
    def model(self) -> Model:
        """The model the SAE was made for; InterpError when another one answers to its name."""
        # As when its activations were harvested; bfloat16 only where it is native, for elsewhere it takes minutes.
        native = native_bfloat16(resolve_device(self.device))
        dtype = "float32" if self.card.dtype == "bfloat16" and not native else self.card.dtype
        model = open_model(self.card.model, dtype=dtype, device=self.device, attention=self.card.attention)
        if model.fingerprint() != self.card.model_sha256:
            raise InterpError(
                f"{self.card.name} was made for {self.card.model} with weights {self.card.model_sha256[:12]}…, and the "
                f"{self.card.model} found here has {model.fingerprint()[:12]}…; open the model it was trained on."
            )
        self.sae.to(model.device)
        return model

    @property
    def full_index_folder(self) -> Path:
        return places.cache() / "indexes" / self.card.sae_sha256

    def _index_folder(self, name: str = "") -> Path:
        return self.full_index_folder.with_name(f"{self.card.model_sha256}-{name}") if name else self.full_index_folder

    @cached_property
    def index(self) -> FeatureIndex:
        """The full index where one was built, else the one that came with the checkpoint."""
        full = self.full_index_folder
        index = FeatureIndex.open(full if (full / "index.json").exists() else self.folder / "index")
        if index.meta["sae_sha256"] != self.card.sae_sha256:
            raise InterpError(
                f"the index in {index.folder} was made for other weights; `interp index {self.folder}` builds it anew."
            )
        return index

    def search(self, query: str = "", *, limit: int = 20) -> Hits:
        """Features that meet the query (keys: `interp.search.KEYS`), best first."""
        return search(query, self._sources, limit=limit)

    @cached_property
    def _answers(self) -> dict[Any, Any]:
        """What the model said of texts that were searched with, so that a page can be drawn again at once."""
        return {}

    @cached_property
    def _meanings(self) -> Meanings:
        return Meanings(lambda texts: sentence_encoder().encode(texts), places.cache() / "meanings.sqlite")

    @property
    def _sources(self) -> Sources:
        def once(what: str, make: Callable[..., Any]) -> Callable[..., Any]:
            def kept(*asked: Any) -> Any:
                key = what, *(tuple(a) if isinstance(a, list) else a for a in asked)
                if key not in self._answers:
                    while len(self._answers) >= KEPT_ANSWERS:
                        self._answers.pop(next(iter(self._answers)))
                    self._answers[key] = make(*asked)
                return self._answers[key]

            return kept

        return Sources(
            self.index,
            self.labels,
            directions=lambda: self.sae.W_dec.cpu(),
            activations=once("activations", self.spectrum),
            largest=once("largest", self.largest),
            meanings=self._meanings if self.index.meanings is not None else None,
        )

    def save_search(self, name: str, query: str, *, limit: int = 20) -> SavedSearch:
        """Run the query and keep it with its answer, by name under INTERP_HOME or at a path; the search comes back."""
        kept = SavedSearch.of(name, self.search(query, limit=limit), limit, self.index.meta)
        kept.write(saved.place(name, self.card.sae_sha256))
        return kept

    def rerun_search(self, name: str) -> tuple[SavedSearch, Hits]:
        """A saved search and its answer now; `SavedSearch.changes` tells what came and went."""
        kept = saved.find(name, self.card.sae_sha256)
        if kept.sae_sha256 != self.card.sae_sha256:
            raise InterpError(f"the search {name} was asked of another SAE ({kept.sae_sha256[:12]}…).")
        return kept, self.search(kept.query, limit=kept.limit)

    def saved_searches(self) -> list[str]:
        return saved.names(self.card.sae_sha256)

    @torch.inference_mode()
    def largest(self, texts: Sequence[str], tokens: int) -> np.ndarray:
        """Each feature's largest activation on the first `tokens` tokens of each text, float32 (texts, features).

        Sinks are left out, as everywhere. Texts of similar length are run together.
        """
        self._check_kind("running texts", writes=False)
        hook, model = self.card.hook_name, self.model
        ids = [[model.separator, *model.tokenize(text)[:tokens]] for text in texts]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        out = np.zeros((len(ids), self.sae.d_sae), dtype=np.float32)
        with bar("reading texts", len(ids), "texts") as step:
            for start in range(0, len(order), TEXTS_AT_ONCE):
                rows = order[start : start + TEXTS_AT_ONCE]
                width = max(len(ids[i]) for i in rows)
                # Padded on the right: attention is causal, so padding changes nothing before it.
                tokens_BT = torch.full((len(rows), width), model.separator)
                for row, i in enumerate(rows):
                    tokens_BT[row, : len(ids[i])] = torch.tensor(ids[i])
                x_ND = model.run(tokens_BT, [hook]).activations[hook].float().flatten(0, 1)
                real_N = (tokens_BT != self.card.separator).flatten().to(x_ND.device)
                where = (real_N & (x_ND.norm(dim=1) <= self.card.norm_cutoff)).nonzero().squeeze(1)
                active = self.sae.active(x_ND[where])
                row_N = np.array(rows)[(where[active.rows] // width).cpu().numpy()]
                np.maximum.at(out, (row_N, active.features.cpu().numpy()), active.values.cpu().numpy())
                step(len(rows))
        return out

    def feature(self, feature: int) -> FeaturePage:
        """The feature's page; InterpError when there is no such feature."""
        index = self.index
        row = index.row(feature)

        def pairs(column: str) -> list[tuple[str, float]]:
            return list(zip(index.text(row[column]), map(float, row[f"{column}_logits"]), strict=True))

        return FeaturePage(
            feature=int(feature),
            label=self.labels.get(int(feature)),
            description=index.describe(int(feature)),
            density=float(row["density"]),
            fires=int(row["fires"]),
            mean=float(row["mean"]),
            max=float(row["max"]),
            quantiles=[float(q) for q in row["quantiles"]],
            histogram=[int(n) for n in row["histogram"]],
            token_entropy=float(row["token_entropy"]),
            documents=int(row["documents"]),
            top_tokens=list(zip(index.text(row["top_tokens"]), map(int, row["top_token_counts"]), strict=True)),
            promoted=pairs("promoted"),
            suppressed=pairs("suppressed"),
            logit_histogram=[int(n) for n in row["logit_histogram"]],
            nearest=[(int(f), float(c)) for f, c in zip(row["nearest"], row["nearest_cosine"], strict=True)],
            coactive=[
                Coactive(int(f), int(n), int(row["coactive_of"]), float(lift))
                for f, n, lift in zip(row["coactive"], row["coactive_count"], row["coactive_lift"], strict=True)
            ],
            neurons=[
                (int(layer), int(n), float(cosine))
                for layer, n, cosine in zip(row["neuron_layers"], row["neurons"], row["neuron_cosines"], strict=True)
            ],
            band_edges=[float(edge) for edge in row["band_edges"]],
            examples=index.examples(int(feature)),
        )

    def name(self, feature: int) -> str:
        """The feature's label, or its automatic description."""
        label = self.labels.get(feature)
        return label.text if label else self.index.describe(feature)

    @torch.inference_mode()
    def spectrum(self, text: str, *, include_masked: bool = False) -> Spectrum:
        """Which features fire on each token of a text. Sinks are left out unless `include_masked`."""
        self._check_kind("the spectrum", writes=False)
        ids = self.model.prompt(text)
        hook = self.card.hook_name
        x_TD = self.model.run(torch.tensor([ids]), [hook]).activations[hook][0].float()
        tokens = torch.tensor(ids, device=x_TD.device)
        counted = (tokens != self.card.separator) & (x_TD.norm(dim=1) <= self.card.norm_cutoff)
        counted[0] = False
        kept = torch.ones_like(counted) if include_masked else counted
        where = kept.nonzero().squeeze(1)
        active = self.sae.active(x_TD[where])
        return Spectrum(
            tokens=[self._token(token) for token in ids],
            counted=counted.tolist(),
            rows=where[active.rows].cpu().numpy(),
            features=active.features.cpu().numpy(),
            values=active.values.cpu().numpy(),
        )

    def _token(self, token: int) -> str:
        return self._vocabulary[token]

    @cached_property
    def _vocabulary(self) -> list[str]:
        from interp.models.vocabulary import vocabulary

        return vocabulary(self.model.tokenizer)

    def steer(
        self,
        prompt: str,
        edits: Sequence[FeatureEdit],
        *,
        max_new_tokens: int = 40,
        seed: int = 0,
        temperature: float = 0.0,
        top_p: float = 1.0,
        chat: bool = False,
    ) -> SteerRun:
        """What the model says after the prompt, with and without the edits. `chat` uses the model's template."""
        self.check_edits(edits)
        hooked = [
            model_edit(e, self.sae, norm_cutoff=self.card.norm_cutoff, separator=self.card.separator) for e in edits
        ]
        model = self.model
        ids = model.chat([{"role": "user", "content": prompt}]) if chat else model.prompt(prompt)
        settings: dict[str, Any] = {"seed": seed, "temperature": temperature, "top_p": top_p}
        baseline, steered = generate(model, ids, hooked, max_new_tokens=max_new_tokens, **settings)
        return SteerRun(
            prompt=prompt,
            edits=[{"kind": type(edit).__name__, **asdict(edit)} for edit in edits],
            baseline=model.decode(baseline),
            steered=model.decode(steered),
            prompt_tokens=ids,
            baseline_tokens=baseline,
            steered_tokens=steered,
            model=model.name,
            model_sha256=self.card.model_sha256,
            dtype=model.dtype_name,
            attention=model.attention,
            sae=self.card.name,
            sae_sha256=self.card.sae_sha256,
            versions=versions(),
            **settings,
        )

    def build_index(
        self,
        corpus: str | Corpus,
        tokens: int,
        *,
        keep: str = "all",
        beside: bool = False,
        extend: bool = False,
        restart: bool = False,
        into: str = "",
        memory_gib: float = 2.0,
    ) -> Path | str:
        """Index the SAE over `tokens` positions of a corpus; where it lies comes back.

        The full index lies under INTERP_HOME, where this workbench and every later one find it; `beside` writes
        it into the checkpoint's folder, to be shared; `into` sends a copy to a URL that fsspec knows. `extend` adds
        documents that the index does not have yet. A killed build goes on when called again, unless `restart`.
        """
        self._check_kind("an index", writes=False)
        if keep not in ("all", "examples"):
            raise unknown("way to keep activations", keep, ["all", "examples"])
        text = open_corpus(corpus) if isinstance(corpus, str) else corpus
        folder = self.folder / "index" if beside else self.full_index_folder
        if restart:
            shutil.rmtree(folder / ".build", ignore_errors=True)
        if extend:
            text = text.without(set(FeatureIndex.open(folder).documents["sha256"]))
        config = IndexConfig(keep="all" if keep == "all" else "examples", memory_gib=memory_gib, extend=extend)
        norm, sha = self.card.norm_cutoff, self.card.sae_sha256
        source = stream(self.model, text, self.card.hook_name, tokens)
        build_index(self.sae, source, self.model, folder, config, norm_cutoff=norm, sae_sha256=sha)
        self.__dict__.pop("index", None)
        if into:
            places.send(folder, into)
        return into or folder

    def neurons(self, layer: int) -> Neurons:
        """The raw MLP neurons of a layer as a dictionary; InterpError when the model's cannot be told."""
        outputs = self.model.neuron_outputs(self.sae.d_out)
        if layer not in outputs:
            known = f"layers 0 to {len(outputs) - 1} are known" if outputs else "its MLP weights could not be told"
            raise InterpError(f"no neurons of layer {layer} in {self.card.model}: {known}.")
        return Neurons(f"{self.card.model} layer {layer} neurons", f"blocks.{layer}.mlp.hook_post", outputs[layer])

    def build_neuron_index(self, layer: int, corpus: str | Corpus, tokens: int, *, keep: str = "all") -> Path:
        """Index the raw neurons of a layer, by the same code as features; found again by `neuron_bench`."""
        dictionary = self.neurons(layer)
        text = open_corpus(corpus) if isinstance(corpus, str) else corpus
        folder = self._index_folder(dictionary.hook_name)
        source = stream(self.model, text, dictionary.hook_name, tokens)
        config = IndexConfig(keep="all" if keep == "all" else "examples")
        build_index(dictionary, source, self.model, folder, config, norm_cutoff=float("inf"))
        return folder

    def neuron_index(self, layer: int) -> FeatureIndex:
        """The index of a layer's neurons; row 2n is neuron n where positive, row 2n + 1 where negative."""
        folder = self._index_folder(f"blocks.{layer}.mlp.hook_post")
        if not (folder / "index.json").exists():
            raise InterpError(
                f"there is no index of the neurons of layer {layer}; `interp index {self.folder} --neurons {layer}` builds it."
            )
        return FeatureIndex.open(folder)

    def search_neurons(self, layer: int, query: str = "", *, limit: int = 20) -> Hits:
        """Rows of a layer's neurons that meet the query: the keys that need no label and run no model."""
        index = self.neuron_index(layer)
        empty = LabelBook("", index.d_sae, url="sqlite://")
        return search(query, Sources(index, empty, meanings=self._sources.meanings), limit=limit)

    def evaluate(self, corpus: str | Corpus, tokens: int) -> Report:
        """Fidelity on the corpus's held-out split (documents that no training here reads)."""
        self._check_kind("evaluation", writes=True)
        text = open_corpus(corpus) if isinstance(corpus, str) else corpus
        blocks = tokenize(text, self.model, tokens, split="heldout")
        return evaluate(self.model, self.sae, blocks, norm_cutoff=self.card.norm_cutoff)

    def pack(self, into: str | Path, *, labels: bool = False) -> Packed:
        """One file of the checkpoint (see `checkpoint.archive`); `labels` takes those of this machine with it."""
        with tempfile.TemporaryDirectory() as made:
            return pack(self.folder, into, added=self._labels(Path(made)) if labels else {})

    def export(self, form: str, into: str | Path, features: Sequence[int] | None = None) -> list[str]:
        """Features (all that fire, without) for other tools: formats are `interp.exports.EXPORTS`.

        What the format does not hold comes back, a phrase each.
        """
        subject = Subject(sae=self.sae, card=self.card, index=self.index, labels=self.labels.all())
        return export(subject, form, into, features)

    def push(self, to: str, *, labels: bool = False, **given: Any) -> Moved:
        """Share the checkpoint on a hub or at a URL (see `checkpoint.remote`); `labels` as for `pack`."""
        with tempfile.TemporaryDirectory() as made:
            return push(self.folder, to, added=self._labels(Path(made)) if labels else {}, **given)

    def _labels(self, folder: Path) -> dict[str, Path]:
        """The current labels, shipped and own, as the file that ships; none when there are none."""
        path = folder / "labels.jsonl"
        return {path.name: path} if self.labels.export(path) else {}

    def _check_kind(self, what: str, *, writes: bool) -> None:
        """Raises InterpError for what needs one hook point to read and, if `writes`, the same to write."""
        if self.sae.widths:
            raise InterpError(
                f"{self.card.name} is a crosscoder over {self.card.hook_name}; {what} works with one hook point so far."
            )
        if writes and self.sae.hook_name_out:
            raise InterpError(
                f"{self.card.name} is a transcoder that writes {self.sae.hook_name_out}; {what} works with SAEs, which "
                "write what they read."
            )

    def check_edits(self, edits: Sequence[FeatureEdit]) -> None:
        """Raises InterpError, before any model is opened, when an edit cannot be made."""
        self._check_kind("steering", writes=True)
        for edit in edits:
            if isinstance(edit.feature, FeatureRef) and edit.feature.sae != self.card.name:
                raise InterpError(f"feature {edit.feature} belongs to another SAE than {self.card.name}.")
            model_edit(edit, self.sae, norm_cutoff=self.card.norm_cutoff, separator=self.card.separator)
            number = edit.feature.feature if isinstance(edit.feature, FeatureRef) else edit.feature
            check_feature(number, self.sae.d_sae, self.card.name)

    def _repr_html_(self) -> str:
        metrics = {k: v for k, v in self.card.metrics.items() if isinstance(v, (int, float))}
        rows = [
            ("model", self.card.model),
            ("hook", self.card.hook_name),
            ("features", self.sae.d_sae),
            *metrics.items(),
        ]
        return title_html(self.card.name) + table_html(["", ""], rows)


def verify(
    path: str | Path,
    *,
    model: str = "",
    hook_name: str = "",
    numbers: bool = True,
    write: bool = False,
    device: str = "auto",
) -> Verification:
    """What can be checked of a checkpoint, with a card or without (see `interp.verification`).

    `write` first stores hashes, numbers and tolerances in it, which is its maker's part. What came of it is remembered
    for the library's list.
    """
    folder = resolve(path)
    carded = (folder / "card.json").exists()
    if write and not carded:
        raise InterpError(f"{folder} has no card.json to write hashes into; a checkpoint trained here has one.")
    if write:
        verification.seal(folder, device=device)
    if carded:
        found = verification.verify(folder, model=model, device=device, numbers=numbers)
    else:
        found = verification.verify_plain(folder, model=model, hook_name=hook_name, device=device)
    if not model:  # with another model than it names, the answer is of that question only
        remember(folder, found.verdict, found.dtype)
    return found


def convert(source: str | Path, target: str, into: str | Path, **given: Any) -> dict[str, Any]:
    """Convert a checkpoint (see `checkpoint.formats.convert`), and compare what was written with what was read.

    The comparison is on activations of the model it was made for where that opens, else on rows drawn at random, and
    says which. In SAELens' format a card is written too, when the model opens: the folder is a checkpoint like one's own.
    """
    try:
        place: str | Path = resolve(source)
    except InterpError:
        place = source
    return verification.adopt(formats.convert(place, target, into, **given))


def pull_checkpoint(
    source: str, into: str | Path, *, model: str = "", hook_name: str = "", endpoint: str | None = None
) -> tuple[Moved, str]:
    """Fetch a checkpoint (see `checkpoint.remote.pull`); one without a card gets one where its model opens.

    The sentence beside it says why there is no card; it is empty when there is one.
    """
    moved = pull(source, into, endpoint=endpoint)
    if not (Path(into) / "card.json").exists():
        try:
            verification.give_card(Path(into), model, hook_name, source=moved.address)
        except InterpError as error:
            return moved, f"it has no card, and none could be made: {error}"
    return moved, ""


def resolve(path: str | Path) -> Path:
    """The checkpoint's folder: as given, or below the project's or the working folder's `saes/`."""
    given = Path(path).expanduser()
    for candidate in (given, Path("saes") / given, places.shipped(str(given))):
        if (candidate / "cfg.json").exists():
            return candidate
    if given.is_dir():
        raise InterpError(f"{given} is not a checkpoint: it has no cfg.json.")
    known = sorted(str(cfg.parent) for cfg in Path("saes").glob("**/cfg.json"))
    exists = f" Here there is {', '.join(known)}." if known else " `interp train` makes one."
    raise InterpError(f"there is no SAE at {given}.{exists}")
