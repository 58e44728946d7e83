"""Names of the features of all layers, where it is known what each fires on. With the real encoder, and a tiny model."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from interp.checkpoint.eight_bit import read_features, write_features
from interp.labels import automatic
from interp.mask import Mask
from interp.models import open_model
from interp.models.sentence import sentence_encoder
from interp.predicates import Text, Vocabulary
from interp.recipe import naming
from interp.recipe.naming import Layer, describe_layers
from interp.sae.kernels import Active

BLOCK, DOCUMENTS, FEATURES = 32, 240, 6


class Planted:
    """A feature for each of some tokens: it fires where the embedding is that token's, and once in a hundred elsewhere."""

    def __init__(self, embedding_VD: torch.Tensor, tokens: list[int]) -> None:
        self.rows_FD, self.draw = embedding_VD[tokens], torch.Generator().manual_seed(0)

    def active(self, x_BD: torch.Tensor) -> Active:
        own = torch.cdist(x_BD, self.rows_FD) < 1e-3
        fires = own | (torch.rand(own.shape, generator=self.draw) < 0.01)
        rows, features = fires.nonzero().unbind(1)
        values = torch.where(own, 5.0 + torch.rand(own.shape, generator=self.draw), 0.5)[rows, features]
        return Active(rows, features, values, torch.searchsorted(rows, torch.arange(len(x_BD) + 1)), len(self.rows_FD))


@pytest.fixture(scope="module")
def described(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory):
    """(rows by layer, rows of a second run, tokens, texts, folder of the work)."""
    model = open_model(str(tiny_folder), dtype="float32")
    hook = "hook_embed"
    texts = [model.decode([token]) for token in range(len(model.unembedding()[0]))]
    words = [token for token, text in enumerate(texts) if text.startswith(" ") and len(text) > 3 and text[1:].isalpha()]
    draw = np.random.default_rng(0)
    token = draw.choice(words[:40], (DOCUMENTS, BLOCK))
    token[:, 0] = 0
    split = ["heldout" if d % 4 == 1 else "labels" if d % 4 == 2 else "train" for d in range(DOCUMENTS)]
    columns = {"source": ["a"] * DOCUMENTS, "topic": [""] * DOCUMENTS}
    text = Text(
        token.reshape(-1),
        np.repeat(np.arange(DOCUMENTS), BLOCK),
        token.reshape(-1) != 0,
        BLOCK,
        0,
        Vocabulary(texts),
        split,
        columns,
    )
    embedding = model.run(torch.arange(len(texts))[None, :], [hook]).activations[hook][0]
    own = [words[n] for n in range(FEATURES)]
    layers = [
        Layer(reads=hook, mask=Mask({hook: 1e9}), active=Planted(embedding, part).active, written_FD=embedding[part])
        for part in (own, own[::-1])
    ]
    root = tmp_path_factory.mktemp("names")

    def run(features: dict[int, list[int]] | None) -> list[list[dict]]:
        return list(
            describe_layers(
                model,
                layers,
                text,
                np.arange(DOCUMENTS - 8),
                sentence_encoder().encode,
                root,
                follows_from={"weights": "planted"},
                features=features,
            )
        )

    patch = pytest.MonkeyPatch()
    patch.setattr(automatic, "FEWEST", 2)
    with patch.context() as p:
        first = run(None)
        p.setattr(naming, "_collect", None)  # what was read is not read again
        again = run({0: [1, 2]})
    return first, again, own, texts, root


def test_what_a_feature_fires_on_is_its_label_and_was_tried(described):
    first, _, own, texts, _ = described
    for rows, tokens in zip(first, (own, own[::-1]), strict=True):
        assert len(rows) == FEATURES
        for row, token in zip(rows, tokens, strict=True):
            assert row["label"] == f"‘{texts[token].strip()}’"
            assert row["verdict"] == "confirmed"
            assert row["low"] <= row["f1"] <= row["high"]
            assert row["f1"] > 0.9
            assert row["fires_on"][0] == texts[token]
            assert row["shares"][0] > 0.5
            assert row["shares"] == sorted(row["shares"], reverse=True)
            assert 1 / 40 < row["density"] < 0.06  # one of forty words, and a hundredth by the way


def test_only_those_that_are_asked_for_get_a_label_and_a_run_goes_on_where_it_was(described):
    first, again, _, _, root = described
    assert [bool(row["label"]) for row in again[0]] == [False, True, True, False, False, False]
    assert not any(row["label"] for row in again[1])
    assert [row["density"] for row in again[0]] == [row["density"] for row in first[0]]
    (folder,) = [each for each in root.iterdir() if each.is_dir()]
    assert len(json.loads((folder / naming.COUNTED).read_text())) == 2


def test_labels_are_said_by_how_they_came_out(tmp_path):
    row = {
        "density": 0.1,
        "fires_on": [" a", " b"],
        "shares": [0.3, 0.01],
        "promotes": [" c"],
        "label": "‘a’",
        "claim": "token:a",
        "level": 0.5,
        "verdict": "confirmed",
        "f1": 0.75,
        "low": 0.7,
        "high": 0.8,
    }
    layer = [row, *(row | {"verdict": verdict} for verdict in ("undecided", "too few", "refuted"))]
    write_features(tmp_path, [[*layer, row | {"label": "", "verdict": "", "shares": [0.02, 0.01]}]])
    told = read_features(tmp_path)
    assert [told[0, n].text for n in range(5)] == [
        "‘a’ (F1 0.75)",
        "‘a’ (undecided)",
        "‘a’ (too rare to be tried)",
        "on ‘ a’ 30%",
        "on many tokens",
    ]
    assert [told[0, n].label for n in range(5)] == ["‘a’", "", "", "", ""]
