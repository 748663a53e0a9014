// Loads pictures a few at a time, and shows each only when it is decoded: nothing flickers, slow
// links are not flooded.
// @ts-check

const AT_ONCE = 6;
const TRIES = 4;
const PAUSE_MS = 2000;
/** @typedef {{url: string, tries: number}} Wish */
/**
 * @type {Map<HTMLImageElement, Wish>} what each element is to show; a newer wish replaces an older
 * one, also one that loads
 */
const wishes = new Map();
/** @type {Set<HTMLImageElement>} whose wish nobody loads yet */
const waiting = new Set();
let loading = 0;

/** @param {HTMLImageElement} shown @param {string} url */
export function show(shown, url) {
  want(shown, { url, tries: TRIES });
}

/** @param {HTMLImageElement} shown */
export function forget(shown) {
  wishes.delete(shown);
  waiting.delete(shown);
}

/** @param {HTMLImageElement} shown @param {Wish} wish */
function want(shown, wish) {
  wishes.set(shown, wish);
  waiting.add(shown);
  next();
}

function next() {
  for (const shown of waiting) {
    if (loading >= AT_ONCE) return;
    const wish = wishes.get(shown);
    waiting.delete(shown);
    if (wish) {
      loading += 1;
      load(shown, wish).finally(() => {
        loading -= 1;
        next();
      });
    }
  }
}

/** @param {HTMLImageElement} shown @param {Wish} wish */
async function load(shown, wish) {
  const loaded = new Image();
  loaded.src = new URL(wish.url, location.origin).href;
  try {
    await loaded.decode();
  } catch {
    // gone meanwhile, or the connection broke: the old picture stays
    if (wish.tries > 1)
      setTimeout(
        () => wishes.get(shown) === wish && want(shown, { ...wish, tries: wish.tries - 1 }),
        PAUSE_MS,
      );
    return;
  }
  if (wishes.get(shown) === wish) {
    // else it is another camera's or an older one by now
    wishes.delete(shown);
    shown.src = loaded.src; // from the browser's memory
  }
}
