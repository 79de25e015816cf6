// What each token of the prompt looks at: maps of cross-attention laid over the picture.
import {make, ownUrl, steered} from "./dom.js";
import {LoadedPart} from "./loaded_part.js";
import {percent, plural, tokenWord} from "./words.js";

const kSide = 384;       // pixels of the large picture's canvas
const kThumbSide = 72;

// Dark to bright in even steps, readable without seeing colours.
const kRamp = [[12, 7, 36], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]];

function heat(value) {
  const at = Math.max(0, Math.min(0.9999, value)) * (kRamp.length - 1);
  const [low, high] = [kRamp[Math.floor(at)], kRamp[Math.floor(at) + 1]];
  return low.map((one, i) => Math.round(one + (high[i] - one) * (at % 1)));
}

function decodeBytes(text) {
  const bytes = atob(text);
  return Uint8Array.from(bytes, one => one.charCodeAt(0));
}

// Weights of one map: an array of numbers per token.
function readMap(map) {
  const {layer, width, height, peak} = map;
  const weights = map.weights.map((text, token) => (
    Float32Array.from(decodeBytes(text), byte => (byte / 255) * peak[token])));
  return {title: `${layer} (${width} × ${height})`, width, height, weights};
}

function range(weights) {
  return [Math.min(...weights), Math.max(...weights)];
}

// The colours from little to much, as a strip.
function strip() {
  const canvas = make("canvas", {width: 64, height: 1, class: "strip", "aria-hidden": "true"});
  const pixels = new ImageData(64, 1);
  for (let i = 0; i < 64; ++i) pixels.data.set([...heat(i / 63), 255], 4 * i);
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas;
}

// The mean of all maps of one size.
function meanOf(maps) {
  const [first] = maps;
  const weights = first.weights.map((_, token) => first.weights[token].map((__, i) => (
    maps.reduce((sum, map) => sum + map.weights[token][i], 0) / maps.length)));
  const title = `mean of ${plural(maps.length, "layer", "layers")} at ${first.width} × ${first.height}`;
  return {...first, title, weights};
}

function choices(maps) {
  const sizes = new Map();
  for (const map of maps) {
    const key = `${map.width}x${map.height}`;
    sizes.set(key, [...(sizes.get(key) ?? []), map]);
  }
  const means = [...sizes.values()].filter(some => some.length > 1).map(meanOf);
  return [...means, ...maps];
}

export class AttentionPart extends LoadedPart {
  constructor(inside) {
    super(inside, "attention");
    this.canvas = make("canvas", {width: kSide, height: kSide, role: "img", class: "attention-picture"});
    this.words = make("p", {class: "hint", "aria-live": "polite"});
    this.tokens = make("div", {class: "attention-tokens", role: "radiogroup", "aria-label": "Token"});
    this.tokens.addEventListener("keydown", event => this.steer(event));
    this.layer = make("select", {id: "attention-layer", onchange: () => this.draw()});
    this.strength = make("input", {id: "attention-strength", type: "range", min: 0, max: 100, value: 65,
      oninput: () => this.draw()});
    this.smooth = make("input", {type: "checkbox", checked: true, onchange: () => this.draw()});
    this.low = make("span", {class: "number"});
    this.high = make("span", {class: "number"});
    this.body = make("div", {class: "attention"}, make("div", {class: "attention-large"}, this.canvas,
            make("div", {class: "strip-row"}, this.low, strip(), this.high), this.words),
        make("div", {class: "attention-choice"}, this.tokens,
             make("div", {class: "inline-field"}, make("label", {for: "attention-layer"}, "Layer"), this.layer),
             make("div", {class: "inline-field"}, make("label", {for: "attention-strength"}, "Overlay"), this.strength),
             make("label", {class: "check"}, this.smooth, "Smooth")));
    this.root = make("div", {}, make("p", {class: "explained"}, "Where each word of the prompt was looked at, mean ",
        "over heads and steps. Each token's colours go from where it counts least to where it counts most."),
        this.note, this.body);
  }

  reset() {
    super.reset();
    this.token = 0;
    this.image = null;
  }

  async take(data, job, isLate) {
    const image = new Image();
    image.src = ownUrl(job.pictures[0].url);
    await image.decode();
    if (isLate()) return;
    if (data.maps.length === 0 || data.tokens.length === 0) {
      this.trouble = "This model does not attend to single tokens.";
      return;
    }
    const tokens = data.tokens.slice(0, Math.min(...data.maps.map(map => map.weights.length)));
    this.data = {tokens, maps: choices(data.maps.map(readMap))};
    this.image = image;
    this.layer.replaceChildren(...this.data.maps.map(map => make("option", {}, map.title)));
    this.tokens.replaceChildren(...tokens.map((token, i) => make("button", {type: "button", role: "radio",
      class: "attention-token", onclick: () => this.choose(i)},
      make("canvas", {width: kThumbSide, height: kThumbSide, "aria-hidden": "true"}),
      make("span", {}, tokenWord(String(token.text)).word))));
    this.choose(this.mostPointed());
  }

  // The word that stands out most from its own mean: the best to begin with. Signs such as "</s>" are no words.
  mostPointed() {
    const {tokens, maps} = this.data;
    const mean = one => one.reduce((sum, weight) => sum + weight, 0) / one.length;
    const points = tokens.map(({text}, i) => {
      const weights = maps[0].weights[i];
      return /^<.*>$/.test(text) ? 0 : Math.max(...weights) / (mean(weights) || 1);
    });
    return points.indexOf(Math.max(...points));
  }

  choose(token) {
    this.token = token;
    [...this.tokens.children].forEach((button, i) => {
      button.setAttribute("aria-checked", String(i === token));
      button.tabIndex = i === token ? 0 : -1;
    });
    this.draw();
  }

  steer(event) {
    const to = steered(event.key, this.token, this.data.tokens.length);
    if (to === null) return;
    event.preventDefault();
    this.choose(to);
    this.tokens.children[to].focus();
  }

  draw() {
    if (this.data === null) return;
    const map = this.data.maps[this.layer.selectedIndex] ?? this.data.maps[0];
    const strength = Number(this.strength.value) / 100;
    this.paint(this.canvas, map, this.token, strength);
    [...this.tokens.children].forEach((button, i) => this.paint(button.firstElementChild, map, i, strength));
    const {word} = tokenWord(String(this.data.tokens[this.token].text));
    const [low, high] = range(map.weights[this.token]);
    this.low.textContent = percent(low);
    this.high.textContent = percent(high);
    const shares = `${percent(low)} to ${percent(high)}`;
    this.words.textContent = `“${word}” gets ${shares} of a place's attention: ${map.title}.`;
    this.canvas.setAttribute("aria-label", `Attention to the token ${word}`);
    this.canvas.dataset.drawn = `${this.token}/${this.layer.selectedIndex}`;
  }

  paint(canvas, map, token, strength) {
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.globalAlpha = 1;
    context.drawImage(this.image, 0, 0, canvas.width, canvas.height);
    const weights = map.weights[token];
    const [low, high] = range(weights);
    const small = make("canvas", {width: map.width, height: map.height});
    const pixels = new ImageData(map.width, map.height);
    weights.forEach((weight, i) => pixels.data.set([...heat((weight - low) / (high - low || 1)), 255], 4 * i));
    small.getContext("2d").putImageData(pixels, 0, 0);
    context.globalAlpha = strength;
    context.imageSmoothingEnabled = this.smooth.checked;
    context.imageSmoothingQuality = "high";
    context.drawImage(small, 0, 0, canvas.width, canvas.height);
  }
}
