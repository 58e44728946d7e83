"""The tables of families in README.md and docs/families.md, made by going the whole way with a model of each.

    python recipes/families_table.py             # tiny random models of every family, some minutes; writes both tables
    python recipes/families_table.py --real      # and the real weights that `interp setup` knows, of what is installed here
    python recipes/families_table.py llama vit   # of these alone; prints their rows, and writes nothing

A step is what its column says, done by the functions that users call: `yes`, or the sentence that refuses it.
What a model of random weights cannot show is whether features mean anything; that its activations are the framework's own, and
its logits, tests/test_families.py and tests/test_media.py compare. tests/test_families_table.py makes some rows anew.
"""

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from interp import places  # noqa: E402
from interp.activations import harvest  # noqa: E402
from interp.corpus import Corpus, open_corpus  # noqa: E402
from interp.models import Edit, Model, open_model  # noqa: E402
from interp.recipe import train_checkpoint  # noqa: E402
from interp.render.terminal import say  # noqa: E402
from interp.steering import Clamp  # noqa: E402
from interp.training import TrainConfig  # noqa: E402
from interp.types import InterpError  # noqa: E402
from interp.workbench import Workbench  # noqa: E402
from tests import families  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "families.json"
BEGIN = "<!-- made by recipes/families_table.py: do not edit -->"
END = "<!-- end of the table of families -->"
STEPS = ("hook points", "harvest", "train", "index", "page and search", "edit", "logit effects", "steer", "ablate")
KINDS: dict[str, tuple[str, Mapping[str, object]]] = {
    "decoder-only, experts, recurrent": ("text", families.FAMILIES),
    "encoder-only": ("text", families.ENCODERS),
    "encoder–decoder": ("text", families.ENCODER_DECODERS),
    "vision": ("pictures", families.VISION),
    "audio": ("sound", families.AUDIO),
}
REAL = {
    "smollm2": ("text", 0),
    "gemma3": ("text", 0),
    "minilm": ("text", 1),
    "rxnmapper": ("reactions", 1),
    "dinov2": ("pictures", 3),
    "whisper": ("sound", 4),
}
"""Models that come inside packages: what they read, and of which kind they are."""
MARK = " (real weights)"
TOKENS = 6_000
Row = dict[str, str]


def corpora(folder: Path) -> dict[str, Corpus]:
    """A small text, lines of reactions, folder of pictures and folder of clips."""
    text = folder / "docs.jsonl"
    text.write_text("".join(json.dumps({"text": one}) + "\n" for one in families.sentences(300)), encoding="utf-8")
    reactions = folder / "reactions.txt"
    reactions.write_text("\n".join(families.reactions(300)), encoding="utf-8")
    return {
        "text": open_corpus(text),
        "reactions": open_corpus(f"{reactions}#lines"),
        "pictures": open_corpus(families.pictures(folder / "pictures")),
        "sound": open_corpus(families.clips(folder / "clips")),
    }


def walk(model: Model, corpus: Corpus, folder: Path) -> Row:
    """Each step with one model, in its order; a step whose ground was refused is not tried."""
    done: Row = {}

    def step(name: str, what: Callable[[], None]) -> bool:
        try:
            what()
        except InterpError as error:
            sentence = str(error).partition(";")[0].rstrip(".")
            done[name] = "no: " + re.sub(rf"\b{re.escape(model.name)}\b", "the model", sentence)
            return False
        done[name] = "yes"
        return True

    hook = middle(model)
    done["hook points"] = f"{len(model.hook_names())}"
    store = step("harvest", lambda: (harvest(model, corpus, [hook], TOKENS, folder / "acts"), None)[1])
    if not store:
        return done
    made: list[Workbench] = []

    def train() -> None:
        from interp.activations import ActivationStore

        acts, config = ActivationStore.open(folder / "acts"), TrainConfig(lr=3e-3)
        train_checkpoint(acts, hook, folder / "sae", d_sae=64, k=8, batch=256, epochs=2, config=config)
        made.append(Workbench.open(folder / "sae", labels=f"sqlite:///{folder}/labels.sqlite"))

    if not step("train", train) or not step(
        "index", lambda: (made[0].build_index(corpus, TOKENS, beside=True), None)[1]
    ):
        return done
    wb = made[0]
    features = wb.index.features
    alive = int(features["density"].to_numpy().argmax())
    item = next(iter(corpus.documents())).text

    def look() -> None:
        page = wb.feature(alive)
        if not (page.examples and page._repr_html_() and len(wb.search("density:1e-9..1 sort:density"))):
            raise AssertionError(f"{model.name}: a page without examples")

    step("page and search", look)
    step("edit", lambda: edited(model, hook, item))
    step("logit effects", lambda: (model.unembedding(), None)[1])
    held = [Clamp(feature=alive, strength=2 * float(features["max"].iloc[alive]))]
    step("steer", lambda: (wb.steer(item[:200], held, max_new_tokens=4), None)[1])
    step("ablate", lambda: (wb.ablate(item[:200] if corpus.kind == "text" else item, alive), None)[1])
    return done


