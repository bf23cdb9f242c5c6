"""Each planted bug is found. Those that matter most are, with the black-box properties alone."""

from __future__ import annotations

import pytest

from . import mutants as m
from .mutants.planted import MUTANTS
from .run import CHECKERS, OUTSIDE, run_seed

SEEDS_MAX = 1000
