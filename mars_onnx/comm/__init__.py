"""The communication operators: names, schemas, function bodies, attributes. Knows nothing of plans.

Importing this package registers nothing; call :func:`register` where the onnx checker shall know the operators by
schema (files carry function bodies, so that tools that have never heard of mars_onnx need no schema).
"""

from mars_onnx.comm.attributes import (
    CLASSES,
    AllGather,
    AllReduce,
    AllToAll,
    Broadcast,
    Communication,
    Grouped,
    HaloExchange,
    Recv,
    ReduceScatter,
    Send,
    Shaped,
    Shift,
    communication_of,
    is_communication,
    static_shape,
    token_start,
)
from mars_onnx.comm.domain import (
    DOMAIN,
    METADATA_BOX,
    METADATA_PART,
    METADATA_REDUCE,
    METADATA_SOURCE,
    OPERATORS,
    REDISTRIBUTE,
    TOKEN_NAME,
    TOKEN_START,
    VERSION,
)
from mars_onnx.comm.functions import OLDEST_OPSET, add_functions, functions_for
from mars_onnx.comm.schemas import register

__all__ = [
    "CLASSES",
    "DOMAIN",
    "METADATA_BOX",
    "METADATA_PART",
    "METADATA_REDUCE",
    "METADATA_SOURCE",
    "OLDEST_OPSET",
    "OPERATORS",
    "REDISTRIBUTE",
    "TOKEN_NAME",
    "TOKEN_START",
    "VERSION",
    "AllGather",
    "AllReduce",
    "AllToAll",
    "Broadcast",
    "Communication",
    "Grouped",
    "HaloExchange",
    "Recv",
    "ReduceScatter",
    "Send",
    "Shaped",
    "Shift",
    "add_functions",
    "communication_of",
    "functions_for",
    "is_communication",
    "register",
    "static_shape",
    "token_start",
]
