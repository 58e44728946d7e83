"""Transfer: a dictionary on other texts and on a sibling of its model whose weights were changed a little."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from interp.corpus import Corpus, Document, tokenize
from interp.evals.transfer import Place, in_template, measure_transfer
from interp.models import open_model
from interp.statistics import bootstrap_difference
from interp.types import Hook, InterpError
from tests.conftest import HOOK
from tests.test_evals import copies


@pytest.fixture(scope="module")
def home(tiny, store):
    blocks = replace(store.blocks, tokens_NT=store.blocks.tokens_NT[:2], document_NT=store.blocks.document_NT[:2])
    return Place(name="home", model=tiny, blocks=blocks, norm_cutoff=1e9)


def test_a_sibling_of_the_model_is_compared_document_by_document(home, tiny_folder):
    sibling = open_model(str(tiny_folder), dtype="float32")
    with torch.no_grad():
        for p in sibling.module.parameters():
            p.add_(0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)))
    sae = copies(16, Hook(HOOK), scale=0.8)
    section = measure_transfer(
        sae, home, [replace(home, name="fine-tuned", model=sibling), replace(home, name="again")]
    )
    assert [row["place"] for row in section.rows] == ["home", "fine-tuned", "again"]
    assert [row["paired"] for row in section.rows] == [False, True, True]
    for name in ("ev", "l0", "delta_ce", "kl"):
        rows, figure = {row["place"]: row[name] for row in section.rows}, section[f"{name} fine-tuned"]
        assert figure.value == pytest.approx(rows["fine-tuned"] - rows["home"], abs=1e-9)
        assert figure.interval[0] <= figure.value <= figure.interval[1]
        same = section[f"{name} again"]
        assert same.value == 0
        assert same.interval == (0, 0)  # paired: the same documents are drawn on both sides


def test_another_text_is_not_paired_and_conversations_are_a_row_of_their_own(home, tiny, tiny_folder):
    sae = copies(16, Hook(HOOK), scale=0.8)
    turns = [{"role": "user", "content": "What is the capital of Italy?"}, {"role": "assistant", "content": "Rome."}]
    told = tuple((turn["role"], turn["content"]) for turn in turns)
    docs = [Document(text=f"{told} {i}", source="chat", title=str(i), turns=told) for i in range(30)]
    chats = Corpus(name="chat", licence="", about="", read=lambda: docs)
    with pytest.raises(InterpError, match="has no chat template"):
        in_template(tiny, home.blocks)
    talks = open_model(str(tiny_folder), dtype="float32")
    talks.tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    with pytest.raises(InterpError, match="this text has no conversations"):
        in_template(talks, home.blocks)
    blocks = tokenize(chats, talks, 512)
    chat = Place(name="chat template", model=talks, blocks=blocks, norm_cutoff=1e9, only=in_template(talks, blocks))
    section = measure_transfer(sae, home, [chat])
    row = section.rows[1]
    assert not row["paired"]
    assert row["counted"] == int(blocks.real_NT().sum())
    assert (
        section["ev chat template"].note in ("of other documents than at home",)
        or "too few" in section["ev chat template"].note
    )


def test_places_need_names_of_their_own(home):
    with pytest.raises(InterpError, match="and these are home, home"):
        measure_transfer(copies(16, Hook(HOOK)), home, [home])


def test_pairing_takes_out_what_both_sides_share():
    draw = np.random.default_rng(0)
    shared, ones = 10 * draw.normal(size=200), np.ones(200)
    one, other = (shared, ones), (shared + 0.5 + 0.1 * draw.normal(size=200), ones)
    paired = bootstrap_difference(one, other, paired=True)
    apart = bootstrap_difference(one, other, paired=False)
    assert 0.45 < paired[0] < 0.5 < paired[1] < 0.55
    assert apart[1] - apart[0] > 20 * (paired[1] - paired[0])
