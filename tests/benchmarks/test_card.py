from dataclasses import replace

import pytest

from benchmarks.card import Measured, render

ONE = Measured("mlp", "small", 56_709, 1_000.0, 4, 900.0, 6_000.0, 8_000.0, 0.03, 0.44)


@pytest.mark.parametrize(
    ("recorded", "verdict"), [(6_000.0, "it holds"), (4_900.0, "**not** hold")]
)
def test_the_page_says_whether_the_bar_holds_and_what_was_not_measured(recorded, verdict):
    slow = replace(ONE, name="cnn", recorded=recorded)
    large = replace(ONE, preset="large", recorded=1.0)  # no bar for these
    page = render([ONE, slow, large], "bfloat16", 3, "a card")
    assert verdict in page
    assert f"{recorded / 1000:.1f} × (cnn)" in page or recorded == 6_000.0
    assert "Not measured before the run ended: gru small, lstm small" in page
    (row,) = (line for line in page.splitlines() if "| mlp " in line and "| small " in line)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[3:6] == ["6.0 ×", "6,000", "900"]
    assert cells[-3:] == ["44%", "3%", "25%"]
