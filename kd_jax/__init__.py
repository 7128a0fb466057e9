"""kd_jax: knowledge distillation for re-identification. In a notebook: `kd_jax.open_run(DIR)`."""

from typing import Any


def open_run(path: Any, checkpoint: str = 'last') -> Any:
    """Open a run directory: its config, network, variables, metrics, result, step and embed.

    `checkpoint`: the 'last' one or that of the 'best' mAP. Returns an `opened.Run`, raises
    RunError for a directory that is no run or has no checkpoint.
    """
    from kd_jax import opened  # imports JAX, which `import kd_jax` leaves to who needs it

    return opened.open_run(path, checkpoint)
