"""`python`: a function over the node's inputs, as Arrow, pandas or DuckDB relations."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from databrokkr_assets.core.errors import DatabrokkrError, DataError, SpecError
from databrokkr_assets.core.settings import Names
from databrokkr_assets.core.spec import CallsPython, TransformSettings


class Python(TransformSettings, CallsPython):
    """A Python function: its parameters are named like the inputs, it returns the rows."""

    type: Literal["python"] = "python"
    """A Python function over the inputs."""
    function: str
    """Where it stands: `package.module:name`, importable from the project."""
    input: Names
    """The nodes that are read; the function has a parameter of each name."""
    gives: Literal["arrow", "pandas", "duckdb"] = "arrow"
    """What the function is given: an Arrow `RecordBatchReader`, a pandas `DataFrame`, or a DuckDB relation."""

    def inputs(self) -> tuple[str, ...]:
        return self.input

    def joins_inputs(self) -> bool:
        return self.gives == "duckdb"

    def call(self, inputs: Mapping[str, Any]) -> Any:
        function = self._function()
        given = {name: _given(relation, self.gives) for name, relation in inputs.items()}
        try:
            return function(**given)
        except DatabrokkrError:
            raise
        except Exception as error:
            mend = "correct the function; its traceback is in the log"
            raise DataError(f"{self.function} raised {type(error).__name__}: {error}", mend=mend) from error

    def fingerprint(self) -> str:
        module = self.function.partition(":")[0]
        spec = importlib.util.find_spec(module)
        source = Path(spec.origin).read_bytes() if spec and spec.origin else module.encode()
        return hashlib.sha256(source).hexdigest()

    def _function(self) -> Callable[..., Any]:
        module, _, name = self.function.partition(":")
        try:
            function: Callable[..., Any] = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            mend = "write `package.module:name` of a function that can be imported"
            raise SpecError(f'there is no function "{self.function}": {error}', mend=mend) from error
        missing = set(self.input) - set(inspect.signature(function).parameters)
        if missing:
            mend = f"give it the parameters {', '.join(self.input)}"
            raise SpecError(f"{self.function} does not take {', '.join(sorted(missing))}", mend=mend)
        return function


def _given(relation: Any, what: str) -> Any:
    match what:
        case "arrow":
            return relation.to_arrow_reader(50_000)
        case "pandas":
            return relation.df()
        case _:
            return relation


transform = Python
