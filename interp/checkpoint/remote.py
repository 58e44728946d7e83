"""Push and pull: a hub (through huggingface_hub), any URL that fsspec opens, and SAELens' list of published SAEs.

    hf:org/name[/folder][@revision]    files as they are, with a README.md, in one commit; to pull also a folder or a file of
                                       another library's format, which is converted
    s3://… gs://… file://…             one packed file (see `archive`)
    RELEASE/ID                         to pull: an entry of sae-lens' registry

On a hub the commit is the last step and is whole or not at all; what was uploaded before it is found again by a second
try. A pull lands in a folder of the cache, where a second try goes on, is checked there, and becomes the target by being
renamed. Tokens are huggingface_hub's and fsspec's own affair: they are not read, shown or written here.
"""

import hashlib
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp import places
from interp.checkpoint.archive import pack, unpack
from interp.checkpoint.card import Card, verify_files
from interp.checkpoint.files import NEEDED, check_content, known, named_hashes, pin, present
from interp.checkpoint.leaving import check_leaving, check_named
from interp.checkpoint.readme import describe
from interp.objects import ObjectFolder, file_system, refused, shown
from interp.types import InterpError, unknown

SETTINGS = re.compile(
    r"(cfg|config|hyperparams|activation_scaler)\.json|config\.yaml|activation_whitening\.safetensors|[\w.-]+_cfg\.json"
)
WEIGHTS = re.compile(
    r"(checkpoints/final|params|sae|sae_weights|layer_\d+)\.safetensors|params\.npz|ae\.pt|layer\d+\.sae\.pt|\d+\.pt|[\w.-]+-SAE-[\w.-]+\.pth?"
)
"""What is fetched of another library's checkpoint (see `checkpoint.formats`)."""
HUB = re.compile(r"hf:(?P<repo>[\w.-]+/[\w.-]+)(?:/(?P<folder>[\w./-]+?))?(?:@(?P<revision>[\w./-]+))?")


@dataclass(frozen=True, kw_only=True)
class Moved:
    """What a push or pull did."""

    address: str
    """Without anything that opens a door: no user, password or query."""
    files: list[str]
    left_out: list[str]
    pin: str = ""
    """Of what was moved (see `checkpoint.files.pin`)."""


def push(
    folder: str | Path,
    to: str,
    *,
    added: Mapping[str, Path] | None = None,
    endpoint: str | None = None,
    private: bool = False,
    message: str = "",
) -> Moved:
    """Share a checkpoint; on a hub the repository is made where there is none, and a README.md where the folder has none.

    Raises InterpError when the folder is no checkpoint, differs from its card, or the other side refuses.
    """
    path = Path(folder)
    found, left_out = present(path)
    files = found | dict(added or {})
    if "://" in to:
        return _push_url(path, to, added or {}, left_out)
    where = _hub(to)
    named = check_leaving(files)
    check_named(named, {name: places.sha256_file(files[name]) for name in named})
    with tempfile.TemporaryDirectory() as made:
        if "README.md" not in files and "card.json" in files:
            files["README.md"] = Path(made) / "README.md"
            files["README.md"].write_text(describe(path, to), encoding="utf-8")
        _commit(where, files, endpoint, private, message or f"{path.name}: checkpoint")
        return Moved(address=to, files=sorted(files), left_out=left_out, pin=pin(files))


def pull(source: str, into: str | Path, *, endpoint: str | None = None) -> Moved:
    """Fetch a checkpoint into a folder that appears whole, and only after every file was checked.

    Raises InterpError when there is none, its files are not what their names or its card say, or the folder exists.
    """
    target = Path(into)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InterpError(f"{target} exists already; name another folder, or move that one away first.")
    if "://" in source:
        return _pull_url(source, target)
    if source.startswith("hf:"):
        return _pull_hub(source, target, endpoint)
    return _pull_registry(source, target)


# ---- a hub ----


def _hub(address: str) -> dict[str, str]:
    found = HUB.fullmatch(address)
    if found is None or ".." in address:
        raise InterpError(
            f"{shown(address)!r} is no place to share; write hf:org/name, hf:org/name/folder, or a URL such as "
            "s3://bucket/name.interp.tar."
        )
    return {key: value or "" for key, value in found.groupdict().items()}


