"""Strategy `replay`: pictures of the other groups are mixed in, so that they are not forgotten.

All layers are trained. An epoch shows every picture of the fine-tuned group once and, drawn afresh
each time, so many of the others that they make up a wanted share; where there are fewer than that,
some come twice, and none a third time before all came twice. Where an epoch is balanced, the
group's own pictures are so among themselves and the replayed ones among themselves; the share
stays. A. Robins (1995), Connection Science 7(2), 123, calls this rehearsal.
"""

import numpy as np

from tasks.train.balance import draw_balanced
from tasks.train.pictures import Pictures
from tasks.train.strategy import Strategy, once_or_balanced


class Replay(Strategy):
    """The fine-tuned group's pictures, then those that are replayed.

    Parameters
    ----------
    n_own
        How many training pictures are of the fine-tuned group; they come first.
    share
        Share of the replayed among the pictures of an epoch, from 0 to below 1.
    """

    name = "replay"

    def __init__(self, n_own: int, share: float) -> None:
        self.n_own = n_own
        self.n_replayed = round(n_own * share / (1 - share))

    def shown(self, n_pictures: int) -> int:
        """Return the number of own and replayed pictures in an epoch."""
        return self.n_own + self.n_replayed

    def order(self, pictures: Pictures, rng: np.random.Generator) -> np.ndarray:
        """Draw which pictures are replayed in this epoch, and shuffle all."""
        own = once_or_balanced(np.arange(self.n_own), pictures.cells, rng)
        pool = np.arange(self.n_own, len(pictures))
        replayed = draw_balanced(pool, pictures.cells[pool], self.n_replayed, rng)
        return rng.permutation(np.concatenate([own, replayed]))
