"""Going on from a state: what Mamba, RWKV, xLSTM and RecurrentGemma keep between tokens, while features are edited."""

from dataclasses import replace

import pytest
import torch

from interp.models import Edit
from tests.families import models_of

RECURRENT = {
    "mamba": "together",
    "mamba2": "together",
    "rwkv": "alone",
    "xlstm": "together",
    "recurrent_gemma": "together",
}
HOOK = "blocks.0.hook_resid_post"
TEXTS = ("the city of blue music and the river seven", "seven under", "the river reads", "north winter")
NEW = 6


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    return models_of(tmp_path_factory.mktemp("families"))


def shift(hook=HOOK, *, generated=False):
    """An edit that moves each row its own way, at its own tokens or at those that were generated."""

    def apply(x, site):
        by = torch.randn(len(x), 1, x.shape[-1], generator=torch.Generator().manual_seed(0)) * 0.5
        where = site.generated_BT if generated else site.real_BT & (site.position_BT > 0)
        return torch.where(where[..., None], x + by, x)

    return Edit(hook, apply)


def lost(model):
    """The same model, which keeps nothing."""
    return replace(model, family=replace(model.family, caches=False))


@pytest.mark.parametrize("generated", [False, True])
@pytest.mark.parametrize("family", RECURRENT)
def test_a_state_gives_what_reading_anew_gives_with_edits_in_every_row(opened, family, generated):
    model, edits = opened(family), [shift(generated=generated)]
    assert model.goes_on == RECURRENT[family]
    tokens_BT, real_BT = model.padded([model.prompt(text) for text in TEXTS])
    prompt_B, rows = real_BT.sum(1), model.rows(real_BT, edits)
    new_BT = tokens_BT
    with torch.inference_mode():
        for _ in range(NEW):
            ours_BV = rows.step(new_BT, real_BT)
            anew_BV = model.run(tokens_BT, edits=edits, logits=True, real_BT=real_BT, prompt_B=prompt_B, last=1).logits[
                :, 0
            ]
            assert torch.allclose(ours_BV, anew_BV, atol=2e-4, rtol=1e-3)
            new_BT = ours_BV.argmax(-1)[:, None]
            tokens_BT = torch.cat([tokens_BT, new_BT], 1)
            real_BT = torch.nn.functional.pad(real_BT, (0, 1), value=True)
    plain = model.run(tokens_BT, logits=True, real_BT=real_BT, prompt_B=prompt_B, last=1).logits[:, 0]
    assert float((plain - anew_BV).abs().max()) > 0.05  # the edits are not nothing


@pytest.mark.parametrize("family", RECURRENT)
def test_every_new_token_is_read_once_and_the_text_is_that_of_reading_anew(opened, family):
    model, edits = opened(family), [shift()]
    prompts = [model.prompt(text) for text in TEXTS[:2]]
    anew = lost(model).generate(prompts, max_new_tokens=NEW, edits=edits)
    model.generate(prompts, max_new_tokens=1, edits=edits)  # in which what the family does is tried
    read = []
    handle = model.module.get_input_embeddings().register_forward_pre_hook(
        lambda _, given: read.append(given[0].numel())
    )
    try:
        assert model.generate(prompts, max_new_tokens=NEW, edits=edits) == anew
    finally:
        handle.remove()
    padding = 0 if model.goes_on == "alone" or not model.masks_padding else len(prompts[0]) - len(prompts[1])
    assert sum(read) == sum(map(len, prompts)) + padding + 2 * (NEW - 1)


@pytest.mark.parametrize("family", ["mamba", "recurrent_gemma"])
def test_two_texts_that_go_on_in_turns_do_not_see_each_other(opened, family):
    model = opened(family)
    edits = ([shift()], [shift(generated=True)])
    prompts = [[model.prompt(text)] for text in TEXTS[:2]]
    apart = [model.generate(p, max_new_tokens=NEW, edits=e) for p, e in zip(prompts, edits, strict=True)]
    streams = [model.stream(p, max_new_tokens=NEW, edits=e) for p, e in zip(prompts, edits, strict=True)]
    made = [[], []]
    for _ in range(NEW):
        for answer, stream in zip(made, streams, strict=True):
            answer += next(stream)
            model.run(torch.tensor(prompts[1]))
    assert made == [answers[0] for answers in apart]


def test_where_a_step_does_not_pass_a_hook_point_the_text_is_read_anew(opened):
    model = opened("xlstm")
    hook = "backbone.blocks.0.mlstm_layer.mlstm_backend"  # which has no axis of tokens in a step
    assert model.caches_at(HOOK)
    assert not model.caches_at(hook)
    edits = [Edit(hook, lambda x, site: x * 0.5)]
    prompts = [model.prompt(TEXTS[0])]
    assert model.generate(prompts, max_new_tokens=NEW, edits=edits) == lost(model).generate(
        prompts, max_new_tokens=NEW, edits=edits
    )