def middle(model: Model) -> str:
    """A hook point of the residual stream in the middle; of an encoder–decoder, its decoder's."""
    names = [name for name in model.hook_names() if name.endswith("hook_resid_post")]
    own = [name for name in names if name.startswith("decoder_")] or names
    return own[(len(own) - 1) // 2]


def edited(model: Model, hook: str, item: str) -> None:
    """An edit that changes nothing changes no bit, and zeros change what comes out."""
    prompt = model.prompt(item)
    tokens = torch.tensor([list(prompt)[:64] if model.media is None else prompt])
    more = {} if model.media is None else {"given": prompt.given[None]}  # type: ignore[attr-defined]
    plain = model.run(tokens, **more).logits
    same = model.run(tokens, edits=[Edit(hook, lambda x, _: x.clone())], **more).logits
    gone = model.run(tokens, edits=[Edit(hook, lambda x, _: torch.zeros_like(x))], **more).logits
    assert plain is not None
    assert same is not None
    assert gone is not None
    if not torch.equal(plain, same) or torch.equal(plain, gone):
        raise AssertionError(f"{model.name}: an edit at {hook} does not do what it says")


def tiny(family: str, text: dict[str, Corpus], folder: Path) -> Row:
    """The row of a tiny random model of the family."""
    reads = next(reads for reads, known in KINDS.values() if family in known)
    save = families.save if reads == "text" else families.save_media
    return walk(open_model(str(save(family, folder / family)), dtype="float32"), text[reads], folder)


def real(name: str, text: dict[str, Corpus], folder: Path) -> Row | None:
    """The row of real weights; None where they are not installed."""
    try:
        model = open_model(name)
    except InterpError as error:
        say(f"{name}: {error}")
        return None
    return walk(model, text[REAL[name][0]], folder)


# ---- the tables ----


def whole_table(rows: Mapping[str, Row]) -> str:
    """A row for models that came to the same, with the number of their hook points, for docs/families.md."""
    steps, why, alike = STEPS[1:], dict[str, int](), dict[tuple[str, ...], list[str]]()
    for name, row in rows.items():
        cells = tuple(_cell(row.get(step, ""), why) for step in steps)
        alike.setdefault(cells, []).append(f"{name} {row[STEPS[0]]}")
    lines = [f"| models, and their hook points | {' | '.join(steps)} |", f"|{'---|' * (1 + len(steps))}"]
    lines += [f"| {', '.join(names)} | {' | '.join(cells)} |" for cells, names in alike.items()]
    return "\n".join([*lines, "", *(f"{number}. {sentence}." for sentence, number in why.items())])


def _cell(cell: str, why: dict[str, int]) -> str:
    """`yes`, or the number of the sentence that refuses."""
    if not cell.startswith("no: "):
        return cell
    return f"no ({why.setdefault(cell.removeprefix('no: '), len(why) + 1)})"


def short_table(rows: Mapping[str, Row]) -> str:
    """A row for each kind of family, for the README."""
    steps = STEPS[1:]
    lines = [f"| kind | tiny random models | real weights | {' | '.join(steps)} |", f"|{'---|' * (3 + len(steps))}"]
    for kind, (_, known) in KINDS.items():
        own = [name for name in rows if name in known]
        weights = [name for name, (_, at) in REAL.items() if name + MARK in rows and list(KINDS)[at] == kind]
        cells = []
        for step in steps:
            yes = sum(rows[name].get(step) == "yes" for name in (*own, *(name + MARK for name in weights)))
            of = len(own) + len(weights)
            cells.append("all" if yes == of else "none" if not yes else f"{yes} of {of}")
        lines.append(f"| {kind} | {len(own)} | {', '.join(weights)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def placed(text: str, table: str) -> str:
    """The text with the table between the two marks; InterpError when they are not there once each."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise InterpError("the marks of the table of families are not there once each.")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{table}\n\n{END}{rest.split(END)[1]}"


def write(rows: Mapping[str, Row]) -> None:
    places.write_json(RESULTS, rows)
    for name, table in (("README.md", short_table(rows)), ("docs/families.md", whole_table(rows))):
        file = ROOT / name
        file.write_text(placed(file.read_text(encoding="utf-8"), table), encoding="utf-8")


def made(names: Sequence[str], weights: Sequence[str]) -> dict[str, Row]:
    """Rows by name, in the order of the kinds; real weights after them."""
    rows: dict[str, Row] = {}
    with tempfile.TemporaryDirectory() as here:
        text = corpora(Path(here))
        for name in names:
            rows[name] = tiny(name, text, Path(here) / name)
            say(f"{name}: " + ", ".join(f"{step} {cell}" for step, cell in rows[name].items()))
        for name in weights:
            row = real(name, text, Path(here) / f"{name}-real")
            if row is not None:
                rows[name + MARK] = row
                say(f"{name}: " + ", ".join(f"{step} {cell}" for step, cell in row.items()))
    return rows


def main() -> None:
    known = [name for _, some in KINDS.values() for name in some]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="family", choices=[[], *known], help="all without")
    parser.add_argument("--real", action="store_true")
    given = parser.parse_args()
    rows = made(given.names or known, list(REAL) if given.real else ())
    if not given.names:
        if not given.real and RESULTS.exists():  # what was found with real weights stays
            rows |= {name: row for name, row in places.read_json(RESULTS).items() if name.endswith(MARK)}
        write(rows)


if __name__ == "__main__":
    main()
