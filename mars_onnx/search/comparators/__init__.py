"""Methods that the exact search is compared with: published ones, and simple rules that are hard to beat."""
