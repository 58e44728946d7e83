"""Of every family, with tiny random models: what a hook point gives, what edits do there, and how texts of several lengths go."""

import pytest
import torch

from interp.models import Edit, open_model
from interp.types import InterpError
from tests.families import ENCODER_DECODERS, ENCODERS, FAMILIES, WIDTH, save

torch.set_num_threads(1)
TEXTS = ("the city of blue music and the river seven", "seven under")
ALL = [*FAMILIES, *ENCODERS, *ENCODER_DECODERS]


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A model of each family, made and opened when it is first asked for."""
    root, made = tmp_path_factory.mktemp("families"), {}

    def model(family, head=""):
        if (family, head) not in made:
            folder = save(family, root / f"{family}{head}", head=head)
            made[family, head] = open_model(str(folder), dtype="float32")
        return made[family, head]

    return model


def stacks(family):
    return ("encoder_blocks", "decoder_blocks") if family in ENCODER_DECODERS else ("blocks",)


def theirs(model, tokens_BT):
    """By stack, the hidden states that the framework's own option gives."""
    module = model.module
    with torch.inference_mode():
        if "encoder" not in model.family.name or model.family.name == "encoder-only":
            return {"blocks": module(tokens_BT, output_hidden_states=True).hidden_states}
        decoder_BT = torch.cat([torch.zeros_like(tokens_BT[:, :1]), tokens_BT[:, 1:]], 1)
        out = module(tokens_BT[:, 1:], decoder_input_ids=decoder_BT, output_hidden_states=True)
    return {"encoder_blocks": out.encoder_hidden_states, "decoder_blocks": out.decoder_hidden_states}


@pytest.mark.parametrize("family", ALL)
def test_a_hook_point_is_the_frameworks_own_activation(opened, family):
    model = opened(family)
    tokens_BT = torch.tensor([model.prompt(TEXTS[0])])
    for stack, states in theirs(model, tokens_BT).items():
        hook = f"{stack}.0.hook_resid_post"
        x_BTD = model.run(tokens_BT, [hook]).activations[hook]
        assert x_BTD.shape[-1] == model.width(hook) == WIDTH
        x_BTD = x_BTD[:, 1:] if stack == "encoder_blocks" else x_BTD  # the frame's first token is not the encoder's
        first = (
            0 if family in ("mamba", "mamba2", "rwkv") else 1
        )  # whose library keeps none of what enters the first layer
        assert torch.allclose(x_BTD, states[first], atol=1e-6)


@pytest.mark.parametrize("family", ALL)
def test_an_edit_that_changes_nothing_changes_no_bit_and_zeros_change_the_output(opened, family):
    model = opened(family)
    tokens_BT = torch.tensor([model.prompt(TEXTS[0])])
    plain = model.run(tokens_BT).logits
    for stack in stacks(family):
        hook = f"{stack}.1.hook_resid_pre"
        same = model.run(tokens_BT, edits=[Edit(hook, lambda x, site: x.clone())], logits=True).logits
        assert torch.equal(same, plain)
        gone = model.run(tokens_BT, edits=[Edit(hook, lambda x, site: torch.zeros_like(x))], logits=True).logits
        assert float((gone - plain).abs().max()) > 1e-3


@pytest.mark.parametrize("family", [*ENCODERS, *ENCODER_DECODERS])
def test_a_text_beside_a_longer_one_is_read_as_alone(opened, family):
    model = opened(family)
    prompts = [model.prompt(text) for text in TEXTS]
    tokens_BT, real_BT = model.padded(prompts)
    for stack in stacks(family):
        hook = f"{stack}.1.hook_resid_post"
        both = model.run(tokens_BT, [hook], real_BT=real_BT).activations[hook]
        filled = model.run(tokens_BT, [hook]).activations[hook]  # as blocks of a corpus are: filled up, nothing said
        for row, prompt in enumerate(prompts):
            alone = model.run(torch.tensor([prompt]), [hook]).activations[hook][0]
            assert torch.allclose(both[row, 1 : len(prompt)], alone[1:], atol=1e-5)
            assert torch.allclose(filled[row, 1 : len(prompt)], alone[1:], atol=1e-5)


