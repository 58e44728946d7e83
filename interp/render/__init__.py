"""How things look: HTML and SVG with every string escaped, lines and tables on a terminal, numbers as people read them."""

from interp.render.html import (
    Html,
    bars_svg,
    chart_text,
    csv_cell,
    line_html,
    link_html,
    page_html,
    table_html,
    text_html,
    title_html,
    tokens_html,
    visible,
)
from interp.render.svg import Point, curves_svg

__all__ = [
    "Html",
    "Point",
    "bars_svg",
    "chart_text",
    "csv_cell",
    "curves_svg",
    "line_html",
    "link_html",
    "page_html",
    "table_html",
    "text_html",
    "title_html",
    "tokens_html",
    "visible",
]
