import io
import json
import re
from html.parser import HTMLParser

import pytest

from jnas import spaces
from jnas.errors import InputError
from jnas.report import report
from jnas.report.drawing import cell_edges, cell_svg, cell_text
from jnas.report.report import operation_colours, render, write_report
from jnas.report.terminal import comparison, headline, print_summary

SPACE = spaces.get("nasbench201")


class Page(HTMLParser):
    """Tags that are open, attributes that point elsewhere, and all text."""

    VOID = frozenset({"meta", "br", "wbr", "link", "img", "input"})

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.ids: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        self._note(attrs)

    def handle_startendtag(self, tag, attrs):
        self._note(attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def _note(self, attrs):
        for key, value in attrs:
            if key in ("src", "href", "xlink:href", "srcset", "data", "action"):
                self.links.append(value)
            if key == "id":
                self.ids.append(value)


def test_the_report_is_one_offline_file(run_folder):
    path = write_report(run_folder)
    text = path.read_text()
    page = Page(text)
    assert path == run_folder / "report.html"
    assert page.open == []
    # Nothing is fetched: links go to places within the page, and the style sheet imports nothing.
    assert all(link.startswith("#") for link in page.links)
    assert not re.search(r"@import|url\((?!#)|<script|<link|<img", text)
    assert len(page.ids) == len(set(page.ids))
    # Moved elsewhere, it is the same file.
    assert path.stat().st_size < 1_000_000


def test_the_report_holds_what_was_found(run_folder, result):
    text = write_report(run_folder).read_text()
    page = Page(text)
    flat = re.sub(r"\s+", "", page.text)
    for row in comparison(result):
        assert row.architecture in flat
        assert f"{row.test_accuracy:.2f}" in flat
    assert len(re.findall(r'class="pruned"', text)) == 18
    assert len(re.findall(r'class="gone"', text)) == 18
    for entry in result["rounds"]:
        for candidate in entry["candidates"]:
            assert f"{candidate['ntk_rank']}+{candidate['regions_rank']}" in flat
    for word in (
        "kaiming_normal",
        "operations_per_round",
        "jaxlib",
        "neural-tangents",
        "CPU",
        "54evaluations",
    ):
        assert word in flat, word


def test_the_report_is_the_same_twice(run_folder):
    first = write_report(run_folder).read_bytes()
    assert write_report(run_folder).read_bytes() == first


@pytest.mark.parametrize(
    "missing", ["training", "random cells", "everything not finite", "table", "one epoch"]
)
def test_reports_of_runs_that_lack_something(run_folder, result, missing):
    if missing == "training":
        result["training"] = None
    elif missing == "random cells":
        result["training"]["random"] = result["scores"]["random"] = []
    elif missing == "everything not finite":
        for score in (result["scores"]["found"], *result["scores"]["random"]):
            score["ntk"] = score["regions"] = None
        for entry in result["rounds"]:
            entry["supernet"]["ntk"] = [None, None, None]
            for candidate in entry["candidates"]:
                candidate["ntk_change"] = None
        result["training"]["found"]["test_accuracy_by_epoch"] = [None] * 30
    elif missing == "table":
        result["table"] = None
    else:
        for run in (result["training"]["found"], *result["training"]["random"]):
            run["test_accuracy_by_epoch"] = run["test_accuracy_by_epoch"][:1]
            run["train_loss_by_epoch"] = run["train_loss_by_epoch"][:1]
    (run_folder / "result.json").write_text(json.dumps(result))
    page = Page(write_report(run_folder).read_text())
    assert page.open == []
    assert "None" not in page.text and "nan" not in page.text
    assert ("in the table" in page.text) == (missing != "table")
    assert ("All trained alike" in page.text) == (missing != "training")


def test_text_of_the_run_is_escaped(result):
    result["data"] = "<script>alert(1)</script>"
    text = render(result, {"data": result["data"]}, [])
    assert "<script>" not in text and "&lt;script&gt;" in text


def test_records_are_not_needed(run_folder):
    (run_folder / "records.sqlite").unlink()
    assert "search, scores and training" in write_report(run_folder).read_text()


def test_folders_without_a_run(tmp_path, run_folder):
    with pytest.raises(InputError, match="no run folder"):
        write_report(tmp_path / "absent")
    (run_folder / "records.sqlite").write_bytes(b"garbage" * 100)
    with pytest.raises(InputError, match="damaged"):
        write_report(run_folder)


def test_colours_differ_and_are_those_of_the_palette():
    colours = operation_colours(SPACE)
    assert set(colours) == set(SPACE.operations)
    assert len(set(colours.values())) == len(SPACE.operations)
    assert set(colours.values()) <= {report.NONE_COLOUR, *report.PALETTE}


def test_every_edge_is_drawn_once():
    for architecture in SPACE.all()[::311]:
        (edges,) = cell_edges(SPACE, SPACE.to_string(architecture))
        drawing, text = cell_svg(edges, operation_colours(SPACE), SPACE.nodes), cell_text(edges, SPACE.nodes)
        for operation in SPACE.operations:
            count = sum(name == operation for _, _, name in edges)
            assert drawing.count(f">{operation}<") == count
            assert text.count(f" {operation} ") == (0 if operation == "none" else count)
        Page(drawing)


def test_a_cell_in_characters():
    architecture = (
        "|nor_conv_1x1~0|+|nor_conv_1x1~0|nor_conv_1x1~1|+|nor_conv_1x1~0|avg_pool_3x3~1|nor_conv_3x3~2|"
    )
    assert cell_text(*cell_edges(SPACE, architecture), SPACE.nodes).splitlines() == [
        "input",
        "  │",
        "  ├── nor_conv_1x1 ───▶ node 1",
        "  │                       │",
        "  ├── nor_conv_1x1 ───────┼── nor_conv_1x1 ───▶ node 2",
        "  │                       │                       │",
        "  └── nor_conv_1x1 ───────┴── avg_pool_3x3 ───────┴── nor_conv_3x3 ───▶ output",
    ]
    sparse = "|none~0|+|skip_connect~0|none~1|+|none~0|avg_pool_3x3~1|nor_conv_3x3~2|"
    assert cell_text(*cell_edges(SPACE, sparse), SPACE.nodes).splitlines() == [
        "input",
        "  │",
        "  │                     node 1 (zero)",
        "  │                       │",
        "  └── skip_connect ───────│───────────────────▶ node 2",
        "                          │                       │",
        "                          └── avg_pool_3x3 ───────┴── nor_conv_3x3 ───▶ output",
    ]


def test_the_summary_on_the_terminal(result, capsys, tmp_path):
    print_summary(result, tmp_path / "report.html")
    out, err = capsys.readouterr()
    assert err == ""
    for row in comparison(result):
        assert any(row.name in line and f"{row.test_accuracy:.2f} %" in line for line in out.splitlines())
    assert result["architecture"] in out
    assert headline(comparison(result)) in out
    assert out.rstrip().endswith(f"Report: {tmp_path / 'report.html'}")
    assert "node 2" in out


def test_the_summary_on_a_terminal_without_unicode(result, monkeypatch, tmp_path):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", stream)
    print_summary(result, tmp_path / "report.html")
    stream.seek(0)
    assert "  +-- nor_conv" in stream.read()


def test_the_summary_without_training(result, capsys, tmp_path):
    result["training"] = result["table"] = None
    result["scores"]["found"]["ntk"] = float("inf")
    print_summary(result, tmp_path / "report.html")
    out = capsys.readouterr().out
    assert "accuracy" not in out and "inf" in out


def test_headline_counts_the_cells_that_are_beaten(result):
    training = result["training"]
    for run, value in zip(training["random"], (90.0, 91.0, 92.0, 93.0, 94.0), strict=True):
        run["test_accuracy"] = value
    training["found"]["test_accuracy"] = 92.5
    assert headline(comparison(result)) == (
        "Test accuracy of the found cell: 92.50 %; better than 3 of 5 random cells (mean 92.00 %)"
    )
