"""Loading, topology, the shipped pools and the schema."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars_onnx.data import data_folder
from mars_onnx.pool import REFERENCE_BYTES, load_design, load_pool, shipped_pools
from mars_onnx.pool.document import _positions
from mars_onnx.pool.model_parameters import SystolicParameters, TiledParameters, WinogradParameters
from mars_onnx.pool.parameters import own_models
from mars_onnx.pool.schema import main, schemas

POOLS = Path(__file__).parent.parent / "pools"
ALL = [*shipped_pools(), *(str(path) for path in sorted(POOLS.glob("*.json")))]


@pytest.mark.parametrize("name", ALL)
def test_pool_loads_and_routes_are_sound(name: str) -> None:
    pool = load_pool(name)
    assert pool.source
    assert sorted(rank for group in pool.groups() for rank in group) == list(range(pool.size))
    for first in range(len(pool.node_ids)):
        for second in range(len(pool.node_ids)):
            route, back = pool.route(first, second), pool.route(second, first)
            assert (route.nodes[0], route.nodes[-1]) == (first, second)
            assert route.nodes == back.nodes[::-1]
            assert pool.bandwidth(first, second) == pool.bandwidth(second, first) > 0
            assert len(route.channels) == route.hops == pool.distance(first, second)
            for step, ends in zip(route.links, zip(route.nodes, route.nodes[1:], strict=False), strict=True):
                assert set(step.ends) == set(ends)


def test_shipped_pools() -> None:
    assert {"fpga_pool", "edge_pool", "mixed_pool"} <= set(shipped_pools())


@pytest.mark.parametrize("path", sorted((data_folder("hwdb") / "designs").glob("*.json")), ids=lambda path: path.stem)
def test_designs_load(path: Path) -> None:
    assert load_design(path).name == path.stem


def test_fpga_pool_is_the_published_system() -> None:
    pool = load_pool("fpga_pool")
    assert pool.reconstructed
    assert pool.groups() == ((0, 1, 2, 3), (4, 5, 6, 7))
    assert pool.group_of == (0, 0, 0, 0, 1, 1, 1, 1)
    assert pool.bandwidth(0, 3) == 8e9 / 8
    assert pool.bandwidth(0, 4) == 2e9 / 8
    assert pool.route(1, 6).nodes == (1, 8, 6)
    assert pool.latency(1, 6) == pytest.approx(2e-5)
    assert {accelerator.memory_bytes for accelerator in pool.accelerators} == {2**30}
    loops, cells, fast = (pool.designs[name].parameters for name in ("superlip", "systolic", "winograd"))
    assert isinstance(loops, TiledParameters)
    assert (loops.tile_out_channels * loops.tile_in_channels, loops.tile_rows, loops.tile_cols) == (448, 7, 14)
    assert isinstance(cells, SystolicParameters)
    assert cells.rows * cells.columns * cells.cell_multipliers == 1144
    assert isinstance(fast, WinogradParameters)
    assert (fast.tile_outputs + 2) ** 2 * fast.in_channel_parallel * fast.out_channel_parallel == 576
    assert (loops.clock_hz, cells.clock_hz, fast.clock_hz) == (200e6, 170e6, 200e6)
    assert all(accelerator.adaptive for accelerator in pool.accelerators)


def test_trio() -> None:
    pool = load_pool(POOLS / "trio.json")
    assert [accelerator.adaptive for accelerator in pool.accelerators] == [False, True, False]
    assert pool.groups() == ((0, 1), (2,))
    assert pool.ranks == {"quick": 0, "changing": 1, "slow": 2}
    assert pool.node_ids[pool.inputs_at] == pool.node_ids[pool.outputs_at] == "host"
    # Half duplex: both directions are one channel; full duplex: two.
    assert pool.route(3, 2).channels == pool.route(2, 3).channels
    assert pool.route(0, 1).channels != pool.route(1, 0).channels
    assert min((0, 2), key=lambda source: pool.distance(source, 1)) == 0


def test_single_and_pair_have_no_host() -> None:
    pool = load_pool(POOLS / "single.json")
    assert (pool.size, pool.inputs_at) == (1, 0)
    assert pool.latency(0, 0) == 0
    assert load_pool(POOLS / "pair.json").outputs_at == 0


def test_route_takes_less_time_not_fewer_hops(tmp_path: Path) -> None:
    data = json.loads((POOLS / "trio.json").read_text())
    data["designs"] = [
        {key: value for key, value in json.loads(path.read_text()).items() if key != "schema"}
        for path in sorted((POOLS / "designs").glob("*.json"))
    ]
    data["links"].append({**data["links"][0], "between": [["quick", "slow"]], "bandwidth_bytes_per_s": 1e3})
    path = tmp_path / "pool.json"
    path.write_text(json.dumps(data))
    pool = load_pool(path)
    assert pool.route(0, 2).hops == 2
    assert 2 * REFERENCE_BYTES / 1e9 < REFERENCE_BYTES / 1e3


def test_hash_is_of_content(tmp_path: Path) -> None:
    pool = load_pool(POOLS / "pair.json")
    data = json.loads((POOLS / "pair.json").read_text())
    small = json.loads((POOLS / "designs" / "small.json").read_text())
    small.pop("schema")
    same = {"$schema": "anywhere", "designs": [small], **dict(reversed(data.items()))}
    (tmp_path / "same.json").write_text(json.dumps(same))
    assert load_pool(tmp_path / "same.json") == pool
    assert hash(load_pool(tmp_path / "same.json")) == hash(pool)
    small["parameters"]["clock_hz"] += 1
    (tmp_path / "other.json").write_text(json.dumps(same))
    assert load_pool(tmp_path / "other.json") != pool


def test_whole_numbers_may_be_written_with_an_exponent(tmp_path: Path) -> None:
    text = (POOLS / "single.json").read_text().replace('"small"', '"superlip"')
    path = tmp_path / "pool.json"
    path.write_text("\ufeff" + text.replace(f'"memory_bytes": {2**28}', '"memory_bytes": 1e9'))
    assert load_pool(path).accelerators[0].memory_bytes == 10**9


def test_schemas_are_up_to_date(tmp_path: Path) -> None:
    """Else run ``python -m mars_onnx.pool.schema``."""
    for name, text in schemas().items():
        assert (data_folder("hwdb") / "schema" / name).read_text(encoding="utf-8") == text
    assert main([str(tmp_path / "new")]) == 0
    assert {path.name for path in (tmp_path / "new").iterdir()} == set(schemas())


def test_schema_speaks_of_every_key_and_its_limits() -> None:
    pool = json.loads(schemas()["pool.schema.json"])
    memory = pool["$defs"]["AcceleratorEntry"]["properties"]["memory_bytes"]
    assert (memory["type"], memory["minimum"], memory["maximum"]) == ("integer", 1, 2**50)
    assert pool["additionalProperties"] is False
    design = json.loads(schemas()["design.schema.json"])
    conditions = {entry["if"]["properties"]["model"]["const"]: entry["then"] for entry in design["allOf"]}
    assert set(conditions) == set(own_models())
    assert conditions["roofline"] == {"properties": {"parameters": {"$ref": "#/$defs/RooflineParameters"}}}


def test_the_example_in_the_documentation_loads(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "pools.md").read_text(encoding="utf-8")
    pool, design = (part.split("```")[0] for part in text.split("\n```json\n")[1:])
    (tmp_path / "pool.json").write_text(pool)
    assert load_pool(tmp_path / "pool.json").size == 2
    (tmp_path / "winograd.json").write_text(design)
    assert load_design(tmp_path / "winograd.json").name == "winograd"


def test_loading_does_not_import_networkx() -> None:
    code = "import sys; from mars_onnx.pool import load_pool; load_pool('fpga_pool'); print('networkx' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(JSON, st.sampled_from([None, 1, "\t"]))
def test_positions_find_every_place(data: object, indent: int | str | None) -> None:
    text = json.dumps(data, indent=indent)
    offsets, repeated = _positions(text)
    assert not repeated

    def walk(value: object, place: tuple[str | int, ...]) -> None:
        assert place in offsets
        at = text[offsets[place] :]
        found, end = json.JSONDecoder().raw_decode(at)
        if place and isinstance(place[-1], str):
            assert found == place[-1]
            found, _ = json.JSONDecoder().raw_decode(at[end:].lstrip(": \n\t"))
        assert found == value
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(inner, (*place, key))
        elif isinstance(value, list):
            for index, inner in enumerate(value):
                walk(inner, (*place, index))

    walk(data, ())
