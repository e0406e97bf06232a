"""The optimizers by name, and the learning rate of each step.

| name | paper | weight decay |
|---|---|---|
| `adam` | D. Kingma, J. Ba (2015), arXiv 1412.6980 | L2 penalty |
| `adamw` | I. Loshchilov, F. Hutter (2019), arXiv 1711.05101 | decoupled |
| `adagrad` | J. Duchi et al. (2011), JMLR 12, 2121 | L2 penalty |
| `rmsprop` | T. Tieleman, G. Hinton (2012), Coursera lecture 6.5 | L2 penalty |
| `sgd` | with momentum: I. Sutskever et al. (2013), ICML | L2 penalty |
| `ranger` | L. Wright (2019), github.com/lessw2020, Ranger | decoupled |

Ranger is RAdam (arXiv 1908.03265) with Lookahead (arXiv 1907.08610) and gradient centralization
(arXiv 2004.01461), from pytorch-optimizer; the others are torch's. Options that params do not name
keep the library's defaults.
"""

import math
from collections.abc import Iterable

import torch
from torch import nn

from tasks.core.training.config import TrainConfig

_WARM_UP_SHARE = 0.1  # of all steps, over which a cosine schedule rises to the learning rate
_STEP_DECAYS = (0.5, 0.75)  # shares of all steps after which the schedule `step` divides by ten


def make_optimizer(
    recipe: TrainConfig, parameters: Iterable[nn.Parameter]
) -> torch.optim.Optimizer:
    """Return the optimizer that a recipe names, for weights that stay on their device.

    Its learning rate may be set before each step: `group["lr"]` of each of `param_groups`.
    """
    weights = list(parameters)
    rate, decay = recipe.learning_rate, recipe.weight_decay
    momentum = recipe.optimizer.momentum
    match recipe.optimizer.name:
        case "adam":
            return torch.optim.Adam(weights, lr=rate, weight_decay=decay, fused=True)
        case "adamw":
            return torch.optim.AdamW(weights, lr=rate, weight_decay=decay, fused=True)
        case "adagrad":
            fused = all(weight.device.type == "cpu" for weight in weights)  # CPU only
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
    from pytorch_optimizer import Ranger  # slow to import and rarely needed

    # Until its variance estimate is reliable, RAdam takes plain momentum steps, as Ranger's
    # authors do. Without this switch pytorch-optimizer 4.1.0 takes those steps uphill.
    return Ranger(weights, lr=rate, weight_decay=decay, degenerated_to_sgd=True)


def learning_rate(recipe: TrainConfig, step: int, n_steps: int) -> float:
    """Return the learning rate of one step, counted from 0.

    Schedules are `cosine` (warm-up over a tenth of the steps, then half a cosine down to 0: I.
    Loshchilov, F. Hutter (2017), arXiv 1608.03983, without restarts), `linear` (down to 0), `step`
    (divided by ten after half of the steps and again after three quarters) and `constant`.
    """
    rate = recipe.learning_rate
    if recipe.schedule == "linear":
        return rate * (1 - step / n_steps)
    if recipe.schedule == "step":
        return rate * 0.1 ** sum(step >= share * n_steps for share in _STEP_DECAYS)
    if recipe.schedule == "constant":
        return rate
    warm_up_steps = max(1, round(_WARM_UP_SHARE * n_steps))
    if step < warm_up_steps:
        return rate * (step + 1) / warm_up_steps
    progress = (step - warm_up_steps) / max(1, n_steps - warm_up_steps)
    return rate * 0.5 * (1 + math.cos(math.pi * progress))
