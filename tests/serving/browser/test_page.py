#!/usr/bin/env python3
"""The page of web_demo in a real browser: from the prompt to the picture, and the look inside.

usage: test_page.py [WEB_DEMO [SAMPLE]] [unittest's options]    (or the variables MDM_WEB_DEMO and MDM_SAMPLE)

Needs chromium, chromedriver and the Python package selenium (Debian: chromium, chromium-driver, python3-selenium);
exit code 77 where one is missing.
"""

import json
import os
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
try:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import Select

    from page_case import PageCase
    from web_demo_process import CHECKPOINT, CHROMIUM, DRIVER, ROOT, Relay, WebDemo
except ImportError as error:
    print("skipped:", error)
    sys.exit(77)
from png_pixels import decode

PROMPT = "a red circle left of a blue square"
MARKUP = '<script>window.broken = 1</script>"><img src=x onerror="window.broken = 2">'
KEY = "a key of the browser tests"
TABS = ("path", "guidance", "noise", "attention", "time", "structure", "config")

class Page(PageCase):
    """The whole way of a picture, and what may go wrong on it."""

    def test_a_prompt_becomes_the_picture_of_sample(self):
        self.settings(steps=4, seed=7)
        self.start(PROMPT)
        self.wait_done()
        shown = decode(self.picture())
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([SAMPLE, "--checkpoint", CHECKPOINT, "--prompt", PROMPT, "--seed", "7",
                            "--num-inference-steps", "4", "--guidance-scale", "3", "--sample-dir", folder,
                            "--gallery", "no", "--grid", "no"], check=True, capture_output=True,
                           env={**os.environ, "OMP_WAIT_POLICY": "passive"})
            with open(os.path.join(folder, "sample_000000.png"), "rb") as file:
                drawn = decode(file.read())
        self.assertEqual((32, 32), shown[:2])
        self.assertGreater(len(set(shown[3])), 8)
        self.assertTrue(drawn == shown, "the pixels are those of sample")
        self.assertIn("seed 7", self.text("figcaption"))

    def test_progress_and_preview_move(self):
        self.open_part("noise")
        self.settings(steps=40)
        self.start(PROMPT)
        self.wait_done()
        seen = self.script("return window.seen")
        self.assertGreater(len(seen["bars"]), 4)
        self.assertEqual(sorted(seen["bars"]), seen["bars"])
        self.assertGreater(len(set(seen["previews"])), 2)
        self.assertTrue(all(url.startswith("data:image/png;base64,") for url in seen["previews"]))
        marks = [float(mark) for mark in seen["marks"]]
        self.assertGreater(len(marks), 1, "the schedule's mark moves while it draws")
        self.assertEqual(sorted(marks, reverse=True), marks)

    def test_cancel_frees_the_worker(self):
        self.settings(steps=1000)
        self.start(PROMPT)
        self.wait_running()
        self.find("cancel").click()
        self.until(lambda: self.status() == "Cancelled", "the job is cancelled")
        self.until(lambda: self.server.json("/mdm/v1/jobs")["running"] == 0, "the worker is free")
        self.settings(steps=2)
        self.start(PROMPT)
        self.wait_done()

    def test_two_tabs_at_once(self):
        first = self.browser.current_window_handle
        self.settings(steps=12, seed=1)
        one = self.start("a red circle")
        second = self.open_tab()
        self.settings(steps=12, seed=1)
        two = self.start("a blue star")
        self.wait_done()
        blue = self.picture()
        self.browser.switch_to.window(first)
        self.wait_done()
        self.assertEqual(("a red circle", one), (self.text(".quote"), self.job_id()))
        self.assertFalse(decode(blue) == decode(self.picture()), "different prompts, different pictures")
        self.browser.switch_to.window(second)
        self.assertEqual(("a blue star", two), (self.text(".quote"), self.job_id()))

    def test_a_reload_finds_the_job_again(self):
        self.settings(steps=120, seed=3)
        job = self.start(PROMPT)
        self.wait_running()
        self.browser.refresh()
        self.wait_ready()
        self.assertEqual(job, self.job_id())
        self.assertEqual((PROMPT, "120", "3"), tuple(self.find(name).get_attribute("value") for name in (
            "prompt", "setting-num_inference_steps", "setting-seed")))
        self.wait_running()
        self.until(lambda: self.script("return window.seen.previews.length") > 0, "previews come again")
        self.find("cancel").click()
        self.until(lambda: self.status() == "Cancelled", "the job is cancelled")

    def test_a_lost_connection_is_found_again(self):
        self.expected = ["net::ERR_"]
        line = Relay(self.server.url)
        self.addCleanup(line.stop)
        self.browser.get(line.url)
        self.wait_ready()
        self.settings(steps=1000)
        job = self.start(PROMPT)
        self.wait_running()
        lost = "return !document.querySelector('.stage .warning').hidden"
        line.cut()
        self.until(lambda: self.script(lost), "the loss is shown")
        line.mend()
        self.until(lambda: not self.script(lost), "the job is followed again")
        at = self.status()
        self.until(lambda: self.status() not in ("", at), "steps are counted on")
        self.assertEqual(job, self.job_id())
        self.find("cancel").click()
        self.until(lambda: self.status() == "Cancelled", "the job is cancelled")

    def test_the_session_keeps_jobs_and_their_settings(self):
        self.settings(steps=2, seed=21)
        Select(self.find("style")).select_by_visible_text("Watercolour")
        first = self.start("a red circle")
        self.wait_done()
        self.assertIn("watercolour", self.text(".quote"))
        Select(self.find("style")).select_by_index(0)
        self.settings(steps=3, seed=22)
        self.start("a blue star")
        self.wait_done()
        self.assertEqual("a blue star", self.text(".quote"))
        self.browser.find_element(By.CSS_SELECTOR, f'[data-job="{first}"]').click()
        self.until(lambda: self.text(".quote").startswith("a red circle"), "the first picture is shown again")
        self.wait_done()
        self.browser.find_element(By.XPATH, "//button[text()='Use these settings']").click()
        self.assertEqual(("2", "21", "None"), tuple(self.find(name).get_attribute("value") for name in (
            "setting-num_inference_steps", "setting-seed", "style")))
        self.assertEqual(self.text(".quote"), self.find("prompt").get_attribute("value"))

    def test_colours(self):
        ground = "return getComputedStyle(document.body).backgroundColor"
        grounds = []
        for _ in range(2):
            self.find("theme").click()
            grounds.append(self.script(ground))
        self.assertEqual("Colours: dark", self.find("theme").get_attribute("aria-label"))
        self.assertNotEqual(*grounds)
        self.browser.refresh()
        self.wait_ready()
        self.assertEqual(grounds[1], self.script(ground))
        self.find("theme").click()
        self.assertEqual("Colours: system", self.find("theme").get_attribute("aria-label"))

    def test_a_look_inside(self):
        self.settings(steps=6, seed=5)
        job = self.start(PROMPT)
        self.wait_done()
        self.check_path()
        self.check_noise()
        self.check_attention()
        self.check_model(self.server.json("/mdm/v1/models/shapes_32"))
        self.open_part("time")
        self.until(lambda: self.count(".bars tbody tr") > 3, "times of blocks")
        blocks = [part["name"] for part in self.server.json(f"/mdm/v1/jobs/{job}/time")["parts"]]
        self.assertEqual(blocks, self.texts(".bars tbody th"))

    def check_path(self):
        drawn = "return [...document.querySelectorAll(arguments[0])].map(canvas => canvas.dataset.drawn)"
        self.open_part("path")
        at = lambda frame: [f"noisy/0/{frame}", f"predicted/0/{frame}"]  # noqa: E731
        self.until(lambda: self.script(drawn, "#panel-path canvas") == at(5), "the last frame")
        self.assertTrue(all(number > 20 for number in self.canvas_colours("#panel-path canvas")))
        self.find("frame-path").send_keys(Keys.HOME)
        self.until(lambda: self.script(drawn, "#panel-path canvas") == at(0), "the first frame")
        self.assertIn("Step 1 of 6", self.text("#panel-path .frame-words"))
        self.browser.find_element(By.CSS_SELECTOR, "#panel-path .play").click()
        self.until(lambda: self.script(drawn, "#panel-path canvas") == at(5), "the path is played to its end")
        self.open_part("guidance")
        self.until(lambda: all(self.script(drawn, "#panel-guidance canvas")), "four pictures")
        colours = self.canvas_colours("#panel-guidance canvas")
        self.assertEqual(4, len(colours))
        self.assertTrue(all(number > 4 for number in colours), colours)

    def check_noise(self):
        self.open_part("noise")
        self.until(lambda: self.count("#panel-noise .plot .mark") == 2, "two plots")
        paths = self.script("""
            const paths = [...document.querySelectorAll("#panel-noise .plot path")];
            return paths.map(path => path.getAttribute("d").length);""")
        self.assertEqual(2, len(paths))
        self.assertTrue(all(length > 500 for length in paths), paths)
        place = "return document.querySelector('#panel-noise .mark').getAttribute('x1')"
        end = self.script(place)
        self.find("frame-noise").send_keys(Keys.HOME)
        self.until(lambda: float(self.script(place)) > float(end), "the mark moves to the noisy side")

    def check_attention(self):
        self.open_part("attention")
        tokens = "return document.querySelectorAll('.attention-token').length"
        self.until(lambda: self.script(tokens) > 0, "tokens of the attention")
        self.assertGreaterEqual(self.script(tokens), 8)
        shown = "return document.querySelector('.attention-picture').toDataURL()"
        buttons = self.browser.find_elements(By.CSS_SELECTOR, ".attention-token")
        buttons[0].click()
        first = self.script(shown)
        buttons[2].click()
        third = self.script(shown)
        self.assertFalse(first == third, "each token has a map of its own")
        layers = Select(self.find("attention-layer"))
        self.assertGreater(len(layers.options), 1)
        layers.select_by_index(len(layers.options) - 1)
        last = self.script(shown)
        self.assertFalse(third == last, "each layer has a map of its own")
        self.find("attention-strength").send_keys(Keys.HOME)
        self.assertFalse(last == self.script(shown), "without the overlay the picture is bare")

    def check_model(self, model):
        self.open_part("structure")
        self.until(lambda: self.text(".tree summary") is not None, "the tree of modules")
        millions = f"{model['structure']['parameters'] / 1e6:.3g} million"
        self.assertIn(millions, self.text(".tree summary"))
        self.assertEqual([child["name"] for child in model["structure"]["children"]],
                         self.texts(".tree > li > details > ul > li .node-name"))
        self.open_part("config")
        number = sum(len(group["fields"]) for group in model["config"])
        rows = "return [...document.querySelectorAll('.config tbody tr')].filter(row => !row.hidden).length"
        self.until(lambda: self.script(rows) == number, "all settings of the config")
        self.find("config-filter").send_keys("temporal_dim")
        self.until(lambda: 0 < self.script(rows) < number, "the filter")

    def test_keyboard_alone(self):
        self.tab_to("prompt")
        self.keys("a blue star")
        self.until(lambda: self.texts("#tokens li")[:3] == ["a", "blue", "star"], "tokens of the prompt")
        self.tab_to("setting-num_inference_steps")
        self.keys(Keys.CONTROL + "a")
        self.keys("3")
        self.tab_to("seed-random")
        self.keys(Keys.ARROW_RIGHT)
        self.tab_to("setting-seed")
        self.keys(Keys.CONTROL + "a")
        self.keys("11" + Keys.ENTER)
        self.until(lambda: self.job_id() is not None, "the job is there")
        self.wait_done()
        self.assertIn("seed 11", self.text("figcaption"))
        self.tab_to("tab-path")
        for name in TABS[1:] + TABS[:1]:
            self.keys(Keys.ARROW_RIGHT)
            self.assertEqual("tab-" + name, self.script("return document.activeElement.id"))
            self.assertTrue(self.script("return !document.getElementById(arguments[0]).hidden", "panel-" + name))
        self.tab_to("frame-path")
        self.keys(Keys.HOME)
        self.until(lambda: "Step 1 of 3" in self.text("#panel-path .frame-words"), "the first frame")

    def test_a_narrow_screen(self):
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                                     {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True})
        self.browser.refresh()
        self.wait_ready()
        self.assert_no_sideways_scroll("at the start")
        self.assertFalse(self.script("return document.getElementById('settings').open"))
        self.settings(steps=2, num_samples=2)
        self.script("document.getElementById('more').open = true")
        self.start("a purple cross below a cyan circle" + " and a" * 20 + "W" * 80)
        self.wait_done()
        self.assert_no_sideways_scroll("with pictures")
        for name in TABS:
            self.open_part(name)
            self.until(lambda: self.count(f"#panel-{name} .note:not([hidden])") == 0, name)
            self.assert_no_sideways_scroll(name)

    def test_markup_is_text(self):
        self.settings(steps=2)
        self.put("negative", MARKUP)
        self.start(MARKUP)
        self.wait_done()
        self.assertEqual(MARKUP, self.text(".quote"))
        self.assertEqual("Not: " + MARKUP, self.text(".words > .hint"))
        for name in TABS:
            self.open_part(name)
        self.start(MARKUP)  # a second one, so that the list of the session is seen
        self.wait_done()
        self.until(lambda: self.text(".past-words") == MARKUP, "the list of the session")
        self.assertIsNone(self.script("return window.broken ?? null"))
        self.assertEqual(0, self.count("script:not([src]), [onerror], img[src=x]"))

    def test_a_link_brings_settings_and_starts_nothing(self):
        self.browser.close()
        self.browser.switch_to.window(self.home)
        self.open_tab(self.server.url + "#model=shapes_32&prompt=a+red+%3Cb%3Ering&guidance_scale=2.5&seed=77"
                                        "&sampler=euler&num_samples=[]&nothing=5&num_inference_steps=many")
        values = {name: self.find(name).get_attribute("value") for name in (
            "prompt", "setting-guidance_scale", "setting-seed", "setting-sampler", "setting-num_samples",
            "setting-num_inference_steps")}
        self.assertEqual({"prompt": "a red <b>ring", "setting-guidance_scale": "2.5", "setting-seed": "77",
                          "setting-sampler": "euler", "setting-num_samples": "1",
                          "setting-num_inference_steps": "50"}, values)
        self.assertNotIn("#", self.browser.current_url)
        self.assertIsNone(self.job_id())

    def test_refusals_stand_where_they_belong(self):
        self.expected = ["status of 400", "status of 429"]
        self.settings(steps=1000)
        self.script("document.getElementById('more').open = true")
        self.put("setting-guidance_start", 0.9)
        self.put("setting-guidance_end", 0.5)
        self.script("document.getElementById('more').open = false")
        self.put("prompt", PROMPT)
        self.find("draw").click()
        self.until(lambda: self.find("setting-guidance_start-error").is_displayed(), "the server's refusal")
        self.assertEqual("setting-guidance_start", self.script("return document.activeElement.id"))
        self.find("reset").click()
        self.settings(steps=1000)
        self.start(PROMPT)
        self.start(PROMPT)  # waits
        self.until(lambda: "queue" in self.status() or "Waiting" in self.status(), "the place in the queue")
        self.find("draw").click()
        self.until(lambda: self.find("refusal").is_displayed(), "too many jobs are refused")
        self.assertIn("Try again", self.text("#refusal"))
        self.cancel_all()
        self.until(lambda: self.server.json("/mdm/v1/jobs")["running"] == 0, "the worker is free")
        before = self.job_id()
        self.browser.find_element(By.CSS_SELECTOR, "#refusal button").click()
        self.until(lambda: self.job_id() != before, "trying again")
        self.wait_running()
        self.cancel_all()
        self.until(lambda: self.status() == "Cancelled", "the job is cancelled")

    def test_a_server_with_a_key(self):
        self.expected = ["status of 401"]
        guarded = WebDemo(self.PROGRAM, key=KEY)
        try:
            self.browser.get(guarded.url)
            self.until(lambda: self.find("sign-in").is_displayed(), "the key is asked for")
            self.find("key").send_keys("not the key" + Keys.ENTER)
            self.until(lambda: self.find("key-error").is_displayed(), "a wrong key is refused")
            self.put("key", KEY)
            self.find("key").send_keys(Keys.ENTER)
            self.until(lambda: self.find("studio").is_displayed(), "the page is there")
            stored = self.script(
                "return JSON.stringify([sessionStorage, localStorage, document.cookie, location.href])")
            self.assertNotIn("key of", stored)
            self.assertNotIn("mdm_session", stored)
            self.settings(steps=2)
            self.put("prompt", PROMPT)
            self.find("draw").click()
            self.wait_done()
            self.find("sign-out").click()
            self.until(lambda: self.find("sign-in").is_displayed(), "signed out")
            self.assertFalse(self.find("studio").is_displayed())
        finally:
            code = guarded.stop()
        self.assertEqual(0, code)
        self.assertNotIn(KEY, guarded.log_text)


def take_program(variable, name):
    """The path of a program: the next argument, a variable, or the build folder's."""
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-") and os.path.isfile(sys.argv[1]):
        return os.path.abspath(sys.argv.pop(1))
    return os.environ.get(variable) or os.path.join(ROOT, "build", "cpu", "bin", name)


PageCase.PROGRAM = take_program("MDM_WEB_DEMO", "web_demo")
SAMPLE = take_program("MDM_SAMPLE", "sample")

if __name__ == "__main__":
    if CHROMIUM is None or DRIVER is None:
        print("skipped: chromium or chromedriver is not there")
        sys.exit(77)
    unittest.main()
