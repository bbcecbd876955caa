"""The registry: what the grid is made of, each with its key, its label and its place in every order.

A key is what paths, parameter files and rows use; the label is what tables and figures print. A new attack,
model, training, representation or data set is one file in its family and one entry here (lib/README.md).
Colours and markers follow from the place in the order (lib/figures.py), so an entry needs none. The paper's
own six attacks, six models and four representations are `lib.analysis.published`'s, whatever is added here.
"""

from collections.abc import Iterable

DATASETS = {
    "demo": "toy sounds",
    "esc10": "ESC-10",
    "esc50": "ESC-50",
    "urbansound8k": "UrbanSound8K",
}
REPRESENTATIONS = {
    "stft": "STFT",
    "dwt": "DWT",
    "stft_tonnetz": "STFT | Tonnetz",
    "dwt_tonnetz": "DWT | Tonnetz",
}
MODELS = {
    "googlenet": "GoogLeNet",
    "alexnet": "AlexNet",
    "resnet18": "ResNet-18",
    "resnet34": "ResNet-34",
    "resnet56": "ResNet-56",
    "vgg16": "VGG-16",
}
TRAININGS = {
    "standard": "standard",
    "adversarial": "adversarial (FGSM)",
    "fgsm_rs": "FGSM, random start",
    "pgd": "PGD",
    "trades": "TRADES",
    "random_signs": "random signs",
}
CONTROL_TRAINING = "random_signs"  # what the paper's defence is compared with, besides the original
USUAL_TRAININGS = ("standard", "adversarial")  # the paper's two, where TRAININGS names no other
FOLDS = {"urbansound8k": 10}  # official folds of a data set; five where nothing is said
# What `make` runs of a data set where the command line does not say.
SMALL = {"demo": {"models": ["alexnet", "resnet18"], "folds": ["1"]}}
ATTACKS = {
    "BIM-a": "BIM-a",
    "BIM-b": "BIM-b",
    "JSMA": "JSMA",
    "DeepFool": "DeepFool",
    "CWA": "CWA",
    "PIA": "PIA",
}
REFERENCE = {"DDN": "DDN (reference)"}  # a strong attack that takes part in the worst case
CONTROLS = {name: name for name in ("FGSM", "noise")}  # what the attacks are compared with
WORST = "worst case"  # the least norm of any attack

FAMILIES = (ATTACKS, REFERENCE, CONTROLS, {WORST: WORST}, MODELS, REPRESENTATIONS, TRAININGS, DATASETS)
_LABELS = {key: label for family in FAMILIES for key, label in family.items()}


def label(key: str) -> str:
    """How a key is printed in legends and tables: ``resnet56`` as ResNet-56; an unknown key as it is."""
    return _LABELS.get(key, str(key))


def in_order(keys: Iterable[str]) -> list[str]:
    """The keys once each, registered ones first and in the registry's order, others as they come."""
    order = list(_LABELS)
    keys = list(dict.fromkeys(keys))
    return sorted(keys, key=lambda key: order.index(key) if key in _LABELS else len(order))


def settings(attacks: Iterable[str]) -> tuple[str, ...]:
    """What the names of attacks' settings begin with: ``bim_`` of BIM-a."""
    return tuple(f"{name.lower().partition('-')[0]}_" for name in attacks)


def point(path: str) -> str:
    """``esc10/dwt/resnet18/1/standard`` in words for a title: ESC-10, DWT, ResNet-18, fold 1, standard."""
    words = path.split("/")
    return ", ".join(f"fold {word}" if i == 3 else label(word) for i, word in enumerate(words))
