import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

import interp
from interp.evals import evaluate
from interp.evals.fidelity import _recovered
from interp.models import open_model
from interp.render import chart_text, tokens_html
from interp.types import InterpError
from interp.workbench import Workbench
from tests.conftest import HOOK


def test_the_spectrum_is_the_code_of_every_counted_token(wb):
    text = "The capital of France is Paris."
    spectrum = wb.spectrum(text)
    ids = wb.model.prompt(text)
    x = wb.model.run(torch.tensor([ids]), [HOOK]).activations[HOOK][0]
    dense = wb.sae.encode(x) * torch.tensor(spectrum.counted)[:, None]
    assert "".join(spectrum.tokens[1:]) == text
    assert not spectrum.counted[0]
    assert np.allclose(spectrum.matrix(range(64)), dense.T.numpy(), atol=1e-5)
    _, value = spectrum.top(3)[0]
    assert value == pytest.approx(float(dense[3].max()), rel=1e-5)
    assert spectrum.strongest(1)[0] == int(dense.max(0).values.argmax())
    assert len(spectrum.to_pandas()) == int((dense > 0).sum())
    assert any(spectrum.counted[1:])


def test_a_feature_page_holds_what_the_index_knows_and_renders(wb):
    page = wb.feature(5)
    assert sum(page.histogram) == page.fires
    assert len(page.promoted) == len(page.suppressed) == 10
    assert len(page.nearest) == 10
    html = page._repr_html_()
    assert "automatic, untested" in html
    wb.labels.set(5, "five")
    assert wb.feature(5).label.text == "five"
    assert wb.name(5) == "five"


def test_a_token_of_script_is_shown_as_text():
    html = tokens_html(["<script>alert(1)</script>", "\n"], [1.0, 0.0], 1.0)
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "↵" in html
    assert chart_text("<b>x</b>") == "&lt;b&gt;x&lt;/b&gt;"


def test_a_model_with_other_weights_is_refused(checkpoint, tmp_path):
    from interp import places

    shutil.copytree(checkpoint, tmp_path / "s")
    card = places.read_json(tmp_path / "s" / "card.json")
    places.write_json(tmp_path / "s" / "card.json", card | {"model_sha256": "0" * 64})
    with pytest.raises(InterpError, match="was made for .* with weights 0000"):
        _ = Workbench.open(tmp_path / "s", labels="sqlite://").model


@pytest.mark.parametrize("path", ["nowhere", "tests"])
def test_a_folder_that_is_no_checkpoint_is_answered_in_a_sentence(path):
    with pytest.raises(InterpError, match=r"there is no SAE at nowhere|is not a checkpoint: it has no cfg\.json"):
        Workbench.open(path)


def test_the_library_offers_its_names_at_the_top():
    for name in interp.__all__:
        assert getattr(interp, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = interp.nothing


def test_a_perfect_sae_costs_no_loss_and_a_silent_one_costs_the_mean_ablation(wb, store):
    """The report's ends: an SAE that copies, and one whose every feature is shut, so that x̂ = b_dec = the mean."""
    eye = torch.eye(16)
    copy = torch.cat([eye, -eye])
    opened = {"b_enc": torch.zeros(32), "b_dec": torch.zeros(16), "reads": HOOK}
    perfect = interp.SAE(W_enc=copy.T.contiguous(), W_dec=copy, threshold=torch.zeros(32), **opened)
    report = evaluate(wb.model, perfect, store.blocks, norm_cutoff=wb.card.norm_cutoff)
    assert report.fvu < 1e-9
    assert abs(report.delta_ce) < 1e-5
    x = next(iter(store.in_order(HOOK)))[1][store.keep(HOOK, wb.card.norm_cutoff)]
    shut = interp.SAE(
        W_enc=copy.T.contiguous(), W_dec=copy, b_enc=torch.zeros(32), b_dec=x.mean(0), reads=HOOK,
        threshold=torch.full((32,), 1e9),
    )  # fmt: skip
    report = evaluate(wb.model, shut, store.blocks, norm_cutoff=wb.card.norm_cutoff)
    assert report.fvu == pytest.approx(1, abs=1e-4)
    assert report.ce_sae == pytest.approx(report.ce_mean, abs=1e-4)
    assert report.dead == 32
    assert report.fvu_interval[0] <= report.fvu <= report.fvu_interval[1] + 1e-6


def test_no_share_is_recovered_of_an_ablation_that_costs_nothing(wb, store, tiny_folder):
    """A model whose logits are all 0 loses nothing by any ablation: the share would be a quotient of rounding errors."""
    deaf = open_model(str(tiny_folder), dtype="float32")
    torch.nn.init.zeros_(deaf.module.get_output_embeddings().weight)
    report = evaluate(deaf, wb.sae, store.blocks, norm_cutoff=wb.card.norm_cutoff)
    assert report.ce == pytest.approx(report.ce_zero)
    assert report.recovered_zero is None
    assert report.recovered_mean is None


def test_the_share_recovered_is_of_what_ablation_surely_adds():
    """Ablation adds 2 nats to each of 40 predictions of 4 blocks, and the SAE a quarter of that."""
    count = np.full(4, 10)
    losses = {
        "ce": (np.full(4, 30.0), count),
        "ce_sae": (np.full(4, 35.0), count),
        "ce_zero": (np.full(4, 50.0), count),
    }
    assert _recovered(losses, "ce_zero") == 0.75
    losses["ce_mean"] = (np.array([50.0, 12.0, 50.0, 9.0]), count)  # adds to two blocks what it takes from two
    assert _recovered(losses, "ce_mean") is None


def test_a_single_block_has_no_interval(wb, store):
    one = replace(store.blocks, tokens_NT=store.blocks.tokens_NT[:1], document_NT=store.blocks.document_NT[:1])
    report = evaluate(wb.model, wb.sae, one, norm_cutoff=wb.card.norm_cutoff)
    assert report.blocks == 1
    assert report.fvu_interval is None
    assert report.delta_ce_interval is None
