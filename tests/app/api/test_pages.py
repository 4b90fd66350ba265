"""The pages, in a real Chromium, against the real server process."""

import io
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx2
import numpy as np
import pytest
from PIL import Image, ImageOps
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from classifier.checkpoint import Checkpoint
from classifier.manifest import OutOfDistribution
from tests.support.checkpoints import PHOTOS, checkpoint, png, publish, saying
from tests.support.images import encoded
from tests.support.server import PATIENCE, PROJECT, serving
from training.commands.train import train
from training.recipes.builtin import builtin

pytestmark = pytest.mark.browser

WEB = PROJECT / "app" / "web"
# The server is all that it may talk to; it must not look for updates either.
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Playwright cannot read the body of a request that holds a file, so what is given to fetch is kept.
KEEP_WHAT_IS_SENT = """
    const send = window.fetch;
    window.sent = [];
    window.fetch = (address, options) => {
        if (options?.body) window.sent.push(options.body.get("file"));
        return send(address, options);
    };
"""

# Strokes as points between 0 and 1 of the sheet's edges.
Stroke = Sequence[tuple[float, float]]
SEVEN: Sequence[Stroke] = [[(0.3, 0.2), (0.7, 0.2), (0.45, 0.75)]]
SMALL_SEVEN: Sequence[Stroke] = [[(x / 4 + 0.7, y / 4 + 0.1) for x, y in SEVEN[0]]]
ONE: Stroke = [(0.5, 0.2), (0.5, 0.8)]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    executable = shutil.which("chromium")
    if executable is None:
        pytest.skip("there is no chromium here (Debian: apt-get install chromium)")
    expect.set_options(timeout=PATIENCE * 1000)  # a deadline, not a pace: other tests compute at the same time
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def strokes(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Weights that can read digits, if not the hard ones."""
    folder = tmp_path_factory.mktemp("strokes")
    source = {"kind": "strokes", "samples": 1500, "test_samples": 200}
    recipe = builtin("strokes").replace(source=source, held_out=200, epochs=2, batch_size=32)
    return Checkpoint.load(train(recipe, store=folder / "store", runs=folder / "runs", device="cpu"))


@pytest.fixture(scope="module")
def url(chromium: Browser, strokes: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of one model; the browser comes first, since nothing else is worth its time without one."""
    store = tmp_path_factory.mktemp("store")
    publish(store, 3, strokes, model="strokes")
    with serving(store, "--device", "cpu") as server:
        yield server.url


@contextmanager
def opened(chromium: Browser, url: str, path: str = "/", *, width: int = 1100) -> Iterator[Page]:
    """A page that may break no rule of its Content-Security-Policy, raise no error, and ask nobody but its server."""
    wrong: list[str] = []
    with chromium.new_context(viewport={"width": width, "height": 800}) as context:
        page = context.new_page()
        page.set_default_timeout(PATIENCE * 1000)
        page.add_init_script(KEEP_WHAT_IS_SENT)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: wrong.append(dialog.message))
        page.on(
            "request", lambda request: None if request.url.startswith((url, "blob:")) else wrong.append(request.url)
        )
        # Chromium reports every error answer there, too; those are the server's business.
        page.on("console", lambda message: None if "server responded" in message.text else wrong.append(message.text))
        page.goto(f"{url}{path}")
        yield page
        assert wrong == []


@pytest.fixture
def page(chromium: Browser, url: str) -> Iterator[Page]:
    with opened(chromium, url) as page:
        yield page


def draw(page: Page, *strokes: Stroke) -> None:
    sheet = page.locator("#paper")
    sheet.scroll_into_view_if_needed()
    box = sheet.bounding_box()
    assert box is not None
    for stroke in strokes:
        places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]
        page.mouse.move(*places[0])
        page.mouse.down()
        for place in places[1:]:
            page.mouse.move(*place, steps=5)
        with page.expect_request("**/predict?*"):
            page.mouse.up()


def last_sent(page: Page) -> Image.Image:
    content = page.evaluate("window.sent.at(-1).arrayBuffer().then((buffer) => [...new Uint8Array(buffer)])")
    return Image.open(io.BytesIO(bytes(content)))


