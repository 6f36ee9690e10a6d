"""Watching a run of fine-tuning: what is measured of it, and when, above all at equal loss."""

import pandas as pd

from .measuring import measure_answers


class Observer:
    """Callback of `finetune`: log-odds at every checkpoint, and `measure` when that is due.

    What is measured is a `copy` in the number format in which models are kept and evaluated, with
    an `adapter` (of ``peft``) merged into it (under the autocast of training, in which it learned),
    or put into it too where it cannot be merged. Runs are compared at the first checkpoint whose
    probe loss is at most the `target`; without a target the run sets it, at its end.

    A subclass has `context`, `judge_model` and ``measure(row, whole, final)``, which returns facts
    and tables by name; `whole`: all measures are wanted, at the start and where runs are compared;
    `final`: just there. Facts are kept in `values` as ``POINT: FACT``.
    """

    def __init__(self, copy, watched: list[str], *, epochs: int, target: float | None,
                 points: dict[str, float], stops: bool, adapter=None):
        if adapter is not None:
            from ...alternatives import inject, is_merged

            if not is_merged(adapter):
                inject(copy.model, adapter)
        self.copy = copy
        self.watched = watched          # prompts of which the log-odds are taken
        self.epochs = epochs
        self.target = target
        self.points = points            # name -> epoch at which it is measured anyway
        self.stops = stops              # end the run at equal loss, once the points are behind it
        self.values = {"reached": False}
        self.parts: dict[str, list[pd.DataFrame]] = {}
        self.texts: dict[str, str] = {}

    def __call__(self, chat, row: dict) -> bool:
        """Measure what is due at this checkpoint, add to its `row`; whether the run ends here."""
        import torch

        from ...alternatives import merged_state
        from ...evaluation import refusal_log_odds

        due = self.due(row)
        # where the loss was never reached, runs are compared at their end
        final = not self.values["reached"] and ("equal loss" in due or "end" in due)
        self.copy.model.load_state_dict(merged_state(chat.model))
        with torch.autocast(chat.model.device.type, enabled=False):
            row["log_odds"] = float(refusal_log_odds(self.copy, self.watched).mean())
            if due:
                facts, tables = self.measure(row, final or "start" in due, final)
                self.note(due, row, facts, tables)
        if "equal loss" in due:
            self.values["reached"] = True
        points_are_past = row["epoch"] >= max(self.points.values(), default=0)
        return self.stops and self.values["reached"] and points_are_past

    def due(self, row: dict) -> list[str]:
        """The names of the points at which this checkpoint is measured."""
        ended = row["epoch"] >= self.epochs
        at_target = ended if self.target is None else row["probe_loss"] <= self.target
        is_due = {
            "start": self.target is None and row["step"] == 0,
            **{name: row["epoch"] == epoch for name, epoch in self.points.items()},
            "equal loss": at_target and not self.values["reached"],
            "end": ended}
        return [name for name, wanted in is_due.items() if wanted]

    def note(self, points: list[str], row: dict, facts: dict, tables: dict) -> None:
        """Keep what was measured, once for every point that it stands for."""
        facts = {"epoch": row["epoch"], "probe_loss": row["probe_loss"], **facts}
        for point in points:
            for name, value in facts.items():
                self.values[f"{point}: {name}"] = value
            for kind, table in tables.items():
                self.parts.setdefault(kind, []).append(table.assign(at=point))

    def tables(self) -> dict[str, pd.DataFrame]:
        """All tables so far, with a column ``at``: the points at which they were taken."""
        return {kind: pd.concat(parts, ignore_index=True) for kind, parts in self.parts.items()}

    def answered(self, requests: pd.DataFrame, systems) -> pd.DataFrame:
        """The copy's answers with their labels (`measure_answers`); their texts are collected."""
        table, texts = measure_answers(self.context, self.copy, self.judge_model, requests, systems)
        self.texts |= texts
        return table
