// One camera: the big picture, its facts, its archive by day and time, live view through go2rtc.
// @ts-check
import { ask, json } from "./ask.js";
import { age, archivedTable, label, reachable, span, table } from "./facts.js";
import { forget, show } from "./pictures.js";

/** @typedef {import("./facts.js").Camera} Camera */
/** @typedef {import("./facts.js").Device} Device */
/** @typedef {import("./facts.js").Picture} Picture */
/** @typedef {{actions: boolean, go2rtc: string|null, timezone: string}} Site */

/** @type {<T extends HTMLElement>(id: string) => T} */
const element = (id) => /** @type {any} */ (document.getElementById(`view-${id}`));

const RELIST_MS = 30000;

export class View {
  /**
   * @param {(id: string) => Camera|undefined} camera
   * @param {() => string[]} order ids of the cameras that the wall shows, as it shows them
   */
  constructor(camera, order) {
    this.find = camera;
    this.order = order;
    this.dialog = /** @type {HTMLDialogElement} */ (document.getElementById("view"));
    /** @type {HTMLImageElement} */
    this.picture = element("picture");
    /** @type {HTMLIFrameElement} */
    this.player = element("player");
    /** @type {HTMLInputElement} */
    this.day = element("day");
    /** @type {HTMLInputElement} */
    this.scrub = element("scrub");
    /** @type {HTMLButtonElement} */
    this.live = element("live");
    /** @type {HTMLButtonElement} */
    this.now = element("now");
    /** @type {Site} */
    this.site = { actions: false, go2rtc: null, timezone: "UTC" };
    this.id = "";
    /** @type {Picture[]} */
    this.pictures = [];
    /** @type {Picture|null} the archived picture that is shown; null: the newest */
    this.archived = null;
    /** @type {import("./facts.js").Own|null} what it says of itself, once it is loaded */
    this.own = null;
    /** @type {Device|undefined} */
    this.device = undefined;
    this.shown = "";
    this.listed = "";
    this.listedAt = 0;
  }

  /**
   * @param {number} seconds since 1970 @returns {string} by the archive's clock, which names its
   * files and hours
   */
  clock(seconds) {
    return new Date(seconds * 1000).toLocaleTimeString(undefined, { timeZone: this.site.timezone });
  }

  get open() {
    return this.dialog.open;
  }

  /** Once: what this page may do, and what its controls do. */
  async begin() {
    this.site = await json("/wall/site.json", this.site);
    this.dialog.addEventListener("close", () => {
      this.stopLive();
      forget(this.picture);
      location.hash = "";
    });
    this.day.addEventListener("change", () => {
      this.newest();
      this.loadDay();
    });
    this.scrub.addEventListener("input", () =>
      this.choose(this.pictures[Number(this.scrub.value)] ?? null),
    );
    element("newest").addEventListener("click", () => this.newest());
    element("earlier").addEventListener("click", () => this.stepPicture(-1));
    element("later").addEventListener("click", () => this.stepPicture(1));
    element("previous").addEventListener("click", () => this.stepCamera(-1));
    element("next").addEventListener("click", () => this.stepCamera(1));
    this.dialog.addEventListener("keydown", (event) => this.key(event));
    this.picture.addEventListener("load", () => {
      this.loadFacts();
    });
    this.live.addEventListener("click", () =>
      this.player.hidden ? this.startLive() : this.stopLive(),
    );
    this.now.addEventListener("click", () => {
      this.snapshot();
    });
  }

  /** Show the camera that the address names. */
  follow() {
    const camera = this.find(location.hash.slice(1)); // ids need no escapes
    if (!camera) {
      if (this.dialog.open) this.dialog.close();
      return;
    }
    this.id = camera.id;
    this.shown = "";
    this.picture.removeAttribute("src");
    element("name").textContent = camera.name;
    this.stopLive();
    this.live.hidden =
      !this.site.go2rtc || !camera.go2rtc || !reachable(this.site.go2rtc, location.hostname);
    this.now.hidden = !this.site.actions;
    this.day.value = dayOf(
      camera.latest?.captured_at ?? new Date().toISOString(),
      this.site.timezone,
    );
    this.device = undefined;
    this.pictures = []; // those of the last camera; the buttons stay enabled, they keep the focus
    this.scrub.disabled = true;
    this.hours();
    this.newest();
    if (!this.dialog.open) this.dialog.showModal();
    this.loadDay();
    this.leases(camera.id);
  }

