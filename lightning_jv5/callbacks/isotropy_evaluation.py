"""Watch how evenly embeddings fill their space, which scores do not tell until it is too late."""

from collections.abc import Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from lightning.pytorch import LightningModule, Trainer

from lightning_jv5.callbacks.report import log_figure
from lightning_jv5.callbacks.view_evaluation import ViewEvaluation, log_score
from lightning_jv5.metrics.isotropy import BALANCED, EmbeddingSums, Isotropy
from lightning_jv5.tasks import EmbeddedTexts, Evaluation, TaskPart, View

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MEASURES = ("mean_cosine", "effective_rank", "balanced_bits")


class IsotropyEvaluation(ViewEvaluation):
    """Log how evenly the texts of each task fill the space: exactly, over all pairs, from sums of one pass.

    As ``val/<task>/isotropy/mean_cosine`` (over all pairs of different texts; 0 is even), ``.../effective_rank`` (of
    the covariance; the number of coordinates is even) and ``.../balanced_bits`` (share of coordinates of which 40% to
    60% of the signs are positive; 1 is even): see :mod:`lightning_jv5.metrics.isotropy`. A task of several parts also
    logs them by role, as ``val/<task>/isotropy/document/mean_cosine``. ``val/isotropy/<task>`` draws the eigenvalues
    of the covariance and the coordinates' shares of positive signs. What has fewer than two texts is left out.

    The sums are in float64 on the CPU, and take ``8 * dim**2`` bytes for each part of a task.

    >>> IsotropyEvaluation().views()
    [View(dim=None, precision='float')]
    """

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str], EmbeddingSums] = {}

    def views(self) -> list[View]:
        """Return the whole embedding."""
        return [View()]

    def _begin(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._sums = {}
        super()._begin(trainer, pl_module)

    def see(self, trainer: Trainer, evaluation: Evaluation, embedded: EmbeddedTexts) -> None:
        """Add the embeddings of a batch; what every rank encodes is added on the first alone."""
        part = _part(evaluation, embedded)
        key = (embedded.task, embedded.role)
        if key not in self._sums:
            self._sums[key] = EmbeddingSums(embedded.embeddings.shape[1], len(part.texts))
        own = len(embedded.rows) if part.sharded or trainer.is_global_zero else 0
        self._sums[key].update(embedded.embeddings[:own], embedded.rows[:own])

    def finish(self, trainer: Trainer, pl_module: LightningModule, prefix: str, evaluation: Evaluation) -> None:
        """Log and draw each task."""
        for name, task in evaluation.tasks.items():
            counts = {part.role: len(part.texts) for part in task.parts()}
            roles = {role: self._sums[name, role] for role in counts if (name, role) in self._sums}
            sums = {"": _added(roles)} | (roles if len(roles) > 1 else {})
            counts[""] = sum(counts.values())
            found = {role: _merged(trainer, pl_module, of) for role, of in sums.items() if counts[role] > 1}
            for role, values in found.items():
                for measure in _MEASURES:
                    key = "/".join(filter(None, (prefix, name, "isotropy", role, measure)))
                    log_score(pl_module, key, getattr(values, measure))
            if trainer.is_global_zero and found:
                named = {role or "all texts": values for role, values in found.items()}
                figure = draw_isotropy(named, title=f"{name}, step {trainer.global_step}")
                data = {"step": trainer.global_step, "parts": {part: _plain(of) for part, of in named.items()}}
                log_figure(trainer, f"{prefix}/isotropy/{name}", figure, data)
        self._sums = {}


def draw_isotropy(parts: Mapping[str, Isotropy], *, title: str) -> "Figure":
    """Draw the spectrum of the covariance, and how the coordinates' shares of positive signs are spread.

    Args:
        parts: What was found, by what the legend says.
        title: Title of the whole.

    Returns:
        A figure that belongs to no pyplot state.

    >>> import torch
    >>> sums = EmbeddingSums(4, text_count=4)
    >>> sums.update(torch.eye(4), torch.arange(4))
    >>> figure = draw_isotropy({"document": sums.compute()}, title="small")
    >>> [axes.get_yscale() for axes in figure.axes]
    ['log', 'linear']
    """
    import numpy as np
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(10.4, 4.2), layout="constrained")
    figure.suptitle(title)
    left, right = figure.subplots(1, 2)
    for position, (name, found) in enumerate(parts.items()):
        spectrum = found.spectrum[found.spectrum > 0].numpy()
        places = np.arange(1, len(spectrum) + 1)
        label = f"{name}: effective rank {found.effective_rank:.1f}, mean cosine {found.mean_cosine:.3f}"
        left.plot(places, spectrum, color=f"C{position}", label=label)
        label = f"{name}: {found.balanced_bits:.0%} balanced"
        right.hist(
            found.ones.numpy(),
            bins=np.linspace(0, 1, 21).tolist(),
            histtype="step",
            linewidth=1.5,
            color=f"C{position}",
            label=label,
        )
    left.set_yscale("log")
    left.set_xlabel("direction, the strongest first")
    left.set_ylabel("eigenvalue of the covariance")
    right.axvspan(*BALANCED, color="0.9", zorder=0)
    right.set_xlim(0, 1)
    right.set_xlabel("share of positive signs")
    right.set_ylabel("coordinates")
    right.yaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.16), frameon=False)
    return figure


def _part(evaluation: Evaluation, embedded: EmbeddedTexts) -> TaskPart:
    return next(part for part in evaluation.tasks[embedded.task].parts() if part.role == embedded.role)


def _added(sums: Mapping[str, EmbeddingSums]) -> EmbeddingSums:
    """Add the sums of all roles."""
    first, *others = sums.values()
    added = deepcopy(first)
    for other in others:
        added.merge_state(other)
    return added


def _merged(trainer: Trainer, pl_module: LightningModule, sums: EmbeddingSums) -> Isotropy:
    """Compute over all ranks; every rank calls it."""
    if trainer.world_size > 1:
        sums.to(pl_module.device)  # ranks on GPUs have no way to exchange what is on the CPU
    values = sums.compute()
    assert isinstance(values, Isotropy)
    return values


def _plain(found: Isotropy) -> dict[str, Any]:
    return found._asdict() | {"spectrum": found.spectrum.tolist(), "ones": found.ones.tolist()}
