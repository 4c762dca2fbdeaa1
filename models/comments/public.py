"""Loaders for two public text data sets, without the columns and characters that leak the label."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from models.errors import DataError

YOUTUBE_FILES = (
    "Youtube01-Psy.csv",
    "Youtube02-KatyPerry.csv",
    "Youtube03-LMFAO.csv",
    "Youtube04-Eminem.csv",
    "Youtube05-Shakira.csv",
)
YOUTUBE_SOURCE = 'UCI data set 380, "YouTube Spam Collection" (doi:10.24432/C58885)'
SMS_FILE = "SMSSpamCollection"
SMS_SOURCE = 'UCI data set 228, "SMS Spam Collection" (doi:10.24432/C5CC84)'
_YOUTUBE_COLUMNS = {"AUTHOR", "CONTENT", "CLASS"}
_TUTORIAL_SEED = 123


@dataclass(frozen=True, slots=True)
class TutorialSplit:
    """The split of Snorkel's spam tutorials; integer labels (1 is spam), ``video`` 1 to 5.

    Train holds four videos; dev is 100 of its rows; valid and test divide the other video, the fifth in the tutorials,
    stratified by label.
    """

    train: pd.DataFrame
    dev: pd.DataFrame
    valid: pd.DataFrame
    test: pd.DataFrame


def load_youtube(folder: Path | str) -> pd.DataFrame:
    """Read the five files of the YouTube Spam Collection.

    The trailing U+FEFF of most texts is stripped and the date is dropped: both depend on the label.

    Returns
    -------
    DataFrame
        ``author``, ``text``, ``video`` (the artist of the video) and ``label`` (``spam`` or ``ham``), in
        file order.

    Raises
    ------
    DataError
        If a file is missing or malformed.
    """
    frames = _youtube_frames(Path(folder))
    artists = [Path(name).stem.split("-")[1] for name in YOUTUBE_FILES]
    whole = pd.concat([f.assign(video=artist) for f, artist in zip(frames, artists, strict=True)], ignore_index=True)
    return pd.DataFrame(
        {
            "author": whole["author"].map(_clean),
            "text": whole["text"].map(_clean),
            "video": whole["video"],
            "label": whole["label"].map({0: "ham", 1: "spam"}),
        }
    )


def youtube_tutorial_split(folder: Path | str, *, clean: bool = False, tested: int = 5) -> TutorialSplit:
    """Return the exact split of the published figures of Snorkel's slicing tutorial.

    Parameters
    ----------
    tested
        Video of the validation and test rows, 1 to 5; another than the fifth gives a split like the tutorial's.
    clean
        Strip the trailing U+FEFF as ``load_youtube`` does. The published figures keep it: a lone mark counts
        as a word, so that 92 test rows are short instead of 93.

    Raises
    ------
    DataError
        As for ``load_youtube``.
    """
    from sklearn.model_selection import train_test_split  # slow to import, and used only here

    shuffled = []
    for video, frame in enumerate(_youtube_frames(Path(folder)), start=1):
        rows = frame.assign(video=video)
        if clean:
            rows = rows.assign(author=rows["author"].map(_clean), text=rows["text"].map(_clean))
        shuffled.append(rows.sample(frac=1, random_state=_TUTORIAL_SEED).reset_index(drop=True))
    last = shuffled.pop(tested - 1)
    train = pd.concat(shuffled)
    valid, test = train_test_split(last, test_size=250, random_state=_TUTORIAL_SEED, stratify=last["label"])
    return TutorialSplit(train, train.sample(100, random_state=_TUTORIAL_SEED), valid, test)


def load_sms(path: Path | str) -> pd.DataFrame:
    """Read the SMS Spam Collection.

    Parameters
    ----------
    path
        The file ``SMSSpamCollection``, or the folder that holds it.

    Returns
    -------
    DataFrame
        ``text`` and ``label`` (``spam`` or ``ham``), in file order.

    Raises
    ------
    DataError
        If the file is missing or malformed.
    """
    path = Path(path)
    file = path / SMS_FILE if path.is_dir() else path
    if not file.is_file():
        raise DataError(f"{file} does not exist: get {SMS_FILE} from {SMS_SOURCE}")
    # Quotes are ordinary characters in messages: read as quoting, they swallow the rows in between.
    rows = _read(file, sep="\t", header=None, names=["label", "text"], quoting=csv.QUOTE_NONE)
    wrong = ~rows["label"].isin(["spam", "ham"])
    if wrong.any():
        first = int(wrong.to_numpy().argmax())
        raise DataError(
            f"{file}, line {first + 1}: the label is {rows['label'].iloc[first]!r}, not spam or ham: "
            f"get the file as published from {SMS_SOURCE}"
        )
    return rows[["text", "label"]]


def _youtube_frames(folder: Path) -> list[pd.DataFrame]:
    missing = [name for name in YOUTUBE_FILES if not (folder / name).is_file()]
    if missing:
        raise DataError(f"{folder} lacks {', '.join(missing)}: get the five files from {YOUTUBE_SOURCE}")
    frames = []
    for file in (folder / name for name in YOUTUBE_FILES):
        rows = _read(file)
        again = f"get the file as published from {YOUTUBE_SOURCE}"
        absent = sorted(_YOUTUBE_COLUMNS - set(rows.columns))
        if absent:
            raise DataError(f"{file} has no column {absent[0]}: {again}")
        wrong = rows["CLASS"][~rows["CLASS"].isin(["0", "1"])]
        if len(wrong):
            raise DataError(f"{file}: CLASS is {wrong.iloc[0]!r}, not 0 or 1: {again}")
        label = rows["CLASS"].astype("int64")
        frames.append(pd.DataFrame({"author": rows["AUTHOR"], "text": rows["CONTENT"], "label": label}))
    return frames


def _read(file: Path, **options: Any) -> pd.DataFrame:
    try:
        # All text, nothing missing: a comment that reads "NA" or "null" is a comment.
        rows: pd.DataFrame = pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8", **options)
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 (byte {error.start}): get the file as published") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(f"{file} cannot be read as a table: {error}: get the file as published") from error
    return rows


def _clean(text: str) -> str:
    return text.rstrip("\ufeff \t\r\n").strip()
