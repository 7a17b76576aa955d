// Repeated and late requests: double clicks, two tabs of one login, a second callback during the exchange of the first.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { authorize, confirm, expectAccessible, expectPage, launch, open } from './browser.mjs';
import { countRequests, freePort, startServer, waitUntil } from './processes.mjs';
import { startProxy } from './sites.mjs';
import { startLogin } from './terminal.mjs';

const SIGNED_IN = 'You are signed in';
const FINISHING = 'Your sign-in is being finished';

let browser;
before(async () => {
  browser = await launch();
});
after(() => browser.close());

/** A login on a server behind a proxy that waits for `before(nth)` at each POST of the form; `posts` has one entry for each. */
async function beginBehindProxy(t, before) {
  const port = await freePort();
  let server;
  const posts = [];
  await startProxy(t, {
    port,
    to: () => server.port,
    before: ({ method, url }) => method === 'POST' && url === '/device/verify' && before(posts.push(url)),
  });
  server = await startServer(t, { publicUrl: () => `http://localhost:${port}` });
  const context = await open(t, browser, { signedInTo: server.postiz.url });
  return { server, posts, page: await context.newPage(), login: await startLogin(server.url) };
}

test('double click on Continue whose first request is 600 ms late', async (t) => {
  const { posts, page, login } = await beginBehindProxy(t, (nth) => nth === 1 && sleep(600));
  await page.goto(login.link);
  await doubleClick(page, 'Continue');
  await page.getByRole('button', { name: 'Authorize' }).waitFor();
  assert.ok(posts.length >= 2, 'the second click has sent the form, too');
  // Wait until the late request has arrived, too.
  await sleep(800);
  await authorize(page);
  await expectPage(page, SIGNED_IN);
  assert.equal(await login.outcome(), 'signed in');
});

test('double click on Continue whose first request arrives after the login', async (t) => {
  let arrive;
  const isOver = new Promise((resolve) => (arrive = resolve));
  const { server, posts, page, login } = await beginBehindProxy(t, (nth) => nth === 1 && isOver);
  await page.goto(login.link);
  await doubleClick(page, 'Continue');
  await authorize(page);
  await expectPage(page, SIGNED_IN);
  assert.ok(posts.length >= 2, 'the second click has sent the form, too');
  arrive();
  await waitUntil(() => countRequests(server, 'POST', '/device/verify', 400) === 1);
  await page.reload();
  await expectPage(page, SIGNED_IN);
  assert.equal(await login.outcome(), 'signed in');
});

test('double click on Refuse whose first request arrives after the refusal', async (t) => {
  let arrive;
  const isOver = new Promise((resolve) => (arrive = resolve));
  const { server, posts, page, login } = await beginBehindProxy(t, (nth) => nth === 1 && isOver);
  await page.goto(login.link);
  await doubleClick(page, 'Refuse');
  await expectPage(page, 'You refused this login');
  assert.ok(posts.length >= 2, 'the second click has sent the form, too');
  arrive();
  await waitUntil(() => countRequests(server, 'POST', '/device/verify', 400) === 1);
  assert.equal(await login.poll(), 'access_denied');
});

/** Two tabs with the confirm page of the same login. */
async function beginInTwoTabs(t) {
  const server = await startServer(t);
  const context = await open(t, browser, { signedInTo: server.postiz.url });
  const login = await startLogin(server.url);
  const tabs = [await context.newPage(), await context.newPage()];
  for (const page of tabs) await page.goto(login.link);
  return { server, login, tabs };
}

/** Completes the login in both tabs, one after the other. */
async function finishInBoth(tabs) {
  for (const page of tabs) {
    await confirm(page);
    await page.getByRole('button', { name: 'Authorize' }).waitFor();
  }
  for (const page of tabs) {
    await authorize(page);
    await expectPage(page, SIGNED_IN);
  }
}

test('two tabs with the same code both succeed', async (t) => {
  const { login, tabs } = await beginInTwoTabs(t);
  await finishInBoth(tabs);
  assert.equal(await login.outcome(), 'signed in');
});

// A second consent of the same person makes Postiz revoke the first token, so the second one must be delivered.
test('two tabs with the same code yield a valid token', async (t) => {
  const { server, login, tabs } = await beginInTwoTabs(t);
  await finishInBoth(tabs);
  assert.equal(await login.outcome(), 'signed in');
  assert.equal(await login.tokenWorksAt(server.postiz.url), true);
});

test('second of two tabs with the same code is confirmed after the login', async (t) => {
  const { server, login, tabs: [first, second] } = await beginInTwoTabs(t);
  await confirm(first);
  await authorize(first);
  await expectPage(first, SIGNED_IN);
  await confirm(second);
  // The code is used; the login stays completed.
  await expectPage(second, 'That did not work');
  assert.equal(await login.outcome(), 'signed in');
  assert.equal(await login.tokenWorksAt(server.postiz.url), true);
});

for (const javaScriptEnabled of [true, false]) {
  test(`second callback during the exchange of the first, scripts ${javaScriptEnabled ? 'on' : 'off'}`, async (t) => {
    const port = await freePort();
    let server, finish;
    const isFinished = new Promise((resolve) => (finish = resolve));
    const exchanges = [];
    // Postiz answers slowly.
    await startProxy(t, {
      port,
      to: () => new URL(server.postiz.url).port,
      after: ({ url }) => exchanges.push(url) && isFinished,
    });
    server = await startServer(t, { env: { POSTIZ_API_URL: `http://127.0.0.1:${port}` } });
    const context = await open(t, browser, { signedInTo: server.postiz.url, javaScriptEnabled });
    const login = await startLogin(server.url);
    const [first, second] = [await context.newPage(), await context.newPage()];
    await first.goto(login.link);
    await confirm(first);
    const isSent = first.waitForRequest(`${server.url}/device/callback?**`);
    await first.getByRole('button', { name: 'Authorize' }).click({ noWaitAfter: true });
    const wayBack = (await isSent).url();
    await waitUntil(() => exchanges.length === 1);

    const loads = [];
    second.on('load', () => loads.push(Date.now()));
    await second.goto(wayBack);
    await expectPage(second, FINISHING);
    if (javaScriptEnabled) await expectAccessible(second, { reloads: true });
    assert.equal(await login.poll(), 'authorization_pending');
    // The page reloads itself until the exchange is finished.
    await waitUntil(() => loads.length >= 2);
    assert.ok(loads[1] - loads[0] >= 1900, `${loads[1] - loads[0]} ms`);
    await expectPage(second, FINISHING);
    finish();
    await expectPage(first, SIGNED_IN);
    await expectPage(second, SIGNED_IN);
    assert.equal(second.url(), wayBack);
    assert.deepEqual(exchanges, ['/oauth/token']);
    assert.equal(await login.outcome(), 'signed in');
    // The last page stays.
    const seen = loads.length;
    await sleep(2500);
    assert.equal(loads.length, seen);
  });
}

/** Two clicks; the first one has sent its request when the second one follows. */
async function doubleClick(page, name) {
  const { x, y, width, height } = await page.getByRole('button', { name }).boundingBox();
  const at = [x + width / 2, y + height / 2];
  await page.mouse.click(...at);
  await sleep(150);
  await page.mouse.click(...at, { clickCount: 2 });
}
