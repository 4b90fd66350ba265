"""A table of photos: which column means what, which rows are which split, and what is wrong with a line."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.photo_files import write
from tests.support.runs import Said
from training.data.dataset import Dataset, name_of
from training.data.folder_names import Role
from training.errors import TrainingError
from training.recipes.builtin import builtin

RECIPE = builtin("table").replace(held_out=0.25)
Load = Callable[..., Dataset]


@pytest.fixture
def load(load_files: Load) -> Load:
    def load(
        data: Path, *, kind: str = "table", strict: bool = False, measure: Role = "val", **source: object
    ) -> Dataset:
        return load_files(RECIPE.replace(source={"kind": kind, **source}), data, strict=strict, measure=measure)

    return load


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    """A folder with 12 photos, and no table."""
    folder = tmp_path / "birds"
    for i in range(12):
        write(folder / "images" / f"{i}.jpg", seed=i)
    return folder


def table(folder: Path, *lines: str, name: str = "labels.csv", encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path


def rows(count: int = 12, *, separator: str = ",", splits: str = "") -> list[str]:
    """Every third photo is of an owl; `splits` has a letter for each row."""
    words = {"t": "train", "v": "Validation", "e": "TEST"}
    return [
        separator.join([f"images/{i}.jpg", "owl" if i % 3 == 0 else "wren", *([words[splits[i]]] if splits else [])])
        for i in range(count)
    ]


def files_of(dataset: Dataset, folder: Path) -> dict[str, set[str]]:
    parts = {"train": dataset.train, "held_out": dataset.held_out, "test": dataset.test}
    return {
        part: {split.pictures[row].relative_to(folder).as_posix() for row in split.rows}  # type: ignore[attr-defined]
        for part, split in parts.items()
    }


@pytest.mark.parametrize(
    ("name", "header", "separator", "encoding"),
    [
        ("labels.csv", "path,label", ",", "utf-8"),
        ("labels.csv", "File Name;Class", ";", "utf-8-sig"),
        ("labels.tsv", "image\tspecies", "\t", "utf-8"),
        ("train.csv", '"filename","category"', ",", "utf-8"),
    ],
)
def test_the_usual_names_separators_and_encodings_are_known(
    load: Load, birds: Path, name: str, header: str, separator: str, encoding: str
) -> None:
    path = table(birds, header, *rows(separator=separator), name=name, encoding=encoding)
    dataset = load(path)
    assert dataset.labels == ("owl", "wren")
    assert dataset.name == "birds"
    names = files_of(dataset, birds)
    assert set.union(*names.values()) == {f"images/{i}.jpg" for i in range(12)}
    assert sum(map(len, names.values())) == 12


def test_a_column_may_be_named_and_others_do_not_matter(load: Load, birds: Path) -> None:
    lines = [f"x{i},{line},{'ab'[i % 2]}" for i, line in enumerate(rows())]
    path = table(birds, "id,where,what,photographer", *lines)
    assert load(path, path="where", label="what").labels == ("owl", "wren")
    assert load(path, path="where", label="photographer").labels == ("a", "b")


def test_labels_that_are_numbers_are_in_the_order_of_numbers(load: Load, birds: Path) -> None:
    lines = [f"images/{i}.jpg,{[10, 9, 100][i % 3]}" for i in range(12)]
    assert load(table(birds, "path,label", *lines)).labels == ("9", "10", "100")


def test_splits_are_known_in_the_usual_spellings_and_test_is_left_out(load: Load, birds: Path, said: Said) -> None:
    path = table(birds, "path,label,split", *rows(splits="ttttttvvvvee"))
    names = files_of(load(path), birds)
    assert names["test"] == {f"images/{i}.jpg" for i in range(6, 10)}
    assert names["train"] | names["held_out"] == {f"images/{i}.jpg" for i in range(6)}
    measure = f"python -m training evaluate CHECKPOINT --data {path} --test"
    assert f"left out: the split test of labels.csv (2 rows); to measure it: {measure}" in str(said).replace("\n", "")
    assert files_of(load(path, measure="test"), birds)["test"] == {"images/10.jpg", "images/11.jpg"}
    with pytest.raises(TrainingError, match=r"labels\.csv has no rows of the split test to measure on"):
        load(table(birds, "path,label", *rows()), measure="test")


def test_without_such_a_column_folders_that_are_called_like_splits_are_splits(load: Load, tmp_path: Path) -> None:
    folder = tmp_path / "birds"
    lines = []
    for split, count in (("train", 8), ("val", 4)):
        for i in range(count):
            write(folder / split / f"{i}.jpg", seed=len(split) * 20 + i)
            lines.append(f"{split}/{i}.jpg,{['owl', 'wren'][i % 2]}")
    assert files_of(load(table(folder, "path,label", *lines)), folder)["test"] == {f"val/{i}.jpg" for i in range(4)}


def test_the_order_of_lines_changes_nothing(load: Load, birds: Path) -> None:
    """What is held out, stored features and a state to resume go by the place of a row."""
    first, other = (load(table(birds, "path,label", *lines)) for lines in (rows(), rows()[::-1]))
    assert first.fingerprint == other.fingerprint
    for part in ("train", "held_out", "test"):
        one, two = getattr(first, part), getattr(other, part)
        assert [one.pictures[row] for row in one.rows] == [two.pictures[row] for row in two.rows]
        assert one.targets.equal(two.targets)


def test_the_fingerprint_covers_the_splits(load: Load, birds: Path) -> None:
    fingerprints = {
        load(table(birds, "path,label,split", *rows(splits=splits))).fingerprint
        for splits in ("ttttttttvvvv", "vvvvtttttttt", "ttttttttvvvv")
    }
    assert len(fingerprints) == 2


def test_the_fingerprint_covers_labels(load: Load, birds: Path) -> None:
    lines = rows()
    first = load(table(birds, "path,label", *lines)).fingerprint
    assert (
        load(table(birds, "label,path", *(",".join(reversed(line.split(","))) for line in lines[::-1]))).fingerprint
        == first
    )
    changed = [lines[0].replace("owl", "wren"), *lines[1:]]
    assert load(table(birds, "path,label", *changed)).fingerprint != first


def test_a_photo_that_is_missing_or_damaged_is_left_out_by_name_or_refused(load: Load, birds: Path, said: Said) -> None:
    (birds / "images" / "1.jpg").write_bytes(b"no image")
    path = table(birds, "path,label", *rows(), "images/99.jpg,owl")
    assert len(load(path).skipped) == 2
    assert "skipped images/99.jpg: it is not there" in str(said)
    with pytest.raises(TrainingError, match=r"--strict, and there is a file that cannot be used: images/1\.jpg"):
        load(path, strict=True)


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([], "labels.csv has no header: its first line must name the columns"),
        (["path,label"], "labels.csv has no rows"),
        (
            ["path,colour", "a.jpg,red"],
            "(label, class, category, target, …): its columns are path, colour; name one by --set source.label=COLUMN",
        ),
        (["id,label", "a.jpg,red"], "has no column for the paths of the photos (path, file, filename, file_name, …)"),
        (
            ["path,label,class", "a.jpg,red,x"],
            "may be the labels: label, class; a photo has one label here: name the column by --set source.label=label",
        ),
        (["path,label", "a.jpg"], "labels.csv, line 2: it has 1 columns, and the header has 2"),
        (["path,label", "a.jpg,red", "", "b.jpg, "], "labels.csv, line 4: it has no label"),
        (["path,label", ",red"], "labels.csv, line 2: it has no path"),
        (["path,label", "../a.jpg,red"], "line 2: ../a.jpg is outside of the table's folder"),
        (["path,label", "/etc/passwd,red"], "line 2: /etc/passwd is outside of the table's folder"),
        (
            ["path,label", "a.jpg,red", "b.jpg,red", "x/../a.jpg,blue"],
            "line 4: a.jpg stands in labels.csv, line 2, already",
        ),
        (["path,label,split", "a.jpg,red,fold3"], "line 2: its split 'fold3' is none of train, val and test"),
        (["path,label,split", "a.jpg,red,val"], "has no rows of the split train"),
        (["path,label", 'a.jpg,"red'], "labels.csv, line 2: unexpected end of data"),
        (["path,label", "a.jpg,re\x07d"], "line 2: its label re\\x07d cannot be printed"),
        (["path,label", "a.jpg," + "9" * 4400], "cannot be printed, or is too long"),
        (
            ["path,label", "images/1.jpg,owl", "a.jpg,wren"],
            "the class wren of labels.csv holds no image (none of its 1 files can be used)",
        ),
        (
            ["path,label,split", "images/1.jpg,owl,train", "images/2.jpg,owl,val", "images/3.jpg,wren,val"],
            "the split val of labels.csv has classes that the split train of labels.csv does not have: wren",
        ),
        (["path,label\0"], "is no CSV or TSV file"),
    ],
)
def test_what_is_wrong_is_one_line_that_names_the_line(load: Load, birds: Path, lines: list[str], why: str) -> None:
    with pytest.raises(TrainingError) as refused:
        load(table(birds, *lines))
    assert why in str(refused.value)
    assert str(refused.value).isprintable()


def test_what_is_no_table_is_one_line(load: Load, birds: Path) -> None:
    with pytest.raises(TrainingError, match=r"is a folder: for a folder of photos, python -m training photos"):
        load(birds)
    with pytest.raises(TrainingError, match="No such file or directory"):
        load(birds / "labels.csv")
    table(birds, "path,label", "a.jpg,Zaunkönig", encoding="latin-1")
    with pytest.raises(TrainingError, match="is no UTF-8 text: save the table as CSV in UTF-8"):
        load(birds / "labels.csv")


def test_a_metadata_csv_in_a_folder_of_photos_says_their_labels(load: Load, birds: Path, said: Said) -> None:
    table(birds, "file_name,label,text", *(f"{line},a bird" for line in rows()), name="metadata.csv")
    assert load(birds, kind="photos").labels == ("owl", "wren")
    assert "the labels are those of " in str(said)
    assert "metadata.csv" in str(said)


def test_each_split_may_have_its_own_metadata_csv(load: Load, tmp_path: Path) -> None:
    folder = tmp_path / "birds"
    for split, count in (("train", 8), ("test", 4), ("validation", 4)):
        for i in range(count):
            write(folder / split / f"{i}.jpg", seed=len(split) * 20 + i)
        table(folder / split, "file_name,label", *(f"{i}.jpg,{i % 2}" for i in range(count)), name="metadata.csv")
    names = files_of(load(folder, kind="photos"), folder)
    assert names["test"] == {f"validation/{i}.jpg" for i in range(4)}
    assert files_of(load(folder, kind="photos", measure="test"), folder)["test"] == {f"test/{i}.jpg" for i in range(4)}


def test_what_a_found_table_lacks_is_said_with_the_command_that_names_it(load: Load, birds: Path) -> None:
    path = table(birds, "file_name,label,class", *(f"{line},x" for line in rows()), name="metadata.csv")
    with pytest.raises(TrainingError) as refused:
        load(birds, kind="photos")
    assert str(refused.value).endswith(f"name the column by python -m training table {path} --set source.label=label")


def test_a_photo_in_the_tables_of_two_splits_is_refused(load: Load, tmp_path: Path) -> None:
    folder = tmp_path / "birds"
    for split in ("train", "val"):
        write(folder / split / "0.jpg", seed=1)
    table(folder / "train", "file_name,label", "0.jpg,a", "../val/0.jpg,b", name="metadata.csv")
    table(folder / "val", "file_name,label", "0.jpg,a", name="metadata.csv")
    with pytest.raises(TrainingError, match=r"line 3: \.\./val/0\.jpg is outside of the table's folder"):
        load(folder, kind="photos")


def test_a_metadata_csv_without_labels_leaves_class_folders_what_they_are(load: Load, tmp_path: Path) -> None:
    folder = tmp_path / "birds"
    for label in ("owl", "wren"):
        for i in range(4):
            write(folder / label / f"{i}.jpg", seed=len(label) * 20 + i)
    for lines in (["file_name,text", "owl/0.jpg,an owl"], ["id,category", "1,x"], ["\0"], []):
        table(folder, *lines, name="metadata.csv")
        assert load(folder, kind="photos").labels == ("owl", "wren")


def test_a_table_s_data_set_is_called_as_its_folder(birds: Path) -> None:
    assert name_of(RECIPE, birds / "labels.csv") == "birds"
    assert name_of(builtin("photos"), birds) == "birds"
    assert name_of(builtin("mnist"), birds) == "mnist"
