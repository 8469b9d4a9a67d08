"""How much a redistribution moves, for all pairs of many layouts at once. A search cannot afford a plan for each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def received_volume(source_boxes: NDArray[np.integer], needed_boxes: NDArray[np.integer]) -> NDArray[np.int64]:
    """Elements that each member lacks: what it needs without what it holds itself.

    Where nothing is partial and no data is moved twice, this is what :meth:`Plan.received_elements` counts.

    Args:
        source_boxes: ``[A, members, rank, 2]``: of A layouts, what every member holds. A box without elements (any
            range empty) says that it holds nothing; so a scalar is best given as a tensor of shape ``(1,)``.
        needed_boxes: ``[B, members, rank, 2]``: of B layouts, what every member needs.

    Returns:
        ``[A, B, members]``.
    """
    source = np.asarray(source_boxes, dtype=np.int64)
    needed = np.asarray(needed_boxes, dtype=np.int64)
    if source.shape[1:] != needed.shape[1:]:
        raise ValueError(
            f"boxes of shapes {source.shape[1:]} and {needed.shape[1:]} belong to different sets or tensors"
        )
    members, rank = source.shape[1:3]
    own = np.ones((source.shape[0], needed.shape[0], members), dtype=np.int64)
    # A dimension at a time: the temporaries stay at [A, B, members], which is what limits the speed.
    for dim in range(rank):
        held, wanted = source[:, None, :, dim], needed[None, :, :, dim]
        extent = np.minimum(held[..., 1], wanted[..., 1])
        extent -= np.maximum(held[..., 0], wanted[..., 0])
        np.maximum(extent, 0, out=extent)
        own *= extent
    whole = np.maximum(needed[..., 1] - needed[..., 0], 0).prod(axis=-1, dtype=np.int64)
    result: NDArray[np.int64] = whole[None] - own
    return result