def _api(endpoint: str | None) -> Any:
    from huggingface_hub import HfApi

    return HfApi(endpoint=endpoint, library_name="interp")


def _commit(where: dict[str, str], files: dict[str, Path], endpoint: str | None, private: bool, message: str) -> None:
    from huggingface_hub import CommitOperationAdd

    prefix = f"{where['folder']}/" if where["folder"] else ""
    operations = [CommitOperationAdd(f"{prefix}{name}", str(path)) for name, path in sorted(files.items())]
    api = _api(endpoint)
    try:
        api.create_repo(where["repo"], private=private, exist_ok=True)
        api.create_commit(
            where["repo"], operations, commit_message=message, revision=where["revision"] or None, num_threads=2
        )
    except Exception as error:
        raise refused(f"the hub did not take {where['repo']}", error) from None


def _pull_hub(source: str, target: Path, endpoint: str | None) -> Moved:
    where = _hub(source)
    prefix = f"{where['folder']}/" if where["folder"] else ""
    api = _api(endpoint)
    try:
        info = api.model_info(where["repo"], revision=where["revision"] or None, files_metadata=True)
    except Exception as error:
        raise refused(f"the hub does not give {where['repo']}", error) from None
    sizes = {entry.rfilename: int(entry.size or 0) for entry in info.siblings or []}
    inside = {name.removeprefix(prefix): size for name, size in sizes.items() if name.startswith(prefix)}
    taken, left_out = sorted(filter(known, inside)), sorted(name for name in inside if not known(name))
    if not set(NEEDED) <= set(taken) and (theirs := _of_another_library(sizes, where["folder"])):
        return _pull_foreign(source, target, endpoint, {name: sizes[name] for name in theirs}, info.sha)
    if "cfg.json" not in taken:
        several = sorted({name.rpartition("/")[0] for name in sizes if name.endswith("/cfg.json")})
        more = f" It has checkpoints in {', '.join(several[:8])}: add one to the address." if several else ""
        raise InterpError(f"{where['repo']} holds no checkpoint at {where['folder'] or 'its top'}.{more}")
    _check_room(target, sum(inside[name] for name in taken))
    key = hashlib.sha256(f"{endpoint} {where['repo']} {info.sha} {prefix}".encode()).hexdigest()[:32]
    cache = places.cache() / "pulls" / key
    cache.mkdir(parents=True, exist_ok=True)
    for name in taken:
        try:
            api.hf_hub_download(where["repo"], f"{prefix}{name}", revision=info.sha, local_dir=cache)
        except Exception as error:  # what has come stays in the cache, where the next try goes on
            raise refused(f"{name} could not be fetched from {where['repo']}", error) from None
    try:
        _land({name: cache / f"{prefix}{name}" for name in taken}, target)
    finally:
        shutil.rmtree(cache, ignore_errors=True)
    return Moved(address=source, files=taken, left_out=left_out, pin=pin(present(target)[0]))


def _of_another_library(sizes: Mapping[str, int], at: str) -> list[str]:
    """The files of another library's checkpoint in a folder of a repository, or around one file; none if there is none.

    Raises InterpError, naming them, when there are several.
    """
    folder = at.rpartition("/")[0] if at in sizes else at
    prefix = f"{folder}/" if folder else ""
    inside = [name.removeprefix(prefix) for name in sizes if name.startswith(prefix)]
    weights = [at.removeprefix(prefix)] if at in sizes else sorted(filter(WEIGHTS.fullmatch, inside))
    if weights == ["sae_weights.safetensors"] and "config.json" not in inside:
        return []
    if len(weights) > 1:
        raise InterpError(f"there are {len(weights)} SAEs there ({', '.join(weights[:4])}…); add one to the address.")
    above = f"{folder.rpartition('/')[0]}/".removeprefix("/")
    beside = [f"{prefix}{name}" for name in inside if SETTINGS.fullmatch(name)]
    beside += [f"{above}{name}" for name in ("config.json", "config.yaml") if folder and f"{above}{name}" in sizes]
    return sorted({f"{prefix}{weights[0]}", *beside}) if weights else []


