"""What every part of the suite stands on: a theme, whose tests are promises, told in the matrix by their docstrings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest

from databrokkr_assets.core.disposition import Append, Disposition, History, Merge, Replace

from .bench import Bench
from .case import Case, Writes

Test = TypeVar("Test", bound=Callable[..., Any])

NEEDS = "contract_needs"

DISPOSITIONS: dict[type[Disposition], Disposition] = {
    Append: Append(),
    Replace: Replace(),
    Merge: Merge(("id",)),
    History: History(("id",)),
}
"""A value of each disposition; rows of tests are told by `id`."""


def needs(*abilities: type) -> Callable[[Test], Test]:
    """Marks a test as a promise of connectors whose case has these abilities only."""

    def marked(test: Test) -> Test:
        setattr(test, NEEDS, abilities)
        return test

    return marked


class Theme:
    """Tests over one case. The first line of a test's docstring is the promise, in plain words."""

    title: ClassVar[str]
    abilities: ClassVar[tuple[type, ...]] = ()
    case: ClassVar[type[Case]]

    @pytest.fixture(scope="class")
    @classmethod
    def system(cls, request: pytest.FixtureRequest) -> Iterator[Any]:
        """The real system."""
        with request.cls.case.system() as system:
            yield system

    @pytest.fixture
    def bench(self, system: Any, tmp_path: Path) -> Iterator[Bench]:
        """An empty corner of the system, and a project."""
        corner, project = tmp_path / "corner", tmp_path / "project"
        corner.mkdir()
        project.mkdir()
        with self.case.fresh(system, corner) as case:
            yield Bench(case, project)

    @pytest.fixture(autouse=True)
    def _gap(self, request: pytest.FixtureRequest) -> None:
        """What the case says does not hold must fail: a gap that closed is to be told."""
        names = (request.node.name, getattr(request.node, "originalname", ""))
        reason = next((self.case.gaps[name] for name in names if name in self.case.gaps), None)
        if reason:
            request.applymarker(pytest.mark.xfail(reason=reason, strict=True))

    @classmethod
    def pytest_generate_tests(cls, metafunc: pytest.Metafunc) -> None:
        """A test that takes `how` runs for each disposition that the case claims, `by_key` for those that have keys."""
        claimed = [DISPOSITIONS[kind] for kind in cls.case.dispositions] if issubclass(cls.case, Writes) else []
        chosen: dict[str, list[Disposition]] = {
            "how": claimed,
            "by_key": [how for how in claimed if isinstance(how, Merge | History)],
        }
        for name in chosen.keys() & set(metafunc.fixturenames):
            metafunc.parametrize(name, chosen[name], ids=[how.name for how in chosen[name]])
