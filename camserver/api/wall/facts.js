// What the page knows of a camera, in labels and numbers. Pure: no DOM, no requests.
// @ts-check

/**
 * @typedef {{captured_at: string|null, width: number|null, height: number|null, bytes: number|null,
 * codec: string|null,
 *   source: string|null, engine: string|null, capture_ms: number|null, lease_wait_ms: number|null,
 *   camera_clock_offset_s: number|null, path: string|null, consecutive_failures: number,
 *   health: {state: string|null, since: string|null, label: string|null}|null,
 *   attempt: {at: string, result: string, error: string|null, label?: string}}} Latest
 * @typedef {{id: string, name: string, device: string, interval_s: number, late_after_s: number,
 * stale_after_s: number, max_sessions: number, go2rtc: string|null,
 * host: string|null, from_owner: boolean,
 *   latest: Latest|null, age_s: number|null, asked_at: number}} Camera `age_s` is the age of the
 *   newest picture at `asked_at` (performance.now()): a clock that is set changes no age
 * @typedef {{holder: string, label: string, pid: number|null, for_s: number}} Holder
 * @typedef {{device: string, max_sessions: number, held: Holder[]}} Device
 * @typedef {{path: string, taken_at: number, bytes: number}} Picture
 * @typedef {{captured_at: string|null, width: number|null, height: number|null}} Own what a picture
 * says of itself
 */

/**
 * @param {Camera} camera @param {number} now milliseconds of performance.now()
 * @returns {number|null} seconds
 */
export function age(camera, now) {
  return camera.age_s === null ? null : camera.age_s + Math.max(0, now - camera.asked_at) / 1000;
}

/** @param {Camera} camera @param {number} now @returns {"fresh"|"late"|"stale"|"never"} */
export function freshness(camera, now) {
  const seconds = age(camera, now);
  if (seconds === null) return "never";
  if (seconds > camera.stale_after_s) return "stale";
  return seconds > camera.late_after_s ? "late" : "fresh";
}

/** @param {Camera} camera */
export function failing(camera) {
  return camera.latest !== null && camera.latest.attempt.result !== "ok";
}

/** @param {Camera} camera whether its pictures do not show what they should */
export function suspect(camera) {
  return Boolean(camera.latest?.health?.label);
}

/**
 * Why there is no newer picture, or what is wrong with the newest one; "" when there is nothing to
 * say.
 * @param {Camera} camera @param {number} now @param {string} timeZone
 */
export function label(camera, now, timeZone) {
  if (!camera.from_owner)
    return camera.host ? `no news from host ${camera.host}` : "no host has it";
  if (camera.latest === null) return "";
  if (!failing(camera)) return suspicion(camera, now, timeZone);
  const { result, error, label } = camera.latest.attempt;
  return label ?? error ?? result;
}

/** @param {Camera} camera @param {number} now @param {string} timeZone */
function suspicion(camera, now, timeZone) {
  const { label, since } = camera.latest?.health ?? {};
  if (!label || !since) return "";
  return `${freshness(camera, now)}, but ${label} since ${moment(new Date(since), timeZone)}`;
}

/** @param {Date} moment @param {string} timeZone the time of day, with the date if it is older */
function moment(moment, timeZone) {
  const time = /** @type {const} */ ({ hour: "2-digit", minute: "2-digit", timeZone });
  const day = /** @type {const} */ ({ day: "numeric", month: "short" });
  const isOld = Date.now() - moment.getTime() > 20 * 3600 * 1000;
  return moment.toLocaleString(undefined, isOld ? { ...day, ...time } : time);
}

/**
 * Where a camera stands on the wall, the worst first: 0 has never had a picture, 1 is stale, 2
 * late, 3 fresh but failing, 4 fresh but suspect, 5 well.
 * @param {Camera} camera @param {number} now
 */
export function rank(camera, now) {
  const state = freshness(camera, now);
  if (state !== "fresh") return { never: 0, stale: 1, late: 2 }[state];
  return failing(camera) ? 3 : suspect(camera) ? 4 : 5;
}

/**
 * Whether a browser at `here` can reach an address: a loopback address is only this machine's own.
 * @param {string} url @param {string} here the host name in the page's own address
 */
export function reachable(url, here) {
  return isLoopback(here) || !isLoopback(new URL(url).hostname);
}

/** @param {string} host */
function isLoopback(host) {
  return (
    ["localhost", "0.0.0.0", "[::]"].includes(host) ||
    host.endsWith(".localhost") ||
    host === "[::1]" ||
    /^127(\.\d+){3}$/.test(host)
  );
}

/** @param {number|null} seconds */
export function span(seconds) {
  if (seconds === null) return "never";
  if (seconds < 90) return `${Math.floor(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

/** @param {Date} moment @param {string} timeZone */
function date(moment, timeZone) {
  return moment.toLocaleString(undefined, { timeZone, timeZoneName: "short" });
}

/**
 * Facts of an archived picture, and nothing of the camera's newest one.
 * @param {Picture} picture @param {Own|null} own
 * @param {string} timeZone @returns {[string, string][]}
 */
export function archivedTable(picture, own, timeZone) {
  return [
    ["Captured", date(new Date(own?.captured_at ?? picture.taken_at * 1000), timeZone)],
    ["Picture", own?.width ? `${own.width}×${own.height}` : "–"],
    ["Size", `${Math.round(picture.bytes / 1024)} KB`],
    ["Archive", picture.path],
  ];
}

/**
 * @param {Camera} camera @param {Device|undefined} device @param {string} timeZone @returns
 * {[string, string][]}
 */
export function table(camera, device, timeZone) {
  const l = camera.latest;
  /** @type {(value: number|null|undefined, unit: string, digits?: number) => string} */
  const number = (value, unit, digits = 0) =>
    value === null || value === undefined ? "–" : `${value.toFixed(digits)} ${unit}`;
  const held = device?.held
    .map((h) => `${h.holder} ${h.label}${h.pid ? ` (pid ${h.pid})` : ""}`)
    .join(", ");
  return [
    ["Captured", l?.captured_at ? date(new Date(l.captured_at), timeZone) : "never"],
    ["Source", [l?.source, l?.engine].filter(Boolean).join(", ") || "–"],
    ["Picture", l?.width ? `${l.width}×${l.height} ${l.codec ?? ""}` : "–"],
    ["Size", l?.bytes ? `${Math.round(l.bytes / 1024)} KB` : "–"],
    ["Capture", number(l?.capture_ms, "ms")],
    ["Waited for a session", number(l?.lease_wait_ms, "ms")],
    [
      "Camera's clock",
      l?.camera_clock_offset_s == null
        ? "–"
        : `${l.camera_clock_offset_s >= 0 ? "+" : ""}${number(l.camera_clock_offset_s, "s", 1)}`,
    ],
    ["Picture's health", l?.health?.state ?? "–"],
    ["Failures in a row", String(l?.consecutive_failures ?? 0)],
    ["Interval", span(camera.interval_s)],
    ["Sessions", `${device?.held.length ?? 0} of ${camera.max_sessions}${held ? `: ${held}` : ""}`],
    ["Device", camera.device],
    ["Last result", l?.attempt.result ?? "–"],
  ];
}
