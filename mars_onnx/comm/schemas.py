"""Schemas of the communication operators for the onnx package, with type and shape inference."""

from __future__ import annotations

from typing import Any

import onnx
import onnx.defs
import onnx.shape_inference
from onnx.defs import OpSchema

from mars_onnx.comm.attributes import CLASSES
from mars_onnx.comm.domain import DOMAIN, OPERATORS, REDISTRIBUTE, VERSION

_INT64 = onnx.TensorProto.INT64
_KINDS = {
    "int": OpSchema.AttrType.INT,
    "ir.DataType": OpSchema.AttrType.INT,
    "Shape": OpSchema.AttrType.INTS,
    "Reduction": OpSchema.AttrType.STRING,
}
_DESCRIPTIONS = {
    "tag": "Number of this communication, shared by all who take part and by no other communication.",
    "dst": "Rank that receives.",
    "src": "Rank that sends.",
    "shape": "Shape of the local output.",
    "dtype": "Element type of the output, as in TensorProto.DataType.",
    "group": "Ranks that take part, in the order that the other attributes use.",
    "reduce_op": "sum, max or min.",
    "axis": "Dimension that is gathered, scattered or extended.",
    "sizes": "Extent along the axis of every member's piece.",
    "split_axis": "Dimension along which the input is split.",
    "concat_axis": "Dimension along which the received pieces are joined.",
    "split_sizes": "Extent along split_axis of every member's output.",
    "concat_sizes": "Extent along concat_axis of every member's input.",
    "root": "Rank whose input is the output of all.",
    "held": "Start and stop along the axis of every member's input, in coordinates of the whole tensor.",
    "need": "Start and stop along the axis of every member's output, in coordinates of the whole tensor.",
    "offset": "Member i sends to member i + offset of the group, cyclically.",
    "kind": "What the redistribution will become, in a word for a person.",
}


def register() -> None:
    """Register the schemas with the onnx package; doing it twice does no harm."""
    for op_type in (*OPERATORS, REDISTRIBUTE):
        if not onnx.defs.has(op_type, DOMAIN):
            onnx.defs.register_schema(_schema(op_type))


def _schema(op_type: str) -> OpSchema:
    cls = CLASSES.get(op_type)
    takes_data = cls is None or cls.takes_data
    gives_data = cls is None or cls.gives_data
    token = [] if cls is None else [OpSchema.FormalParameter("token", "tensor(int64)", "Order; shape [1].")]
    data_in = [OpSchema.FormalParameter("x", "T", "What this member gives.")] if takes_data else []
    data_out = [OpSchema.FormalParameter("y", "T", "What this member gets.")] if gives_data else []
    token_out = [OpSchema.FormalParameter("token_out", "tensor(int64)", "Order; shape [1].")] if token else []
    if cls is None:
        attributes = [_attribute("kind", OpSchema.AttrType.STRING)]
        doc = "Marks a change of layout in the sharded global graph, where it is the identity."
    else:
        attributes = [_attribute(name, _KINDS[kind]) for name, kind in cls.kinds().items()]
        doc = cls.__doc__ or ""
    # Identity takes everything a tensor can be, in whatever version of onnx this runs with.
    identity = onnx.defs.get_schema("Identity").type_constraints[0].allowed_type_strs
    types = sorted(kind for kind in identity if kind.startswith("tensor("))
    schema = OpSchema(
        op_type,
        DOMAIN,
        VERSION,
        doc,
        inputs=[*data_in, *token],
        outputs=[*data_out, *token_out],
        type_constraints=[("T", types, "Any tensor type.")] if takes_data or gives_data else [],
        attributes=attributes,
    )
    shaped = cls is not None and "shape" in cls.kinds()

    def infer(context: Any) -> None:
        if gives_data:
            context.set_output_type(0, _declared(context) if shaped else context.get_input_type(0))
        if token:
            context.set_output_type(int(gives_data), onnx.helper.make_tensor_type_proto(_INT64, [1]))

    schema.set_type_and_shape_inference_function(infer)
    return schema


def _attribute(name: str, kind: OpSchema.AttrType) -> OpSchema.Attribute:
    return OpSchema.Attribute(name, kind, _DESCRIPTIONS[name], required=True)


def _declared(context: Any) -> onnx.TypeProto:
    """Type of an output that the attributes spell out."""
    shape, dtype = context.get_attribute("shape"), context.get_attribute("dtype")
    if shape is None or dtype is None:
        raise onnx.shape_inference.InferenceError("the attributes shape and dtype are needed")
    return onnx.helper.make_tensor_type_proto(dtype.i, list(shape.ints))
