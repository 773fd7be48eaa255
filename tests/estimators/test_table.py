import gzip

import pytest

from jnas.errors import InputError
from jnas.estimators import ESTIMATORS
from jnas.estimators.compact_table import read_accuracies

TEXT = "architecture,test_acc,other\na,92.5,1\nb,10.25,2\n"


@pytest.mark.parametrize(("name", "opener"), [("t.csv", open), ("t.csv.gz", gzip.open)])
def test_reading(tmp_path, name, opener):
    with opener(tmp_path / name, "wt") as stream:
        stream.write(TEXT)
    assert read_accuracies(tmp_path / name) == {"a": 92.5, "b": 10.25}
    assert read_accuracies(str(tmp_path / name)) == {"a": 92.5, "b": 10.25}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.csv", None, "no table .*give the path of a CSV file, or leave --table away"),
        ("t.csv", b"", "lacks the column architecture"),
        (
            "t.csv",
            b"architecture,test_accuracy\na,1\n",
            "lacks the column test_acc: it needs architecture, test_acc",
        ),
        ("t.csv", b"test_acc\n1\n", "lacks the column architecture"),
        ("t.csv", b"architecture,test_acc\na,high\n", "cannot read the table .*high"),
        ("t.csv", b"architecture,test_acc\na\n", "cannot read the table"),
        ("t.csv", b"\xff\xfe\x00binary", "cannot read the table"),
        ("t.csv.gz", TEXT.encode(), "cannot read the table .*gzipped if it ends in .gz"),
        ("t.csv.gz", gzip.compress(TEXT.encode(), mtime=0)[:-12], "cannot read the table"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_accuracies(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_table(tmp_path):
    with pytest.raises(InputError, match="cannot read the table"):
        read_accuracies(tmp_path)


def test_the_family():
    assert set(ESTIMATORS) == {"proxies", "table", "train", "inherited", "scores"}
    assert all(member.__doc__ and "\n" not in member.__doc__ for member in ESTIMATORS.values())
