"""A real mixture of experts without a download: SmolLM2-135M-Instruct in Mixtral's form, trained a little; what its experts read.

    python recipes/upcycled.py                # everything: about half an hour of one core, 4 GB of memory and of disk
    python recipes/upcycled.py make train     # or some: make, train, measure, sae, read, report

make     every expert of a layer is a copy of its gated MLP, two of four are chosen at each token; routers small and random.
train    experts and routers of four middle layers on Wikipedia in English, French and Spanish and on Python (the training split),
         with transformers' load-balancing loss; everything else is frozen. Outside of these layers the copies stay copies.
measure  on held-out text of each language: the loss before and after, and each expert's share of the tokens before and after.
sae      a small SAE of what the router of the first of these layers reads. Nothing below it is trained, so that the router before
         training reads exactly the same: it is the null.
read     on other held-out documents, half to choose and half to measure: what tells that a token goes to an expert, beyond what
         the token and the one before it tell (`interp/evals/routing.py`).
report   benchmarks/results/upcycled.json.

Each stage goes on where it stopped. docs/families.md has what came of it.
"""

import gc
from pathlib import Path
from typing import Any

import smollm2 as embedded
import torch
import upcycled_figures as figures
import upcycled_model as upcycled
from torch import Tensor

from interp import places
from interp.activations import harvest
from interp.checkpoint import Card, load
from interp.corpus import Corpus, mix, open_corpus, tokenize
from interp.evals.routing import Routing, measure_routing, read_routing
from interp.models import Model, open_model
from interp.models.embedded import SEPARATOR, smollm2_folder
from interp.models.open import open_text
from interp.models.text import Text
from interp.recipe import train_checkpoint
from interp.render.terminal import say
from interp.training import TrainConfig

ROOT = Path(__file__).parent.parent
WORK = places.cache() / "recipes" / "upcycled"
RESULTS = ROOT / "benchmarks/results/upcycled.json"
LANGUAGES = {"English": "wiki-en", "French": "wiki-fr", "Spanish": "wiki-es", "code": "code-python"}
CHARS_PER_TOKEN = {"English": 4.6, "French": 3.0, "Spanish": 2.9, "code": 3.2}
"""So that a mixture by characters has about as many tokens of each."""
PIECE = 700
"""Characters of a document that are used."""
EXPERTS, TOP_K, SEED = 4, 2, 0
SEEDS = range(3)
"""Of the halves into which documents are drawn."""
LAYERS = range(14, 18)
STEPS, ROW = 192, 128
"""A step reads one row of each language."""
MEASURED = 8_192
"""Tokens of each language whose loss is measured."""
ROUTERS = [f"blocks.{layer}.mlp.hook_router_logits" for layer in LAYERS]
HOOK = f"blocks.{LAYERS[0]}.mlp.hook_in"
D_SAE, K, EPOCHS, SAE_TOKENS = 1152, 32, 8.0, 49_152
READ_TOKENS = 57_344
"""Of which half is to choose on, and half is measured."""
BASE = "smollm2"
SENTENCE = "Le chat dort sur la table, et il pleut. The cat sleeps, and it rains. def sleeps(cat): return cat.rest(1)"
"""On which logits are compared."""


def pieces(language: str, split: str) -> Corpus:
    """A piece of each document of a language."""
    return upcycled.in_pieces(open_corpus(LANGUAGES[language]), PIECE, split)


def all_languages(split: str) -> Corpus:
    """The languages, with about as many tokens of each."""
    return mix([(pieces(language, split), CHARS_PER_TOKEN[language]) for language in LANGUAGES])


def folder(which: str) -> Path:
    """Of the model `before` or `after` training."""
    return WORK / which


