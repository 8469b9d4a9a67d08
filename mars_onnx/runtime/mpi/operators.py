"""The communication operators over MPI, each set up once."""

from __future__ import annotations

from mars_onnx.comm import Communication, Grouped, HaloExchange, Recv, Send, Shift
from mars_onnx.errors import RunError
from mars_onnx.runtime.mpi.collectives import BoundCollective
from mars_onnx.runtime.mpi.messages import BoundHaloExchange, BoundRecv, BoundSend, BoundShift
from mars_onnx.runtime.mpi.transport import MpiTransport
from mars_onnx.runtime.transport import ArrayKind, BoundCommunication


def bind(operator: Communication, x: ArrayKind | None, transport: MpiTransport) -> BoundCommunication:
    """Set up a communication node.

    Raises:
        RunError: Members of the group disagree about it, or a rank has no process.
    """
    match operator:
        case Send() if x is not None:
            return BoundSend(operator, transport)
        case Recv():
            return BoundRecv(operator, transport)
        case HaloExchange() if x is not None:
            return BoundHaloExchange(operator, x, transport)
        case Shift() if x is not None:
            return BoundShift(operator, x, transport)
        case Grouped() if x is not None:
            return BoundCollective(operator, x, transport)
        case _:
            raise RunError(f"tag {operator.tag}: {operator.op_type} without data, or unknown")
