"""Find features, and show one: by a search, by number, on a text."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from interp.commands.items import one_place
from interp.commands.opening import open_sae
from interp.commands.options import Feature, Option, Sae, Special
from interp.render.words import PLACES
from interp.types import InterpError

if TYPE_CHECKING:
    import numpy as np

    from interp.circuits.logit_lens import LayerReadings
    from interp.library import Entry
    from interp.search import Hits, SavedSearch
    from interp.steering.detection import Detection
    from interp.views import FeaturePage, NeuronPage, Spectrum

Query = Annotated[
    str, Option("What to look for: words, or conditions such as token:/Paris/; `interp keys` lists them.")
]
Text = Annotated[str, Option("Text to run the model on.")]


@dataclass(frozen=True)
class Answer:
    """What a search found, and for one that was kept, what came and went since."""

    hits: "Hits"
    since: str = ""
    """When the search was kept; empty for a new one."""
    came: list[int] = field(default_factory=list)
    went: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class AboutSae:
    """What stands over every page about a checkpoint."""

    name: str
    sae: str
    """Its folder."""
    sae_sha256: str
    d_sae: int
    hook: str
    model: str


@dataclass(frozen=True)
class ShownFeature:
    """A feature's page, and how well its strongest tokens tell where it fires."""

    page: "FeaturePage"
    detection: "Detection"
    detected: str
    """The detection in a sentence."""


@dataclass(frozen=True)
class Firing:
    """A feature at a position."""

    feature: int
    value: float


@dataclass(frozen=True)
class TokenFirings:
    """The strongest features on one token of a text."""

    position: int
    token: str
    counted: bool
    """False at sinks, where nothing is encoded."""
    features: list[Firing]


def find_folder(sae: Sae) -> str:
    """The checkpoint's folder, as an absolute path. Raises InterpError when there is none."""
    from interp.checkpoint.files import resolve

    return str(resolve(sae).resolve())


def about(sae: Sae) -> AboutSae:
    """Which checkpoint this is. Raises InterpError when there is none."""
    bench = open_sae(sae)
    card = bench.card
    return AboutSae(card.name, str(bench.folder), card.sae_sha256, bench.sae.d_sae, card.hook_name, card.model)


def search(
    sae: Sae,
    query: Query = "",
    *,
    limit: Annotated[int, Option("How many features to show.", low=1)] = 20,
    neurons: Annotated[int | None, Option("Search the raw neurons of this layer instead of features.")] = None,
    save: Annotated[str, Option("Keep the search and its answer, under a name or in a .json file.")] = "",
    rerun: Annotated[str, Option("Run a kept search again, by its name or file, and say what came and went.")] = "",
) -> Answer:
    """Find features by what they mean, fire on, promote, resemble, or separate.

    Raises InterpError for a query that cannot be read.
    """
    bench = open_sae(sae)
    if neurons is not None and (save or rerun):
        raise InterpError("--neurons takes no --save or --rerun: searches are kept with an SAE.")
    if rerun:
        if query:
            raise InterpError(f"--rerun {rerun} has its own query; leave {query!r} out.")
        kept, hits = bench.rerun_search(rerun)
        changes, limit = kept.changes(hits), kept.limit
        answer = Answer(hits, kept.created, changes["came"], changes["went"])
    elif neurons is not None:
        answer = Answer(bench.search_neurons(neurons, query, limit=limit))
    else:
        answer = Answer(bench.search(query, limit=limit))
    if save:
        bench.save_search(save, answer.hits, limit=limit)
    return answer


def matching(sae: Sae, query: Query = "") -> list[int]:
    """All features that meet a query, best first. Raises InterpError for a query that cannot be read."""
    return [int(f) for f in open_sae(sae).matching(query)]


def saved_searches(sae: Sae) -> "list[SavedSearch]":
    """The searches that were kept for an SAE, by name."""
    from interp.search.saved import find

    bench = open_sae(sae)
    return [find(name, bench.card.sae_sha256) for name in bench.saved_searches()]


def keys(
    *,
    at: Annotated[
        bool, Option("The keys that stand in at:(…), which say where a label holds, and what is: and syntax: take.")
    ] = False,
) -> dict[str, str]:
    """What a search can ask for."""
    from interp.search.query import KEYS

    if not at:
        return dict(KEYS)
    from interp.predicates.claim import known_keys

    return known_keys()


