// Numbers and names as people read them.

const kTitles = {
  guidance_scale: "Guidance",
  num_inference_steps: "Steps",
  sampler: "Sampler",
  ddim_eta: "Eta",
  threshold: "Threshold",
  timestep_spacing: "Spacing of steps",
  guidance_rescale: "Guidance rescale",
  guidance_start: "Guidance from",
  guidance_end: "Guidance up to",
  sample_image_size: "Side in pixels",
  seed: "Seed",
  num_samples: "Pictures",
  prompt: "Prompt",
  negative_prompt: "Negative prompt",
  model: "Model",
};

export function titleOf(name) {
  if (Object.hasOwn(kTitles, name)) return kTitles[name];
  const words = name.replaceAll("_", " ").trim();
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/// The server's help with a capital at its beginning.
export function sentence(text) {
  const words = String(text ?? "");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/// The word of a token, and whether it begins a word: tokenizers mark that with a space or "▁".
export function tokenWord(text) {
  const first = /^[ ▁]/.test(text);
  const rest = first ? text.slice(1) : text;
  return {first, word: rest === "" ? "␣" : rest};
}

/// 2412345 -> "2.41 million"
export function count(number) {
  if (!Number.isFinite(number)) return "?";
  if (number >= 1e9) return `${(number / 1e9).toPrecision(3)} billion`;
  if (number >= 1e6) return `${(number / 1e6).toPrecision(3)} million`;
  return number.toLocaleString("en");
}

/// 0.0213 -> "21 ms", 3.84 -> "3.8 s", 84 -> "1 min 24 s"
export function duration(seconds) {
  if (!Number.isFinite(seconds)) return "?";
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  const whole = Math.round(seconds);
  if (whole < 5400) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.round((whole % 3600) / 60)} min`;
}

export function percent(share) {
  return `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
}

export function plural(number, one, many) {
  return `${number} ${number === 1 ? one : many}`;
}

/// A value of a setting or config as text; what is not set is said in words.
export function valueText(value) {
  if (value === null || value === undefined || value === "") return "not set";
  if (value === true) return "yes";
  if (value === false) return "no";
  if (Array.isArray(value)) return value.length ? value.map(valueText).join(", ") : "none";
  if (typeof value === "object") return JSON.stringify(value);
  return String(value);
}
