"""Templates: the environment gives text, and text without a template stays as it was written."""

from __future__ import annotations

import dagster as dg
import pytest

from databrokkr_assets.factory.templates import resolved

CONTEXT = dg.ResolutionContext.default().with_scope(limits=[1, 2])


@pytest.mark.parametrize("text", ["123", "1e5", "True", "[1]", "'quoted'", "a {# b #}", "{}", "", "x\n", " 0x10"])
def test_text_without_a_template_stays(text: str) -> None:
    assert resolved({"a": [text]}, CONTEXT) == ({"a": [text]}, ())


@pytest.mark.parametrize("value", ["123", "1e5", "0123", "True", "None", "['a']", "it's {{ 1 }}", "", " x "])
def test_a_variable_gives_its_text(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VALUE", value)
    given = ["{{ env.VALUE }}", "{{env('VALUE')}}", " {{ env.VALUE }}", "{{ env.VALUE }}{{ env.VALUE }}"]
    assert resolved(given, CONTEXT) == ([value, value, value, value + value], ())


def test_a_variable_within_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YEAR", "2013")
    given = ["{{ env.YEAR }}", "in/{{ env.YEAR }}/*.csv", "select {{ env.YEAR }}\nfrom t\n", "{{ env.YEAR }}0"]
    assert resolved(given, CONTEXT)[0] == ["2013", "in/2013/*.csv", "select 2013\nfrom t", "20130"]


def test_missing_variables_are_named_once_and_may_have_a_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOWHERE", raising=False)
    given = ["{{ env.NOWHERE }}", "{{ env.NOWHERE }}", "{{ env('NOWHERE', 'else') }}"]
    assert resolved(given, CONTEXT) == (["", "", "else"], ("NOWHERE",))


def test_other_variables_keep_their_type() -> None:
    assert resolved("{{ limits }}", CONTEXT) == ([1, 2], ())
