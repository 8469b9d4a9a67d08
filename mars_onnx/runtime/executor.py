"""Run one partition: its segments in ONNX Runtime, its communications over a transport, in the order of the token."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx_ir as ir
import onnxruntime as ort

from mars_onnx.comm import (
    METADATA_BOX,
    METADATA_PART,
    METADATA_REDUCE,
    METADATA_SOURCE,
    TOKEN_NAME,
    TOKEN_START,
    static_shape,
)
from mars_onnx.errors import InvariantError, RunError
from mars_onnx.geometry import Box, Reduction, parse_box
from mars_onnx.runtime.collectives import execute
from mars_onnx.runtime.native.compute import UnsuitableError
from mars_onnx.runtime.native.partition import Monitor, NativePartition
from mars_onnx.runtime.native.region import Region
from mars_onnx.runtime.segments import CommunicationStep, Segment, Step, cut, segment_model
from mars_onnx.runtime.sessions import (
    RUNTIME_ERRORS,
    ExecutorOptions,
    Weights,
    as_array,
    bind_input,
    bind_output,
    make_session,
    to_array,
)
from mars_onnx.runtime.transport import Array, ArrayKind, BoundCommunication, Transport


@dataclass(frozen=True, slots=True)
class Claim:
    """What a local value says it is: a box of a tensor of the canonical graph, or a part of one.

    Attributes:
        value: Name of the local value.
        source: Name of the tensor in the canonical graph.
        box: Which box of it; ``None`` for nothing.
        part: Number of the part.
        num_parts: How many parts reduce to the tensor; 1 for the tensor itself.
        reduction: How they do.
    """

    value: str
    source: str
    box: Box | None
    part: int = 0
    num_parts: int = 1
    reduction: Reduction = Reduction.SUM

    @staticmethod
    def of(value: ir.Value) -> Claim | None:
        """Read the metadata of a value; ``None`` if it has none.

        Raises:
            InvariantError: The metadata is malformed; the message names the value.
        """
        metadata = value.metadata_props
        if METADATA_SOURCE not in metadata:
            return None
        try:
            box = parse_box(metadata[METADATA_BOX])
            part, num_parts, reduction = 0, 1, Reduction.SUM
            if METADATA_PART in metadata:
                first, second = metadata[METADATA_PART].split("/")
                part, num_parts = int(first), int(second)
                reduction = Reduction(metadata[METADATA_REDUCE])
        except (KeyError, ValueError) as error:
            raise InvariantError(f"metadata of {value.name}: {type(error).__name__} {error}") from None
        if not 0 <= part < num_parts:
            raise InvariantError(f"metadata of {value.name}: part {part} of {num_parts}")
        return Claim(str(value.name), metadata[METADATA_SOURCE], box, part, num_parts, reduction)


Observer = Callable[[Claim, Array], None]


@dataclass(slots=True)
class _Program:
    """Steps with their sessions (``None`` for a communication) and the values nobody needs after each step.

    ``fed`` are the weights that a session takes as inputs; ``bound`` the communications that the transport has
    prepared, by the name of the node.
    """

    steps: list[tuple[Step, ort.InferenceSession | None]]
    drops: list[tuple[str, ...]]
    fed: dict[str, dict[str, ort.OrtValue]]
    bound: dict[str, BoundCommunication]


class PartitionExecutor:
    """Runs a partition, as often as wanted. Sessions are built at the first run, or by :meth:`prepare`.

    Args:
        model: The partition. Its weights are used in place and must not change.
        transport: The own end; may be replaced between runs by another that binds nothing.
        options: How sessions are built.
        region: Ranks that share memory with this one. With ``options.native`` the partition is lowered for this
            machine, if all of them can do that; see :mod:`mars_onnx.runtime.native`.

    Attributes:
        monitor: Is told where a run stands, if there is one.
        unsuitable: Why the partition is run in segments though it should be lowered; empty if there is no reason.
    """

    def __init__(
        self,
        model: ir.Model,
        transport: Transport,
        options: ExecutorOptions | None = None,
        region: Region | None = None,
    ) -> None:
        self.model = model
        self.transport = transport
        self.options = options or ExecutorOptions()
        graph = model.graph
        initializers = set(graph.initializers)
        self.inputs = {str(v.name): v for v in graph.inputs if v.name not in initializers and v.name != TOKEN_START}
        self.outputs = tuple(str(value.name) for value in graph.outputs if value.name != TOKEN_NAME)
        self.claims = _claims(graph)
        self.monitor: Monitor | None = None
        self.region = region
        self.unsuitable = ""
        self._native: NativePartition | None = None
        self._weights = Weights()
        self._programs: dict[bool, _Program] = {}

    def prepare(self, observe: bool = False) -> None:
        """Cut the partition and build all sessions. Ranks of a region have to do it at the same time.

        Raises:
            RunError: ONNX Runtime refuses a segment; the message names it.
        """
        if observe in self._programs or (not observe and self._native is not None):
            return
        if not observe and self.region is not None and self.options.native:
            # All ranks of the region have to come to the same conclusion, so that also one who cannot has to say so.
            try:
                self._native = NativePartition(self.model, self.region, self.options)
            except UnsuitableError as error:
                self.unsuitable = str(error)
            else:
                return
        keep = set(self.claims) if observe else set()
        steps: list[tuple[Step, ort.InferenceSession | None]] = []
        fed: dict[str, dict[str, ort.OrtValue]] = {}
        for step in cut(self.model, keep):
            session = None
            if isinstance(step, Segment):
                part = segment_model(self.model, step, feed_weights=not self.options.prepack)
                fed[step.name] = {name: self._weights.get(name, tensor) for name, tensor in part.fed.items()}
                try:
                    session = make_session(part.proto, part.large, self._weights, self.options)
                except RUNTIME_ERRORS as error:
                    raise RunError(f"{describe(step)}: ONNX Runtime refuses it: {error}") from error
            steps.append((step, session))
        self._programs[observe] = _Program(steps, _drops([step for step, _ in steps], self.outputs), fed, {})

    def bind(self, observe: bool = False) -> None:
        """Let the transport set up all communications; after :meth:`prepare`, together with all other partitions.

        Raises:
            RunError: It cannot; the message names the tag.
        """
        if not observe and self._native is not None:
            self._native.bind(self.transport)
            return
        program = self._programs[observe]
        kinds = {str(v.name): v for v in (*self.model.graph.inputs, *(v for n in self.model.graph for v in n.outputs))}
        kinds |= self.model.graph.initializers
        for step, _ in program.steps:
            if isinstance(step, CommunicationStep):
                x = None if step.x is None else _kind(kinds[step.x])
                known = step.x is None or x is not None
                prepared = self.transport.bind(step.operator, x) if known else None
                if prepared is not None:
                    program.bound[step.name] = prepared

    def forget(self, region: Region) -> None:
        """Prepare again before the next run, with another region: what a failed run has left is in no known state."""
        self.region = region
        self._native = None

    def steps(self) -> tuple[Step, ...]:
        """The steps of a run without observer, in their order; :meth:`prepare` first."""
        if self._native is not None:
            return self._native.steps
        return tuple(step for step, _ in self._programs[False].steps)

    def settle(self) -> None:
        """Wait until all that has been sent has left."""
        for program in self._programs.values():
            for bound in program.bound.values():
                bound.settle()
        if self._native is not None:
            self._native.settle()

    def run(self, inputs: Mapping[str, Array], observe: Observer | None = None) -> dict[str, Array]:
        """Run once.

        Args:
            inputs: The local boxes of the model's inputs.
            observe: Called with every value that says which box of which canonical tensor it is, as soon as it is
                known, initializers included. It must not keep the array unless nothing writes to it.

        Raises:
            RunError: An input is missing or wrong, a kernel fails, or the transport ends the run.
        """
        values: dict[str, Array | ort.OrtValue] = dict(self._checked(inputs))
        self.prepare(observe is not None)
        if observe is None and self._native is not None:
            return self._native.run(self._checked(inputs), self.transport, self.monitor)
        program = self._programs[observe is not None]
        if observe is not None:
            for claim in self.claims.values():
                constant = self.model.graph.initializers.get(claim.value)
                if constant is not None and constant.const_value is not None:
                    observe(claim, constant.const_value.numpy())
                elif claim.value in values:
                    observe(claim, as_array(values[claim.value], claim.value))
        wanted = set(self.outputs)
        results = {name: self._constant_or(values, name) for name in wanted if self._known(values, name)}
        monitor = self.monitor
        for bound in program.bound.values():
            bound.post()
        for number, ((step, session), drops) in enumerate(zip(program.steps, program.drops, strict=True)):
            if monitor is not None:
                monitor.begin(number)
            if session is not None:
                made = self._segment(step, session, values, program.fed[step.name])
            else:
                made = self._communicate(step, values, program.bound.get(step.name))
            if monitor is not None:
                monitor.end(number)
            for name, value in made.items():
                if observe is not None and name in self.claims:
                    observe(self.claims[name], as_array(value, name))
                if name in wanted:
                    results[name] = as_array(value, name)
            values.update(made)
            del made
            for name in drops:
                values.pop(name, None)
        return {name: results[name] for name in self.outputs}

    def _known(self, values: Mapping[str, object], name: str) -> bool:
        return name in values or name in self.model.graph.initializers

    def _constant_or(self, values: Mapping[str, Array | ort.OrtValue], name: str) -> Array:
        """An output that is an input or an initializer."""
        if name in values:
            return as_array(values[name], name)
        tensor = self.model.graph.initializers[name].const_value
        if tensor is None:
            raise InvariantError(f"initializer {name} has no data")
        return tensor.numpy()

    def _checked(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        for name in sorted(self.inputs.keys() - inputs.keys()):
            raise RunError(f"input {name} of the partition is not given")
        for name, value in self.inputs.items():
            shape, dtype = static_shape(value), value.dtype
            given = inputs[name]
            if (shape is not None and shape != given.shape) or (dtype is not None and dtype.numpy() != given.dtype):
                wanted = f"{dtype.numpy() if dtype else '?'}{list(shape) if shape is not None else ''}"
                raise RunError(f"input {name} is {given.dtype}{list(given.shape)}; the partition takes {wanted}")
        return {name: inputs[name] for name in self.inputs}

    def _segment(
        self,
        step: Step,
        session: ort.InferenceSession,
        values: Mapping[str, Array | ort.OrtValue],
        fed: Mapping[str, ort.OrtValue],
    ) -> dict[str, Array | ort.OrtValue]:
        if not isinstance(step, Segment):
            raise InvariantError(f"{step.name} is no segment")
        binding = session.io_binding()
        alive = [bind_input(binding, name, values[name]) for name in step.inputs]
        for name, weight in fed.items():
            binding.bind_ortvalue_input(name, weight)
        arrays = [bind_output(binding, str(v.name), v.dtype, static_shape(v)) for v in step.output_values]
        try:
            session.run_with_iobinding(binding)
        except RUNTIME_ERRORS as error:
            raise RunError(f"{describe(step)}: {error}") from error
        del alive
        if all(array is not None for array in arrays):
            return {name: array for name, array in zip(step.outputs, arrays, strict=True) if array is not None}
        made = binding.get_outputs()
        return {
            name: to_array(value) if array is None else array
            for name, array, value in zip(step.outputs, arrays, made, strict=True)
        }

    def _communicate(
        self, step: Step, values: Mapping[str, Array | ort.OrtValue], bound: BoundCommunication | None
    ) -> dict[str, Array | ort.OrtValue]:
        if isinstance(step, Segment):
            raise InvariantError(f"{step.name} has no session")
        x = None
        if step.x is not None:
            x = as_array(values[step.x], step.x) if step.x in values else self._constant_or(values, step.x)
        try:
            if bound is None:
                y = execute(step.operator, x, self.transport)
            else:
                bound.start(x)
                y = bound.finish()
        except RunError as error:
            raise RunError(f"{describe(step)}: {error}") from error
        return {} if step.y is None or y is None else {step.y: y}


def _kind(value: ir.Value) -> ArrayKind | None:
    """Shape and element type, if they are known and an array can have them."""
    shape, dtype = static_shape(value), value.dtype
    if shape is None or dtype is None or dtype == ir.DataType.STRING or dtype.itemsize < 1:
        return None
    return ArrayKind(shape, dtype.numpy())


def _claims(graph: ir.Graph) -> dict[str, Claim]:
    values = [*graph.inputs, *graph.initializers.values(), *(value for node in graph for value in node.outputs)]
    claims = (Claim.of(value) for value in values)
    return {claim.value: claim for claim in claims if claim is not None}


def _drops(steps: list[Step], outputs: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Per step the values that no later step reads."""
    seen = set(outputs)
    drops: list[tuple[str, ...]] = []
    for step in reversed(steps):
        last = tuple(name for name in dict.fromkeys((*step.inputs, *step.outputs)) if name not in seen)
        seen.update(last)
        drops.append(last)
    return drops[::-1]


def describe(step: Step) -> str:
    """What a step is called in messages."""
    if isinstance(step, Segment):
        names = [str(node.name or node.op_type) for node in step.nodes]
        return f"{step.name} (nodes {names[0]}{' .. ' + names[-1] if len(names) > 1 else ''})"
    return f"{step.operator.op_type} {step.name}"
