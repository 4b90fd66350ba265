"""POST /predict where all is well, or well enough: one image, several images, and what the query says."""

import io
import math
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
from PIL import Image

from app.engine.predictions import ItemAnswer, Prediction
from classifier.checkpoint import Checkpoint
from classifier.manifest import Calibration, OutOfDistribution
from tests.support.answers import CheckProblem
from tests.support.checkpoints import DIGITS, checkpoint, logits, png, publish, saying, to_pixels
from tests.support.engines import ScriptedEngine
from tests.support.http_side import http_side
from tests.support.images import encoded
from tests.support.raw import connection, request
from tests.support.server import ServerProcess, serving

PREDICT = "/predict?model=digits"


def form(*files: tuple[str, bytes]) -> Any:
    return [("file", file) for file in files]


def one(client: httpx2.Client, content: bytes, **query: Any) -> Any:
    answer = client.post("/predict", params={"model": "digits", **query}, files={"file": ("a.png", content)})
    assert answer.status_code == 200, answer.text
    return answer.json()


class TestOneImage:
    def test_the_answer_is_the_model_its_version_and_the_predictions_the_likeliest_first(
        self, client: httpx2.Client
    ) -> None:
        answer = one(client, png())
        assert list(answer) == ["model", "version", "predictions"]
        assert (answer["model"], answer["version"]) == ("digits", 2)
        predictions = answer["predictions"]
        assert all(list(prediction) == ["label", "index", "probability"] for prediction in predictions)
        assert len(predictions) == 5
        probabilities = [prediction["probability"] for prediction in predictions]
        assert probabilities == sorted(probabilities, reverse=True)
        assert all(prediction["label"] == str(prediction["index"]) for prediction in predictions)

    @pytest.mark.parametrize(
        "content_type", ["image/png", "image/anything", "application/octet-stream", "text/plain", ""]
    )
    def test_a_raw_body_is_answered_as_a_form_is_whatever_the_type_says(
        self, client: httpx2.Client, content_type: str
    ) -> None:
        answer = client.post(PREDICT, content=png(3), headers={"content-type": content_type})
        assert answer.json() == one(client, png(3))

    @pytest.mark.parametrize("headers", [{}, {"transfer-encoding": "chunked"}, {"expect": "100-continue"}])
    def test_a_put_is_answered_as_a_post_is(self, client: httpx2.Client, headers: dict[str, str]) -> None:
        answer = client.put(PREDICT, content=png(3), headers=headers)
        assert answer.json() == one(client, png(3))
        assert client.put(PREDICT, files={"image": png(3)}).json() == one(client, png(3))

    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
    def test_every_accepted_format_is_answered_under_a_wrong_name_too(self, client: httpx2.Client, kind: str) -> None:
        content = encoded(Image.open(io.BytesIO(png(size=(300, 200)))), kind)
        files = {"file": ("a.txt", content, "text/plain")}
        assert client.post(PREDICT, files=files).status_code == 200

    def test_other_fields_of_the_form_do_not_matter(self, client: httpx2.Client) -> None:
        answer = client.post(PREDICT, files={"file": png(3)}, data={"comment": "a seven", "model": "letters"})
        assert answer.json() == one(client, png(3))

    def test_the_answer_is_json_with_its_length(self, client: httpx2.Client) -> None:
        answer = client.post(PREDICT, files={"file": png()})
        assert answer.headers["content-type"] == "application/json"
        assert int(answer.headers["content-length"]) == len(answer.content)

    @pytest.mark.anyio
    async def test_labels_and_probabilities_of_any_kind_are_sound_json(self) -> None:
        engine = ScriptedEngine()
        labels = ['a "b"', "back\\slash", "two\nlines", "nul \x00", "sieben β 七", "</script>", "\u2028"]
        values = [1.0, 0.0, 1e-300, 1e-7, 0.123456789, 5e-324, 0.999999999]
        engine.outcome = ItemAnswer(
            tuple(Prediction(label, i, p) for i, (label, p) in enumerate(zip(labels, values, strict=True)))
        )
        async with http_side(engine) as side, side.client() as client:
            predictions = (await client.post("/predict", files={"file": png()})).json()["predictions"]
        assert [prediction["label"] for prediction in predictions] == labels
        assert [prediction["probability"] for prediction in predictions] == pytest.approx(values, rel=1e-5)


