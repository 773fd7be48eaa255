"""Scores of `jnas score` as an estimator."""

import jax
import numpy as np
import pytest

import jnas
from jnas import spaces
from jnas.errors import InputError
from jnas.estimators.scores import scores
from jnas.types import STATUSES, Candidates

SPACE = spaces.get("nasbench201")
HEADER = "architecture,ntk,ntk_status,swap,swap_status,params,flops\n"
ALL_SKIP = "|skip_connect~0|+|skip_connect~0|skip_connect~1|+|skip_connect~0|skip_connect~1|skip_connect~2|"
CELLS = [
    "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|nor_conv_1x1~2|",
    "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|",
    ALL_SKIP,
]


def written(tmp_path, *lines):
    path = tmp_path / "scores.csv"
    path.write_text(HEADER + "\n".join(lines), "utf-8")
    return str(path)


def test_they_are_looked_up_by_their_signs(tmp_path):
    path = written(
        tmp_path,
        f"{CELLS[0]},120.5,ok,33,ok,1000000,2",
        f"{CELLS[1]},nan,singular,1,ok,100000,1",
        f"{ALL_SKIP},5,ok,2,ok,1,1",
    )
    estimator = scores(SPACE, path)
    assert estimator.objectives == ("ntk", "swap")
    rows = np.stack([SPACE.from_string(cell) for cell in (*CELLS, CELLS[0].replace("1x1", "3x3"))])
    value, status, _ = jax.jit(estimator.evaluate)(jax.random.key(0), Candidates(rows))
    np.testing.assert_array_equal(value[:3], [[-120.5, 33], [-np.inf, 1], [-5, 2]])
    assert np.isneginf(value[3]).all() and (status[3] == STATUSES.index("missing")).all()
    assert [STATUSES[code] for code in np.asarray(status[:3, 0])] == ["ok", "not_finite", "ok"]
    members = estimator.members()
    assert members[np.asarray(SPACE.index(rows))].tolist() == [True, True, True, False]
    value, *_ = scores(SPACE, path, ("params",)).evaluate(jax.random.key(0), Candidates(rows[:2]))
    assert np.asarray(value)[:, 0].tolist() == [1e6, 1e5]


def test_equal_cells_share_their_score(tmp_path):
    codes = np.asarray(SPACE.canonical(SPACE.all()))
    canonical = SPACE.to_string(codes[0])
    same = SPACE.all()[np.flatnonzero((codes == codes[0]).all(axis=1))[:3]]
    path = written(tmp_path, f"{canonical},7,ok,9,ok,1,1")
    value, *_ = scores(SPACE, path).evaluate(jax.random.key(0), Candidates(same))
    assert (np.asarray(value) == [-7, 9]).all() and len(same) == 3


@pytest.mark.parametrize(
    ("text", "names", "message"),
    [
        (None, (), "cannot read the scores"),
        ("", (), "has no architectures"),
        ("a,b\n1,2\n", (), "has no architectures"),
        (
            f"{HEADER}{ALL_SKIP},5,ok,2,ok,1,1\n",
            ("zen",),
            "has no column 'zen': choose among architecture, ntk",
        ),
        (f"{HEADER}nonsense,5,ok,2,ok,1,1\n", (), "nonsense"),
    ],
)
def test_one_line_says_what_is_wrong(text, names, message, tmp_path):
    path = tmp_path / "scores.csv"
    if text is not None:
        path.write_text(text, "utf-8")
    with pytest.raises(InputError, match=message) as error:
        scores(SPACE, str(path), names)
    assert "\n" not in str(error.value)


def test_a_search_by_scores(tmp_path):
    path = written(tmp_path, f"{CELLS[0]},120.5,ok,33,ok,1,2", f"{ALL_SKIP},5,ok,2,ok,1,1")
    proxy = f"scores:{path}"
    strategy = {"name": "warm_up", "of": "random", "best": 2, "candidates": 8, "proxy": proxy}
    result = jnas.search("nasbench201", strategy, proxy, budget=4)
    assert result.architecture in (CELLS[0], ALL_SKIP) and set(result.front) == {CELLS[0], ALL_SKIP}
