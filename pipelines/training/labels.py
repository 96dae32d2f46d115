"""What is known of the people of a folder of portraits: apparent sex, age and group, from a CSV file or the file names.

A CSV file in the folder has the columns ``file``, ``sex``, ``age`` and ``group``; every cell may be empty. A file name
such as ``12_female_black.webp`` says sex and group. Unknown labels are NaN.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..core.errors import InputError

LABELS = ("male", "age", "white", "black", "asian", "latino")
"""Columns of the labels. Sex and groups are 1 or -1; the age is standardized."""
GROUPS = LABELS[2:]
MEAN_AGE, AGE_DEVIATION = 35.0, 25.0
"""An age in years is stored as ``(age - MEAN_AGE) / AGE_DEVIATION``."""
_AGES = {
    "baby": 1.0,
    "toddler": 2.5,
    "child": 8.0,
    "teenager": 16.0,
    "adult": 35.0,
    "middle-aged": 50.0,
    "senior": 70.0,
}
_GROUPS = {
    "african": "black",
    "caucasian": "white",
    "irish": "white",
    "scandinavian": "white",
    "south-american": "latino",
    "native american": "latino",
}
"""Words that mean one of ``GROUPS``."""
_NAME = re.compile(r"_(male|female)_(white|black|asian|latino)", re.IGNORECASE)
_COLUMNS = {"file", "sex", "age", "group"}


def read_labels(paths: Sequence[Path]) -> np.ndarray:
    """Labels ``(N, 6)`` of portraits, NaN where unknown.

    Raises:
        InputError: a CSV file beside a portrait cannot be read.
    """
    tables = {folder: _read_tables(folder) for folder in {path.parent for path in paths}}
    rows = []
    for path in paths:
        match = _NAME.search(path.stem)
        named = {"sex": match.group(1), "group": match.group(2)} if match else {}
        rows.append(_row(tables[path.parent].get(path.name, named)))
    return np.array(rows).reshape(-1, len(LABELS))


def _read_tables(folder: Path) -> dict[str, dict[str, str]]:
    """Rows of the folder's CSV files with the right columns, by file name."""
    rows: dict[str, dict[str, str]] = {}
    for path in sorted(folder.glob("*.csv")):
        try:
            with path.open(newline="", encoding="utf-8") as stream:
                table = csv.DictReader(stream)
                if set(table.fieldnames or ()) >= _COLUMNS:
                    rows |= {row["file"]: {key: row[key] or "" for key in _COLUMNS} for row in table}
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"{path} cannot be read ({error}); correct or remove it") from None
    return rows


def _row(known: dict[str, str]) -> list[float]:
    sex = {"male": 1.0, "female": -1.0}.get(known.get("sex", "").strip().lower(), np.nan)
    age = (_age(known.get("age", "").strip().lower()) - MEAN_AGE) / AGE_DEVIATION
    word = known.get("group", "").strip().lower()
    group = _GROUPS.get(word, word)
    return [sex, age, *((1.0 if group == g else -1.0) if word else np.nan for g in GROUPS)]


def _age(word: str) -> float:
    """Age in years from a number or a word; NaN for anything else."""
    if word in _AGES:
        return _AGES[word]
    try:
        return float(word)
    except ValueError:
        return np.nan


def balance(labels: np.ndarray, exponent: float) -> np.ndarray:
    """Weights ``(N,)`` with mean 1: the size of each portrait's group to the power of ``-exponent``.

    A group are all portraits of the same sex and group. 0 weights all portraits equally, 1 all groups.
    """
    known = np.nan_to_num(np.delete(labels, LABELS.index("age"), axis=1))
    _, group, count = np.unique(known, axis=0, return_inverse=True, return_counts=True)
    weights = count[group.ravel()].astype(float) ** -exponent
    return weights / weights.mean()
