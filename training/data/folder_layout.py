"""Finds out what the folders of a data set mean: which are splits, which are classes, and which are neither.

Where more than one reading is possible, it refuses, in a line that says what to do.
"""

import shlex
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from classifier.image_files.names import is_photo
from training.data.folder_names import Role, composed, folded, is_neutral, is_utf8, listed, role_in, role_of, shown
from training.data.folder_tree import FolderTree, join
from training.errors import TrainingError

_PUT = "put the photos of each class into a folder of its own, which has the class's name"
_EVERY = "--set source.splits=false"


@dataclass(frozen=True, slots=True)
class ClassFolders:
    """Is one split.

    Args:
        name: the split's folder; "" if it is the whole data set.
        folders: by label, the folders that hold its photos. Labels are sorted, and in Unicode's composed form.
    """

    name: str
    folders: dict[str, list[str]]

    def __str__(self) -> str:
        return f"{shown(self.name)}/"


@dataclass(frozen=True, slots=True)
class FolderLayout:
    """Says what the folders of a data set are for.

    Args:
        train: what is trained on, and taken from if there is nothing to measure on.
        measured: what is measured and reported; None: a part of `train` is taken for that.
        said: what a person should know of it, in lines.
    """

    train: ClassFolders
    measured: ClassFolders | None
    said: tuple[str, ...]

    def covers(self, path: str) -> bool:
        """Tells whether a path is in a split that is used, or would be a split itself."""
        used = [self.train.name, *([] if self.measured is None else [self.measured.name])]
        return "/" not in path or any(not name or path.startswith(f"{name}/") for name in used)


def layout_of(tree: FolderTree, title: str, *, splits: bool = True, measure: Role = "val") -> FolderLayout:
    """Returns what the folders are for.

    Args:
        title: the data set's folder, for messages.
        splits: folders that are called like splits may be splits; otherwise every folder is a class.
        measure: the split to measure on: "val", if it is there; "test", which must be there.

    Raises: TrainingError if the folders have another layout, or if more than one reading is possible.
    """
    return _Reading(tree, title, measure).layout(splits=splits)


