"""A tiny T5 that reverses words and a tiny Mamba that goes on repeating: families whose trained weights come in no package.

    python recipes/tiny_trained.py          # both: some five minutes of one core
    python recipes/tiny_trained.py t5       # or one

Each is trained by transformers' own class, until it does what it is to do on words that it has not seen; opened by `open_model`;
an edit that changes nothing changes no bit; an SAE of 128 features is trained by the library; and one finding is checked by an
edit, for both alike: the features of a letter are those at least .8 of whose firings are on it, on some words; on others they are
ablated while the model writes. How many of the letters that should be that one are written then, beside as many when the features
of another letter are ablated.

Trained on random words, which are made here from a seed. docs/families.md has what came of it.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp import places
from interp.activations import stream
from interp.corpus import open_corpus
from interp.models import Edit, open_model
from interp.processors import threads
from interp.progress import bar
from interp.recipe import train_checkpoint
from interp.render.terminal import say
from interp.statistics import bootstrap_ratio
from interp.steering import Ablate
from interp.training import TrainConfig
from interp.types import InterpError
from interp.workbench import Workbench

ROOT = Path(__file__).parent.parent
WORK = places.cache() / "recipes" / "tiny_trained"
RESULTS = ROOT / "benchmarks/results/tiny_trained.json"
LETTERS = "abcdefghijkl"
PAD, START, END = 0, 1, 2
SPECIAL = ["<pad>", "<start>", "<end>"]
LENGTHS = range(4, 9)
PERIODS, REPEATS = range(3, 6), 14
"""Letters until a text of the Mamba's repeats itself, and of the whole text."""
READ, WRITTEN = 9, 5
"""Letters of a text that the Mamba is given, and that it is to write."""
D_SAE, K, EPOCHS = 128, 4, 10
PURE, LEAST = 0.8, 10
CHOSEN_ON, MEASURED = 300, 100
"""Texts."""


def tokenizer() -> Any:
    """A token for each letter."""
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE({word: i for i, word in enumerate([*SPECIAL, *LETTERS])}, []))
    raw.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", bos_token="<start>", eos_token="<end>")


def words(count: int, seed: int) -> list[str]:
    """Random words of LENGTHS letters."""
    draw = np.random.default_rng(seed)
    return ["".join(draw.choice(list(LETTERS), draw.choice(LENGTHS))) for _ in range(count)]


def repeating(count: int, seed: int) -> list[str]:
    """Random words of PERIODS letters, none twice in a word, over and over."""
    draw = np.random.default_rng(seed)
    once = ("".join(draw.choice(list(LETTERS), draw.choice(PERIODS), replace=False)) for _ in range(count))
    return [(word * REPEATS)[:REPEATS] for word in once]


def ids(word: str) -> list[int]:
    return [len(SPECIAL) + LETTERS.index(letter) for letter in word]


def t5() -> Any:
    """With random weights."""
    from transformers import T5Config, T5ForConditionalGeneration

    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=len(SPECIAL) + len(LETTERS), d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4,
            relative_attention_num_buckets=32, relative_attention_max_distance=16, dropout_rate=0.0,
            pad_token_id=PAD, eos_token_id=END, decoder_start_token_id=PAD,
        )
    )  # fmt: skip


def mamba() -> Any:
    """With random weights."""
    from transformers import MambaConfig, MambaForCausalLM

    return MambaForCausalLM(
        MambaConfig(
            vocab_size=len(SPECIAL) + len(LETTERS), hidden_size=48, num_hidden_layers=2, state_size=16,
            pad_token_id=PAD, bos_token_id=START, eos_token_id=END,
        )
    )  # fmt: skip


def reversals(size: int, seed: int) -> dict[str, Tensor]:
    """A batch of words and what is to be written of each."""
    some = words(size, seed)
    rows = [torch.tensor([*ids(word), END]) for word in some]
    back = [torch.tensor([*ids(word[::-1]), END]) for word in some]
    tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)
    labels = torch.nn.utils.rnn.pad_sequence(back, batch_first=True, padding_value=-100)
    return {"input_ids": tokens, "attention_mask": (tokens != PAD).long(), "labels": labels}


