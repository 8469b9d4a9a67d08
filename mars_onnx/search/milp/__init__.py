"""The whole problem as one integer program: exact search's answers, checked by somebody else's arithmetic."""
