"""The wheel: what is in it, and that it works where there is no checkout."""

import os
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CONSUMER = """
from mars_onnx import Compilation, compile
from mars_onnx.errors import MarsError
from mars_passes.canonicalize import Canonicalize

def latency(path: str) -> float:
    compilation: Compilation = compile(path, "fpga_pool", dims=("N=1",))
    reveal_type(compilation.plan.partitions[0].accelerator)
    return compilation.price.latency_s

Canonicalize(dim=("N=1",))
compile(1, "fpga_pool")
"""


@dataclass(frozen=True)
class Installed:
    """An environment that has the wheel, and for the rest what the running one has."""

    folder: Path

    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def run(self, command: str, *arguments: str, cwd: Path) -> str:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        done = subprocess.run(
            [self.folder / "bin" / command, *arguments], cwd=cwd, env=clean, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def run(*command: str | Path) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", ".", "-q", "--no-deps", "--no-build-isolation", "-w", folder)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True, with_pip=False)
    environment = Installed(folder)
    pip = (sys.executable, "-m", "pip", "--python", environment.python(), "install", "-q")
    run(*pip, "--no-deps", "--no-index", "--no-compile", wheel)
    (packages,) = folder.glob("lib/*/site-packages")
    # A plain path: the .pth files in there, which lead to the checkout, are not followed.
    (packages / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
    return environment


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    return tmp_path


def test_content(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    tops = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"mars_onnx", "mars_passes"}
    tracked = [
        path.relative_to(ROOT).as_posix()
        for folder in ("hwdb", "models")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".json", ".py"}
    ]
    assert {f"mars_onnx/_data/{name}" for name in tracked} <= names
    assert {"mars_onnx/py.typed", "mars_passes/py.typed"} <= names
    assert not [name for name in names if name.endswith((".onnx", ".pyc"))]


def test_every_entry_point_leads_somewhere(installed: Installed, empty: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for command in project["scripts"]:
        assert command in installed.run(command, "--help", cwd=empty)
    named = [
        *project["scripts"].values(),
        *(value for group in project["entry-points"].values() for value in group.values()),
    ]
    script = "import sys, importlib.metadata as m; [m.EntryPoint('', text, '').load() for text in sys.argv[1:]]"
    installed.run("python", "-c", script, *named, cwd=empty)


def test_from_nothing_to_a_verified_partition(installed: Installed, empty: Path) -> None:
    where = installed.run("python", "-c", "import mars_onnx; print(mars_onnx.__file__)", cwd=empty)
    assert str(installed.folder) in where
    installed.run("mars-onnx-models", "resnet18", "-o", ".", cwd=empty)
    text = installed.run("mars-onnx", "resnet18.onnx", "--hw", "fpga_pool", "--verify", cwd=empty)
    assert "compared with the original: equal" in text
    assert sorted(path.name for path in empty.iterdir()) == ["resnet18.mars", "resnet18.onnx"]
    assert len(list((empty / "resnet18.mars").glob("fpga?.onnx"))) == 8
    described = installed.run("mars-onnx-hw", "fpga_pool", cwd=empty)
    assert "fpga7" in described


def test_types_are_seen_from_outside(installed: Installed, empty: Path) -> None:
    (empty / "consumer.py").write_text(CONSUMER, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--python-executable", installed.python(), "consumer.py"],
        cwd=empty,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("consumer.py")]
    assert len(lines) == 2, done.stdout + done.stderr
    assert 'Revealed type is "str"' in lines[0]
    assert 'has incompatible type "int"' in lines[1]