FAMILIAR = ItemAnswer((Prediction("7", 7, 0.9),), 12.345678329467773, in_distribution=True)
STRANGE = ItemAnswer((Prediction("7", 7, 0.9),), -1.5, in_distribution=False)


class TestTrust:
    @pytest.mark.anyio
    @pytest.mark.parametrize(("item", "expected"), [(FAMILIAR, True), (STRANGE, False)])
    async def test_one_image_is_told_whether_it_is_like_what_was_trained_on(
        self, item: ItemAnswer, expected: bool
    ) -> None:
        engine = ScriptedEngine()
        engine.outcome = item
        async with http_side(engine) as side, side.client() as client:
            answer = (await client.post("/predict", files={"file": png()})).json()
        assert list(answer) == ["model", "version", "predictions", "in_distribution", "score"]
        assert answer["in_distribution"] is expected
        assert answer["score"] == item.score  # to the last digit
        assert answer["predictions"] == [{"label": "7", "index": 7, "probability": 0.9}]

    @pytest.mark.anyio
    async def test_so_is_each_of_several_but_not_one_that_could_not_be_read(self) -> None:
        engine = ScriptedEngine()
        engine.outcome = STRANGE
        async with http_side(engine) as side, side.client() as client:
            files = form(("1", png(1)), ("2", b"no image"), ("3", png(3)))
            results = (await client.post("/predict", files=files)).json()["results"]
        assert [list(result) for result in results] == [
            ["filename", "predictions", "in_distribution", "score"],
            ["filename", "error"],
            ["filename", "predictions", "in_distribution", "score"],
        ]
        assert [result.get("in_distribution") for result in results] == [False, None, False]

    @pytest.mark.slow
    def test_what_a_checkpoint_says_of_trust_is_what_its_answers_hold_to(self, tmp_path: Path) -> None:
        content = checkpoint()
        images = [png(i) for i in range(6)]
        energies = [energy(content, image) for image in images]
        section = OutOfDistribution(method="energy", threshold=sorted(energies)[3] - 1e-4)
        trusted = saying(content, calibration=Calibration(temperature=0.25), out_of_distribution=section)
        publish(tmp_path, 1, trusted, model="trusted")
        publish(tmp_path, 1, content, model="plain")
        with serving(tmp_path, "--device", "cpu") as server:
            version = httpx2.get(f"{server.url}/models/trusted").json()["versions"][0]
            plain, answers = (
                [httpx2.post(f"{server.url}/predict?{query}", files={"file": image}).json() for image in images]
                for query in ("model=plain&top_k=10", "model=trusted&top_k=10")
            )
        assert version["calibration"] == {"temperature": 0.25}
        assert version["out_of_distribution"] == {"method": "energy", "threshold": section.threshold}
        assert [answer["score"] for answer in answers] == pytest.approx(energies, abs=1e-5)
        assert [answer["in_distribution"] for answer in answers].count(True) == 3
        for uncalibrated, answer in zip(plain, answers, strict=True):
            assert answer["in_distribution"] is (answer["score"] >= version["out_of_distribution"]["threshold"])
            assert calibrated(uncalibrated, temperature=0.25) == pytest.approx(by_label(answer), abs=1e-5)


def energy(content: Checkpoint, image: bytes) -> float:
    """By the formula, in float64."""
    pixels = torch.from_numpy(to_pixels(image)[None])
    return math.log(math.fsum(map(math.exp, logits(content.build(), DIGITS, pixels)[0].tolist())))


def by_label(answer: Any) -> dict[str, float]:
    return {each["label"]: each["probability"] for each in answer["predictions"]}


