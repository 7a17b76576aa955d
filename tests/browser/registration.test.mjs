// A server without an OAuth app: each machine's login gets a client of its own at Postiz, which people know by the machine's name.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { CONFIRM, authorize, confirm, expectAccessible, expectPage, launch, open } from './browser.mjs';
import { startPostgres, startServer } from './processes.mjs';
import { startLogin } from './terminal.mjs';

const SIGNED_IN = 'You are signed in';
const NO_APP = { POSTIZ_OAUTH_CLIENT_ID: '', POSTIZ_OAUTH_CLIENT_SECRET: '', SERVER_SECRET: 'a secret of the browser tests' };

let browser, postgres;
before(async () => {
  [browser, postgres] = await Promise.all([launch(), startPostgres()]);
});
after(() => Promise.all([browser.close(), postgres.end()]));

for (const store of ['embedded', 'PostgreSQL']) {
  describe(`on the store ${store}`, () => {
    /** A server and a page of a browser that is signed in to its Postiz. */
    async function begin(t, options = {}) {
      const database = store === 'PostgreSQL' ? postgres.url : undefined;
      const server = await startServer(t, { database, env: NO_APP, ...options });
      const page = await (await open(t, browser, { signedInTo: server.postiz.url })).newPage();
      return { server, page };
    }

    test('two machines are signed in at the same time, and each is ended by its own name', async (t) => {
      const { server, page } = await begin(t);
      const logins = [];
      for (const machine of ['ada-laptop', 'ada-desk.example.com']) {
        const login = await startLogin(server.url, { machine });
        const name = machine.split('.')[0];
        await page.goto(login.link);
        await expectPage(page, CONFIRM);
        await expectAccessible(page);
        const text = await page.getByRole('main').innerText();
        assert.ok(text.includes(`calls itself ${name}`), text);
        assert.ok(!text.includes('ends an earlier login'), text);
        await page.getByRole('button', { name: 'Continue' }).click();
        await page.getByRole('heading', { name: `Authorize Postiz CLI on ${name}?` }).waitFor();
        await authorize(page);
        await expectPage(page, SIGNED_IN);
        assert.equal(await login.outcome(), 'signed in');
        logins.push(login);
      }
      const work = () => Promise.all(logins.map((login) => login.tokenWorksAt(server.postiz.url)));
      assert.deepEqual(await work(), [true, true]);
      await page.goto(`${server.postiz.url}/settings/approved-apps`);
      await page.getByRole('button', { name: 'Revoke Postiz CLI on ada-laptop' }).click();
      await page.getByRole('button', { name: 'Revoke Postiz CLI on ada-laptop' }).waitFor({ state: 'detached' });
      assert.deepEqual(await work(), [false, true]);
    });

    test('a person who is signed out of Postiz keeps the consent page, by a double click', async (t) => {
      const { server, page } = await begin(t);
      await page.context().clearCookies();
      const login = await startLogin(server.url);
      await page.goto(login.link);
      await page.getByRole('button', { name: 'Continue' }).dblclick({ noWaitAfter: true });
      await page.getByRole('button', { name: 'Sign in' }).click();
      await authorize(page);
      await expectPage(page, SIGNED_IN);
      assert.equal(await login.outcome(), 'signed in');
    });
  });
}

test('what a stranger calls his machine is a name or not there', async (t) => {
  const server = await startServer(t, { env: NO_APP });
  const page = await (await open(t, browser, { signedInTo: server.postiz.url })).newPage();
  for (const machine of [
    '<img src=x onerror=alert(1)>',
    'Your account is locked, call 555-0100',
    '\u202egnp.ptpal',
    'x'.repeat(5_000),
    7,
    ['ada-laptop'],
  ]) {
    const login = await startLogin(server.url, { machine });
    await page.goto(login.link);
    await expectPage(page, CONFIRM);
    const text = await page.getByRole('main').innerText();
    assert.ok(!text.includes('Machine'), text);
    await page.getByRole('button', { name: 'Continue' }).click();
    await page.getByRole('heading', { name: 'Authorize Postiz CLI?' }).waitFor();
  }
});

test('a Postiz that registers nobody is told in words', async (t) => {
  const server = await startServer(t, { env: NO_APP, registration: 'too-old' });
  const page = await (await open(t, browser, { signedInTo: server.postiz.url })).newPage();
  const login = await startLogin(server.url);
  await page.goto(login.link);
  await confirm(page);
  await expectPage(page, 'This server is not set up correctly');
  await expectAccessible(page);
  assert.equal(await login.poll(), 'authorization_pending');
});

test('where there is an app, its page says what a login ends', async (t) => {
  const server = await startServer(t);
  const page = await (await open(t, browser, { signedInTo: server.postiz.url })).newPage();
  await page.goto((await startLogin(server.url, { machine: 'ada-laptop' })).link);
  await page.getByText('Signing in here ends an earlier login').waitFor();
  await page.getByText('calls itself ada-laptop').waitFor();
  await expectAccessible(page);
});
