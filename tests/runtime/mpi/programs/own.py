"""A program that has a process more than there are accelerators, and messages of its own; argument: the folder."""

import sys

import numpy as np

import mars_onnx
from mars_onnx.errors import InputError
from mars_onnx.runtime.mpi.library import load_mpi
from tests.runtime.mpi import folder

MPI = load_mpi()
world = MPI.COMM_WORLD
members = world.Get_size() - 1
mine = world.Split(0 if world.Get_rank() < members else MPI.UNDEFINED)
pending = world.isend("hello", (world.Get_rank() + 1) % world.Get_size(), 0)
if mine != MPI.COMM_NULL:
    with mars_onnx.load_rank(sys.argv[1], mine) as rank:
        for index in (0, 2, 1):
            given = folder.inputs(members, index)
            outputs = rank.run(given if rank.is_host else None)
            if rank.is_host:
                np.testing.assert_array_equal(outputs["y"], folder.expected(given))
            else:
                assert outputs is None
        # A refusal reaches all, and the next run is as good as any.
        for given in ({}, folder.inputs(members)):
            try:
                outputs = rank.run(given if rank.is_host else None)
                refused = False
            except InputError:
                refused = True
            assert refused == (not given)
assert world.recv(source=(world.Get_rank() - 1) % world.Get_size()) == "hello"
pending.wait()
world.Barrier()
if world.Get_rank() == 0:
    print("ok")
