"""The optimisers by name, and the learning rate of each step.

| name | paper | weight decay |
|---|---|---|
| `adam` | D. Kingma, J. Ba (2015), arXiv 1412.6980 | L2 penalty |
| `adamw` | I. Loshchilov, F. Hutter (2019), arXiv 1711.05101 | on the weights themselves |
| `adagrad` | J. Duchi et al. (2011), JMLR 12, 2121 | L2 penalty |
| `rmsprop` | T. Tieleman, G. Hinton (2012), Coursera lecture 6.5 | L2 penalty |
| `sgd` | with momentum: I. Sutskever et al. (2013), ICML | L2 penalty |
| `ranger` | L. Wright (2019), github.com/lessw2020, Ranger | on the weights themselves |

Ranger is RAdam (arXiv 1908.03265) with Lookahead (arXiv 1907.08610) and centred gradients
(arXiv 2004.01461), from pytorch-optimizer; the others are torch's. Whatever params do not name has
the library's own default.
"""

import math
from collections.abc import Iterable

import torch
from torch import nn

from tasks.train.recipe import Recipe

_WARM_UP_SHARE = 0.1  # of all steps, over which a cosine schedule rises to the learning rate
_FALLS = (0.5, 0.75)  # shares of all steps after which the schedule `step` divides by ten


def make_optimiser(recipe: Recipe, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Make the optimiser that a recipe names.

    Parameters
    ----------
    recipe
        Its name, momentum, learning rate and weight decay.
    parameters
        The weights that change; they stay on their device and in their memory layout.

    Returns
    -------
    torch.optim.Optimizer
        Its learning rate may be set before each step: `group["lr"]` of each of `param_groups`.
    """
    weights = list(parameters)
    rate, decay = recipe.learning_rate, recipe.weight_decay
    momentum = recipe.optimiser.momentum
    match recipe.optimiser.name:
        case "adam":
            return torch.optim.Adam(weights, lr=rate, weight_decay=decay, fused=True)
        case "adamw":
            return torch.optim.AdamW(weights, lr=rate, weight_decay=decay, fused=True)
        case "adagrad":
            fused = all(weight.device.type == "cpu" for weight in weights)  # no other device has it
            return torch.optim.Adagrad(weights, lr=rate, weight_decay=decay, fused=fused)
        case "rmsprop":
            return torch.optim.RMSprop(
                weights, lr=rate, weight_decay=decay, momentum=momentum, foreach=True
            )
        case "sgd":
            return torch.optim.SGD(
                weights, lr=rate, weight_decay=decay, momentum=momentum, fused=True
            )
    return _ranger(weights, rate, decay)


def _ranger(weights: list[nn.Parameter], rate: float, decay: float) -> torch.optim.Optimizer:
    from pytorch_optimizer import Ranger  # slow to import, and most runs need it not

    # Before the variance is known well enough, RAdam takes plain momentum steps, as Ranger's
    # authors do. Without this switch pytorch-optimizer 4.1.0 takes those steps uphill.
    return Ranger(weights, lr=rate, weight_decay=decay, degenerated_to_sgd=True)


def learning_rate(recipe: Recipe, step: int, n_steps: int) -> float:
    """Return the learning rate of one step.

    Parameters
    ----------
    recipe
        The largest rate and the schedule: `cosine` (a tenth of the steps up, then down to 0 along
        half a cosine: I. Loshchilov, F. Hutter (2017), arXiv 1608.03983, without restarts),
        `linear` (from the rate down to 0), `step` (a tenth of it from half of the steps on, a
        hundredth from three quarters on) or `constant`.
    step, n_steps
        The step, from 0, and how many the whole training has.
    """
    rate = recipe.learning_rate
    if recipe.schedule == "linear":
        return rate * (1 - step / n_steps)
    if recipe.schedule == "step":
        return rate * 0.1 ** sum(step >= share * n_steps for share in _FALLS)
    if recipe.schedule == "constant":
        return rate
    rise = max(1, round(_WARM_UP_SHARE * n_steps))
    if step < rise:
        return rate * (step + 1) / rise
    done = (step - rise) / max(1, n_steps - rise)
    return rate * 0.5 * (1 + math.cos(math.pi * done))
