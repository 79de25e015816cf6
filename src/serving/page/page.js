// The page as a whole: what is asked for at the start, and what happens between its parts.
import {ApiError, call, kFinished, watchJob} from "./api.js";
import {announce, debounce, find, make, reveal} from "./dom.js";
import {Inside} from "./look_inside.js";
import {clearLink, linkedSettings} from "./link.js";
import {Prompt} from "./prompt.js";
import {Session} from "./session.js";
import {Settings} from "./settings.js";
import {SignIn} from "./sign_in.js";
import {Stage} from "./stage.js";
import {remember, remembered, rememberTheme, rememberedTheme} from "./store.js";
import {count, plural, sentence} from "./words.js";

const keepSoon = debounce(() => keepDraft(), 200);
const prompt = new Prompt(() => keepSoon());
const settings = new Settings(() => keepSoon());
const stage = new Stage({cancel: cancelJob, reuse: reuseJob, again: againJob});
const inside = new Inside();
const signIn = new SignIn(() => begin());
let session = null;
let models = [];
let model = null;
let unwatch = () => {};

function keepDraft() {
  if (model === null) return;
  remember("draft", {...prompt.draft(), model: model.name, settings: settings.edits(), preview: find("preview").checked,
                     look: find("look-inside").checked});
}

// --- models ---

function chooseModel(name) {
  const chosen = models.find(one => one.name === name) ?? models[0];
  find("model").selectedIndex = models.indexOf(chosen);
  if (model === chosen) return;
  model = chosen;
  const sides = (model.levels ?? []).map(level => level.side).join(" and ");
  find("model-note").textContent = [`${count(model.parameters)} parameters`, sides && `${sides} pixels`,
    model.precision, model.device].filter(part => part).join(" · ");
  settings.build(model.settings ?? []);
  prompt.setModel(model);
  inside.setModel(model.name);
}

// --- jobs ---

function showJob(job) {
  unwatch();
  unwatch = () => {};
  stage.show(job);
  inside.setJob(job);
  if (job === null) return;
  session.choose(job.id);
  if (job.model !== model.name && models.some(one => one.name === job.model)) inside.setModel(job.model);
  if (job.state === "gone") {
    goneJob(job.id);
    return;
  }
  if (kFinished.includes(job.state)) return;
  unwatch = watchJob(job.id, {
    state: now => {
      stage.update(now);
      session.update(now);
      inside.update(now);
    },
    progress: data => {
      stage.progress(data);
      inside.progress(data);
    },
    preview: data => stage.preview(data),
    connection: up => stage.connection(up),
    gone: error => {
      if (error.status === 401) return;
      session.gone(job.id);
      goneJob(job.id);
    },
  });
}

function goneJob(id) {
  const job = session.jobs.find(one => one.id === id);
  if (job === undefined) return;
  const message = "The server no longer has this picture. Its settings are still here.";
  stage.show({...job, pictures: [], error: {message}});
  inside.setJob(null);
}

async function cancelJob(job) {
  try {
    const now = await call("DELETE", `/mdm/v1/jobs/${job.id}`);
    if (session.shown === job.id) stage.update(now);
    session.update(now);
    inside.update(now);
  } catch (error) {
    stage.cancel.disabled = false;
    showTrouble(error, () => cancelJob(job));
  }
}

function reuseJob(job) {
  chooseModel(job.model);
  const {prompt: text, negative_prompt: negative, ...rest} = job.settings;
  prompt.write(text, negative);
  settings.write(rest);
  announce("The settings are in the form.");
  find("prompt").focus();
}

// The same once more with a seed of its own.
function againJob(job) {
  const {seed, ...rest} = job.settings;
  start({model: job.model, ...withoutUnset(rest), look_inside: find("look-inside").checked,
         preview: find("preview").checked});
}

function withoutUnset(values) {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => (value ?? null) !== null));
}

// --- starting ---

function clearErrors() {
  prompt.clearErrors();
  settings.clearErrors();
  reveal(find("refusal"), false);
  reveal(find("model-error"), false);
}

function drawForm() {
  clearErrors();
  if (model === null || !settings.check()) return;
  start({model: model.name, ...prompt.values(), ...settings.values(), look_inside: find("look-inside").checked,
         preview: find("preview").checked});
}

