// Elements from data. Text enters only as text nodes, so nothing that a user or the server writes is ever markup.

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) {
      element.addEventListener(name.slice(2), value);
    } else {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined) element.append(child);
  }
  return element;
}

/// make("p", {class: "note", onclick: act}, "text", element, [more elements])
export function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function makeSvg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

export function find(id) {
  return document.getElementById(id);
}

/// Shows or hides an element; answers whether it is shown.
export function reveal(element, shown) {
  element.hidden = !shown;
  return shown;
}

/// Calls `act` once, `wait` milliseconds after the last call.
export function debounce(act, wait) {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => act(...given), wait);
  };
}

/// Small pictures are shown enlarged with their pixels as they are; large ones as the browser likes.
export function crispUpTo(side, image) {
  image.addEventListener("load", () => image.classList.toggle("crisp", image.naturalWidth <= side));
  return image;
}

/// A name of parts with dots or underscores, which may be broken behind these.
export function breakable(name) {
  const parts = String(name).split(/(?<=[._])/);
  return parts.flatMap((part, i) => (i === 0 ? [part] : [document.createElement("wbr"), part]));
}

/// Where arrows, Home and End lead in a row of `number` things, from `at`; null for other keys. The row is a ring.
export function steered(key, at, number) {
  const last = number - 1;
  const next = at === last ? 0 : at + 1;
  const before = at === 0 ? last : at - 1;
  return {ArrowRight: next, ArrowDown: next, ArrowLeft: before, ArrowUp: before, Home: 0, End: last}[key] ?? null;
}

let announced = 0;

/// Says something to a screen reader. Equal texts in a row are said again.
export function announce(text) {
  announced += 1;
  find("announcer").textContent = text + (announced % 2 ? "" : "\u00a0");
}

/// Only addresses of this server's own API, whatever an answer says.
export function ownUrl(url) {
  return typeof url === "string" && url.startsWith("/mdm/v1/") ? url : null;
}
