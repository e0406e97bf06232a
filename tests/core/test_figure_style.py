import logging

import pytest
from matplotlib.figure import Figure
from nasty_names import IN_TABLES

from tasks.core.plotting import style


@pytest.fixture
def figure():
    drawn = Figure(figsize=(4, 2))
    drawn.subplots().set_xlabel("3-5세")
    return drawn


def test_letters_that_no_font_has_are_one_line_and_no_warning(
    tmp_path, figure, caplog, monkeypatch, recwarn
):
    monkeypatch.setattr(style, "_installed_fonts", lambda: ["DejaVu Sans"])
    with caplog.at_level(logging.WARNING):
        style.save(figure, tmp_path / "a.png", "title", "")
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("a.png: no installed font has the letters 세")
    assert not recwarn.list
    assert (tmp_path / "a.png").is_file()


def test_another_warning_is_not_swallowed(tmp_path, figure, monkeypatch):
    import warnings

    real = figure.savefig

    def savefig(*arguments, **more):
        warnings.warn("something else", UserWarning, stacklevel=1)
        return real(*arguments, **more)

    monkeypatch.setattr(figure, "savefig", savefig)
    with pytest.warns(UserWarning, match="something else"):
        style.write_png(figure, tmp_path / "a.png", "")


def test_names_in_a_figure_are_text_wherever_they_stand(tmp_path, caplog):
    drawn = Figure(figsize=(12, 8))
    axis = drawn.subplots()
    axis.set_yticks(range(len(IN_TABLES)), IN_TABLES)
    axis.set_title("a$$b")
    axis.annotate("$\\frac{$", (0, 0))
    style.save(drawn, tmp_path / "a.png", "$x$ of\n$", "$", [style.mark("red", "$$")])
    labels = [label.get_text() for label in axis.get_yticklabels()]
    assert labels[0] == "$x$" and not axis.get_yticklabels()[0].get_parse_math()
    assert "\\x1b[2J" in labels and max(map(len, labels)) <= style.LONGEST_LABEL
