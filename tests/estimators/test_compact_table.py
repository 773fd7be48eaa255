import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jnas import spaces
from jnas.errors import InputError
from jnas.estimators import compact_table
from jnas.estimators.compact_table import Table

SPACE = spaces.get("nasbench201")


def table_of(accuracy, architectures=None, epochs=None):
    count, _, points = accuracy.shape
    return Table(
        "nasbench201",
        "digits",
        SPACE.all()[:count] if architectures is None else architectures,
        np.arange(1, points + 1, dtype=np.int32) if epochs is None else epochs,
        accuracy.astype(np.float32),
        np.linspace(1, 2, count).astype(np.float32),
    )


@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 3)),
        elements=st.one_of(st.integers(0, 10_000).map(lambda hundredths: hundredths / 100), st.just(np.nan)),
    )
)
def test_hundredths_of_a_percent_come_back_as_they_were(tmp_path_factory, accuracy):
    path = tmp_path_factory.mktemp("table") / "t.npz"
    table = table_of(accuracy)
    path.write_bytes(compact_table.to_bytes(table, path))
    again = compact_table.read(path)
    np.testing.assert_allclose(again.accuracy, accuracy, rtol=0, atol=1e-5)
    for name in ("architectures", "epochs", "seconds"):
        np.testing.assert_array_equal(getattr(again, name), getattr(table, name))
    assert (again.space, again.data) == ("nasbench201", "digits")


def test_all_cells_take_less_than_a_megabyte(tmp_path):
    generator = np.random.default_rng(0)
    table = table_of(np.round(generator.uniform(10, 94, (15_625, 3, 4)), 2))
    path = tmp_path / "t.npz"
    path.write_bytes(compact_table.to_bytes(table, path))
    assert path.stat().st_size < 1e6
    assert len(compact_table.read(path).architectures) == 15_625


def test_equivalent_cells_share_a_row():
    distinct = np.unique(np.asarray(SPACE.canonical(SPACE.all())), axis=0)
    table = table_of(np.zeros((len(distinct), 1, 1)), distinct)
    rows = table.rows(SPACE.all())
    np.testing.assert_array_equal(distinct[rows], np.asarray(SPACE.canonical(SPACE.all())))
    # Where a cell has a row of its own it is not its equivalent's.
    every = table_of(np.zeros((15_625, 1, 1)))
    np.testing.assert_array_equal(every.rows(SPACE.all()), np.arange(15_625))
    few = table_of(np.zeros((3, 1, 1)))
    assert few.rows(SPACE.all()[-2:]).tolist() == [-1, -1]


def test_means_leave_out_what_is_missing():
    accuracy = np.array([[[10.0, 50.0], [20.0, np.nan]], [[np.nan, np.nan], [np.nan, np.nan]]])
    table = table_of(accuracy, epochs=np.array([4, 9], np.int32))
    np.testing.assert_array_equal(table.mean(), [50.0, np.nan])
    np.testing.assert_array_equal(table.mean(4), [15.0, np.nan])
    with pytest.raises(InputError, match=r"after epoch 5: choose among 4, 9"):
        table.mean(5)


@pytest.mark.parametrize("harm", ["missing", "truncated", "foreign", "folder", "not percent"])
def test_what_is_no_table(harm, tmp_path):
    path, table = tmp_path / "t.npz", table_of(np.full((2, 1, 1), 101.5 if harm == "not percent" else 5))
    if harm == "not percent":
        path, wide = tmp_path / "t.npz", table_of(np.full((2, 1, 1), 300.0))
        with pytest.raises(InputError, match="must be percentages"):
            compact_table.to_bytes(wide, path)
        return
    content = compact_table.to_bytes(table, path)
    if harm == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif harm == "foreign":
        np.savez(path, a=np.zeros(3))
    elif harm == "folder":
        path.mkdir()
    with pytest.raises(InputError, match=r"t\.npz") as error:
        compact_table.read(path)
    assert "\n" not in str(error.value)
