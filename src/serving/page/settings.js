// The fields of a model's settings, built from what the server says about them.
import {find, make, reveal} from "./dom.js";
import {sentence, titleOf, valueText} from "./words.js";

// Those that are seen at once; all others are one click away.
const kMain = ["sampler", "num_inference_steps", "guidance_scale", "ddim_eta", "threshold", "seed", "num_samples"];

// Where a slider ends, for numbers whose range is far wider than what is of use.
const kSliderEnds = {guidance_scale: [0, 20], num_inference_steps: [1, 250]};

function sliderRange(setting) {
  if (setting.default === null || setting.default === undefined) return null;
  const ends = kSliderEnds[setting.name] ?? [setting.minimum, setting.maximum];
  const [low, high] = ends;
  if (!Number.isFinite(low) || !Number.isFinite(high) || high - low > 1000 || high <= low) return null;
  return [Math.max(low, setting.minimum ?? low), Math.min(high, setting.maximum ?? high)];
}

function rangeText(setting) {
  const {minimum, maximum} = setting;
  if (Number.isFinite(minimum) && minimum === maximum) return `only ${minimum}`;
  if (Number.isFinite(minimum) && Number.isFinite(maximum)) return `${minimum}\u00a0to\u00a0${maximum}`;
  if (Number.isFinite(minimum)) return `at least ${minimum}`;
  if (Number.isFinite(maximum)) return `at most ${maximum}`;
  return "";
}

function helpText(setting) {
  const unset = setting.type !== "choice" && (setting.default ?? null) === null;
  return [sentence(setting.help), rangeText(setting), unset ? "empty: not set" : ""].filter(part => part).join(" · ");
}

// What all fields share: label, help, error, reset. A kind of field adds its control, and read() and write().
class Field {
  constructor(setting, changed) {
    this.setting = setting;
    this.changed = changed;
    this.id = `setting-${setting.name}`;
    this.error = make("p", {id: `${this.id}-error`, class: "error", role: "alert", hidden: true});
    this.help = make("p", {id: `${this.id}-help`, class: "hint"}, helpText(setting));
    const reset = `Reset ${titleOf(setting.name)} to ${valueText(setting.default)}`;
    this.undo = make("button", {type: "button", class: "undo", hidden: true, title: reset, "aria-label": reset,
      onclick: () => this.reset()}, "↺");
  }

  get described() {
    return `${this.id}-help ${this.id}-error`;
  }

  layOut(...controls) {
    const label = make("label", {for: this.id}, titleOf(this.setting.name));
    this.root = make("div", {class: "field"}, make("div", {class: "field-head"}, label, this.undo, controls[0]),
                     ...controls.slice(1), this.help, this.error);
  }

  edited() {
    this.showError(null);
    this.undo.hidden = this.read() === (this.setting.default ?? null);
    this.changed();
  }

  reset() {
    const held = document.activeElement === this.undo;
    this.write(this.setting.default ?? null);
    this.edited();
    if (held) this.control.focus();
  }

  showError(message) {
    this.error.textContent = message ?? "";
    reveal(this.error, message !== null);
    if (message === null) this.control.removeAttribute("aria-invalid");
    else this.control.setAttribute("aria-invalid", "true");
  }

  /// null, or why what stands here can't be sent.
  complaint() {
    return null;
  }
}

class NumberField extends Field {
  constructor(setting, changed) {
    super(setting, changed);
    const whole = setting.type === "integer";
    this.control = make("input", {id: this.id, type: "number", inputmode: whole ? "numeric" : "decimal",
      min: setting.minimum, max: setting.maximum, step: whole ? 1 : "any", "aria-describedby": this.described,
      readonly: Number.isFinite(setting.minimum) && setting.minimum === setting.maximum,
      placeholder: (setting.default ?? null) === null ? "not set" : null, oninput: () => this.edited()});
    const range = sliderRange(setting);
    if (range !== null) {
      // A second handle of the same number for the mouse; the keyboard has the number itself.
      this.slider = make("input", {type: "range", min: range[0], max: range[1], "aria-hidden": "true", tabindex: -1,
        step: whole ? 1 : (range[1] - range[0] > 2 ? 0.1 : 0.01), oninput: () => {
          this.control.value = this.slider.value;
          this.edited();
        }});
    }
    this.layOut(this.control, this.slider);
    this.write(setting.default ?? null);
  }