def dense_model() -> tuple[Any, Text]:
    """The model that is upcycled, in float32 as transformers has it, and its tokenizer."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(smollm2_folder(), dtype=torch.float32), open_text(BASE, SEPARATOR)


def opened(which: str) -> Model:
    """The mixture before or after training, its layers outside of the trained ones at the price of one expert."""
    model = open_model(str(folder(which)), dtype="float32")
    upcycled.one_copy(model.module, LAYERS)
    return model


def keep(mixture: Any, tokenizer: Any, into: Path) -> None:
    """As a folder that `open_model` opens."""
    with places.whole_folder(into) as partial:
        mixture.save_pretrained(partial)
        tokenizer.save_pretrained(partial)


def stage_make() -> None:
    """The mixture as it begins, and whether its logits are those of the model that it is made of."""
    dense, text = dense_model()
    if not folder("before").exists():
        keep(upcycled.upcycle(dense, experts=EXPERTS, top_k=TOP_K, seed=SEED), text.tokenizer, folder("before"))
    file = WORK / "made.json"
    if file.exists():
        return
    tokens = torch.tensor([text.prompt(SENTENCE)])
    found = {}
    with torch.inference_mode():
        logits = dense(tokens).logits
        for std, top_k in ((0.0, 1), (0.0, 2), (0.0, 4), (upcycled.ROUTER_STD, 1), (upcycled.ROUTER_STD, TOP_K)):
            mixture = upcycled.upcycle(dense, experts=EXPERTS, top_k=top_k, seed=SEED, router_std=std)
            apart = float((mixture(tokens).logits - logits).abs().max())
            found[f"router {std:g}, {top_k} of {EXPERTS}"] = apart
            say(
                f"logits of the mixture (router {std:g}, {top_k} of {EXPERTS}) and of {BASE} differ by {apart:.2g} at most."
            )
    places.write_json(file, {"tokens": tokens.shape[1], "largest logit": float(logits.abs().max()), "differ by": found})


def stage_train() -> None:
    """Experts and routers of the middle layers."""
    if folder("after").exists():
        return
    dense, text = dense_model()
    mixture = upcycled.upcycle(dense, experts=EXPERTS, top_k=TOP_K, seed=SEED)
    trained = upcycled.mixed(dense, mixture, LAYERS)
    rows = [tokenize(pieces(name, "train"), text, STEPS * ROW, block=ROW).tokens_NT for name in LANGUAGES]
    rows_SLT = torch.stack([some[:STEPS] for some in rows], 1)
    log = upcycled.train(dense, trained, rows_SLT, text.separator, WORK / "training", upcycled.Training())
    places.write_json(WORK / "training.json", log)
    keep(mixture, text.tokenizer, folder("after"))


def stage_measure() -> None:
    """On held-out documents of each language, by document: the loss, and how many tokens each expert was sent."""
    for which in ("before", "after"):
        file = WORK / f"measured-{which}.json"
        if not file.exists():
            places.write_json(file, measured(which))
            gc.collect()  # a model is parts that hold each other, and the next one is as large


def measured(which: str) -> dict[str, Any]:
    """Of one of the models, by language."""
    model, found = opened(which), {}
    for language in LANGUAGES:
        blocks = tokenize(pieces(language, "heldout"), model, MEASURED, block=ROW)
        found[language] = figures.measured(model, blocks, ROUTERS)
    return found


def stage_sae() -> None:
    """Of what the router of the first layer that was trained reads, on documents of the training split.

    Below it nothing is trained, so that the model that was upcycled has the same there, at half the price.
    """
    model = open_model(BASE, dtype="float32")
    store = harvest(model, all_languages("train"), [HOOK], SAE_TOKENS, WORK / "store")
    sae = train_checkpoint(
        store,
        HOOK,
        WORK / "sae",
        d_sae=D_SAE,
        k=K,
        epochs=EPOCHS,
        batch=1024,
        config=TrainConfig(seed=SEED),
        script="recipes/upcycled.py",
    )
    say(f"{sae.name}: {Card.read(WORK / 'sae').metrics}")


def routing() -> tuple[dict[str, Routing], list[str]]:
    """Where the tokens of held-out documents went, and what fired, by the routers after training and before; kept. And the source
    of each document."""
    file = WORK / "routing.npz"
    if not file.exists():
        model = opened("after")
        blocks = tokenize(all_languages("heldout"), model, READ_TOKENS)
        began = upcycled.router_weight(folder("before"), LAYERS[0])
        chosen: list[Tensor] = []

        def choose(_: Any, given: tuple[Tensor, ...]) -> None:
            chosen.append((given[0].flatten(0, -2) @ began.T).topk(TOP_K).indices)

        upcycled.routers_of(model.module)[LAYERS[0]].register_forward_pre_hook(choose)
        cutoffs = Card.read(WORK / "sae").mask.cutoffs
        text = read_routing(model, load(WORK / "sae"), blocks, LAYERS[0], norm_cutoff=cutoffs)
        before = torch.cat(chosen)[-blocks.positions :][text.position_P]
        null = torch.zeros(len(before), EXPERTS).scatter(1, before, 1).bool().numpy()
        figures.keep_routing(text, null, blocks.documents["source"].to_pylist(), file)
    return figures.kept_routing(file)


def stage_read() -> None:
    """What tells to which expert a token goes, by the routers after and before training; features' rows of the first seed alone."""
    texts, sources = routing()
    for which, text in texts.items():
        for seed in SEEDS:
            file = WORK / f"read-{which}-{seed}.json"
            if not file.exists():
                section = measure_routing(text, seed=seed).to_dict()
                languages = figures.by_language(text, sources, LANGUAGES, section["of"]["strength"], seed)
                places.write_json(file, {"section": section, "languages": languages})


def stage_report() -> None:
    """All figures, into the project."""
    texts, sources = routing()
    words = open_text(BASE, SEPARATOR).vocabulary
    found = figures.report(WORK, texts, sources, LANGUAGES, ROUTERS, words, SEEDS)
    places.write_json(RESULTS, found)
    for line in figures.lines(found):
        say(line)


STAGES = {
    "make": stage_make,
    "train": stage_train,
    "measure": stage_measure,
    "sae": stage_sae,
    "read": stage_read,
    "report": stage_report,
}

if __name__ == "__main__":
    embedded.main(STAGES, __doc__)
