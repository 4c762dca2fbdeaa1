"""The search of the slice residual learner: a form, then weights, each by the score on validation rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from models.candidates import Candidate, Plan, Task
from models.slice_gate import MAX_UNGATED, kept_slices
from models.slice_residual import MODES, SliceResidualClassifier
from models.weights import WEIGHTINGS

Train = Callable[[Plan], Candidate]


def best(candidates: Sequence[Candidate]) -> Candidate:
    """Return the candidate of the highest score; of equals the first."""
    return max(candidates, key=lambda candidate: candidate.score.value)


def plain_candidates(task: Task, train: Train) -> list[Candidate]:
    """Train ERM, then weighted ERM in each weighting that tells rows apart."""
    equal = Plan("erm", task.train.S.names)
    return [train(equal), *_weighted(task, equal, train)]


def slice_candidates(task: Task, train: Train) -> list[Candidate]:
    """Train the three modes, gated too where slices are many, then the best of them in every weighting."""
    names = task.train.S.names
    found = [train(Plan(mode, names)) for mode in MODES]
    if len(names) > MAX_UNGATED:
        found += [train(plan) for plan in _gated_plans(task, found)]
    return [*found, *_weighted(task, best(found).plan, train)]


def expected_trainings(n_slices: int) -> int:
    """Return how many trainings a search takes at most."""
    plain = len(WEIGHTINGS) if n_slices else 1
    slices = (len(MODES) * (2 if n_slices > MAX_UNGATED else 1) + len(WEIGHTINGS) - 1) if n_slices else 0
    return plain + slices


def _gated_plans(task: Task, pilots: Sequence[Candidate]) -> Iterator[Plan]:
    """Yield each pilot's plan with the slices that earn a place; ``emb`` has no gates and takes blend's."""
    gates: dict[str, tuple[str, ...]] = {}
    for pilot in pilots:
        if pilot.plan.form != "emb" and isinstance(pilot.model, SliceResidualClassifier):
            gates[pilot.plan.form] = kept_slices(pilot.model, task.valid)
    for pilot in pilots:
        kept = gates[pilot.plan.form if pilot.plan.form in gates else "blend"]
        if kept != pilot.plan.slices:
            yield replace(pilot.plan, slices=kept, gated=True)


def _weighted(task: Task, plan: Plan, train: Train) -> list[Candidate]:
    plans = [replace(plan, weighting=weighting) for weighting in WEIGHTINGS[1:]]
    return [train(weighted) for weighted in plans if task.weighs_rows(weighted)]