  read() {
    const text = this.control.value.trim();
    return text === "" ? null : Number(text);
  }

  write(value) {
    this.control.value = value === null ? "" : String(value);
    this.follow();
  }

  edited() {
    this.follow();
    super.edited();
  }

  follow() {
    const value = this.read();
    if (this.slider !== undefined && value !== null) this.slider.value = String(value);
  }

  complaint() {
    const {minimum, maximum, type} = this.setting;
    const value = this.read();
    if (this.control.validity.badInput) return "This is not a number.";
    if (value === null) return (this.setting.default ?? null) === null ? null : "A number is missing here.";
    if (value < minimum || value > maximum) return `This must be ${rangeText(this.setting)}.`;
    if (type === "integer" && !Number.isSafeInteger(value)) return "This must be a whole number.";
    return null;
  }
}

class ChoiceField extends Field {
  constructor(setting, changed) {
    super(setting, changed);
    this.values = (setting.default ?? null) === null ? [null] : [];
    for (const choice of setting.choices ?? []) {
      if (choice !== null) this.values.push(choice);
    }
    const options = this.values.map(value => make("option", {}, value === null ? "the model's own" : String(value)));
    this.control = make("select", {id: this.id, "aria-describedby": this.described, onchange: () => this.edited()},
                        options);
    this.layOut(this.control);
    this.write(setting.default ?? null);
  }

  read() {
    return this.values[this.control.selectedIndex] ?? null;
  }

  write(value) {
    const at = this.values.findIndex(one => one === value || String(one) === String(value));
    if (at >= 0) this.control.selectedIndex = at;
  }
}

class SwitchField extends Field {
  constructor(setting, changed) {
    super(setting, changed);
    this.control = make("input", {id: this.id, type: "checkbox", "aria-describedby": this.described,
      onchange: () => this.edited()});
    this.layOut(this.control);
    this.write(setting.default ?? null);
  }

  read() {
    return this.control.checked;
  }

  write(value) {
    this.control.checked = value === true;
  }
}

// Random, or one that stays: two buttons of a group and the number. null stands for random.
class SeedField extends NumberField {
  constructor(setting, changed) {
    super({...setting, default: null}, changed);
    this.control.min = 0;
    this.control.placeholder = "";
    this.control.setAttribute("aria-label", "The fixed seed");
    const choose = (id, text) => {
      const button = make("input", {type: "radio", name: "seed-kind", id, onchange: () => this.choose()});
      return [button, make("label", {class: "check", for: id}, button, text)];
    };
    const [random, randomLabel] = choose("seed-random", "Random");
    const [fixed, fixedLabel] = choose("seed-fixed", "Fixed");
    this.random = random;
    this.fixed = fixed;
    this.help.textContent = "With several pictures, each has a seed one higher than the one before.";
    this.root = make("fieldset", {class: "field seed"}, make("legend", {}, "Seed"),
                     make("div", {class: "seed-row"}, randomLabel, fixedLabel, this.control), this.help, this.error);
    this.write(null);
  }

  read() {
    return this.fixed?.checked ? super.read() : null;
  }

  write(value) {
    if (this.fixed === undefined) return;
    const kept = Number.isSafeInteger(value) && value >= 0;
    this.fixed.checked = kept;
    this.random.checked = !kept;
    this.control.disabled = !kept;
    if (kept) this.control.value = String(value);
  }

  choose() {
    this.control.disabled = !this.fixed.checked;
    if (this.fixed.checked && this.control.value === "") {
      this.control.value = String(Math.floor(Math.random() * 2 ** 31));
    }
    this.edited();
  }

