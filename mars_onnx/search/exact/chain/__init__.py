"""A problem as a chain of segments between gates, and the branches that it may begin with."""
