"""Records that another server has predicted: the same functions, the same log, no model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from models.classes import without_label
from service.serving.functions import LiveFunctions
from service.serving.predictor import BatchReport, Laps
from service.serving.recording import Answer, Answerer, Logged, Recorder, Verdict


class Observer:
    """Finds the slices of what was predicted elsewhere.

    Parameters
    ----------
    model, classes
        What the model is called, and its classes in the order of the probabilities that come with records.
    label
        The column that is predicted; functions do not see it.
    live
        The functions; the attribute may be exchanged, and is read once for every batch.
    recorder
        Stamps predictions.
    report
        Told of every batch that was observed.
    """

    def __init__(
        self,
        model: str,
        classes: Sequence[str],
        label: str,
        live: LiveFunctions,
        recorder: Recorder,
        report: Callable[[BatchReport], object] = lambda report: None,
    ) -> None:
        self.live = live
        self._model, self._classes, self._label = model, tuple(classes), label
        self._recorder, self._report = recorder, report

    def observe(self, logged: Sequence[Logged]) -> list[Answer]:
        """Return N predictions with their slices, in order.

        Raises
        ------
        DataError
            If a record is not made of JSON values.
        """
        live, laps = self.live, Laps()
        records = without_label([each.record for each in logged], self._label)
        applied = live.apply(records)
        laps.end("functions")
        verdicts = [Verdict(each.version, each.label, each.probabilities) for each in logged]
        answerer = Answerer(self._model, self._classes, live.functions.hash)
        answers = self._recorder.answers(logged, verdicts, applied.matrix, answerer)
        laps.end("record")
        self._report(BatchReport(self._model, None, answers, laps.seconds, applied.runs))
        return answers
