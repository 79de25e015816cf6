// Signing in and out, where the server has a key. The key goes to the server once and is not kept; the server
// answers with a cookie that scripts can't read.
import {ApiError, call} from "./api.js";
import {find, reveal} from "./dom.js";

export class SignIn {
  /// done(): someone has signed in.
  constructor(done) {
    this.done = done;
    find("sign-in-form").addEventListener("submit", event => {
      event.preventDefault();
      this.send();
    });
    find("sign-out").addEventListener("click", () => this.leave());
    window.addEventListener("mdm:signed-out", () => this.ask());
  }

  /// Whether the server lets this page in; asks for the key otherwise.
  async passed() {
    const state = await call("GET", "/mdm/v1/session");
    reveal(find("sign-out"), state.key_needed && state.signed_in);
    if (!state.key_needed || state.signed_in) return true;
    this.ask();
    return false;
  }

  ask() {
    if (!find("sign-in").hidden) return;
    reveal(find("studio"), false);
    reveal(find("sign-out"), false);
    reveal(find("sign-in"), true);
    find("key").focus();
  }

  showError(message) {
    find("key-error").textContent = message ?? "";
    reveal(find("key-error"), message !== null);
    if (message === null) find("key").removeAttribute("aria-invalid");
    else find("key").setAttribute("aria-invalid", "true");
  }

  async send() {
    const field = find("key");
    this.showError(null);
    try {
      await call("POST", "/mdm/v1/session", {key: field.value});
    } catch (error) {
      const wrong = error instanceof ApiError && (error.status === 401 || error.status === 403);
      this.showError(wrong ? "This is not the server's key." : error.message);
      field.focus();
      return;
    }
    field.value = "";
    reveal(find("sign-in"), false);
    this.done();
  }

  async leave() {
    try {
      await call("DELETE", "/mdm/v1/session");
    } finally {
      this.ask();
    }
  }
}
