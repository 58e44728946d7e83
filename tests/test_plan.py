"""What work would take, told before it is begun: from a configuration, and from small runs."""

import itertools
import json
import shutil
import time

import pytest
import torch
from safetensors.torch import load_file

from interp.commands.planning import plan
from interp.models.sizes import at_layer, layer_of, model_size, small_copy
from interp.recipe.forecast import clock_of, forecast_harvest, forecast_training, peak
from interp.recipe.forecast_index import forecast_index
from interp.render.words import size
from interp.sae import make_architecture
from interp.training import TrainConfig, steps
from interp.training.watch import own_memory
from interp.types import InterpError
from tests.families import FAMILIES, save

HOOK = "blocks.2.hook_resid_post"


@pytest.fixture
def bare(tmp_path):
    """A folder with a model's configuration alone."""
    whole = save("llama", tmp_path / "whole")
    folder = tmp_path / "bare"
    folder.mkdir()
    shutil.copy(whole / "config.json", folder)
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_is_counted_without_its_weights(tmp_path, family):
    folder = save(family, tmp_path / family)
    written = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    made = model_size(str(folder), dtype="float32")
    assert made.parameters == sum(each.numel() for each in written.values())
    assert made.weights >= 4 * made.parameters
    copy = small_copy(str(folder), 2, dtype="float32")
    name = at_layer(HOOK, 1)
    assert copy.run(torch.zeros(1, 5, dtype=torch.long), [name]).activations[name].shape[:2] == (1, 5)
    assert made.layers >= 2
    assert HOOK not in copy.hook_points


def test_a_large_model_is_counted_in_no_memory(bare):
    config = json.loads((bare / "config.json").read_text())
    config |= {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32}
    config |= {"intermediate_size": 11008, "vocab_size": 32000, "head_dim": 128, "tie_word_embeddings": False}
    (bare / "config.json").write_text(json.dumps(config))
    before = own_memory()
    with peak() as most:
        large = model_size(str(bare), dtype="bfloat16")
    assert large.parameters == 6_738_415_616  # as the model of that shape is said to have
    assert 2 * large.parameters <= large.weights < 2.01 * large.parameters
    assert most[0] - before < 100e6


def test_stages_are_told_from_a_configuration_alone(bare):
    planned = plan(str(bare), HOOK, tokens=20_000, d_sae=256, k=4, batch=512, dtype="float32", device="cpu")
    harvest, training, index = planned.stages
    assert harvest.disk == 20_000 * (4 * 32 + 4)
    assert harvest.seconds == pytest.approx(20_000 / harvest.rate)
    assert harvest.memory > planned.size.weights
    assert training.memory > 16 * 2 * 32 * 256
    assert training.seconds > 0
    assert index.memory > planned.size.weights
    assert index.seconds == pytest.approx(20_000 / index.rate)
    assert index.disk > 4 * 4 * 20_000  # of each activation more than 4 bytes, in order of features and of positions
    assert "192 of 256 features" in index.by
    eight = forecast_harvest(planned.size, HOOK, 20_000, stored="int8", device="cpu")[0]
    assert eight.disk == 20_000 * (32 + 4 + 4)
    assert plan(str(bare)).stages == ()


def test_an_index_grows_with_what_fires_and_is_told_of_each_kind(bare):
    size = model_size(str(bare), dtype="float32")
    told = [
        forecast_index(size, 32, tokens, kind, {"d_sae": 64, **options})
        for tokens, kind, options in (
            (2048, "topk", {"k": 2}),
            (4096, "batchtopk", {"k": 4}),
            (2048, "standard", {}),
        )
    ]
    disk = [one.disk for one in told]
    assert disk[0] < disk[1]
    assert "32 active a token assumed" in told[2].by
    with pytest.raises(InterpError, match="several hook points"):
        forecast_index(size, 32, 4096, "transcoder", {"d_sae": 64, "k": 2})


def test_what_others_do_on_the_machine_is_left_out_of_one_threads_time():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert clock_of("cpu") is time.process_time
        torch.set_num_threads(2)
        assert clock_of("cpu") is time.perf_counter
    finally:
        torch.set_num_threads(before)


def test_what_is_told_of_a_training_is_what_the_run_itself_expects(capsys):
    tokens, options = 200_000, {"d_sae": 512, "k": 8}
    told = forecast_training("batchtopk", 64, tokens, options, batch=1024, device="cpu")
    rule, config = make_architecture("batchtopk", d_in=64, **options), TrainConfig(tokens=tokens, device="cpu")
    rows = torch.randn(1024, 64)
    running = steps((rows for _ in range(tokens)), rule, config)
    said = next(note for step in itertools.islice(running, 20) for note in step.notes if "expects" in note)
    assert f"{size(told.disk)} of disk" in said


def test_a_training_too_large_for_a_trial_is_told_from_a_smaller_one(monkeypatch):
    whole = forecast_training("topk", 32, 10_000, {"d_sae": 1024, "k": 4}, batch=256, device="cpu")
    monkeypatch.setattr("interp.recipe.forecast.FITS", 16 * 65 * 1100 / _available())
    part = forecast_training("topk", 32, 10_000, {"d_sae": 1024, "k": 4}, batch=256, device="cpu")
    assert "512 features" in part.by
    assert "features" not in whole.by
    assert part.disk == pytest.approx(whole.disk, rel=0.01)
    monkeypatch.setattr("interp.recipe.forecast.FITS", 0.0)
    with pytest.raises(InterpError, match="too little memory"):
        forecast_training("topk", 32, 10_000, {"d_sae": 1024, "k": 4}, batch=256, device="cpu")


def test_ranks_have_their_parts_told():
    one, four = (
        forecast_training("topk", 32, 10_000, {"d_sae": 1024, "k": 4}, batch=256, device="cpu", **ranks)
        for ranks in ({}, {"ranks": 4, "feature_ranks": 2})
    )
    assert one.sent == 0
    assert four.disk == pytest.approx(one.disk, rel=0.01)
    assert four.hours == pytest.approx(4 * four.seconds / 3600)
    with pytest.raises(InterpError, match="numbers that divide"):
        forecast_training(
            "topk", 32, 10_000, {"d_sae": 1024, "k": 4}, batch=256, device="cpu", ranks=3, feature_ranks=2
        )


def _available() -> int:
    import psutil

    return int(psutil.virtual_memory().available)


def test_what_cannot_be_planned_says_why(bare, tmp_path):
    three = model_size(str(bare))
    assert layer_of("blocks.0.hook_resid_pre", three) == 1
    assert layer_of("hook_embed", three) == 3
    with pytest.raises(InterpError, match="has 3 layers, 0 to 2"):
        layer_of("blocks.3.hook_resid_post", three)
    with pytest.raises(InterpError, match="hook_resid_posts"):
        plan(str(bare), "blocks.2.hook_resid_posts", device="cpu")
    with pytest.raises(InterpError, match="several hook points"):
        plan(str(bare), HOOK, architecture="crosscoder", dtype="float32", device="cpu")
    with pytest.raises(InterpError, match="no config.json"):
        plan(str(tmp_path))
    (bare / "config.json").write_text(json.dumps({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}))
    with pytest.raises(InterpError, match="one after another"):
        plan(str(bare))
