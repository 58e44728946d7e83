"""How things look: HTML with every string escaped, lines and tables on a terminal, numbers as people read them."""

from interp.render.html import (
    Html,
    bars_svg,
    chart_text,
    csv_cell,
    line_html,
    link_html,
    page_html,
    table_html,
    title_html,
    tokens_html,
    visible,
)

__all__ = [
    "Html",
    "bars_svg",
    "chart_text",
    "csv_cell",
    "line_html",
    "link_html",
    "page_html",
    "table_html",
    "title_html",
    "tokens_html",
    "visible",
]
