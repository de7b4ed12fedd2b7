"""The options of a run that no component has: data, training, optimizer, lists, mesh.

Each default, type, range and meaning stands here and nowhere else.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from hyperrec_jax.options import Count, NotNegative, Option, Positive, Range, options_of

NaturalNumber = Annotated[int, Range("[0, inf)")]


@dataclass(frozen=True)
class General:
    """The run as a whole.

    Attributes:
      preset: A named set of values; `hyperrec options preset` lists them.
      seed: Seed of the first parameters, the order of the rows, the preferences and the dropout.
    """

    preset: str = "default"
    seed: NaturalNumber = 0


@dataclass(frozen=True)
class Data:
    """Where the rows come from.

    Attributes:
      store: Folder that `hyperrec prepare` wrote.
      resident: Whether the training rows live in the device's memory, where the same batches are
        gathered: `auto`, on an accelerator where they take at most 40% of it and there is one
        process, never on a CPU, whose memory holds the mapped store anyway; `always`; `never`.
    """

    store: str = "data/synthetic"
    resident: Literal["auto", "always", "never"] = "auto"


@dataclass(frozen=True)
class Train:
    """How long and on what batches a model is trained.

    Attributes:
      batch_size: Rows of a global batch.
      epochs: Passes over the training rows.
      preferences: Preferences drawn for each batch; every row sees all of them. By default as many
        as goals, so that each row serves every goal; 8 where the objective is not linear in the
        losses, 1 where it compares gradients.
      preference_per_row: Whether each row has a preference of its own instead. The objective must
        be linear in the losses, since each row's loss then stands alone.
      select: What picks the epoch and stops the training: `hypervolume`, a metric or loss of a goal
        such as `auc/purchase` or `loss/purchase`, a measure of the lists such as `ndcg/purchase`
        where the data has groups, or a weighted sum such as `0.7*auc/click+0.3*auc/buy`. A run
        with a second stage takes `scalarised_ndcg` for `hypervolume`.
      patience: Evaluations without a better value of `select` after which training stops; 0 never
        stops early.
      grid: Preferences of the validation grid that selects the model.
      steps_per_dispatch: Steps compiled into one call.
      checkpoint_every: Steps between checkpoints; the end of an epoch always saves.
      prior_bias: Whether the first predictions are the base rates, not one half.
      init_from: Folder of another run whose selected model is the begin, on data with the same
        fields and goals; by default the begin is random.
      init_optimizer: Whether the optimizer goes on from that run's moments, too, and does not begin
        anew; those of new values are zero.
      unknown_share: Share of the ids of a batch that is taken for values never seen, so that the
        unknown id is trained, too; 0 for none.
      skip_nonfinite: Whether a step with a NaN or infinite loss is left out and counted; otherwise
        it ends the run.
      calibrate: Whether predictions are calibrated on the validation rows at the end, as a smooth
        function of the preference; lists are made of the model's own outputs.
      trackers: Where the run is shown: `tensorboard`, `mlflow`, `wandb`, any of them, or none.
    """

    batch_size: Count = 2048
    epochs: Count = 10
    preferences: Count | None = None
    preference_per_row: bool = False
    select: str = "hypervolume"
    patience: NaturalNumber = 2
    grid: Count = 5
    steps_per_dispatch: Count = 8
    checkpoint_every: Count = 500
    prior_bias: bool = True
    init_from: str | None = None
    init_optimizer: bool = False
    unknown_share: Annotated[float, Range("[0, 1)")] = 0.0
    skip_nonfinite: bool = False
    calibrate: bool = True
    trackers: tuple[str, ...] = ("tensorboard",)


@dataclass(frozen=True)
class Optimizer:
    """Adam and its learning rate.

    Attributes:
      learning_rate: Peak learning rate.
      l2: Coefficient of the L2 penalty, added to the gradient of every parameter as the
        `weight_decay` of `torch.optim.Adam` is.
      schedule: `constant`, or `cosine` from the peak to zero at the end of `train.epochs`.
      warmup_steps: Steps of linear warm-up from zero.
      lazy_rows: Fields with at least this many ids use lazy Adam, if they have more ids than a
        batch has rows; 0 for none.
    """

    learning_rate: Positive = 1e-3
    l2: NotNegative = 1e-6
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_steps: NaturalNumber = 0
    lazy_rows: NaturalNumber = 100_000


@dataclass(frozen=True)
class List:
    """A second stage of training, on whole lists, after that on single rows; see docs/lists.md.

    Attributes:
      loss: What trains the order of the lists; `none` for no second stage.
      score: What a list is ordered by. `expected_gain`: the weighted sum of the probabilities.
        `log_odds`: that of the log-odds, which of model `two_tower` is one product of two vectors
        and of others a score that is free of what probabilities add up to.
      epochs: Passes over the training lists; 0 for none, where the lists only select the model.
      batch_size: Rows of a batch of whole lists, padding included.
      learning_rate: Peak learning rate of the second stage.
      schedule: `constant`, or `cosine` from the peak to zero at the end of `list.epochs`.
      prediction_weight: Weight of the goals' own losses beside the list's; 0 trains the list alone,
        and predictions lose their calibration.
      average: Weight of the old mean, at each step, in the running mean of the parameters that is
        measured and kept; 0 for the last parameters themselves.
      cutoff: Number of ranks that count, in the loss and for the NDCG that selects the model.
      concentration: Concentration of the Dirichlet distribution that each list draws a preference
        from.
      scales: What counts as much of each goal in the score as one of another. By default the
        mean gain of a training row.
      variety_weight: Weight of what a list falls short of a goal of whole lists (kind `variety`),
        beside the loss of its order: trains the score of single rows to vary. 0 leaves variety to
        the order `marginal_gain`, which sees the whole list and needs no training.
      max_items: Longest list; of longer ones an epoch takes as many rows at random. By default the
        longest there is.
    """

    loss: Literal["none", "lambda_ndcg", "list_softmax", "approx_ndcg"] = "none"
    score: Literal["expected_gain", "log_odds"] = "expected_gain"
    epochs: NaturalNumber = 5
    batch_size: Count = 2048
    learning_rate: Positive = 4e-4
    schedule: Literal["constant", "cosine"] = "cosine"
    prediction_weight: NotNegative = 3.0
    average: Annotated[float, Range("[0, 1)")] = 0.995
    cutoff: Count = 10
    concentration: Positive = 0.3
    scales: Annotated[tuple[float, ...], Range("(0, inf)")] | None = None
    variety_weight: NotNegative = 0.0
    max_items: Count | None = None


@dataclass(frozen=True)
class Mesh:
    """How the devices share the work.

    Attributes:
      data: Devices over which the batch is split; -1 for all that `expert` leaves.
      expert: Devices over which the experts are split.
    """

    data: Annotated[int, Range("[-1, inf)")] = -1
    expert: Count = 1


SECTIONS = {"data": Data, "train": Train, "optimizer": Optimizer, "list": List, "mesh": Mesh}
"""The sections with a fixed set of options, by name."""

COMPONENTS = {
    "model": "the network",
    "objective": "losses and a preference into one number to minimise",
    "normaliser": "losses onto one scale",
    "sampler": "the preferences of training",
}
"""The sections that hold the name of a component and those of its options that differ."""


def section_options(section: str) -> dict[str, Option]:
    """The options of a section of `SECTIONS`; of the config itself for the empty name."""
    return options_of(SECTIONS[section] if section else General)


def known_keys() -> list[str]:
    """All dotted keys but the components' own options."""
    keys = list(section_options(""))
    keys += [f"{section}.{name}" for section in SECTIONS for name in section_options(section)]
    return keys + [f"{section}.name" for section in COMPONENTS]
