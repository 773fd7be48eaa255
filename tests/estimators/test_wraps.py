"""Two objectives as one."""

import jax
import numpy as np
import pytest

from jnas.estimators.wraps import weighted_product
from jnas.types import Candidates, Estimator, with_status


def told(*rows):
    values = with_status(np.array(rows, np.float64), np.zeros(len(rows)))
    return Estimator(("accuracy", "latency"), lambda key, candidates: values)


def test_a_product_is_the_accuracy_at_the_target_and_less_where_it_takes_longer():
    own = told([90, -5], [90, -10], [90, -2.5], [-np.inf, -5], [90, -np.inf])
    candidates = Candidates(np.zeros((5, 1), np.int32))
    value, status, _ = weighted_product(own, target=5).evaluate(jax.random.key(0), candidates)
    assert np.asarray(value)[:3, 0] == pytest.approx([90, 90 * 2**-0.07, 90 * 0.5**-0.07])
    assert np.isneginf(value[3:]).all() and status[:, 0].tolist() == [0, 0, 0, 1, 1]
    hard = weighted_product(own, target=5, within=0, beyond=-1)
    assert hard.objectives == ("accuracy_latency",)
    value = np.asarray(hard.evaluate(jax.random.key(0), candidates).value)
    assert value[:3, 0] == pytest.approx([90, 45, 90])
