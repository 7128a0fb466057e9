"""Which checkpoints of a run are kept: the last two that were due, the last of all, the best."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from orbax.checkpoint.checkpoint_managers import preservation_policy

LATEST = 2  # the one before is used where the last is damaged


class Schedule(NamedTuple):
    """Preserves the last two steps that are `regular`, and the last of all, as it was stopped at.

    So a run that was stopped in between ends with the checkpoints of one that was not.
    """

    regular: Callable[[int], bool]

    def should_preserve(self, checkpoints: Sequence, *, context: Any) -> list[bool]:
        """As orbax asks its preservation policies."""
        steps = [one.step for one in checkpoints]
        last = [step for step in steps if self.regular(step)][-LATEST:]
        return [step in last or step == steps[-1] for step in steps]


def policy(regular: Callable[[int], bool]) -> Any:
    """What orbax asks which steps to keep, of which some are `regular`."""
    best = preservation_policy.BestN(
        get_metric_fn=accuracy, n=1, keep_checkpoints_without_metrics=False
    )
    return preservation_policy.AnyPreservationPolicy([Schedule(regular), best])


def accuracy(metrics: dict[str, float]) -> float:
    """What a checkpoint is the best by."""
    return metrics['mAP']
