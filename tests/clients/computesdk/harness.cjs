// What the tours share: steps that are told one by one, and which methods of the client were called.
'use strict';
const assert = require('node:assert/strict');

const results = [];
const called = new Map();
const until = Date.now() + 1000 * Number(process.env.TOUR_S || 100);

/** Runs one step; a later one does not run when `needs` is missing. A failure is told, and the tour goes on. */
async function step(name, work) {
  const began = Date.now();
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error('took too long')), Math.min(25000, Math.max(1000, until - began)));
  });
  try {
    const value = await Promise.race([work(), late]);
    results.push({ name, ok: true, ms: Date.now() - began });
    return value;
  } catch (error) {
    results.push({ name, ok: false, error: String((error && (error.stack || error.message)) || error).slice(0, 1500) });
    return undefined;
  } finally {
    clearTimeout(timer);
  }
}

/** Notes each call of the class's own methods, under `label.method`; the methods stay what they are. */
function note(label, prototype) {
  for (const name of Object.getOwnPropertyNames(prototype)) {
    const described = Object.getOwnPropertyDescriptor(prototype, name);
    const key = `${label}.${name}`;
    if (name === 'constructor' || called.has(key)) continue;
    if (typeof described.value === 'function') {
      called.set(key, 0);
      const method = described.value;
      prototype[name] = function (...words) {
        called.set(key, called.get(key) + 1);
        return method.apply(this, words);
      };
    } else if (described.get) {
      called.set(key, 0);
      Object.defineProperty(prototype, name, {
        ...described,
        get() {
          called.set(key, called.get(key) + 1);
          return described.get.call(this);
        },
      });
    }
  }
}

/** The same for functions that are properties of an object. */
function noteObject(label, object) {
  for (const [name, value] of Object.entries(object)) {
    if (typeof value !== 'function') continue;
    const key = `${label}.${name}`;
    called.set(key, 0);
    object[name] = (...words) => {
      called.set(key, called.get(key) + 1);
      return value(...words);
    };
  }
}

/** Waits until `look` gives something. */
async function eventually(look, what, ms = 8000) {
  const end = Date.now() + ms;
  for (;;) {
    const found = await look();
    if (found) return found;
    if (Date.now() > end) throw new Error(`not within ${ms} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 30));
  }
}

/** The whole tour; its outcome is one line of JSON. */
async function tour(work) {
  try {
    await work();
  } catch (error) {
    results.push({ name: 'the tour itself', ok: false, error: String(error.stack || error) });
  }
  const uncalled = [...called].filter(([, times]) => times === 0).map(([key]) => key);
  console.log(JSON.stringify({ results, uncalled, called: called.size }));
  process.exit(0);
}

module.exports = { assert, step, note, noteObject, eventually, tour };