def choose(page: Page, content: bytes, name: str = "picture.png") -> None:
    page.locator("#file").set_input_files({"name": name, "mimeType": "image/png", "buffer": content})


@pytest.mark.slow
def test_a_picture_that_is_chosen_shows_its_bars(page: Page, strokes: Checkpoint) -> None:
    choose(page, strokes.reference.encoded[0])
    expect(page.locator("#bars li")).to_have_count(5)
    best = str(int(strokes.reference.logits[0].argmax()))
    expect(page.locator("#best-label")).to_have_text(best)
    expect(page.locator("#bars li").first).to_contain_text(best)
    expect(page.locator("#bars li").first).to_contain_text("%")
    expect(page.locator("#from")).to_contain_text("strokes, version 3, in ")
    expect(page.locator("#caption")).to_contain_text("picture.png")
    expect(page.locator("#preview")).to_be_visible()


@pytest.mark.slow
def test_a_scan_is_read_as_its_negative_and_the_hint_says_what_a_picture_must_be(
    chromium: Browser, strokes: Checkpoint, tmp_path: Path
) -> None:
    white_on_black = strokes.manifest.preprocess.model_copy(update={"ink_on_paper": False})
    publish(tmp_path, 1, strokes, model="any-ink")
    publish(tmp_path, 1, saying(strokes, preprocess=white_on_black), model="white-on-black")
    scan = encoded(ImageOps.invert(Image.open(io.BytesIO(strokes.reference.encoded[0]))))
    with serving(tmp_path, "--device", "cpu") as server, opened(chromium, server.url) as page:
        expect(page.locator("#picture-hint")).to_contain_text("one, centred, in any ink on plain paper of any colour.")
        choose(page, scan)
        expect(page.locator("#best-label")).to_have_text(str(int(strokes.reference.logits[0].argmax())))
        page.locator("#model").select_option("white-on-black")
        expect(page.locator("#picture-hint")).to_contain_text("one, centred, white on black.")


@pytest.mark.slow
@pytest.mark.parametrize(
    "gesture",
    [
        "window.dispatchEvent(new DragEvent('drop', { dataTransfer: files, cancelable: true }))",
        "document.dispatchEvent(new ClipboardEvent('paste', { clipboardData: files }))",
    ],
    ids=["dropped", "pasted"],
)
def test_a_picture_can_be_dropped_and_pasted(page: Page, gesture: str) -> None:
    expect(page.locator("#work")).to_be_visible()
    page.evaluate(
        f"""(bytes) => {{
            const files = new DataTransfer();
            files.items.add(new File([new Uint8Array(bytes)], "given.png", {{ type: "image/png" }}));
            {gesture};
        }}""",
        list(png()),
    )
    expect(page.locator("#bars li")).to_have_count(5)
    expect(page.locator("#caption")).to_contain_text("given.png")


@pytest.mark.slow
@pytest.mark.parametrize("strokes_drawn", [SEVEN, SMALL_SEVEN], ids=["large", "small and in a corner"])
def test_a_drawn_seven_is_sent_as_mnist_has_its_digits_and_read_as_one(
    page: Page, strokes_drawn: Sequence[Stroke]
) -> None:
    draw(page, *strokes_drawn)
    expect(page.locator("#best-label")).to_have_text("7")
    image = last_sent(page)
    assert (image.format, image.size) == ("PNG", (28, 28))
    levels = np.asarray(image.convert("L")).astype(float)
    ink = np.argwhere(levels > 0)
    assert levels[0].max() == 0  # black around
    assert levels.max() == 255  # white on it
    assert 19 <= np.ptp(ink, axis=0).max() + 1 <= 21
    centre = (np.indices(levels.shape) * levels).sum((1, 2)) / levels.sum()
    assert np.abs(centre - 14).max() <= 0.75
    assert 0.06 <= levels.mean() / 255 <= 0.16  # MNIST's sevens: 0.116 on average


@pytest.mark.slow
def test_an_answer_to_an_older_drawing_never_shows(page: Page) -> None:
    held: list[Route] = []
    page.route("**/predict?*", lambda route: held.append(route), times=1)  # noqa: PLW0108  Playwright needs a function
    draw(page, ONE)
    draw(page, ONE)
    expect(page.locator("#bars li")).to_have_count(5)
    newer = page.locator("#bars").inner_text()
    (older,) = held
    older.fulfill(json={"model": "strokes", "version": 3, "predictions": [{"label": "late", "probability": 1}]})
    page.evaluate("fetch('models').then((response) => response.text())")  # time enough for the late answer
    assert page.locator("#bars").inner_text() == newer


