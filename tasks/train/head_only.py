"""Strategy `head`: the backbone stays as it is, only the classification head is fitted.

What the backbone sees in a face is what it learnt from the base model's pictures; its batch
normalisation keeps the statistics of those too (the network stays in evaluation mode).
`features.py` says what that saves.
"""

from torch import nn

from tasks.core.models.head import head_parameters
from tasks.train.strategy import Strategy


class HeadOnly(Strategy):
    """The weights of the head alone change."""

    name = "head"

    def trainable(self, module: nn.Module) -> list[str]:
        """Name the head's weights."""
        return head_parameters(module)

    def freezes(self, module: nn.Module) -> bool:
        """Stay in evaluation mode, also where the last layer stands alone."""
        return True
