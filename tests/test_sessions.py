"""Many sessions of one server, by the commands that pages call: one model in memory, and each gets what it would get alone."""

import threading
import time

import pytest

from interp.commands import finding, steering
from interp.commands.opening import open_sae

TEXTS = ["The capital of France is Paris.", "A cat sat on the mat; the dog slept."]


@pytest.fixture
def two(checkpoint, tmp_path, monkeypatch):
    """The folders of two SAEs of one model."""
    from interp.commands import sharing

    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "home"))
    sharing.pack(str(checkpoint), into=tmp_path / "a.interp.tar")
    sharing.unpack(tmp_path / "a.interp.tar", into=tmp_path / "other")
    return str(checkpoint), str(tmp_path / "other")


def session(sae, number):
    """What one person does, each time in another order: spectrum, steer, search; what came of it, exactly."""
    clamp = [{"kind": "Clamp", "feature": 3 + number % 4, "strength": 20.0}]

    def spectrum():
        read = finding.read_spectrum(sae, TEXTS[number % 2])
        return read.values.tobytes(), read.features.tobytes(), read.unexplained.tobytes()

    def steer():
        return steering.steer(sae, ["A cat"], edits=clamp, tokens=8, temperature=1.0, seed=[number]).steered_tokens

    def search():
        return [(hit.feature, hit.score) for hit in finding.search(sae, f"fires:'{TEXTS[number % 2][:20]}'").hits]

    asked = [spectrum, steer, search]
    first = number % 3
    return {ask.__name__: ask() for ask in asked[first:] + asked[:first]}


def test_eight_sessions_at_once_get_the_same_bits_as_one_after_another(two):
    alone = [session(two[number % 2], number) for number in range(8)]
    found, start = {}, threading.Barrier(8)

    def come(number):
        start.wait()
        found[number] = session(two[number % 2], number)

    threads = [threading.Thread(target=come, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert [found.get(number) for number in range(8)] == alone


def test_all_saes_of_a_model_share_it_in_every_session(two):
    first, second = (open_sae(sae) for sae in two)
    assert first is not second
    assert first.model is second.model
    found = []
    threads = [threading.Thread(target=lambda: found.append(open_sae(two[0]).model)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {id(model) for model in found} == {id(first.model)}


def test_a_page_is_answered_while_another_generates(two):
    sae, ended = two[0], []
    finding.read_spectrum(sae, TEXTS[0])

    def generate():
        steering.steer(sae, ["A cat"], tokens=300)
        ended.append(time.perf_counter())

    thread = threading.Thread(target=generate)
    thread.start()
    answered = []
    for _ in range(5):
        finding.read_spectrum(sae, TEXTS[1])
        answered.append(bool(ended))
    thread.join()
    assert not any(answered[:3])


def test_what_is_left_unexplained_is_the_error_beside_the_bias_alone(two):
    import torch

    bench = open_sae(two[0])
    read = finding.read_spectrum(two[0], TEXTS[0])
    tokens = torch.tensor([bench.model.prompt(TEXTS[0])])
    hook = bench.card.hook_name
    x = bench.model.run(tokens, [hook]).activations[hook][0].float()
    for at, counted in enumerate(read.counted):
        if counted:
            error = (x[at] - bench.sae(x[at][None])[0]).square().sum()
            none = (x[at] - bench.sae.decode(torch.zeros(1, bench.sae.d_sae))[0]).square().sum()
            assert read.unexplained[at] == pytest.approx(float(error / none), rel=1e-4)
        else:
            assert read.unexplained[at] != read.unexplained[at]
