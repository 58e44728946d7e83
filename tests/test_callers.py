"""Many callers of one workbench, as a dashboard's tabs are: each gets what it would get alone."""

import threading
import time

import pytest
import torch

from interp.models import Edit, Site
from interp.models.turns import Turns
from interp.steering import Clamp, Scale
from tests.conftest import HOOK

TEXTS = ["The capital of France is Paris.", "A cat sat on the mat; the dog slept.", "def add(a, b):\n    return a + b"]


def everything(wb):
    """By name, functions that each run the model in a way of their own and give something to compare."""
    clamps = [[Clamp(feature=f, strength=20.0)] for f in (3, 7)]

    def bits(x):
        return x.numpy().tobytes()

    def inside():  # a hook point inside attention, for which the implementation is swapped
        tokens = torch.tensor([wb.model.prompt(TEXTS[0])])
        return bits(wb.model.run(tokens, ["blocks.0.attn.hook_pattern"]).activations["blocks.0.attn.hook_pattern"])

    def logits(edits):
        tokens = torch.tensor([wb.model.prompt(TEXTS[1])])
        return bits(wb.model.run(tokens, edits=wb.steered.compile([edits])).logits)

    return {
        "spectrum": lambda: wb.spectrum(TEXTS[0]).values.tobytes(),
        "another spectrum": lambda: wb.spectrum(TEXTS[1]).features.tobytes(),
        "steer": lambda: wb.steer("A cat", clamps[0], max_new_tokens=6).steered_tokens,
        "steer and sample": lambda: wb.steer("The dog", clamps[1], max_new_tokens=6, temperature=1.0).steered_tokens,
        "logits": lambda: logits([]),
        "steered logits": lambda: logits(clamps[0]),
        "scaled logits": lambda: logits([Scale(feature=3, strength=0.0)]),
        "attention": inside,
        "largest": lambda: wb.largest(TEXTS, 16).tobytes(),
        "fires": lambda: [(h.feature, h.score) for h in wb.search(f"fires:'{TEXTS[2].splitlines()[0]}'")],
        "tokens": lambda: [(h.feature, h.score) for h in wb.search("token:/cat|dog/ promotes:the")],
        "meaning": lambda: [(h.feature, h.score) for h in wb.search("a city in europe", limit=5)],
        "effects": lambda: str(wb.effects(int(wb.index.features["density"].to_numpy().argmax()))),
    }


def test_eight_threads_get_the_same_bits_as_one_after_another(wb):
    asked = everything(wb)
    alone = {name: ask() for name, ask in asked.items()}
    wrong, died = [], []
    start = threading.Barrier(8)

    def caller(number):
        start.wait()
        names = list(asked)
        for name in names[number:] + names[:number] + names[number::2]:
            try:
                if asked[name]() != alone[name]:
                    wrong.append(name)
            except BaseException as error:
                died.append(f"{name}: {error!r}")

    threads = [threading.Thread(target=caller, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert not any(thread.is_alive() for thread in threads)
    assert (wrong, died) == ([], [])


def test_threads_that_come_first_open_the_model_once(checkpoint, monkeypatch):
    from interp import workbench
    from interp.workbench import opening

    opened, real = [], opening.open_model

    def slow(*args, **options):
        opened.append(args)
        time.sleep(0.2)
        return real(*args, **options)

    monkeypatch.setattr(opening, "open_model", slow)
    wb = workbench.Workbench.open(checkpoint, labels="sqlite://")
    found = []
    threads = [threading.Thread(target=lambda: found.append(wb.model)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 1
    assert len({id(model) for model in found}) == 1


def test_a_long_generation_lets_others_in_between_its_tokens(tiny):
    """Somebody who asks while 200 tokens are generated is answered long before the last of them."""
    done, answered = [], []

    def generate():
        for _ in tiny.stream([tiny.prompt("A cat")], max_new_tokens=200):
            done.append(time.perf_counter())

    thread = threading.Thread(target=generate)
    thread.start()
    while len(done) < 3:
        time.sleep(0.001)
    for _ in range(5):
        tiny.run(torch.tensor([tiny.prompt(TEXTS[0])]), [HOOK])
        answered.append(len(done))
    thread.join()
    assert answered[-1] < 150


def test_an_edit_that_fails_leaves_no_hook_behind_and_hands_the_turn_on(tiny):
    tokens = torch.tensor([tiny.prompt("A cat")])
    before = tiny.run(tokens).logits

    def broken(x: torch.Tensor, site: Site) -> torch.Tensor:
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        tiny.run(tokens, edits=[Edit(HOOK, broken)])
    assert torch.equal(tiny.run(tokens).logits, before)


def test_turns_go_in_the_order_in_which_they_were_asked_for():
    turns, order, asked = Turns(), [], []

    def caller(number):
        asked.append(number)
        with turns.turn():
            order.append(number)

    threads = []
    with turns.turn():
        for number in range(6):
            threads.append(threading.Thread(target=caller, args=(number,)))
            threads[-1].start()
            while len(turns._waiting) <= number:
                time.sleep(0.001)
    for thread in threads:
        thread.join(10)
    assert order == list(range(6))
    with turns.turn(), pytest.raises(AssertionError, match="from inside one of its own edits"), turns.turn():
        pass
    with turns.turn():  # and the failed one has not kept it
        order.append(6)
    assert order[-1] == 6
