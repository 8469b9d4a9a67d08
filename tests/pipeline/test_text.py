"""Pipeline text: reading, printing, and errors that point at the place."""

from pathlib import Path

import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars_onnx.errors import UsageError
from mars_onnx.pipeline import parse_pipeline, pass_text
from tests.pipeline.passes_for_tests import REGISTRY, Colour, Fail, Options, Required


def parse(text: str, **given_values: object) -> tuple[ir.passes.PassBase, ...]:
    return parse_pipeline(text, given_values, REGISTRY).passes


def printed(*passes: ir.passes.PassBase) -> str:
    return ",".join(pass_text(each, REGISTRY) for each in passes)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("options", [Options()]),
        (" options {} ,\n fail ", [Options(), Fail()]),
        ("options{flag}", [Options(flag=True)]),
        ("options{flag=false, count=-4}", [Options(count=-4)]),
        ("options{ratio=1e-3 note=a=b}", [Options(ratio=1e-3, note="a=b")]),
        (r'options{note="a \"b\", {c} \\"}', [Options(note='a "b", {c} \\')]),
        ('options{note=""}', [Options(note="")]),
        ("options{search=greedy,colour=dark-blue}", [Options(search="greedy", colour=Colour.DARK_BLUE)]),
        ("options{limit=7 label=none}", [Options(limit=7, label=None)]),
        ('options{label="none"}', [Options(label="none")]),
        ('options{dim=N=1 dim="x:1,3"}', [Options(dim=("N=1", "x:1,3"))]),
        ("options{axes=}", [Options(axes=())]),
        ("options{axes=5}", [Options(axes=(5,))]),
        ("options{folder=a/b}", [Options(folder=Path("a/b"))]),
        ("required{size=1},required{size=2}", [Required(1), Required(2)]),
    ],
)
def test_text_to_passes_and_back(text: str, expected: list[ir.passes.PassBase]) -> None:
    assert list(parse(text)) == expected
    assert list(parse(printed(*expected))) == expected


def test_printing_leaves_defaults_out() -> None:
    assert printed(Options(), Options(flag=True, dim=("N=1", "a b"))) == 'options,options{flag=true dim=N=1 dim="a b"}'


def test_onnx_ir_passes_take_their_constructor_options() -> None:
    (found,) = parse("onnx-ir.common-subexpression-elimination{size-limit=3}")
    assert isinstance(found, ir.passes.common.CommonSubexpressionEliminationPass)
    assert found.size_limit == 3
    assert printed(found) == "onnx-ir.common-subexpression-elimination{size-limit=3}"


def test_given_values_fill_what_text_leaves_open() -> None:
    pool = object()
    assert parse("options,fail", pool=pool, count=9) == (Options(pool=pool, count=9), Fail())
    assert parse("options{count=1}", count=9) == (Options(count=1),)
    assert parse("required", size=2) == (Required(2),)
    assert printed(Options(pool=pool)) == "options"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected the name of a pass\n  \n  ^"),
        ("options,", "expected the name of a pass\n  options,\n          ^"),
        ("options fail", "expected ',' and another pass, or the end\n  options fail\n          ^"),
        ("fail,optoins", "there is no pass 'optoins'; did you mean 'options'?\n  fail,optoins\n       ^"),
        ("options{cuont=1}", "has no option 'cuont'; did you mean 'count'?\n  options{cuont=1}\n          ^"),
        ("options{pool=1}", "the pass 'options' has no option 'pool'"),
        ("onnx-ir.topological-sort{a=1}", "has no option 'a'; it has none"),
        ("options{count=x}", "'count' is a whole number, not 'x'\n  options{count=x}\n                ^"),
        ("options{count=}", "'count' is a whole number, not ''"),
        ("options{count}", "the option 'count' needs a value: count=..., a whole number"),
        ("options{count=1 count=2}", "the option 'count' is given twice"),
        ("options{flag=yes}", "'flag' is true or false, not 'yes'"),
        ("options{search=fast}", "'search' is one of exact, greedy, not 'fast'"),
        ("options{limit=x}", "'limit' is a whole number or none, not 'x'"),
        ("options{count=1", "this '{' is never closed\n  options{count=1\n         ^"),
        ('options{note="a}', "this quote is never closed"),
        ('options{note="a"b=1}', "expected a space, ',' or '}' after the option"),
        ("options{=1}", "expected an option or '}'"),
        ("required", "the pass 'required' needs its option 'size'"),
        ("options,\nfial", "did you mean 'fail'?\n  fial\n  ^"),
    ],
)
def test_errors_point_at_the_place(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert message in str(caught.value)


TEXT = st.text(st.sampled_from('ab =,{}"\\:none\n'), max_size=8)


@given(note=TEXT, label=st.none() | TEXT, dim=st.lists(TEXT, max_size=3), ratio=st.floats(allow_nan=False))
def test_printed_text_parses_to_the_same(note: str, label: str | None, dim: list[str], ratio: float) -> None:
    pass_ = Options(note=note, label=label, dim=tuple(dim), ratio=ratio)
    assert parse(printed(pass_)) == (pass_,)
