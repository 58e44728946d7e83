"""Small decoders whose circuits are known, for they were built by hand: folders that `open_model` opens like any other.

Both are GPT-2s of two layers, 64 wide. Every weight begins as GPT-2's own random numbers, so that all parts of the model say a little of
everything; the circuit is added to these. What a token or a thought stands for is a direction; directions are nearly, not quite,
at right angles, for there are more of them than the residual stream is wide.

    two hops     MLP 0, at a city: city → its country.  Attention 1: the last position, if it asks, reads the country of the place.
                 MLP 1, at the last position: country and asking → the country's capital.
                 At one place: MLP 1 reads the country at the city itself, which stands last, and attention has no part.
    induction    attention 0: each position notes what stood before it.  Attention 1: a position reads from where its own token
                 stood before, and says what stands there. No MLP has a part in it.

Axes    D width of the residual stream, P direction, V vocabulary, T token, M neuron.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

WIDTH, HEADS, INNER = 64, 2, 128
HEAD = WIDTH // HEADS
COUNTRIES, CITIES = 12, 4
"""Countries, and cities of each."""
ANIMALS, CLASSES, FILLERS = 6, 3, 8
"""MLPs look up a class of every other word, too, which nothing reads: true features without a part in the circuit."""
SYMBOLS, LENGTH = 24, 10
"""Of the induction model: its tokens, and how many stand in a prompt before one of them comes again."""
SPECIAL = ("<pad>", "<bos>", "<eos>")
PUSHES, PUSH = 400, 0.05
"""Steps, and their size, by which directions are moved apart."""


@dataclass(frozen=True)
class Question:
    """A prompt of a planted model, and what is known of it."""

    words: tuple[str, ...]
    subject: int
    """Position of the token that the answer comes from, counting the one that opens the prompt."""
    answer: str
    about: int
    """Of two hops the number of the country, of induction that of the answer."""

    @property
    def text(self) -> str:
        """As it is read by the model."""
        return " ".join(self.words)


def directions(count: int, draw: torch.Generator) -> Float[Tensor, "P D"]:
    """So many unit vectors without mean (a LayerNorm takes it away), pushed apart until they are nearly at right angles."""
    made = torch.randn(count, WIDTH, generator=draw)
    for _ in range(PUSHES):
        made = normalize(made - made.mean(1, keepdim=True), dim=1)
        near = made @ made.T
        near.fill_diagonal_(0)
        made = made - PUSH * (near**3 * 16 + near) @ made
    return normalize(made - made.mean(1, keepdim=True), dim=1)


def _blank(words: Sequence[str], positions: int, seed: int) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = GPT2Config(
            n_embd=WIDTH, n_head=HEADS, n_layer=2, n_inner=INNER, n_positions=positions, vocab_size=len(words),
            bos_token_id=1, eos_token_id=2, pad_token_id=0,
        )  # fmt: skip
        return GPT2LMHeadModel(config).float()


def _save(model: Any, words: Sequence[str], folder: Path) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<pad>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    model.save_pretrained(folder)
    named = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>"}
    PreTrainedTokenizerFast(tokenizer_object=raw, **named).save_pretrained(folder)
    return folder


def _head(
    block: Any, head: int, q: tuple[Tensor, Tensor], k: tuple[Tensor, Tensor], v: tuple[Tensor, Tensor], out: Tensor
) -> None:
    """Plants a head: `q`, `k` and `v` are (rows that are read, entries of the head they fill); `out` are rows that entries write."""
    first = head * HEAD
    for number, (rows, entries) in enumerate((q, k, v)):
        columns = number * WIDTH + first + entries
        block.attn.c_attn.weight[:, columns] += rows.T
    block.attn.c_proj.weight[first + v[1]] += out


def _neuron(block: Any, at: int, reads: Tensor, bias: float, writes: Tensor) -> None:
    block.mlp.c_fc.weight[:, at] = reads
    block.mlp.c_fc.bias[at] = bias
    block.mlp.c_proj.weight[at] = writes


# ---- two hops ----


@dataclass(frozen=True, eq=False)
class TwoHops:
    """The model of cities, countries and capitals: its words, and the neurons that were planted in each layer."""

    words: tuple[str, ...]
    neurons: tuple[tuple[Tensor, Tensor, Tensor], ...]
    """Of each layer the planted neurons: what they read (M, D), their biases (M), what they write (M, D)."""
    one_place: bool = False

    @staticmethod
    def names() -> tuple[str, ...]:
        """All words."""
        cities = [f"city{number}" for number in range(COUNTRIES * CITIES)]
        capitals = [f"capital{number}" for number in range(COUNTRIES)]
        rest = [f"animal{n}" for n in range(ANIMALS)] + [f"word{n}" for n in range(FILLERS)]
        return (*SPECIAL, *cities, *capitals, *rest, "asks")

    @staticmethod
    @torch.no_grad()
    def build(folder: Path, seed: int = 0, *, one_place: bool = False) -> "TwoHops":
        """The model, written into a folder."""
        words = TwoHops.names()
        draw = torch.Generator().manual_seed(seed + 77_000)
        inner = COUNTRIES + 2 * CLASSES + 1
        all_PD = directions(len(words) + inner, draw)
        token, countries = dict(zip(words, all_PD, strict=False)), all_PD[len(words) : len(words) + COUNTRIES]
        classes, place = all_PD[len(words) + COUNTRIES : -1], all_PD[-1]  # of MLP 0, then of MLP 1
        others = [word for word in words[len(SPECIAL) :] if word.startswith(("animal", "word"))]
        model = _blank(words, 2 * LENGTH, seed)
        model.transformer.wte.weight.copy_(all_PD[: len(words)])
        model.transformer.ln_f.weight.fill_(1.5)
        first, second = model.transformer.h
        # A LayerNorm makes every vector √64 = 8 long: a direction that is alone reads 8, one of two 5.7, one of three 4.6.
        for city in range(COUNTRIES * CITIES):
            _neuron(first, city, token[f"city{city}"], -5.0, (countries[city // CITIES] + place) / 3)
        for number, word in enumerate(others):
            of = number % CLASSES
            _neuron(first, COUNTRIES * CITIES + number, token[word], -5.0, classes[of] / 3)
            _neuron(second, COUNTRIES + 1 + number, token[word], -3.5, classes[CLASSES + of] / 2)
        _neuron(second, COUNTRIES, place, -3.0, classes[CLASSES] / 1.5)
        one, each = torch.tensor([0]), torch.arange(1, 1 + COUNTRIES)
        if not one_place:
            asks = 1.3 * token["asks"][None]
            _head(second, 0, (asks, one), (1.3 * place[None], one), (countries, each), 0.22 * countries)
        for country in range(COUNTRIES):
            reads, bias = countries[country] + token["asks"], -8.0
            if one_place:  # where the country reads 2.4, beside its city
                reads, bias = 2.5 * countries[country], -3.0
            _neuron(second, country, reads, bias, 1.7 * token[f"capital{country}"])
        planted = []
        for block, count in ((first, COUNTRIES * CITIES + len(others)), (second, COUNTRIES + 1 + len(others))):
            mlp = block.mlp
            planted.append((mlp.c_fc.weight[:, :count].T, mlp.c_fc.bias[:count], mlp.c_proj.weight[:count]))
        _save(model, words, folder)
        neurons = tuple((reads.clone(), bias.clone(), writes.clone()) for reads, bias, writes in planted)
        return TwoHops(words, neurons, one_place)

    def questions(self, count: int, seed: int) -> list[Question]:
        """So many prompts, of each city in turn: it stands somewhere among fillers and animals, and the last word asks, or is the city."""
        draw = torch.Generator().manual_seed(seed)

        def one_of(several: int) -> int:
            return int(torch.randint(several, (1,), generator=draw))

        made = []
        for number in range(count):
            city = number % (COUNTRIES * CITIES)
            some = [f"word{one_of(FILLERS)}" if one_of(3) else f"animal{one_of(ANIMALS)}" for _ in range(6)]
            at = one_of(6)
            answer = f"capital{city // CITIES}"
            if self.one_place:
                made.append(Question((*some, f"city{city}"), len(some) + 1, answer, city // CITIES))
                continue
            some[at] = f"city{city}"
            made.append(Question((*some, "asks"), at + 1, answer, city // CITIES))
        return made


# ---- induction ----


@dataclass(frozen=True, eq=False)
class Induction:
    """The model that says what stood behind its last token when that stood there before."""

    words: tuple[str, ...]

    @staticmethod
    @torch.no_grad()
    def build(folder: Path, seed: int = 0, *, notes: bool = True) -> "Induction":
        """The model, written into a folder; without `notes` no position knows what stood before it, and nothing is found."""
        words = (*SPECIAL, *(f"s{number}" for number in range(SYMBOLS)))
        places = LENGTH + 2
        draw = torch.Generator().manual_seed(seed + 78_000)
        all_PD = directions(len(words) + SYMBOLS + places, draw)
        symbols, before = all_PD[len(SPECIAL) : len(words)], all_PD[len(words) : len(words) + SYMBOLS]
        where = all_PD[len(words) + SYMBOLS :]
        model = _blank(words, places, seed)
        model.transformer.wte.weight.copy_(all_PD[: len(words)])
        model.transformer.wpe.weight.copy_(where)
        model.transformer.ln_f.weight.fill_(1.5)
        first, second = model.transformer.h
        index, each = torch.arange(places - 1), torch.arange(SYMBOLS)
        back = (1.6 * where[1:], index), (1.6 * where[:-1], index)
        if notes:
            _head(first, 0, *back, (symbols, each), before / 5.7)
        _head(second, 0, (2 * symbols, each), (2 * before, each), (symbols, each), 2.5 / 4.6 * symbols)
        _save(model, words, folder)
        return Induction(words)

    def questions(self, count: int, seed: int) -> list[Question]:
        """So many prompts, of each answer in turn: LENGTH different tokens, then the one before the answer again."""
        draw = torch.Generator().manual_seed(seed)
        made = []
        for number in range(count):
            answer = number % SYMBOLS
            others = [n for n in torch.randperm(SYMBOLS, generator=draw).tolist() if n != answer][: LENGTH - 1]
            at = 1 + int(torch.randint(LENGTH - 1, (1,), generator=draw))
            some = [*others[:at], answer, *others[at:]]
            made.append(Question(tuple(f"s{n}" for n in (*some, some[at - 1])), at + 1, f"s{answer}", answer))
        return made
