"""The command that checks and describes a pool."""

import json
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import pytest

from mars_onnx.hw import main, quantity
from mars_onnx.pool import load_pool, shipped_pools
from mars_onnx.pool.drawing import rate

POOLS = Path(__file__).parent.parent / "pools"


@pytest.mark.parametrize("name", [*shipped_pools(), *(str(path) for path in sorted(POOLS.glob("*.json")))])
def test_describes(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name]) == 0
    text = capsys.readouterr().out
    for title in ("Accelerators", "Designs", "Groups", "Inputs start at"):
        assert title in text


def test_says_what_matters(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fpga_pool"]) == 0
    text = capsys.readouterr().out
    for part in (
        "250 MB/s",
        "1 GB/s",
        "1 GiB",
        "superlip, systolic, winograd",
        "reconstructed",
        "fpga4 fpga5 fpga6 fpga7",
    ):
        assert part in text


@pytest.mark.parametrize("name", [*shipped_pools(), *(str(path) for path in sorted(POOLS.glob("*.json")))])
def test_draws(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "pool.svg"
    assert main([name, "--draw", str(path)]) == 0
    capsys.readouterr()
    root = ElementTree.parse(path).getroot()
    texts = [element.text or "" for element in root.iter() if element.tag.endswith("text")]
    pool = load_pool(name)
    assert set(pool.node_ids) <= set(texts)
    for link in pool.links:
        assert any(rate(link.bandwidth_bytes_per_s) in text for text in texts)
    # Nothing lies outside, and no two nodes on each other.
    width, height = (float(root.attrib[side]) for side in ("width", "height"))
    nodes = [element.attrib for element in root.iter() if element.attrib.get("class") == "node"]
    corners = [(float(each["x"]), float(each["y"])) for each in nodes]
    assert all(0 <= x <= width - 92 and 0 <= y <= height - 34 for x, y in corners)
    assert all(abs(x - u) >= 92 or abs(y - v) >= 34 for (x, y), (u, v) in combinations(corners, 2))


def test_drawings_have_a_known_ending(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["edge_pool", "--draw", str(tmp_path / "pool.pdf")]) == 1
    assert "drawings are .svg or .png" in capsys.readouterr().err
    assert main(["edge_pool", "--draw", str(tmp_path / "absent" / "pool.svg")]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_names_in_drawings_are_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = json.loads((POOLS / "pair.json").read_text())
    data["title"] = "<b> & </b>"
    for each in data["accelerators"]:
        each["designs"] = ["superlip"]
    path = tmp_path / "pool.json"
    path.write_text(json.dumps(data))
    assert main([str(path), "--draw", str(tmp_path / "pool.svg")]) == 0
    ElementTree.parse(tmp_path / "pool.svg")
    capsys.readouterr()


def test_bad_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "pool.json"
    path.write_text('{"schema": "mars-onnx/pool/1",\n "nmae": "x"}')
    assert main([str(path)]) == 1
    captured = capsys.readouterr()
    assert f"{path}:2: nmae: unknown key; did you mean 'name'?" in captured.err
    assert captured.out == ""


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 2
    capsys.readouterr()


@pytest.mark.parametrize("count", [40, 300])
def test_large_pools_are_summed_up(count: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = json.loads((POOLS / "pair.json").read_text())
    data["accelerators"] = [{**data["accelerators"][0], "id": f"a{i}", "designs": ["superlip"]} for i in range(count)]
    data["switches"] = [{"id": "switch"}]
    data["links"][0]["between"] = [["switch", f"a{i}"] for i in range(count)]
    path = tmp_path / "pool.json"
    path.write_text(json.dumps(data))
    assert main([str(path)]) == 0
    text = capsys.readouterr().out
    assert str(count * (count - 1) // 2 if count == 40 else count - 1) in text
    assert f"({count})" in text


@pytest.mark.parametrize(
    ("value", "unit", "base", "text"),
    [
        (1.25e9, "B/s", 1000, "1.25 GB/s"),
        (2**30, "B", 1024, "1 GiB"),
        (5e-6, "s", 1000, "5 us"),
        (1e-3, "s", 1000, "1 ms"),
        (0, "s", 1000, "0 s"),
        (3e-12, "s", 1000, "0.003 ns"),
        (float("inf"), "B/s", 1000, "-"),
    ],
)
def test_quantity(value: float, unit: str, base: int, text: str) -> None:
    assert quantity(value, unit, base) == text
