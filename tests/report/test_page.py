"""report.html: self-contained, escaped, and showing what report.json says."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import mars_onnx
from mars_onnx.compiler import Compilation
from mars_onnx.report.page import page_of, timeline_of
from tests.passes.onnx_text import model
from tests.pool_factory import pool_of
from tests.search.methods_for_tests import few, register

TEXT = """(float[8,64] x) => (float[8,64] y) {
    [one] a = MatMul (x, w)
    [two] b = Relu (a)
    [three] y = MatMul (b, v)
}"""
WEIGHTS = {"w": (64, 64), "v": (64, 64)}
ATTACK = "</script><script>alert(1)</script><img src=x onerror=alert(2)>'\"]]>&amp;<!--"
ADDRESSES = ("src", "href", "action", "data", "srcset", "poster", "background", "formaction", "manifest")


class Page(HTMLParser):
    """Elements, text, and the content of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self.inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.inside = tag

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        (self.scripts if self.inside == "script" else self.texts).append(data)


@pytest.fixture(scope="module")
def attacked() -> Compilation:
    """All names that a model can bring are attempts to leave their place."""
    source = model(TEXT, WEIGHTS)
    source.graph.name = ATTACK
    for number, node in enumerate(source.graph):
        node.name = f"{number}{ATTACK}"
        if number < 2:
            node.outputs[0].name = f"{number}{ATTACK}"
    return mars_onnx.compile(source, pool_of(2, 2))


def html(compilation: Compilation, **changes: Any) -> str:
    return page_of({**compilation.report, **changes}, compilation.simulation, compilation.pool)


def test_names_stay_text(attacked: Compilation) -> None:
    failure = {
        "cost_s": None,
        "latency_s": None,
        "throughput_per_s": None,
        "reduction": None,
        "ending": None,
        "seconds": 0.0,
        "fits": None,
        "failure": ATTACK,
    }
    text = html(attacked, comparators={ATTACK: failure})
    harmless = html(
        mars_onnx.compile(model(TEXT, WEIGHTS), pool_of(2, 2)), comparators={"x": failure | {"failure": "x"}}
    )
    page = Page(text)
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in Page(harmless).elements]
    assert [set(own) for _, own in page.elements] == [set(own) for _, own in Page(harmless).elements]
    shown = " ".join(page.texts)
    assert shown.count(ATTACK) >= 6
    run = json.loads(page.scripts[0])
    assert {label for label in run["labels"] if ATTACK in label} >= {f"{number}{ATTACK}" for number in range(3)}


def test_nothing_is_fetched_and_one_script_may_run(attacked: Compilation) -> None:
    text = html(attacked)
    page = Page(text)
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        for name in ADDRESSES:
            assert (attributes.get(name) or "data:").startswith("data:"), (tag, attributes)
    assert not re.search(r"https?://|@import|url\(", re.sub(r"data:image/[^\"]*", "", text))
    (policy,) = [own["content"] for tag, own in page.elements if own.get("http-equiv") == "Content-Security-Policy"]
    data, script = page.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'" in str(policy)
    assert f"script-src 'sha256-{digest}';" in str(policy)
    assert json.loads(data)["accelerators"] == ["a0", "a1", "b0", "b1"]
    for banned in ("innerHTML", "eval(", "fetch(", "XMLHttpRequest", "document.write", "insertAdjacentHTML"):
        assert banned not in script


def test_it_shows_what_the_report_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    register(monkeypatch, "few", few)
    done = mars_onnx.compile(model(TEXT, WEIGHTS), pool_of(2, 2), search="few", compare=["greedy", "single"])
    done.verify()
    done.save(tmp_path / "out")
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    shown = " ".join(" ".join(Page(text).texts).split())
    for part in ("proven optimal", "0.0%", "equal", "greedy", "single", "one", "three", "a few"):
        assert part in shown
    for row in (*report["layers"], *report["accelerators"]):
        assert f"{row['compute_s'] * 1e3:.4f}" in shown
    for row in report["layers"]:
        assert row["strategy"] in shown
    for row in report["comparators"].values():
        assert f"{row['cost_s'] * 1e3:.4f}" in shown
        assert f"{100 * row['reduction']:.1f} %" in shown
    assert text == html(done)


def test_the_timeline_is_the_run(attacked: Compilation) -> None:
    run = timeline_of(attacked.simulation, attacked.pool)
    tasks = [task for task in attacked.simulation.tasks if task.end_s > task.start_s]
    assert len(run["tasks"]) == len(tasks)
    for (kind, label, operator, start, duration, rows, _), task in zip(run["tasks"], tasks, strict=True):
        assert (run["kinds"][kind], run["labels"][label], run["operators"][operator]) == (
            task.kind,
            task.label,
            task.op,
        )
        assert start == pytest.approx(task.start_s * 1e6, abs=1e-4)
        assert start + duration == pytest.approx(task.end_s * 1e6, abs=2e-4)
        assert [run["accelerators"][row] for row in rows] == [attacked.pool.accelerators[r].id for r in task.ranks]
    ends = [start + duration for *_, start, duration, _, critical in run["tasks"] if critical]
    assert max(ends) == pytest.approx(run["latency_us"], abs=1e-3)


def test_foreign_pages_are_not_ours(tmp_path: Path) -> None:
    from mars_onnx.errors import UsageError
    from mars_onnx.report.folder import check_target

    done = mars_onnx.compile(model(TEXT, WEIGHTS), pool_of(2))
    done.save(tmp_path / "out")
    done.save(tmp_path / "out")
    for name in ("thesis.html", "notes.json"):
        (tmp_path / "out" / name).write_text("years of work", encoding="utf-8")
        with pytest.raises(UsageError, match=name):
            check_target(tmp_path / "out")
        (tmp_path / "out" / name).unlink()
