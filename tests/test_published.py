"""The paper's tables, held to cells read off its pages and to its own bold faces."""

import pandas as pd
import pytest

from lib import names
from lib.analysis import published


def test_every_cell_of_three_tables_is_there_once():
    frame = published.tables()
    assert len(frame) == 2 * 4 * 6 * len(published.MEASURES)
    assert not frame.duplicated(["dataset", "representation", "model", "measure"]).any()
    assert frame["reported"].notna().all()
    assert set(frame["measure"]) == set(published.MEASURES)
    assert set(frame["dataset"]) == set(published.DATASETS)


@pytest.mark.parametrize("dataset", published.DATASETS)
def test_names_and_order_are_those_of_the_study(dataset):
    frame = published.table("accuracy_percent", dataset)
    assert list(frame.columns) == list(published.MODELS)
    assert list(frame.index) == list(published.REPRESENTATIONS)


def test_what_the_paper_has_is_registered():
    assert set(published.ATTACKS) <= set(names.ATTACKS)
    assert set(published.MODELS) <= set(names.MODELS)
    assert set(published.REPRESENTATIONS) <= set(names.REPRESENTATIONS)
    assert set(published.DATASETS) <= set(names.DATASETS)
    assert published.DEFENCE in names.TRAININGS


@pytest.mark.parametrize(
    ("measure", "dataset", "representation", "model", "value"),
    [
        ("accuracy_percent", "esc50", "dwt_tonnetz", "resnet56", 71.79),
        ("accuracy_percent", "urbansound8k", "stft_tonnetz", "vgg16", 89.42),
        ("accuracy_drop_percent", "urbansound8k", "dwt_tonnetz", "resnet18", 29.12),
        ("fooling_auc_percent", "esc50", "dwt_tonnetz", "alexnet", 49.33),
        ("epsilon_ratio", "urbansound8k", "dwt", "resnet56", 2.892),
    ],
)
def test_cells_read_off_the_page(measure, dataset, representation, model, value):
    assert published.table(measure, dataset).loc[representation, model] == value


def test_the_papers_bold_faces_follow_from_its_numbers():
    """ResNet-56 leads 7 of 8 rows of Table I; AlexNet has the lowest fooling rate in all 8 of Table II."""
    leads = pd.concat([published.table("accuracy_percent", d).idxmax(axis=1) for d in published.DATASETS])
    assert (leads == "resnet56").sum() == 7
    least = pd.concat([published.table("fooling_auc_percent", d).idxmin(axis=1) for d in published.DATASETS])
    assert (least == "alexnet").all()


def test_other_data_sets_have_no_reported_numbers_and_other_measures_are_refused():
    assert published.table("epsilon_ratio", "esc10").empty
    with pytest.raises(ValueError, match="'speed' is none of accuracy_percent"):
        published.table("speed", "esc50")