  edited() {
    this.showError(null);
    this.changed();
  }

  complaint() {
    if (!this.fixed.checked) return null;
    if (super.read() === null) return "A seed is missing here, or choose Random.";
    if (super.read() < 0) return "A seed is 0 or more.";
    return super.complaint();
  }
}

function makeField(setting, changed) {
  if (setting.name === "seed") return new SeedField(setting, changed);
  if (setting.type === "choice") return new ChoiceField(setting, changed);
  if (setting.type === "boolean") return new SwitchField(setting, changed);
  return new NumberField(setting, changed);
}

export class Settings {
  constructor(changed) {
    this.changed = changed;
    this.fields = new Map();
    find("reset").addEventListener("click", () => this.reset());
  }

  /// Builds the fields of a model. What stood in fields of the same names stays, as far as it differs from the
  /// defaults that counted before.
  build(settings) {
    const kept = this.edits();
    this.fields.clear();
    const main = find("main-settings");
    const more = find("more-settings");
    main.replaceChildren();
    more.replaceChildren();
    const order = [...settings].sort((a, b) => place(a) - place(b));
    for (const setting of order) {
      const field = makeField(setting, () => {
        this.settle(setting.name);
        this.changed();
      });
      this.fields.set(setting.name, field);
      (kMain.includes(setting.name) ? main : more).append(field.root);
    }
    reveal(find("more"), more.childElementCount > 0);
    this.write(kept);
  }

  // Eta belongs to the sampler ddim: setting the one chooses the other.
  settle(name) {
    const sampler = this.fields.get("sampler");
    const eta = this.fields.get("ddim_eta");
    if (this.settling || sampler === undefined || eta === undefined) return;
    this.settling = true;
    if (name === "ddim_eta" && eta.read() !== null) {
      sampler.write("ddim");
      sampler.edited();
    } else if (name === "sampler" && sampler.read() !== "ddim") {
      eta.write(null);
      eta.edited();
    }
    this.settling = false;
  }

  /// What differs from the defaults.
  edits() {
    const edits = {};
    for (const [name, field] of this.fields) {
      const value = field.read();
      if (value !== (field.setting.default ?? null)) edits[name] = value;
    }
    return edits;
  }

  /// All that is set, as a request takes it.
  values() {
    const values = {};
    for (const [name, field] of this.fields) {
      const value = field.read();
      if (value !== null) values[name] = value;
    }
    return values;
  }

  /// Sets those of the given values that there are fields for and that are of the right type; the rest stays.
  write(values) {
    for (const [name, field] of this.fields) {
      if (!Object.hasOwn(values, name)) continue;
      const value = values[name];
      if (value !== null && typeof value === "object") continue;
      if (field instanceof NumberField && value !== null && !Number.isFinite(value)) continue;
      field.write(value);
      field.edited();
    }
  }

  reset() {
    for (const field of this.fields.values()) field.reset();
  }

  clearErrors() {
    for (const field of this.fields.values()) field.showError(null);
  }

  /// Shows an error beside its field; answers whether there is such a field.
  showError(name, message) {
    const field = this.fields.get(name);
    if (field === undefined) return false;
    let box = field.root.closest("details");
    for (; box !== null; box = box.parentElement.closest("details")) box.open = true;
    field.showError(sentence(message.startsWith(`${name}: `) ? message.slice(name.length + 2) : message));
    (field.control.disabled ? field.random : field.control).focus();
    return true;
  }

  /// Shows what can't be sent; answers whether all can.
  check() {
    let sound = true;
    for (const [name, field] of [...this.fields].reverse()) {
      const complaint = field.complaint();
      if (complaint === null) continue;
      this.showError(name, complaint);
      sound = false;
    }
    return sound;
  }
}

function place(setting) {
  const at = kMain.indexOf(setting.name);
  return at < 0 ? kMain.length : at;
}
