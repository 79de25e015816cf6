// What the page remembers: of this tab in sessionStorage, of the browser (colours only) in localStorage. Storage
// may be forbidden or full; the page then works without memory. A key is never kept here.

function readFrom(storage, name, otherwise) {
  try {
    const text = storage().getItem(`mdm.${name}`);
    return text === null ? otherwise : JSON.parse(text);
  } catch {
    return otherwise;
  }
}

export function remembered(name, otherwise) {
  return readFrom(() => sessionStorage, name, otherwise);
}

export function remember(name, value) {
  try {
    sessionStorage.setItem(`mdm.${name}`, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}

export function rememberedTheme() {
  try {
    return localStorage.getItem("mdm.theme");
  } catch {
    return null;
  }
}

export function rememberTheme(theme) {
  try {
    if (theme === null) localStorage.removeItem("mdm.theme");
    else localStorage.setItem("mdm.theme", theme);
  } catch {
    // The choice then lasts as long as the page.
  }
}
