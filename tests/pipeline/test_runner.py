"""Running passes: callbacks, failures, listing."""

import io

import onnx_ir as ir
import pytest

from mars_onnx.errors import InputError, InvariantError, MarsError, UsageError
from mars_onnx.pipeline import (
    Callback,
    PassRun,
    PrintAfter,
    StopAfter,
    Timing,
    VerifyStages,
    list_passes,
    run_pipeline,
)
from mars_onnx.pipeline.callbacks import check_pass_names
from tests.pipeline.passes_for_tests import REGISTRY, Fail, Options, Rename


def model() -> ir.Model:
    return ir.from_onnx_text("""
        <ir_version: 10, opset_import: ["": 20]>
        tiny (float[2] x) => (float[2] y) <float[40] weight = {0.5}, float[2] bias = {7, 8}> { y = Add(x, bias) }
    """)


def run(*passes: ir.passes.PassBase, callbacks: list[Callback] | None = None) -> ir.passes.PassResult:
    return run_pipeline(model(), passes, callbacks or [], REGISTRY)


def test_callbacks_see_every_pass() -> None:
    runs: list[PassRun] = []

    def note(run: PassRun) -> bool:
        runs.append(run)
        return False

    result = run(Options(), Rename(), callbacks=[note])
    assert result.modified
    assert [(each.name, each.previous, each.modified) for each in runs] == [
        ("options", (), False),
        ("rename", ("options",), True),
    ]


def test_stop_after_ends_the_pipeline_once_all_callbacks_ran() -> None:
    timing = Timing()
    result = run(Options(), Rename(), callbacks=[StopAfter("options"), timing])
    assert result.model.graph.name == "tiny"
    assert [name for name, _, _ in timing.rows] == ["options"]
    assert "changed nothing" in timing.table()
    assert "total" in timing.table()


def test_print_after_shows_the_model_without_large_weights() -> None:
    stream = io.StringIO()
    run(Options(), Rename(), callbacks=[PrintAfter(frozenset({"rename"}), stream)])
    text = stream.getvalue()
    assert text.startswith("# after rename\n")
    assert "renamed (float[2] x) => (float[2] y)" in text
    assert "float[2] bias =  {7,8}" in text
    assert "0.5" not in text


def test_verifier_runs_after_the_stage_and_after_every_pass_that_must_keep_it() -> None:
    def verify(found: ir.Model) -> list[str]:
        return [] if found.graph.name == "renamed" else ["the graph has another name"] * 12

    def verification() -> VerifyStages:
        return VerifyStages({"renamed": verify})

    run(Options(), Rename(), Options(), callbacks=[verification()])
    with pytest.raises(InvariantError) as caught:
        run(Options(), Rename(name="other"), callbacks=[verification()])
    assert str(caught.value).startswith(
        "the pass 'rename', after options, left a model that is not renamed:\n  the graph has another name\n"
    )
    assert str(caught.value).endswith("and 2 more")


@pytest.mark.parametrize(
    ("how", "kind", "message"),
    [
        ("input", InputError, "model.onnx: no good"),
        ("bug", InvariantError, "the pass 'fail', after options, rename, failed: KeyError: 'oops'"),
        ("requires", UsageError, "the pass 'fail', after options, rename, cannot run on this model: this model is not"),
    ],
)
def test_failures_name_the_pass(how: str, kind: type[MarsError], message: str) -> None:
    with pytest.raises(kind) as caught:
        run(Options(), Rename(), Fail(how=how))  # type: ignore[arg-type]
    assert str(caught.value).startswith(message)


def test_names_on_the_command_line_are_checked() -> None:
    check_pass_names("--stop-after", ["rename", "all"], [Rename()], REGISTRY)
    with pytest.raises(UsageError, match="--stop-after renam: no such pass in this pipeline; did you mean 'rename'"):
        check_pass_names("--stop-after", ["renam"], [Rename()], REGISTRY)


def test_listing_shows_documentation_and_options() -> None:
    text = list_passes(REGISTRY)
    assert "options  (tests)\n    Take one option of every type." in text
    assert "search=: one of exact, greedy; by default exact" in text
    assert "axes=: a whole number, repeated; by default 1 2" in text
    assert "onnx-ir.topological-sort: Topologically sort" in text
