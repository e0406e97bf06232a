"""Section `study` of params.yaml: candidates, protocol and number of epochs.

All other settings of a run (input size, color, augmentation, batch size, weight decay, schedule,
device, precision, and the loss, optimizer and learning rate of the first round) are in section
`train`.
"""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from tasks.core.params import Section

MULTI_SEED, PUBLISHED = "multi_seed", "published"

Names = Annotated[list[str], Field(min_length=1)]
Rate = Annotated[float, Field(gt=0)]


class Halving(Section):
    """Successive halving: many candidates are tried briefly, few are trained to the end.

    Attributes
    ----------
    min_epochs
        Epochs of the first rung; each later rung has `reduction` times as many.
    reduction_factor
        Each rung keeps the best 1/`reduction` of its candidates, at least one, plus one more: in
        the first round the candidate that the rule would choose at that rung, later the incumbent.
    first_seeds
        Number of seeds of the rungs before the last, which has all of them.
    """

    min_epochs: Annotated[int, Field(ge=1)]
    reduction_factor: Annotated[int, Field(ge=2)]
    first_seeds: Annotated[int, Field(ge=1)]


class Params(Section):
    """Section `study`.

    Attributes
    ----------
    protocol
        `better`: several seeds, learning rates per optimizer, the last epoch's score, the
        one-standard-error rule. `published`: one seed, the best epoch's validation accuracy (the
        model is that epoch's), one learning rate for all optimizers, the highest score wins.
    subset
        Images of every split that take part, column to values; {}: all.
    seeds
        Of initial weights, order and augmentation; `published` uses only the first.
    init_by_backbone
        Initial weights of those `backbones` that do not start as `train.init` says.
    learning_rates
        Rates per optimizer that `better` tries.
    published_learning_rate
        Of every optimizer in the third round of `published`.
    halving
        Used by `better` only; None trains every run to the end.
    max_parallel
        Number of concurrent runs. 0: one per GPU, or per core without a GPU; one if `train.device`
        names a specific accelerator (`cuda:1`).
    resamples, resampling_seed
        Draws of subjects for the intervals.
    published
        The published study that the results are compared with; None for none.
    """

    protocol: Literal["multi_seed", "published"]
    subset: dict[str, list[str]]
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    epochs: Annotated[int, Field(ge=1)]
    backbones: Names
    init_by_backbone: dict[str, str]
    losses: Names
    optimizers: Names
    learning_rates: dict[str, Annotated[list[Rate], Field(min_length=1)]]
    published_learning_rate: Rate
    halving: Halving | None
    max_parallel: Annotated[int, Field(ge=0)]
    confidence: Annotated[float, Field(gt=0, lt=1)]
    resamples: Annotated[int, Field(ge=100)]
    resampling_seed: Annotated[int, Field(ge=0)]
    published: str | None

    @field_validator("seeds", "backbones", "losses", "optimizers")
    @classmethod
    def _once(cls, names: list[str]) -> list[str]:
        if len(set(names)) < len(names):
            raise ValueError("names something twice")
        return names

    @field_validator("learning_rates")
    @classmethod
    def _rates_once(cls, rates: dict[str, list[float]]) -> dict[str, list[float]]:
        for name, values in rates.items():
            if len(set(values)) < len(values):
                raise ValueError(f"names a rate of {name} twice")
        return rates

    @model_validator(mode="after")
    def _fits(self) -> "Params":
        without = [name for name in self.optimizers if name not in self.learning_rates]
        if self.protocol == MULTI_SEED and without:
            raise ValueError(f"learning_rates has none for {', '.join(without)}")
        if self.halving and self.halving.first_seeds > len(self.seeds):
            raise ValueError("halving.first_seeds is more than there are seeds")
        unknown = [name for name in self.init_by_backbone if name not in self.backbones]
        if unknown:
            raise ValueError(
                f"init_by_backbone names {', '.join(unknown)}, which backbones does not"
            )
        return self

    @property
    def used_seeds(self) -> tuple[int, ...]:
        """Return the seeds of the last rung."""
        return tuple(self.seeds[:1] if self.protocol == PUBLISHED else self.seeds)