@pytest.mark.slow
def test_undo_takes_back_a_stroke_and_clear_all_of_them(page: Page) -> None:
    draw(page, SEVEN[0])
    first = last_sent(page).tobytes()
    draw(page, ONE)
    assert last_sent(page).tobytes() != first
    with page.expect_request("**/predict?*"):
        page.locator("#undo").click()
    assert last_sent(page).tobytes() == first
    page.locator("#clear").click()
    expect(page.locator("#bars li")).to_have_count(0)
    expect(page.locator("#waiting")).to_be_visible()
    expect(page.locator("#undo")).to_be_disabled()


@pytest.mark.slow
def test_an_error_shows_its_reason_and_its_code(page: Page) -> None:
    choose(page, b"no image at all")
    expect(page.locator("#problem")).to_be_visible()
    answer = httpx2.post(page.url + "predict", files={"file": b"no image at all"}).json()
    assert page.locator("#problem-text").text_content() == answer["detail"]
    expect(page.locator("#problem-code")).to_have_text(f"{answer['status']} {answer['code']}")
    choose(page, png())
    expect(page.locator("#bars li")).to_have_count(5)
    expect(page.locator("#problem")).to_be_hidden()


@pytest.mark.slow
def test_what_is_like_nothing_the_model_was_trained_on_is_said_to_be_without_moving_the_bars(
    chromium: Browser, strokes: Checkpoint, tmp_path: Path
) -> None:
    for model, threshold in (("familiar", -1e9), ("strange", 1e9)):
        section = OutOfDistribution(method="energy", threshold=threshold)
        publish(tmp_path, 1, saying(strokes, out_of_distribution=section), model=model)
    publish(tmp_path, 1, saying(strokes, out_of_distribution=None), model="says-nothing")
    words = "This looks like nothing the model was trained on."
    with serving(tmp_path, "--device", "cpu") as server, opened(chromium, server.url) as page:
        choose(page, png())
        expect(page.locator("#from")).to_contain_text("familiar, version 1")
        expect(page.locator("#strange")).to_be_hidden()
        assert words not in page.locator("#spoken").inner_text()
        place = page.locator("#bars").bounding_box()
        page.locator("#model").select_option("strange")
        expect(page.locator("#strange")).to_be_visible()
        expect(page.locator("#strange")).to_have_text(words)
        expect(page.locator("#spoken")).to_contain_text(words)  # for those who listen
        assert page.locator("#bars").bounding_box() == place
        page.locator("#model").select_option("says-nothing")
        expect(page.locator("#from")).to_contain_text("says-nothing, version 1")
        expect(page.locator("#strange")).to_be_hidden()
        higher = page.locator("#bars").bounding_box()
        assert place is not None
        assert higher is not None
        assert higher["y"] < place["y"]  # no room is kept for what is never said
        page.locator("#model").select_option("strange")
        expect(page.locator("#strange")).to_be_visible()
        choose(page, b"no image at all")
        expect(page.locator("#problem")).to_be_visible()
        expect(page.locator("#strange")).to_be_hidden()


@pytest.mark.slow
def test_a_picture_that_comes_before_the_list_of_models_is_answered(
    chromium: Browser, url: str, strokes: Checkpoint
) -> None:
    with opened(chromium, url) as page:

        def choose_before(route: Route) -> None:
            choose(page, strokes.reference.encoded[0])
            route.continue_()

        page.route("**/models", choose_before)
        page.reload()
        expect(page.locator("#best-label")).to_have_text(str(int(strokes.reference.logits[0].argmax())))


