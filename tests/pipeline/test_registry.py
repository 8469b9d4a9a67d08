"""Finding passes by name."""

import tomllib
from pathlib import Path

import onnx_ir as ir
import pytest

from mars_onnx.errors import UsageError
from mars_onnx.pipeline import registry
from mars_onnx.pipeline.registry import BUILT_IN, RegisteredPass, Registry, default_registry, discover

ROOT = Path(__file__).parents[2]


def test_built_in_table_is_that_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"][registry.GROUP] == BUILT_IN


def test_all_common_passes_of_onnx_ir_have_a_name_and_load() -> None:
    names = [entry.name for entry in default_registry() if entry.name.startswith("onnx-ir.")]
    assert "onnx-ir.common-subexpression-elimination" in names
    assert "onnx-ir.clear-metadata-and-doc-string" in names
    assert len(names) == len(ir.passes.common.__all__)
    for name in names:
        pass_class = default_registry().find(name).load()
        assert default_registry().name_of(pass_class) == name


def test_bare_checkout_finds_our_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_entry_points", lambda: iter(()))
    assert discover().names()[: len(BUILT_IN)] == tuple(BUILT_IN)


def test_neighbouring_passes_come_first() -> None:
    assert Path(default_registry().find("canonicalize").load().__module__.replace(".", "/")).name == "canonicalize"
    import mars_passes

    assert Path(mars_passes.__file__).is_relative_to(ROOT)


def test_duplicate_name_names_both_owners() -> None:
    one = RegisteredPass("tidy", "one.tidy:Tidy", "one-tools")
    two = RegisteredPass("tidy", "two.tidy:Tidy", "two-tools")
    with pytest.raises(UsageError, match=r"'tidy': one\.tidy:Tidy of the distribution one-tools and two\.tidy:Tidy of"):
        Registry([one, two])
    assert Registry([one, one]).names() == ("tidy",)


def test_unknown_name_suggests() -> None:
    with pytest.raises(UsageError, match="no pass 'canonicalise'; did you mean 'canonicalize'"):
        default_registry().find("canonicalise")


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("no_such_module_anywhere:Pass", "cannot be loaded: ModuleNotFoundError"),
        ("mars_onnx.errors:NoSuchName", "cannot be loaded: AttributeError"),
        ("mars_onnx.errors:MarsError", "is not a class derived from"),
    ],
)
def test_pass_that_does_not_load_names_its_distribution(reference: str, reason: str) -> None:
    with pytest.raises(UsageError, match=rf"'broken' of the distribution acme .*{reason}"):
        RegisteredPass("broken", reference, "acme").load()
