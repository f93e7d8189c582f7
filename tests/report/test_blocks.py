"""Blocks: the same content as Markdown and as HTML."""

from __future__ import annotations

from cis490.report.blocks import Table, inline, to_html, to_markdown

TABLE = Table(["name", "n"], [["a|b <i>", 1], ["**c**", "`d`"]], align="lr", grey={1})


def test_both_twins_hold_the_same_cells() -> None:
    assert to_markdown(["Text.", TABLE]) == [
        "Text.",
        "",
        "| name       |   n |",
        "|------------|----:|",
        "| a/b &lt;i> |   1 |",
        "| **c**      | `d` |",
    ]
    html = to_html(["Text.", TABLE])
    assert "<p>Text.</p>" in html
    assert '<th scope="col" class="n">n</th>' in html
    assert '<th scope="row">a|b &lt;i&gt;</th><td class="n">1</td>' in html
    assert '<tr class="few"><th scope="row"><strong>c</strong></th>' in html
    assert html.count('class="few"') == 1


def test_text_is_escaped_before_it_is_marked_up() -> None:
    assert inline("**a < b** and `x & y`") == (
        "<strong>a &lt; b</strong> and <code>x &amp; y</code>"
    )
    assert inline("2 ** 3 and **") == "2 ** 3 and **"
    assert inline('"\x00') == "&quot;\ufffd"
