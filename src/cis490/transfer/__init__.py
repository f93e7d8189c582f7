"""What is lost on a machine never seen: each host predicted with and without having seen it.

predict.py trains and predicts, table.py scores both sides on the same episodes.
"""

from typing import Final

# Whether the models that predict an episode know its host.
IN_HOST: Final = "in_host"
CROSS_HOST: Final = "cross_host"
SIDES: Final = (IN_HOST, CROSS_HOST)
