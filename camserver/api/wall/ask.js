// Requests to camserver. Relative addresses would take the page's user name and password along,
// which browsers refuse.
// @ts-check

/** @param {string} path @param {RequestInit} [init] */
export function ask(path, init) {
  return fetch(new URL(path, location.origin), init);
}

/**
 * JSON of a route.
 * @template T
 * @param {string} path
 * @param {T} otherwise what it is when camserver does not answer
 * @returns {Promise<T>}
 */
export async function json(path, otherwise) {
  try {
    const answer = await ask(path);
    return answer.ok ? await answer.json() : otherwise;
  } catch {
    return otherwise;
  }
}
