"""The public collections are read without the marks that leak the label; anything else is refused."""

import csv
from pathlib import Path

import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from models.comments.public import YOUTUBE_FILES, load_sms, load_youtube, youtube_tutorial_split
from models.errors import DataError

HEADER = ["COMMENT_ID", "AUTHOR", "DATE", "CONTENT", "CLASS"]


def write_youtube(folder: Path, rows: list[list[str]], header: list[str] = HEADER) -> Path:
    """Five files of the collection's form, each with the same rows."""
    for name in YOUTUBE_FILES:
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([header, *rows])
    return folder


def test_marks_that_leak_the_label_are_stripped(tmp_path: Path) -> None:
    """The trailing U+FEFF goes from texts and authors, the date goes altogether, and "NA" stays a comment."""
    rows = [["1", "Ana \ufeff", "2014", "so good \ufeff", "0"], ["2", "Bo", "", "NA", "1"]]
    frame = load_youtube(write_youtube(tmp_path, rows))
    assert list(frame.columns) == ["author", "text", "video", "label"]
    assert frame.iloc[:2].to_numpy().tolist() == [
        ["Ana", "so good", "Psy", "ham"],
        ["Bo", "NA", "Psy", "spam"],
    ]
    assert frame["video"].unique().tolist() == ["Psy", "KatyPerry", "LMFAO", "Eminem", "Shakira"]


def test_missing_files_are_named_with_where_to_get_them(tmp_path: Path) -> None:
    """The message names each missing file and the data set."""
    write_youtube(tmp_path, [["1", "a", "", "b", "0"]])
    (tmp_path / YOUTUBE_FILES[2]).unlink()
    with pytest.raises(DataError, match=r"lacks Youtube03-LMFAO.csv: .*UCI data set 380"):
        load_youtube(tmp_path)
    with pytest.raises(DataError, match="UCI data set 228"):
        load_sms(tmp_path)


def test_files_of_another_form_are_refused(tmp_path: Path) -> None:
    """A renamed column, a strange class, broken bytes, and an empty file each give one clear message."""
    row = ["1", "a", "", "b", "0"]
    with pytest.raises(DataError, match="no column CLASS"):
        load_youtube(write_youtube(tmp_path, [row], [*HEADER[:4], "label"]))
    with pytest.raises(DataError, match="CLASS is 'spam'"):
        load_youtube(write_youtube(tmp_path, [[*row[:4], "spam"]]))
    write_youtube(tmp_path, [row])
    (tmp_path / YOUTUBE_FILES[0]).write_bytes(b"COMMENT_ID,AUTHOR,DATE,CONTENT,CLASS\n1,a,,\xff\xfe,0\n")
    with pytest.raises(DataError, match="is not UTF-8"):
        load_youtube(tmp_path)
    (tmp_path / YOUTUBE_FILES[0]).write_text("")
    with pytest.raises(DataError, match="cannot be read as a table"):
        load_youtube(tmp_path)


def test_quotes_in_messages_are_ordinary_characters(tmp_path: Path) -> None:
    """A message that opens a quote and never closes it swallows no other."""
    file = tmp_path / "SMSSpamCollection"
    file.write_text('ham\t"so he said\nspam\twin "now"\nham\tnull\n', encoding="utf-8")
    rows = load_sms(tmp_path)
    assert rows.to_numpy().tolist() == [['"so he said', "ham"], ['win "now"', "spam"], ["null", "ham"]]
    assert load_sms(file).equals(rows)


def test_an_unlabelled_message_is_named_by_its_line(tmp_path: Path) -> None:
    """A line that starts with neither label is an error, not a third class."""
    file = tmp_path / "messages"
    file.write_text("ham\thello\nmaybe\tbye\n", encoding="utf-8")
    with pytest.raises(DataError, match="line 2: the label is 'maybe'"):
        load_sms(file)


@pytest.mark.data
def test_the_collections_have_their_published_sizes(data_dir: Path) -> None:
    """1,956 comments of which 1,005 are spam; 5,574 messages of which 747 are."""
    youtube, sms = load_youtube(data_dir / "youtube-spam"), load_sms(data_dir / "sms-spam")
    assert (len(youtube), (youtube["label"] == "spam").sum()) == (1_956, 1_005)
    assert (len(sms), (sms["label"] == "spam").sum()) == (5_574, 747)
    assert not youtube["text"].str.contains("\ufeff").any()
    assert youtube.groupby("video", sort=False).size().tolist() == [350, 350, 438, 448, 370]


@pytest.mark.data
def test_the_tutorial_split_is_the_published_one(data_dir: Path) -> None:
    """Sizes and spam counts of all parts, and 92 short test comments (93 without the marks)."""
    folder = data_dir / "youtube-spam"
    split = youtube_tutorial_split(folder)
    parts = (split.train, split.dev, split.valid, split.test)
    assert [len(part) for part in parts] == [1_586, 100, 120, 250]
    assert [int(part["label"].sum()) for part in parts] == [831, 54, 56, 118]
    assert list(split.test.columns) == ["author", "text", "label", "video"]
    assert (split.test["text"].str.split().str.len() < 5).sum() == 92
    cleaned = youtube_tutorial_split(folder, clean=True).test
    assert (cleaned["text"].str.split().str.len() < 5).sum() == 93
    assert (cleaned["label"].to_numpy() == split.test["label"].to_numpy()).all()


@pytest.mark.data
def test_the_tutorial_model_scores_as_published(data_dir: Path) -> None:
    """Counts of words and the tutorial's logistic regression give its F1 of 0.925 on the 250 test rows."""
    split = youtube_tutorial_split(data_dir / "youtube-spam")
    counts = CountVectorizer().fit(split.train["text"])
    model = LogisticRegression(C=0.001, solver="liblinear")
    model.fit(counts.transform(split.train["text"]), split.train["label"])
    predicted = model.predict(counts.transform(split.test["text"]))
    assert len(counts.vocabulary_) == 3_916
    assert f1_score(split.test["label"], predicted) == pytest.approx(0.925, abs=1e-9)
