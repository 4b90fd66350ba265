"""Rows: what a network said of images, as numbers, and the answers that are made of them."""

import logging

import numpy as np
import pytest

from app.engine.predictions import ItemAnswer, ItemError, Prediction
from app.engine.rows import Row, RowDecoder, stack_rows

LABELS = ("zero", "one", "two", "three")
PLAIN = RowDecoder(LABELS, None)
WITH_THRESHOLD = RowDecoder(LABELS, 0.5)


def row(*values: float) -> Row:
    return np.array(values, np.float32)


def test_a_row_becomes_predictions_in_its_order() -> None:
    assert PLAIN.decode([0.5, 0.25, 3, 1], 2) == ItemAnswer((Prediction("three", 3, 0.5), Prediction("one", 1, 0.25)))


@pytest.mark.parametrize(("top_k", "count"), [(1, 1), (2, 2), (3, 3), (100, 3)])
def test_as_many_as_were_asked_for_or_as_there_are(top_k: int, count: int) -> None:
    answer = PLAIN.decode([0.5, 0.25, 0.125, 0, 1, 2], top_k)
    assert isinstance(answer, ItemAnswer)
    assert [each.label for each in answer.predictions] == ["zero", "one", "two"][:count]


@pytest.mark.parametrize(("score", "is_in"), [(0.75, True), (0.5, True), (0.25, False), (-float("inf"), False)])
def test_a_score_is_held_against_the_threshold(score: float, is_in: bool) -> None:
    answer = WITH_THRESHOLD.decode([1, 0, 2, 3, score], 1)
    assert answer == ItemAnswer((Prediction("two", 2, 1),), score, is_in)


@pytest.mark.parametrize("reader", [PLAIN, WITH_THRESHOLD])
def test_a_row_that_is_not_a_number_is_an_error_of_its_item(reader: RowDecoder) -> None:
    nan = float("nan")
    answer = reader.decode([nan] * (2 + (reader.threshold is not None)), 5)
    assert isinstance(answer, ItemError)
    assert answer.code == "prediction_failed"


@pytest.mark.parametrize("count", [1, 3])
def test_rows_of_one_length_are_a_table(count: int) -> None:
    rows = [row(0.5, i) for i in range(count)]
    assert stack_rows(rows, 1).tolist() == [[0.5, i] for i in range(count)]


def test_rows_of_several_batches_are_cut_to_the_shortest() -> None:
    """A batch has as many columns as the greediest of its items wants."""
    wide, narrow = row(0.5, 0.25, 0.125, 3, 2, 1), row(0.75, 0.0625, 2, 1)
    assert stack_rows([wide, narrow], 2).tolist() == [[0.5, 0.25, 3, 2], [0.75, 0.0625, 2, 1]]
    wide, narrow = row(0.5, 0.25, 0.125, 3, 2, 1, 9), row(0.75, 2, 8)
    assert stack_rows([wide, narrow], 1).tolist() == [[0.5, 3, 9], [0.75, 2, 8]]


def test_an_error_of_the_network_is_a_row_without_numbers_beside_the_others_and_stands_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        found = stack_rows([row(0.5, 0.25, 1, 0), RuntimeError("no such kernel"), row(0.75, 0.125, 0, 1)], 1)
    assert found[[0, 2]].tolist() == [[0.5, 1], [0.75, 0]]
    assert np.isnan(found[1]).all()
    assert isinstance(PLAIN.decode(found[1].tolist(), 1), ItemError)
    assert [record.values["reason"] for record in caplog.records] == ["RuntimeError: no such kernel"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("count", [1, 2])
def test_where_all_failed_all_are_errors(count: int) -> None:
    found = stack_rows([RuntimeError("x")] * count, 5)
    assert [isinstance(PLAIN.decode(each, 5), ItemError) for each in found.tolist()] == [True] * count
    assert [isinstance(WITH_THRESHOLD.decode(each, 5), ItemError) for each in found.tolist()] == [True] * count
