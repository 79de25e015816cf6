// Settings in the page's address, behind the "#": that part is never sent to a server. No key ever stands there.

const kMostCharacters = 20000;

/// The address of this page with all the given settings.
export function linkTo(model, settings) {
  const text = new URLSearchParams();
  text.set("model", model);
  for (const [name, value] of Object.entries(settings)) {
    if (value === null || value === undefined || typeof value === "object") continue;
    text.set(name, typeof value === "string" ? value : JSON.stringify(value));
  }
  return `${location.origin}${location.pathname}#${text}`;
}

/// {model, prompt, negative_prompt, settings} of the address, or null when there are none. What it says is not to be
/// trusted: the fields take only what fits them, and nothing starts by itself.
export function linkedSettings() {
  const text = location.hash.slice(1);
  if (!text.includes("=") || text.length > kMostCharacters) return null;
  const read = {model: null, prompt: "", negative_prompt: "", settings: {}};
  for (const [name, value] of new URLSearchParams(text)) {
    if (name === "model" || name === "prompt" || name === "negative_prompt") read[name] = value;
    else read.settings[name] = plainValue(value);
  }
  return read;
}

function plainValue(text) {
  if (text === "true") return true;
  if (text === "false") return false;
  return text !== "" && Number.isFinite(Number(text)) ? Number(text) : text;
}

/// Takes the settings out of the address, so that a reload keeps what was changed since.
export function clearLink() {
  history.replaceState(null, "", location.pathname + location.search);
}
