"""The workbench: one open SAE with its model, its index and its labels.

wb = Workbench.open("saes/smollm2-135m-instruct/blocks.15.hook_resid_post/batchtopk-9216")
for hit in wb.search("token:/Paris|London/"):
    print(hit.feature, hit.label, hit.score)
"""

import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from interp import exports, places, verification
from interp.activations import ActivationStore, stream
from interp.checkpoint import Card, formats, load, pack, pull, push
from interp.checkpoint.archive import Packed
from interp.checkpoint.card import versions
from interp.checkpoint.files import LABELS, present, resolve
from interp.checkpoint.record import remember
from interp.checkpoint.remote import Moved
from interp.corpus import Corpus, open_corpus, read_texts, tokenize
from interp.device import native_bfloat16, resolve_device
from interp.evals import Report, evaluate
from interp.evals import record as evaluations
from interp.index import Example, FeatureIndex, Neurons, build_index
from interp.index.build import IndexConfig
from interp.index.unembedding import asked_rows, token_rows
from interp.labels import LabelBook
from interp.models import Model, open_model
from interp.models.sentence import sentence_encoder
from interp.progress import bar
from interp.publishing import Published, lacks, publish
from interp.render import table_html, title_html
from interp.render.words import counted
from interp.sae import SAE
from interp.search import Hits, SavedSearch, Sources, saved, search
from interp.search.meanings import Meanings
from interp.steering import (
    Add,
    Clamp,
    Direction,
    Effects,
    FeatureEdit,
    Hooked,
    Preset,
    Replay,
    Sampling,
    Stage,
    SteerBatch,
    SteerRun,
    Subject,
    Sweep,
    SweepConfig,
    Verdict,
    compare,
    contrast,
    effects,
    generate,
    generate_many,
    judge,
    matched_features,
    presets,
    sweep,
)
from interp.steering.detection import FIFTHS, Detection, Peak, detection
from interp.steering.edits import check_edit, from_dict
from interp.steering.run import check_record, check_request, check_seed
from interp.steering.verdict import MATCHED
from interp.types import FeatureRef, InterpError, check_feature, unknown
from interp.verification import Verification
from interp.views import FeaturePage, NeuronPage, Spectrum, feature_page

KEPT_ANSWERS = 64
INDEXED = 1_000_000
"""Positions of a corpus that are indexed when nobody says how many."""
TEXTS_AT_ONCE = 32
NO_CUTOFF = 1e30
"""A norm that no position exceeds; JSON has no infinity."""
EMBEDDED = "saes/smollm2-135m-instruct/blocks.15.hook_resid_post/batchtopk-9216"


