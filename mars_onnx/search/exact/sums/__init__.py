"""The least sum of tables over all assignments of their variables."""
