"""Sections of a report that need other texts, other trainings, or another model than the open SAE's own.

`--nulls FOLDER` names what a recipe left beside the SAE (`recipes/smollm2_nulls.py`): besides SAEs that found nothing (`holding.py`)
`seeds/`, SAEs of the same recipe and length with other seeds, and `sibling/`, a fine-tuned copy of the model.
"""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import torch

from interp.checkpoint import Card
from interp.checkpoint.files import below
from interp.corpus import Corpus, TokenBlocks, archives, open_corpus, tokenize
from interp.corpus.pins import ARCHIVES
from interp.evals.figure import Section
from interp.evals.measures import Measure, Setting
from interp.evals.transfer import Place, in_template, measure_transfer
from interp.models import Model, open_model
from interp.types import InterpError
from interp.workbench.opening import Opened
from interp.workbench.replicating import stability

SEEDS, SIBLING = "seeds", "sibling"
TEXTS = ("sotu", "python-docs", "wiki-fr", "python")
"""Speeches, documentation, another language and code; their held-out documents."""
CHAT = "chat"
POSITIONS, SPREAD = 8_192, 16
"""Tokens of each place, and of how many times as many they are taken: a few long documents would give no interval."""


def elsewhere_measures(wb: Opened, text: Corpus, folder: str) -> tuple[Measure, ...]:
    """How much of the SAE's fidelity is left elsewhere, and what other seeds' trainings found; `folder` is `--nulls`."""
    seeds = below(Path(folder) / SEEDS) if folder else []
    sibling = Path(folder) / SIBLING if folder and (Path(folder) / SIBLING / "config.json").exists() else None
    weights = [Card.read(path).sae_sha256 for path in seeds]
    return (
        Measure(
            name="transfer", title="On other texts and models", version=2, nulls=False, default=False,
            make=lambda setting: transfer_section(wb, text, setting, sibling),
            on=json.dumps([POSITIONS, *archives.missing(ARCHIVES), "" if sibling is None else _weights(sibling)]),
        ),
        Measure(
            name="stability", title="Other seeds", version=1, nulls=False, text=False, default=False, headline=("shared",),
            make=lambda setting: _stability(wb, seeds, setting.seed), on=json.dumps(weights),
        ),
    )  # fmt: skip


def _stability(wb: Opened, seeds: list[Path], seed: int) -> Section:
    if not seeds:
        raise InterpError(
            "not measured: it needs SAEs of the same recipe with other seeds; `python recipes/smollm2_again.py seeds` trains "
            f"those of the embedded one, and `interp evaluate SAE --nulls FOLDER` finds them in FOLDER/{SEEDS}/."
        )
    return stability(wb, seeds, seed=seed)


def _weights(folder: Path) -> str:
    """A name for a model's files that changes with them: their names, sizes and times."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    told = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


# ---- other places ----


def transfer_section(wb: Opened, text: Corpus, setting: Setting, sibling: Path | None) -> Section:
    """The section `transfer`: EV, L0, ΔCE and KL on other texts, in the model's chat template and in a fine-tuned sibling.

    What is not on this machine stands in `of` under `not measured`. Raises InterpError when there is no other place at all.
    """
    tokens = min(POSITIONS, setting.blocks.positions)
    blocks = _blocks(text, wb.model, tokens)
    home = Place(name=text.name, model=wb.model, blocks=blocks, norm_cutoff=setting.norm_cutoff)
    others, without = [], {}
    for name in (*TEXTS, CHAT):
        try:
            others += [] if name == text.name else [_place(home, name)]
        except InterpError as error:
            without[name] = str(error)
    if sibling is None:
        without[SIBLING] = f"no fine-tuned copy of the model was given; FOLDER/{SIBLING}/ of --nulls FOLDER is one."
    else:
        others.append(_of_sibling(home, sibling))
    if not others:
        raise InterpError(
            "there is no other text on this machine to measure transfer on; `interp setup --texts` fetches some."
        )
    made = measure_transfer(wb.sae, home, others)
    return replace(made, of={**made.of, "not measured": without, "positions": tokens, "seed": setting.seed})


def _blocks(text: Corpus, model: Model, tokens: int) -> TokenBlocks:
    """Held-out blocks of so many tokens, taken evenly from SPREAD times as many."""
    all_ = tokenize(text, model, SPREAD * tokens, split="heldout")
    wanted = min(len(all_.tokens_NT), -(-tokens // all_.block))
    rows = torch.linspace(0, len(all_.tokens_NT) - 1, wanted).round().long()
    return replace(all_, tokens_NT=all_.tokens_NT[rows], document_NT=all_.document_NT[rows])


def _place(home: Place, name: str) -> Place:
    """A packaged text as the same model reads it. Raises InterpError when it is not here, or the model has no template."""
    blocks = _blocks(open_corpus(name), home.model, home.blocks.positions)
    if name != CHAT:
        return replace(home, name=name, blocks=blocks)
    return replace(home, name="chat template", blocks=blocks, only=in_template(home.model, blocks))


def _of_sibling(home: Place, folder: Path) -> Place:
    """The same tokens in a fine-tuned copy of the model. Raises InterpError when its tokens mean something else."""
    model = open_model(str(folder), dtype=home.model.dtype, device=str(home.model.device))
    if model.tokenizer.get_vocab() != home.model.tokenizer.get_vocab():
        raise InterpError(f"{folder} has another vocabulary than {home.model.name}: it is no fine-tuned copy of it.")
    return replace(home, name=f"{SIBLING} model", model=model)
