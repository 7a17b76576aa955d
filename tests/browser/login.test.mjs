// Whole logins by mouse and keyboard, on both stores: the usual one, refusals, wrong codes, reloads, and going back.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { test } from 'node:test';

import { CONFIRM, authorize, confirm, enterCode, expectAccessible, expectPage, open } from './browser.mjs';
import { run, startServer, temporaryFolder } from './processes.mjs';
import { onEachStore } from './stores.mjs';
import { startLogin } from './terminal.mjs';

const ENTER = 'Enter the code from your terminal';
const SIGNED_IN = 'You are signed in';
const REFUSED = 'You refused this login';
const FAILED = 'That did not work';

const browser = onEachStore((setUp) => {
  /** A server, a login that was started on it, and a page of a browser that is signed in to Postiz unless `profile` says otherwise. */
  async function begin(t, profile) {
    const started = await setUp(t, {}, profile);
    return { ...started, login: await startLogin(started.server.url) };
  }

  test('login with a typed code, sign-in and consent', async (t) => {
    const { server, page, login } = await begin(t, { signedInTo: undefined });
    await page.goto(server.url);
    await expectPage(page, ENTER);
    await expectAccessible(page);
    await enterCode(page, login.code);
    assert.equal(await login.poll(), 'authorization_pending');
    await confirm(page);
    await page.getByRole('button', { name: 'Sign in' }).click();
    await authorize(page);
    await expectPage(page, SIGNED_IN);
    await expectAccessible(page);
    assert.equal(await login.outcome(), 'signed in');
  });

  test('link with the code shows the code and the client, and needs a click', async (t) => {
    const { page, login } = await begin(t);
    await page.goto(login.link);
    await expectPage(page, CONFIRM);
    await expectAccessible(page);
    const text = await page.getByRole('main').innerText();
    for (const part of [login.code, 'less than a minute ago', 'postiz/0.0.0 (browser tests)', '127.0.0.1']) {
      assert.ok(text.includes(part), `${part} in ${text}`);
    }
    assert.equal(await login.poll(), 'authorization_pending');
    await page.getByRole('button', { name: 'Continue' }).click();
    await finish(page, login);
  });

  test('refusal after typing the code', async (t) => {
    const { page, login } = await begin(t);
    await page.goto(login.page);
    await enterCode(page, login.code);
    await expectPage(page, CONFIRM);
    await page.getByRole('button', { name: 'Refuse' }).click();
    await expectPage(page, REFUSED);
    assert.equal(await login.poll(), 'access_denied');
  });

  test('refusal on the confirm page', async (t) => {
    const { page, login } = await begin(t);
    await page.goto(login.link);
    await page.getByRole('button', { name: 'Refuse' }).click();
    await expectPage(page, REFUSED);
    await expectAccessible(page);
    assert.equal(await login.poll(), 'access_denied');
  });

  test('refusal at Postiz', async (t) => {
    const { page, login } = await begin(t);
    await page.goto(login.page);
    await enterCode(page, login.code);
    await confirm(page);
    await page.getByRole('button', { name: 'Deny' }).click();
    await expectPage(page, REFUSED);
    assert.equal(await login.poll(), 'access_denied');
  });

  test('wrong code and empty code, then the right one', async (t) => {
    const { page, login } = await begin(t);
    await page.goto(login.page);
    await enterCode(page, 'BCDF-GHJK');
    await expectPage(page, FAILED);
    await expectAccessible(page);
    assert.ok((await page.getByRole('alert').innerText()).startsWith('This code is mistyped'));
    await enterCode(page, '');
    await page.getByText('The field was empty').waitFor();
    await enterCode(page, login.code);
    await confirm(page);
    await finish(page, login);
  });

  test('code in every spelling that may be typed or pasted', async (t) => {
    const { page, login } = await begin(t);
    const [left, right] = login.code.split('-');
    const ways = [
      `${left}${right}`.toLowerCase(),
      ` ${left} - ${right} `,
      `${left}–${right}`,
      `${left}\u00a0${right}`,
      `code: ${left}${right}.`,
      login.link,
      ` ${login.link.replace('user_code', 'code')}\n`,
      `${login.page}?code=${login.code}`,
    ];
    for (const way of ways) {
      await page.goto(login.page);
      await enterCode(page, way);
      await expectPage(page, CONFIRM);
      assert.ok((await page.getByRole('main').innerText()).includes(login.code), way);
    }
    await confirm(page);
    await finish(page, login);
  });

  test('double click', async (t) => {
    const { page, login } = await begin(t);
    await page.goto(login.link);
    await page.getByRole('button', { name: 'Continue' }).dblclick({ noWaitAfter: true });
    await page.getByRole('button', { name: 'Authorize' }).dblclick({ noWaitAfter: true });
    await expectPage(page, SIGNED_IN);
    assert.equal(await login.outcome(), 'signed in');
  });

  test('going back from Postiz, and forward again', async (t) => {
    const { page, login } = await begin(t);
    await page.goto(login.link);
    await page.getByRole('button', { name: 'Continue' }).click();
    await page.getByRole('button', { name: 'Authorize' }).waitFor();
    await page.goBack();
    await expectPage(page, CONFIRM);
    await page.getByRole('button', { name: 'Continue' }).click();
    await finish(page, login);
  });

  test('last page stays after a reload and after going back to it', async (t) => {
    const { page, login } = await begin(t);
    await page.goto(login.page);
    await enterCode(page, login.code);
    await confirm(page);
    await authorize(page);
    await expectPage(page, SIGNED_IN);
    await page.reload();
    await expectPage(page, SIGNED_IN);
    await page.goBack();
    await page.getByRole('button', { name: 'Authorize' }).waitFor();
    await page.goForward();
    await expectPage(page, SIGNED_IN);
    assert.equal(await login.outcome(), 'signed in');
  });

  test('used code', async (t) => {
    const { page, login } = await begin(t);
    await page.goto(login.page);
    await enterCode(page, login.code);
    await confirm(page);
    await finish(page, login);
    await page.goto(login.page);
    await enterCode(page, login.code);
    await expectPage(page, FAILED);
    await page.goto(login.link);
    await expectPage(page, FAILED);
    assert.equal(await page.getByLabel('Code').inputValue(), login.code);
  });

  test('two interleaved logins in two tabs', async (t) => {
    const { server, context, page: first, login: one } = await begin(t);
    const [second, two] = [await context.newPage(), await startLogin(server.url)];
    for (const [page, login] of [[first, one], [second, two]]) {
      await page.goto(login.link);
      await page.getByRole('button', { name: 'Continue' }).click();
      await page.getByRole('button', { name: 'Authorize' }).waitFor();
    }
    for (const [page, login] of [[first, one], [second, two]]) {
      await finish(page, login);
    }
  });

  test('login with only the keyboard', async (t) => {
    const { page, login } = await begin(t);
    await page.goto(login.page);
    await page.locator('#user_code:focus').waitFor();
    await page.keyboard.type(login.code);
    await page.keyboard.press('Enter');
    await expectPage(page, CONFIRM);
    await pressByKey(page, 'Continue');
    await pressByKey(page, 'Authorize');
    await expectPage(page, SIGNED_IN);
    assert.equal(await login.outcome(), 'signed in');
  });

  test('refusal with only the keyboard', async (t) => {
    const { page, login } = await begin(t);
    await page.goto(login.link);
    await pressByKey(page, 'Refuse');
    await expectPage(page, REFUSED);
    assert.equal(await login.poll(), 'access_denied');
  });
});