def _pull_foreign(source: str, target: Path, endpoint: str | None, sizes: Mapping[str, int], sha: str) -> Moved:
    """Fetched into a folder of the repository's name, which may be part of what is told of it, and converted."""
    from interp.checkpoint.formats import convert

    where, api = _hub(source), _api(endpoint)
    _check_room(target, sum(sizes.values()))
    with tempfile.TemporaryDirectory(dir=_pulls()) as made:
        root = Path(made) / where["repo"].partition("/")[2]
        for name in sizes:
            try:
                api.hf_hub_download(where["repo"], name, revision=sha, local_dir=root)
            except Exception as error:
                raise refused(f"{name} could not be fetched from {where['repo']}", error) from None
            if (root / name).is_symlink() or not (root / name).is_file():
                raise InterpError(f"{name} is no plain file, so nothing was taken.")
        done = convert(root / where["folder"], "saelens", target)
    files, _ = present(target)
    return Moved(address=source, files=sorted(files), left_out=done.lost, pin=pin(files))


def _pulls() -> Path:
    folder = places.cache() / "pulls"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _land(files: dict[str, Path], target: Path) -> None:
    """Check files that were fetched, and make them the target."""
    for name, path in files.items():
        if path.is_symlink() or not path.is_file():
            raise InterpError(f"{name} is no plain file, so nothing was taken.")
        check_content(name, path)
    with places.whole_folder(target) as partial:
        for name, path in files.items():
            (partial / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(path, partial / name)
        if "card.json" in files:
            verify_files(partial)
            _check_hashes(partial)


def _check_hashes(folder: Path) -> None:
    Card.read(folder)
    files, _ = present(folder)
    for name, digest in named_hashes(files).items():
        if name in files and places.sha256_file(files[name]) != digest:
            raise InterpError(f"{name} is not the file that its card names (SHA-256 differs), so nothing was taken.")


def _check_room(target: Path, needed: int) -> None:
    free = places.free_bytes(target.absolute())
    if 2 * needed > free:
        raise InterpError(
            f"fetching needs {2 * needed / 2**20:,.0f} MiB for a while, and {free / 2**20:,.0f} are free beside {target}."
        )


# ---- URLs ----


def _push_url(folder: Path, url: str, added: Mapping[str, Path], left_out: list[str]) -> Moved:
    """Packed, and there whole or not at all."""
    there, name = ObjectFolder.around(url)
    with tempfile.TemporaryDirectory() as made:
        packed = pack(folder, Path(made) / name, added=added)
        there.send(packed.path)
    return Moved(address=shown(url), files=sorted(packed.files), left_out=left_out, pin=packed.pin)


def _pull_url(url: str, target: Path) -> Moved:
    system, path = file_system(url)
    with tempfile.TemporaryDirectory() as made:
        archive = Path(made) / "packed.tar"
        try:
            _check_room(target, int(system.size(path) or 0))
            system.get_file(path, str(archive))
        except InterpError:
            raise
        except Exception as error:
            raise refused(f"{shown(url)} could not be read", error) from None
        unpacked = unpack(archive, target)
    return Moved(address=shown(url), files=sorted(unpacked.files), left_out=[], pin=unpacked.pin)


# ---- SAELens' registry ----


def _pull_registry(source: str, target: Path) -> Moved:
    """A published SAE by RELEASE/ID, fetched and put into one form by sae-lens, then written in ours.

    sae-lens folds the scale of a release whose registry entry has one.
    """
    try:
        from sae_lens import SAE
        from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory
    except ImportError:
        raise InterpError(
            f"{source} is looked up in sae-lens' list, which is not installed: pip install sae-lens."
        ) from None
    directory = get_pretrained_saes_directory()
    release, _, name = source.partition("/")
    if release not in directory:
        hint = "A hub's own repository is hf:org/name."
        raise unknown("release in sae-lens' list", release, directory, try_=hint)
    if name not in directory[release].saes_map:
        raise unknown(f"SAE in {release}", name, directory[release].saes_map)
    from interp.checkpoint.formats import convert

    with tempfile.TemporaryDirectory() as made:
        try:
            sae = SAE.from_pretrained(release, name, device="cpu", dtype="float32")
            sae.save_model(made)
        except Exception as error:
            raise refused(f"sae-lens could not fetch {source}", error) from None
        done = convert(made, "saelens", target, model=directory[release].model)
    return Moved(address=source, files=sorted(path.name for path in target.iterdir()), left_out=done.lost)
