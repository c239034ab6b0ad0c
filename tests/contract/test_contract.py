"""The contract suite over every connector of ours."""

from __future__ import annotations

from .cases import CASES
from .suite import contract

globals().update({f"Test{case.__name__.removesuffix('Case')}": contract(case) for case in CASES})
