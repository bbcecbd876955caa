"""The numbers that the paper reports: Tables I, II and III as a tidy frame, and nothing computed.

``published.csv`` was read off the paper's tables: columns dataset, representation, model, measure,
reported. The measures are those of `MEASURES`; all are for ESC-50 and UrbanSound8K, four representations
and six models.
"""

from pathlib import Path

import pandas as pd

SOURCE = Path(__file__).with_suffix(".csv")

MEASURES = {
    "accuracy_percent": "Table I, recognition accuracy [%]",
    "accuracy_drop_percent": "Table I, drop after adversarial training [percentage points]",
    "fooling_auc_percent": "Table II, fooling of the robust model at ‖ε‖₂ ≤ 3, average over attacks [%]",
    "epsilon_ratio": "Table III, ε_r, mean perturbation of the robust over the original model",
}
DATASETS = ("esc50", "urbansound8k")
REPRESENTATIONS = ("stft", "dwt", "stft_tonnetz", "dwt_tonnetz")
MODELS = ("googlenet", "alexnet", "resnet18", "resnet34", "resnet56", "vgg16")
ATTACKS = ("BIM-a", "BIM-b", "JSMA", "DeepFool", "CWA", "PIA")  # that its averages are over
DEFENCE = "adversarial"  # FGSM, section V
BUDGET = 3.0  # ‖ε‖₂ of Table II, at 1568 × 768
PARAMETERS_ABOVE = {"vgg16": 11.3, "resnet34": 14.26}  # %, ResNet-56 over these, as section VIII has it


def tables() -> pd.DataFrame:
    """All reported numbers: dataset, representation, model, measure, reported."""
    return pd.read_csv(SOURCE)


def table(measure: str, dataset: str) -> pd.DataFrame:
    """One measure of one data set, representation × model, in the paper's order; empty for other data sets.

    Raises
    ------
    ValueError : for a measure that the paper does not report.
    """
    if measure not in MEASURES:
        raise ValueError(f"measure {measure!r} is none of {', '.join(MEASURES)}")
    rows = tables().query("measure == @measure and dataset == @dataset")
    frame = rows.pivot(index="representation", columns="model", values="reported")
    return frame.reindex(index=rows["representation"].unique(), columns=rows["model"].unique())
