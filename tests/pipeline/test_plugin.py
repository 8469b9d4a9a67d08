"""A plugin in a distribution of its own is found, listed and run like our own passes."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "tests" / "plugin_package"

SCRIPT = """
import onnx_ir as ir
from mars_onnx.pipeline import VerifyStages, list_passes, parse_pipeline, run_pipeline
model = ir.from_onnx_text('''<ir_version: 10, opset_import: ["": 20]>
    g (float[2] x) => (float[2] y) { a = Relu(x) b = Identity(a) y = Neg(b) }''')
pipeline = parse_pipeline("canonicalize,count-operators{least=1}")
print(pipeline)
print(run_pipeline(model, pipeline.passes, [VerifyStages()]).model.metadata_props)
print(list_passes())
"""


def install(folder: Path, name: str = "mars-onnx-opcount") -> None:
    """Put the plugin into ``folder`` the way pip would: the package and its metadata beside it."""
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
    shutil.copytree(PLUGIN / "src", folder, dirs_exist_ok=True)
    info = folder / f"{name.replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {project['version']}\n")
    points = project["entry-points"]["mars_onnx.passes"]
    lines = [f"{key} = {value}" for key, value in points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[mars_onnx.passes]", *lines, ""]))


def run(folder: Path, script: str) -> "subprocess.CompletedProcess[str]":
    path = os.pathsep.join([str(ROOT), str(ROOT / "passes"), str(folder)])
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)


def test_plugin_runs_in_a_pipeline(tmp_path: Path) -> None:
    install(tmp_path)
    result = run(tmp_path, SCRIPT)
    assert result.returncode == 0, result.stderr
    assert "canonicalize,count-operators\n{'operators': 'Neg=1 Relu=1'}\n" in result.stdout
    assert "count-operators  (mars-onnx-opcount)\n    Write into the model's metadata" in result.stdout


def test_two_plugins_of_one_name_are_both_named(tmp_path: Path) -> None:
    install(tmp_path)
    install(tmp_path, "other-counter")
    # The same reference from two distributions is a conflict too: either may change.
    result = run(tmp_path, "from mars_onnx.pipeline import default_registry; default_registry()")
    assert "two passes are called 'count-operators'" in result.stderr
    assert "mars-onnx-opcount" in result.stderr
    assert "other-counter" in result.stderr


def test_our_passes_are_found_without_any_installation(tmp_path: Path) -> None:
    script = (
        "import importlib.metadata as m; m.entry_points = lambda **_: (); "
        "from mars_onnx.pipeline import parse_pipeline; print(parse_pipeline('canonicalize').passes)"
    )
    result = run(tmp_path, script)
    assert result.returncode == 0, result.stderr
    assert "Canonicalize(dim=()" in result.stdout
