"""What is lost on a machine never seen: each host predicted with and without having seen it.

predict.py trains and predicts, table.py scores both sides on the same episodes.
"""