def repetitions(size: int, seed: int) -> dict[str, Tensor]:
    """A batch of two texts a row, each behind the separator; what stands before a text repeats itself is not asked."""
    texts = repeating(2 * size, seed)
    rows = torch.tensor([[START, *ids(text)] for text in texts])
    labels = rows.masked_fill(torch.arange(rows.shape[1]) <= max(PERIODS), -100)
    return {"input_ids": rows.view(size, -1), "labels": labels.view(size, -1)}


def train(
    model: Any, batch: Callable[[int, int], dict[str, Tensor]], steps: int, size: int = 64, lr: float = 3e-3
) -> list[float]:
    """Adam, whose rate falls in a line after a warm-up of a twentieth; gives the loss of each step."""
    optimiser = torch.optim.Adam(model.parameters(), lr=lr)
    warm, log = max(steps // 20, 1), []
    model.train()
    with bar("training", steps) as advance:
        for step in range(steps):
            optimiser.param_groups[0]["lr"] = lr * min((step + 1) / warm, 1 - step / steps)
            loss = model(**batch(size, step)).loss
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            log.append(float(loss.detach()))
            advance(1, f"loss {log[-1]:.3f}")
    model.eval()
    return log


# ---- what is trained, and what is asked of it ----


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A tiny model and its task."""

    make: Callable[[], Any]
    batch: Callable[[int, int], dict[str, Tensor]]
    texts: Callable[[int, int], list[str]]
    asked: Callable[[str], tuple[str, str]]
    """Of a text: what the model is given, and what it is to write."""
    hook: str
    positions: int
    """That the SAE is trained on: of an encoder's blocks, which have one text each, most are filled up."""
    steps: int
    size: int
    lr: float = 3e-3


SUBJECTS = {
    "t5": Subject(
        make=t5, batch=reversals, texts=words, asked=lambda word: (word, word[::-1]),
        hook="encoder_blocks.0.hook_resid_post", positions=512_000, steps=1000, size=64,
    ),
    "mamba": Subject(
        make=mamba, batch=repetitions, texts=repeating,
        asked=lambda text: (text[:READ], text[READ : READ + WRITTEN]),
        hook="blocks.0.hook_resid_post", positions=40_000, steps=400, size=32, lr=6e-3,
    ),
}  # fmt: skip


def made(name: str) -> Path:
    """The folder of the trained model."""
    into, subject = WORK / name / "model", SUBJECTS[name]
    if not into.exists():
        torch.manual_seed(0)
        model = subject.make()
        log = train(model, subject.batch, subject.steps, subject.size, subject.lr)
        say(f"{name}: loss {log[0]:.3f} to {np.mean(log[-20:]):.3f} in {subject.steps} steps")
        with places.whole_folder(into) as partial:
            model.save_pretrained(partial)
            tokenizer().save_pretrained(partial)
    return into


def opened(name: str) -> Workbench:
    """The trained model with an SAE that the library trained on it."""
    subject, model = SUBJECTS[name], open_model(str(made(name)), dtype="float32")
    file = WORK / name / "texts.jsonl"
    if not file.exists():
        lines = (json.dumps({"text": text}) + "\n" for text in subject.texts(2_600, 10**6))
        file.write_text("".join(lines), encoding="utf-8")
    source = stream(model, open_corpus(file), [subject.hook], subject.positions, split="train")
    config = TrainConfig(lr=3e-3, seed=0)
    train_checkpoint(
        source, subject.hook, WORK / name / "sae", d_sae=D_SAE, k=K, batch=512, epochs=EPOCHS, config=config
    )
    return Workbench.open(WORK / name / "sae", model=model)


def letter_features(wb: Workbench, texts: Sequence[str]) -> tuple[dict[str, list[int]], float]:
    """By letter, the features at least PURE of whose firings are on it, LEAST at least; and at what share of places one of the
    letter's own fires."""
    codes = wb.encode(list(texts))
    fires = (codes.matrix[codes.counted_P] > 0).astype(np.float64).tocsc()
    token, fired = codes.token_P[codes.counted_P], np.asarray(fires.sum(0)).ravel()
    found, covered = {}, 0
    for letter in LETTERS:
        here = token == ids(letter)[0]
        on_it = np.asarray(fires[here].sum(0)).ravel()
        found[letter] = np.flatnonzero((on_it >= PURE * fired) & (fired >= LEAST)).tolist()
        covered += int((fires[here][:, found[letter]].sum(1) > 0).sum())
    return found, covered / len(token)


def identity(wb: Workbench, hook: str, prompts: Sequence[str]) -> bool:
    """Whether an edit that changes nothing changes no bit of the logits."""
    tokens = [torch.tensor([wb.model.prompt(prompt)]) for prompt in prompts]
    same = [Edit(hook, lambda x, _: x.clone())]
    return all(torch.equal(wb.model.run(t).logits, wb.model.run(t, edits=same).logits) for t in tokens)  # type: ignore[arg-type]


def right(answers: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
    """(text, letter, right or not): how many letters that should have been that one were written, and were not."""
    found = np.zeros((len(wanted), len(LETTERS), 2))
    for row, (answer, want) in enumerate(zip(answers, wanted, strict=True)):
        for place, letter in enumerate(want):
            found[row, LETTERS.index(letter), int(answer[place : place + 1] != letter)] += 1
    return found


def share(found: np.ndarray) -> list[Any]:
    """The share of letters that are right, its interval over texts, and of how many; of (text, right or not)."""
    return [float(found[:, 0].sum() / found.sum()), bootstrap_ratio(found[:, 0], found.sum(1)), int(found.sum())]


def checked(name: str) -> dict[str, Any]:
    """What becomes of each letter when its features are ablated, and when those of others are."""
    subject, wb = SUBJECTS[name], opened(name)
    features, covered = letter_features(wb, subject.texts(CHOSEN_ON, 2 * 10**6))
    prompts, wanted = zip(*map(subject.asked, dict.fromkeys(subject.texts(MEASURED, 3 * 10**6))), strict=True)
    letters = [letter for letter in LETTERS if features[letter]]
    if len(letters) < 2:
        raise InterpError(f"{name}: the SAE has features of {len(letters)} letters, so nothing can be compared.")
    variants = [[], *([Ablate(feature=f) for f in features[letter]] for letter in letters)]
    batch = wb.steer_many(list(prompts), variants, max_new_tokens=max(map(len, wanted)) + 1)
    plain, *edited = (right(batch.texts(number), wanted) for number in range(len(variants)))
    known = [LETTERS.index(letter) for letter in letters]
    own = sum(found[:, at] for at, found in zip(known, edited, strict=True))
    other = sum(found[:, [k for k in known if k != at]].sum(1) for at, found in zip(known, edited, strict=True))
    return {
        "texts": len(prompts),
        "an edit that changes nothing changes no bit": identity(wb, subject.hook, prompts[:8]),
        "features": features,
        "places where a feature of their letter fires": covered,
        "letters right": {
            "nothing edited": share(plain.sum(1)),
            "their own features ablated": share(own),
            "features of another letter ablated": share(other),
        },
    }


def main() -> None:
    names = sys.argv[1:] or list(SUBJECTS)
    torch.set_num_threads(threads())
    found = places.read_json(RESULTS) if RESULTS.exists() else {}
    for name in names:
        if name not in SUBJECTS:
            sys.exit(f"no model {name!r}: there is {', '.join(SUBJECTS)}.")
        try:
            found[name] = checked(name)
        except InterpError as error:
            sys.exit(str(error))
        say(f"{name}: {found[name]}")
        places.write_json(RESULTS, found)


if __name__ == "__main__":
    main()
