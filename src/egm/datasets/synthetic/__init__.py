"""SynthRef: a synthetic world of referring expressions, with a proof and a rationale for each."""

from egm.datasets.synthetic.rationale import STYLES, Style
from egm.datasets.synthetic.splits import SPLITS, TRAINING, VERSION, SplitSpec, SynthRef, Traced, corpus

__all__ = ["SPLITS", "STYLES", "TRAINING", "VERSION", "SplitSpec", "Style", "SynthRef", "Traced", "corpus"]
