"""Shapes are checked in every test: jaxtyping's hook wraps the package before anything imports it."""

import json
import os
import signal
import sys
import tempfile
from pathlib import Path

import jaxtyping

from tests import shapes

# A home of the tests' own, so that nobody's cache or labels are touched.
os.environ.setdefault("INTERP_HOME", tempfile.mkdtemp(prefix="interp-test-"))
# The folders that pages may speak of: the project's SAEs, and what the fixtures below make.
os.environ.setdefault("INTERP_FOLDERS", str(Path(__file__).parent.parent / "saes"))
# Triton's kernels, where it is installed, run in its interpreter, which needs no GPU.
os.environ.setdefault("TRITON_INTERPRET", "1")
jaxtyping.jaxtyped = shapes.checked
jaxtyping.install_import_hook("interp", "tests.shapes.check")

import pytest
import torch

from interp.activations import ActivationStore, harvest
from interp.checkpoint import load
from interp.corpus import open_corpus
from interp.models import Model, open_model
from interp.recipe import train_checkpoint
from interp.training import TrainConfig
from interp.workbench import EMBEDDED, Workbench

torch.set_num_threads(max(1, 2 // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))))
ROOT = Path(__file__).parent.parent
HOOK = "blocks.1.hook_resid_post"
SHIPPED = [
    f"smollm2-135m-instruct/blocks.{block}.hook_resid_post/batchtopk-{d_sae}"
    for block, d_sae in ((5, 4608), (15, 9216), (25, 4608))
]
"""The embedded SAEs of text as the library lists them."""
PICTURES = "dinov2-small/blocks.8.hook_resid_post/batchtopk-1536"
"""The embedded SAE of pictures, which the library lists before them."""

SENTENCES = [
    "The capital of France is Paris, and the capital of Italy is Rome.",
    "A cat sat on the mat; the dog slept in London all day long.",
    "def add(a, b):\n    return a + b\n\nprint(add(1, 2))",
    "Numbers such as one, two and three are counted <script>alert(1)</script>.",
]


def pytest_configure() -> None:
    """Background jobs of a shell, and what nohup runs, ignore some signals, and so do their children: tests of those
    signals would wait in vain."""
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


@pytest.fixture(scope="module", autouse=True)
def garbage_is_looked_at_again():
    """A page that a file of tests opened has survivors of slow collections frozen (`interp.ui.garbage`), and what asks for
    referrers does not see them: Hypothesis would warn of a generator that it holds itself."""
    yield
    if page := sys.modules.get("interp.ui.garbage"):
        page.let_go()


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four hundred small documents in one file."""
    folder = tmp_path_factory.mktemp("text")
    rows = [{"text": f"{SENTENCES[i % 4]} Part {i}.", "title": f"doc {i}", "topic": f"t{i % 4}"} for i in range(400)]
    (folder / "docs.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory, text_folder: Path) -> Path:
    """A random two-block Llama of width 16 with a byte-level tokenizer trained on the test text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny") / "tiny-llama"
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet)
    raw.train_from_iterator(SENTENCES * 10, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<|endoftext|>", eos_token="<|endoftext|>")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        initializer_range=0.3,
        architectures=["LlamaForCausalLM"],
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> Model:
    return open_model(str(tiny_folder), dtype="float32")


@pytest.fixture(scope="session")
def store(tiny: Model, text_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> ActivationStore:
    return harvest(tiny, open_corpus(text_folder), [HOOK], 8_192, tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="session")
def checkpoint(store: ActivationStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BatchTopK SAE of 64 features on the tiny model, with a full index beside it."""
    folder = tmp_path_factory.mktemp("saes") / "tiny"
    os.environ["INTERP_FOLDERS"] += f"{os.pathsep}{folder.parent}"
    train_checkpoint(store, HOOK, folder, d_sae=64, k=4, epochs=8, batch=256, config=TrainConfig(lr=5e-3))
    wb = Workbench.open(folder, labels="sqlite://")
    wb.build_index(open_corpus(Path(store.recipe["corpus"]["name"])), 8_192, beside=True)
    return folder


@pytest.fixture
def wb(checkpoint: Path, tmp_path: Path) -> Workbench:
    return Workbench.open(checkpoint, labels=f"sqlite:///{tmp_path}/labels.sqlite")


@pytest.fixture(scope="session")
def smollm2() -> Model:
    return open_model("smollm2")


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    return Workbench.open(ROOT / EMBEDDED, labels=f"sqlite:///{tmp_path_factory.mktemp('labels')}/l.sqlite")


@pytest.fixture
def sae(checkpoint: Path):
    return load(checkpoint)


@pytest.fixture(scope="module")
def browser():
    """Chromium without a window."""
    from tests.browser import chromium

    with chromium() as made:
        yield made


@pytest.fixture
def page(browser):
    """A page of a person of its own."""
    from tests.browser import someone

    context = someone(browser)
    yield context.new_page()
    context.close()
