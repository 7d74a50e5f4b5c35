import pytest

from lightning_jv5.export.markdown import code, escaped, fenced, table


@pytest.mark.parametrize("text", ["```\n# no heading", "a ```` b", "plain"])
def test_no_line_of_a_text_closes_its_fence(text: str) -> None:
    fence, *inside, closing = fenced(text, "yaml").splitlines()
    assert fence == closing + "yaml"
    assert inside == text.splitlines()
    assert not any(line.startswith(closing) for line in inside)


def test_a_cell_is_one_line_and_one_cell() -> None:
    cells = [escaped("a|b\n# c"), code("`|\nd")]
    [_, _, row] = table(["x", "y"], [cells]).splitlines()
    assert row == "| a\\|b \\# c | `` `\\| d `` |"
