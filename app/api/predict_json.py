"""The JSON documents that answer POST /predict.

They are written by hand: that takes less than half the time of a general encoder, on the one path where it counts.
"""

import json
from collections.abc import Sequence

from app.api.prediction import Item
from app.engine.predictions import ItemAnswer, ItemError
from app.http.problems import Problem

# So many versions have their labels kept as JSON.
_MOST_VERSIONS = 128


class PredictJson:
    """Renders answers, on one event loop. It keeps the labels that it has quoted, for each version its own."""

    def __init__(self) -> None:
        self._labels: dict[tuple[str, int | None], QuotedLabels] = {}

    def one(self, model: str, version: int | None, item: Item) -> bytes:
        """Returns the document for a request's only image. Raises: Problem, if the item is an error."""
        if isinstance(item, ItemError):
            raise Problem(item.code, item.detail)
        labels = self._labels.get((model, version)) or self.labels(model, version)
        members = _members(item, labels)
        # An image that was answered was answered by a version.
        return b'{"model":"%s","version":%d,%s}' % (model.encode(), version, members)  # type: ignore[str-format]

    def several(self, model: str, version: int | None, filenames: Sequence[str | None], items: Sequence[Item]) -> bytes:
        """Returns the document for several images, with the predictions or the error of each."""
        labels = self.labels(model, version)
        results = b",".join([_result(name, item, labels) for name, item in zip(filenames, items, strict=True)])
        return b'{"model":%s,"version":%s,"results":[%s]}' % (_json(model), _json(version), results)

    def labels(self, model: str, version: int | None) -> "QuotedLabels":
        """Returns the labels of a version. The version that was kept longest makes room for a new one."""
        key = model, version
        labels = self._labels.get(key)
        if labels is None:
            if len(self._labels) == _MOST_VERSIONS:
                del self._labels[next(iter(self._labels))]
            labels = self._labels[key] = QuotedLabels()
        return labels


class QuotedLabels(dict[str, str]):
    """Labels as JSON strings, each made when it is asked for first.

    A version has so many labels and no more, so this dict stops growing. A cache of fixed size for all versions would
    make every label anew as soon as the classes of all models together are more than it holds.
    """

    def __missing__(self, label: str) -> str:
        quoted = self[label] = json.dumps(label, ensure_ascii=False)
        return quoted


def _members(item: ItemAnswer, labels: QuotedLabels) -> bytes:
    rows = [
        f'{{"label":{labels[label]},"index":{index},"probability":{probability:.6g}}}'
        for label, index, probability in item.predictions
    ]
    if item.score is None:
        return f'"predictions":[{",".join(rows)}]'.encode()
    # The score to its last digit: a client that compares it with the threshold comes to the same end.
    in_distribution = "true" if item.in_distribution else "false"
    return f'"predictions":[{",".join(rows)}],"in_distribution":{in_distribution},"score":{item.score!r}'.encode()


def _result(filename: str | None, item: Item, labels: QuotedLabels) -> bytes:
    if isinstance(item, ItemError):
        return b'{"filename":%s,"error":%s}' % (_json(filename), _json({"code": item.code, "detail": item.detail}))
    return b'{"filename":%s,%s}' % (_json(filename), _members(item, labels))


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode(errors="replace")