MIXTURES = ["mixtral", "qwen2_moe", "olmoe", "deepseek_v2"]


def expert_outputs(model, x_ND, layer):
    """(the router's logits, what each expert makes of every token) by hand, from the layer's weights."""
    owner = next(m for n, m in model.module.named_modules() if f".{layer}." in n and hasattr(m, "down_proj")
                 and m.down_proj.ndim == 3)  # fmt: skip
    gate_up_END, down_EDM = owner.gate_up_proj, owner.down_proj
    gate, up = torch.einsum("nd,emd->enm", x_ND, gate_up_END).chunk(2, -1)
    return torch.einsum("enm,edm->end", owner.act_fn(gate) * up, down_EDM)


@pytest.mark.parametrize("family", MIXTURES)
def test_router_logits_and_experts_outputs_are_hook_points(opened, family):
    model = opened(family)
    tokens_BT = torch.tensor([model.prompt(TEXTS[0])] * 2)
    into = "blocks.1.mlp.hook_in"
    router = "blocks.1.mlp.hook_router_logits"
    outs = [f"blocks.1.mlp.experts.{e}.hook_out" for e in range(model.shapes()[router][0])]
    run = model.run(tokens_BT, [into, router, *outs], logits=True)
    x_ND = run.activations[into].flatten(0, 1)
    logits_NE = run.activations[router].flatten(0, 1)
    sent = [~run.activations[out].isnan().any(-1).flatten() for out in outs]
    top_NK = logits_NE.topk(2).indices
    with torch.inference_mode():
        made_END = expert_outputs(model, x_ND, 1)
    for expert, sent_N in enumerate(sent):
        assert torch.equal(sent_N, (top_NK == expert).any(1))
        ours = run.activations[outs[expert]].flatten(0, 1)[sent_N]
        assert torch.allclose(ours, made_END[expert][sent_N], atol=1e-4)
    # Reading changes no bit; nor does an edit that changes nothing. Zeros do, and so do other logits of the router.
    plain = model.run(tokens_BT).logits
    assert torch.equal(run.logits, plain)
    busy = outs[max(range(len(outs)), key=lambda e: int(sent[e].sum()))]
    for name in (router, busy):
        same = model.run(tokens_BT, edits=[Edit(name, lambda x, site: x.clone())], logits=True).logits
        assert torch.equal(same, plain)
        gone = model.run(tokens_BT, edits=[Edit(name, lambda x, site: torch.zeros_like(x))], logits=True).logits
        assert float((gone - plain).abs().max()) > 1e-3


@pytest.mark.parametrize("family", ["mixtral", "deepseek_v2"])
def test_a_token_goes_where_the_routers_logits_are_moved(opened, family):
    model = opened(family)
    tokens_BT = torch.tensor([model.prompt(TEXTS[0])])
    router, out = "blocks.1.mlp.hook_router_logits", "blocks.1.mlp.experts.3.hook_out"

    def to_the_last(x_BTE, site):
        x_BTE = x_BTE.clone()
        x_BTE[..., 3] = 1000.0
        return x_BTE

    moved = model.run(tokens_BT, [out], [Edit(router, to_the_last)]).activations[out]
    assert not moved.isnan().any()


@pytest.mark.parametrize("family", ENCODERS)
def test_an_encoder_reads_each_text_as_its_library_does_and_continues_none(opened, family):
    model = opened(family)
    prompt = model.prompt(TEXTS[1])
    assert prompt == [1, *model.tokenize(TEXTS[1]), 2]
    with torch.inference_mode():
        expected = model.module(torch.tensor([prompt])).logits
    assert torch.equal(model.run(torch.tensor([prompt])).logits, expected)
    assert not model.causal
    with pytest.raises(InterpError, match="reads a text in both directions"):
        model.generate([prompt])


