"""Pages of documentation as text: what only steers a program that sets them is cut, prose and examples stay as written."""

import re

from inscriptis import get_text
from inscriptis.css_profiles import STRICT_CSS_PROFILE
from inscriptis.model.config import ParserConfig
from lxml import html

HEADING = re.compile(
    r"#{1,4} \S|={1,4} \S[^\n]*\n|=head\d |(?:([=~*#^\"-])\1{3,}\n)?\S[^\n]*\n([=~*#^\"+-])\2{3,}[ \t]*\n"
)
"""Where a section begins: in Markdown, AsciiDoc, POD and reStructuredText."""

_STEERING = (
    "toctree|image|figure|meta|auto\\w+|currentmodule|module|include|literalinclude|index|raw|highlight|contents|only|plot"
    "|kernel-doc|kernel-feat|kernel-abi|kernel-include|SPDX-License-Identifier|snippet|tabularcolumns|sectionauthor"
    "|moduleauthor|inheritance-diagram|autosummary|changelog|rubric|default-role|testsetup|testcleanup|graphviz"
)
_DIRECTIVE = re.compile(
    rf"^([ \t]*)\.\. (?:{_STEERING})\b[^\n]*\n(?:\1[ \t]+\S[^\n]*\n|[ \t]*\n(?=\1[ \t]+\S))*", re.MULTILINE
)
_LABELS = re.compile(r"^[ \t]*\.\. (?:_[^\n]*:|\|[^\n]*::[^\n]*|\[[^\n]*)?[ \t]*\n(?!\n?[ \t]+\S)", re.MULTILINE)
_COPYING = re.compile(r"copyright|licen[cs]e|all rights reserved", re.IGNORECASE)


def rst(text: str) -> str:
    """reStructuredText without directives that draw in other files or steer the program, labels, and licences at its head."""
    text = _LABELS.sub("", _DIRECTIVE.sub("", text))
    return _joined(_without_comment(text))


def _without_comment(text: str) -> str:
    """Without a comment about copying before the first heading."""
    found = re.match(
        r"\s*\.\.[ \t]*\n?(?:[ \t]+\S[^\n]*\n|[ \t]*\n(?=[ \t]+\S))+|\s*(?:\.\. (?![^\n]*::)[^\n]*\n)+", text
    )
    return text[found.end() :] if found and _COPYING.search(found[0]) else text


def pod(text: str) -> str:
    """POD without index entries, blocks for other formats, and the sections about authors and copying."""
    text = re.sub(
        r"^=begin\b.*?^=end\b[^\n]*\n|^=(?:encoding|for|cut)\b[^\n]*\n", "", text, flags=re.DOTALL | re.MULTILINE
    )
    text = re.sub(
        r"^=head1 [^\n]*(?:COPYRIGHT|LICEN[CS]E|AUTHOR|HISTORY)[^\n]*\n.*?(?=^=head1 |\Z)",
        "",
        text,
        flags=re.DOTALL | re.MULTILINE,
    )
    return _joined(re.sub(r"X<[^<>\n]*>", "", text))


def asciidoc(text: str) -> str:
    """AsciiDoc without anchors, conditions and what is drawn in from other files."""
    return _joined(
        re.sub(
            r"^(?:(?:ifdef|ifndef|endif|include|ifeval)::[^\n]*|\[\[[^\n]*\]\]|:[\w-]+:[^\n]*)\n",
            "",
            text,
            flags=re.MULTILINE,
        )
    )


def markdown(text: str) -> str:
    """Markdown without comments, footnotes' targets of links, and what is drawn in from other files."""
    text = re.sub(r"<!--.*?-->\n?", "", text, flags=re.DOTALL)
    return _joined(re.sub(r"^(?:\{\{#[^\n]*\}\}|\[[^\]\n]+\]: \S+[^\n]*)\n", "", text, flags=re.MULTILINE))


def page(source: str, navigation: tuple[str, ...]) -> str:
    """The text of an HTML page without the elements of these classes, or ids after `#`; examples keep their lines.

    A wide gap between the cells of a table becomes two spaces.
    """
    tree = html.fromstring(source.encode("utf-8"))
    for name in navigation:
        where = "@id=$name" if name.startswith("#") else _HAS_CLASS
        for element in tree.xpath(f"//*[{where}]", name=name.removeprefix("#")):
            element.drop_tree()
    for paragraph in tree.xpath(f"//div[{_HAS_CLASS}]", name="para"):
        paragraph.tag = "p"
    text = get_text(html.tostring(tree, encoding="unicode"), ParserConfig(css=STRICT_CSS_PROFILE))
    return _joined(re.sub(r"(?<=\S) {9,}(?=\S)", "  ", text))


_HAS_CLASS = "contains(concat(' ', @class, ' '), concat(' ', $name, ' '))"


def _joined(text: str) -> str:
    """With no more than one blank line in a row, and no space at the ends of lines."""
    text = re.sub(r"[ \t\u00a0]+$", "", text, flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n") + "\n"
