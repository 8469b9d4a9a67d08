"""A problem on one set of accelerators: tables of segments between layouts, and the way through all of them."""
