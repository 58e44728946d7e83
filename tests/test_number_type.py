"""Models are opened in a number type of their own while other threads compute and open others."""

import sys
import threading

import pytest
import torch
from transformers import AutoConfig

from interp.models import open_model
from interp.models.families import family_of
from interp.models.number_type import opening
from tests.families import AUDIO, ENCODER_DECODERS, ENCODERS, FAMILIES, VISION, save, save_media

TEXT = (*FAMILIES, *ENCODERS, *ENCODER_DECODERS)


@pytest.fixture
def other_threads_come_often():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def test_two_threads_open_two_types_and_a_third_goes_on_in_its_own(tiny_folder, other_threads_come_often):
    wrong, over = [], threading.Event()

    def opens(kind):
        for _ in range(12):
            model = open_model(str(tiny_folder), dtype=kind)
            found = {parameter.dtype for parameter in model.module.parameters()}
            if found != {getattr(torch, kind)}:
                wrong.append((kind, found))

    def computes():
        while not over.is_set():
            if torch.zeros(2).dtype != torch.float32 or torch.get_default_dtype() != torch.float32:
                wrong.append("a thread that opened nothing got another number type")
                return

    openers = [threading.Thread(target=opens, args=(kind,)) for kind in ("bfloat16", "float32", "float16")]
    computer = threading.Thread(target=computes)
    for thread in (computer, *openers):
        thread.start()
    for thread in openers:
        thread.join()
    over.set()
    computer.join()
    assert not wrong
    assert torch.get_default_dtype() == torch.float32


def made(kind, folder, dtype):
    """Every parameter and buffer of a model by its name."""
    torch.manual_seed(0)  # what a folder lacks is random
    model = kind.from_pretrained(folder, dtype=dtype)
    every = dict((*model.named_parameters(), *model.named_buffers()))
    # One is made by `torch.Tensor(n)`, which no mode hears of; only training reads it.
    return {name: tensor for name, tensor in every.items() if "masked_spec_embed" not in name}


@pytest.mark.parametrize("family", [*TEXT, *VISION, *AUDIO])
def test_every_family_is_made_bit_for_bit_as_without(family, tmp_path):
    folder = (save if family in TEXT else save_media)(family, tmp_path / family)
    config = AutoConfig.from_pretrained(folder)
    kind = family_of(config).opens(config)
    for dtype in (torch.bfloat16, torch.float32):
        plain = made(kind, folder, dtype)
        with opening():
            ours = made(kind, folder, dtype)
        assert plain.keys() == ours.keys()
        for name, one in plain.items():
            assert one.dtype == ours[name].dtype, name
            assert torch.equal(one, ours[name]), name
