"""What a checkpoint, a coefficient or a strategy is chosen by: recall of the worst group."""

import numpy as np


def mean_recall_score(targets: np.ndarray, predicted: np.ndarray) -> float:
    """Return the mean over the classes that occur of the share of their pictures that is right.

    Parameters
    ----------
    targets, predicted
        `(N,)` integers or names, N at least 1.
    """
    right = targets == predicted
    return float(np.mean([right[targets == label].mean() for label in np.unique(targets)]))


def worst_recall_score(targets: np.ndarray, predicted: np.ndarray, groups: np.ndarray) -> float:
    """Return the mean recall (see `mean_recall_score`) of the group where it is lowest.

    Parameters
    ----------
    targets, predicted
        `(N,)` integers, N at least 1.
    groups
        `(N, G)` booleans, G at least 1: the pictures of each group that counts; see
        `tasks.train.groups`.
    """
    return min(mean_recall_score(targets[own], predicted[own]) for own in groups.T)
