// The wall: a tile for each camera, kept up to date by events; only what changed and can be seen is
// fetched.
// @ts-check
import { ask } from "./ask.js";
import { age, failing, freshness, label, rank, span, suspect } from "./facts.js";
import { forget, show } from "./pictures.js";
import { View } from "./view.js";

/** @typedef {import("./facts.js").Camera} Camera */
/**
 * @typedef {{camera: Camera, button: HTMLButtonElement, image: HTMLImageElement, visible: boolean,
 * shown: string}} Tile
 */

/** @type {<T extends HTMLElement>(id: string) => T} */
const element = (id) => /** @type {any} */ (document.getElementById(id));
const FLEET_MS = 5000;
const wall = element("wall");
/** @type {HTMLTemplateElement} */
const template = element("tile");
/** @type {HTMLInputElement} */
const search = element("search");
const notice = element("notice");
/** @type {Map<string, Tile>} */
const tiles = new Map();
const view = new View(
  (id) => tiles.get(id)?.camera,
  () => shown().map((button) => button.dataset.id ?? ""),
);

/** @returns {HTMLElement[]} the tiles that are not filtered out, as they stand on the wall */
const shown = () =>
  /** @type {HTMLElement[]} */ ([...wall.children]).filter((button) => !button.hidden);

const seen = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      const tile = tiles.get(/** @type {HTMLElement} */ (entry.target).dataset.id ?? "");
      if (tile) {
        tile.visible = entry.isIntersecting;
        fetchPicture(tile);
      }
    }
  },
  { rootMargin: "200px" },
);

/** @param {Tile} tile */
function fetchPicture(tile) {
  const at = tile.camera.latest?.captured_at;
  if (!tile.visible || !at || tile.shown === at) return;
  tile.shown = at;
  const width = tile.image.clientWidth * devicePixelRatio > 330 ? 640 : 320;
  show(
    tile.image,
    `/v1/cameras/${tile.camera.id}/latest.jpg?width=${width}&at=${encodeURIComponent(at)}`,
  );
}

/** @param {Camera} camera @returns {Tile} */
function make(camera) {
  const button = /** @type {HTMLButtonElement} */ (
    template.content.firstElementChild?.cloneNode(true)
  );
  button.dataset.id = camera.id;
  button.addEventListener("click", () => {
    location.hash = camera.id;
  });
  seen.observe(button);
  return {
    camera,
    button,
    image: /** @type {HTMLImageElement} */ (button.querySelector("img")),
    visible: false,
    shown: "",
  };
}

/** @param {HTMLElement} node @param {string} text */
function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** @param {Tile} tile @param {number} moment */
function paint(tile, moment) {
  const { button, camera } = tile;
  const state = freshness(camera, moment);
  const look = suspect(camera) && !failing(camera) ? `tile ${state} suspect` : `tile ${state}`;
  if (button.className !== look) button.className = look;
  const text = label(camera, moment, view.site.timezone);
  const over = /** @type {HTMLElement} */ (button.querySelector(".label"));
  over.hidden = !text;
  write(over, text);
  write(/** @type {HTMLElement} */ (button.querySelector(".name")), camera.name);
  write(/** @type {HTMLElement} */ (button.querySelector(".age")), span(age(camera, moment)));
  tile.image.alt = `${camera.name}, ${state}`;
}

function filter() {
  const wanted = /** @type {HTMLInputElement} */ (
    document.querySelector("input[name=filter]:checked")
  ).value;
  const text = search.value.trim().toLowerCase();
  const moment = now();
  const counts = { all: 0, stale: 0, failing: 0, suspect: 0 };
  for (const { camera, button } of tiles.values()) {
    /** @type {Record<string, boolean>} */
    const is = {
      all: true,
      stale: ["stale", "never"].includes(freshness(camera, moment)),
      failing: failing(camera),
      suspect: suspect(camera),
    };
    counts.all += 1;
    counts.stale += Number(is.stale);
    counts.failing += Number(is.failing);
    counts.suspect += Number(is.suspect);
    const found = `${camera.id} ${camera.name} ${camera.device}`.toLowerCase().includes(text);
    button.hidden = !found || !is[wanted];
  }
  for (const [name, count] of Object.entries(counts))
    write(element(`count-${name}`), String(count));
}

/**
 * The worst first, else in the inventory's order. Only what stands elsewhere is moved; the focus
 * stays where it is.
 */
function sort() {
  const moment = now();
  const wanted = [...tiles.values()]
    .map((tile, at) => ({ button: tile.button, rank: rank(tile.camera, moment), at }))
    .sort((a, b) => a.rank - b.rank || a.at - b.at);
  const focused = /** @type {HTMLElement|null} */ (document.activeElement);
  /** @type {Element|null} */
  let after = null;
  for (const { button } of wanted.reverse()) {
    if (button.nextElementSibling !== after || button.parentNode !== wall)
      wall.insertBefore(button, after);
    after = button;
  }
  if (focused?.classList.contains("tile") && focused !== document.activeElement)
    focused.focus({ preventScroll: true });
}

function tick() {
  for (const tile of tiles.values()) paint(tile, now());
  sort();
  filter();
  view.tick(now());
}