class _Reading:
    """Reads what one tree of folders means."""

    def __init__(self, tree: FolderTree, title: str, measure: Role) -> None:
        self._tree = tree
        self._title = title
        self._measure: Role = measure
        self._said: list[str] = []

    def layout(self, *, splits: bool) -> FolderLayout:
        if self._tree.outputs:
            self._said.append(f"left out: {listed(self._tree.outputs, '/')} (training writes there)")
        names = self._tree.folders[""]
        called = {name: role for name in names if (role := role_of(name)) is not None} if splits else {}
        others = [name for name in names if name not in called]
        photos = [name for name in others if any(self._tree.photos(name))]
        divided = [name for name in called if self._tree.folders.get(name)]
        if called and not photos and (divided or len(called) > 1):
            return self._splits(called, others)
        # Nobody trains on, or validates with, photos of no class: only a test set may have none.
        if divided or (photos and set(called.values()) == {"test"}):
            first = (divided or list(called))[0]
            raise TrainingError(
                f"{self._title} has {shown(first)}/, which is called like a split, beside {listed(photos, '/')}: "
                f"move what is no class elsewhere; if all of them are classes, add {_EVERY}"
            )
        if splits:
            self._check_no_split_in(photos)
        if self._measure == "test":
            raise TrainingError(f"{self._title} has no test/ to measure on")
        return FolderLayout(self._trained_on("", check=splits), None, tuple(self._said))

    def _check_no_split_in(self, names: list[str]) -> None:
        """Refuses folders whose names differ in the word of a split, such as `insects_train` and `insects_test`."""
        alike: dict[str, dict[Role, str]] = defaultdict(dict)
        for name in names:
            if (found := role_in(name)) is not None:
                alike[found[1]][found[0]] = name
        several = [list(by_role.values()) for by_role in alike.values() if len(by_role) > 1]
        if several:
            raise TrainingError(
                f"{self._title} has {listed(several[0], '/')}, which are called like splits of the same photos: put "
                f"the class folders of each into train/, val/ or test/; if all of them are classes, add {_EVERY}"
            )

    def _splits(self, called: dict[str, Role], others: list[str]) -> FolderLayout:
        folders: dict[Role, str] = {}
        for name, role in called.items():
            if role in folders:
                two = listed([folders[role], name], "/")
                raise TrainingError(f"{self._title} has {two}, which both mean {role}: keep one of them, or join them")
            folders[role] = name
        if "train" not in folders or len(folders) == 1:
            only = [f"name {join(self._title, shown(name))} for one to be split" for name in called if len(called) == 1]
            raise TrainingError(
                f"{self._title} has {listed(list(called), '/')} but no {'val' if 'train' in folders else 'train'}/: "
                + ", or ".join(["add it", *only])
            )
        train = self._trained_on(folders["train"])
        if self._measure == "test" and "test" not in folders:
            raise TrainingError(f"{self._title} has no test/ to measure on")
        measured = None if self._measure not in folders else self._classes(folders[self._measure])
        if measured is None:
            self._said.append(f"there is no val/: a part of {train} is taken out and measured")
        else:
            self._said.append(f"trained on: {train}; measured on: {measured}")
            _check_alike({*train.folders, *measured.folders}, self._title)
        for role, name in folders.items():
            if role not in ("train", self._measure):
                self._said.append(self._left_out(role, name))
        if others:
            self._said.append(f"left out: {listed(others, '/')} (no photos)")
        return FolderLayout(train, measured, tuple(self._said))

    def _left_out(self, role: Role, name: str) -> str:
        count = sum(1 for _ in self._tree.photos(name))
        if role == "test" and self._tree.folders.get(name):
            how = f"; to measure it: python -m training evaluate CHECKPOINT --data {shlex.quote(self._title)} --test"
        else:
            how = ""
        return f"left out: {shown(name)}/ ({count:,} photos){how}"

    def _classes(self, split: str, *, check: bool = True) -> ClassFolders:
        """Returns the class folders of a split, or of the whole folder, which is "".

        Args:
            check: refuse class folders whose own folders might be the classes.
        """
        where = join(self._title, shown(split)) if split else self._title
        names = self._tree.folders.get(split, [])
        loose = [name for name in self._tree.files.get(split, ()) if is_photo(name)]
        if not names:
            what = "holds images, but no class folders" if loose else "holds no class folders"
            raise TrainingError(f"{where} {what}: {_PUT}")
        if loose:
            first = shown(join(split, loose[0]))
            self._said.append(f"left out: {len(loose):,} photos that are in no class folder, e.g. {first}")
        lower = {name.lower() for name in names}
        if "images" in lower and len(lower) > 1 and lower <= {"images", "labels", "annotations", "masks"}:
            raise TrainingError(f"{where} holds {listed(names, '/')}, as for object detection or segmentation: {_PUT}")
        folders: dict[str, list[str]] = defaultdict(list)
        for name in names:
            if not is_utf8(name):
                raise TrainingError(f"{where}/{shown(name)}: a class needs a name in UTF-8")
            folders[composed(name)].append(join(split, name))
        for label in (label for label, same in folders.items() if len(same) > 1):
            self._said.append(f"{where} has {label}/ twice, in two forms of Unicode: they are one class")
        _check_alike(folders, where)
        if check:
            self._check_depth(folders, where)
            if len(folders) > 1:  # of a single one, its own line says what to name
                self._check_no_splits_below(split, where)
        return ClassFolders(split, dict(sorted(folders.items())))

    def _trained_on(self, split: str, *, check: bool = True) -> ClassFolders:
        """Returns the class folders of the split that is trained on, as `_classes` does, and refuses a single one."""
        classes = self._classes(split, check=check)
        if len(classes.folders) > 1:
            return classes
        ((label, (only, *_)),) = classes.folders.items()
        while len(inner := self._tree.folders.get(only, [])) == 1:
            only = join(only, inner[0])
        said = f"there is only one class, {label}, in {join(self._title, split) if split else self._title}"
        if len(inner) < 2:
            raise TrainingError(f"{said}: at least two are needed; {_PUT}")
        how = f"move them to {shown(split)}/" if split else f"name {shown(join(self._title, only))}"
        raise TrainingError(
            f"{said}; if the folders in {shown(only)}/ ({listed(inner)}) are the classes or splits, {how}"
        )

    def _check_depth(self, folders: dict[str, list[str]], where: str) -> None:
        """Refuses class folders in which folders of the same names hold the photos, for these might be the classes."""
        labels: dict[str, list[str]] = defaultdict(list)
        names: dict[str, str] = {}
        for label, places in folders.items():
            for name in self._names_below(places):
                labels[folded(name)].append(label)
                names[folded(name)] = name
        repeated = sorted(name for name, several in labels.items() if len(several) > 1)
        if not repeated:
            return
        outer = listed(sorted({label for name in repeated for label in labels[name]}), "/")
        inner = [names[name] for name in repeated]
        how = "if these are the classes, put the photos of each into one folder"
        if splits := [name for name in inner if role_of(name)]:
            how = f"put the splits above the classes, as {splits[0]}/{labels[folded(splits[0])][0]}"
        raise TrainingError(
            f"{outer} in {where} hold folders of the same names ({listed(inner)}): {how}; "
            f"if {outer} are the classes, add {_EVERY}"
        )

    def _check_no_splits_below(self, split: str, where: str) -> None:
        """Refuses a class folder in which there is a data set with splits."""
        for folder, names in self._tree.folders.items():
            if folder == split or not folder.startswith(join(split, "")):
                continue
            called = [name for name in names if role_of(name) and any(self._tree.photos(join(folder, name)))]
            roles = {role_of(name) for name in called}
            if "train" in roles and len(roles) > 1:
                label = folder.removeprefix(join(split, "")).split("/")[0]
                raise TrainingError(
                    f"{shown(label)}/ in {where} holds splits ({listed(called)}): to train on these, name "
                    f"{join(self._title, shown(folder))}; if {shown(label)}/ is a class, add {_EVERY}"
                )

    def _names_below(self, places: list[str]) -> set[str]:
        """Returns the names of the folders in a class that hold most of its files, or that are called like splits.

        Names such as `images` do not count: nobody calls a class so, and some data sets have such a folder in each.
        """
        if not any(self._tree.folders.get(place) for place in places):
            return set()
        paths = [path.removeprefix(f"{place}/").split("/")[:-1] for place in places for path in self._tree.below(place)]
        inner = [names for names in paths if names]
        if 2 * len(inner) > len(paths):
            return {name for names in inner for name in names if not is_neutral(name)}
        return {names[0] for names in inner if role_of(names[0])}


def _check_alike(labels: Sequence[str] | set[str] | dict[str, list[str]], where: str) -> None:
    """Refuses labels that differ in case, width or spacing only. Single letters may: "a" is not "A"."""
    seen: dict[str, str] = {}
    for label in sorted(labels):
        other = seen.setdefault(folded(label), label)
        if other != label and len(label) > 1:
            raise TrainingError(
                f"the classes {other!r} and {label!r} in {where} differ in case or spacing only: give both the same "
                "name if they are one class, or else names that differ more"
            )