def calibrated(answer: Any, *, temperature: float) -> dict[str, float]:
    """Probabilities at temperature 1 as they are at another one."""
    powers = {label: probability ** (1 / temperature) for label, probability in by_label(answer).items()}
    return {label: power / sum(powers.values()) for label, power in powers.items()}


class TestQuery:
    @pytest.mark.parametrize(("top_k", "count"), [(1, 1), (3, 3), (10, 10), (11, 10), (10**17, 10), ("007", 7)])
    def test_top_k_says_how_many_predictions_and_is_clamped_to_the_classes(
        self, client: httpx2.Client, top_k: object, count: int
    ) -> None:
        assert len(one(client, png(), top_k=top_k)["predictions"]) == count

    def test_fewer_predictions_are_the_first_of_more(self, client: httpx2.Client) -> None:
        assert one(client, png(), top_k=3)["predictions"] == one(client, png())["predictions"][:3]

    def test_the_served_version_may_be_asked_for(self, client: httpx2.Client) -> None:
        assert one(client, png(), version=2) == one(client, png())

    def test_each_model_answers_for_itself(self, client: httpx2.Client) -> None:
        letters = one(client, png(), model="letters")
        assert (letters["model"], letters["version"]) == ("letters", 1)
        assert letters["predictions"] != one(client, png())["predictions"]

    @pytest.mark.parametrize("query", ["version=&top_k=", "version&top_k", "top_k=3&top_k=&version=2&version="])
    def test_an_empty_value_is_not_given(self, client: httpx2.Client, query: str) -> None:
        expected = one(client, png(), **({"top_k": 3} if "3" in query else {}))
        answer = client.post(f"{PREDICT}&{query}", files={"file": png()})
        assert answer.json() == expected

    def test_of_a_parameter_that_is_given_twice_the_last_counts(self, client: httpx2.Client) -> None:
        answer = client.post(f"{PREDICT}&top_k=2&top_k=3", files={"file": png()})
        assert len(answer.json()["predictions"]) == 3

    def test_what_is_not_known_is_passed_over(self, client: httpx2.Client) -> None:
        assert one(client, png(), colour="blue") == one(client, png())

    @pytest.mark.anyio
    @pytest.mark.parametrize("query", ["&", "&&=&", "&%", "&%zz=%", "&top_k=2&top_k=3", "&a=" + "b" * 30_000])
    async def test_an_odd_query_is_no_error(self, server: ServerProcess, query: str) -> None:
        async with connection(server.port) as client:
            await client.send(request(PREDICT + query, png()))
            assert (await client.response()).status_code == 200


