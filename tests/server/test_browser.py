"""The page at `/` in a real browser: Debian's Chromium, driven by selenium.

Needs the packages `chromium` and `chromium-driver` (or Chrome and its driver on the PATH).
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

from support import onnx_models
from support.server_process import ServerProcess, infer_body, server

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
EVIL = "<b>m</b>"
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER),
    reason="optional: no Chromium with its driver; 'apt-get install chromium chromium-driver' brings both",
)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("page")
    models = {
        "m": onnx_models.identity(),
        "half": onnx_models.identity("FP16", ("n", 2)),
        "wide": onnx_models.identity("FP32", ("n", 5000)),
        "odd": onnx_models.build_named_input(EVIL),
    }
    flags = []
    for name, model in models.items():
        flags += ["--model", f"{name}={onnx_models.write(model, folder / f'{name}.onnx')}"]
    with server(folder / "s", "--allow-repository-control", *flags) as running:
        running.wait_ready()
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    assert CHROMIUM is not None
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1100,1600",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    try:
        yield browser
    finally:
        browser.quit()


class Page:
    def __init__(self, browser: webdriver.Chrome, url: str) -> None:
        self.browser = browser
        browser.get(url)
        self.wait(lambda: self.find("#request").get_attribute("value"))

    def wait(self, condition: object, seconds: float = 20) -> None:
        WebDriverWait(self.browser, seconds, 0.05).until(lambda _: condition())  # type: ignore[operator]

    def find(self, selector: str) -> WebElement:
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def card(self, name: str) -> WebElement:
        cards = self.browser.find_elements(By.CSS_SELECTOR, "article")
        return next(card for card in cards if card.find_element(By.CSS_SELECTOR, "h3").text == name)

    def figures(self, name: str) -> dict[str, str]:
        """Read at once: between two calls the page may have changed."""
        script = """
            const named = (card) => card.querySelector("h3").textContent === arguments[0];
            const card = [...document.querySelectorAll("article")].find(named);
            const cells = [...card.querySelectorAll(".figures div")];
            return cells.map((cell) => [cell.firstChild.textContent, cell.lastChild.textContent]);"""
        return dict(self.browser.execute_script(script, name))

    def names(self) -> list[str]:
        script = 'return [...document.querySelectorAll("h3")].map((h) => h.textContent)'
        return list(self.browser.execute_script(script))

    def choose(self, name: str) -> None:
        Select(self.find("#model")).select_by_visible_text(f"{name} version 1")

    def send(self) -> str:
        self.browser.execute_script("document.getElementById('outcome').textContent = ''")
        self.find("#try button").click()
        self.wait(lambda: self.find("#outcome").text not in {"", "Sent…"})
        return self.find("#outcome").text


@pytest.fixture
def page(browser: webdriver.Chrome, running: ServerProcess) -> Page:
    return Page(browser, f"http://127.0.0.1:{running.port}/")


def test_models_with_their_tensors_and_what_was_found_about_batches(page: Page) -> None:
    card = page.card("m")
    assert card.find_element(By.CSS_SELECTOR, ".state").text == "ready"
    rows = [row.text for row in card.find_elements(By.CSS_SELECTOR, "tbody tr")]
    assert rows == ["input x FP32 [any, 3]", "output y FP32 [any, 3]"]
    assert card.find_element(By.CSS_SELECTOR, ".batching").text.startswith(("Batching on: ", "Batching off: "))
    assert page.find("#server").text.startswith("version ")
    assert " ready " in page.find("#server").text


def test_the_form_holds_a_valid_request(page: Page) -> None:
    page.choose("m")
    assert page.find("#path").text == "/v2/models/m/versions/1/infer"
    assert page.send().startswith("200 OK")
    answer = json.loads(page.find("#answer").text)
    assert answer["outputs"][0]["data"] == [0.5, 0.5, 0.5]
    page.find("summary").click()
    assert page.find("#curl").text.startswith("curl -s 'http://127.0.0.1:")


def test_half_precision_goes_by_the_plain_route(page: Page) -> None:
    page.choose("half")
    assert page.find("#path").text == "/model"
    assert page.send().startswith("200 OK")
    assert json.loads(page.find("#answer").text) == {"output_data": [[0.5, 0.5]]}


def test_a_mistake_is_told(page: Page) -> None:
    page.choose("m")
    page.browser.execute_script("document.getElementById('request').value = '{'")
    assert page.send().startswith("400")
    assert "error" in page.find("#answer").text


def test_what_is_too_large_to_show(page: Page) -> None:
    page.choose("wide")
    assert page.find("#request").get_attribute("value") == ""
    assert "Too large" in page.find("#outcome").text


def test_figures_are_live(page: Page, running: ServerProcess) -> None:
    before = int(page.figures("m")["Requests"])
    for _ in range(20):
        assert running.call("POST", "/v2/models/m/infer", infer_body())[0] == 200
    page.wait(lambda: int(page.figures("m")["Requests"]) == before + 20)
    figures = page.figures("m")
    assert figures["p50"].endswith(" ms")
    assert figures["p99"].endswith("s")
    assert figures["Queue"] == "0"
    assert float(figures["Per second"]) > 0


def test_models_come_and_go_without_a_reload(page: Page, running: ServerProcess) -> None:
    assert running.call("POST", "/v2/repository/models/half/unload")[0] == 200
    page.wait(lambda: "half" not in page.names())
    assert running.call("POST", "/v2/repository/models/half/load")[0] == 200
    page.wait(lambda: "half" in page.names())


def test_names_are_text(page: Page) -> None:
    assert EVIL in page.card("odd").text


def test_nothing_is_wrong_with_it(page: Page) -> None:
    """No error on the console (a blocked script or style would be one), every field labelled, no sideways scrolling."""
    log = page.browser.get_log("browser")  # type: ignore[no-untyped-call]
    assert [entry for entry in log if entry["level"] == "SEVERE" and "400" not in entry["message"]] == []
    labels = {label.get_attribute("for") for label in page.browser.find_elements(By.TAG_NAME, "label")}
    assert labels == {"key", "model", "request"}
    assert page.find("html").get_attribute("lang") == "en"
    page.browser.set_window_size(400, 900)
    assert page.browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    page.browser.set_window_size(1100, 1600)


def test_a_server_with_keys_is_shown_one(browser: webdriver.Chrome, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"team infer sha256:{hashlib.sha256(b'right').hexdigest()}\n")
    model = onnx_models.write(onnx_models.identity(), tmp_path / "m.onnx")
    with server(tmp_path / "s", "--model", f"m={model}", "--api-keys", str(keys)) as running:
        running.wait_ready()
        browser.get(f"http://127.0.0.1:{running.port}/")
        wait = WebDriverWait(browser, 20, 0.05)
        field = wait.until(lambda b: (found := b.find_element(By.ID, "key")).is_displayed() and found)
        field.send_keys("wrong", Keys.ENTER)
        wait.until(lambda b: "not known" in b.find_element(By.ID, "refused").text)
        field.clear()
        field.send_keys("right", Keys.ENTER)
        wait.until(lambda b: b.find_element(By.ID, "request").get_attribute("value"))
        assert not field.is_displayed()
        browser.find_element(By.CSS_SELECTOR, "#try button").click()
        wait.until(lambda b: "200" in b.find_element(By.ID, "outcome").text)
        assert "Bearer $KEY" in str(browser.find_element(By.ID, "curl").get_attribute("textContent"))
        assert "right" not in browser.page_source
        browser.get_log("browser")  # type: ignore[no-untyped-call] # refusals are in it
