"""EV, L0, CE, CE score, KL and KL score agree with sae-lens' own evaluation on the same tokens of a tiny model.

Its functions run as they are; `AsTheirs` gives them our model by the three calls that they make of theirs. What they ablate
differs: sae-lens sets every position to zero, first positions and sinks too, so the ablated pass is theirs with a dictionary
whose output is zero, which they put at the positions that count.
"""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from interp.checkpoint import save_weights
from interp.evals.baseline import read_baseline, reconstruct
from interp.evals.fidelity import measure_fidelity
from interp.evals.in_place import measure_losses
from interp.models import Edit
from interp.sae import SAE
from interp.types import Hook
from tests.conftest import HOOK
from tests.test_evals import copies

sae_lens_evals = pytest.importorskip("sae_lens.evals")


class AsTheirs:
    """Our model, called as a HookedTransformer is."""

    def __init__(self, model):
        self.model = model

    def __call__(self, tokens, return_type="both", loss_per_token=True, **_):
        return self._out(self.model.run(tokens, logits=True).logits, tokens)

    def run_with_hooks(self, tokens, fwd_hooks, **_):
        edits = [Edit(name, lambda x, site, hook=hook: hook(x, hook=None)) for name, hook in fwd_hooks]
        return self._out(self.model.run(tokens, edits=edits, logits=True).logits, tokens)

    def run_with_cache(self, tokens, names_filter, **_):
        return None, {name: self.model.run(tokens, [name]).activations[name] for name in names_filter}

    @staticmethod
    def _out(logits, tokens):
        log_p = logits[:, :-1].log_softmax(-1)
        return logits, -log_p.gather(-1, tokens[:, 1:, None]).squeeze(-1)


@pytest.fixture(scope="module")
def blocks(store):
    """Without a separator but the first, where the two leave out the same: sae-lens counts predictions of separators."""
    tokens_NT = store.blocks.tokens_NT[:2].clone()
    body = tokens_NT[:, 1:]
    body[body == store.blocks.separator] = 7
    return replace(store.blocks, tokens_NT=tokens_NT, document_NT=store.blocks.document_NT[:2])


def theirs(sae: SAE, tiny, blocks, folder) -> dict[str, float]:
    import sae_lens
    from sae_lens.training.activation_scaler import ActivationScaler

    save_weights(sae, folder, dtype=torch.float32)
    loaded = sae_lens.SAE.load_from_disk(folder)
    loaded.cfg.metadata.hook_name = HOOK
    store, scaler = SimpleNamespace(get_batch_tokens=lambda n: blocks.tokens_NT), ActivationScaler()
    common = {"n_batches": 1, "eval_batch_size_prompts": 2, "ignore_tokens": [blocks.separator], "model_kwargs": {}}
    with torch.no_grad():
        of_loss = sae_lens_evals.get_downstream_reconstruction_metrics(
            loaded, AsTheirs(tiny), store, scaler, compute_kl=True, compute_ce_loss=True, **common
        )  # fmt: skip
        of_rows, _ = sae_lens_evals.get_sparsity_and_variance_metrics(
            loaded, AsTheirs(tiny), store, scaler, compute_l2_norms=True, compute_sparsity_metrics=True,
            compute_variance_metrics=True, compute_featurewise_density_statistics=True, **common,
        )  # fmt: skip
    return of_loss | of_rows


def test_our_figures_are_those_of_sae_lens(tiny, sae, blocks, tmp_path):
    base = read_baseline(tiny, sae, blocks, norm_cutoff=1e9)
    made = reconstruct(base, sae)
    ours = measure_fidelity(base, made)
    zero = copies(16, Hook(HOOK))
    zero = SAE(W_enc=zero.W_enc, b_enc=zero.b_enc, W_dec=0 * zero.W_dec, b_dec=torch.zeros(16), threshold=torch.zeros(32), reads=HOOK)  # fmt: skip
    found, ablated = (theirs(one, tiny, blocks, tmp_path / name) for name, one in (("sae", sae), ("zero", zero)))
    near = lambda value: pytest.approx(value, abs=1e-5)  # noqa: E731
    assert ours["ev"].value == near(found["explained_variance"])
    assert ours["l0"].value == near(found["l0"])
    assert ours["ce"].value == near(found["ce_loss_without_sae"])
    assert ours["ce_sae"].value == near(found["ce_loss_with_sae"])
    assert ours["kl"].value == near(found["kl_div_with_sae"])
    assert ours["ce_zero"].value == near(ablated["ce_loss_with_sae"])
    assert ours["kl_zero"].value == near(ablated["kl_div_with_sae"])
    assert ours["kl_score_zero"].value == near(1 - found["kl_div_with_sae"] / ablated["kl_div_with_sae"])
    losses = measure_losses(base, {"sae": made.change()}, ("zero",))
    clean, with_sae, with_zero = (losses[name].ce_P.sum() for name in ("clean", "sae", "zero"))
    score = (ablated["ce_loss_with_sae"] - found["ce_loss_with_sae"]) / (ablated["ce_loss_with_sae"] - found["ce_loss_without_sae"])  # fmt: skip
    assert (with_zero - with_sae) / (with_zero - clean) == pytest.approx(score, rel=1e-3)
