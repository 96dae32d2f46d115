"""Labels of portraits from CSV files and file names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from faceveil.pipelines.core.errors import InputError
from faceveil.pipelines.training.labels import LABELS, balance, read_labels


def labels_of(*names: str, folder: Path = Path("nowhere")) -> list[dict[str, float]]:
    rows = read_labels([folder / name for name in names])
    return [dict(zip(LABELS, row, strict=True)) for row in rows]


def test_a_file_name_says_sex_and_group():
    (row,) = labels_of("12_female_black.webp")
    assert row["male"] == -1
    assert row["black"] == 1
    assert row["white"] == row["asian"] == row["latino"] == -1
    assert np.isnan(row["age"])


def test_an_unknown_person_has_no_labels():
    assert np.isnan(list(labels_of("holiday.jpg")[0].values())).all()


def test_a_table_says_what_its_source_knew(tmp_path):
    table = "file,sex,age,group,extra\n1.png,male,60,african,x\n2.png,,baby,\n3.png,female,old,asian\n"
    (tmp_path / "people.csv").write_text(table)
    (tmp_path / "other.csv").write_text("name,score\n1.png,3\n")
    first, second, third, fourth = labels_of("1.png", "2.png", "3.png", "4_male_white.png", folder=tmp_path)
    assert (first["male"], first["age"], first["black"]) == (1, 1, 1)
    assert np.isnan(second["male"])
    assert second["age"] < -1
    assert np.isnan(second["asian"])
    assert np.isnan(third["age"])
    assert third["asian"] == 1
    assert fourth["white"] == 1


def test_a_damaged_table_is_refused(tmp_path):
    (tmp_path / "people.csv").write_bytes(b"file,sex,age,group\n\xff\xfe,male,,\n")
    with pytest.raises(InputError, match=r"people\.csv cannot be read"):
        labels_of("1.png", folder=tmp_path)


def test_rare_groups_weigh_more():
    labels = np.full((100, len(LABELS)), np.nan)
    labels[:90, 0], labels[90:, 0] = 1, -1
    weights = balance(labels, 0.7)
    assert weights[-1] > 3 * weights[0]
    assert abs(weights.mean() - 1) < 1e-9
    assert np.allclose(balance(labels, 0.0), 1)