const now = () => performance.now();

async function load() {
  const answer = await ask("/v1/cameras");
  if (!answer.ok) throw new Error(String(answer.status));
  /** @type {Camera[]} */
  const cameras = await answer.json();
  const known = new Set(cameras.map((camera) => camera.id));
  for (const [id, tile] of tiles) {
    if (!known.has(id)) {
      seen.unobserve(tile.button);
      forget(tile.image);
      tile.button.remove();
      tiles.delete(id);
    }
  }
  for (const camera of cameras) {
    const tile = tiles.get(camera.id) ?? make(camera);
    tile.camera = { ...camera, asked_at: now() };
    tiles.delete(camera.id); // a Map keeps its order: it becomes the inventory's
    tiles.set(camera.id, tile);
    if (tile.button.parentNode !== wall) wall.append(tile.button);
    fetchPicture(tile);
  }
  wall.setAttribute("aria-busy", "false");
  tick();
}

/** @param {string|null} text */
function say(text) {
  notice.hidden = text === null;
  write(notice, text ?? "");
}

/** @param {Record<string, any>} data a `snapshot.published` event */
function published(data) {
  const tile = tiles.get(data.camera);
  if (!tile) return;
  tile.camera.latest = {
    ...(tile.camera.latest ?? { path: null }),
    captured_at: data.captured_at,
    width: data.width,
    height: data.height,
    bytes: data.bytes,
    codec: data.codec,
    source: data.source,
    engine: data.engine ?? null,
    capture_ms: data.capture_ms,
    lease_wait_ms: data.lease_wait_ms,
    camera_clock_offset_s: data.camera_clock_offset_s ?? null,
    health: {
      state: data.health ?? null,
      since: data.health_since ?? null,
      label: data.health_label ?? null,
    },
    consecutive_failures: 0,
    attempt: { at: data.at, result: "ok", error: null },
  };
  tile.camera.age_s = Math.max(0, Date.parse(data.at) - Date.parse(data.captured_at)) / 1000;
  tile.camera.asked_at = now();
  fetchPicture(tile);
  paint(tile, now());
  view.changed(data.camera);
}

/** @param {Record<string, any>} data a `poll.failed` event */
function failed(data) {
  const tile = tiles.get(data.camera);
  if (!tile) return;
  const nothing = {
    captured_at: null,
    width: null,
    height: null,
    bytes: null,
    codec: null,
    source: null,
    engine: null,
    capture_ms: null,
    lease_wait_ms: null,
    camera_clock_offset_s: null,
    health: null,
    path: null,
  };
  tile.camera.latest = {
    ...nothing,
    ...tile.camera.latest,
    consecutive_failures: data.consecutive_failures,
    attempt: { at: data.at, result: data.result, error: data.error, label: data.label },
  };
  paint(tile, now());
  view.changed(data.camera);
}

function listen() {
  const events = new EventSource(new URL("/v1/events", location.origin));
  /** @param {string} name @param {(data: Record<string, any>) => void} act */
  function on(name, act) {
    events.addEventListener(name, (event) =>
      act(JSON.parse(/** @type {MessageEvent} */ (event).data)),
    );
  }
  on("snapshot.published", published);
  on("poll.failed", failed);
  for (const name of ["lease.acquired", "lease.released"])
    on(name, (data) => view.leases(data.camera));
  for (const name of ["inventory.loaded", "lost"])
    on(name, () => {
      refresh();
    });
  events.addEventListener("open", () => {
    say(null);
    refresh();
  });
  events.addEventListener("error", () => {
    say("The connection to camserver is lost; what you see may be old.");
    if (events.readyState === EventSource.CLOSED) setTimeout(listen, 3000);
  });
}

function refresh() {
  load().catch(() => say("camserver does not answer; what you see may be old."));
}

/**
 * Arrow keys walk over the wall, as the eye does.
 * @param {KeyboardEvent} event
 */
function walk(event) {
  if (event.key === "/" && document.activeElement !== search && !view.open) {
    event.preventDefault();
    search.focus();
    return;
  }
  const from = /** @type {HTMLElement} */ (document.activeElement);
  if (!from?.classList.contains("tile") || !event.key.startsWith("Arrow")) return;
  const all = shown();
  const columns = Math.max(
    1,
    all.filter((button) => button.offsetTop === all[0]?.offsetTop).length,
  );
  /** @type {Record<string, number>} */
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
  const to = all[all.indexOf(from) + (steps[event.key] ?? 0)];
  if (to) {
    event.preventDefault();
    to.focus();
  }
}

search.addEventListener("input", filter);
document.querySelector(".filters")?.addEventListener("change", filter);
document.addEventListener("keydown", walk);
addEventListener("hashchange", () => view.follow());
await view.begin();
listen();
setInterval(tick, 1000);
// The events are those of this host; what other hosts of a fleet do is asked for
setInterval(() => {
  if ([...tiles.values()].some(({ camera }) => camera.host !== null)) load().catch(() => {});
}, FLEET_MS);
load().then(
  () => view.follow(),
  () => say("camserver does not answer."),
);
