"""Source code of several languages, out of packages that ship it as it was written.

A document is a file, or a piece of a long one cut between definitions; its topic is the language.
"""

from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

from interp.corpus.documents import Corpus, Document
from interp.corpus.sources.cleaning import is_data, is_generated, is_minified, without_licence
from interp.corpus.sources.cutting import pieces
from interp.corpus.sources.packages import Package, at_most, files, licences, versions

SHORTEST = 300
"""Characters of a document at least."""

LANGUAGES = {
    ".py": "Python",
    ".js": "JavaScript",
    ".mjs": "JavaScript",
    ".ts": "TypeScript",
    ".c": "C",
    ".h": "C",
    ".cc": "C++",
    ".cpp": "C++",
    ".rs": "Rust",
    ".go": "Go",
    ".java": "Java",
    ".kt": "Kotlin",
}

UNWANTED = (
    *(
        f"*/{folder}/*"
        for folder in ("test", "tests", "testing", "testdata", "testutil", "__tests__", "fixtures", "bench")
    ),
    *(
        f"*/{folder}/*"
        for folder in ("vendor", "third_party", "third-party", "_vendor", "locale", "locales", "migrations")
    ),
    *(
        "*/test_*",
        "*/*_test.*",
        "*/*_tests.*",
        "*.test.*",
        "*.spec.*",
        "*.min.js",
        "*.d.ts",
        "*/*_benchmark.*",
        "*/tests.rs",
    ),
)
"""Tests, which are mostly input and output; others' code; words in other languages."""


PYTHON = (
    Package(archive="django", files=("django/*.py",), licence="BSD-3-Clause", without=("*/conf/*template/*",)),
    Package(archive="networkx", files=("networkx/*.py",), licence="BSD-3-Clause"),
    Package(archive="scrapy", files=("scrapy/*.py",), licence="BSD-3-Clause"),
    Package(archive="celery", files=("celery/*.py",), licence="BSD-3-Clause"),
    Package(archive="tornado", files=("tornado/*.py",), licence="Apache-2.0"),
    Package(archive="textual", files=("src/textual/*.py",), licence="MIT", without=("*/_compat.py",)),
    Package(archive="sqlalchemy", files=("lib/sqlalchemy/*.py",), licence="MIT", without=("*/util/queue.py",)),
)
JAVASCRIPT = (
    Package(archive="eslint", files=("lib/*.js",), licence="MIT"),
    Package(archive="webpack", files=("lib/*.js",), licence="MIT"),
    Package(archive="mongoose", files=("lib/*.js",), licence="MIT"),
    Package(archive="svelte", files=("src/*.js",), licence="MIT"),
    Package(archive="three", files=("src/*.js",), licence="MIT"),
    Package(archive="knex", files=("lib/*.js",), licence="MIT"),
    Package(archive="matter-js", files=("src/*.js",), licence="MIT"),
    Package(archive="rxjs", files=("src/*.ts",), licence="Apache-2.0"),
    Package(archive="mobx", files=("src/*.ts",), licence="MIT"),
    Package(archive="zod", files=("src/*.ts",), licence="MIT"),
    Package(archive="query-core", files=("src/*.ts",), licence="MIT"),
    Package(archive="effect", files=("src/*.ts",), licence="MIT"),
)
C = (
    Package(archive="uvloop", files=("libuv/src/*.c", "libuv/src/*.h"), strip=2, licence="MIT"),
    Package(
        archive="leveldb",
        files=("leveldb/*.cc", "leveldb/*.h", "snappy/*.cc", "snappy/*.h"),
        strip=2,
        licence="BSD-3-Clause",
        cpp=True,
    ),
    Package(
        archive="re2",
        files=("re2/*/*.cc", "re2/*/*.h", "abseil-cpp/absl/*.cc", "abseil-cpp/absl/*.h"),
        strip=2,
        licence="BSD-3-Clause and Apache-2.0",
        cpp=True,
    ),
    Package(
        archive="react-native",
        files=("ReactCommon/*.cpp", "ReactCommon/*.h", "ReactAndroid/src/main/jni/*.cpp"),
        without=("*/ios/*", "*/apple/*", "*/samples/*"),
        licence="MIT",
        cpp=True,
    ),
)
RUST = (
    Package(
        archive="rust-src",
        files=("library/*.rs", "compiler/*.rs", "src/librustdoc/*.rs", "src/tools/*.rs"),
        without=("*/stdarch/*", "*/build.rs", "*/benches/*", "*/error_codes.rs", "*/rustc_target/src/spec/*"),
        strip=3,
        most=6_000_000,
        licence="MIT OR Apache-2.0",
    ),
    Package(archive="rustls", files=("src/*.rs",), strip=5, licence="Apache-2.0 OR ISC OR MIT"),
)
GO = (
    Package(
        archive="golang-src",
        files=("src/*.go",),
        strip=3,
        most=6_000_000,
        licence="BSD-3-Clause",
        without=("*/src/syscall/*", "*/internal/syscall/*", "*/defs_*", "*/signal_*_*"),
    ),
    Package(archive="gin", files=("gin-gonic/*.go",), strip=5, licence="MIT"),
    Package(archive="cobra", files=("spf13/*.go",), strip=5, licence="Apache-2.0"),
)
JAVA = (
    Package(
        archive="react-native", files=("ReactAndroid/src/main/*.java", "ReactAndroid/src/main/*.kt"), licence="MIT"
    ),
)


def read_code(source: str, packages: tuple[Package, ...]) -> Iterator[Document]:
    """Written files without their licences, long ones in pieces; what stands twice is read once."""
    seen: set[bytes] = set()
    for package in packages:
        documents: dict[bytes, Document] = {}
        for path, text in files(package, UNWANTED):
            if not is_generated(text) and not is_minified(text):
                found = _documents(source, package, path, without_licence(text))
                documents |= {doc.digest: doc for doc in found if doc.digest not in seen}
        seen |= documents.keys()
        yield from at_most(package.most, documents.values())


def _documents(source: str, package: Package, path: str, text: str) -> Iterator[Document]:
    suffix = PurePosixPath(path).suffix
    language = "C++" if suffix == ".h" and package.cpp else LANGUAGES[suffix]
    for line, piece in pieces(text):
        if len(piece) >= SHORTEST and not is_data(piece):
            title = f"{package.archive}/{path}" + (f":{line}" if line > 1 else "")
            yield Document(text=piece, source=source, title=title, topic=language)


def _code(source: str, about: str, packages: tuple[Package, ...]) -> Corpus:
    return Corpus(
        name=source,
        licence=licences(packages),
        about=about,
        version=versions(packages),
        read=lambda: read_code(source, packages),
    )


CORPORA: dict[str, Callable[[], Corpus]] = {
    "code-python": lambda: _code("code-python", "Python source of well-known libraries", PYTHON),
    "code-javascript": lambda: _code(
        "code-javascript", "JavaScript and TypeScript source of well-known packages", JAVASCRIPT
    ),
    "code-c": lambda: _code("code-c", "C and C++ source: libuv, LevelDB, RE2, Abseil, React Native", C),
    "code-rust": lambda: _code("code-rust", "Rust source: its compiler, standard library and tools, rustls", RUST),
    "code-go": lambda: _code("code-go", "Go source: its toolchain and standard library, Gin, Cobra", GO),
    "code-java": lambda: _code("code-java", "Java and Kotlin source of React Native for Android", JAVA),
}