@dataclass(frozen=True, eq=False)
class Workbench:
    """One SAE and everything that can be asked of it; opened by `Workbench.open`."""

    sae: SAE
    card: Card
    folder: Path
    labels: LabelBook
    device: str = "auto"
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)
    """Of what is opened once for all threads (pages in several browser tabs) that share this object."""

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

    @property
    def model(self) -> Model:
        """The model the SAE was made for, opened once; InterpError when another one answers to its name."""
        with self._lock:  # since Python 3.12 a cached_property has none of its own
            if "model" not in self._opened:
                self._opened["model"] = self._open_model()
            return self._opened["model"]

    @cached_property
    def _opened(self) -> dict[str, Model]:
        return {}

    def _open_model(self) -> Model:
        # As when its activations were harvested; bfloat16 only where it is native, for elsewhere it takes minutes.
        native = native_bfloat16(resolve_device(self.device))
        dtype = "float32" if self.card.dtype == "bfloat16" and not native else self.card.dtype
        model = open_model(self.card.model, dtype=dtype, device=self.device, attention=self.card.attention)
        here = model.fingerprint_like(self.card.model_sha256)
        if here != self.card.model_sha256:
            raise InterpError(
                f"{self.card.name} was made for {self.card.model} with weights {self.card.model_sha256[:12]}…, and the "
                f"{self.card.model} found here has {here[:12]}…; open the model it was trained on."
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
                answer = self._answers.get(key)
                if answer is None:
                    answer = make(*asked)  # outside the lock, for it runs the model: two may ask the same at once
                    with self._lock:
                        while len(self._answers) >= KEPT_ANSWERS:
                            self._answers.pop(next(iter(self._answers)))
                        self._answers[key] = answer
                return answer

            return kept

        return Sources(
            self.index,
            self.labels,
            directions=lambda: self.sae.W_dec.cpu(),
            unembedding=partial(self._unembedding, self.index),
            activations=once("activations", self.spectrum),
            largest=once("largest", self.largest),
            meanings=self._meanings if self.index.meanings is not None else None,
        )

    def _unembedding(self, index: FeatureIndex, tokens: list[int]) -> torch.Tensor:
        """What the tokens' logits read from the residual stream, shape (tokens, d): of a full index from its own file, else
        from the model's weights, which are opened for it once and kept under INTERP_HOME/cache."""
        if index.unembedding is not None:
            return asked_rows(index.unembedding.T, tokens)
        path = places.cache() / "unembeddings" / f"{self.card.model_sha256}.safetensors"
        return token_rows(path, tokens, lambda: self.model)

    def save_search(self, name: str, query: str | Hits, *, limit: int = 20) -> SavedSearch:
        """Keep a search with its answer, by name under INTERP_HOME or at a path; the search comes back.

        A query is run first; the answer of `search` or `rerun_search` is kept as it is.
        """
        hits = query if isinstance(query, Hits) else self.search(query, limit=limit)
        kept = SavedSearch.of(name, hits, limit, self.index.meta)
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
        ids = [[self.model.separator, *self.model.tokenize(text)[:tokens]] for text in texts]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        out = np.zeros((len(ids), self.sae.d_sae), dtype=np.float32)
        with bar("reading texts", len(ids), "texts") as step:
            for start in range(0, len(order), TEXTS_AT_ONCE):
                rows = order[start : start + TEXTS_AT_ONCE]
                tokens_BT, x_BTD = self._residuals([ids[i] for i in rows])
                width, x_ND = tokens_BT.shape[1], x_BTD.flatten(0, 1)
                real_N = (tokens_BT != self.card.separator).flatten().to(x_ND.device)
                where = (real_N & (x_ND.norm(dim=1) <= self.card.norm_cutoff)).nonzero().squeeze(1)
                active = self.sae.active(x_ND[where])
                row_N = np.array(rows)[(where.cpu()[active.rows.cpu()] // width).numpy()]
                np.maximum.at(out, (row_N, active.features.cpu().numpy()), active.values.cpu().numpy())
                step(len(rows))
        return out

    def feature(self, feature: int) -> FeaturePage:
        """The feature's page; InterpError when there is no such feature."""
        return feature_page(self.index, feature, self.labels.get(int(feature)))

    def neuron(self, layer: int, neuron: int) -> NeuronPage:
        """A raw neuron, by its layer's index, beside the features nearest to what it writes.

        Raises InterpError when there is no such neuron, or the layer's index is not built (`build_neuron_index`).
        """
        index = self.neuron_index(layer)
        count = index.d_sae // 2
        if not 0 <= neuron < count:
            raise InterpError(f"no neuron {neuron} in layer {layer}; its neurons are 0 to {count - 1}.")
        signs = [feature_page(index, 2 * neuron + sign, None) for sign in (0, 1)]
        near = self.index.features_near(layer, neuron)
        return NeuronPage(
            layer=layer,
            neuron=neuron,
            positive=signs[0],
            negative=signs[1],
            features=[(self.feature(int(f)), float(c)) for f, c in zip(near["feature"], near["cosine"], strict=True)],
            untangled=self._untangled(index, [e for page in signs for e in page.examples]),
        )

    @torch.inference_mode()
    def _untangled(self, index: FeatureIndex, examples: list[Example]) -> dict[int, list[tuple[int, float, str]]]:
        """See `NeuronPage.untangled`; each example is read in its own window, without what stood before it."""
        self._check_kind("running texts", writes=False)
        peak_F, found = np.maximum(self.index.features["max"].to_numpy(), 1e-12), {}
        for start in range(0, len(examples), TEXTS_AT_ONCE):
            some = examples[start : start + TEXTS_AT_ONCE]
            first = [e.position - e.peak for e in some]
            windows = [index.tokens[low : low + len(e.tokens)].tolist() for low, e in zip(first, some, strict=True)]
            x_BTD = self._residuals([[self.model.separator, *window] for window in windows])[1]
            x_BD = x_BTD[range(len(some)), [e.peak + 1 for e in some]]
            active = self.sae.active(x_BD)
            features, values = active.features.cpu().numpy(), active.values.cpu().numpy()
            for row in (x_BD.norm(dim=1) <= self.card.norm_cutoff).nonzero().squeeze(1).tolist():
                own = slice(int(active.offsets[row]), int(active.offsets[row + 1]))
                share = values[own] / peak_F[features[own]]
                best = np.argsort(-share, kind="stable")[:3]
                pairs = zip(features[own][best].tolist(), share[best].tolist(), strict=True)
                found[some[row].position] = [(f, s, self.name(f)) for f, s in pairs]
        return found

    def _residuals(self, ids: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Texts of token ids side by side, (texts, longest), and their activations at the SAE's hook point in float32."""
        tokens_BT = torch.full((len(ids), max(map(len, ids))), self.model.separator)
        for row, text in enumerate(ids):  # padded on the right: attention is causal, so nothing before it changes
            tokens_BT[row, : len(text)] = torch.tensor(text)
        hook = self.card.hook_name
        return tokens_BT, self.model.run(tokens_BT, [hook]).activations[hook].float()

    def name(self, feature: int) -> str:
        """The feature's label, or its automatic description."""
        label = self.labels.get(feature)
        return label.text if label else self.index.describe(feature)

    @torch.inference_mode()
    def spectrum(self, text: str, *, include_masked: bool = False, special: bool = False) -> Spectrum:
        """Which features fire on each token of a text. Sinks are left out unless `include_masked`.

        Special tokens that the text spells stay text unless `special` (see `Model.prompt`).
        """
        self._check_kind("the spectrum", writes=False)
        ids = self.model.prompt(text, special=special)
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
            rows=where.cpu()[active.rows.cpu()].numpy(),
            features=active.features.cpu().numpy(),
            values=active.values.cpu().numpy(),
        )

    def _token(self, token: int) -> str:
        return self._vocabulary[token]

    @cached_property
    def _vocabulary(self) -> list[str]:
        return self.model.vocabulary

    # ---- steering: thin ways into interp.steering, with what the index and the labels know ----

    @cached_property
    def stage(self) -> Stage:
        """The model with this SAE (and those that edits have named) at their hook points, for `interp.steering`."""
        identity = {
            "sae": self.card.name,
            "sae_sha256": self.card.sae_sha256,
            "hook_name": self.card.hook_name,
            "model": self.model.name,
            "model_sha256": self.card.model_sha256,
            "versions": versions(),
        }
        return Stage(self.model, self._saes, lambda: self._vocabulary, identity)

    @cached_property
    def _saes(self) -> dict[str, Hooked]:
        own = Hooked(self.sae, self.card.norm_cutoff, self.card.separator, self.card.sae_sha256)
        return {"": own, self.card.name: own}

    def steer(
        self,
        prompt: str,
        edits: Sequence[FeatureEdit],
        *,
        on_text: Callable[[str, str], None] | None = None,
        **sampling: Any,
    ) -> SteerRun:
        """What the model says after the prompt, with and without the edits.

        `sampling` are the fields of `interp.steering.Sampling`: max_new_tokens, seed, temperature, top_p, stop, chat, special.
        `on_text` is told the baseline and the steered text after every token.
        """
        settings = _sampling(sampling)
        self.check_edits(edits)
        return generate(self.stage, prompt, edits, settings, on_text)

    def steer_many(
        self,
        prompts: Sequence[str],
        variants: Sequence[Sequence[FeatureEdit]],
        *,
        seeds: Sequence[int] = (0,),
        **sampling: Any,
    ) -> SteerBatch:
        """Every prompt under every set of edits (an empty one is the baseline) with every seed, in one batch."""
        settings = _sampling(sampling)
        self.check_edits([edit for edits in variants for edit in edits])
        return generate_many(self.stage, prompts, variants, seeds, settings)

    def check_steering(
        self, prompts: Sequence[str], variants: Sequence[Sequence[FeatureEdit]], **sampling: Any
    ) -> None:
        """Raises InterpError, before anything is computed, when the prompts cannot be continued under these edits."""
        settings = _sampling(sampling)
        self.check_edits([edit for edits in variants for edit in edits])
        check_request(self.stage, self.stage.prompts(prompts, settings.chat, settings.special), variants, settings)

    def contrast(
        self,
        toward: Sequence[str] | str | Path,
        away: Sequence[str] | str | Path,
        *,
        hook_name: str | None = None,
        name: str = "contrast",
    ) -> Direction:
        """The difference of mean activations of two sets of texts, to steer by with `Add(feature=direction, ...)`.

        A set is a sequence of texts, or the name of a file or corpus of them, as `contrast:` of a search takes it.
        """
        own = hook_name in (None, self.card.hook_name)
        cutoff = self.card.norm_cutoff if own else None
        toward, away = (list(read_texts(x)) if isinstance(x, str | Path) else x for x in (toward, away))
        return contrast(self.model, toward, away, hook_name or self.card.hook_name, norm_cutoff=cutoff, name=name)

    def stand_in(self) -> Direction:
        """A direction of the right place and width, to check a request with before `contrast` computes the true one."""
        card = self.card
        ones = (1.0,) * self.sae.d_in
        return Direction(name="contrast", hook_name=card.hook_name, vector=ones, norm_cutoff=card.norm_cutoff)

    def sweep(
        self,
        feature: int | FeatureRef | Direction,
        *,
        config: SweepConfig | None = None,
        largest: float | None = None,
        words: str | None = None,
        note: Callable[[str], None] = lambda text: None,
        **sampling: Any,
    ) -> Sweep:
        """Dose and response of a feature (or a direction), its controls and the verdict.

        Strengths are multiples of `largest`, by default the feature's largest activation in the index. `words` is
        the text of the prompt-only baseline, by default made of the label or of the tokens the feature fires on.
        """
        settings, config = _sampling(sampling), config or SweepConfig()
        self.check_edits([Add(feature=feature, strength=largest or 1.0, where=config.where)])
        subject = self.subject(feature, largest=largest, words=words)
        return sweep(self.stage, subject, config, settings, note)

    def verdict(self, feature: int | FeatureRef | Direction, *, largest: float | None = None) -> Verdict:
        """Controller, detector, both or neither, and the figures that say so."""
        self.check_edits([Add(feature=feature, strength=largest or 1.0)])
        return judge(self.stage, self.subject(feature, largest=largest))

    def subject(
        self, feature: int | FeatureRef | Direction, *, largest: float | None = None, words: str | None = None
    ) -> Subject:
        """What the index knows of a feature that steering needs: strength, matched features, tokens at its peaks."""
        if isinstance(feature, Direction):
            return Subject(source=feature, largest=1.0 if largest is None else largest, words=words or "")
        own = self._own(feature)
        row = self.index.row(own)
        matched = self._matched(own)
        if words is None:
            label = self.labels.get(own)
            fired = list(dict.fromkeys(t.strip() for t in self.index.text(row["top_tokens"]) if t.strip()))
            about = f"is about {label.text}" if label else f"uses the words {', '.join(fired[:5])}"
            words = f"The following text {about}." if label or fired else ""
        return Subject(
            source=own,
            largest=float(row["max"]) if largest is None else largest,
            matched=matched,
            peaks=self._peaks([own, *matched]),
            firings=self.index.firings(own),
            fires=int(row["fires"]),
            all_firings=not self.index.partial,
            words=words,
        )

    def _matched(self, feature: int) -> tuple[int, ...]:
        density = self.index.features["density"].to_numpy()
        return matched_features(density, feature, min(MATCHED, int((density > 0).sum()) - 1))

    def _own(self, feature: int | FeatureRef) -> int:
        if isinstance(feature, FeatureRef) and feature.sae != self.card.name:
            raise InterpError(f"the index here is {self.card.name}'s; open {feature.sae} to ask this of {feature}.")
        number = feature.feature if isinstance(feature, FeatureRef) else feature
        return check_feature(number, self.sae.d_sae, self.card.name)

    def _peaks(self, features: Sequence[int]) -> dict[int, list[Peak]]:
        """Where the features' examples peak, strongest first, then by fifths of documents."""
        wanted = ", ".join(str(int(f)) for f in features)
        found = self.index.sql(
            f"SELECT feature, band, rank, position FROM {{examples}} WHERE feature IN ({wanted}) ORDER BY feature, band, rank"
        )
        position = found["position"].to_numpy()
        split = self.index.documents["split"].to_numpy()[self.index.document_at[position]]
        # Documents' splits say what was kept from training where the training kept to its split.
        kept = (split != "train") & (self.card.corpus.get("split") == "train")
        documents = self.index.features["documents"].to_numpy()
        peaks: dict[int, list[Peak]] = {int(f): [] for f in features}
        columns = (found["feature"], found["band"], found["rank"], self.index.tokens[position], kept)
        for feature, band, rank, token, reserved in zip(*columns, strict=True):
            fifth = int(band) or (int(rank) - 1) * FIFTHS // int(documents[feature]) + 1
            peak = Peak(token=int(token), fifth=fifth, strongest=band == 0, reserved=bool(reserved))
            peaks[int(feature)].append(peak)
        return peaks

    def detection(self, feature: int) -> Detection:
        """How many of the feature's examples peak on a token that another's peaks on: strongest, and by fifths."""
        own = self._own(feature)
        folded = [text.strip().lower() or text for text in self.index.vocabulary]
        return detection(self._peaks([own])[own], folded)

    def effects(
        self, feature: int | FeatureRef, *, contexts: int = 45, length: int = 64, strength: float | None = None
    ) -> Effects:
        """What ablating the feature, and holding it at `strength` (its largest activation), does to the next token.

        Contexts are the index's examples, then other positions where it fires, in an order without meaning; each is cut
        to its last `length` tokens. Forward passes only. Beside both stand the same amounts along matched features and noise.
        """
        own = self._own(feature)
        if contexts < 1 or length < 2:
            raise InterpError(f"{contexts} contexts of {length} tokens: give at least 1 context of 2 tokens.")
        largest = float(self.index.row(own)["max"]) if strength is None else strength
        self.check_edits([Clamp(feature=own, strength=largest)])
        found = self.index.sql("SELECT position FROM {examples} WHERE feature = ? ORDER BY band, rank", [own])
        positions = [int(p) for p in found["position"]]
        if len(positions) < contexts:
            more = "SELECT position FROM {activations} WHERE feature = ? ORDER BY hash(position), position"
            positions += [int(p) for p in self.index.sql(more, [own])["position"]]
        positions = list(dict.fromkeys(positions))[:contexts]
        tokens, block, separator = self.index.tokens, self.index.block, self.card.separator
        texts, following = [], []
        for position in positions:
            start = max(position // block * block + 1, position + 2 - length)
            texts.append([separator, *(int(t) for t in tokens[start : position + 1])])
            after = int(tokens[position + 1]) if (position + 1) % block else separator
            following.append(-1 if after == separator else after)
        return effects(self.stage, own, texts, following, positions, largest, self._matched(own))

    def replay(self, record: Mapping[str, Any]) -> Replay:
        """Run a recorded run, batch or sweep again, and say whether it came out the same.

        Raises InterpError when the record is none, or was made with other weights.
        """
        then = check_record(record)
        for key, mine in (("sae_sha256", self.card.sae_sha256), ("model_sha256", self.card.model_sha256)):
            if then.get(key) != mine:
                raise InterpError(
                    f"the record was made with {then.get('sae')} on {then.get('model')}, {key} "
                    f"{str(then.get(key))[:12]}…, and here it is {mine[:12]}…; open the SAE it was made with."
                )
        again, threads = self._request(record), torch.get_num_threads()
        torch.set_num_threads(then["threads"])
        try:
            return compare(record, asdict(again()))
        finally:
            torch.set_num_threads(threads)

    def _request(self, record: Mapping[str, Any]) -> Callable[[], SteerRun | SteerBatch | Sweep]:
        """What a record asks for, read whole but not yet run; InterpError when it cannot be read."""

        def part(key: str, kind: type) -> Any:
            if not isinstance(record[key], kind):
                raise TypeError(f"{key} is {record[key]!r}")
            return record[key]

        try:
            sampling = asdict(_sampling(part("sampling", dict)))
            if record["kind"] == "steer":
                edits = [from_dict(edit) for edit in part("edits", list)]
                return partial(self.steer, part("prompt", str), edits, **sampling)
            if record["kind"] == "batch":
                prompts, seeds = part("prompts", list), [check_seed(seed) for seed in part("seeds", list)]
                variants = [[from_dict(edit) for edit in edits] for edits in part("variants", list)]
                return partial(self.steer_many, prompts, variants, seeds=seeds, **sampling)
            source: Any = from_dict(record["subject"]).feature
            config = SweepConfig(**part("config", dict))
            given = {"largest": float(record["largest"]), "words": part("words", str)}
            return partial(self.sweep, source, config=config, **given, **sampling)
        except (KeyError, TypeError, ValueError) as error:
            raise InterpError(f"the record is not whole: {error}.") from None

    def presets(self) -> list[str]:
        """Names of the sets of edits kept for this SAE."""
        return presets.names(self.card.sae_sha256)

    def preset(self, name: str | Path | Mapping[str, Any]) -> Preset:
        """The preset of that name, in that file, or with that content, when it is for this SAE."""
        found = presets.read(name, self.card.sae_sha256)
        self.check_edits(found.edits)
        return found

    def save_preset(self, name: str, edits: Sequence[FeatureEdit], *, note: str = "") -> Path:
        """Keep the edits under a name; the file that comes back can be passed on."""
        self.check_edits(edits)
        card = self.card
        hashes = {"sae_sha256": card.sae_sha256, "model_sha256": card.model_sha256}
        return presets.save(Preset(name=name, note=note, sae=card.name, edits=list(edits), **hashes))

    def build_index(
        self,
        corpus: str | Corpus | ActivationStore,
        tokens: int | None = None,
        *,
        keep: str = "all",
        beside: bool = False,
        extend: bool = False,
        restart: bool = False,
        into: str = "",
        memory_gib: float = 2.0,
    ) -> Path | str:
        """Index the SAE over `tokens` positions of a corpus, or over harvested activations (all of them, without
        `tokens`); where it lies comes back.

        The full index lies under INTERP_HOME, where this workbench and every later one find it; `beside` writes
        it into the checkpoint's folder, to be shared; `into` sends a copy to a URL that fsspec knows. `extend` adds
        documents that the index does not have yet. A killed build goes on when called again, unless `restart`.
        """
        self._check_kind("an index", writes=False)
        if keep not in ("all", "examples"):
            raise unknown("way to keep activations", keep, ["all", "examples"])
        folder = self.folder / "index" if beside else self.full_index_folder
        with places.only_one(folder, "the index"):  # before the text is read, which takes minutes
            known = set(FeatureIndex.open(folder).documents["sha256"]) if extend else set()
            source: Any
            if isinstance(corpus, ActivationStore):
                source = self._stored(corpus, tokens, known)
            else:
                text = open_corpus(corpus) if isinstance(corpus, str) else corpus
                source = stream(self.model, text.without(known), self.card.hook_name, tokens or INDEXED)
            config = IndexConfig(
                keep="all" if keep == "all" else "examples", memory_gib=memory_gib, extend=extend, restart=restart
            )
            norm, sha = self.card.norm_cutoff, self.card.sae_sha256
            build_index(self.sae, source, self.model, folder, config, norm_cutoff=norm, sae_sha256=sha)
        self.__dict__.pop("index", None)
        if into:
            places.send(folder, into)
        return into or folder

    def _stored(self, store: ActivationStore, tokens: int | None, known: set[str]) -> ActivationStore:
        """The store's first shards with that many positions, when they are this model's and hold no known document."""
        made_by = store.recipe["model_sha256"]
        if made_by != self.model.fingerprint_like(made_by):
            raise InterpError(
                f"the activations in {store.folder} were made by other weights ({made_by[:12]}…) than those this SAE "
                f"reads ({self.card.model_sha256[:12]}…)."
            )
        if tokens is not None:
            held = np.cumsum([shard["positions"] for shard in store.shards])
            store = store.head(int(np.searchsorted(held, min(tokens, int(held[-1])))) + 1)
        twice = known & set(store.blocks.documents["sha256"].to_pylist())
        if twice:
            raise InterpError(
                f"{counted(len(twice), 'document')} of {store.folder} {'is' if len(twice) == 1 else 'are'} in the index already; it "
                "takes new ones only."
            )
        return store

    def neurons(self, layer: int) -> Neurons:
        """The raw MLP neurons of a layer as a dictionary; InterpError when the model's cannot be told."""
        outputs = self.model.neuron_outputs(self.sae.d_out)
        if layer not in outputs:
            known = f"layers 0 to {len(outputs) - 1} are known" if outputs else "its MLP weights could not be told"
            raise InterpError(f"no neurons of layer {layer} in {self.card.model}: {known}.")
        return Neurons(f"{self.card.model} layer {layer} neurons", f"blocks.{layer}.mlp.hook_post", outputs[layer])

    def build_neuron_index(
        self,
        layer: int,
        corpus: str | Corpus,
        tokens: int = INDEXED,
        *,
        keep: str = "all",
        memory_gib: float = 2.0,
        restart: bool = False,
    ) -> Path:
        """Index the raw neurons of a layer, by the same code as features; found again by `neuron_index`."""
        dictionary = self.neurons(layer)
        text = open_corpus(corpus) if isinstance(corpus, str) else corpus
        folder = self._index_folder(dictionary.hook_name)
        with places.only_one(folder, "the index"):
            source = stream(self.model, text, dictionary.hook_name, tokens)
            config = IndexConfig(keep="all" if keep == "all" else "examples", memory_gib=memory_gib, restart=restart)
            build_index(dictionary, source, self.model, folder, config, norm_cutoff=NO_CUTOFF)
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
        sources = Sources(
            index,
            empty,
            directions=lambda: self.neurons(layer).W_dec,
            unembedding=partial(self._unembedding, index),
            meanings=self._sources.meanings,
        )
        return search(query, sources, limit=limit)

    def evaluate(self, corpus: str | Corpus, tokens: int) -> Report:
        """Fidelity on the corpus's held-out split: documents that an SAE of `--split train` was not trained on.

        A harvest without `--split` reads these documents too; the card's `corpus` says which it was. The report is kept under INTERP_HOME, where that can be written, until `publish` puts it into the card.
        """
        self._check_kind("evaluation", writes=True)
        text = open_corpus(corpus) if isinstance(corpus, str) else corpus
        blocks = tokenize(text, self.model, tokens, split="heldout")
        report = evaluate(self.model, self.sae, blocks, norm_cutoff=self.card.norm_cutoff)
        about = {"name": text.name, "licence": text.licence, "version": text.version, "split": "heldout"}
        with suppress(InterpError):  # a home that cannot be written does not take the answer away
            evaluations.keep(
                self.card.sae_sha256, report.to_dict() | {"text": about, "tokens_sha256": blocks.sha256()}
            )  # fmt: skip
        return report

    def publish(
        self, into: str | Path, *, metrics: str | Corpus = "", tokens: int = 50_000, address: str = ""
    ) -> Published:
        """A folder with all that is known of this checkpoint, sealed (see `interp.publishing`).

        Metrics are those that `evaluate` kept, after measuring `tokens` of the text `metrics` if one is named.
        `address` is where it will be found, for the README.
        """
        if metrics:
            self.evaluate(metrics, tokens)
        return publish(
            self.folder,
            Path(into),
            index=self._index_or_none(),
            labels=self.labels,
            metrics=evaluations.kept(self.card.sae_sha256),
            address=address,
            device=self.device,
        )

    def _index_or_none(self) -> FeatureIndex | None:
        try:
            return self.index
        except InterpError:
            return None

    def lacks(self) -> list[str]:
        """What this machine knows of the checkpoint and its folder does not hold, so that `pack` and `push` leave it."""
        files, _ = present(self.folder)
        return lacks(files, self.labels, self._index_or_none(), evaluations.kept(self.card.sae_sha256))

    def pack(self, into: str | Path, *, labels: bool = False) -> Packed:
        """One file of the checkpoint (see `checkpoint.archive`); `labels` takes those of this machine with it."""
        with tempfile.TemporaryDirectory() as made:
            return pack(self.folder, into, added=self._labels(Path(made)) if labels else {})

    def export(self, form: str, into: str | Path, features: Sequence[int] | None = None) -> list[str]:
        """Features (all that fire, without) for other tools: formats are `interp.exports.EXPORTS`.

        What the format does not hold comes back, a phrase each.
        """
        subject = exports.Subject(sae=self.sae, card=self.card, index=self.index, labels=self.labels.all())
        return exports.export(subject, form, into, features)

    def push(self, to: str, *, labels: bool = False, **given: Any) -> Moved:
        """Share the checkpoint on a hub or at a URL (see `checkpoint.remote`); `labels` as for `pack`."""
        with tempfile.TemporaryDirectory() as made:
            return push(self.folder, to, added=self._labels(Path(made)) if labels else {}, **given)

    def _labels(self, folder: Path) -> dict[str, Path]:
        """The current labels, shipped and own, as the file that ships; none when there are none. Where the card has a
        hash of the labels, it comes along with theirs."""
        path = folder / LABELS
        if not self.labels.export(path):
            return {}
        if LABELS not in self.card.files:
            return {LABELS: path}
        replace(self.card, files=self.card.files | {LABELS: places.sha256_file(path)}).write(folder)
        return {LABELS: path, "card.json": folder / "card.json"}

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
            for source in (edit.feature, edit.along, edit.when.feature if edit.when else None):
                if isinstance(source, FeatureRef) and source.sae not in self._saes:
                    self._saes[source.sae] = self._other(source.sae)
            check_edit(edit, self._saes)

    def _other(self, name: str) -> Hooked:
        """Another SAE that an edit names; InterpError when it was made for another model."""
        folder = resolve(name)
        card = Card.read(folder)
        if card.model_sha256 != self.model.fingerprint_like(card.model_sha256):
            raise InterpError(
                f"{name} was made for {card.model} with weights {card.model_sha256[:12]}…, and {self.card.name} for "
                f"{self.card.model} with {self.card.model_sha256[:12]}…; edits of one run need SAEs of one model."
            )
        other = Workbench.open(folder, labels="sqlite://")
        other._check_kind("steering", writes=True)
        return Hooked(other.sae.to(self.sae.device), card.norm_cutoff, card.separator, card.sae_sha256)

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
    full: bool = False,
    seed: int | None = None,
    metrics: str | Corpus = "",
    tokens: int | None = None,
    expect: str = "",
    device: str = "auto",
) -> Verification:
    """What can be checked of a checkpoint, with a card or without (see `interp.verification`).

    `write` first stores hashes, numbers and tolerances in it, which is its maker's part. `full` makes all of the index
    anew and not some blocks (drawn by `seed`), `metrics` names a text (`tokens` of it) on which the card's figures are
    made anew, `expect` is the pin that the files must have. What came of it is remembered for the library's list.
    """
    folder = resolve(path)
    carded = (folder / "card.json").exists()
    if not carded and (write or full or metrics):
        needs = "hashes are written into" if write else "an index and metrics are checked against"
        raise InterpError(f"{folder} has no card.json, which {needs}; a checkpoint trained here has one.")
    if write:
        with places.only_one(folder, "sealing"):
            verification.seal(folder, device=device)
    if carded:
        text = open_corpus(metrics) if isinstance(metrics, str) and metrics else metrics or None
        asked = verification.Asked(
            model=model, device=device, numbers=numbers, full=full, seed=seed, metrics=text, tokens=tokens, expect=expect
        )  # fmt: skip
        found = verification.verify(folder, asked)
    else:
        found = verification.verify_plain(folder, model=model, hook_name=hook_name, device=device, expect=expect)
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


def _sampling(given: Mapping[str, Any]) -> Sampling:
    known = [field.name for field in fields(Sampling)]
    for name in given:
        if name not in known:
            raise unknown("setting of sampling", name, known)
    return Sampling(**given)
