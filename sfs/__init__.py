"""Slices of rows: slicing functions, declarative templates, and their application to rows."""

from sfs.analysis import LFAnalysis
from sfs.appliers import LFApplier, PandasLFApplier, PandasSFApplier, SFApplier, slice_dataframe
from sfs.apply import apply
from sfs.function import LabelingFunction, SlicingFunction, labeling_function, slicing_function
from sfs.matrix import SliceMatrix
from sfs.nlp import (
    NLPLabelingFunction,
    NLPSlicingFunction,
    SpacyPreprocessor,
    nlp_labeling_function,
    nlp_slicing_function,
)
from sfs.preprocess import Preprocessor, preprocessor
from sfs.registry import FunctionSet
from sfs.template import template
from sfs.vote_slices import conflict_slice, overlap_slice

__all__ = [
    "FunctionSet",
    "LFAnalysis",
    "LFApplier",
    "LabelingFunction",
    "NLPLabelingFunction",
    "NLPSlicingFunction",
    "PandasLFApplier",
    "PandasSFApplier",
    "Preprocessor",
    "SFApplier",
    "SliceMatrix",
    "SlicingFunction",
    "SpacyPreprocessor",
    "apply",
    "conflict_slice",
    "labeling_function",
    "nlp_labeling_function",
    "nlp_slicing_function",
    "overlap_slice",
    "preprocessor",
    "slice_dataframe",
    "slicing_function",
    "template",
]