def test_an_encoder_without_a_head_gives_vectors_and_says_that_it_has_no_logits(opened):
    model = opened("bert", "AutoModel")
    tokens_BT = torch.tensor([model.prompt(TEXTS[0])])
    assert not model.has_vocabulary
    assert model.run(tokens_BT).logits.shape == (1, tokens_BT.shape[1], WIDTH)
    with pytest.raises(InterpError, match="has no vocabulary: it gives vectors, not logits"):
        model.run(tokens_BT, logits=True)


def test_layers_that_share_their_weights_have_a_hook_point_each(opened):
    """ALBERT calls one layer three times; an edit of the second call leaves the first as it was."""
    model = opened("albert")
    tokens_BT = torch.tensor([model.prompt(TEXTS[0])])
    hooks = [f"blocks.{layer}.hook_resid_post" for layer in range(3)]
    plain = model.run(tokens_BT, hooks).activations
    edited = model.run(tokens_BT, hooks, [Edit(hooks[1], lambda x, site: x + 1)]).activations
    assert torch.equal(edited[hooks[0]], plain[hooks[0]])
    assert torch.equal(edited[hooks[1]], plain[hooks[1]] + 1)
    assert not torch.equal(edited[hooks[2]], plain[hooks[2]])


@pytest.mark.parametrize("family", ENCODER_DECODERS)
def test_an_encoder_decoder_answers_as_its_library_does_and_edits_find_their_side(opened, family):
    model = opened(family)
    prompts = [model.prompt(text) for text in TEXTS]
    alone = [
        model.module.generate(torch.tensor([prompt[1:]]), max_new_tokens=5, do_sample=False, num_beams=1)[
            0, 1:
        ].tolist()
        for prompt in prompts
    ]
    # Four of five: theirs forces an end upon the last token that may be written.
    assert [a[:4] for a in model.generate(prompts, max_new_tokens=5)] == [a[:4] for a in alone]
    seen = {}

    def see(side):
        def apply(x_BTD, site):
            assert x_BTD.shape[:2] == site.tokens_BT.shape == site.real_BT.shape
            seen[side] = site.tokens_BT.shape[1], int(site.generated_BT.sum(1).max())
            return x_BTD

        return apply

    edits = [Edit(f"{side}_blocks.0.hook_resid_post", see(side)) for side in ("encoder", "decoder")]
    answer = model.generate(prompts[:1], max_new_tokens=4, edits=edits)[0]
    assert seen["encoder"] == (len(prompts[0]), 0)
    assert seen["decoder"] == (len(answer), len(answer) - 1)  # the token that answers begin with, and all but the last
    shifted = model.generate(prompts[:1], max_new_tokens=4, edits=[Edit(edits[0].hook_name, lambda x, site: -x)])[0]
    assert shifted != answer


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_logits_of_a_decoder_read_its_last_layer_as_they_do(opened, family):
    """A direction's effect by the unembedding against the model's own logits, when the last layer's output moves along it."""
    model = opened(family)
    unembed_VD, gain_D = model.unembedding()
    hook, tokens_BT = model.last_residual, torch.ones((100, 20), dtype=torch.int64)
    x_BTD = torch.randn(100, 20, WIDTH, generator=torch.Generator().manual_seed(0)) * 10
    d_D = torch.randn(WIDTH, generator=torch.Generator().manual_seed(1))
    ends = [
        model.run(tokens_BT, edits=[Edit(hook, lambda _, site, s=sign: x_BTD + s * d_D)], logits=True).logits
        for sign in (0.5, -0.5)
    ]
    effect_V = (ends[0] - ends[1]).double().mean((0, 1))
    ours_V = ((unembed_VD * gain_D) @ d_D).double()
    assert float(torch.corrcoef(torch.stack([ours_V, effect_V]))[0, 1]) > 0.995
