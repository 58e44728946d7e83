"""One forward pass: gradients through what is read and edited, and hook points that fire several times."""

import threading

import pytest
import torch

from interp.models import Edit, open_model
from interp.models.passes import Activations
from interp.types import InterpError
from tests.families import WIDTH, models_of, save

torch.set_num_threads(1)
TEXT = "the city of blue music and the river seven"
SEVERAL = [
    "llama", "gpt2", "gpt_neox", "qwen3", "gemma2", "gemma3", "opt", "bloom", "mpt", "mixtral", "deepseek_v2", "mamba",
    "rwkv", "xlstm", "recurrent_gemma",
]  # fmt: skip
HOOK = "blocks.1.hook_out"


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A model of each family, made when it is first asked for."""
    return models_of(tmp_path_factory.mktemp("families"))


def ids(model, text=TEXT):
    return torch.tensor([model.prompt(text)])


@pytest.mark.parametrize("family", SEVERAL)
def test_the_gradient_of_a_logit_is_what_a_small_edit_moves_it_by(opened, family):
    model = opened(family)
    tokens = ids(model)
    model.run(tokens)  # what a family keeps from a pass in inference mode must not stand in the way
    run = model.run(tokens, [HOOK], grad=True, logits=True)
    assert torch.equal(run.logits, model.run(tokens).logits)
    (gradient_BTD,) = torch.autograd.grad(run.logits[0, -1, 7], run.activations[HOOK])
    draw = torch.Generator().manual_seed(0)
    step, theirs, ours = 3e-2, [], []
    for _ in range(6):
        direction = torch.nn.functional.normalize(torch.randn(WIDTH, generator=draw), dim=0)
        moved = [
            model.run(tokens, edits=[Edit(HOOK, lambda x, site, by=by, d=direction: x + by * d)])
            .logits[0, -1, 7]
            .double()
            for by in (step, -step)
        ]
        theirs.append(float((moved[0] - moved[1]) / (2 * step)))
        ours.append(float((gradient_BTD.double() @ direction.double()).sum()))
    difference = torch.tensor(ours) - torch.tensor(theirs)
    assert float(difference.norm()) < 1e-2 * float(torch.tensor(theirs).norm())  # of float32 through three layers
    assert all(not parameter.requires_grad and parameter.grad is None for parameter in model.module.parameters())


def test_nothing_passes_a_stop_gradient(opened):
    model = opened("llama")
    early, late = "blocks.0.hook_out", "blocks.1.hook_out"
    stop = Edit(late, lambda x, site: torch.where((site.position_BT > 2)[..., None], x, x.detach()))
    run = model.run(ids(model), [early], [stop], grad=True, logits=True)
    gradients = torch.autograd.grad(run.logits[0, 2].sum(), run.activations[early], retain_graph=True)[0]
    assert torch.equal(gradients, torch.zeros_like(gradients))  # all that token 2 sees has been stopped
    assert torch.autograd.grad(run.logits[0, -1].sum(), run.activations[early])[0].any()


def test_an_edit_may_use_a_tensor_of_ones_own(opened):
    """A strength of 0 on one direction: its gradient is that of the activation along it."""
    model = opened("llama")
    strength = torch.zeros((), requires_grad=True)
    direction = torch.randn(WIDTH, generator=torch.Generator().manual_seed(3))
    edit = Edit(HOOK, lambda x, site: x + strength * direction)
    run = model.run(ids(model), [HOOK], [edit], grad=True, logits=True)
    ours, at = torch.autograd.grad(run.logits[0, -1, 5], [strength, run.activations[HOOK]])
    assert torch.allclose(ours, (at @ direction).sum(), rtol=1e-4)


def test_a_pass_with_gradients_ends_early_too(opened):
    model = opened("llama")
    model.shapes()
    fired, early = [], "blocks.0.hook_out"
    handle = model.hook_points["blocks.2.hook_out"].register_forward_hook(lambda *_: fired.append(1))
    run = model.run(ids(model), [early, HOOK], grad=True)
    handle.remove()
    assert run.logits is None
    assert not fired
    assert torch.autograd.grad(run.activations[HOOK].sum(), run.activations[early])[0].any()


def test_gradients_may_be_asked_for_where_the_caller_wants_none(opened):
    model = opened("llama")
    with torch.inference_mode():
        tokens = ids(model)
        run = model.run(tokens, [HOOK], grad=True, real_BT=torch.ones_like(tokens, dtype=torch.bool), logits=True)
    assert torch.autograd.grad(run.logits.sum(), run.activations[HOOK])[0].any()
    assert not model.run(tokens, [HOOK]).activations[HOOK].requires_grad


def test_gradients_do_not_pass_through_padding_that_is_read(opened):
    tokens, real = opened("rwkv").padded([opened("rwkv").prompt(text) for text in (TEXT, "the city")])
    with pytest.raises(InterpError, match=r"reads padding like text.*run texts of one length together"):
        opened("rwkv").run(tokens, [HOOK], grad=True, real_BT=real)
    tokens, real = opened("llama").padded([opened("llama").prompt(text) for text in (TEXT, "the city")])
    run = opened("llama").run(tokens, [HOOK], grad=True, logits=True, real_BT=real)
    (at,) = torch.autograd.grad(run.logits[1, -1].sum(), run.activations[HOOK])
    assert not at[1][~real[1]].any()  # what was padding has no part in it
    assert at[1][real[1]].any()


def test_other_threads_passes_do_not_disturb_a_graph(opened):
    model = opened("llama")
    tokens = ids(model)

    def gradient():
        run = model.run(tokens, [HOOK], grad=True, logits=True)
        yield
        yield torch.autograd.grad(run.logits[0, -1].square().sum(), run.activations[HOOK])[0]

    alone = list(gradient())[1]
    failed, stop = [], threading.Event()

    def others():
        wild = Edit("blocks.0.hook_out", lambda x, site: 100 * x)
        while not stop.is_set():
            try:
                model.run(tokens, ["blocks.1.attn.hook_pattern"], [wild])  # swaps the attention as well
                again = list(gradient())[1]
                assert torch.equal(again, alone)
            except BaseException as error:
                failed.append(error)
                return

    waiting = gradient()
    next(waiting)  # the graph is built, and not gone through
    thread = threading.Thread(target=others)
    thread.start()
    mine = [list(gradient())[1] for _ in range(10)]
    mine.append(next(waiting))
    stop.set()
    thread.join(60)
    assert not failed
    assert all(torch.equal(each, alone) for each in mine)


# ---- hook points that fire several times ----


@pytest.fixture(scope="module")
def experts(opened):
    """A mixture of experts whose activation function, called once for each expert that is hit, is a hook point."""
    model = opened("mixtral")
    model.module.set_experts_implementation("eager")
    model.hook_points["blocks.1.mlp.act"] = next(
        module.act_fn
        for name, module in model.module.named_modules()
        if name.endswith("experts") and "layers.1." in name
    )
    return model


def test_each_experts_firing_is_kept(experts):
    tokens = ids(experts)
    run = experts.run(tokens, ["blocks.1.mlp.act", HOOK])
    firings = run.firings["blocks.1.mlp.act"]
    assert 2 <= len(firings) <= 4  # of four experts, two a token
    assert sum(len(x) for x in firings) == 2 * tokens.shape[1]
    assert run.activations[HOOK].shape == (1, tokens.shape[1], WIDTH)
    with pytest.raises(InterpError, match=rf"act fired {len(firings)} times in this pass; say which with firings\["):
        run.activations["blocks.1.mlp.act"]


def test_a_pass_goes_on_until_the_last_firing(experts):
    """Asked alone, its first firing does not end the pass, which would keep one of several."""
    tokens = ids(experts)
    alone, beside = (experts.run(tokens, ["blocks.1.mlp.act"], logits=logits) for logits in (None, True))
    assert len(alone.firings["blocks.1.mlp.act"]) == len(beside.firings["blocks.1.mlp.act"]) > 1


def test_an_edit_is_told_which_firing_it_sees(experts):
    tokens, told = ids(experts), []

    def second_only(x, site):
        told.append(site.firing)
        return x * (site.firing != 1)

    run = experts.run(tokens, ["blocks.1.mlp.act"], [Edit("blocks.1.mlp.act", second_only)], logits=True)
    plain = experts.run(tokens, ["blocks.1.mlp.act"]).firings["blocks.1.mlp.act"]
    assert told == list(range(len(plain)))
    for firing, (before, after) in enumerate(zip(plain, run.firings["blocks.1.mlp.act"], strict=True)):
        assert torch.equal(after, before * (firing != 1))


def test_a_layer_that_stands_twice_fires_twice(opened, tmp_path):
    model = open_model(str(save("llama", tmp_path)), dtype="float32")
    layers = model.module.model.layers
    layers[2] = layers[1]
    first, second = (lambda x, site, n=n: x + 1.0 * (site.firing == n) for n in (0, 1))
    plain = model.run(ids(model), [HOOK])
    assert len(plain.firings[HOOK]) == 2
    for at, change in enumerate((first, second)):
        moved = model.run(ids(model), [HOOK], [Edit(HOOK, change)]).firings[HOOK]
        assert torch.equal(moved[0], plain.firings[HOOK][0] + (at == 0))
        assert torch.equal(moved[1], plain.firings[HOOK][1] + 1.0) == (at == 1)


def test_activations_are_a_mapping_of_single_firings():
    one = torch.ones(1)
    held = Activations({"a": (one,), "b": (one, one)})
    assert (list(held), len(held), "b" in held) == (["a", "b"], 2, True)
    assert held["a"] is one
    assert dict(Activations({"a": (one,)})) == {"a": one}
    with pytest.raises(InterpError, match=r"b fired 2 times in this pass; say which with firings\['b'\]\[0\] to \[1\]"):
        held["b"]
    with pytest.raises(KeyError):
        held["c"]
