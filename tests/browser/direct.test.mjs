// Logins of the CLI at Postiz directly, without an auth server, and beside it by an auth server without an OAuth app.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, test } from 'node:test';

import { authorize, confirm, expectAccessible, expectPage, launch, open } from './browser.mjs';
import { startCli, startPostiz, startServer, temporaryFolder } from './processes.mjs';
import { tokenWorks } from './terminal.mjs';

const NO_APP = { POSTIZ_OAUTH_CLIENT_ID: '', POSTIZ_OAUTH_CLIENT_SECRET: '' };

let browser;
before(async () => {
  browser = await launch();
});
after(() => browser.close());

/** A machine called `name`, whose CLI logs in at `postiz` (its `POSTIZ_API_URL`), or as `args` say. */
async function machine(t, name, { postiz, args = [] }) {
  const HOME = await temporaryFolder();
  const environment = { HOME, ...(postiz && { POSTIZ_API_URL: `${postiz.url}/api` }) };
  return {
    /** Starts a login. */
    login: () => startCli(t, ['auth:login', '--json', '--no-browser', '--machine', name, ...args], environment),
    async token() {
      return JSON.parse(await readFile(path.join(HOME, '.postiz/credentials.json'), 'utf8')).accessToken;
    },
  };
}

test('direct login and login by an auth server are independent, and each is revoked by its name', async (t) => {
  const server = await startServer(t, { env: NO_APP });
  const { postiz } = server;
  const page = await (await open(t, browser, { signedInTo: postiz.url })).newPage();

  const laptop = await machine(t, 'ada-laptop', { postiz });
  const direct = laptop.login();
  const { event, url } = await direct.next();
  assert.equal(event, 'open');
  await page.goto(url);
  await page.getByRole('heading', { name: 'Authorize Postiz CLI on ada-laptop?' }).waitFor();
  await authorize(page);
  await expectPage(page, 'You are signed in');
  await expectAccessible(page);
  assert.equal((await direct.next()).event, 'done');
  assert.equal(await direct.exitCode(), 0);

  const remote = await machine(t, 'ada-server', { args: ['--auth-server', server.url] });
  const flow = remote.login();
  await page.goto((await flow.next()).verification_uri_complete);
  await confirm(page);
  await page.getByRole('heading', { name: 'Authorize Postiz CLI on ada-server?' }).waitFor();
  await authorize(page);
  await expectPage(page, 'You are signed in');
  assert.equal((await flow.next()).event, 'done');
  assert.equal(await flow.exitCode(), 0);

  const tokens = [await laptop.token(), await remote.token()];
  const work = () => Promise.all(tokens.map((token) => tokenWorks(postiz.url, token)));
  assert.deepEqual(await work(), [true, true]);
  await page.goto(`${postiz.url}/settings/approved-apps`);
  for (const [name, left] of [['ada-laptop', [false, true]], ['ada-server', [false, false]]]) {
    const button = page.getByRole('button', { name: `Revoke Postiz CLI on ${name}` });
    await button.click();
    await button.waitFor({ state: 'detached' });
    assert.deepEqual(await work(), left);
  }
});

test('signed-out person signs in first, and the next login reuses the client', async (t) => {
  const postiz = await startPostiz(t);
  const page = await (await open(t, browser)).newPage();
  const laptop = await machine(t, 'ada-laptop', { postiz });
  const first = laptop.login();
  await page.goto((await first.next()).url);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await authorize(page);
  await expectPage(page, 'You are signed in');
  assert.equal(await first.exitCode(), 0);

  const second = laptop.login();
  await page.goto((await second.next()).url);
  await authorize(page);
  await expectPage(page, 'You are signed in');
  assert.equal(await second.exitCode(), 0);
  await page.goto(`${postiz.url}/settings/approved-apps`);
  assert.equal(await page.getByRole('button', { name: 'Revoke Postiz CLI on ada-laptop' }).count(), 1);
});

test('refusal is shown in the browser and in the terminal', async (t) => {
  const postiz = await startPostiz(t);
  const page = await (await open(t, browser, { signedInTo: postiz.url })).newPage();
  const login = (await machine(t, 'ada-laptop', { postiz })).login();
  await page.goto((await login.next()).url);
  await page.getByRole('button', { name: 'Deny' }).click();
  await expectPage(page, 'You refused this login');
  await expectAccessible(page);
  assert.equal((await login.next()).error, 'access_denied');
  assert.equal(await login.exitCode(), 1);
});

test('self-hosted instance chosen in the cloud is refused with an explanation', async (t) => {
  const postiz = await startPostiz(t, { relay: true });
  const page = await (await open(t, browser, { signedInTo: postiz.url })).newPage();
  const login = (await machine(t, 'ada-laptop', { postiz })).login();
  await page.goto((await login.next()).url);
  await page.getByRole('button', { name: 'Use a self-hosted instance' }).click();
  await expectPage(page, 'That did not work');
  await expectAccessible(page);
  assert.equal((await login.next()).error, 'self_hosted_relay');
});

test('other sites in the same browser neither end nor delay a login', async (t) => {
  const postiz = await startPostiz(t);
  const context = await open(t, browser, { signedInTo: postiz.url });
  const [page, attacker] = [await context.newPage(), await context.newPage()];
  const login = (await machine(t, 'ada-laptop', { postiz })).login();
  const { url } = await login.next();
  const callback = new URL(url).searchParams.get('redirect_uri');
  for (const query of ['', '?code=stolen&state=guessed', '?error=access_denied&state=guessed', '?code=stolen']) {
    const answer = await attacker.goto(callback + query);
    assert.equal(answer.status(), 404);
  }
  // Many simultaneous requests that a page may send across origins, with a long header.
  await attacker.goto(`${postiz.url}/auth`);
  await attacker.evaluate(async (callback) => {
    const send = (n) => fetch(`${callback}?n=${n}&x=${'x'.repeat(5_000)}`, { mode: 'no-cors', method: n % 2 ? 'POST' : 'GET', body: n % 2 ? 'code=stolen' : undefined });
    await Promise.allSettled(Array.from({ length: 30 }, (_, n) => send(n)));
  }, callback);
  await page.goto(url);
  await authorize(page);
  await expectPage(page, 'You are signed in');
  assert.equal((await login.next()).event, 'done');
  assert.equal(await login.exitCode(), 0);
});
