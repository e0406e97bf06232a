"""Pages: a name is text, whatever is in it."""

import pytest
from nasty_names import NASTY, Tags, has_controls, short

from tasks.core.plotting.html import render

TEMPLATE = """\
{% macro row(name) %}<td title="{{ name }}">{{ name }}</td>{% endmacro %}
<p class="{{ name }}">{{ name }}</p><a href="#{{ name }}">x</a>{{ row(name) }}<pre>{{ text }}</pre>
"""


@pytest.mark.parametrize("name", NASTY, ids=short)
def test_a_name_opens_no_tag_and_leaves_no_control_character(name, tmp_path):
    (tmp_path / "t.html.j2").write_text(TEMPLATE, encoding="utf-8")
    page = render(tmp_path, "t.html.j2", {"name": name, "text": f"a: 1\n{name}"})
    plain = render(tmp_path, "t.html.j2", {"name": "plain", "text": ""})
    assert Tags(page).found == Tags(plain).found
    assert not has_controls(page)
    assert "<pre>a: 1\n" in page
    page.encode("utf-8")