async function start(request) {
  clearErrors();
  const button = find("draw");
  if (button.getAttribute("aria-disabled") === "true") return;
  button.setAttribute("aria-disabled", "true");
  try {
    const job = await call("POST", "/mdm/v1/jobs", request);
    session.add(job);
    showJob(job);
    announce("Your picture is in the queue.");
    const top = find("stage").getBoundingClientRect().top;
    if (top > window.innerHeight * 0.7 || top < -200) find("stage").scrollIntoView({block: "start"});
  } catch (error) {
    refuse(error, request);
  } finally {
    button.removeAttribute("aria-disabled");
  }
}

function refuse(error, request) {
  if (!(error instanceof ApiError)) throw error;
  if (error.status === 401) return;
  const named = `${error.field}: `;
  const words = sentence(error.message.startsWith(named) ? error.message.slice(named.length) : error.message);
  if (error.field === "prompt" || error.field === "negative_prompt") {
    prompt.showError(error.field, words);
  } else if (error.field === "model") {
    find("model-error").textContent = words;
    reveal(find("model-error"), true);
    find("model").focus();
  } else if (error.field === null || !settings.showError(error.field, words)) {
    showRefusal(words, error, request);
  }
}

// Why nothing was started, beside the button; and, when that passes, a button that tries again.
function showRefusal(words, error, request) {
  const box = find("refusal");
  const seconds = Math.ceil(error.retryAfter ?? 0);
  const wait = seconds > 0 ? ` Please wait ${plural(seconds, "second", "seconds")}.` : "";
  box.replaceChildren(make("p", {}, words + wait));
  if (error.passing) {
    box.append(make("button", {type: "button", class: "quiet", onclick: () => start(request)}, "Try again"));
  }
  reveal(box, true);
}

// --- trouble of the whole page ---

function showTrouble(error, again) {
  if (error instanceof ApiError && error.status === 401) return;
  const box = find("trouble");
  box.replaceChildren(make("span", {}, error.message), make("button", {type: "button", class: "quiet", onclick: () => {
    reveal(box, false);
    again();
  }}, "Try again"));
  reveal(box, true);
}

// --- colours ---

const kThemes = [null, "light", "dark"];

function showTheme(theme) {
  if (theme === null) delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  const words = `Colours: ${theme ?? "system"}`;
  find("theme-sign").textContent = {light: "☀", dark: "☾"}[theme] ?? "◐";
  find("theme-words").textContent = words;
  find("theme").setAttribute("aria-label", words);
}

function nextTheme() {
  const theme = kThemes[(kThemes.indexOf(document.documentElement.dataset.theme ?? null) + 1) % kThemes.length];
  rememberTheme(theme);
  showTheme(theme);
}

// --- beginning ---

function takeLink() {
  const linked = linkedSettings();
  if (linked === null) return false;
  clearLink();
  if (linked.model !== null) chooseModel(linked.model);
  settings.reset();
  prompt.write(linked.prompt, linked.negative_prompt);
  settings.write(linked.settings);
  announce("The settings of the link are in the form.");
  return true;
}

function takeDraft() {
  const draft = remembered("draft", null);
  if (draft === null) {
    chooseModel(find("model").value);
    return;
  }
  chooseModel(draft.model);
  settings.write(draft.settings ?? {});
  prompt.restore(draft);
  find("preview").checked = draft.preview !== false;
  find("look-inside").checked = draft.look !== false;
}

async function begin() {
  try {
    if (!await signIn.passed()) return;
    const answer = await call("GET", "/mdm/v1/models");
    models = answer.models;
    find("model").replaceChildren(...models.map(one => make("option", {value: one.name}, one.name)));
    find("model").value = answer.default;
    reveal(find("studio"), true);
    model = null;
    takeDraft();
    takeLink();
    session ??= new Session(showJob);
    showJob(session.shownJob);
    document.documentElement.dataset.ready = "yes";
  } catch (error) {
    showTrouble(error, begin);
    if (!(error instanceof ApiError)) throw error;
  }
}

find("form").addEventListener("submit", event => {
  event.preventDefault();
  drawForm();
});
find("model").addEventListener("change", () => {
  chooseModel(find("model").value);
  keepDraft();
});
for (const id of ["preview", "look-inside"]) find(id).addEventListener("change", keepDraft);
find("theme").addEventListener("click", nextTheme);
window.addEventListener("hashchange", () => {
  if (model !== null) takeLink();
});
window.addEventListener("pagehide", keepDraft);
showTheme(rememberedTheme());
if (window.matchMedia("(max-width: 60rem)").matches) find("settings").open = false;
begin();