@pytest.mark.slow
def test_hostile_names_are_shown_as_text(chromium: Browser, strokes: Checkpoint, tmp_path: Path) -> None:
    labels = tuple(f"<img src=x onerror=alert({digit})>" for digit in range(10))
    hostile = replace(strokes, manifest=strokes.manifest.model_copy(update={"labels": labels}))
    publish(tmp_path, 1, hostile, model="hostile")
    with serving(tmp_path, "--device", "cpu") as server, opened(chromium, server.url) as page:
        choose(page, strokes.reference.encoded[0], name="<script>alert('name')</script>.png")
        best = labels[int(strokes.reference.logits[0].argmax())]
        expect(page.locator("#best-label")).to_have_text(best)
        expect(page.locator("#bars li").first).to_contain_text(best)
        expect(page.locator("#about")).to_contain_text("<img src=x onerror")
        expect(page.locator("#caption")).to_contain_text("<script>alert('name')</script>.png")
        expect(page.locator("#bars img, #about img, #caption script")).to_have_count(0)


@pytest.mark.slow
def test_of_several_models_one_is_chosen_and_only_grey_ones_can_be_drawn_for(
    chromium: Browser, strokes: Checkpoint, tmp_path: Path
) -> None:
    publish(tmp_path, 1, strokes, model="strokes")
    publish(tmp_path, 1, checkpoint(architecture="resnet18", preprocess=PHOTOS), model="photos")
    with serving(tmp_path, "--device", "cpu") as server, opened(chromium, server.url) as page:
        expect(page.locator("#model option")).to_have_text(["photos", "strokes"])
        expect(page.locator("#drawing")).to_be_hidden()
        choose(page, png())
        expect(page.locator("#from")).to_contain_text("photos, version 1")
        page.locator("#model").select_option("strokes")
        expect(page.locator("#from")).to_contain_text("strokes, version 1")  # the same picture, asked again
        expect(page.locator("#drawing")).to_be_visible()


@pytest.mark.slow
def test_an_empty_store_shows_the_training_command_until_a_model_is_served(
    chromium: Browser, strokes: Checkpoint, tmp_path: Path
) -> None:
    with serving(tmp_path, "--device", "cpu") as server, opened(chromium, server.url) as page:
        expect(page.locator("#empty")).to_contain_text("No model is served yet")
        expect(page.locator("#empty")).to_contain_text("python -m training strokes")
        expect(page.locator("#work")).to_be_hidden()
        publish(tmp_path, 1, strokes, model="strokes")
        expect(page.locator("#work")).to_be_visible(timeout=PATIENCE * 1000)
        expect(page.locator("#empty")).to_be_hidden()
        expect(page.locator("#choice")).to_be_hidden()  # one model: nothing to choose


@pytest.mark.slow
def test_the_reference_shows_every_operation_and_example(chromium: Browser, url: str) -> None:
    document = httpx2.get(f"{url}/openapi.json").json()
    with opened(chromium, url, "/docs") as page:
        for path, item in document["paths"].items():
            for method, operation in item.items():
                article = page.locator(f"article#{operation['operationId']}")
                expect(article.locator("h2")).to_have_text(operation["summary"])
                expect(article.locator(".path")).to_have_text(f"{method.upper()} {path}")
                expect(article.locator(".status")).to_have_text(sorted(operation["responses"]))
                assert "curl " in article.inner_text()
        predict = page.locator("article#predict")
        expect(predict).to_contain_text(f"curl -F file=@seven.png {url}/predict")
        expect(predict).to_contain_text('"probability": 0.999989')
        expect(predict.locator(".name", has_text="top_k")).to_be_visible()


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_narrow_screen_needs_no_scrolling_sideways(chromium: Browser, url: str, path: str) -> None:
    with opened(chromium, url, path, width=360) as page:
        expect(page.locator("h2:visible").first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_the_pages_come_with_a_strict_policy(url: str, path: str) -> None:
    policy = httpx2.get(f"{url}{path}").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy


@pytest.mark.slow
@pytest.mark.parametrize("file", sorted(WEB.iterdir()), ids=lambda file: file.name)
def test_no_file_needs_another_origin_or_a_looser_policy(file: Path) -> None:
    text = file.read_text().replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert re.findall(r"(?:https?:)?//\w[\w.]*|\burl\(|@import", text) == []
    # Under a path prefix an address that starts at the root would miss the server.
    assert re.findall(r"""(?:src|href|fetch\()=?["'`]/""", text) == []
    assert re.findall(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)|javascript:", text) == []
    assert (
        re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc", text) == []
    )
