// Loads pictures a few at a time, and shows each only when it is decoded: nothing flickers, slow links are not flooded.
// @ts-check

const AT_ONCE = 6;
/** @type {Map<HTMLImageElement, string>} wanted, by the element that shows it; a newer wish replaces an older one */
const wanted = new Map();
let loading = 0;

/** @param {HTMLImageElement} shown @param {string} url */
export function show(shown, url) {
  wanted.set(shown, url);
  next();
}

/** @param {HTMLImageElement} shown */
export function forget(shown) {
  wanted.delete(shown);
}

function next() {
  for (const [shown, url] of wanted) {
    if (loading >= AT_ONCE) return;
    wanted.delete(shown);
    loading += 1;
    load(shown, url).finally(() => { loading -= 1; next(); });
  }
}

/** @param {HTMLImageElement} shown @param {string} url */
async function load(shown, url) {
  const loaded = new Image();
  loaded.src = url;
  try {
    await loaded.decode();
  } catch {
    return; // gone meanwhile, or the connection broke: the old picture stays
  }
  if (!wanted.has(shown)) shown.src = url; // from the browser's memory
}
