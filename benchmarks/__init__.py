"""What the data path costs, beside its floor, a plain program and the peers: `make bench`.

Each room measures one thing, in a process of its own, and prints JSON; `__main__` asks them in turn
and `page` writes docs/benchmarks.md.
"""