  /**
   * @param {KeyboardEvent} event arrows walk from camera to camera, where they mean nothing else
   */
  key(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step === undefined || event.target instanceof HTMLInputElement) return;
    event.preventDefault();
    this.stepCamera(step);
  }

  /** @param {number} step to the camera before or after on the wall, and round */
  stepCamera(step) {
    const ids = this.order();
    const at = ids.indexOf(this.id);
    const next = ids[at < 0 ? 0 : (at + step + ids.length) % ids.length];
    if (next) location.replace(`#${next}`);
  }

  /**
   * @param {number} step to the picture before or after in this day's archive; after the last one
   * comes the newest
   */
  async stepPicture(step) {
    const id = this.id;
    if (!this.archived) await this.loadDay(); // the newest is the last one of its day
    if (this.id !== id) return;
    const newest = this.find(this.id)?.latest?.captured_at;
    const listed = newest && dayOf(newest, this.site.timezone) === this.day.value;
    const at =
      (this.archived ? Number(this.scrub.value) : this.pictures.length - (listed ? 1 : 0)) + step;
    const picture = this.pictures[at];
    if (picture) {
      this.scrub.value = String(at);
      this.choose(picture);
    } else if (at >= this.pictures.length) this.newest();
  }

  /** @param {string} id a camera of which something is new */
  changed(id) {
    if (!this.open || id !== this.id) return;
    this.paint();
    if (Date.now() - this.listedAt > RELIST_MS) this.loadDay(); // what is new joins the strip
  }

  /** @param {string} id a camera whose device's leases have changed */
  async leases(id) {
    const camera = this.find(this.id);
    if (!this.open || !camera || this.find(id)?.device !== camera.device) return;
    const devices = await json("/v1/leases", /** @type {Device[]} */ ([]));
    if (this.id !== camera.id) return;
    this.device = devices.find((device) => device.device === camera.device);
    this.paint();
  }

  /** @param {number} now */
  tick(now) {
    const camera = this.find(this.id);
    if (this.open && camera && !this.archived)
      element("moment").textContent = span(age(camera, now));
  }

  paint() {
    const camera = this.find(this.id);
    if (!camera) return;
    const text = this.archived ? "" : label(camera, performance.now(), this.site.timezone);
    element("label").hidden = !text;
    element("label").textContent = text;
    const pictures = `/v1/cameras/${camera.id}`;
    const at = encodeURIComponent(camera.latest?.captured_at ?? "");
    const path = this.archived
      ? `${pictures}/archive/${this.archived.path}`
      : `${pictures}/latest.jpg?at=${at}`;
    if (path !== this.shown && (this.archived || camera.latest?.captured_at)) {
      this.shown = path;
      show(this.picture, path);
    }
    /** @type {HTMLAnchorElement} */
    const download = element("download");
    download.href = path;
    if (this.archived) {
      download.download = `${camera.id}-${this.archived.path.replaceAll("/", "")}`;
      this.picture.alt = `${camera.name}, ${this.clock(this.archived.taken_at)}`;
    } else {
      download.download = `${camera.id}.jpg`;
      this.picture.alt = camera.name;
    }
    this.paintFacts(
      this.archived
        ? archivedTable(this.archived, this.own, this.site.timezone)
        : table(camera, this.device, this.site.timezone),
    );
    this.tick(performance.now());
  }

  /** What an archived picture says of itself, once it is shown. */
  async loadFacts() {
    const picture = this.archived;
    if (!picture || !this.picture.src.endsWith(this.shown)) return;
    const answer = await ask(this.shown, { method: "HEAD" }).catch(() => null);
    const told = answer?.headers.get("x-camserver-facts");
    if (this.archived !== picture || !told) return;
    this.own = JSON.parse(told);
    this.paint();
  }

  /** @param {[string, string][]} facts of the picture that is shown, and of no other */
  paintFacts(facts) {
    const rows = facts.flatMap(([name, value]) => {
      const [term, description] = [document.createElement("dt"), document.createElement("dd")];
      term.textContent = name;
      description.textContent = value;
      return [term, description];
    });
    element("facts").replaceChildren(...rows);
  }

  newest() {
    this.choose(null);
    this.scrub.value = this.scrub.max;
  }

  /** @param {Picture|null} picture */
  choose(picture) {
    if (picture !== this.archived) this.own = null;
    this.archived = picture;
    if (picture) {
      this.stopLive();
      element("moment").textContent = this.clock(picture.taken_at);
      this.scrub.setAttribute("aria-valuetext", this.clock(picture.taken_at));
    }
    this.paint();
  }

  async loadDay() {
    const path = `/v1/cameras/${this.id}/archive?day=${encodeURIComponent(this.day.value)}`;
    this.listed = path;
    const pictures = await json(path, /** @type {Picture[]} */ ([]));
    if (this.listed !== path) return; // another camera or day by now
    this.listedAt = Date.now();
    this.pictures = pictures;
    this.scrub.max = String(Math.max(0, pictures.length - 1));
    this.scrub.disabled = pictures.length < 2;
    for (const name of ["earlier", "later"])
      /** @type {HTMLButtonElement} */ (element(name)).disabled = !pictures.length;
    const shown = pictures.findIndex((picture) => picture.path === this.archived?.path);
    this.scrub.value = shown < 0 ? this.scrub.max : String(shown);
    this.hours();
  }

  /** A button for each hour that has pictures: to its first one. */
  hours() {
    /** @type {Map<string, number>} */
    const firsts = new Map();
    this.pictures.forEach((picture, index) => {
      const hour = new Date(picture.taken_at * 1000).toLocaleTimeString("en-GB", {
        hour: "2-digit",
        timeZone: this.site.timezone,
      });
      if (!firsts.has(hour)) firsts.set(hour, index);
    });
    element("hours").replaceChildren(
      ...[...firsts].map(([hour, index]) => {
        const button = document.createElement("button");
        button.type = "button";
        button.textContent = hour;
        button.title = `${hour}:00`;
        button.addEventListener("click", () => {
          this.scrub.value = String(index);
          this.choose(this.pictures[index] ?? null);
        });
        return button;
      }),
    );
  }

  startLive() {
    const camera = this.find(this.id);
    if (!camera?.go2rtc || !this.site.go2rtc) return;
    const stream = encodeURIComponent(camera.go2rtc);
    this.player.src = `${this.site.go2rtc}/stream.html?src=${stream}&mode=webrtc,mse,hls`;
    this.player.hidden = false;
    this.picture.hidden = true;
    this.live.setAttribute("aria-pressed", "true");
  }

  stopLive() {
    this.player.removeAttribute("src");
    this.player.hidden = true;
    this.picture.hidden = false;
    this.live.setAttribute("aria-pressed", "false");
  }

  async snapshot() {
    this.now.disabled = true;
    try {
      const answer = await ask(`/v1/cameras/${this.id}/snapshot`, {
        method: "POST",
        headers: { "X-Camserver-Action": "snapshot" },
      });
      const { result, error } = await answer.json();
      if (result !== "ok") {
        element("label").hidden = false;
        element("label").textContent = error ?? result;
      } else this.newest();
    } catch {
      element("label").hidden = false;
      element("label").textContent = "camserver does not answer";
    } finally {
      this.now.disabled = false;
    }
  }
}

/**
 * @param {string} moment RFC 3339 @param {string} zone of the archive's names @returns {string}
 * e.g. 2026-01-04
 */
function dayOf(moment, zone) {
  return new Intl.DateTimeFormat("en-CA", {
    timeZone: zone,
    year: "numeric",
    month: "2-digit",
    day: "2-digit",
  }).format(new Date(moment));
}
