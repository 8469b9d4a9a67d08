"""Everything that can be wrong in a pool file is refused with the line, the place and the remedy."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mars_onnx.errors import InputError
from mars_onnx.pool import load_design, load_pool
from mars_onnx.pool.format import MAX_ACCELERATORS, MAX_FILE_BYTES

NUMBERS = '"memory_bytes": 1024, "memory_bandwidth_bytes_per_s": 1e9, "source": "s"'
PEAK = '{"clock_hz": 1e8, "macs_per_cycle": 8}'
GOOD = f"""{{
  "schema": "mars-onnx/pool/1", "name": "bad", "title": "t", "source": "s",
  "designs": [
    {{"name": "d", "title": "t", "model": "roofline", "source": "s", "parameters": {PEAK}}}
  ],
  "accelerators": [
    {{"id": "left", "kind": "npu", "designs": ["d"], {NUMBERS}}},
    {{"id": "right", "kind": "npu", "designs": ["d"], {NUMBERS}}}
  ],
  "hosts": [{{"id": "host"}}],
  "links": [
    {{"between": [["left", "right"], ["host", "left"]], "bandwidth_bytes_per_s": 1e9, "latency_s": 0, "source": "s"}}
  ]
}}
"""


def problems_of(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "bad.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_pool(path)
    assert caught.value.exit_code == 1
    return [line.removeprefix(f"{path}:") for line in str(caught.value).splitlines()]


def test_the_good_file_is_good(tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text(GOOD)
    assert load_pool(path).size == 2


LINK = '"bandwidth_bytes_per_s": 1e9'
WRONG = [
    # wrong values
    ('"title": "t", "source"', r'"title": "\u001b[31mt", "source"', r"2: title: is the text '\x1b[31mt', with control"),
    ('"mars-onnx/pool/1"', '"mars-onnx/pool/2"', "2: schema: is the text 'mars-onnx/pool/2'; 'mars-onnx/pool/1' would"),
    (
        '"memory_bytes": 1024',
        '"memory_bytes": -1',
        "7: accelerators[0].memory_bytes: is -1; at least 1 is expected (bytes)",
    ),
    (
        '"memory_bytes": 1024',
        '"memory_bytes": 1.5',
        "7: accelerators[0].memory_bytes: is 1.5; a whole number is expected",
    ),
    ('"memory_bytes": 1024', '"memory_bytes": true', "7: accelerators[0].memory_bytes: is true; a whole number"),
    ('"memory_bytes": 1024', '"memory_bytes": 1e30', "7: accelerators[0].memory_bytes: is 1e+30; at most"),
    ('"memory_bytes": 1024', f'"memory_bytes": {"9" * 400}', "7: accelerators[0].memory_bytes: is"),
    (
        '"memory_bytes": 1024',
        '"memory_bytes": "1 GiB"',
        "7: accelerators[0].memory_bytes: is the text '1 GiB'; a whole",
    ),
    (
        '"memory_bytes": 1024',
        '"memory_bytes": 1024, "provider": "../CUDA"',
        "7: accelerators[0].provider: is the text '../CUDA'",
    ),
    (
        LINK,
        '"bandwidth_bytes_per_s": 0',
        "12: links[0].bandwidth_bytes_per_s: is 0; at least 1 is expected (bytes per s",
    ),
    (LINK, '"bandwidth_bytes_per_s": -2.5', "12: links[0].bandwidth_bytes_per_s: is -2.5; at least 1 is expected"),
    (LINK, '"bandwidth_bytes_per_s": NaN', "12: links[0].bandwidth_bytes_per_s: is not a number (NaN); a finite"),
    (LINK, '"bandwidth_bytes_per_s": -Infinity', "12: links[0].bandwidth_bytes_per_s: is infinite, or too large"),
    (LINK, '"bandwidth_bytes_per_s": 1e999', "12: links[0].bandwidth_bytes_per_s: is infinite, or too large"),
    (LINK, '"bandwidth_bytes_per_s": 1e30', "12: links[0].bandwidth_bytes_per_s: is 1e+30; at most 1e+16 is expected"),
    (LINK, '"bandwidth_bytes_per_s": false', "12: links[0].bandwidth_bytes_per_s: is false; a number is expected"),
    (LINK, '"bandwidth_bytes_per_s": "1e9"', "12: links[0].bandwidth_bytes_per_s: is the text '1e9'; a number"),
    (LINK, '"bandwidth_bytes_per_s": null', "12: links[0].bandwidth_bytes_per_s: is null; a number is expected"),
    (LINK, f'{LINK}, "duplex": "ful"', "12: links[0].duplex: is the text 'ful'; 'full' or 'half' would be right"),
    ('"latency_s": 0', '"latency_s": -1e-6', "12: links[0].latency_s: is -1e-06; at least 0 is expected (seconds)"),
    (
        '"latency_s": 0',
        '"latency_s": 0, "reconstructed": 1',
        "12: links[0].reconstructed: is 1; true or false is expected",
    ),
    ('"source": "s",\n  "d', '"source": "",\n  "d', "2: source: is empty; say it in words"),
    ('"title": "t", "source"', '"title": 3, "source"', "2: title: is 3; text, in double quotes, is expected"),
    ('"designs": ["d"]', '"designs": "d"', "7: accelerators[0].designs: is the text 'd'; a list is expected"),
    ('"designs": ["d"]', '"designs": []', "7: accelerators[0].designs: is empty; at least one entry is expected"),
    ('[["left", "right"], ["', '["left", ["', "12: links[0].between[0]: is the text 'left'; a list is expected"),
    ('{"id": "host"}', '"host"', "10: hosts[0]: is the text 'host'; an object is expected"),
    # wrong keys
    ('"memory_bytes"', '"memory_byte"', "7: accelerators[0].memory_byte: unknown key; did you mean 'memory_bytes'?"),
    ('"memory_bytes": 1024, ', "", "7: accelerators[0].memory_bytes: this key is missing: memory for weights"),
    ('"title": "t", "source": "s",\n  "d', '"source": "s",\n  "d', "1: title: this key is missing: what it is"),
    (
        '"macs_per_cycle"',
        '"macs_per_cycl"',
        "4: designs[0].parameters.macs_per_cycl: unknown key; did you mean 'macs_p",
    ),
    ('"kind": "npu"', '"kind": "npu", "kind": "gpu"', "7: accelerators[0].kind: this key is given twice; keep one"),
    ('"macs_per_cycle": 8', '"macs_per_cycle": 0', "4: designs[0].parameters.macs_per_cycle: is 0; at least 1e-09"),
    # ids, links, designs
    (
        '"right", "kind"',
        '"LEFT", "kind"',
        "8: accelerators[1].id: the id 'LEFT' is taken (line 7; case does not count)",
    ),
    ('{"id": "host"}', '{"id": "left"}', "10: hosts[0].id: the id 'left' is taken (line 7"),
    ('"left", "kind"', '"Plan", "kind"', "7: accelerators[0].id: the id 'Plan' is reserved"),
    ('"left", "kind"', '"nul.x", "kind"', "7: accelerators[0].id: the id 'nul.x' is reserved"),
    ('"left", "kind"', '"../left", "kind"', "7: accelerators[0].id: is the text '../left', which is no name"),
    ('"left", "kind"', '".left", "kind"', "7: accelerators[0].id: is the text '.left', which is no name"),
    ('"left", "kind"', '"left\\n", "kind"', "7: accelerators[0].id: is the text 'left\\n', which is no name"),
    ('"left", "kind"', f'"{"l" * 65}", "kind"', "7: accelerators[0].id: is the text"),
    (
        '["host", "left"]',
        '["hots", "left"]',
        "12: links[0].between[1][0]: no node is called 'hots'; did you mean 'host'?",
    ),
    ('["host", "left"]', '["host", "host"]', "12: links[0].between[1]: links 'host' with itself"),
    (
        '["host", "left"]',
        '["host", "left"], ["left", "host"]',
        "12: links[0].between[2]: 'left' and 'host' are linked al",
    ),
    ('[["left", "right"], ', "[", "8: accelerators[1].id: no link reaches 'right'; add a link to it"),
    (', ["host", "left"]', "", "10: hosts[0].id: no link reaches 'host'; add a link to it"),
    (
        '"hosts"',
        '"inputs_at": "hst", "hosts"',
        "10: inputs_at: no host or accelerator is called 'hst'; did you mean 'host'?",
    ),
    (
        '"designs": ["d"]',
        '"designs": ["winogrd"]',
        "7: accelerators[0].designs[0]: no design is called 'winogrd'; did you m",
    ),
    ('"designs": ["d"]', '"designs": ["d", "d"]', "7: accelerators[0].designs[1]: the design 'd' is listed twice"),
    ('"designs": ["d"]', '"designs": ["../d"]', "7: accelerators[0].designs[0]: is the text '../d', which is no name"),
    (
        '"roofline"',
        '"rofline"',
        "4: designs[0].model: no performance model is called 'rofline'; did you mean 'roofline'?",
    ),
    # no JSON
    ('"links": [', '"links": [[', "14:1: not JSON: "),
    ('"name": "bad", ', '"name": "bad",, ', "2:47: not JSON: Expecting property name"),
    ('"name"', "'name'", "2:33: not JSON: Expecting property name enclosed in double quotes; use double quotes"),
    ('"name"', '// "name"', "2:33: not JSON: Expecting property name enclosed in double quotes; JSON has no comments"),
]


@pytest.mark.parametrize(
    ("old", "new", "message"), WRONG, ids=[f"{i}-{new[:30]}" for i, (_, new, _) in enumerate(WRONG)]
)
def test_message(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = GOOD.replace(old, new, 1)
    assert text != GOOD
    found = problems_of(tmp_path, text)
    assert any(line.startswith(message) for line in found), found


def test_two_islands(tmp_path: Path) -> None:
    data = json.loads(GOOD)
    data["accelerators"] += [{**data["accelerators"][0], "id": name} for name in ("far", "farther")]
    data["links"].append({**data["links"][0], "between": [["far", "farther"]]})
    found = problems_of(tmp_path, json.dumps(data, indent=1))
    assert [line.split(": ", 1)[1] for line in found] == [
        "accelerators[2].id: no route leads from 'left' to 'far'; add a link between their groups",
        "accelerators[3].id: no route leads from 'left' to 'farther'; add a link between their groups",
    ]


def test_all_problems_at_once_by_line(tmp_path: Path) -> None:
    text = GOOD.replace('"latency_s": 0', '"latency_s": -1').replace('"name": "bad"', '"name": "b d"')
    text = text.replace('["host", "left"]', '["hots", "left"]').replace('"memory_bytes": 1024', '"memory_bytes": 0')
    found = problems_of(tmp_path, text)
    assert [int(line.split(":")[0]) for line in found] == [2, 7, 8, 12, 12]


def test_many_problems_are_cut(tmp_path: Path) -> None:
    data = json.loads(GOOD)
    data["accelerators"] += [{"id": f"x{i}"} for i in range(1000)]
    found = problems_of(tmp_path, json.dumps(data, indent=1))
    assert len(found) == 21
    assert "... and " in found[-1]


def test_tabs_escapes_and_odd_keys_keep_the_position(tmp_path: Path) -> None:
    text = GOOD.replace("  ", "\t").replace(
        '"title": "t", "source": "s",\n', '"title": "\\"{[\\u00e9", "source": "s",\n'
    )
    found = problems_of(tmp_path, text.replace('"hosts"', '"]}\\"": 1, "hosts"'))
    assert found[0].startswith('10: ]}": unknown key;')


@pytest.mark.parametrize("text", ["[]", "3", '"pool"', "null"])
def test_no_object(tmp_path: Path, text: str) -> None:
    assert problems_of(tmp_path, text) == ['1: not usable: the file should hold one object, {"schema": ...}']


@pytest.mark.parametrize("text", ["", "   ", "{", '{"a": [1,]}', '{"a": "\n"}', "[" * 100000])
def test_no_json(tmp_path: Path, text: str) -> None:
    (found,) = problems_of(tmp_path, text)
    assert "not JSON" in found or "nested too deeply" in found


def test_number_with_too_many_digits(tmp_path: Path) -> None:
    (found,) = problems_of(tmp_path, GOOD.replace("1024", "1" * 5000))
    assert "not usable" in found


def test_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_bytes(b'{\n"a": "\xff"}')
    with pytest.raises(InputError, match=r"p\.json:2: byte 8 is not UTF-8; save the file as UTF-8"):
        load_pool(path)


def test_too_large(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(InputError, match="larger than 8388608 bytes"):
        load_pool(path)


def test_too_many_accelerators(tmp_path: Path) -> None:
    data = json.loads(GOOD)
    data["accelerators"] = [{**data["accelerators"][0], "id": f"x{i}"} for i in range(MAX_ACCELERATORS + 1)]
    found = problems_of(tmp_path, json.dumps(data))
    assert any("accelerators: has too many entries; 4096 is the limit" in line for line in found)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"fpga_pol: no such pool file, .* did you mean 'fpga_pool'\?"):
        load_pool("fpga_pol")
    with pytest.raises(InputError, match="this is a folder; name a JSON file"):
        load_pool(tmp_path)
    for odd in ("", "x" * 5000, "a\0b"):
        with pytest.raises(InputError):
            load_pool(odd)


def test_problems_of_a_design_file_name_that_file(tmp_path: Path) -> None:
    (tmp_path / "designs").mkdir()
    design = tmp_path / "designs" / "d.json"
    text = GOOD.replace('"name": "d"', '"name": "other"')
    design.write_text(
        '{"schema": "mars-onnx/design/1", "title": "t", "source": "s",\n "name": "e", "model": "roofline",\n'
        ' "parameters": {"clock_hz": 0, "macs_per_cycle": 8}}'
    )
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(InputError) as caught:
        load_pool(tmp_path / "p.json")
    assert str(caught.value).splitlines() == [
        f"{design}:2: name: is 'e' in a file called 'd.json'; the two should agree",
        f"{design}:3: parameters.clock_hz: is 0; at least 1 is expected (hertz)",
    ]


def test_a_design_must_not_lead_out_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "designs").mkdir()
    outside = tmp_path / "d.json"
    outside.write_text("{}")
    (tmp_path / "designs" / "d.json").symlink_to(outside)
    pool = tmp_path / "p.json"
    pool.write_text(GOOD.replace('"name": "d"', '"name": "other"'))
    with pytest.raises(InputError, match="leads out of its folder"):
        load_pool(pool)


def test_a_missing_design_file() -> None:
    with pytest.raises(InputError, match="no such file"):
        load_design(Path("nowhere/d.json"))


def test_a_flood_of_mistakes_is_cheap(tmp_path: Path) -> None:
    text = "[" + "1," * 150_000 + "1]"
    assert "more problems" in problems_of(tmp_path, f'{{"accelerators": {text}}}')[-1]
    assert "more than 200000 values" in problems_of(tmp_path, f'{{"a": {text}, "b": {text}}}')[0]
    data = json.loads(GOOD)
    data["accelerators"] = [{**data["accelerators"][0], "id": f"x{i}"} for i in range(2000)]
    data["links"][0]["between"] = [["host", f"y{i}"] for i in range(30_000)]
    assert "no node is called 'y0'; known are: host, x0" in problems_of(tmp_path, json.dumps(data))[0]


def test_long_and_odd_names_are_cut(tmp_path: Path) -> None:
    data = json.loads(GOOD)
    data["x" * 100_000] = 1
    data["\x1b[31mred"] = 1
    data["accelerators"][0]["id"] = "y" * 100_000
    data["links"][0]["between"].append(["host", "z" * 100_000])
    data["inputs_at"] = "w" * 100_000
    found = problems_of(tmp_path, json.dumps(data))
    assert len(found) > 4
    assert all(len(line) < 500 and line.isprintable() for line in found)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=3)
    | st.sampled_from(["left", "d", "host"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_whatever_stands_in_the_file_the_error_is_for_people(tmp_path: Path, data: st.DataObject) -> None:
    """Anything in any place: the pool loads, or InputError says why."""
    content = json.loads(GOOD)
    for _ in range(data.draw(st.integers(1, 3))):
        at = content
        while True:
            steps = list(at) if isinstance(at, dict) else list(range(len(at)))
            if not steps:
                break
            step = data.draw(st.sampled_from(steps))
            if isinstance(at[step], dict | list) and data.draw(st.integers(0, 3)):
                at = at[step]
                continue
            at[step] = data.draw(VALUES)
            break
    path = tmp_path / "any.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    try:
        load_pool(path)
    except InputError as error:
        assert str(error).startswith(str(path))  # noqa: PT017  it may also load
