"""Strategies that run here: those whose package is installed."""

import importlib.util

from jnas.strategies import STRATEGIES

NAMES = [name for name in STRATEGIES if name != "optuna" or importlib.util.find_spec("optuna")]
