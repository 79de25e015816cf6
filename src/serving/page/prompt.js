// Prompt, negative prompt, style templates, the model's examples, and the tokens of what is typed.
import {call} from "./api.js";
import {debounce, find, make, reveal} from "./dom.js";
import {kAvoided, kStyles, joined} from "./styles.js";
import {plural, tokenWord} from "./words.js";

const kPause = 350;       // ms after the last key
const kMostExamples = 8;
const kMostTokens = 160;  // more chips than that are of no use to a reader

export class Prompt {
  constructor(changed) {
    this.changed = changed;
    this.model = null;
    this.prompt = find("prompt");
    this.negative = find("negative");
    this.style = find("style");
    this.avoid = find("avoid");
    for (const [select, templates] of [[this.style, kStyles], [this.avoid, kAvoided]]) {
      select.append(...templates.map(template => make("option", {title: template.text}, template.name)));
      select.addEventListener("change", () => this.edited());
    }
    for (const area of [this.prompt, this.negative]) {
      area.addEventListener("input", () => this.edited());
      area.addEventListener("keydown", event => {
        if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
        event.preventDefault();
        find("form").requestSubmit();
      });
    }
    this.cutSoon = debounce(() => this.cut(), kPause);
    this.asked = 0;
  }

  setModel(model) {
    this.model = model;
    const examples = (model.examples ?? []).slice(0, kMostExamples);
    find("examples").replaceChildren(...examples.map(text => make("button", {type: "button", class: "chip",
      onclick: () => {
        this.prompt.value = text;
        this.edited();
        this.prompt.focus();
      }}, text)));
    reveal(find("examples-box"), examples.length > 0);
    this.prompt.placeholder = examples.length > 0 ? examples[0] : "";
    this.cut();
  }

  edited() {
    this.clearErrors();
    this.changed();
    this.cutSoon();
  }

  /// The prompts as the server gets them, the templates' words added.
  values() {
    return {
      prompt: joined(this.prompt.value, kStyles[this.style.selectedIndex]?.text ?? ""),
      negative_prompt: joined(this.negative.value, kAvoided[this.avoid.selectedIndex]?.text ?? ""),
    };
  }

  /// What stands in the fields, for the next time this tab is loaded.
  draft() {
    return {prompt: this.prompt.value, negative: this.negative.value, style: this.style.value, avoid: this.avoid.value};
  }

  restore(draft) {
    this.prompt.value = String(draft.prompt ?? "");
    this.negative.value = String(draft.negative ?? "");
    this.style.selectedIndex = Math.max(0, kStyles.findIndex(one => one.name === draft.style));
    this.avoid.selectedIndex = Math.max(0, kAvoided.findIndex(one => one.name === draft.avoid));
    this.edited();
  }

  /// The words of a finished picture; its templates are in them already.
  write(prompt, negative) {
    this.restore({prompt, negative});
  }

  clearErrors() {
    for (const [area, name] of [[this.prompt, "prompt-error"], [this.negative, "negative-error"]]) {
      reveal(find(name), false);
      area.removeAttribute("aria-invalid");
    }
  }

  showError(name, message) {
    const [area, place] = name === "prompt" ? [this.prompt, "prompt-error"] : [this.negative, "negative-error"];
    find(place).textContent = message;
    reveal(find(place), true);
    area.setAttribute("aria-invalid", "true");
    area.focus();
  }

  async cut() {
    this.asked += 1;
    const asked = this.asked;
    const text = this.values().prompt;
    const silent = this.model === null || text === "" || ["none", "precomputed"].includes(this.model.text);
    if (silent) {
      reveal(find("tokens-box"), false);
      return;
    }
    let answer = null;
    try {
      answer = await call("POST", `/mdm/v1/models/${encodeURIComponent(this.model.name)}/tokens`, {text});
    } catch (error) {
      // The tokens are a help only; the request itself tells what is wrong. Too fast a writer's come later.
      const wait = 1000 * (error.retryAfter ?? 3);
      if (error.status === 429 && asked === this.asked) setTimeout(() => this.cutSoon(), wait);
    }
    if (asked === this.asked) this.showTokens(answer);
  }

  showTokens(answer) {
    if (!reveal(find("tokens-box"), answer !== null)) return;
    const tokens = answer.tokens ?? [];
    find("tokens-title").textContent = plural(tokens.length, "token", "tokens") +
        (answer.cut ? "; the text is longer than the model reads, and its end is left out" : "");
    find("tokens-title").classList.toggle("warning", answer.cut === true);
    const shown = tokens.slice(0, kMostTokens).map(token => tokenItem(token));
    if (tokens.length > kMostTokens) shown.push(make("li", {class: "hint"}, `and ${tokens.length - kMostTokens} more`));
    find("tokens").replaceChildren(...shown);
  }
}

// A token as a chip; a word's beginning is drawn as a bar.
function tokenItem(token) {
  const {first, word} = tokenWord(String(token.text));
  return make("li", {class: first ? "token first" : "token", title: `number ${token.id}`}, word);
}
