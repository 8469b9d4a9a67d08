"""The command that checks and describes a pool."""

import json
from pathlib import Path

import pytest

from mars_onnx.hw import main, quantity
from mars_onnx.pool import shipped_pools

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