def top_tokens(sae: Sae, features: list[int]) -> list[tuple[str, str]]:
    """Of each feature, the token it fires on most and the one it promotes most; empty where it has none."""
    index = open_sae(sae).index
    fires = index.features["top_tokens"].to_numpy()
    promoted = index.features["promoted"].to_numpy() if index.said is None else index.said.lists["next.raised"].numpy()
    return [("".join(index.text(fires[f][:1])), "".join(index.text(promoted[f][:1]))) for f in features]


def densities(sae: Sae) -> "np.ndarray":
    """The share of counted positions on which each feature fires, shape (d_sae,)."""
    return open_sae(sae).index.features["density"].to_numpy()


def feature(sae: Sae, number: Feature) -> ShownFeature:
    """One feature: statistics, examples, tokens it promotes and suppresses, neighbours.

    Raises InterpError when there is no such feature.
    """
    from interp.steering.detection import sentence

    bench = open_sae(sae)
    page, detection = bench.feature(number, looks=False), bench.detection(number)
    if one_place(page):
        return ShownFeature(page, detection, "an item has one position here, so where its examples peak says nothing")
    return ShownFeature(page, detection, sentence(detection, PLACES[page.kind][0]))


def index_time(sae: Sae) -> str:
    """Which index is read, and when it and what its features say were written."""
    bench = open_sae(sae)
    paths = (bench.index.folder / "index.json", bench.said_path, bench.folder / "lenses.safetensors")
    return " ".join(f"{path} {path.stat().st_mtime_ns}" for path in paths if path.exists())


def live_feature(sae: Sae, seed: Annotated[int, Option("Number from which the draw begins.")]) -> int:
    """A feature that fires, drawn by a seed; InterpError when none does."""
    import numpy as np

    live = np.flatnonzero(open_sae(sae).index.features["fires"].to_numpy() > 0)
    if not len(live):
        raise InterpError(f"no feature of {sae} fires in its index.")
    return int(np.random.default_rng(seed).choice(live))


def name_feature(sae: Sae, number: Feature) -> str:
    """The feature's label, or its automatic description."""
    return open_sae(sae).name(number)


def neuron(sae: Sae, name: Annotated[str, Option("The neuron, as LAYER.NUMBER, such as 15.3.")]) -> "NeuronPage":
    """A raw neuron beside the features nearest to what it writes; `interp index SAE --neurons LAYER` comes first.

    Raises InterpError when there is no such neuron, or no index of its layer.
    """
    from interp.views import neuron_named

    return open_sae(sae).neuron(*neuron_named(name))


def neuron_lacks(sae: Sae, name: str) -> str:
    """Why a neuron cannot be shown, and what brings it: its layer's index was not built; empty where it was.

    Raises InterpError when the name is no neuron's.
    """
    from interp.views import neuron_named

    layer, _ = neuron_named(name)
    try:
        open_sae(sae).neuron_index(layer)
    except InterpError as error:
        return str(error)
    return ""


def neuron_index_time(sae: Sae, name: str) -> float:
    """When the index of the neuron's layer was made, in seconds; InterpError when there is none."""
    from interp.views import neuron_named

    return (open_sae(sae).neuron_index(neuron_named(name)[0]).folder / "index.json").stat().st_mtime


def read_spectrum(sae: Sae, text: Text, *, special: Special = False) -> "Spectrum":
    """Which features fire on each token of a text. Raises InterpError for a text that the model cannot read."""
    return open_sae(sae).spectrum(text, special=special)


def read_layers(sae: Sae, text: Text) -> "LayerReadings":
    """What the model's layers would say after each token. Raises InterpError for a text or a model that cannot be read so."""
    return open_sae(sae).layers_say(text)


def spectrum(
    sae: Sae,
    text: Text,
    *,
    top: Annotated[int, Option("How many features to show on each token.", low=1)] = 5,
    special: Special = False,
) -> list[TokenFirings]:
    """The strongest features on each token of a text. Raises InterpError for a text that the model cannot read."""
    firing = read_spectrum(sae, text, special=special)
    return [
        TokenFirings(at, token, firing.counted[at], [Firing(f, v) for f, v in firing.top(at, top)])
        for at, token in enumerate(firing.tokens)
    ]


def library(
    root: Annotated[
        Path | None,
        Option(
            "Folder below which every checkpoint is listed; without, those in saes/ and those that came with interp."
        ),
    ] = None,
) -> "list[Entry]":
    """The checkpoints in a folder: model, hook point, size, L0, EV, ΔCE, labels, verified or not.

    Raises InterpError when there is no such folder.
    """
    from interp.library import library as list_checkpoints

    return list_checkpoints(root)
