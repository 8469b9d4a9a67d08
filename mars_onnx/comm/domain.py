"""Names of the communication operators that every file and every reader agrees on."""

DOMAIN = "org.mars_onnx.comm"
VERSION = 1

TOKEN_NAME = "mars.token"
"""Graph output that ends the token of a partition; only partitions that communicate have it."""

TOKEN_START = "mars.token.start"
"""Graph input that starts the token, with an initializer of the same name as its default.

An initializer alone would be a constant, and ONNX Runtime would fold every Recv (and all that follows from it) into
constants while loading. As an input with a default value it need not be fed and is not folded.
"""

METADATA_SOURCE = "mars.source"
METADATA_BOX = "mars.box"
METADATA_PART = "mars.part"
METADATA_REDUCE = "mars.reduce"

OPERATORS = (
    "Send",
    "Recv",
    "AllReduce",
    "AllGather",
    "ReduceScatter",
    "AllToAll",
    "Broadcast",
    "HaloExchange",
    "Shift",
)
"""Operators of a partition, all of which carry a token."""

REDISTRIBUTE = "Redistribute"
"""The one operator of the sharded global graph; it carries no token and never occurs in a partition."""
