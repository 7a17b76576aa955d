// Runs tests on both stores, with one browser and one PostgreSQL for a test file.

import { after, before, describe } from 'node:test';

import { launch, open } from './browser.mjs';
import { startPostgres, startServer } from './processes.mjs';

/**
 * Calls `define(setUp)` for each store, to define its tests. `setUp(t, options, profile)` starts a server with `options`, and opens
 * a page of a browser that is signed in to its Postiz, unless `profile` says otherwise. Returns a function that returns the browser.
 */
export function onEachStore(define) {
  let browser, postgres;
  before(async () => {
    [browser, postgres] = await Promise.all([launch(), startPostgres()]);
  });
  after(() => Promise.all([browser.close(), postgres.end()]));
  for (const store of ['embedded', 'PostgreSQL']) {
    describe(`on the store ${store}`, () => {
      define(async (t, options = {}, profile = {}) => {
        const server = await startServer(t, { database: store === 'PostgreSQL' ? postgres.url : undefined, ...options });
        const context = await open(t, browser, { signedInTo: server.postiz.url, ...profile });
        return { server, context, page: await context.newPage() };
      });
    });
  }
  return () => browser;
}
