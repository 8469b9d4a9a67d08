"""What the command line does, once its options are read."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir
from rich.console import Console

from mars_onnx.compiler import DEFAULT_PIPELINE, Compilation, objective_of, run, search_fields, verify_stages
from mars_onnx.errors import InputError, UsageError, VerificationError
from mars_onnx.loading import load_model
from mars_onnx.pipeline import PrintAfter, StopAfter, Timing, list_passes, parse_pipeline, run_pipeline
from mars_onnx.pipeline.callbacks import check_pass_names
from mars_onnx.pipeline.text import Pipeline
from mars_onnx.pool.loader import load_pool
from mars_onnx.report.folder import check_target
from mars_onnx.report.progress import SearchWatch
from mars_onnx.report.terminal import show
from mars_onnx.search.compare import comparators
from mars_onnx.search.find import check_options
from mars_onnx.search.method import SearchOptions
from mars_onnx.stages import attachments


def partition(options: argparse.Namespace) -> int:
    """Partition a model as the options say; see ``mars_onnx.__main__.parser``.

    Raises:
        MarsError: With the exit code of the command line.
    """
    if options.list_passes:
        print(list_passes())
        return 0
    if options.model is None:
        raise UsageError("name a model: mars-onnx model.onnx --hw POOL (--help shows all options)")
    watch = SearchWatch(None if options.quiet else Console(stderr=True))
    pipeline = _pipeline(options, watch)
    timing = Timing()
    callbacks: list[Callable[..., bool]] = [timing, PrintAfter(frozenset(options.print_ir_after))]
    if options.stop_after is not None:
        _stop_early(options, pipeline, [*callbacks, StopAfter(options.stop_after)])
    else:
        _compile(options, pipeline, callbacks, watch)
    if options.timing:
        print(timing.table())
    return 0


def _search_options(options: argparse.Namespace) -> SearchOptions:
    search = SearchOptions(objective_of(options.objective), options.time_limit, options.seed, options.work_limit)
    check_options(search)
    return search


def _compared(options: argparse.Namespace) -> tuple[str, ...]:
    names = (options.compare or "").split(",")
    return comparators([name.strip() for name in names if name.strip()], options.search)


def _pipeline(options: argparse.Namespace, watch: SearchWatch) -> Pipeline:
    given = search_fields(options.search, options.mapping, _search_options(options), watch) | {
        "dim": tuple(options.dim),
        "input_shape": tuple(options.input_shape),
    }
    pipeline = parse_pipeline(options.pass_pipeline or DEFAULT_PIPELINE, given)
    check_pass_names("--print-ir-after", options.print_ir_after, pipeline.passes)
    if options.stop_after is not None:
        check_pass_names("--stop-after", [options.stop_after], pipeline.passes)
    if options.deep and not options.verify:
        raise UsageError("--deep says how thorough --verify is; give both")
    if options.stop_after is not None and options.compare is not None:
        raise UsageError("--compare belongs into the report, which --stop-after does not write; leave one out")
    return pipeline


def _stop_early(options: argparse.Namespace, pipeline: Pipeline, callbacks: list[Callable[..., bool]]) -> None:
    """Run the first passes and write the model as it is then; a later pipeline can take it up."""
    if options.output is None:
        raise UsageError("--stop-after writes one model; name its file with -o FILE")
    target: Path = options.output
    if target.is_dir() or not target.parent.is_dir():
        raise UsageError(f"{target}: with --stop-after, -o names a file in an existing folder")
    model = load_model(options.model)
    if options.hw is not None:
        attachments.set_pool(model, load_pool(options.hw))
    result = run_pipeline(model, pipeline.passes, [verify_stages(), *callbacks])
    _save_whole(result.model, target)
    if not options.quiet:
        print(f"{target}: the model after {options.stop_after}")


def _save_whole(model: ir.Model, target: Path) -> None:
    """Write a model and its larger weights: beside their place first, so that no half of them is ever there."""
    try:
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
            ir.save(model, Path(folder) / target.name, external_data=f"{target.name}.data")
            for written in sorted(Path(folder).iterdir(), reverse=True):
                written.replace(target.parent / written.name)
    except OSError as error:
        raise InputError(f"{target}: cannot be written: {error.strerror or error}") from error


def _compile(
    options: argparse.Namespace, pipeline: Pipeline, callbacks: list[Callable[..., bool]], watch: SearchWatch
) -> None:
    if options.hw is None:
        raise UsageError("name a pool of accelerators with --hw: a file, or a shipped pool such as fpga_pool")
    target: Path = options.output or Path(f"{options.model.stem}.mars")
    check_target(target)
    compared = _compared(options)
    pool = load_pool(options.hw)
    model = load_model(options.model)
    compilation = run(model, options.model, pool, pipeline, callbacks)
    if compared:
        compilation.compare(compared, _search_options(options), watch)
    if options.verify:
        compilation.verify(options.seed, deep=options.deep)
    compilation.save(target)
    if not options.quiet:
        show(compilation.report, target, Console(), verbose=options.verbose)
    _fail_if_different(compilation)


def _fail_if_different(compilation: Compilation) -> None:
    if compilation.verification is not None:
        try:
            compilation.verification.raise_if_failed()
        except VerificationError:
            sys.stdout.flush()
            raise
