// A bar for a share between 0 and 1. The number stands beside it as text.
import {make} from "./dom.js";

export function bar(share) {
  const filled = make("span", {class: "bar-filled"});
  filled.style.width = `${Math.max(0, Math.min(1, share)) * 100}%`;
  return make("span", {class: "bar", "aria-hidden": "true"}, filled);
}
