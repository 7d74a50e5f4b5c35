import logging

import pytest

from lightning_jv5.data.bad_rows import BadRows


def test_the_first_bad_row_is_an_error_that_says_where_and_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"faq, row 3: it is empty\. Fill it in\. Or .* on_bad_row: skip"):
        BadRows("faq").report("row 3", "it is empty", "Fill it in.")


def test_skipped_rows_are_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    bad = BadRows("faq", "skip", max_bad_share=0.5)
    bad.report("row 3", "it is empty", "Fill it in.")
    bad.report("row 4", "it is a number", "Write it out.", count=2)
    with caplog.at_level(logging.WARNING):
        assert bad.finish(rows=6) == 3
    assert "faq: skipped 3 of 6 rows (50.00%). The first: faq, row 3: it is empty. Fill it in." in caplog.text


def test_more_skipped_rows_than_allowed_are_an_error() -> None:
    bad = BadRows("faq", "skip", max_bad_share=0.1)
    bad.report("row 3", "it is empty", "Fill it in.", count=2)
    with pytest.raises(ValueError, match=r"2 of 10 rows \(20.00%\) cannot be used; max_bad_share allows 10.00%"):
        bad.finish(rows=10)


def test_without_bad_rows_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    assert BadRows("faq").finish(rows=0) == 0
    assert not caplog.text


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="Got on_bad_row 'drop'; need 'error' or 'skip'"):
        BadRows("faq", "drop")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Got max_bad_share 2; need a share"):
        BadRows("faq", "skip", max_bad_share=2)
