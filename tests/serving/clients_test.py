#!/usr/bin/env python3
"""web_demo called by real clients: the packages openai and requests; and its OpenAPI description, checked by
openapi-spec-validator and held against what the server really answers.

usage: clients_test.py WEB_DEMO    (needs those packages, see scripts/setup.sh --dev; exit code 77 without them)
"""

import base64
import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "browser"))
try:
    import jsonschema
    import openai
    import openapi_spec_validator
    import requests
    from png_pixels import decode
    from web_demo_process import WebDemo
except ImportError as error:
    print("skipped:", error)
    sys.exit(77)

KEY = "a key of the client tests"
ORDER = {"prompt": "a red circle", "num_inference_steps": 4, "seed": 7}


class Clients(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = WebDemo(PROGRAM, "--max-jobs-per-client", "20", key=KEY)
        cls.addClassCleanup(cls.server.stop)
        cls.url = cls.server.url.rstrip("/")
        cls.session = requests.Session()
        cls.session.headers["Authorization"] = "Bearer " + KEY
        cls.addClassCleanup(cls.session.close)
        cls.description = requests.get(cls.url + "/openapi.json", timeout=30).json()

    def call(self, method, path, expected, pattern=None, **options):
        """A request whose answer must be what the description says of that status."""
        answer = self.session.request(method, self.url + path, timeout=120, **options)
        self.assertEqual(answer.status_code, expected, answer.text[:500])
        operation = self.description["paths"][pattern or path][method.lower()]
        response = operation["responses"][str(expected)]
        (kind, content), = response["content"].items()
        self.assertEqual(answer.headers["Content-Type"].split(";")[0], kind)
        if kind == "application/json":
            schema = {**content["schema"], "components": self.description["components"]}
            jsonschema.validate(answer.json(), schema, cls=jsonschema.Draft202012Validator)
        return answer

    def finished(self, order):
        job = self.call("POST", "/mdm/v1/jobs", 202, json=order).json()
        path = "/mdm/v1/jobs/" + job["id"]
        # Streams until the job has ended.
        events = self.call("GET", path + "/events", 200, "/mdm/v1/jobs/{id}/events").text
        self.assertIn('"state":"done"', events)
        return self.call("GET", path, 200, "/mdm/v1/jobs/{id}").json()

    def pixels(self, url, pattern):
        return decode(self.call("GET", url, 200, pattern).content)

    def test_the_description_is_valid(self):
        openapi_spec_validator.validate(self.description)

    def test_native_answers_are_as_described(self):
        models = self.call("GET", "/mdm/v1/models", 200).json()
        name = models["default"]
        self.call("GET", "/mdm/v1/models/" + name, 200, "/mdm/v1/models/{name}")
        self.call("POST", f"/mdm/v1/models/{name}/tokens", 200, "/mdm/v1/models/{name}/tokens", json={"text": "a red circle"})
        self.call("GET", "/mdm/v1/jobs", 200)
        self.call("GET", "/healthz", 200)
        self.call("GET", "/metrics", 200)
        job = self.finished({**ORDER, "look_inside": True})
        path = "/mdm/v1/jobs/" + job["id"]
        for part in ("path", "attention", "time"):
            self.call("GET", f"{path}/{part}", 200, "/mdm/v1/jobs/{id}/" + part)
        self.pixels(path + "/path/0/noisy/0.png", "/mdm/v1/jobs/{id}/path/{frame}/{view}/{level}.png")
        self.call("DELETE", path, 200, "/mdm/v1/jobs/{id}")
        self.call("POST", path + "/cancel", 200, "/mdm/v1/jobs/{id}/cancel", json={})
        self.call("GET", "/mdm/v1/session", 200)

    def test_errors_are_as_described(self):
        self.call("POST", "/mdm/v1/jobs", 400, json={"prompt": "x", "num_inference_steps": 0})
        self.call("POST", "/mdm/v1/jobs", 404, json={"prompt": "x", "model": "none"})
        self.call("GET", "/mdm/v1/jobs/" + 32 * "0", 404, "/mdm/v1/jobs/{id}")
        self.call("POST", "/mdm/v1/session", 401, json={"key": "wrong"})
        self.call("POST", "/v1/images/generations", 400, json={"prompt": "x", "size": "7x7"})
        self.call("POST", "/sdapi/v1/txt2img", 422, json={"prompt": "x", "enable_hr": True})
        self.assertEqual(requests.get(self.url + "/mdm/v1/models", timeout=30).status_code, 401)

    def test_the_openai_client(self):
        client = openai.OpenAI(base_url=self.url + "/v1", api_key=KEY, max_retries=0)
        self.addCleanup(client.close)
        names = [model.id for model in client.models.list()]
        self.assertIn("shapes_32", names)
        made = client.images.generate(model="shapes_32", prompt=ORDER["prompt"], n=2, size="32x32", response_format="b64_json",
                                      extra_body={"num_inference_steps": 4, "seed": 7})
        self.assertEqual(len(made.data), 2)
        job = self.finished({**ORDER, "num_samples": 2})
        for picture, ours in zip(made.data, job["pictures"]):
            self.assertEqual(decode(base64.b64decode(picture.b64_json)),
                             self.pixels(ours["url"], "/mdm/v1/jobs/{id}/pictures/{index}.png"))
        with self.assertRaises(openai.NotFoundError):
            client.images.generate(model="dall-e-3", prompt="x")
        with self.assertRaises(openai.BadRequestError) as refused:
            client.images.generate(model="shapes_32", prompt="x", n=100)
        self.assertEqual(refused.exception.param, "num_samples")
        with self.assertRaises(openai.AuthenticationError):
            openai.OpenAI(base_url=self.url + "/v1", api_key="wrong", max_retries=0).models.list()

    def test_a_client_of_the_web_ui(self):
        # What sdwebuiapi and the web UI's own documentation send.
        payload = {"enable_hr": False, "denoising_strength": 0.0, "styles": [], "prompt": ORDER["prompt"], "seed": 7, "subseed": -1,
                   "subseed_strength": 0.0, "batch_size": 1, "n_iter": 1, "steps": 4, "cfg_scale": 3, "width": 32, "height": 32,
                   "restore_faces": False, "tiling": False, "do_not_save_samples": False, "do_not_save_grid": False,
                   "negative_prompt": "", "override_settings": {}, "override_settings_restore_afterwards": True,
                   "script_args": [], "send_images": True, "save_images": False, "alwayson_scripts": {}, "s_churn": 0, "s_tmax": 0,
                   "s_tmin": 0, "s_noise": 0, "sampler_index": "Euler", "sampler_name": "Euler"}
        body = self.call("POST", "/sdapi/v1/txt2img", 200, json=payload).json()
        job = self.finished({**ORDER, "guidance_scale": 3, "sampler": "euler"})
        self.assertEqual(decode(base64.b64decode(body["images"][0])),
                         self.pixels(job["pictures"][0]["url"], "/mdm/v1/jobs/{id}/pictures/{index}.png"))
        self.call("GET", "/sdapi/v1/sd-models", 200)
        self.call("GET", "/sdapi/v1/samplers", 200)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    PROGRAM = sys.argv.pop(1)
    unittest.main()