class TestSeveralImages:
    def test_results_come_in_order_each_with_its_name_and_as_alone(self, client: httpx2.Client) -> None:
        names = ["a.png", "b.png", "a.png"]
        answer = client.post(PREDICT, files=form(*[(name, png(i)) for i, name in enumerate(names)]))
        assert answer.status_code == 200
        document = answer.json()
        assert list(document) == ["model", "version", "results"]
        assert (document["model"], document["version"]) == ("digits", 2)
        assert [result["filename"] for result in document["results"]] == names
        for i, result in enumerate(document["results"]):
            alone = one(client, png(i))["predictions"]
            assert [p["label"] for p in result["predictions"]] == [p["label"] for p in alone]
            assert [p["probability"] for p in result["predictions"]] == pytest.approx(
                [p["probability"] for p in alone], abs=1e-4
            )

    def test_a_broken_image_does_not_fail_the_others(self, client: httpx2.Client) -> None:
        large = encoded(Image.new("L", (1001, 1000)))
        files = form(("1", png()), ("2", b"no image"), ("3", large), ("4", b"%PDF-1.7"))
        results = client.post(PREDICT, files=files).json()["results"]
        assert [result.get("error", {}).get("code") for result in results] == [
            None,
            "bad_image",
            "too_many_pixels",
            "unsupported_format",
        ]
        assert [set(result) for result in results] == [{"filename", "predictions"}] + [{"filename", "error"}] * 3
        assert all(result["error"]["detail"] for result in results[1:])

    def test_if_all_are_broken_each_is_told_so_and_nothing_was_predicted(self, client: httpx2.Client) -> None:
        answer = client.post(PREDICT, files=form(("1", b"x"), ("2", b"y")))
        assert answer.status_code == 200
        assert answer.json()["version"] is None
        assert [result["error"]["code"] for result in answer.json()["results"]] == ["bad_image"] * 2

    def test_top_k_holds_for_each(self, client: httpx2.Client) -> None:
        results = client.post(f"{PREDICT}&top_k=2", files=form(("1", png(1)), ("2", png(2)))).json()["results"]
        assert [len(result["predictions"]) for result in results] == [2, 2]

    @pytest.mark.parametrize("name", ['a "b".png', "sieben β 七.png", "back\\slash.png", "<b>.png", "semi;colon.png"])
    def test_a_file_name_comes_back_as_it_was_sent(self, client: httpx2.Client, name: str) -> None:
        body = b"".join(
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n\r\n%s\r\n'
            % (name.replace("\\", "\\\\").replace('"', '\\"').encode(), png(i))
            for i in range(2)
        )
        headers = {"content-type": "multipart/form-data; boundary=b"}
        answer = client.post(PREDICT, content=body + b"--b--\r\n", headers=headers)
        assert [result["filename"] for result in answer.json()["results"]] == [name] * 2

    def test_a_name_may_be_written_in_any_of_the_ways_that_clients_write_it(self, client: httpx2.Client) -> None:
        names = ["filename*=UTF-8''%E4%B8%83.png", 'filename="=?utf-8?B?5LiDLnBuZw==?="']
        body = b"".join(
            b'--b\r\nContent-Disposition: form-data; name="file"; %s\r\n\r\n%s\r\n' % (name.encode(), png())
            for name in names
        )
        headers = {"content-type": "multipart/form-data; boundary=b"}
        answer = client.post(PREDICT, content=body + b"--b--\r\n", headers=headers)
        assert [result["filename"] for result in answer.json()["results"]] == ["七.png"] * 2

    @pytest.mark.anyio
    async def test_all_sound_ones_are_submitted_together(self) -> None:
        engine = ScriptedEngine()
        async with http_side(engine) as side, side.client() as client:
            await client.post("/predict?top_k=3", files=form(("1", png(1)), ("2", b"x"), ("3", png(3))))
        submitted = engine.submitted.get_nowait()
        assert (len(submitted.items), submitted.top_k) == (2, 3)
        assert engine.submitted.empty()


class TestTheLeastVersionThatAClientWants:
    """Its server has version 2."""

    def asked(self, client: httpx2.Client, wanted: str, query: str = "") -> httpx2.Response:
        headers = {"content-type": "image/png", "Flambeau-Min-Version": wanted}
        return client.post(f"{PREDICT}{query}", content=png(), headers=headers)

    @pytest.mark.parametrize("wanted", ["1", "2"])
    def test_a_server_that_has_it_answers_as_ever(self, client: httpx2.Client, wanted: str) -> None:
        assert self.asked(client, wanted).json() == one(client, png())

    def test_a_server_that_is_behind_says_so_and_when_to_try_again(
        self, client: httpx2.Client, check_problem: CheckProblem
    ) -> None:
        answer = self.asked(client, "3")
        detail = check_problem(answer, "behind")
        assert detail == "this server answers by version 2 of digits; version 3 or a newer one is wanted"
        assert answer.headers["retry-after"] == "1"

    def test_a_version_that_is_named_is_what_the_client_wants(self, client: httpx2.Client) -> None:
        assert self.asked(client, "3", "&version=2").json()["version"] == 2

    @pytest.mark.parametrize("wanted", ["0", "-1", "x", "", "1.5", "9" * 30])
    def test_what_is_no_version_is_refused(
        self, client: httpx2.Client, check_problem: CheckProblem, wanted: str
    ) -> None:
        detail = check_problem(self.asked(client, wanted), "bad_parameter")
        assert "flambeau-min-version must be a whole number" in detail
