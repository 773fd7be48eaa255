import io
import json
import random
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from brute_pareto import brute_ranks
from finished_runs import CONFIG, write_run

from jnas import spaces
from jnas.errors import InputError
from jnas.report import evaluations, page
from jnas.report.drawing import cell_edges, cell_svg, cell_text
from jnas.report.page import comparison, headline, operation_colours
from jnas.report.report import write_report
from jnas.report.result import SearchResult
from jnas.report.terminal import print_summary
from jnas.report.views.search import render
from jnas.store.folder import open_run
from jnas.store.records import Evaluation

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
            entry["supernet"]["ntk/0"] = None
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
    assert set(colours.values()) <= {page.NONE_COLOUR, *page.PALETTE}


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


@pytest.fixture
def evolved(tmp_path, result):
    """A search of architectures: 40 by two proxies, one of them a failure, then a final of four, twice."""
    cells = [SPACE.to_string(cell) for cell in SPACE.all()[:: len(SPACE.all()) // 40]][:40]
    draw = random.Random(1)
    records = [
        Evaluation("search", cell, proxy, place // 8, place % 8, value, "ok", 0.1)
        for place, cell in enumerate(cells)
        for proxy, value in (("ntk", -draw.uniform(5, 5000)), ("naswot", draw.uniform(10, 20)))
    ]
    records[6] = records[6]._replace(value=-np.inf, status="singular")
    records += [
        Evaluation("final", cells[place], f"zen/{repeat}", 0, place, float(place + repeat), "ok", 0.1)
        for place in range(4)
        for repeat in range(2)
    ]
    result.update(strategy="evolution", rounds=[{"evaluated": 8}], architecture=cells[3])
    folder = write_run(tmp_path / "evolved", result)
    with open_run(folder, CONFIG) as run:
        run.records.add(records)
    return folder, records


def test_evaluations_are_the_records(evolved):
    search, final = (evaluations.read(evolved[1], stage) for stage in ("search", "final"))
    assert search.objectives == ("ntk", "naswot") and len(search.architectures) == 40
    assert search.values[3, 0] == -np.inf and np.isnan(search.measured[3, 0]) and search.fitness[3] == -np.inf
    ntk = [record.value for record in evolved[1] if record.objective == "ntk"]
    np.testing.assert_array_equal(search.values[:, 0], ntk)
    np.testing.assert_array_equal(np.delete(search.measured[:, 0], 3), -np.delete(ntk, 3))
    # The better by both is the better by the combined rank.
    first, *others = np.argsort(-search.fitness)
    assert not any((search.values[other] > search.values[first]).all() for other in others)
    # The front by its definition; architectures that were evaluated twice are there once.
    assert search.front.tolist() == np.flatnonzero(brute_ranks(search.values) == 0).tolist()
    twice = search._replace(
        architectures=search.architectures * 2,
        values=np.concatenate([search.values] * 2),
        fidelity=np.concatenate([search.fidelity] * 2),
    )
    assert twice.front.tolist() == search.front.tolist()
    np.testing.assert_array_equal(final.measured[:, 0], [0.5, 1.5, 2.5, 3.5])
    assert list(search.frame().columns) == ["architecture", "ntk", "naswot", "fidelity", "seconds"]


def test_the_report_of_a_search_of_architectures(evolved):
    page = Page(write_report(evolved[0]).read_text())
    flat = re.sub(r"\s+", "", page.text)
    assert page.open == [] and len(page.ids) == len(set(page.ids))
    assert "40architectureswereevaluatedbynaswot,ntk" in flat and "the4best" in flat
    assert "Paretofront" in flat
    for text in ("ntk(lowerisbetter)", "naswot(higherisbetter)", "combinedrank(0:bestbyall)"):
        assert text in flat
    assert "roundbyround" not in flat
    # The best of the final comes first in its table.
    places = [flat.index(architecture, flat.index("bestofthefinal")) for architecture in ("3.500", "0.500")]
    assert places == sorted(places)


def test_a_result_shows_itself(evolved, result):
    search = evaluations.read(evolved[1])
    shown = SearchResult(result["architecture"], SPACE, search, result)
    assert repr(shown).startswith(f"SearchResult({result['architecture']}: ntk –, naswot 1")
    page = Page(shown._repr_html_())
    assert page.open == [] and result["architecture"] in page.text and "evolution on nasbench201" in page.text
    assert len(shown.frame()) == 40
    nothing = SearchResult(result["architecture"], SPACE, evaluations.read([]), result)
    assert Page(nothing._repr_html_()).open == [] and len(nothing.frame()) == 0
