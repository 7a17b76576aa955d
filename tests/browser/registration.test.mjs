// A server without an OAuth app: each machine's login has its own client at Postiz, whose name has the machine's name.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { CONFIRM, authorize, confirm, expectAccessible, expectPage, open } from './browser.mjs';
import { startServer } from './processes.mjs';
import { onEachStore } from './stores.mjs';
import { startLogin } from './terminal.mjs';

const SIGNED_IN = 'You are signed in';
const NO_APP = { POSTIZ_OAUTH_CLIENT_ID: '', POSTIZ_OAUTH_CLIENT_SECRET: '', SERVER_SECRET: 'a secret of the browser tests' };

const browser = onEachStore((setUp) => {
  const begin = (t, options) => setUp(t, { env: NO_APP, ...options });

  test('two machines are signed in at the same time, and each is revoked by its own name', async (t) => {
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

  test('signed-out person returns to the consent page after a double click', async (t) => {
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

test('machine name is shown only if it looks like one', async (t) => {
  const server = await startServer(t, { env: NO_APP });
  const page = await (await open(t, browser(), { signedInTo: server.postiz.url })).newPage();
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

test('Postiz without registration is reported', async (t) => {
  const server = await startServer(t, { env: NO_APP, registration: 'too-old' });
  const page = await (await open(t, browser(), { signedInTo: server.postiz.url })).newPage();
  const login = await startLogin(server.url);
  await page.goto(login.link);
  await confirm(page);
  await expectPage(page, 'This server is not set up correctly');
  await expectAccessible(page);
  assert.equal(await login.poll(), 'authorization_pending');
});

test('confirm page with an app warns that the login ends an earlier one', async (t) => {
  const server = await startServer(t);
  const page = await (await open(t, browser(), { signedInTo: server.postiz.url })).newPage();
  await page.goto((await startLogin(server.url, { machine: 'ada-laptop' })).link);
  await page.getByText('Signing in here ends an earlier login').waitFor();
  await page.getByText('calls itself ada-laptop').waitFor();
  await expectAccessible(page);
});