test('CLI waits for the browser and signs in', async (t) => {
  const server = await startServer(t);
  const home = await temporaryFolder();
  const login = run('postiz', ['auth:login', '--auth-server', server.url, '--no-browser', '--json'], { HOME: home });
  const [line] = await once(createInterface({ input: login.child.stdout }), 'line');
  const page = await (await open(t, browser(), { signedInTo: server.postiz.url })).newPage();
  await page.goto(JSON.parse(line).verification_uri_complete);
  await page.getByRole('button', { name: 'Continue' }).click();
  await authorize(page);
  await expectPage(page, SIGNED_IN);
  const { stdout } = await login;
  assert.equal(JSON.parse(stdout.trim().split('\n').at(-1)).event, 'done');
});

/** Completes a login from Postiz' consent page on. */
async function finish(page, login) {
  await authorize(page);
  await expectPage(page, SIGNED_IN);
  assert.equal(await login.outcome(), 'signed in');
}

/** Moves the focus to a button with the tab key, checks that the focus is visible, and presses the button. */
async function pressByKey(page, name) {
  const button = page.getByRole('button', { name });
  await button.waitFor();
  for (let tabs = 0; tabs < 10; tabs++) {
    await page.keyboard.press('Tab');
    if (await button.evaluate((it) => it === document.activeElement)) {
      assert.notEqual(await button.evaluate((it) => getComputedStyle(it).outlineStyle), 'none');
      return page.keyboard.press('Enter');
    }
  }
  assert.fail(`the tab key does not reach ${name}`);
}
