"""Stores and indexes in S3, as moto's server speaks it; Amazon's own was not asked."""

import urllib.request

import pytest
import torch

from interp import places
from interp.activations import ActivationStore, harvest
from interp.checkpoint.remote import pull, push
from interp.corpus import open_corpus
from interp.index import FeatureIndex
from interp.types import InterpError
from interp.workbench import Workbench
from tests.conftest import HOOK
from tests.test_objects import SHARD, TOKENS, content, trained

NEEDS = "needs s3fs and moto's server (pip install s3fs 'moto[server]')"
moto = pytest.importorskip("moto.server", reason=NEEDS)
s3fs = pytest.importorskip("s3fs", reason=NEEDS)


@pytest.fixture
def server():
    made = moto.ThreadedMotoServer(port=0, verbose=False)
    made.start()
    yield made
    ask(made, "reset")
    made.stop()


def ask(server, what: str, data: str = "") -> None:
    """Ask the server itself for something, of which S3 knows nothing."""
    host, port = server.get_host_and_port()
    asked = urllib.request.Request(
        f"http://{host}:{port}/moto-api/{what}", data=data.encode(), headers={"Content-Type": "text/plain"}
    )
    urllib.request.urlopen(asked, timeout=10).close()


@pytest.fixture
def bucket(server, monkeypatch, tmp_path):
    """A client of the server, which has one bucket."""
    monkeypatch.setattr("interp.activations.manifest.SHARD_POSITIONS", SHARD)
    host, port = server.get_host_and_port()
    for name, value in {
        "INTERP_HOME": str(tmp_path / "home"),
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    client = s3fs.S3FileSystem()
    client.mkdir("bucket")
    yield client
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def send(tiny, text_folder):
    return lambda url: harvest(tiny, open_corpus(text_folder), [HOOK], TOKENS, url)


def test_a_store_in_s3_is_that_of_a_folder_and_trains_the_same_sae(bucket, send, tmp_path):
    send(tmp_path / "acts")
    store = send("s3://bucket/acts")
    there = {name.rpartition("/")[2]: bucket.cat_file(name) for name in bucket.ls("bucket/acts", detail=False)}
    assert there == content(tmp_path / "acts")
    store.fetching.keep = 2
    assert trained(store, tmp_path / "a") == trained(ActivationStore.open(tmp_path / "acts"), tmp_path / "b")
    bucket.pipe_file("bucket/acts/shard-00004.safetensors", there["shard-00005.safetensors"])
    for path in (places.cache() / "stores").rglob("shard-*"):
        path.unlink()
    with pytest.raises(InterpError, match="s3://bucket/acts/shard-00004.safetensors is not the file that was sent"):
        list(store.in_order(HOOK))


def test_a_bucket_that_is_not_there_or_goes_is_a_sentence(bucket, send, monkeypatch):
    with pytest.raises(
        InterpError, match="s3://bocket/acts/tokens.parquet could not be written: there is no such bucket"
    ):
        send("s3://bocket/acts")
    assert bucket.ls("") == ["bucket"]  # none was made
    store = send("s3://bucket/acts")
    norms = store.norms(HOOK)
    for path in (places.cache() / "stores").rglob("*.safetensors"):
        path.unlink()
    bucket.rm("bucket", recursive=True)
    with pytest.raises(InterpError, match="shard-00000.safetensors could not be read: there is no such bucket"):
        store.norms(HOOK)
    bucket.mkdir("bucket")
    assert torch.equal(send("s3://bucket/acts").norms(HOOK), norms)


def test_a_server_that_is_gone_or_denies_is_a_sentence(bucket, server, send, monkeypatch):
    send("s3://bucket/acts")
    ask(server, "reset-auth", "0")  # from now on nobody is known
    try:
        with pytest.raises(InterpError, match="s3://bucket/acts could not be looked at: access is denied"):
            ActivationStore.open("s3://bucket/acts")
    finally:
        ask(server, "reset-auth", "inf")
    server.stop()
    with pytest.raises(InterpError, match="s3://bucket/acts could not be looked at: Could not connect"):
        ActivationStore.open("s3://bucket/acts")
    server.start()


def test_an_index_travels_through_s3(bucket, checkpoint, tmp_path):
    from interp import objects

    objects.send_folder(checkpoint / "index", "s3://bucket/index")
    index = FeatureIndex.open("s3://bucket/index")
    index.verify()
    assert index.examples(3) == Workbench.open(checkpoint, labels="sqlite://").index.examples(3)


def test_a_checkpoint_is_pushed_and_pulled_through_s3(bucket, checkpoint, tmp_path):
    push(checkpoint, "s3://bucket/shared/a.interp.tar")
    pull("s3://bucket/shared/a.interp.tar", tmp_path / "out")
    weights = "sae_weights.safetensors"
    assert (tmp_path / "out" / weights).read_bytes() == (checkpoint / weights).read_bytes()
    with pytest.raises(InterpError, match="s3://bocket/a.interp.tar could not be written: there is no such bucket"):
        push(checkpoint, "s3://bocket/a.interp.tar")
    assert bucket.ls("") == ["bucket"]
