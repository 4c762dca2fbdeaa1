"""The report of a training as a person reads it."""


def report_text(report):
    return str(report)
