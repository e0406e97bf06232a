"""Section `study` of params.yaml: what is compared, how, and with how many epochs.

Everything else of a run (input size, colour, augmentation, batch size, weight decay, schedule,
device, precision, and the loss, optimiser and learning rate with which the first round trains) is
section `train`.
"""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from tasks.core.params import Section

BETTER, PUBLISHED = "better", "published"

Names = Annotated[list[str], Field(min_length=1)]
Rate = Annotated[float, Field(gt=0)]


class Halving(Section):
    """Successive halving: many arms are tried briefly, few are trained to the end.

    Attributes
    ----------
    first_epochs
        Epochs after which the first arms are stopped; each later rung has `reduction` times as
        many.
    reduction
        Of the arms that a rung judges, one in `reduction` goes on, at least one; and so does one
        that is not counted among them: in the first round the arm that the rule would choose at
        that rung, later what the round before ended with.
    first_seeds
        Seeds with which the rungs before the last are trained; the last has all of them.
    """

    first_epochs: Annotated[int, Field(ge=1)]
    reduction: Annotated[int, Field(ge=2)]
    first_seeds: Annotated[int, Field(ge=1)]


class Params(Section):
    """Section `study`.

    Attributes
    ----------
    protocol
        `better`: several seeds, a learning rate of its own for each optimiser, the last epoch's
        score, the one-standard-error rule. `published`: one seed, the best epoch's validation
        accuracy (of which epoch the model is kept), one learning rate for all optimisers, the
        highest wins.
    group
        Which pictures of every split take part: columns to values; {}: all.
    seeds
        Of first weights, order and augmentation; `published` uses the first alone.
    backbones, losses, optimisers
        What the three rounds compare.
    starts
        First weights of those of `backbones` that are not to start as `train.start` says.
    learning_rates
        For each optimiser the rates that `better` tries.
    published_learning_rate
        Of every optimiser in the third round of `published`.
    halving
        How arms are stopped early in `better`; None: every run goes to the end.
    side_by_side
        Runs at once; 0: one a GPU, or one a core where there is none; one where `train.device`
        names a certain accelerator (`cuda:1`).
    confidence
        Level of every interval.
    resamples, resampling_seed
        Draws of people behind the intervals.
    published
        The published study whose figures stand beside ours; None for none.
    """

    protocol: Literal["better", "published"]
    group: dict[str, list[str]]
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    epochs: Annotated[int, Field(ge=1)]
    backbones: Names
    starts: dict[str, str]
    losses: Names
    optimisers: Names
    learning_rates: dict[str, Annotated[list[Rate], Field(min_length=1)]]
    published_learning_rate: Rate
    halving: Halving | None
    side_by_side: Annotated[int, Field(ge=0)]
    confidence: Annotated[float, Field(gt=0, lt=1)]
    resamples: Annotated[int, Field(ge=100)]
    resampling_seed: Annotated[int, Field(ge=0)]
    published: str | None

    @field_validator("seeds", "backbones", "losses", "optimisers")
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
        without = [name for name in self.optimisers if name not in self.learning_rates]
        if self.protocol == BETTER and without:
            raise ValueError(f"learning_rates has none for {', '.join(without)}")
        if self.halving and self.halving.first_seeds > len(self.seeds):
            raise ValueError("halving.first_seeds is more than there are seeds")
        unknown = [name for name in self.starts if name not in self.backbones]
        if unknown:
            raise ValueError(f"starts names {', '.join(unknown)}, which backbones does not")
        return self

    @property
    def used_seeds(self) -> tuple[int, ...]:
        """Return the seeds of a run that goes to the end."""
        return tuple(self.seeds[:1] if self.protocol == PUBLISHED else self.seeds)
